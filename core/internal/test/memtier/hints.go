package memtier

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/larderhq/larder/core/internal/tier"
)

// maxHints bounds the pending hints of a subscriber. A slower subscriber is disconnected, as by
// Redis.
const maxHints = 1 << 14

var errCut = errors.New("memtier: the subscription was cut")

// subscriber is a subscription. The server's lock guards it.
type subscriber struct {
	namespace string
	queue     []queued // in the order of delivery
	last      time.Time
	cut, gone bool
	woken     chan struct{}
}

type queued struct {
	due  time.Time
	hint tier.Hint
}

// Hints implements tier.Session.
func (c *session) Hints(ctx context.Context, ready func(), fn func(tier.Hint)) error {
	s := c.server
	sub := &subscriber{namespace: c.layout.Namespace, woken: make(chan struct{}, 1)}
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.drop(sub)
	}()
	_, err := do(ctx, c, layoutShard, func(st *step) (struct{}, error) {
		// The step may be executed twice, and after the caller has left.
		if !sub.gone && !slices.Contains(s.subs, sub) {
			s.subs = append(s.subs, sub)
		}
		return struct{}{}, nil
	})
	if err != nil {
		return err
	}
	if ready != nil {
		ready()
	}
	for {
		if err := c.ended(ctx); err != nil {
			return err
		}
		hint, wait, err := s.next(sub)
		switch {
		case err != nil:
			return err
		case hint != nil:
			fn(*hint)
			continue
		}
		if err := c.wait(ctx, sub, wait); err != nil {
			return err
		}
	}
}

// next returns the hints that are due, or the time to wait for the next one (0: until the
// subscriber is woken).
func (s *Server) next(sub *subscriber) (*tier.Hint, time.Duration, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sub.cut {
		return nil, 0, errCut
	}
	if len(sub.queue) == 0 {
		return nil, 0, nil
	}
	first := sub.queue[0]
	if wait := time.Until(first.due); wait > 0 {
		return nil, wait, nil
	}
	sub.queue = slices.Delete(sub.queue, 0, 1)
	return &first.hint, 0, nil
}

func (c *session) wait(ctx context.Context, sub *subscriber, d time.Duration) error {
	var due <-chan time.Time
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		due = t.C
	}
	select {
	case <-due:
	case <-sub.woken:
	case <-ctx.Done():
	case <-c.closed:
	case <-c.tier.killed:
	case <-c.server.stop:
	}
	return c.ended(ctx)
}

// ended returns the reason for which a subscription of the session has ended, nil if it has not.
func (c *session) ended(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return fmt.Errorf("memtier: the subscription ended: %w", context.Cause(ctx))
	case <-c.closed:
		return errClosed
	case <-c.tier.killed:
		return errConn
	case <-c.server.stop:
		return errStopped
	default:
		return nil
	}
}

// publish sends a hint to every subscriber of the namespace.
func (st *step) publish(h tier.Hint) {
	s := st.server
	h.Partition = st.partition
	for _, sub := range slices.Clone(s.subs) {
		if sub.namespace != st.session.layout.Namespace {
			continue
		}
		if s.chance(s.faults.HintCut) || len(sub.queue) >= maxHints {
			s.stats.CutHints++
			s.cut(sub)
			continue
		}
		if s.chance(s.faults.HintLost) {
			s.stats.LostHints++
			continue
		}
		s.enqueue(sub, h)
		if s.chance(s.faults.HintTwice) {
			s.stats.DoubledHints++
			s.enqueue(sub, h)
		}
	}
}

func (s *Server) enqueue(sub *subscriber, h tier.Hint) {
	due := time.Now().Add(s.draw(s.faults.HintDelay))
	if !s.chance(s.faults.HintReordered) {
		if due.Before(sub.last) {
			due = sub.last
		}
		sub.last = due
	}
	at := len(sub.queue)
	for at > 0 && sub.queue[at-1].due.After(due) {
		at--
	}
	sub.queue = slices.Insert(sub.queue, at, queued{due, h})
	sub.wake()
}

func (sub *subscriber) wake() {
	select {
	case sub.woken <- struct{}{}:
	default:
	}
}

// cut ends a subscription, or all of them. The caller holds mu.
func (s *Server) cut(which *subscriber) {
	for _, sub := range slices.Clone(s.subs) {
		if which == nil || sub == which {
			sub.cut = true
			sub.wake()
			s.drop(sub)
		}
	}
}

func (s *Server) drop(sub *subscriber) {
	sub.gone, sub.queue = true, nil
	s.subs = slices.DeleteFunc(s.subs, func(other *subscriber) bool { return other == sub })
}
