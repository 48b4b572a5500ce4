package local

import (
	"sync"
	"sync/atomic"
	"time"
)

// reaper removes entries that an invalidation of a tag, a pattern or an era has made invalid, and
// that no lookup has removed. Lookups do not answer with such entries, so that only the release
// of memory depends on the reaper. It reads the tier in steps, in a goroutine that exists while
// there may be such entries. Let I be an invalidation that has called wanted, and P a pass:
//
//	I < P            Every entry that I concerns was in the tier when P began, since later
//	                 inserts see I in the log. P removes it, or a lookup, an eviction or a
//	                 replacement has removed it.
//	P begins < I     The next pass finds the entry. The goroutine ends only after a pass during
//	                 which wanted was not called.
//	an entry is      P removes the entry that it has seen, and no other (dropEntry).
//	replaced during P
//	Close during P   The goroutine ends before its next step. Close waits for that.
type reaper struct {
	noted   atomic.Uint64 // the number of invalidations
	running atomic.Bool
	work    sync.WaitGroup
}

const (
	// reapDelay is the shortest time between the begins of two passes.
	reapDelay = 500 * time.Millisecond
	// reapStep is the number of entries of a step, which takes about 0.1 ms. reapPause is the
	// pause after a step. A pass reads at most 200,000 entries per second.
	reapStep  = 1 << 10
	reapPause = 5 * time.Millisecond
)

// wanted requests a pass after an invalidation. It does not block.
func (r *reaper) wanted(c *Cache) {
	r.noted.Add(1)
	if r.running.Load() || !r.running.CompareAndSwap(false, true) {
		return
	}
	c.life.Lock()
	defer c.life.Unlock()
	if !c.closed.Load() {
		r.work.Go(func() { r.run(c) })
	}
}

// run makes passes until none has been requested since the begin of the last one.
func (r *reaper) run(c *Cache) {
	timer := time.NewTimer(reapDelay)
	defer timer.Stop()
	pause := func(d time.Duration) bool {
		timer.Reset(d)
		select {
		case <-timer.C:
			return true
		case <-c.ctx.Done():
			return false
		}
	}
	for pause(reapDelay) {
		seen := r.noted.Load()
		if !c.reap(func() bool { return pause(reapPause) }) {
			return
		}
		if r.noted.Load() != seen {
			continue
		}
		r.running.Store(false)
		if r.noted.Load() == seen || !r.running.CompareAndSwap(false, true) {
			return
		}
	}
}

// reap removes the invalid entries from the tier. It calls pause after each step, and returns
// false as soon as pause does.
func (c *Cache) reap(pause func() bool) bool {
	left := reapStep
	for key, en := range c.tier.cache.All() {
		if en.dead() || en.compared.Load() < c.sweeps.head.Load() && c.swept(key, en) {
			c.tier.dropEntry(key, en)
		}
		if left--; left > 0 {
			continue
		}
		if left = reapStep; !pause() {
			return false
		}
	}
	return true
}
