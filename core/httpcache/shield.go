package httpcache

import (
	"context"
	"time"

	"github.com/larderhq/larder/core/internal/engine"
)

// shield is the context of a run of the handler that others may wait for: its
// client's going does not end it while they do.
type shield struct {
	ctx    context.Context
	cancel context.CancelFunc
	client context.Context
	stop   func() bool
}

func newShield(client context.Context, turn *engine.Turn, limit time.Duration) *shield {
	s := &shield{client: client}
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(client))
	s.stop = context.AfterFunc(client, func() {
		if turn.Waited() {
			select {
			case <-time.After(limit):
			case <-s.ctx.Done():
			}
		}
		s.cancel()
	})
	return s
}

// expose lets the client's going end the run: nobody waits any more.
func (s *shield) expose() {
	if s.client != nil && s.client.Err() != nil {
		s.cancel()
	}
}

func (s *shield) end() {
	s.stop()
	s.cancel()
}

// background is the shield of a run that has no client.
func background(ctx context.Context) *shield { return &shield{ctx: ctx} }
