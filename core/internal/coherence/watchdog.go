package coherence

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/larderhq/larder/core/internal/tier"
)

// watchdog is the state of the loop that verifies the partitions.
type watchdog struct {
	requested chan struct{} // a round is wanted now
	rounds    rounds

	// The loop alone uses these:
	asked        int64 // when the last round asked for the heads
	inconclusive int   // consecutive rounds that succeeded and left a partition unverified
}

const (
	// minRoundPause is the least time between two rounds.
	minRoundPause = 2 * time.Millisecond
	// maxInconclusive is the number of consecutive rounds that may succeed and leave a
	// partition unverified. Beyond it they count as failures.
	maxInconclusive = 10
)

// requestRound makes the watchdog begin a round now.
func (s *shared) requestRound() {
	select {
	case s.watchdog.requested <- struct{}{}:
	default:
	}
}

// run opens the tier if New could not, and follows it until ctx ends.
func (s *shared) run(ctx context.Context) {
	defer s.done.Done()
	if !s.reopen(ctx) {
		return
	}
	ses := *s.session.Load()
	s.agreement.renewed.Store(s.local.Monotonic())
	s.done.Add(2)
	go s.listen(ctx, ses)
	go s.keepAgreed(ctx, ses)
	s.rest.used = s.local.Monotonic()
	for {
		began := time.Now()
		failed := s.agreementLapsed()
		if failed {
			// There are no hits until the other instances know this instance's MaxStaleness
			// again (R2).
			s.watchdog.rounds.end()
		} else if err := s.round(ctx); err != nil {
			if ctx.Err() != nil {
				return
			}
			failed = true
			s.countUnrefused(err)
			s.unreachable(err)
		}
		s.retryPending(ctx, ses)
		pause := s.pause(failed)
		if !sleep(ctx, minRoundPause, nil) || !sleep(ctx, pause-time.Since(began), s.watchdog.requested) {
			return
		}
	}
}

// reopen opens the tier unless it is open. It returns false when ctx has ended.
func (s *shared) reopen(ctx context.Context) bool {
	pause, limit := 100*time.Millisecond, openTimeout
	for s.session.Load() == nil {
		if !sleep(ctx, pause, nil) {
			return false
		}
		pause, limit = min(2*pause, time.Second), min(2*limit, maxOpenTimeout)
		oc, cancel := context.WithTimeout(ctx, limit)
		if err := s.open(oc); err != nil {
			s.countUnrefused(err)
			s.unreachable(err)
		}
		cancel()
	}
	return true
}

// round asks for all heads, and applies the items that are missing. A partition that it
// verifies counts as verified from the time at which the question was sent (R19).
func (s *shared) round(ctx context.Context) error {
	box := s.session.Load()
	if box == nil {
		return errNotOpen
	}
	ses := *box
	questions := s.beginRound()
	limit := s.roundLimit()
	heads, err := s.askHeads(ctx, ses, questions, limit)
	if err != nil {
		s.watchdog.rounds.end()
		return err
	}
	if s.otherLayout(heads) {
		return s.relayout(ctx, ses)
	}
	if slices.ContainsFunc(heads, replaced) {
		// The layout may have been lost as well. It must name this instance before the
		// instance answers again (R2).
		ac, cancel := context.WithTimeout(ctx, openTimeout)
		err := s.agree(ac, ses)
		cancel()
		if err != nil {
			s.watchdog.rounds.end()
			return err
		}
	}
	s.verifyAll(ctx, ses, heads, questions, limit)
	s.watchdog.rounds.end()
	return s.roundResult(heads)
}

// beginRound ages everything if the process was suspended, and returns what is known of each
// partition before the question.
func (s *shared) beginRound() []headQuestion {
	suspended := false
	defer func() { // after follow is unlocked
		if suspended {
			s.reportSuspension()
		}
	}()
	s.follow.Lock()
	defer s.follow.Unlock()
	if suspended = s.suspension.found.Swap(false); suspended {
		s.ageAll()
	}
	sent := s.local.Now()
	s.watchdog.asked = sent
	s.measureSkew(sent)
	questions := make([]headQuestion, len(s.parts))
	for p := range s.parts {
		questions[p] = s.parts[p].question(sent)
	}
	return questions
}

// askHeads asks for the heads of all partitions.
func (s *shared) askHeads(ctx context.Context, ses tier.Session, questions []headQuestion, limit time.Duration) ([]tier.Head, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	sent, began := questions[0].sent, time.Now()
	heads, err := ses.Heads(ctx)
	took := time.Since(began)
	if err != nil {
		s.unanswered(limit)
		return nil, err
	}
	failed := func(h tier.Head) bool { return h.Err != nil }
	switch {
	case !slices.ContainsFunc(heads, failed):
		s.answeredIn(took)
	case !slices.ContainsFunc(heads, func(h tier.Head) bool { return h.Err == nil }):
		s.unanswered(limit)
	}
	s.readClocks(heads, sent)
	return heads, nil
}

// otherLayout reports whether the heads belong to another layout than the known one.
func (s *shared) otherLayout(heads []tier.Head) bool {
	n := s.local.Partitions()
	return len(heads) != n || slices.ContainsFunc(heads, func(h tier.Head) bool {
		return h.Err == nil && !h.Missing && (h.Protocol != tier.Protocol || h.Partitions != n)
	})
}

// replaced reports whether a head is missing, or was confirmed by another server than the
// one that answers: data may have been lost.
func replaced(h tier.Head) bool { return h.Err == nil && (h.Missing || h.Confirmed != h.Server) }

// relayout adopts another layout. It drops everything, since the old layout placed it.
func (s *shared) relayout(ctx context.Context, ses tier.Session) error {
	s.follow.Lock()
	s.ageAll()
	s.follow.Unlock()
	s.watchdog.rounds.end()
	if err := s.agree(ctx, ses); err != nil {
		return err
	}
	return errLayout
}

// verifyAll verifies the partitions by their heads. The logs of partitions whose heads have
// moved are read in one round trip per server. A partition that could not be verified for an
// error has it in its head afterwards.
func (s *shared) verifyAll(ctx context.Context, ses tier.Session, heads []tier.Head, questions []headQuestion, limit time.Duration) {
	var moved []int
	for p := range heads {
		if !s.verifyUnmoved(p, &heads[p], &questions[p]) {
			moved = append(moved, p)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, s.catchUpLimit(limit))
	defer cancel()
	together := tier.NewBatch(len(moved))
	ctx = tier.WithBatch(ctx, together)
	var all sync.WaitGroup
	for _, p := range moved {
		all.Go(func() {
			defer together.Leave()
			if err := s.catchUp(ctx, ses, p, &heads[p], &questions[p]); err != nil {
				heads[p].Err = err
			}
		})
	}
	all.Wait()
	s.follow.Lock()
	defer s.follow.Unlock()
	s.rebaseSkew()
	s.computeLegal()
}

// roundResult returns the first error of a round, or errUnverified after too many rounds
// that left a partition unverified.
func (s *shared) roundResult(heads []tier.Head) error {
	for p := range heads {
		if heads[p].Err != nil {
			return heads[p].Err
		}
	}
	if !s.unverified() {
		s.watchdog.inconclusive = 0
	} else if s.watchdog.inconclusive++; s.watchdog.inconclusive >= maxInconclusive {
		return errUnverified
	}
	s.reachable()
	return nil
}

// verifyUnmoved verifies a partition whose head is at this instance's position. It returns
// false if the head has moved, or its data has been replaced.
func (s *shared) verifyUnmoved(p int, h *tier.Head, q *headQuestion) bool {
	if h.Err != nil {
		return true // nothing can be done for it in this round
	}
	s.follow.Lock()
	defer s.follow.Unlock()
	return s.verifyAt(p, h, q)
}

// verifyAt is verifyUnmoved for a head that has arrived. The caller holds follow.
func (s *shared) verifyAt(p int, h *tier.Head, q *headQuestion) bool {
	f := &s.parts[p]
	pos := f.position.Load()
	if h.Missing || h.Confirmed != h.Server || pos == nil || pos.Token != h.Position.Token || f.wentBack(h, q) {
		return false
	}
	if f.era() != h.Era {
		if f.era() != "" {
			return false
		}
		s.answeredBy(p, h)
		s.learnEra(p, h, q) // the last era ended at an item that has been applied
	}
	s.answeredBy(p, h)
	s.verify(f, q.sent)
	return true
}

// verify records that a partition was followed up to the time sent. The caller holds
// follow.
func (s *shared) verify(f *follower, sent int64) {
	f.verified.Store(max(f.verified.Load(), sent))
	s.recordAnswer(f, s.local.Monotonic())
	if s.suspension.found.Load() {
		f.verified.Store(0)
	}
}

// catchUp brings a partition to its head, or begins a new era in it. It returns an error if
// the tier did neither.
func (s *shared) catchUp(ctx context.Context, ses tier.Session, p int, h *tier.Head, q *headQuestion) error {
	f := &s.parts[p]
	switch {
	case h.Missing:
		// The first instance that asks makes a head. It verifies nothing, since the head that it
		// replaces is unknown (R20).
		return s.beginEra(ctx, ses, p, h)
	case h.Confirmed != h.Server:
		// The server was promoted or restarted. The new era ends the entries that an old
		// server may have brought back (R21).
		return s.beginEra(ctx, ses, p, h)
	}
	s.follow.Lock()
	if s.verifyAt(p, h, q) { // hints have moved the position to the head
		s.follow.Unlock()
		return nil
	}
	from, back := f.position.Load(), f.wentBack(h, q)
	if !back && (from == nil || from.Token == h.Position.Token) {
		s.adopt(p, h, q)
		s.verify(f, q.sent)
		s.follow.Unlock()
		return nil
	}
	server, era := f.server.id, f.eras.last
	s.follow.Unlock()
	if back {
		return s.beginEra(ctx, ses, p, h)
	}

	since, err := s.readLog(ctx, ses, p, from)
	if err != nil {
		return err
	}
	if s.verifyByLog(p, from, h, since, q) {
		return nil
	}
	// If the position was trimmed, or the era differs, only this instance's copies are old.
	// Otherwise the tier may have lost an item on which other instances rely.
	if !since.Trimmed && h.Server == server && h.Era == era {
		return s.beginEra(ctx, ses, p, h)
	}
	s.follow.Lock()
	defer s.follow.Unlock()
	s.adopt(p, h, q)
	s.verify(f, q.sent)
	return nil
}

// readLog reads a partition's log from a position, and refuses items of an unknown form (R2).
func (s *shared) readLog(ctx context.Context, ses tier.Session, p int, from *tier.Position) (*tier.Log, error) {
	since, err := ses.Log(ctx, p, *from)
	if err != nil {
		return nil, err
	}
	for _, it := range since.Items {
		if err := it.Check(); err != nil {
			return nil, fmt.Errorf("larder: the log of partition %d cannot be followed: %w", p, err)
		}
	}
	return &since, nil
}

// verifyByLog verifies a partition if its log leads from a position to the head. It also
// returns true if the partition has been aged meanwhile: the next round verifies it then.
func (s *shared) verifyByLog(p int, from *tier.Position, h *tier.Head, since *tier.Log, q *headQuestion) bool {
	s.follow.Lock()
	defer s.follow.Unlock()
	f := &s.parts[p]
	if f.position.Load() == nil {
		return true
	}
	if !s.applyLog(p, f, from, h, since) {
		return false
	}
	s.answeredBy(p, h)
	if pos := f.position.Load(); pos.Token == h.Position.Token {
		s.learnEra(p, h, q)
	}
	s.verify(f, q.sent)
	return true
}

// beginEra begins a new era in a partition in place of a head's, unless another instance was
// first. The partition is aged, and the next round follows from the new head, whichever
// instance has made it. If the call fails, this instance keeps its knowledge of the partition,
// and the next round tries again: without that knowledge it would adopt the head that is to
// be replaced.
func (s *shared) beginEra(ctx context.Context, ses tier.Session, p int, h *tier.Head) error {
	err := ses.NewEra(ctx, p, h.Confirmed, false)
	s.follow.Lock()
	defer s.follow.Unlock()
	f := &s.parts[p]
	f.endEra()
	s.age(p)
	f.verified.Store(0)
	if err == nil {
		f.retire(h.Era)
		f.position.Store(nil)
		f.server.own, f.eras.begun = tier.Position{}, 0
	}
	s.computeLegal()
	if !tier.IsPermanent(err) { // otherwise the next round is soon enough
		s.requestRound()
	}
	return err
}

// awaitRounds requests rounds until ok returns true, two at most: the round in progress may
// have sent its question before the state that is awaited. ok is asked once the end of the next
// round cannot be missed any more, since a round may have ended meanwhile.
func (s *shared) awaitRounds(ctx context.Context, ok func() bool) error {
	for range 2 {
		ended := s.watchdog.rounds.ended()
		if ok() {
			return nil
		}
		s.requestRound()
		select {
		case <-ended:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// rounds lets requests wait for the end of a round.
type rounds struct {
	mu   sync.Mutex
	next chan struct{} // closed at the end of the next round
}

// end wakes the requests that wait for a round.
func (r *rounds) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.next)
	r.next = make(chan struct{})
}

// ended returns a channel that is closed when the next round ends.
func (r *rounds) ended() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.next
}
