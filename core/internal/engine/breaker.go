package engine

import (
	"context"
	"errors"
	"math/bits"
	"sync/atomic"
)

// breakAfter is how many calls of requests may fail in a row, of one partition or
// of one server's, before requests stop asking there, until the watchdog has
// verified it again.
const breakAfter = 3

// breaker counts the calls that failed in a row at one server. The partitions that
// it serves share it: one server that is down takes only those.
type breaker struct{ failures atomic.Int32 }

// serve notes who serves a partition. The caller holds follow.
func (s *shared) serve(p int, server string) {
	f := &s.parts[p]
	if f.server == server {
		return
	}
	f.server = server
	for q := range s.parts {
		if q != p && s.parts[q].server == server {
			f.breaker.Store(s.parts[q].breaker.Load())
			return
		}
	}
	f.breaker.Store(new(breaker))
}

// broken reports whether a partition or its server is not to be asked.
func (f *follower) broken() bool {
	return f.failures.Load() >= breakAfter || f.breaker.Load().failures.Load() >= breakAfter
}

// mend notes that a partition's server has answered.
func (f *follower) mend() {
	for _, n := range []*atomic.Int32{&f.failures, &f.breaker.Load().failures} {
		if n.Load() != 0 { // most often it is, and the line is everybody's
			n.Store(0)
		}
	}
}

// outcome counts failures of calls for a partition, which concern those of mask. A
// call that more than one server has to answer tells only that one of them has not:
// the watchdog finds out which.
func (s *shared) outcome(ctx context.Context, p int, mask uint64, err error) {
	one := s.parts[p].breaker.Load()
	alone := true
	for m := mask; m != 0; m &= m - 1 {
		f := &s.parts[bits.TrailingZeros64(m)]
		alone = alone && f.breaker.Load() == one
		if err == nil {
			f.mend()
		}
	}
	switch {
	case err == nil:
		return
	case ctx.Err() != nil, errors.Is(err, errSpent): // the client's time is up, or it did not ask: that says nothing of the tier
		return
	}
	s.e.Count.RemoteErrors.Add(1)
	var broke bool
	if alone {
		n := s.parts[p].failures.Add(1)
		broke = one.failures.Add(1) == breakAfter || n == breakAfter
	} else {
		broke = s.unsure.Add(1) == breakAfter
	}
	if broke {
		s.unreachable(err)
		s.wake()
	}
}

// blame stops requests from asking the partitions whose heads could not be had, if
// calls have failed of which nobody knows at which server.
func (s *shared) blame(failed uint64) {
	if s.unsure.Swap(0) < breakAfter {
		return
	}
	for ; failed != 0; failed &= failed - 1 {
		s.parts[bits.TrailingZeros64(failed)].failures.Store(breakAfter)
	}
}
