package core

import (
	"context"
	"time"
)

// SweepResult is what a Sweep has done. Without a shared tier all is zero but
// Duration: the entries of this process are compared when they are looked up.
type SweepResult struct {
	Servers int   // that have been scanned
	Keys    int64 // that these held, about, when it began: all are looked at, foreign ones too
	Removed int64 // entries taken out of the shared tier
	// Everything says why everything in the cache was invalidated instead of what was
	// named. nil: it was not.
	Everything error
	Duration   time.Duration
}

// Sweep is Invalidate for patterns and prefixes over a shared tier of any size. The
// promise is the same, also for what is loaded or read while it runs, and holds when
// Sweep returns nil: until then what it has not reached yet may be answered.
//
// It looks at every key of every server that has entries, on several servers at a time,
// in batches that Redis answers in a fraction of a millisecond, and after each leaves
// the server as much time as the batch took. It lasts for as long as that takes, or
// ctx: if ctx ends first, or servers or slots change meanwhile, which keys may escape,
// everything in the cache is invalidated instead, which is O(1), leaves the cache
// cold, and is in the result. So after a nil error all that was named is gone
// in any case.
//
// Another error than ErrPending, or one of Everywhere, says that nothing was done: a
// *ConfigError, ErrClosed, or ctx's if it ended before this sweep began. A cache runs
// one at a time; others wait. ErrPending is as in Invalidate: a server failed, and
// what is left is tried again, with a second's time and then by invalidating
// everything. The result says in any case what was done until then.
//
// Other targets may be among them. They are invalidated first.
func (c *Cache) Sweep(ctx context.Context, targets ...Target) (SweepResult, error) {
	began := time.Now()
	list, err := items(targets)
	if err != nil {
		return SweepResult{}, err
	}
	if c.engine.Closed() {
		return SweepResult{}, ErrClosed
	}
	did, err := c.engine.Sweep(ctx, list, max(remoteWait, c.opts.RemoteBudget))
	r := SweepResult{
		Servers: did.Servers, Keys: did.Keys, Removed: did.Removed, Everything: did.Everything, Duration: time.Since(began),
	}
	if err != nil {
		return r, err
	}
	return r, c.everywhere(ctx, targets)
}
