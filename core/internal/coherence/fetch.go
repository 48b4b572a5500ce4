package coherence

import (
	"context"
	"math/bits"
	"slices"
	"sync"
	"time"

	"github.com/larderhq/larder/core/internal/local"
	"github.com/larderhq/larder/core/internal/tier"
)

// Query is what a turn asks of the shared tier before it loads.
type Query struct {
	Codec local.Codec
	// Key is where the entry is, if not under the turn's own key. It is of the same
	// name.
	Key  string
	Wait time.Duration // how long another instance's load is waited for
	// Anew asks for the lease only: what is there must not be answered. Seen is an
	// entry that is to be replaced.
	Anew bool
	Seen *local.Entry
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
	Entry *local.Entry // nil: none; the caller loads
	State local.State
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
		return Found{Queued: t.e.queued(t.Key())}
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
		if t.noted && t.held != nil {
			t.Lead(t.held)
		}
	}
	if q.Queue && f == (Found{}) && t.held == nil && !t.asked.answered {
		f.Queued = s.ownChange(t.Key())
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
func (t *Turn) Refuse(en *local.Entry) { t.refused = en }

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
	a := &asking{s: s, t: t, q: q, budget: budget{s: s, left: t.allowance()}, part: tier.Partition(tier.Name(t.Key()), t.e.Partitions())}
	if t.asked != nil {
		a.budget = t.asked.budget // one for all that a turn asks
	}
	t.asked = a
	if a.key = q.Key; a.key == "" {
		a.key = t.Key()
	}
	if q.Seen != nil {
		a.seen = q.Seen.ID
	}
	if !q.Anew && q.Seen == nil && !a.inOne() {
		f, a.done = a.get(ctx)
	}
	return f, a.done
}

// inOne reports whether the entry is left to the question for the lease, which brings it
// where there is one: where round trips are dear.
func (a *asking) inOne() bool {
	return a.s.thrifty() && a.key == a.t.Key() && (a.q.Leads || !a.q.looks)
}

// restart registers the load anew, as it begins: what was invalidated while the
// tier was asked does not concern it.
func (t *Turn) restart() {
	t.Load = t.Load.Renew()
	if t.held != nil {
		t.held.since = t.e.shared.places()
		t.held.began = t.Began()
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
func usable(f Found) bool { return f.Entry != nil && f.State >= local.Stale }

// get reads the entry: one command where this instance knows the generations of
// its tags.
func (a *asking) get(ctx context.Context) (Found, bool) {
	s, t := a.s, a.t
	ses, ok := s.askable(t.Key(), t.Tags())
	if !ok {
		return Found{}, !a.q.Queue // without a lease
	}
	unknown := s.unknown(t.Tags())
	var en tier.Entry
	var gens []string
	a.sent = s.local.Now()
	err := a.budget.use(ctx, func(ctx context.Context) (err error) {
		en, gens, err = ses.Get(ctx, a.key, unknown)
		return err
	})
	s.outcome(ctx, a.part, s.local.Mask(t.Key(), unknown), err)
	if err != nil || len(gens) != len(unknown) {
		return Found{}, true
	}
	for i, tag := range unknown {
		s.learn(t.Position(), tag, gens[i])
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
		ses, ok := s.askable(t.Key(), t.Tags())
		if !ok {
			return a.untrusted(ctx)
		}
		// What was invalidated while it waited does not concern what comes now.
		t.Load = s.local.NewLoad(t.Key(), t.Tags())
		ended, leave := s.wakes.listen(t.Key())
		var l tier.Lease
		sent := s.local.Now()
		a.sent = sent
		err := a.budget.use(ctx, func(ctx context.Context) (err error) {
			l, err = ses.Acquire(ctx, t.Key(), a.seen, t.Tags(), t.lease())
			return err
		})
		received := s.local.Now()
		s.outcome(ctx, a.part, s.local.Mask(t.Key(), t.Tags()), err)
		a.answered = a.answered || err == nil && l.Found.ID == ""
		switch {
		case err != nil:
			leave()
			return Found{}
		case l.Token != "" && len(l.Generations) == len(t.Tags()):
			leave()
			if !a.caughtUp(ctx, ses, &l) {
				s.giveBack(&held{s: s, ses: ses, lease: l})
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
					s.learn(t.Position(), g.Tag, g.Token)
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
			if t.Claimed() {
				leave()
				return Found{}
			}
			if !away && t.Running() != nil {
				away, back = true, t.Running().Abroad()
			}
			ok := s.sleepOpen(ctx, min(l.Busy, time.Until(until)), ended)
			leave()
			if !ok || !time.Now().Before(until) {
				return Found{}
			}
			// What another load takes is no time that the tier has taken.
			a.budget.left = max(a.budget.left, t.allowance())
			if a.key != t.Key() && !a.q.Anew { // the lease's end does not show the entry
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
	ses, ok := s.answering(t.Key())
	if !ok || !a.q.Queue || a.q.Anew {
		return Found{}
	}
	for range 3 { // of an entry that is there, the next attempt takes no notice
		var l tier.Lease
		err := a.budget.use(ctx, func(ctx context.Context) (err error) {
			l, err = ses.Acquire(ctx, t.Key(), a.seen, nil, firstLease)
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
			s.giveBack(&held{s: s, ses: ses, lease: l})
		}
		return Found{Queued: l.Queued}
	}
	return Found{}
}

// sleepOpen is sleep, until the cache is closed: then nothing is stored any more, and
// nobody is waited for who would store.
func (s *shared) sleepOpen(ctx context.Context, d time.Duration, kick <-chan struct{}) bool {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.local.Life(), cancel)()
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
	n := a.s.local.Partitions()
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
	value, size, now, ok := a.decode(en)
	if !ok {
		return Found{}
	}
	own := &local.Entry{
		Value: value, Born: now - (en.Now-en.Born)*1e6, LoadTime: int64(en.LoadTime), ID: en.ID,
		FreshUntil: now + (en.FreshUntil-en.Now)*1e6,
		StaleUntil: now + (en.StaleUntil-en.Now)*1e6,
		KeepUntil:  now + (en.KeepUntil-en.Now)*1e6,
	}
	if len(en.Eras) == 0 { // a note: nothing invalidates it
		s.local.PutNote(a.key, own, size)
		return Found{Entry: own, State: own.State(now)}
	}
	tags := make([]string, len(en.Tags))
	for i, tg := range en.Tags {
		tags[i] = tg.Tag
	}
	// Registered before anything is compared; the turn's own load has been there
	// since before the entry was read.
	l := s.local.NewLoad(a.key, tags).From(t.Position())
	if !a.eras(ctx, en) || !a.generations(ctx, ses, en) {
		return Found{}
	}
	if s.local.Mask(a.key, tags) != maskOf(en.Eras) {
		return Found{} // placed by another layout
	}
	refusal := l.Adopt(own, size, en.Provisional)
	if refusal != local.Stored && refusal != local.Written && refusal != local.TooLarge {
		return Found{fenced: refusal == local.Fenced}
	}
	state := own.State(s.local.Now())
	if state != local.Gone {
		t.Made(own)
		t.Names(tags)
		s.local.Count.RemoteHits.Add(1)
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
		a.s.local.Count.Undecodable.Add(1)
	}
	return value, size, now, ok
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
		if pe.Partition < 0 || pe.Partition >= s.local.Partitions() || pe.Era == "" {
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
		if pe.Partition < 0 || pe.Partition >= s.local.Partitions() || s.parts[pe.Partition].era() != pe.Era || pe.Era == "" {
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
		if tg.Token == "" || a.s.local.Mirrored(tg.Tag) != tg.Token {
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
	a.s.outcome(ctx, tier.Partition(ask[0], a.s.local.Partitions()), a.s.local.Mask(ask[0], ask[1:]), err)
	if err != nil || len(gens) != len(ask) {
		return false
	}
	for i, tag := range ask {
		a.s.learn(a.t.Position(), tag, gens[i])
		at := slices.IndexFunc(en.Tags, func(tg tier.TagGeneration) bool { return tg.Tag == tag })
		if gens[i] == "" || gens[i] != en.Tags[at].Token {
			return false
		}
	}
	return true
}

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
func (t *Turn) StillValid(ctx context.Context, en *local.Entry, key string, tags []string) bool {
	s, h := t.e.shared, t.held
	if s == nil || h == nil {
		return true
	}
	n := t.e.Partitions()
	// Born is late by as much as the reply was that brought the entry.
	if len(h.since) != n || t.e.SweptSince(key, en.Born-s.delta-int64(max(s.Budget, behindWait))) {
		return false
	}
	mask := t.e.Mask(key, tags)
	if !h.inEras(s, mask) || en.Dead() { // in this order: who learns another era has ended the entry before
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
					return t.e.Concerns(it.Item, key, tags)
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
	n := s.local.Partitions()
	eras := make([]string, n)
	for p, at := range h.since {
		eras[p] = at.era
	}
	eras[tier.Partition(tier.Name(h.lease.Key), n)] = h.lease.Era
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
