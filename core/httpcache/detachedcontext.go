package httpcache

import (
	"context"
	"time"

	"github.com/larderhq/larder/core/internal/coherence"
)

// detachedContext is the context of a run of the handler that others may wait for: its
// client's going does not end it while they do, for as long as a load may take.
type detachedContext struct {
	ctx    context.Context
	cancel context.CancelFunc
	client context.Context // nil: a background refresh
	stop   func() bool
}

func newDetachedContext(client context.Context, turn *coherence.Turn, limit time.Duration) *detachedContext {
	s := &detachedContext{client: client}
	ctx, cancel := context.WithCancel(context.WithoutCancel(client))
	s.ctx, s.cancel = clientContext{ctx, client}, cancel
	s.stop = context.AfterFunc(client, func() {
		timer := time.NewTimer(limit)
		defer timer.Stop()
		select {
		case <-turn.Unwatched():
		case <-timer.C:
		case <-ctx.Done():
		}
		cancel()
	})
	return s
}

// cancelIfClientLeft lets the client's going end the run: nobody waits any more.
func (s *detachedContext) cancelIfClientLeft() {
	if s.client != nil && s.client.Err() != nil {
		s.cancel()
	}
}

func (s *detachedContext) end() {
	if s.stop != nil { // it has a client
		s.stop()
		s.cancel()
	}
}

// backgroundContext is the detachedContext of a run that has no client.
func backgroundContext(ctx context.Context) *detachedContext { return &detachedContext{ctx: ctx} }

// clientContext tells a handler of its client's deadline and of why it has been
// cancelled, as the client's own context would.
type clientContext struct {
	context.Context
	client context.Context
}

// Deadline implements context.Context.
func (s clientContext) Deadline() (time.Time, bool) { return s.client.Deadline() }

// Err implements context.Context.
func (s clientContext) Err() error {
	err := s.Context.Err()
	if err != nil {
		if own := s.client.Err(); own != nil {
			return own
		}
	}
	return err
}
