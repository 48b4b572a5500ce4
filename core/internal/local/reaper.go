package local

import (
	"sync"
	"sync/atomic"
	"time"
)

// reaper gives back the memory of entries that an invalidation has made worthless and that no
// lookup comes across: those of a tag, a pattern or an era. No lookup answers with them, so
// nothing depends on when it comes. It walks through the tier in steps, in a goroutine that
// exists while there is something to look for. Let I be an invalidation that has noted that
// there is, P a pass:
//
//	I < P            every entry that I concerns was in the tier when P began: later inserts
//	                 see I in the log. P finds it, or a lookup, eviction or replacement has
//	P begins < I     the pass that follows P finds it: P ends only if nothing was noted since
//	                 it began
//	an entry is      P takes out the entry that it has seen, and no other (dropEntry)
//	replaced during P
//	Close during P   the goroutine ends before its next step; Close waits for that
type reaper struct {
	noted   atomic.Uint64 // invalidations
	running atomic.Bool
	work    sync.WaitGroup
}

const (
	// reapDelay collects the invalidations of one pass: no more than one pass begins in it.
	reapDelay = 500 * time.Millisecond
	// reapStep is how many entries a step looks at, which takes some 0.1 ms, and reapPause how
	// long a pass then pauses: it looks at up to 200,000 entries per second.
	reapStep  = 1 << 10
	reapPause = 5 * time.Millisecond
)

// wanted notes an invalidation that has left entries behind. It does not wait.
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

// run makes passes until one has seen all that was noted.
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

// reap takes out of the tier the entries that may not be answered any more on account of an
// invalidation. It calls pause after each step, and returns false as soon as that does.
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
