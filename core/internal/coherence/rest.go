package coherence

import (
	"context"
	"sync/atomic"
	"time"
)

// An instance that answers nothing needs no proof. Its watchdog rests: it asks for the heads
// every restEvery instead of every MaxStaleness/2. A rest changes nothing about what may be
// answered: a partition is legal for as long after its last question as ever (R4). The first
// request that needs a proof ends the rest, and waits within its budget for a round. The
// interleavings:
//
//	round, rest, item elsewhere, hint lost,      The partition is not legal any more. The
//	request                                      request waits for a round, which reads the
//	                                             item and ends the copy.
//	round, rest, request within MaxStaleness     The copy is legal. The request ends the rest,
//	                                             and does not wait.
//	demand during the decision to rest           Either the watchdog sees the demand, or the
//	                                             request sees the rest and ends it.
//	rest, the tier dies, requests                The first requests wait for their budget, or
//	                                             until the round fails. The rest is over then,
//	                                             and the others do not wait.
//	a load runs for longer than restAfter        A turn keeps the watchdog awake: the load's
//	                                             copies and its stale fallback stay legal.
//	rest, more items than a log in the tier      The round finds the position trimmed, and ages
//	holds                                        the partition, as after any gap.
//	rest, Begin, hint lost, deadline, request    The round applies the Begun item before the
//	                                             partition is legal: the copy ends.
//	Begin heard in a rest                        The deadline is computed by a clock of the
//	                                             server that was read some time ago. Its error
//	                                             grows since that reading (serverClock.reaches).
//	rest, the machine is suspended, request      The request compares the clocks first. The
//	                                             skew to compare with is that of the last round,
//	                                             so that a rest is short for an adjusted clock.
//
// Background work that needs a proof waits for it as a request does: refreshes, warming and
// fills ask in turns, and a round of KeepWarm begins with Awaken. Write-behind sends its calls
// during a rest. Pending invalidations are retried after each round, so that there is no rest
// while one is pending. Leases, the layout, deadlines and hints do not depend on rounds.

const (
	// restEvery is the interval between two rounds of a rest. The items of that time fit into
	// the log of a partition.
	restEvery = 10 * time.Second
	// restShare bounds the interval by MaxStaleness. A wall clock that is slewed by 0.05 % then
	// stays far within the tolerance of the clocks (R22).
	restShare = 10
	// restAfter is the time without a demand after which the watchdog rests.
	restAfter = 5 * time.Second
)

// rest is the state of a watchdog that may rest.
type rest struct {
	demanded atomic.Bool  // since the last round
	resting  atomic.Bool  // the next round is that of a rest
	turns    atomic.Int64 // in progress
	used     int64        // when a demand was last found, on the engine's clock; the watchdog alone uses it
}

// demand notes that a proof is needed, and ends a rest. It is called at each hit: a store for
// each of them would move the cache line between processors.
func (s *shared) demand() {
	if s.rest.demanded.Load() {
		return
	}
	s.rest.demanded.Store(true)
	if s.rest.resting.Load() {
		s.requestRound()
	}
}

// pause returns the time from the begin of the last round to the next one. failed: the last
// round verified nothing.
func (s *shared) pause(failed bool) time.Duration {
	r, now, delta := &s.rest, s.local.Monotonic(), time.Duration(s.delta)
	awake, asleep := delta/2, min(restEvery, restShare*delta)
	demanded := r.demanded.Swap(false) || r.turns.Load() > 0
	if demanded || failed || s.unverified() || s.pending.count.Load() > 0 || s.distant() {
		r.used = now
	}
	rests := awake < asleep && now-r.used >= int64(restAfter)
	r.resting.Store(rests)
	if rests && r.demanded.Load() { // since the swap: demand has not seen the rest
		r.resting.Store(false)
		rests = false
	}
	if rests {
		return asleep
	}
	return awake
}

// awaken ends a rest, and waits for a proof of all partitions for a time at most. If the tier
// does not answer in that time, no other request waits.
func (s *shared) awaken(ctx context.Context, limit time.Duration) {
	s.demand()
	proven := func() bool { return s.Legal(s.everything(), s.local.Now()) }
	if !s.rest.resting.Load() || proven() {
		return
	}
	wait, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if s.awaitRounds(wait, proven) != nil && ctx.Err() == nil {
		s.rest.resting.Store(false)
	}
}

// Awaken makes sure that copies in memory may be answered after a time without requests: it
// waits for a round within the budget of a request. Otherwise it returns at once. It returns
// the time that it has taken (Turn.Spend).
func (e *Engine) Awaken(ctx context.Context) time.Duration {
	if e.shared == nil {
		return 0
	}
	if !e.shared.rest.resting.Load() {
		e.shared.demand()
		return 0
	}
	began := time.Now()
	e.shared.awaken(ctx, e.shared.Budget)
	return time.Since(began)
}

// Spend takes a wait from the time that the turn has for its questions.
func (t *Turn) Spend(d time.Duration) { t.waited += d }

// newTurn registers a turn, which keeps the watchdog awake until Finish.
func (e *Engine) newTurn(t *Turn) *Turn {
	t.e = e
	if e.shared != nil {
		e.shared.rest.turns.Add(1)
		e.shared.demand()
	}
	return t
}
