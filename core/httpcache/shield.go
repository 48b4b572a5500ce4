package httpcache

import (
	"context"
	"time"

	"github.com/larderhq/larder/core/internal/coherence"
)

// shield is the context of a run of the handler that others may wait for: its
// client's going does not end it while they do, for as long as a load may take.
type shield struct {
	ctx    context.Context
	cancel context.CancelFunc
	client context.Context // nil: a background refresh
	stop   func() bool
}

func newShield(client context.Context, turn *coherence.Turn, limit time.Duration) *shield {
	s := &shield{client: client}
	ctx, cancel := context.WithCancel(context.WithoutCancel(client))
	s.ctx, s.cancel = shielded{ctx, client}, cancel
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

// expose lets the client's going end the run: nobody waits any more.
func (s *shield) expose() {
	if s.client != nil && s.client.Err() != nil {
		s.cancel()
	}
}

func (s *shield) end() {
	if s.stop != nil { // it has a client
		s.stop()
		s.cancel()
	}
}

// background is the shield of a run that has no client.
func background(ctx context.Context) *shield { return &shield{ctx: ctx} }

// shielded tells a handler of its client's deadline and of why it has been
// cancelled, as the client's own context would.
type shielded struct {
	context.Context
	client context.Context
}

// Deadline implements context.Context.
func (s shielded) Deadline() (time.Time, bool) { return s.client.Deadline() }

// Err implements context.Context.
func (s shielded) Err() error {
	err := s.Context.Err()
	if err != nil {
		if own := s.client.Err(); own != nil {
			return own
		}
	}
	return err
}
