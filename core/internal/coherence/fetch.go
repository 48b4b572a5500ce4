package coherence

import (
	"context"
	"math/bits"
	"slices"
	"sync"
	"time"

	"github.com/larderhq/larder/core/internal/tier"
)

// Query is what a turn asks of the shared tier before it loads.
type Query struct {
	Codec Codec
	// Key is where the entry is, if not under the turn's own key. It is of the same
	// name.
	Key  string
	Wait time.Duration // how long another instance's load is waited for
	// Anew asks for the lease only: what is there must not be answered. Seen is an
	// entry that is to be replaced.
	Anew bool
	Seen *Entry
	// Background gives up where somebody else loads.
	Background bool
	// Leads: a Fetch follows a Look, which can leave the question to it.
	Leads bool
	// Queue says that changes of the key may be queued.
	Queue bool

	looks bool // it is a Look's
}

// Found is what came of a Query.
type Found struct {
	Entry *Entry // nil: none; the caller loads
	State State
	Busy  bool // another instance loads, and Query.Background was set
	// Queued is a change of the key that is not where the value is loaded from: it is
	// the value. Where it comes with a lease, it may be filled in.
	Queued *tier.Queued
	// fenced: there is an entry, and something that concerns it was heard of while it was
	// read.
	fenced bool
}

// Fetch asks the shared tier for the value of the turn's key, and takes the lease
// to fill it where it has none. Without a lease what is loaded will be answered
// and shared in this process, and stored nowhere. It never fails: a tier that
// cannot be asked is one that has nothing.
func (t *Turn) Fetch(ctx context.Context, q Query) Found {
	s := t.e.shared
	if s == nil {
		return Found{Queued: t.e.queued(t.key)}
	}
	f, done := Found{}, false
	if t.refused != nil {
		q.Seen, q.Anew = t.refused, true
	}
	if t.asked == nil || q.Anew {
		f, done = t.ask(ctx, q)
	}
	t.asked.q = q
	if !done {
		f = t.asked.acquire(ctx)
	}
	if !usable(f) {
		t.restart()
		t.lead()
	}
	if q.Queue && f == (Found{}) && t.held == nil && !t.asked.answered {
		f.Queued = s.ownChange(t.key)
	}
	if t.Missed() {
		t.e.Count.OverBudget.Add(1)
	}
	return f
}

// Missed reports whether the turn has no lease for want of time alone: what it loads
// can be stored by a load behind the response (Later).
func (t *Turn) Missed() bool {
	return t.held == nil && t.asked != nil && t.asked.budget.over && !t.behind
}

// Refuse says that the entry that was found is of no use: the next Fetch asks for
// the lease to replace it.
func (t *Turn) Refuse(en *Entry) { t.refused = en }

// Look is the first step of Fetch, which goes on where this ended: it reads, and
// takes no lease. It waits for no longer than the budget, whatever becomes of the
// client.
func (t *Turn) Look(ctx context.Context, q Query) Found {
	if t.e.shared == nil {
		return Found{}
	}
	q.looks = true
	f, _ := t.ask(context.WithoutCancel(ctx), q)
	return f
}

// allowance is how long the turn may wait for the tier in all.
func (t *Turn) allowance() time.Duration {
	if t.behind {
		return behindWait
	}
	return t.e.shared.Budget * time.Duration(max(1, t.patience))
}

// ask begins to ask, by reading the entry unless it is known. done: there is nothing
// more to ask for.
func (t *Turn) ask(ctx context.Context, q Query) (f Found, done bool) {
	s := t.e.shared
	a := &asking{s: s, t: t, q: q, budget: budget{s: s, left: t.allowance()}, part: tier.Partition(Name(t.key), t.e.partitions())}
	if t.asked != nil {
		a.budget = t.asked.budget // one for all that a turn asks
	}
	t.asked = a
	if a.key = q.Key; a.key == "" {
		a.key = t.key
	}
	if q.Seen != nil {
		a.seen = q.Seen.id
	}
	if !q.Anew && q.Seen == nil && !a.inOne() {
		f, a.done = a.get(ctx)
	}
	return f, a.done
}

// inOne reports whether the entry is left to the question for the lease, which brings it
// where there is one: where round trips are dear.
func (a *asking) inOne() bool {
	return a.s.thrifty() && a.key == a.t.key && (a.q.Leads || !a.q.looks)
}

// restart registers the load anew, as it begins: what was invalidated while the
// tier was asked does not concern it.
func (t *Turn) restart() {
	l := t.Load
	t.Load = t.e.NewLoad(l.key, l.tags)
	t.made = l.made
	if t.held != nil {
		t.held.since = t.e.shared.places()
		t.held.began = t.Load.began
	}
}

// asking is one Fetch.
type asking struct {
	s      *shared
	t      *Turn
	q      Query
	key    string // of the entry
	budget budget
	part   int    // of the key
	seen   string // the id of an entry that is known and of no use
	done   bool   // without a lease
	// answered: the tier has said what is queued, or that nothing is.
	answered bool
	sent     int64 // when the last question for the entry was sent, on the engine's clock
}

// usable is what answers, and what a caller may answer while it refreshes.
func usable(f Found) bool { return f.Entry != nil && f.State >= Stale }

// get reads the entry: one command where this instance knows the generations of
// its tags.
func (a *asking) get(ctx context.Context) (Found, bool) {
	s, t := a.s, a.t
	ses, ok := s.askable(t.key, t.tags)
	if !ok {
		return Found{}, !a.q.Queue // without a lease
	}
	unknown := s.unknown(t.tags)
	var en tier.Entry
	var gens []string
	a.sent = s.e.Now()
	err := a.budget.use(ctx, func(ctx context.Context) (err error) {
		en, gens, err = ses.Get(ctx, a.key, unknown)
		return err
	})
	s.outcome(ctx, a.part, s.e.mask(t.key, unknown), err)
	if err != nil || len(gens) != len(unknown) {
		return Found{}, true
	}
	for i, tag := range unknown {
		s.learn(t.pos, tag, gens[i])
	}
	if en.ID == "" {
		return Found{}, false
	}
	a.seen = en.ID
	f := a.admit(ctx, ses, &en)
	return f, usable(f)
}

// maxAsks bounds how often a turn asks for the lease.
const maxAsks = 64

// acquire takes the lease, or what somebody else has stored meanwhile.
func (a *asking) acquire(ctx context.Context) Found {
	s, t := a.s, a.t
	until := time.Now().Add(a.q.Wait)
	back := func() {} // from waiting for another instance
	defer func() { back() }()
	away := false
	for range maxAsks {
		if a.done {
			return Found{}
		}
		ses, ok := s.askable(t.key, t.tags)
		if !ok {
			return a.untrusted(ctx)
		}
		// What was invalidated while it waited does not concern what comes now.
		t.Load = s.e.NewLoad(t.key, t.tags)
		ended, leave := s.wakes.listen(t.key)
		var l tier.Lease
		sent := s.e.Now()
		a.sent = sent
		err := a.budget.use(ctx, func(ctx context.Context) (err error) {
			l, err = ses.Acquire(ctx, t.key, a.seen, t.tags, t.lease())
			return err
		})
		received := s.e.Now()
		s.outcome(ctx, a.part, s.e.mask(t.key, t.tags), err)
		a.answered = a.answered || err == nil && l.Found.ID == ""
		switch {
		case err != nil:
			leave()
			return Found{}
		case l.Token != "" && len(l.Generations) == len(t.tags):
			leave()
			if !a.caughtUp(ctx, ses, &l) {
				s.e.giveBack(&held{e: s.e, ses: ses, lease: l})
				s.wake()
				return Found{Queued: l.Queued} // the place that it is loaded from is older yet
			}
			t.hold(ses, l, sent, received)
			return Found{Queued: l.Queued}
		case l.Found.ID != "":
			leave()
			a.seen = l.Found.ID
			if a.q.Anew {
				a.heed(&l.Found)
			}
			for _, g := range l.Generations {
				if g.Open == 0 { // as for a lease
					s.learn(t.pos, g.Tag, g.Token)
				}
			}
			if !a.q.Anew {
				if f := a.admit(ctx, ses, &l.Found); usable(f) {
					return f
				}
			}
		case l.Busy > 0:
			if l.Queued != nil && !a.q.Anew {
				leave()
				return Found{Queued: l.Queued}
			}
			if a.q.Background {
				leave()
				return Found{Busy: true}
			}
			if t.besides() {
				leave()
				return Found{}
			}
			if !away && t.load != nil {
				away, back = true, t.load.Abroad()
			}
			ok := s.e.sleepOpen(ctx, min(l.Busy, time.Until(until)), ended)
			leave()
			if !ok || !time.Now().Before(until) {
				return Found{}
			}
			// What another load takes is no time that the tier has taken.
			a.budget.left = max(a.budget.left, t.allowance())
			if a.key != t.key && !a.q.Anew { // the lease's end does not show the entry
				if f, done := a.get(ctx); done {
					return f
				}
			}
		default:
			leave()
			return Found{}
		}
	}
	return Found{}
}

// untrusted asks what is queued for the key, and nothing else, where nothing of the tier
// may be answered or stored: it has not been verified, after a restart for one, or an
// invalidation is pending. A change that is queued is what the database will have,
// whatever else the tier has lost (R27).
func (a *asking) untrusted(ctx context.Context) Found {
	s, t := a.s, a.t
	ses, ok := s.answering(t.key)
	if !ok || !a.q.Queue || a.q.Anew {
		return Found{}
	}
	for range 3 { // of an entry that is there, the next attempt takes no notice
		var l tier.Lease
		err := a.budget.use(ctx, func(ctx context.Context) (err error) {
			l, err = ses.Acquire(ctx, t.key, a.seen, nil, firstLease)
			return err
		})
		a.answered = a.answered || err == nil && l.Found.ID == ""
		s.outcome(ctx, a.part, 1<<a.part, err)
		switch {
		case err != nil:
			return Found{}
		case l.Found.ID != "":
			a.seen = l.Found.ID
			continue
		case l.Token != "":
			s.e.giveBack(&held{e: s.e, ses: ses, lease: l})
		}
		return Found{Queued: l.Queued}
	}
	return Found{}
}

// sleepOpen is sleep, until the cache is closed: then nothing is stored any more, and
// nobody is waited for who would store.
func (e *Engine) sleepOpen(ctx context.Context, d time.Duration, kick <-chan struct{}) bool {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(e.ctx, cancel)()
	return sleep(ctx, d, kick)
}

// caughtUp applies what the tier knew of the partitions of the key and its tags when
// it gave the lease, and this process had not heard of. The load may read other entries
// of this cache, which are legal for MaxStaleness after they were invalidated: what is
// made of them would be stored under the generations that the lease came with, which
// are newer, and live as long as its class says (R10, for the tags that are known).
//
// The end of an era is in no log. A lease of another era than this process knows is
// given back: what the process still holds legal may be of the era that has ended.
func (a *asking) caughtUp(ctx context.Context, ses tier.Session, l *tier.Lease) bool {
	n := a.s.e.partitions()
	heads := map[int]tier.Head{a.part: {Position: tier.Position{Token: l.Head}, Era: l.Era}}
	for _, g := range l.Generations {
		heads[tier.Partition(g.Tag, n)] = tier.Head{Position: tier.Position{Token: g.Head}, Era: g.Era}
	}
	for p, h := range heads {
		if !a.reach(ctx, ses, p, &h) || a.s.inAnotherEra(p, h.Era) {
			return false
		}
	}
	return true
}

// reach applies the log of a partition up to a head at least.
func (a *asking) reach(ctx context.Context, ses tier.Session, p int, h *tier.Head) bool {
	from, behind := a.s.behind(p, h.Position.Token)
	if !behind || from == nil {
		return !behind
	}
	var since tier.Log
	err := a.budget.use(ctx, func(ctx context.Context) (err error) {
		since, err = ses.Log(ctx, p, *from)
		return err
	})
	a.s.outcome(ctx, p, 1<<p, err)
	return err == nil && a.s.catchUpTo(p, from, h, &since)
}

// admit makes an entry of this process of one in the tier, if it is valid: every
// partition it depends on is legal and in the era it was made in, every tag has
// the generation it was made under, and nothing that concerns it was applied since
// before it was read.
func (a *asking) admit(ctx context.Context, ses tier.Session, en *tier.Entry) Found {
	s, t := a.s, a.t
	e := s.e
	value, size, now, ok := a.decode(en)
	if !ok {
		return Found{}
	}
	own := &Entry{
		Value: value, Born: now - (en.Now-en.Born)*1e6, LoadTime: int64(en.LoadTime), id: en.ID,
		FreshUntil: now + (en.FreshUntil-en.Now)*1e6,
		StaleUntil: now + (en.StaleUntil-en.Now)*1e6,
		KeepUntil:  now + (en.KeepUntil-en.Now)*1e6,
	}
	if len(en.Eras) == 0 { // a note: nothing invalidates it
		own.weight = weigh(a.key, size, 0)
		e.putNote(a.key, own)
		return Found{Entry: own, State: own.State(now)}
	}
	tags := make([]string, len(en.Tags))
	for i, tg := range en.Tags {
		tags[i] = tg.Tag
	}
	// Registered before anything is compared; the turn's own load has been there
	// since before the entry was read.
	l := e.NewLoad(a.key, tags)
	l.pos = t.pos
	if !a.eras(ctx, en) || !a.generations(ctx, ses, en) {
		return Found{}
	}
	own.stamps, own.mask = l.stamps, e.mask(a.key, tags)
	if own.mask != maskOf(en.Eras) {
		return Found{} // placed by another layout
	}
	own.weight = weigh(a.key, size, len(l.stamps))
	refusal := l.admit(tags, own, en.Provisional || s.doubtful(own.mask, e.Now()))
	if refusal != Stored && refusal != Written && refusal != TooLarge {
		return Found{fenced: refusal == Fenced}
	}
	state := own.State(e.Now())
	if state != Gone {
		t.made = own
		t.late = tags
		e.Count.RemoteHits.Add(1)
	}
	return Found{Entry: own, State: state}
}

func maskOf(eras []tier.PartitionEra) (m uint64) {
	for _, pe := range eras {
		if pe.Partition >= 0 && pe.Partition < tier.MaxPartitions {
			m |= 1 << pe.Partition
		}
	}
	return m
}

func (a *asking) decode(en *tier.Entry) (value any, size int, now int64, ok bool) {
	now = a.sent // rather too early: a reply that took long makes nothing younger
	value, size, ok = a.q.Codec.Decode(en.Payload, now-(en.Now-en.Born)*1e6)
	if !ok {
		a.s.e.Count.Undecodable.Add(1)
	}
	return value, size, now, ok
}

// admit puts an entry that was read from the tier into this process, under the
// same fence as a load's.
func (l *Load) admit(tags []string, en *Entry, provisional bool) Refusal {
	e := l.e
	e.lapse(e.Now())
	e.journal.mu.RLock()
	defer e.journal.mu.RUnlock()
	now := e.Now()
	switch {
	case e.closed.Load():
		return NotOpen
	case e.shared.pending.blocks(e, l.key, tags):
		return Blocked
	case e.concern(l.pos, l.key, tags) != 0:
		return Fenced
	case !e.shared.legal(en.mask, now), !e.intents.mayKeep(l.began, now):
		return Fenced
	case provisional:
		return Written
	case uint64(en.weight) > e.maxBytes:
		return TooLarge
	case en.KeepUntil > now && !e.putUnless(l.key, en):
		return Written
	}
	return Stored
}

// eras compares the eras that an entry was made in. Where they differ, this
// instance may be behind: it is verified anew first (R6).
func (a *asking) eras(ctx context.Context, en *tier.Entry) bool {
	if a.s.inEras(en.Eras) {
		return true
	}
	if a.s.overEras(en.Eras) {
		return false
	}
	rest := a.budget.left / 2 // for the lease
	a.budget.left -= rest
	defer func() { a.budget.left += rest }()
	_ = a.budget.use(ctx, func(ctx context.Context) error { // the last look tells
		return a.s.untilKnown(ctx, func() bool { return a.s.inEras(en.Eras) })
	})
	return a.s.inEras(en.Eras)
}

// overEras reports whether one of the eras has ended, as far as this instance has heard.
func (s *shared) overEras(eras []tier.PartitionEra) bool {
	s.follow.Lock()
	defer s.follow.Unlock()
	for _, pe := range eras {
		if pe.Partition < 0 || pe.Partition >= s.e.partitions() || pe.Era == "" {
			continue
		}
		if f := &s.parts[pe.Partition]; f.buried(pe.Era) || f.last == pe.Era && f.era() == "" {
			return true
		}
	}
	return false
}

func (s *shared) inEras(eras []tier.PartitionEra) bool {
	for _, pe := range eras {
		if pe.Partition < 0 || pe.Partition >= s.e.partitions() || s.parts[pe.Partition].era() != pe.Era || pe.Era == "" {
			return false
		}
	}
	return true
}

// generations compares the generations that an entry was made under with those
// that this instance knows, and asks the tier where it does not know one or where
// they differ: what was evicted and made anew is no invalidation (R6).
func (a *asking) generations(ctx context.Context, ses tier.Session, en *tier.Entry) bool {
	var ask []string
	for _, tg := range en.Tags {
		if tg.Token == "" || a.s.known(tg.Tag) != tg.Token {
			ask = append(ask, tg.Tag)
		}
	}
	if len(ask) == 0 {
		return true
	}
	var gens []string
	err := a.budget.use(ctx, func(ctx context.Context) (err error) {
		gens, err = ses.Generations(ctx, ask)
		return err
	})
	a.s.outcome(ctx, tier.Partition(ask[0], a.s.e.partitions()), a.s.e.mask(ask[0], ask[1:]), err)
	if err != nil || len(gens) != len(ask) {
		return false
	}
	for i, tag := range ask {
		a.s.learn(a.t.pos, tag, gens[i])
		at := slices.IndexFunc(en.Tags, func(tg tier.TagGeneration) bool { return tg.Tag == tag })
		if gens[i] == "" || gens[i] != en.Tags[at].Token {
			return false
		}
	}
	return true
}

// held is a lease that a turn has, and what was captured with it, before the load.
type held struct {
	ses            tier.Session
	lease          tier.Lease
	lasts          time.Duration // at first
	sent, received int64         // around the call that brought it, on the engine's clock
	began          int64         // the load, after it
	since          []place       // of every partition, before the load
	e              *Engine

	mu     sync.Mutex
	extend *time.Timer
	ended  bool
}

// hold keeps a lease for the turn and makes it last while the turn does.
func (t *Turn) hold(ses tier.Session, l tier.Lease, sent, received int64) {
	h := &held{e: t.e, ses: ses, lease: l, lasts: t.lease(), sent: sent, received: received}
	t.held = h
	for _, g := range l.Generations {
		if g.Open == 0 { // under an open intent it may expire before it is forgotten here
			t.e.shared.learn(t.pos, g.Tag, g.Token)
		}
	}
	t.note(h)
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.ended {
		h.extend = time.AfterFunc(h.lasts/3, func() { h.e.extend(h) })
	}
}

// lease is for how long a lease is taken. One of many waits until the others have
// theirs, and thousands that are lengthened one by one would take the time of them all.
func (t *Turn) lease() time.Duration {
	trips := 4 * t.e.shared.roundTrip() // its reply, the first time that it is lengthened, and the fill
	return min(firstLease*time.Duration(max(1, t.patience))+trips, batchLease)
}

// extend prolongs the lease of a load that takes long.
func (e *Engine) extend(h *held) {
	lasts := max(leaseTime, h.lasts)
	e.Spawn(e.ctx, lasts, func(ctx context.Context) {
		h.mu.Lock()
		ended := h.ended
		h.mu.Unlock()
		if ended {
			return
		}
		// Lost or not, the fill will be told.
		_, _ = h.ses.Extend(ctx, h.lease, lasts)
		h.mu.Lock()
		defer h.mu.Unlock()
		if !h.ended && e.Now()-h.received < int64(2*e.longest) {
			h.extend.Reset(lasts / 3)
		}
	})
}

// end reports whether the lease is still the caller's to end.
func (h *held) end() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	was := h.ended
	h.ended = true
	if h.extend != nil {
		h.extend.Stop()
	}
	return !was
}

// release ends the lease of a turn that stored nothing, so that nobody waits for
// it until it expires.
func (t *Turn) release() {
	if t.held != nil {
		t.e.release(t.held)
	}
}

func (e *Engine) release(h *held) {
	if h.end() {
		e.giveBack(h)
	}
}

// giveBack ends a lease in the tier.
func (e *Engine) giveBack(h *held) {
	release := func(ctx context.Context) {
		_ = h.ses.Release(ctx, h.lease) // if it fails the lease expires
	}
	if !e.Spawn(e.ctx, leaseTime, release) { // the cache is being closed, and waits for this load
		ctx, cancel := context.WithTimeout(context.Background(), e.shared.Budget)
		defer cancel()
		release(ctx)
	}
}

// note puts the lease into the turn's flight, where others of this process see it.
// The flight may be fenced by now: then it is of no use.
func (t *Turn) note(h *held) {
	if t.f == nil {
		return
	}
	sh := t.e.flights.shard(t.f.key)
	sh.mu.Lock()
	left := sh.m[t.f.key] != t.f
	if !left {
		t.f.leases = slices.DeleteFunc(t.f.leases, (*held).over)
		t.f.leases = append(t.f.leases, h)
	}
	sh.mu.Unlock()
	if left {
		t.e.release(h)
	}
	// Another turn of the flight may have been refused the lease before it could
	// see here who has it.
	t.e.shared.wakes.wake(t.key)
}

// besides reports whether another turn of the same flight has the lease: then this
// one was let go beside it, and loads without one.
func (t *Turn) besides() bool {
	if t.f == nil {
		return false
	}
	sh := t.e.flights.shard(t.f.key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return slices.ContainsFunc(t.f.leases, func(h *held) bool { return !h.over() })
}

func (h *held) over() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ended
}

// Tags returns the tags that the turn's load was registered with.
func (t *Turn) Tags() []string { return t.tags }

// StillValid reports whether an entry that this process holds valid is so in the
// shared tier as well, as of after the turn's lease was taken: the logs of all
// partitions that it depends on hold nothing that concerns it and that this
// process had not heard of before the turn looked. Without a lease nothing will
// be stored, and what this process knows is enough: who comes later does not join it
// then (R7).
//
// A pattern is heard of before its scan has reached every entry: what was read
// from the tier in between is valid there for a moment more, and would be filled in
// behind the scan. So an entry that is older than a pattern is not.
//
// The end of an era is in no log: the eras that the entry was made in must be those
// that it will be stored in.
func (t *Turn) StillValid(ctx context.Context, en *Entry, key string, tags []string) bool {
	s, h := t.e.shared, t.held
	if s == nil || h == nil {
		return true
	}
	n := t.e.partitions()
	// Born is late by as much as the reply was that brought the entry.
	if len(h.since) != n || t.e.sweptSince(key, en.Born-s.delta-int64(max(s.Budget, behindWait))) {
		return false
	}
	mask := t.e.mask(key, tags)
	if !h.inEras(s, mask) || en.dead() { // in this order: who learns another era has ended the entry before
		return false
	}
	var parts []int
	for ; mask != 0; mask &= mask - 1 {
		parts = append(parts, bits.TrailingZeros64(mask))
	}
	valid := make([]bool, len(parts))
	b := &t.asked.budget
	err := b.use(ctx, func(ctx context.Context) error {
		together := tier.NewBatch(len(parts))
		ctx = tier.WithBatch(ctx, together)
		var all sync.WaitGroup
		for i, p := range parts {
			all.Go(func() {
				defer together.Leave()
				from := h.since[p]
				if from.position == nil || from.era == "" {
					return
				}
				log, err := h.ses.Log(ctx, p, *from.position)
				valid[i] = err == nil && log.Joined && !slices.ContainsFunc(log.Items, func(it tier.Logged) bool { //nolint:forbidigo // no logger
					return t.e.concerns(it.Item, key, tags)
				})
			})
		}
		all.Wait()
		return nil
	})
	return err == nil && !slices.Contains(valid, false)
}

// inEras reports whether this process knows the partitions of a mask to be in the eras
// that what is filled in under the lease will be stored in: the lease's, its
// generations', and for tags that are named late those before the load (see late).
func (h *held) inEras(s *shared, mask uint64) bool {
	n := s.e.partitions()
	eras := make([]string, n)
	for p, at := range h.since {
		eras[p] = at.era
	}
	eras[tier.Partition(Name(h.lease.Key), n)] = h.lease.Era
	for _, g := range h.lease.Generations {
		eras[tier.Partition(g.Tag, n)] = g.Era
	}
	for ; mask != 0; mask &= mask - 1 {
		p := bits.TrailingZeros64(mask)
		if era := s.parts[p].era(); era == "" || era != eras[p] {
			return false
		}
	}
	return true
}

// MayStore reports whether what the turn loads can be stored: it has the lease, or
// there is no shared tier.
func (t *Turn) MayStore() bool { return t.e.shared == nil || t.held != nil }

// Patient lets what the turn asks of the shared tier take several budgets in all:
// it is one of many that are asked together.
func (t *Turn) Patient(budgets int) { t.patience = budgets }
