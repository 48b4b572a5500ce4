package httpcache

import (
	"context"
	"time"

	"github.com/larderhq/larder/core/internal/coherence"
)

// detachedContext is the context of a load that other requests may wait for. When the
// client leaves, it ends once no request waits, at the latest after LoadTimeout.
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

// cancelIfClientLeft ends the load if its client has left. It is called when no request
// can wait for the load any more.
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

// clientContext has the deadline and the error of the client's context.
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
