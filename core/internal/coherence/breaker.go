package coherence

import (
	"context"
	"errors"
	"math/bits"
	"slices"
	"sync/atomic"
	"time"

	"github.com/larderhq/larder/core/internal/tier"
)

// breakAfter is the number of consecutive failures after which requests stop asking, until
// the watchdog has verified the partition. Failures are counted for one partition, for the
// partitions of one server, and for all servers together.
const breakAfter = 3

// breaker counts consecutive failures of one server, or of all servers together. The
// partitions of a server share its breaker, so that a server that is down takes no other
// partitions with it.
type breaker struct {
	failures atomic.Int32
	answered atomic.Int64 // when the server last answered, to the millisecond, on the engine's clock
}

func (b *breaker) answer(now int64) {
	if b.failures.Load() != 0 { // it is zero as a rule, and a store would move the cache line
		b.failures.Store(0)
	}
	if now-b.answered.Load() > int64(time.Millisecond) {
		b.answered.Store(now)
	}
}

// fail counts a failed call of the given duration, unless the server has answered during the
// call. It reports whether the failure was the last one that is tolerated.
func (b *breaker) fail(now int64, took time.Duration) bool {
	return now-b.answered.Load() >= int64(took) && b.failures.Add(1) == breakAfter
}

// servedBy records the server of a partition. The caller holds follow.
func (s *shared) servedBy(p int, server string) {
	f := &s.parts[p]
	if f.server.id == server {
		return
	}
	f.server.id, f.server.own = server, tier.Position{}
	for q := range s.parts {
		if q != p && s.parts[q].server.id == server {
			f.server.breaker.Store(s.parts[q].server.breaker.Load())
			return
		}
	}
	f.server.breaker.Store(new(breaker))
}

// broken reports whether requests must not ask one of the partitions of the mask.
func (s *shared) broken(mask uint64) bool {
	if s.health.breaker.failures.Load() >= breakAfter {
		return true
	}
	for ; mask != 0; mask &= mask - 1 {
		server := &s.parts[bits.TrailingZeros64(mask)].server
		if server.failures.Load() >= breakAfter || server.breaker.Load().failures.Load() >= breakAfter {
			return true
		}
	}
	return false
}

// recordAnswer records that a partition's server has answered.
func (s *shared) recordAnswer(f *follower, now int64) {
	if f.server.failures.Load() != 0 {
		f.server.failures.Store(0)
	}
	f.server.breaker.Load().answer(now)
	s.health.breaker.answer(now)
}

// recordCall records the outcome of a call for partition p that all partitions of the mask had
// to answer. If several servers had to, a failure counts for those that have answered
// nothing else during the call.
func (s *shared) recordCall(ctx context.Context, p int, mask uint64, err error) {
	if err == nil {
		now := s.local.Now()
		for ; mask != 0; mask &= mask - 1 {
			s.recordAnswer(&s.parts[bits.TrailingZeros64(mask)], now)
		}
		return
	}
	// A call that the caller cut off, or that was not sent, proves nothing about the tier.
	if ctx.Err() != nil || errors.Is(err, errSpent) {
		return
	}
	s.countUnrefused(err)
	if s.recordFailure(p, mask) {
		if tier.KindOf(err) == "" { // refused has logged a refusal
			s.unreachable(err)
		}
		s.requestRound()
	}
}

// recordFailure counts a failed call. It reports whether requests stop asking now.
func (s *shared) recordFailure(p int, mask uint64) bool {
	now := s.local.Now()
	var servers []*breaker
	for ; mask != 0; mask &= mask - 1 {
		if b := s.parts[bits.TrailingZeros64(mask)].server.breaker.Load(); !slices.Contains(servers, b) {
			servers = append(servers, b)
		}
	}
	broke := s.health.breaker.fail(now, s.Budget)
	if len(servers) == 1 {
		n := s.parts[p].server.failures.Add(1)
		return servers[0].failures.Add(1) == breakAfter || n == breakAfter || broke
	}
	for _, b := range servers {
		broke = b.fail(now, s.Budget) || broke
	}
	return broke
}
