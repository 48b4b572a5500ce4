package core

import (
	"context"
	"errors"
	"fmt"

	"github.com/larderhq/larder/core/internal/coherence"
)

// Intent says that a writer is at work on some keys, tags or paths. Begin invalidates
// nothing: a write that is refused, and ends with Abandon, costs nothing. End
// invalidates. A writer that dies after its commit leaves nothing behind for longer
// than Options.WriteTimeout: at that deadline its targets are invalidated. Until End
// returns, readers may be given what was there before, the writer among them; a writer
// that reads through the cache after its commit calls Invalidate first.
//
//	intent, err := cache.Begin(ctx, core.Tag("product:42"))
//	if err != nil { … }
//	defer intent.End(ctx)
//	// the transaction
//
// Writers may overlap. A writer that commits after its deadline
// (Options.WriteTimeout) is covered by its End, but not if it dies before it.
type Intent struct {
	c       *Cache
	in      *coherence.Intent
	pending error // ErrPending, with the reason
}

// Begin opens an intent on the targets. Keys, tags, paths and groups can have an intent;
// a pattern, prefix or All is a *ConfigError. Begin, End, Lapse and Abandon each wait for
// the shared tier for Options.RemoteBudget. With an error no intent is open. See
// Intent.Pending for an intent that the shared tier has not confirmed.
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
// writer goes on, and calls End, or gives up, and calls Abandon. Without a shared tier it
// is always false.
func (i *Intent) Pending() bool { return i.pending != nil }

// End invalidates the intent's targets, and more targets if the writer has
// touched more, and closes the intent. It belongs on every path on which the
// write has happened or cannot happen any more; Lapse belongs where it may still
// happen. Only the first call of End, Lapse or Abandon counts. ctx bounds the wait
// for a shared tier; the invalidation happens even if it has ended.
func (i *Intent) End(ctx context.Context, more ...Target) error {
	call, cancel := i.c.request(ctx)
	defer cancel()
	var list []coherence.Item
	if len(more) > 0 {
		var err error
		if list, err = items(more); err != nil {
			return errors.Join(err, i.in.End(call, nil))
		}
	}
	return i.in.End(call, list)
}

// Lapse invalidates as End does and leaves the intent open until its deadline, for a
// write whose outcome is not known: its caller has stopped waiting, and the database
// may still commit it. What is loaded until the deadline is kept until the deadline at
// most, and no longer than about four times as long as it was loaded after the intent's
// beginning: a commit is seen soon after it has happened. Only the first call of End,
// Lapse or Abandon counts.
func (i *Intent) Lapse(ctx context.Context, more ...Target) error {
	call, cancel := i.c.request(ctx)
	defer cancel()
	var list []coherence.Item
	if len(more) > 0 {
		var err error
		if list, err = items(more); err != nil {
			return errors.Join(err, i.in.Lapse(call, nil))
		}
	}
	return i.in.Lapse(call, list)
}

// Abandon closes the intent without invalidating, for a write that was refused before
// it changed anything.
func (i *Intent) Abandon() {
	call, cancel := i.c.request(context.Background())
	defer cancel()
	i.in.Abandon(call)
}
