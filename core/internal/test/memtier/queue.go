package memtier

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/larderhq/larder/core/internal/tier"
	"github.com/larderhq/larder/core/internal/writebehind/queue"
)

var errLate = tier.ErrLate

// queues returns the queues of the partition, for reading. They are one key: all are lost, or
// none.
func (st *step) queues() *queue.State {
	v, ok := st.get(key{kind: Queue}, st.now)
	if !ok {
		return queue.NewState()
	}
	return v.data.(*queue.State)
}

func (st *step) setQueues(q *queue.State) { st.set(key{kind: Queue}, value{data: q}) }

// micros returns the time of the server's clock, in microseconds.
func (st *step) micros() int64 { return time.Now().Add(st.shard.skew).UnixMicro() }

// next returns the time of the server's clock for a version. Virtual time stands still during a
// failover, while a real clock would advance. The result is therefore later than all previous
// ones, unless the clock has been set back.
func (st *step) next() int64 {
	now := st.micros()
	if ahead := st.shard.given - now; ahead >= 0 && ahead < time.Second.Microseconds() {
		return st.shard.given + 1
	}
	return now
}

// Durable implements tier.Session.
func (c *session) Durable(ctx context.Context) error {
	return c.each(c.all(), func(p int) error {
		_, err := do(ctx, c, p, func(*step) (struct{}, error) { return struct{}{}, nil })
		return err
	})
}

// Enqueue implements tier.Session.
func (c *session) Enqueue(ctx context.Context, e tier.Enqueue) ([]tier.Enqueued, error) {
	if err := e.Validate(c.partitions()); err != nil {
		return nil, fmt.Errorf("memtier: %w", err)
	}
	e.Queue, e.Changes = strings.Clone(e.Queue), slices.Clone(e.Changes)
	for i, ch := range e.Changes {
		e.Changes[i] = tier.QueueChange{
			Key: strings.Clone(ch.Key), Payload: slices.Clone(ch.Payload), Lease: strings.Clone(ch.Lease), Tag: strings.Clone(ch.Tag),
		}
	}
	var deadline int64
	if e.Within > 0 {
		deadline = ends(c.server.clock(e.Partition), e.Within)
	}
	return do(ctx, c, e.Partition, func(st *step) ([]tier.Enqueued, error) {
		if st.shard.migrating {
			return nil, tier.ErrMigrating
		}
		if deadline != 0 && st.now > deadline {
			return nil, errLate
		}
		return st.enqueue(&e)
	})
}

// clock returns the clock of a partition's server.
func (s *Server) clock(partition int) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Now().Add(s.shards[partition].skew).UnixMilli()
}

func (st *step) enqueue(e *tier.Enqueue) ([]tier.Enqueued, error) {
	q := st.queues().Clone()
	done := make([]tier.Enqueued, len(e.Changes))
	ch := tier.Change{Partition: e.Partition, Lag: e.Lag}
	var taken []int
	versions := q.Enqueue(e, st.next(), st.nonce, func(name, token string) bool {
		l, _, ok := st.lease(name)
		return ok && l.token == token
	})
	for i, v := range versions {
		if done[i].Version = v; v > 0 {
			ch.Items = append(ch.Items, tier.Item{Kind: tier.Key, Value: e.Changes[i].Key})
			if tag := e.Changes[i].Tag; tag != "" {
				ch.Items = append(ch.Items, tier.Item{Kind: tier.Tag, Value: tag})
			}
			taken = append(taken, i)
		}
	}
	if len(taken) == 0 {
		return done, nil
	}
	if err := st.refuseFull(); err != nil {
		return nil, err
	}
	logged, err := st.change(ch)
	if err != nil {
		return nil, err
	}
	for _, i := range taken {
		done[i].Logged, logged = logged[0], logged[1:]
		if e.Changes[i].Tag != "" {
			done[i].Tagged, logged = logged[0], logged[1:]
		}
		st.shard.given = max(st.shard.given, done[i].Version)
	}
	st.setQueues(q)
	return done, nil
}

// Claim implements tier.Session.
func (c *session) Claim(ctx context.Context, cl tier.Claim) (tier.Claimed, error) {
	if err := cl.Validate(c.partitions()); err != nil {
		return tier.Claimed{}, fmt.Errorf("memtier: %w", err)
	}
	cl.Queue, cl.Worker = strings.Clone(cl.Queue), strings.Clone(cl.Worker)
	return do(ctx, c, cl.Partition, func(st *step) (tier.Claimed, error) {
		if st.shard.migrating {
			return tier.Claimed{}, tier.ErrMigrating
		}
		q := st.queues().Clone()
		claimed := q.Claim(&cl, st.micros())
		st.setQueues(q)
		return claimed, nil
	})
}

// Settle implements tier.Session.
func (c *session) Settle(ctx context.Context, s tier.Settle) (tier.Settlement, error) {
	if err := s.Validate(c.partitions()); err != nil {
		return tier.Settlement{}, fmt.Errorf("memtier: %w", err)
	}
	s.Queue, s.Worker, s.Records = strings.Clone(s.Queue), strings.Clone(s.Worker), slices.Clone(s.Records)
	for i := range s.Records {
		r := &s.Records[i]
		r.Key, r.Dead = strings.Clone(r.Key), strings.Clone(r.Dead)
	}
	return do(ctx, c, s.Partition, func(st *step) (tier.Settlement, error) {
		if st.shard.migrating {
			return tier.Settlement{}, tier.ErrMigrating
		}
		q := st.queues().Clone()
		done := q.Settle(&s, st.micros(), st.nonce)
		st.setQueues(q)
		return done, nil
	})
}

// States implements tier.Session.
func (c *session) States(ctx context.Context, name string) ([]tier.QueueState, error) {
	name = strings.Clone(name)
	all := c.all()
	states := make([]tier.QueueState, len(all))
	_ = c.each(all, func(p int) error {
		s, err := do(ctx, c, p, func(st *step) (tier.QueueState, error) {
			if st.shard.migrating {
				return tier.QueueState{}, tier.ErrMigrating
			}
			return st.queues().State(name, st.micros()), nil
		})
		s.Err = err
		states[p] = s
		return err
	})
	return states, nil
}

// DeadLetters implements tier.Session.
func (c *session) DeadLetters(ctx context.Context, partition int, name, after string, n int) ([]tier.DeadLetter, error) {
	if err := c.in(partition); err != nil {
		return nil, err
	}
	name, after = strings.Clone(name), strings.Clone(after)
	return do(ctx, c, partition, func(st *step) ([]tier.DeadLetter, error) {
		return st.queues().DeadLetters(name, after, n)
	})
}

// Replay implements tier.Session.
func (c *session) Replay(ctx context.Context, partition int, name, id string) (bool, error) {
	if err := c.in(partition); err != nil {
		return false, err
	}
	name, id = strings.Clone(name), strings.Clone(id)
	return do(ctx, c, partition, func(st *step) (bool, error) {
		if st.shard.migrating {
			return false, tier.ErrMigrating
		}
		q := st.queues().Clone()
		k, ok := q.Replay(name, id, st.next(), st.nonce)
		if k != "" {
			if err := st.refuseFull(); err != nil {
				return false, err
			}
			item := tier.Item{Kind: tier.Key, Value: k}
			if _, err := st.change(tier.Change{Partition: partition, Items: []tier.Item{item}}); err != nil {
				return false, err
			}
			st.shard.given = max(st.shard.given, q.State(name, 0).Last)
		}
		st.setQueues(q)
		return ok, nil
	})
}

// Discard implements tier.Session.
func (c *session) Discard(ctx context.Context, partition int, name, id string) (bool, error) {
	if err := c.in(partition); err != nil {
		return false, err
	}
	name, id = strings.Clone(name), strings.Clone(id)
	return do(ctx, c, partition, func(st *step) (bool, error) {
		if st.shard.migrating {
			return false, tier.ErrMigrating
		}
		q := st.queues().Clone()
		ok := q.Discard(name, id)
		st.setQueues(q)
		return ok, nil
	})
}

func (c *session) in(partition int) error {
	if n := c.partitions(); partition < 0 || partition >= n {
		return fmt.Errorf("memtier: partition %d of %d", partition, n)
	}
	return nil
}
