package core

import (
	"context"
	"fmt"
	"time"
)

// Invalidate makes every answer that begins after it has returned nil come from a load
// that began after it was called. That holds for stored and stale entries and for loads
// under way. All targets are checked before the first is invalidated: with a
// *[ConfigError] or [ErrClosed] nothing has been. At least one target is required. ctx
// bounds the wait for a shared tier, a second without a deadline, but not the
// invalidation, since a request that has ended may have committed.
//
// With a shared tier this holds on this instance at once, and on every other as soon as a
// message reaches it, or after Options.MaxStaleness if none does;
// [Cache.InvalidateEverywhere] waits for that. The error is [ErrPending] if the tier has not
// confirmed the invalidation: this instance answers no entry of the tier that the targets
// name, and retries until it succeeds. Meanwhile other instances may answer
// the old value, and the promise is lost if the process dies.
//
// A [Pattern] or [Prefix] has half of the time. If the tier holds more keys than can be
// compared in it, everything is invalidated instead: see [Cache.Sweep].
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

// InvalidateEverywhere is [Cache.Invalidate], and returns nil only when the promise holds
// on every instance that shares the cache: about the largest MaxStaleness of all
// instances later. ctx bounds that wait. Without a shared tier it is Invalidate. An error
// that is none of [ErrPending], [ErrClosed] and *[ConfigError] concerns the wait alone: the
// targets are invalidated, and other instances may answer the old values for up to
// MaxStaleness.
func (c *Cache) InvalidateEverywhere(ctx context.Context, targets ...Target) error {
	if err := c.Invalidate(ctx, targets...); err != nil {
		return err
	}
	return c.WaitEverywhere(ctx)
}

// WaitEverywhere returns nil when each invalidation that has returned nil on this
// instance before the call holds on every instance that shares the cache: about the
// largest MaxStaleness of all instances later. It follows [Cache.Sweep], [Map.Put] and
// other calls that have no InvalidateEverywhere of their own. ctx bounds the wait. After an
// error another instance may still answer an old value. Without a shared tier
// it returns nil at once.
func (c *Cache) WaitEverywhere(ctx context.Context) error {
	if err := c.engine.AwaitEverywhere(ctx); err != nil {
		return fmt.Errorf("larder: invalidated, but not known to hold everywhere yet: %w", err)
	}
	return nil
}

// remoteWait is the time for which an invalidation waits for the shared tier if the context has
// no deadline.
const remoteWait = time.Second

// bound returns a context for a call to the shared tier that has to be made even if the
// request has ended.
func (c *Cache) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	limit := remoteWait
	if deadline, ok := ctx.Deadline(); ok && ctx.Err() == nil {
		limit = time.Until(deadline)
	}
	return context.WithTimeout(context.WithoutCancel(ctx), max(limit, c.opts.RemoteBudget))
}

// request returns a context for such a call of a request. The call waits within the request's
// budget, or for a few round trips if the budget has no room for them: otherwise every
// invalidation over a distant tier would be pending.
func (c *Cache) request(ctx context.Context) (context.Context, context.CancelFunc) {
	limit := max(c.opts.RemoteBudget, min(3*c.engine.RoundTrip(), remoteWait))
	return context.WithTimeout(context.WithoutCancel(ctx), limit)
}

// SweepResult is the result of a [Cache.Sweep]. Without a shared tier only Duration is
// set: the entries of this process are compared when they are looked up.
type SweepResult struct {
	// Servers is the number of servers that were scanned.
	Servers int
	// Keys is the approximate number of keys on the servers at the beginning. All are
	// compared, also those of other programs.
	Keys int64
	// Removed is the number of entries that were removed from the shared tier.
	Removed int64
	// Everything is the reason for which everything in the cache was invalidated instead of
	// the targets alone. nil: only the targets were.
	Everything error
	// Duration is the duration of the sweep.
	Duration time.Duration
}

// Sweep is [Cache.Invalidate] for patterns and prefixes over a shared tier of any size.
// The promise is the same, also for values that are loaded or read while it runs. Until
// Sweep returns, entries that it has not reached yet may be answered. Other targets may
// be among them; they are invalidated first.
//
// Sweep compares every key on the servers that hold entries, on several servers
// concurrently, in short batches; after each batch it leaves the server alone for as long
// as the batch took. ctx alone bounds it. If ctx ends first, or servers or slots have
// changed meanwhile, so that keys may have been skipped, everything in the cache is
// invalidated instead: that is O(1), leaves the cache cold, and is in
// SweepResult.Everything. A cache runs one Sweep at a time; others wait.
//
// With [ErrPending] the result is valid: a server has failed, and the rest is tried
// again, soon by invalidating everything. With any other error nothing was done: a
// *[ConfigError], [ErrClosed], or that of a ctx that ended before the sweep began.
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
