package coherence

import (
	"sync/atomic"
	"time"
)

// The monotonic clock of a suspended machine stands still on some platforms, so that an old
// proof looks recent. The wall clock shows the suspension (R22): the difference between the
// two clocks, the skew, grows by the length of the suspension.
//
// The skew also changes while the machine runs, because the wall clock is adjusted: by 0.05 %
// of the time at most where NTP slews it. A tolerance absorbs that change. The tolerance
// would absorb a suspension as well, so that it is part of the promise: a proof lasts for
// MaxStaleness less the tolerance. The skew to compare with is measured at the start of each
// round that verifies every partition. The change between two rounds, and all suspensions
// between them, therefore have to fit into the tolerance together:
//
//	round at v measures the skew, verifies       a copy is served until v + MaxStaleness - tolerance
//	suspended for less than the tolerance        the copy is served for that much longer: still
//	                                             MaxStaleness at most
//	suspended several times, each time briefly   the sum counts, until a round has verified again
//	suspended for longer                         the next reading of the clocks ages everything
//	suspended between measuring and verifying    counts: the skew is that of before the question
//	one partition is not verified by a round     the skew stays, as does the partition's proof
//	wall clock slewed for hours                  each round measures it again: nothing is aged
//	wall clock set by more than the tolerance    everything is aged: nothing tells it from a
//	                                             suspension

// suspension detects a process that did not run for some time, by the difference between the
// wall clock and the monotonic clock (R22).
type suspension struct {
	skew atomic.Int64 // the wall clock minus the monotonic clock
	// found is true from the detection until everything has been aged. Nothing counts as
	// verified in between.
	found atomic.Bool

	// The skew at the start of the last round, whose question was sent at that time. It is
	// known unless the machine was too busy. follow guards these fields.
	measured int64
	known    bool
	sent     int64
}

// toleranceShare is the part of MaxStaleness by which the skew may change.
const toleranceShare = 16

// tolerance is the change of the skew beyond which a suspension is assumed.
func (ps *partitions) tolerance() int64 { return ps.delta / toleranceShare }

// uncertainty is the largest error of a measured skew, which is never too large.
func (ps *partitions) uncertainty() int64 { return ps.tolerance() / 8 }

// proofLasts is the time for which a partition that was verified is legal.
func (ps *partitions) proofLasts() int64 { return ps.delta - ps.tolerance() }

// tolerates reports whether the skew may have changed by d without a suspension.
func (ps *partitions) tolerates(d int64) bool { return d <= ps.tolerance() && d >= -ps.tolerance() }

// wall returns the wall clock.
func (s *shared) wall() int64 {
	if s.Wall != nil {
		return s.Wall()
	}
	return time.Now().UnixNano()
}

// currentSkew reads the skew. ok is false if so much time passed between the readings of the
// two clocks that the skew is uncertain.
func (s *shared) currentSkew() (skew int64, ok bool) {
	const tries = 3
	for range tries {
		before := s.local.Monotonic()
		wall := s.wall()
		after := s.local.Monotonic()
		// A skew that is too small makes a suspension look longer, not shorter.
		if skew = wall - after; after-before <= s.uncertainty() {
			return skew, true
		}
	}
	return skew, false
}

// CheckClocks detects that the machine was suspended: its monotonic clock stood still, so
// that partitions seem to have been verified a moment ago (R22). mono is the monotonic clock.
func (s *shared) CheckClocks(mono int64) {
	skew := s.suspension.skew.Load()
	if s.tolerates(s.wall() - mono - skew) {
		return
	}
	// The goroutine may have been preempted between the two readings.
	now, ok := s.currentSkew()
	if ok && s.tolerates(now+s.uncertainty()-skew) {
		return
	}
	// The caller may hold any lock, so none is taken here. A goroutine that verifies a partition
	// meanwhile reads found afterwards, and undoes the verification. The skew is stored last:
	// until then every caller detects the suspension.
	s.suspension.found.Store(true)
	for p := range s.parts {
		s.parts[p].verified.Store(0)
	}
	s.legalUntil.Store(0)
	s.suspension.skew.CompareAndSwap(skew, now)
	s.requestRound()
}

// reportSuspension logs that everything was aged, once until it has not occurred for ten
// minutes.
func (s *shared) reportSuspension() {
	if s.health.failures.isNew("suspension", s.local.Monotonic()) {
		s.Log.Warn("larder: the machine was suspended, or its wall clock was set; the copies in memory were dropped",
			"tolerated", time.Duration(s.tolerance()))
	}
}

// measureSkew measures the skew for a round whose question is sent at the given time. The
// caller holds follow.
func (s *shared) measureSkew(sent int64) {
	s.suspension.measured, s.suspension.known = s.currentSkew()
	s.suspension.sent = sent
}

// rebaseSkew makes the skew at the start of the last round the one to compare with, if the
// round has verified every partition. The caller holds follow.
func (s *shared) rebaseSkew() {
	sp := &s.suspension
	if !sp.known || sp.found.Load() || !s.verifiedSince(s.everything(), sp.sent) {
		return
	}
	if old := sp.skew.Load(); s.tolerates(sp.measured - old) {
		sp.skew.CompareAndSwap(old, sp.measured)
	}
}
