package core

import (
	"context"
	"fmt"
	"time"
)

// Invalidate makes every answer that begins after it returned nil come from a
// load that began after it was called: whatever was stored, stale or on its way.
// All targets are checked before the first is acted on. ctx bounds the wait for a
// shared tier, not whether it happens: a request that has ended may have committed.
//
// With a shared tier this holds on this instance at once, and on every other as
// soon as a message reaches it, or after Options.MaxStaleness if none does;
// InvalidateEverywhere waits for that. An error that is ErrPending says that the tier has not confirmed it: this instance answers from
// the tier nothing that it concerns, and tries until it succeeds, but other
// instances may answer the old value, and the promise is lost if the process dies
// before. Without a deadline in ctx the tier is waited for a second.
//
// A Pattern or Prefix has half of that time. If the tier holds more than can be
// looked at in it, everything is invalidated instead: see Sweep.
func (c *Cache) Invalidate(ctx context.Context, targets ...Target) error {
	list, err := items(targets)
	if err != nil {
		return err
	}
	if c.engine.Closed() {
		return ErrClosed
	}
	call, cancel := c.bound(ctx)
	defer cancel()
	return c.engine.Invalidate(call, list)
}

// InvalidateEverywhere is Invalidate, and returns nil only when the promise holds on
// every instance that shares the cache: about the largest MaxStaleness of all instances
// later. ctx bounds that wait. Without a shared tier it is Invalidate. An error that is
// neither ErrPending nor a *ConfigError says that the targets are invalidated, and that
// other instances may answer the old values for up to MaxStaleness.
func (c *Cache) InvalidateEverywhere(ctx context.Context, targets ...Target) error {
	if err := c.Invalidate(ctx, targets...); err != nil {
		return err
	}
	return c.WaitEverywhere(ctx)
}

// WaitEverywhere returns nil when each invalidation that has returned nil on this
// instance before the call holds on every instance that shares the cache: about the
// largest MaxStaleness of all instances later. It is for callers of Sweep, Map.Put and
// the like; see InvalidateEverywhere. Without a shared tier it returns at once.
func (c *Cache) WaitEverywhere(ctx context.Context) error {
	if err := c.engine.Everywhere(ctx); err != nil {
		return fmt.Errorf("larder: invalidated, but not known to hold everywhere yet: %w", err)
	}
	return nil
}

// remoteWait is how long an invalidation waits for the shared tier where the
// caller does not say.
const remoteWait = time.Second

// bound returns a context for a call to the shared tier that has to be made
// although the request may have ended.
func (c *Cache) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	limit := remoteWait
	if deadline, ok := ctx.Deadline(); ok && ctx.Err() == nil {
		limit = time.Until(deadline)
	}
	return context.WithTimeout(context.WithoutCancel(ctx), max(limit, c.opts.RemoteBudget))
}

// request returns a context for such a call of a request, which waits for no
// longer than its budget, or, where that has no room for them, for a few round trips: what
// a writer invalidates would be pending in any case.
func (c *Cache) request(ctx context.Context) (context.Context, context.CancelFunc) {
	limit := max(c.opts.RemoteBudget, min(3*c.engine.RoundTrip(), remoteWait))
	return context.WithTimeout(context.WithoutCancel(ctx), limit)
}

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
