package coherence

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/larderhq/larder/core/internal/local"
	"github.com/larderhq/larder/core/internal/tier"
)

// follower is what this instance knows of one partition. shared.follow guards all
// but what is atomic.
type follower struct {
	verified atomic.Int64                  // when the request was sent that proved it, on the engine's clock; 0: never
	position atomic.Pointer[tier.Position] // up to which everything has been applied; nil: none
	failures atomic.Int32                  // of requests, in a row
	breaker  atomic.Pointer[breaker]       // of its server

	current atomic.Pointer[string] // era; nil: not known at present
	last    string                 // the era that was learned last, whether it has been heard since that it ended or not
	begun   int64                  // when that began, as its server says; 0: not known
	own     tier.Position          // of the last item that a call of this instance's own has appended there
	server  string
	ended   int        // eras that have ended: a head that was asked for before may be of one of them
	past    [32]string // eras that are over for certain: none of them comes back
	over    int        // how many those were
	recent  [32]string
	next    int
	ahead   map[string]tier.Logged // hints that came before their predecessors, by its token
	clock   serverClock

	doubtful atomic.Int64 // until when nothing is kept in this process; see doubt
}

// era returns the partition's era, "" if it is not known at present.
func (f *follower) era() string {
	if era := f.current.Load(); era != nil {
		return *era
	}
	return ""
}

func (f *follower) setEra(era string) { f.current.Store(&era) }

// endEra notes that the era has ended; which one there is now is in the head. It comes
// before what the era means in this process is fenced: what is registered after that,
// and read from the tier, is not compared with the era that has ended.
//
// What was heard may be old news. Only a head, or a call of this instance's own, tells
// for certain that an era is over.
func (f *follower) endEra() {
	f.ended++
	f.setEra("")
}

// bury notes that an era is over for certain.
func (f *follower) bury(era string) {
	if era != "" && !f.buried(era) {
		f.past[f.over%len(f.past)] = era
		f.over++
	}
}

func (f *follower) buried(era string) bool { return era != "" && slices.Contains(f.past[:], era) }

// advance moves the position to an item that follows it, and on over those that
// have come before it.
func (f *follower) advance(it *tier.Logged) {
	for {
		next := it.Position
		f.position.Store(&next)
		after, ok := f.ahead[next.Token]
		if !ok {
			return
		}
		delete(f.ahead, next.Token)
		it = &after
	}
}

// maxAhead is how many hints wait for their predecessors. Those that do not fit
// are read from the log.
const maxAhead = 256

func (f *follower) waitFor(it *tier.Logged) {
	if f.ahead == nil || len(f.ahead) >= maxAhead {
		f.ahead = make(map[string]tier.Logged)
	}
	f.ahead[it.Before] = *it
}

// asked is what was known of a partition when its head was asked for.
type asked struct {
	at    int64         // when
	ended int           // how many eras had ended
	least tier.Position // no head is before it, unless the tier has gone back
}

func (f *follower) ask(now int64) asked {
	a := asked{at: now, ended: f.ended, least: f.own}
	if pos := f.position.Load(); pos != nil && !pos.Precedes(a.least) {
		a.least = *pos
	}
	return a
}

// wentBack reports whether a head is of a state that the tier had before one that this
// instance has seen: its data was exchanged or restored in place, and what was
// invalidated since is valid there again (R21). Positions and times of two servers
// are not compared: those of a promoted one may be earlier. The caller holds follow.
func (f *follower) wentBack(h *tier.Head, a *asked) bool {
	switch {
	case f.ended != a.ended: // the head may be from before that: the next one tells
		return false
	case f.buried(h.Era):
		return true
	case h.Server != f.server:
		return false
	case h.Era != f.last && h.Begun != 0 && f.begun != 0: // what lies there from before a later era is dead
		return h.Begun < f.begun
	}
	return h.Position.Precedes(a.least)
}

// place is where a partition was followed to, and its era then.
type place struct {
	position *tier.Position
	era      string
}

func (s *shared) places() []place {
	s.follow.Lock()
	defer s.follow.Unlock()
	list := make([]place, s.local.Partitions())
	for p := range list {
		list[p] = place{s.parts[p].position.Load(), s.parts[p].era()}
	}
	return list
}

func (f *follower) legal(now, delta int64) bool {
	v := f.verified.Load()
	return v != 0 && now-v < delta
}

// seen reports whether an item has been applied lately.
func (f *follower) seen(token string) bool { return slices.Contains(f.recent[:], token) }

func (f *follower) remember(token string) {
	f.recent[f.next%len(f.recent)] = token
	f.next++
}

// appendLocal appends what an item of a partition's log means in this process. All means
// everything: who has heard of it in one partition makes nothing of what it keeps of
// another one, where it has not (R15).
func (s *shared) appendLocal(list []tier.Item, p int, it tier.Item) []tier.Item {
	switch it.Kind {
	case tier.Era:
		return append(list, local.EraItem(p))
	case tier.All:
		for p := range s.local.Partitions() {
			list = append(list, local.EraItem(p))
		}
		return list
	}
	return append(list, it)
}

// endEras notes that all was invalidated, as was heard of in one partition: what lies
// in another one is none of the era that it will have (R15).
func (s *shared) endEras() {
	for p := range s.local.Partitions() {
		s.parts[p].endEra()
	}
}

// hint applies an item that was published, or that a call of this instance's own
// brought back. It fences at once; the position moves only if nothing is missing
// in between (R18).
func (s *shared) hint(p int, it tier.Logged) {
	s.follow.Lock()
	defer s.follow.Unlock()
	f := &s.parts[p]
	if f.seen(it.Token) {
		return
	}
	if it.Check() != nil {
		s.wake() // the log has it as well: the round that reads it there fails
		return
	}
	intent := s.intent(p, it.Item)
	if intent && f.position.Load() == nil {
		return // the head that is adopted tells of it, or the log behind that
	}
	if it.Kind == tier.Era || it.ID == "" { // it is in no log: the head tells the rest
		f.endEra()
		s.local.Fence(s.appendLocal(nil, p, it.Item))
		s.wake()
		return
	}
	f.remember(it.Token)
	if it.Kind == tier.All {
		s.endEras()
		s.wake()
	}
	if !intent {
		s.owns.hear(s.local, p, it)
		s.local.FenceLoads(s.appendLocal(nil, p, it.Item))
	}
	if pos := f.position.Load(); pos != nil && it.Before == pos.Token {
		f.advance(&it)
	} else {
		f.waitFor(&it) // or for the watchdog, which reads the log
	}
}

// told is hint, for an item that a call of this instance's own has appended.
func (s *shared) told(p int, it tier.Logged) {
	s.hint(p, it)
	s.follow.Lock()
	defer s.follow.Unlock()
	if f := &s.parts[p]; !it.Precedes(f.own) {
		f.own = it.Position
	}
}

// over notes that a call of this instance's own has ended an era that was known before it.
func (s *shared) over(p int, era string) {
	s.follow.Lock()
	defer s.follow.Unlock()
	s.parts[p].bury(era)
}

// age forgets all that this process keeps of a partition. The caller holds follow.
func (s *shared) age(p int) {
	s.wakes.wakeAll() // leases may have vanished without a word
	s.local.Fence([]tier.Item{local.EraItem(p)})
}

// ageAll forgets everything and every position. The caller holds follow.
func (s *shared) ageAll() {
	for p := range s.parts {
		s.parts[p].endEra()
	}
	s.local.Fence([]tier.Item{{Kind: tier.All}})
	for p := range s.parts {
		f := &s.parts[p]
		f.verified.Store(0)
		f.position.Store(nil)
		f.server, f.ahead = "", nil
	}
	s.legalUntil.Store(0)
}

// adopt takes a head as the place from which this instance follows. Everything
// that it kept of the partition is aged. The head may be older than what has
// been heard since: then the log tells that again. Its era may not be older than
// one that is known to have ended. The caller holds follow.
func (s *shared) adopt(p int, h *tier.Head, a *asked) {
	f := &s.parts[p]
	s.doubt(p, h)
	s.age(p)
	f.remember(h.Position.Token)
	f.advance(&tier.Logged{Position: h.Position})
	s.serve(p, h.Server)
	s.learnEra(p, h, a)
}

// answersFrom notes which server has answered for a partition that is followed. The deadlines
// that were heard of were another one's. The caller holds follow.
func (s *shared) answersFrom(p int, h *tier.Head) {
	if h.Server != s.parts[p].server {
		s.doubt(p, h)
		s.age(p)
	}
	s.serve(p, h.Server)
}

// inAnotherEra reports whether this instance holds a partition to be in another era
// than one that the tier told just now.
func (s *shared) inAnotherEra(p int, era string) bool {
	known := s.parts[p].era()
	return known != "" && known != era
}

// learnEra takes the era of a head that was asked for when as many had ended. If it
// is another than was known, or none was, eras may have come and gone without an
// item: what was kept meanwhile is aged.
func (s *shared) learnEra(p int, h *tier.Head, a *asked) {
	f := &s.parts[p]
	if f.ended != a.ended {
		s.wake()
		return
	}
	if f.last != h.Era {
		f.bury(f.last)
		f.last, f.begun = h.Era, h.Begun
	}
	if era := f.era(); era != h.Era {
		if era != "" {
			f.endEra()
		}
		s.age(p)
		f.setEra(h.Era)
	}
}

// run follows the tier until ctx ends.
func (s *shared) run(ctx context.Context) {
	defer s.done.Done()
	pause, limit := 100*time.Millisecond, openTimeout
	for s.session.Load() == nil {
		if !sleep(ctx, pause, nil) {
			return
		}
		pause, limit = min(2*pause, time.Second), min(2*limit, maxOpenTimeout)
		oc, cancel := context.WithTimeout(ctx, limit)
		if err := s.open(oc); err != nil {
			s.uncounted(err)
			s.unreachable(err)
		}
		cancel()
	}
	ses := *s.session.Load()
	s.agreed.Store(s.local.Monotonic())
	s.done.Add(2)
	go s.listen(ctx, ses)
	go s.keepAgreed(ctx, ses)
	every := time.Duration(s.delta) / 2
	for {
		began := time.Now()
		if s.local.Monotonic()-s.agreed.Load() > int64(agreeLapse) {
			// Others may have forgotten this instance's MaxStaleness: no hits until it
			// has said so again (R2).
			s.rounds.done()
		} else if err := s.round(ctx); err != nil {
			if ctx.Err() != nil {
				return
			}
			s.uncounted(err)
			s.unreachable(err)
		}
		s.retryPending(ctx, ses)
		// Two rounds are at least a little apart, however many are asked for.
		if !sleep(ctx, minRoundPause, nil) || !sleep(ctx, every-time.Since(began), s.kick) {
			return
		}
	}
}

// keepAgreed renews this instance's part of the layout.
func (s *shared) keepAgreed(ctx context.Context, ses tier.Session) {
	defer s.done.Done()
	pause := agreeEvery
	for sleep(ctx, pause, nil) {
		began := s.local.Monotonic()
		ac, cancel := context.WithTimeout(ctx, maxOpenTimeout)
		if pause = time.Second; s.agree(ac, ses) == nil {
			pause = agreeEvery
			s.agreed.Store(began)
		}
		cancel()
	}
}

const minRoundPause = 2 * time.Millisecond

// sleep waits for d, or until kick says something or is closed. It returns false when ctx has ended.
func sleep(ctx context.Context, d time.Duration, kick <-chan struct{}) bool {
	timer := time.NewTimer(max(d, 0))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-kick:
	case <-ctx.Done():
		return false
	}
	return true
}

// listen receives hints for as long as ctx lasts.
func (s *shared) listen(ctx context.Context, ses tier.Session) {
	defer s.done.Done()
	pause := 20 * time.Millisecond
	var deaf deafness
	for ctx.Err() == nil {
		heard := false
		// What was published while nobody listened is in the log.
		err := ses.Hints(ctx, func() { heard = true; s.listening() }, func(h tier.Hint) {
			pause = 20 * time.Millisecond
			switch {
			case h.Wake != "":
				s.wakes.wake(h.Wake)
			case h.Item.Kind == 0 || h.Partition < 0 || h.Partition >= s.local.Partitions():
			case h.Item.Token == "" && h.Item.Kind != tier.Era:
				s.foreign(ctx, ses, h)
			default:
				s.hint(h.Partition, h.Item)
			}
		}) // it is subscribed again in any case
		deaf.tell(s, heard, err)
		s.listening()
		if !sleep(ctx, pause, nil) {
			return
		}
		pause = min(2*pause, time.Second)
	}
}

// deafness is that hints cannot be subscribed to, though the tier answers.
type deafness struct {
	failed int // how often in a row
	told   bool
}

// deafAfter is how often in a row a subscription has failed when that is told.
const deafAfter = 5

func (d *deafness) tell(s *shared, heard bool, err error) {
	if tier.KindOf(err) != "" {
		s.refused(err)
		return
	}
	if heard {
		*d = deafness{}
		return
	}
	if d.failed++; d.failed < deafAfter || d.told || !s.Legal(s.everything(), s.local.Now()) {
		return
	}
	d.told = true
	s.Log.Warn("larder: the shared tier answers, and its messages cannot be subscribed to; "+
		"what other instances invalidate is heard of after MaxStaleness", "error", err)
}

// listening is called when messages begin to arrive: what was published before is
// in the log, and leases may have ended.
func (s *shared) listening() {
	s.wakes.wakeAll()
	s.wake()
}

// round is the watchdog's: it asks for all heads and applies what is missing. What
// it verifies was so when the question was sent (R19).
func (s *shared) round(ctx context.Context) error {
	box := s.session.Load()
	if box == nil {
		return errNotOpen
	}
	ses := *box
	s.follow.Lock()
	if s.jumped.Swap(false) {
		s.ageAll()
	}
	var before [tier.MaxPartitions]asked
	sent := s.local.Now()
	for p := range s.parts {
		before[p] = s.parts[p].ask(sent)
	}
	s.follow.Unlock()
	limit := s.roundLimit()
	began := time.Now()
	s.asked = sent
	hc, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	heads, err := ses.Heads(hc)
	took := time.Since(began)
	if err != nil {
		s.unanswered(limit)
		s.rounds.done()
		return err
	}
	failed := func(h tier.Head) bool { return h.Err != nil }
	switch {
	case !slices.ContainsFunc(heads, failed):
		s.answeredIn(took)
	case !slices.ContainsFunc(heads, func(h tier.Head) bool { return h.Err == nil }):
		s.unanswered(limit)
	}
	s.readClocks(heads, sent)
	if n := s.local.Partitions(); len(heads) != n || slices.ContainsFunc(heads, func(h tier.Head) bool {
		return h.Err == nil && !h.Missing && (h.Protocol != tier.Protocol || h.Partitions != n)
	}) {
		return s.relayout(ctx, ses)
	}
	if slices.ContainsFunc(heads, func(h tier.Head) bool { return h.Err == nil && (h.Missing || h.Confirmed != h.Server) }) {
		// What else has been lost? The layout must know of this instance before it
		// answers anything again (R2).
		ac, cancel := context.WithTimeout(ctx, openTimeout)
		err := s.agree(ac, ses)
		cancel()
		if err != nil {
			s.rounds.done()
			return err
		}
	}
	s.catchUpAll(ctx, ses, heads, before[:], limit)
	s.follow.Lock()
	s.computeLegal()
	s.follow.Unlock()
	s.rounds.done()
	for p := range heads {
		if heads[p].Err != nil {
			return heads[p].Err
		}
	}
	if !s.unverified() {
		s.vain = 0
	} else if s.vain++; s.vain >= vainRounds {
		return errUnverified
	}
	s.reachable()
	return nil
}

// catchUpAll brings the partitions to their heads that are not there, in one round trip
// per server. Those that it does not reach have an error then.
func (s *shared) catchUpAll(ctx context.Context, ses tier.Session, heads []tier.Head, before []asked, limit time.Duration) {
	var parts []int
	for p := range heads {
		if !s.settled(p, &heads[p], &before[p]) {
			parts = append(parts, p)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, s.catchUpLimit(limit))
	defer cancel()
	together := tier.NewBatch(len(parts))
	ctx = tier.WithBatch(ctx, together)
	var all sync.WaitGroup
	for _, p := range parts {
		all.Go(func() {
			defer together.Leave()
			if err := s.catchUp(ctx, ses, p, &heads[p], &before[p]); err != nil {
				heads[p].Err = err
			}
		})
	}
	all.Wait()
}

// relayout adopts another layout: everything kept here was placed by the old one.
func (s *shared) relayout(ctx context.Context, ses tier.Session) error {
	s.follow.Lock()
	s.ageAll()
	s.follow.Unlock()
	s.rounds.done()
	if err := s.agree(ctx, ses); err != nil {
		return err
	}
	return errLayout
}

// settled verifies a partition whose head is where this instance is.
func (s *shared) settled(p int, h *tier.Head, a *asked) bool {
	if h.Err != nil {
		return true // nothing is known of it now
	}
	s.follow.Lock()
	defer s.follow.Unlock()
	f := &s.parts[p]
	pos := f.position.Load()
	if h.Missing || h.Confirmed != h.Server || pos == nil || pos.Token != h.Position.Token || f.wentBack(h, a) {
		return false
	}
	if f.era() != h.Era {
		if f.era() != "" {
			return false
		}
		s.answersFrom(p, h)
		s.learnEra(p, h, a) // the last one ended at an item that has been applied
	}
	s.answersFrom(p, h)
	s.verify(f, a.at)
	return true
}

// verify notes that a partition was followed up to the time sent. The caller holds
// follow.
func (s *shared) verify(f *follower, sent int64) {
	f.verified.Store(max(f.verified.Load(), sent))
	s.answered(f, s.local.Monotonic())
	if s.jumped.Load() {
		f.verified.Store(0)
	}
}

// catchUp brings a partition to its head, or begins it anew. An error says that the tier
// did neither.
func (s *shared) catchUp(ctx context.Context, ses tier.Session, p int, h *tier.Head, a *asked) error {
	f := &s.parts[p]
	switch {
	case h.Missing:
		// Made now, by whoever comes first. It verifies nothing: what it replaces is
		// unknown (R20).
		return s.renew(ctx, ses, p, h)
	case h.Confirmed != h.Server:
		// A promotion or a restart: what an old server brought back to life is dead by
		// the era (R21).
		return s.renew(ctx, ses, p, h)
	}
	s.follow.Lock()
	from, back := f.position.Load(), f.wentBack(h, a)
	if !back && (from == nil || from.Token == h.Position.Token) {
		s.adopt(p, h, a)
		s.verify(f, a.at)
		s.follow.Unlock()
		return nil
	}
	server, era := f.server, f.last
	s.follow.Unlock()
	if back {
		return s.renew(ctx, ses, p, h)
	}

	since, err := ses.Log(ctx, p, *from)
	if err != nil {
		return err
	}
	for _, it := range since.Items {
		if err := it.Check(); err != nil {
			return fmt.Errorf("larder: the log of partition %d cannot be followed: %w", p, err)
		}
	}
	if s.joined(p, from, h, &since, a) {
		return nil
	}
	// A position that was trimmed, or another era: only what is kept here is old.
	// Otherwise the tier may have lost something that others relied on.
	if !since.Trimmed && h.Server == server && h.Era == era {
		return s.renew(ctx, ses, p, h)
	}
	s.follow.Lock()
	defer s.follow.Unlock()
	s.adopt(p, h, a)
	s.verify(f, a.at)
	return nil
}

// joined verifies a partition if its log leads from the position from to the head,
// or if it has been aged since, which leaves it to the next round.
func (s *shared) joined(p int, from *tier.Position, h *tier.Head, since *tier.Log, a *asked) bool {
	s.follow.Lock()
	defer s.follow.Unlock()
	f := &s.parts[p]
	if f.position.Load() == nil {
		return true
	}
	if !s.applyLog(p, f, from, h, since) {
		return false
	}
	s.answersFrom(p, h)
	if pos := f.position.Load(); pos.Token == h.Position.Token {
		s.learnEra(p, h, a)
	}
	s.verify(f, a.at)
	return true
}

// applyLog applies the items of a log that was read from a position, up to a head
// at least. Hints may have moved the position on meanwhile. It returns false, and
// does nothing, if they do not lead from the one to the other: a new era leaves no
// item. The caller holds follow.
func (s *shared) applyLog(p int, f *follower, from *tier.Position, h *tier.Head, since *tier.Log) bool {
	items := since.Items
	// A head of the same era that is not behind from is before it: the log was
	// read after the head.
	reached := h.Position.Token == from.Token || f.seen(h.Position.Token) || h.Era == f.era() ||
		slices.ContainsFunc(items, func(it tier.Logged) bool { return it.Token == h.Position.Token })
	if !since.Joined || !reached || len(items) > 0 && items[0].Before != from.Token {
		return false
	}
	pos := f.position.Load()
	if pos.Token != from.Token {
		at := slices.IndexFunc(items, func(it tier.Logged) bool { return it.Token == pos.Token })
		if at < 0 {
			return true // moved beyond all of them
		}
		items = items[at+1:]
	}
	if len(items) == 0 {
		return true
	}
	list := make([]tier.Item, 0, len(items))
	for _, it := range items {
		if !f.seen(it.Token) {
			if !s.intent(p, it.Item) {
				s.owns.hear(s.local, p, it)
				list = s.appendLocal(list, p, it.Item)
			}
			f.remember(it.Token)
		}
		switch it.Kind {
		case tier.All:
			s.endEras()
		case tier.Era:
			f.endEra()
		}
	}
	if len(list) > 0 {
		s.local.FenceLoads(list)
	}
	f.advance(&items[len(items)-1])
	return true
}

// behind reports whether this instance has not applied all that is in a partition's log
// up to a token, and where it is.
func (s *shared) behind(p int, token string) (from *tier.Position, behind bool) {
	s.follow.Lock()
	defer s.follow.Unlock()
	f := &s.parts[p]
	from = f.position.Load()
	switch {
	case token == "": // there is no head: nothing is stored
		return from, false
	case from == nil:
		return nil, true
	}
	return from, from.Token != token && (!f.seen(token) || len(f.ahead) > 0)
}

// catchUpTo applies a part of a log that was read from a position up to a head at
// least. It returns false if it does not lead there.
func (s *shared) catchUpTo(p int, from *tier.Position, h *tier.Head, since *tier.Log) bool {
	s.follow.Lock()
	defer s.follow.Unlock()
	f := &s.parts[p]
	return f.position.Load() != nil && s.applyLog(p, f, from, h, since)
}

// renew begins a new era in a partition in place of a head's, unless somebody was first.
// Everything kept of it is aged; the next round follows from there, whoever has
// succeeded. If it fails, what this instance knows of the partition stays, and the next
// round tries it again: who knew nothing would adopt the head that is to be replaced.
func (s *shared) renew(ctx context.Context, ses tier.Session, p int, h *tier.Head) error {
	err := ses.NewEra(ctx, p, h.Confirmed, false)
	s.follow.Lock()
	defer s.follow.Unlock()
	f := &s.parts[p]
	f.endEra()
	s.age(p)
	f.verified.Store(0)
	if err == nil {
		f.bury(h.Era)
		f.position.Store(nil)
		f.own, f.begun = tier.Position{}, 0
	}
	s.computeLegal()
	if !tier.IsPermanent(err) { // else the next round comes soon enough
		s.wake()
	}
	return err
}

// untilKnown asks for rounds until ok, but no more than two: the one under way may
// have asked before what is to be known was so.
func (s *shared) untilKnown(ctx context.Context, ok func() bool) error {
	for range 2 {
		done := s.rounds.wait()
		s.wake()
		select {
		case <-done:
		case <-ctx.Done():
			return ctx.Err()
		}
		if ok() {
			break
		}
	}
	return nil
}

// round lets requests wait for the end of a round that begins after they ask.
type round struct {
	mu   sync.Mutex
	next chan struct{}
}

func (r *round) done() {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.next)
	r.next = make(chan struct{})
}

func (r *round) wait() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.next
}
