package coherence

import (
	"sync/atomic"
	"time"
)

// distance is how far away the shared tier is: the time of a round trip, as the
// watchdog's questions take it. The shortest of the last few counts, so that neither a
// connection that had to be made nor one slow reply moves it.
//
// A miss needs one round trip before its load: the lease, which comes with the entry
// where there is one. Where the tier is near, the entry is asked for first, since a GET
// costs the server less. What a request's budget has no room for is not sent at all: the
// reply would come too late, a lease would be had by nobody, and the connection would be
// lost. The load runs without a lease then, and what makes up for it runs behind the
// response (later.go).
type distance struct {
	recent [4]time.Duration // of the watchdog's last questions; its own
	asked  int
	trip   atomic.Int64  // the shortest of them, in nanoseconds; 0: not known
	far    bool          // it has been said that a request's budget has no room for a round trip; the watchdog's own
	limit  time.Duration // for how long the watchdog waits for the next reply, 0: as ever; its own
}

// note notes how long a question of the watchdog's took.
func (d *distance) note(took time.Duration) {
	d.recent[d.asked%len(d.recent)] = took
	d.asked++
	shortest := took
	for _, r := range d.recent[:min(d.asked, len(d.recent))] {
		shortest = min(shortest, r)
	}
	d.trip.Store(int64(shortest))
}

// roundTrip is how long a round trip to the tier takes at least, 0 if that is not known.
func (s *shared) roundTrip() time.Duration { return time.Duration(s.distance.trip.Load()) }

// fits reports whether a reply can be expected within a time.
func (s *shared) fits(d time.Duration) bool { return 5*s.roundTrip() <= 4*d }

// thrifty reports whether a round trip is worth more than what it costs the server.
func (s *shared) thrifty() bool { return 5*s.roundTrip() > s.Budget }

// decent is the time that a call must have had for its failure to say something of the
// tier: what has had less may have been cut off in the middle of a reply that was on time.
func (s *shared) decent() time.Duration {
	return max(s.Budget/2, min(2*s.roundTrip(), s.Budget))
}

// measure notes how long a round of the watchdog's took to be answered, and says once
// that requests can or cannot wait for a reply.
func (s *shared) measure(took time.Duration) {
	d := &s.distance
	d.note(took)
	if d.asked < 2 { // the first may have had to connect
		return
	}
	trip := s.roundTrip()
	switch {
	case !d.far && !s.fits(s.Budget):
		d.far = true
		s.Log.Warn("larder: a round trip to the shared tier takes longer than a request may wait for it (Options.RemoteBudget): "+
			"a miss is answered from its load without asking the tier, and what the tier has, or a second load, is stored behind the response. "+
			"Loads of the same key are not shared between instances",
			"round trip", trip, "RemoteBudget", s.Budget, "set RemoteBudget to", budgetFor(trip))
	case d.far && 5*trip < 3*s.Budget:
		d.far = false
		s.Log.Info("larder: a round trip to the shared tier fits into Options.RemoteBudget again", "round trip", trip, "RemoteBudget", s.Budget)
	}
}

// budgetFor is a budget that has room for a hit that has to ask for generations as well.
func budgetFor(trip time.Duration) time.Duration {
	const step = 10 * time.Millisecond
	return (3*trip + step).Truncate(step)
}

// RoundTrip is how long a round trip to the shared tier takes at least, 0 if there is
// none, or that is not known.
func (e *Engine) RoundTrip() time.Duration {
	if e.shared == nil {
		return 0
	}
	return e.shared.roundTrip()
}

// roundLimit is how long the watchdog waits for a reply. It waits longer where nothing
// at all has been answered in that time, but not for so long that what it verifies would
// be over before the next round is: the rounds begin MaxStaleness/2 apart.
func (s *shared) roundLimit() time.Duration {
	delta := time.Duration(s.delta)
	least := min(max(delta/4, 25*time.Millisecond), time.Second)
	return min(max(least, s.distance.limit, 3*s.roundTrip()), max(least, delta*9/20))
}

// catchUpLimit is for how long a round of that limit waits for logs and new eras. A server
// that does not know a script yet takes two round trips, and the making of a connection
// two more.
func (s *shared) catchUpLimit(limit time.Duration) time.Duration {
	return max(limit, min(6*s.roundTrip(), behindWait))
}

// unanswered notes that a round has verified nothing in the time that it had.
func (s *shared) unanswered(limit time.Duration) { s.distance.limit = 2 * limit }

// answeredIn notes that one has.
func (s *shared) answeredIn(took time.Duration) {
	s.distance.limit = 0
	s.measure(took)
}
