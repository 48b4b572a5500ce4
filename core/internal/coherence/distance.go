package coherence

import (
	"sync/atomic"
	"time"
)

// distance is the time of a round trip to the shared tier, as the watchdog's questions
// measure it. The shortest of the last four counts, so that neither a new connection nor
// one slow reply changes it.
//
// A miss needs one round trip before its load: the question for the lease, whose answer is
// the entry if there is one. Where the tier is near, the entry is asked for first, since a
// GET costs the server less. A question whose reply cannot arrive within a request's budget is not
// sent: its reply would come too late, a lease that it granted would be lost, and the
// connection would have to be closed. The load runs without a lease then, and another load
// behind the response stores its value (later.go).
type distance struct {
	trip atomic.Int64 // the shortest round trip, in nanoseconds; 0: not known

	// The watchdog alone uses these:
	recent   [4]time.Duration // of its last questions
	measured int
	far      bool          // it has been logged that a round trip exceeds the budget of a request
	limit    time.Duration // the least time for which the watchdog waits for the next reply; 0: the default
}

// record records the duration of a question.
func (d *distance) record(took time.Duration) {
	d.recent[d.measured%len(d.recent)] = took
	d.measured++
	shortest := took
	for _, r := range d.recent[:min(d.measured, len(d.recent))] {
		shortest = min(shortest, r)
	}
	d.trip.Store(int64(shortest))
}

// roundTrip is the least time of a round trip to the tier, 0 if it is not known.
func (s *shared) roundTrip() time.Duration { return time.Duration(s.health.distance.trip.Load()) }

// fits reports whether a reply can be expected within a time.
func (s *shared) fits(d time.Duration) bool { return 5*s.roundTrip() <= 4*d }

// distant reports whether a round trip takes so much of a request's budget that it costs more
// than a larger script costs the server.
func (s *shared) distant() bool { return 5*s.roundTrip() > s.Budget }

// conclusive is the least time after which the failure of a call proves something about the
// tier. A call that had less time may have been cut off in the middle of a reply.
func (s *shared) conclusive() time.Duration {
	return max(s.Budget/2, min(2*s.roundTrip(), s.Budget))
}

// measure records the duration of a question for the heads. It logs once when requests can
// no longer wait for a reply, and once when they can again.
func (s *shared) measure(took time.Duration) {
	d := &s.health.distance
	d.record(took)
	if d.measured < 2 { // the first may have opened a connection
		return
	}
	trip := s.roundTrip()
	switch {
	case !d.far && !s.fits(s.Budget):
		d.far = true
		s.Log.Warn("larder: a round trip to the shared tier takes longer than a request may wait for it (Options.RemoteBudget): "+
			"a miss is answered from its load without asking the tier, and the tier's entry, or the value of a second load, is stored behind the response. "+
			"Loads of the same key are not shared between instances",
			"round trip", trip, "RemoteBudget", s.Budget, "set RemoteBudget to", budgetFor(trip))
	case d.far && 5*trip < 3*s.Budget:
		d.far = false
		s.Log.Info("larder: a round trip to the shared tier fits into Options.RemoteBudget again", "round trip", trip, "RemoteBudget", s.Budget)
	}
}

// budgetFor returns a budget that has room for a hit whose generations have to be asked for.
func budgetFor(trip time.Duration) time.Duration {
	const step = 10 * time.Millisecond
	return (3*trip + step).Truncate(step)
}

// RoundTrip returns the least time of a round trip to the shared tier. It is 0 if there is no
// shared tier, or the time is not known.
func (e *Engine) RoundTrip() time.Duration {
	if e.shared == nil {
		return 0
	}
	return e.shared.roundTrip()
}

// roundLimit is the time for which the watchdog waits for a reply. It grows while nothing is
// answered within it. It stays below the interval of MaxStaleness/2 between two rounds:
// otherwise a partition would cease to be legal before the next round verifies it.
func (s *shared) roundLimit() time.Duration {
	delta := time.Duration(s.delta)
	least := min(max(delta/4, 25*time.Millisecond), time.Second)
	return min(max(least, s.health.distance.limit, 3*s.roundTrip()), max(least, delta*9/20))
}

// catchUpLimit is the time for which a round of the given limit waits for logs and new eras.
// A script that the server does not know yet takes two round trips, and a new connection two
// more.
func (s *shared) catchUpLimit(limit time.Duration) time.Duration {
	return max(limit, min(6*s.roundTrip(), behindWait))
}

// unanswered records that no head arrived within the limit of a round.
func (s *shared) unanswered(limit time.Duration) { s.health.distance.limit = 2 * limit }

// answeredIn records that all heads arrived.
func (s *shared) answeredIn(took time.Duration) {
	s.health.distance.limit = 0
	s.measure(took)
}
