package core

import (
	"context"
	"errors"
	"fmt"

	"github.com/larderhq/larder/core/internal/coherence"
	"github.com/larderhq/larder/core/internal/tier"
)

// Intent announces a write on some keys, tags or paths. [Cache.Begin] opens it and
// invalidates nothing. [Intent.End] invalidates; [Intent.Abandon] does not, so
// that a refused write costs nothing. If a writer dies after its commit, its targets are
// invalidated when the intent expires, after Options.WriteTimeout.
//
// Until End returns, readers may get the old value, the writer among them: a writer that
// reads through the cache after its commit calls [Cache.Invalidate] first.
//
//	intent, err := cache.Begin(ctx, core.Tag("product:42"))
//	if err != nil { … }
//	defer intent.End(ctx)
//	// the transaction
//
// Writers may overlap. A writer that commits after its intent has expired is covered by
// its End, but not if it dies before End.
type Intent struct {
	c       *Cache
	in      *coherence.Intent
	pending error // ErrPending, with the reason
}

// Begin opens an intent on the targets, at least one. Keys, tags, paths and groups can
// have an intent; a pattern, prefix or All is a *[ConfigError]. Begin, End, Lapse and
// Abandon each wait for the shared tier for Options.RemoteBudget.
//
// Either the intent or the error is nil. With an error no intent is open: a *ConfigError,
// [ErrClosed], or the error of a ctx that has ended. An intent that the shared tier has
// not confirmed is no error: see [Intent.Pending].
func (c *Cache) Begin(ctx context.Context, targets ...Target) (*Intent, error) {
	for _, t := range targets {
		if t.kind == patternTarget || t.kind == prefixTarget || t.kind == allTarget {
			return nil, &ConfigError{"targets", t.value, "Key, Tag or Path (a pattern, prefix or All has no intent; use Invalidate)"}
		}
	}
	list, err := items(targets)
	if err != nil {
		return nil, err
	}
	if c.engine.Closed() {
		return nil, ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("larder: begin: %w", err)
	}
	call, cancel := c.request(ctx)
	defer cancel()
	in, err := c.engine.Begin(call, list, c.opts.WriteTimeout)
	if err != nil && !errors.Is(err, ErrPending) {
		return nil, err
	}
	return &Intent{c, in, err}, nil
}

// Pending reports whether the shared tier had not confirmed the intent when Begin
// returned. The targets are then invalidated as soon as the tier can be reached. The
// writer proceeds and calls [Intent.End], or gives up and calls [Intent.Abandon]. Without
// a shared tier it is always false.
func (i *Intent) Pending() bool { return i.pending != nil }

// End invalidates the intent's targets, and more targets if the writer has changed more,
// and closes the intent. It belongs on every path on which the write has happened or can
// no longer happen; [Intent.Lapse] belongs where it may still happen. Only the first call
// of End, Lapse or Abandon counts.
//
// ctx bounds the wait for a shared tier; the invalidation happens even if ctx has ended.
// The error is [ErrPending] if the tier has not confirmed it, as for [Cache.Invalidate]. With a
// *[ConfigError] for one of more, the intent's own targets are invalidated and none of
// more.
func (i *Intent) End(ctx context.Context, more ...Target) error {
	call, cancel := i.c.request(ctx)
	defer cancel()
	var list []tier.Item
	if len(more) > 0 {
		var err error
		if list, err = items(more); err != nil {
			return errors.Join(err, i.in.End(call, nil))
		}
	}
	return i.in.End(call, list)
}

// Lapse invalidates as [Intent.End] does, with its errors, and leaves the intent open
// until it expires. It is for a write with an unknown outcome: its caller has stopped
// waiting, and the database may still commit it. A value that is loaded before the intent
// expires is kept until then at most, and no longer than about four times the time from
// the intent's beginning to the load: a late commit is seen soon. Only the first call of
// End, Lapse or Abandon counts.
func (i *Intent) Lapse(ctx context.Context, more ...Target) error {
	call, cancel := i.c.request(ctx)
	defer cancel()
	var list []tier.Item
	if len(more) > 0 {
		var err error
		if list, err = items(more); err != nil {
			return errors.Join(err, i.in.Lapse(call, nil))
		}
	}
	return i.in.Lapse(call, list)
}

// Abandon closes the intent without invalidating, for a write that was refused before it
// changed anything. If the shared tier does not answer, the intent expires after
// Options.WriteTimeout, and its targets are invalidated then. Only the first call of End,
// Lapse or Abandon counts.
func (i *Intent) Abandon() {
	call, cancel := i.c.request(context.Background())
	defer cancel()
	i.in.Abandon(call)
}
