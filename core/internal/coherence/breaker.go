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

// breakAfter is how many calls of requests may fail in a row before requests stop
// asking, until the watchdog has verified what they ask: of one partition, of those
// that one server has, or, if nothing is heard of any server, of all.
const breakAfter = 3

// breaker counts the calls that failed in a row at one server, or anywhere. The
// partitions of a server share it: one that is down takes only those.
type breaker struct {
	failures atomic.Int32
	answered atomic.Int64 // when it last did, about, on the engine's clock
}

func (b *breaker) answer(now int64) {
	if b.failures.Load() != 0 { // most often it is, and the line is everybody's
		b.failures.Store(0)
	}
	if now-b.answered.Load() > int64(time.Millisecond) {
		b.answered.Store(now)
	}
}

// fail counts a call that took at most so long, unless it was answered meanwhile,
// and reports whether that was one too many.
func (b *breaker) fail(now int64, took time.Duration) bool {
	return now-b.answered.Load() >= int64(took) && b.failures.Add(1) == breakAfter
}

// serve notes who serves a partition. The caller holds follow.
func (s *shared) serve(p int, server string) {
	f := &s.parts[p]
	if f.server == server {
		return
	}
	f.server, f.own = server, tier.Position{}
	for q := range s.parts {
		if q != p && s.parts[q].server == server {
			f.breaker.Store(s.parts[q].breaker.Load())
			return
		}
	}
	f.breaker.Store(new(breaker))
}

// broken reports whether one of the partitions of the mask is not to be asked.
func (s *shared) broken(mask uint64) bool {
	if s.breaker.failures.Load() >= breakAfter {
		return true
	}
	for ; mask != 0; mask &= mask - 1 {
		f := &s.parts[bits.TrailingZeros64(mask)]
		if f.failures.Load() >= breakAfter || f.breaker.Load().failures.Load() >= breakAfter {
			return true
		}
	}
	return false
}

// answered notes that a partition's server has answered.
func (s *shared) answered(f *follower, now int64) {
	if f.failures.Load() != 0 {
		f.failures.Store(0)
	}
	f.breaker.Load().answer(now)
	s.breaker.answer(now)
}

// outcome counts failures of calls for a partition, which all those of mask had to
// answer. Of several servers the ones are to blame that answered nothing else
// meanwhile.
func (s *shared) outcome(ctx context.Context, p int, mask uint64, err error) {
	if err == nil {
		now := s.local.Now()
		for ; mask != 0; mask &= mask - 1 {
			s.answered(&s.parts[bits.TrailingZeros64(mask)], now)
		}
		return
	}
	if ctx.Err() != nil || errors.Is(err, errSpent) { // the client's time is up, or it did not ask: that says nothing of the tier
		return
	}
	s.uncounted(err)
	now := s.local.Now()
	var servers []*breaker
	for ; mask != 0; mask &= mask - 1 {
		if b := s.parts[bits.TrailingZeros64(mask)].breaker.Load(); !slices.Contains(servers, b) {
			servers = append(servers, b)
		}
	}
	broke := s.breaker.fail(now, s.Budget)
	if len(servers) == 1 {
		n := s.parts[p].failures.Add(1)
		broke = servers[0].failures.Add(1) == breakAfter || n == breakAfter || broke
	} else {
		for _, b := range servers {
			broke = b.fail(now, s.Budget) || broke
		}
	}
	if broke {
		if tier.KindOf(err) == "" { // otherwise it has been told, see refused
			s.unreachable(err)
		}
		s.wake()
	}
}
