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
// promise is the same, also for what is loaded or read while it runs. Until it returns,
// what it has not reached yet may be answered.
//
// It looks at every key on the servers that hold entries, on several servers at a time,
// in batches that keep none of them from others for long; after each batch a server has
// as much time to itself as the batch took. That lasts for as long as it has to, or
// ctx does. If ctx ends first, or servers or slots have changed meanwhile, so
// that keys may have escaped, everything in the cache is invalidated instead: that is
// O(1), leaves the cache cold, and is in the result.
//
// An error that is ErrPending is Invalidate's: a server has failed, and what is left is
// tried again, soon by invalidating everything. The result says what was done. Every
// other error says that nothing was done: a *ConfigError,
// ErrClosed, or that of a ctx that ended before the sweep began. A cache runs one at
// a time; others wait.
//
// Other targets may be among them; they are invalidated first.
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
	return r, nil
}
