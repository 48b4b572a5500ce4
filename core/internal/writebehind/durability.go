package writebehind

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/larderhq/larder/core/internal/tier"
)

// durability knows whether the tier may evict queued changes.
type durability struct {
	unusable atomic.Pointer[error] // the reason for which nothing may be queued
	asked    atomic.Int64          // when a change last caused a check, in Unix nanoseconds
	known    atomic.Bool           // the tier has answered a check
}

// check asks the tier.
func (d *durability) check(ctx context.Context, s *shared) error {
	q, err := s.Engine.Queue()
	if err == nil {
		err = q.Durable(ctx)
	}
	switch {
	case errors.Is(err, tier.ErrUnusable):
		if d.unusable.Swap(&err) == nil {
			s.Logger.Error("larder: write-behind: nothing can be queued", "queue", s.Queue, "error", err)
		}
	case err == nil:
		d.unusable.Store(nil)
		d.known.Store(true)
	}
	return err
}

// usable fails if the tier is known to evict queued changes. A tier that has not answered a
// check counts as usable.
func (d *durability) usable(ctx context.Context, s *shared) error {
	if err := d.unusable.Load(); err != nil {
		return *err
	}
	if d.known.Load() {
		return nil
	}
	// The check asks every server. A server that does not answer must not delay each change.
	now, last := time.Now().UnixNano(), d.asked.Load()
	if now-last < int64(pollInterval) || !d.asked.CompareAndSwap(last, now) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := d.check(ctx, s); errors.Is(err, tier.ErrUnusable) {
		return err
	}
	return nil
}
