package memtier

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/larderhq/larder/core/internal/tier"
)

// Tier is a client process of a Server.
type Tier struct {
	server *Server
	name   string
	opened atomic.Uint64
	killed chan struct{}
	once   sync.Once
}

var (
	_ tier.Tier    = (*Tier)(nil)
	_ tier.Session = (*session)(nil)
)

// Tier returns a client. Its name is unique, and is part of its tokens.
func (s *Server) Tier(name string) *Tier {
	return &Tier{server: s, name: name, killed: make(chan struct{})}
}

// Kill ends the process. Its later calls are not executed, and return when their contexts end. A
// pending call may be executed.
func (t *Tier) Kill() { t.once.Do(func() { close(t.killed) }) }

// session is an open Tier.
type session struct {
	tier   *Tier
	server *Server
	id     string
	layout tier.Layout // as wanted; the namespace and version are what holds

	agreed atomic.Int64 // how many partitions there are
	calls  atomic.Uint64
	closed chan struct{}
	once   sync.Once
}

// Open implements tier.Tier.
func (t *Tier) Open(ctx context.Context, want tier.Layout) (tier.Session, error) {
	if want.Partitions == 0 {
		want.Partitions = tier.DefaultPartitions
	}
	if want.Partitions < 1 || want.Partitions > tier.MaxPartitions {
		return nil, fmt.Errorf("memtier: %d partitions: %w", want.Partitions, tier.ErrUnusable)
	}
	c := &session{
		tier: t, server: t.server, layout: want, closed: make(chan struct{}),
		id: fmt.Sprintf("%s/%d", t.name, t.opened.Add(1)),
	}
	c.agreed.Store(int64(want.Partitions))
	if _, err := c.Agree(ctx); err != nil {
		return nil, err
	}
	return c, nil
}

// Close implements tier.Session.
func (c *session) Close() error {
	c.once.Do(func() { close(c.closed) })
	return nil
}

// ready returns the error of a call that cannot be sent.
func (c *session) ready(ctx context.Context) error {
	select {
	case <-c.tier.killed:
		select {
		case <-ctx.Done():
			return fmt.Errorf("memtier: the process is dead: %w", context.Cause(ctx))
		case <-c.server.stop:
			return errStopped
		}
	case <-c.closed:
		return errClosed
	case <-c.server.stop:
		return errStopped
	case <-ctx.Done():
		return fmt.Errorf("memtier: not sent: %w", context.Cause(ctx))
	default:
		return nil
	}
}

func (c *session) nonce() string { return fmt.Sprintf("%s.%d", c.id, c.calls.Add(1)) }

func (c *session) partitions() int { return int(c.agreed.Load()) }

// Agree implements tier.Session.
func (c *session) Agree(ctx context.Context) (tier.Layout, error) {
	agreed, err := do(ctx, c, layoutShard, func(st *step) (tier.Layout, error) {
		if err := st.refuseFull(); err != nil {
			return tier.Layout{}, err
		}
		known := st.server.versions[c.layout.Namespace]
		if known == nil {
			known = map[string]struct{}{}
			st.server.versions[c.layout.Namespace] = known
		}
		known[c.layout.Version] = struct{}{}

		k := key{kind: Layout}
		l := layout{partitions: c.partitions()}
		if v, ok := st.get(k, st.now); ok {
			l = v.data.(layout)
		}
		members := maps.Clone(l.members)
		if members == nil {
			members = map[string]member{}
		}
		members[c.id] = member{c.layout, st.now + (LayoutLapse + 2*c.layout.MaxStaleness).Milliseconds()}
		all := c.layout
		all.Partitions = l.partitions
		for id, m := range members {
			if m.until <= st.now {
				delete(members, id)
				continue
			}
			all.MaxStaleness = max(all.MaxStaleness, m.layout.MaxStaleness)
			all.ReplicaLag = max(all.ReplicaLag, m.layout.ReplicaLag)
		}
		l.members = members
		st.set(k, value{data: l})
		return all, nil
	})
	if err == nil {
		c.agreed.Store(int64(agreed.Partitions))
	}
	return agreed, err
}

// remaining returns the time until a time of the server's clock.
func remaining(until, now int64) time.Duration {
	return time.Duration(max(0, until-now)) * time.Millisecond
}

// ends returns the time d from now, and at least the next instant.
func ends(now int64, d time.Duration) int64 { return now + max(1, d.Milliseconds()) }
