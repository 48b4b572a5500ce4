package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
)

type queueOptions = core.WriteBehindOptions[int, product]

// queue makes an instance's queue, which the database applies.
func (p *pair) queue(in *app, o queueOptions) *core.WriteBehind[int, product] {
	p.Helper()
	q, err := core.NewWriteBehind(in.Map, p.db.apply, o)
	require.NoError(p, err)
	return q
}

func (p *pair) flush(q *core.WriteBehind[int, product]) {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.Context(), 30*time.Second)
	defer cancel()
	require.NoError(p, q.Flush(ctx))
}

func (p *pair) stats(q *core.WriteBehind[int, product]) core.WriteBehindStats {
	p.Helper()
	s, err := q.Stats(p.Context())
	require.NoError(p, err)
	return s
}

// A change is answered by both instances before the database has it.
func showWriteBehind(p *pair) {
	p.open(core.Class{TTL: time.Hour, NegativeTTL: time.Hour})
	a, b := p.queue(p.a, queueOptions{}), p.queue(p.b, queueOptions{})
	for id := 7; id <= 9; id++ {
		p.db.set(id, product{Name: "tea"})
		p.has(p.b, id, "tea")
	}
	_, release := p.db.hold() // applies
	defer release()
	require.NoError(p, a.Put(p.Context(), 7, product{Name: "coffee"}))
	require.NoError(p, a.PutMany(p.Context(), map[int]product{8: {Name: "milk"}}))
	require.NoError(p, a.Delete(p.Context(), 9))
	for id, name := range map[int]string{7: "coffee", 8: "milk"} {
		p.comesToHit(p.a, id, name)
		p.comesToHit(p.b, id, name)
	}
	for _, in := range []*app{p.a, p.b} {
		p.until("it is deleted", func() bool {
			_, err := in.Get(p.Context(), 9, func(context.Context, int) (product, error) { return product{}, errDatabaseDown })
			return errors.Is(err, core.ErrNotFound)
		})
	}
	require.Equal(p, "tea", p.db.row(7).Name, "not yet")
	require.Equal(p, 3, p.stats(b).Depth)

	release()
	p.flush(b)
	require.Equal(p, map[int]product{7: {Name: "coffee"}, 8: {Name: "milk"}}, p.db.table())
	require.Zero(p, p.stats(a).Depth)
	p.until("it is counted", func() bool { return p.stats(a).Applied+p.stats(b).Applied == 3 })
	p.has(p.a, 7, "coffee")
	p.has(p.b, 7, "coffee")
}

func (d *shopDB) table() map[int]product {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.rows)
}

// Both instances change the same ids, and the workers of both apply: of each id in the
// order of the changes.
func showOrder(p *pair) {
	p.open(core.Class{TTL: time.Hour})
	o := queueOptions{Interval: time.Millisecond, Batch: 3}
	queues := []*core.WriteBehind[int, product]{p.queue(p.a, o), p.queue(p.b, o)}
	p.db.during = func() { time.Sleep(time.Millisecond) } // a database's latency
	const ids, changes = 5, 40
	var writers sync.WaitGroup
	for id := range ids {
		writers.Go(func() {
			for n := 1; n <= changes; n++ {
				if err := queues[n%2].Put(p.Context(), id, product{Stock: n}); err != nil {
					p.Error(err)
				}
			}
		})
	}
	writers.Wait()
	p.flush(queues[0])
	require.Zero(p, p.db.overlaps(), "applies of one id at a time")
	for id := range ids {
		applied := p.db.appliedTo(id)
		require.True(p, slices.IsSorted(applied), "%v", applied)
		require.Equal(p, changes, applied[len(applied)-1])
		require.Equal(p, changes, p.db.row(id).Stock)
	}
}

// Of changes of an id that wait, only the last is applied.
func showCoalescing(p *pair) {
	p.open(core.Class{TTL: time.Hour})
	o := queueOptions{Interval: time.Hour}
	a, b := p.queue(p.a, o), p.queue(p.b, o)
	for n := range 10 {
		require.NoError(p, a.Put(p.Context(), 7, product{Stock: 2 * n}))
		require.NoError(p, b.Put(p.Context(), 7, product{Stock: 2*n + 1}))
	}
	require.Equal(p, 1, p.stats(b).Depth)
	p.flush(a)
	require.Equal(p, []int{19}, p.db.appliedTo(7))
}

// Partial changes of both instances come to what they make together.
func showMerge(p *pair) {
	p.open(core.Class{TTL: time.Hour})
	p.db.set(7, product{Name: "tea", Stock: 100})
	o := queueOptions{
		Load: p.db.load,
		Merge: func(old, change product) product {
			old.Stock += change.Stock
			return old
		},
		Wait: 30 * time.Second,
	}
	a, b := p.queue(p.a, o), p.queue(p.b, o)
	var writers sync.WaitGroup
	for _, q := range []*core.WriteBehind[int, product]{a, b} {
		for range 4 {
			writers.Go(func() {
				for range 5 {
					if err := q.Put(p.Context(), 7, product{Stock: -1}); err != nil {
						p.Error(err)
					}
				}
			})
		}
	}
	writers.Wait()
	p.flush(b)
	require.Equal(p, product{Name: "tea", Stock: 60}, p.db.row(7))
	p.until("both have it", func() bool {
		return p.lookup(p.a, 7).Value.Stock == 60 && p.lookup(p.b, 7).Value.Stock == 60
	})
}

// A process dies in the middle of an apply. Another one applies its batch when its lease
// of the queue is over.
func showTakeover(p *pair) {
	p.open(core.Class{TTL: time.Hour})
	began := make(chan struct{})
	var once sync.Once
	a, err := core.NewWriteBehind(p.a.Map, func(ctx context.Context, _ []core.Change[int, product]) error {
		once.Do(func() { close(began) })
		<-ctx.Done()
		return ctx.Err()
	}, queueOptions{Interval: time.Millisecond})
	require.NoError(p, err)
	require.NoError(p, a.PutMany(p.Context(), map[int]product{7: {Name: "tea"}, 8: {Name: "coffee"}}))
	receive(p, began)
	p.a.wire.die()
	b := p.queue(p.b, queueOptions{Interval: time.Millisecond})
	p.has(p.b, 7, "tea")
	p.flush(b)
	require.Equal(p, map[int]product{7: {Name: "tea"}, 8: {Name: "coffee"}}, p.db.table())
	p.until("it is counted", func() bool { return p.stats(b).Applied == 2 })
}

// A change that the database never takes ends as a dead letter. Others go on, and it can
// be queued again.
func showDeadLetters(p *pair) {
	p.open(core.Class{TTL: time.Hour})
	died := make(chan core.Change[int, product], 1)
	o := queueOptions{
		Interval: time.Millisecond, Retry: time.Millisecond, MaxRetry: 100 * time.Millisecond, MaxAttempts: 3,
		OnDead: func(c core.Change[int, product], _ error) { died <- c },
	}
	a, b := p.queue(p.a, o), p.queue(p.b, o)
	p.db.set(7, product{Name: "tea"})
	p.db.refuse(7)
	require.NoError(p, a.PutMany(p.Context(), map[int]product{7: {Name: "poison"}, 8: {Name: "coffee"}}))
	require.Equal(p, "poison", receive(p, died).Value.Name)
	p.flush(a)
	require.Equal(p, "coffee", p.db.row(8).Name)
	p.comesToHave(p.a, 7, "tea") // the database's value
	p.comesToHave(p.b, 7, "tea")

	require.Equal(p, 1, p.stats(b).Dead)
	letters, err := b.DeadLetters(p.Context(), 10) // of either
	require.NoError(p, err)
	require.Len(p, letters, 1)
	require.Equal(p, 7, letters[0].ID)
	require.Equal(p, "out of range", letters[0].Reason)
	require.Equal(p, 3, letters[0].Attempt)
	p.db.refuse(0)
	n, err := b.Replay(p.Context(), letters...)
	require.NoError(p, err)
	require.Equal(p, 1, n)
	p.comesToHave(p.a, 7, "poison")
	p.flush(b)
	require.Equal(p, "poison", p.db.row(7).Name)
	require.Zero(p, p.stats(a).Dead)
}

// Queued changes of a process that has ended are applied by another.
func showClose(p *pair) {
	p.open(core.Class{TTL: time.Hour})
	o := queueOptions{Interval: time.Hour}
	a, b := p.queue(p.a, o), p.queue(p.b, o)
	require.NoError(p, a.Put(p.Context(), 7, product{Name: "tea"}))
	require.NoError(p, a.Close(p.Context()))
	require.ErrorIs(p, a.Put(p.Context(), 8, product{Name: "tea"}), core.ErrClosed)
	p.has(p.a, 7, "tea")
	s := p.stats(b)
	require.Equal(p, 1, s.Depth)
	require.Positive(p, s.Oldest)
	require.Zero(p, s.Applied)
	p.flush(b)
	require.Equal(p, "tea", p.db.row(7).Name)
	require.Zero(p, p.stats(b).Depth)
	p.until("it is counted", func() bool { return p.stats(b).Applied == 1 })
	require.Positive(p, p.stats(b).Lag)
}

// Writers wait while the queue is full, as long as they have time, and go on when
// there is room.
func showBackPressure(p *pair) {
	p.open(core.Class{TTL: time.Hour})
	o := queueOptions{Interval: time.Millisecond, MaxQueued: 16}
	a, b := p.queue(p.a, o), p.queue(p.b, o)
	_, release := p.db.hold()
	defer release()
	hasty := func(q *core.WriteBehind[int, product], id int) error {
		ctx, cancel := context.WithTimeout(p.Context(), 200*time.Millisecond)
		defer cancel()
		return q.Put(ctx, id, product{Stock: id})
	}
	full := -1
	for id := range 40 {
		if err := hasty(a, id); err != nil {
			require.True(p, errors.Is(err, core.ErrQueueFull) || errors.Is(err, core.ErrNotQueued), "%v", err)
			full = id
			break
		}
	}
	require.Positive(p, full, "it has a bound")
	require.LessOrEqual(p, p.stats(b).Depth, 24)
	require.Error(p, hasty(b, full), "for whoever writes")
	require.NoError(p, b.Put(p.Context(), 0, product{Stock: 100}), "an id that is there takes no room")
	waits := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(p.Context(), 30*time.Second)
		defer cancel()
		waits <- b.Put(ctx, full, product{Stock: 200})
	}()
	release()
	require.NoError(p, receive(p, waits))
	p.flush(b)
	require.Equal(p, 100, p.db.row(0).Stock)
	require.Equal(p, 200, p.db.row(full).Stock)
}

// A Redis that may evict queued changes is refused, and the error names the setting.
func showEvictionRefused(p *pair) {
	p.open(core.Class{TTL: time.Hour})
	master := p.redis.masters[len(p.redis.masters)-1]
	set := func(policy string) {
		_, err := master.Do(p.Context(), "CONFIG", "SET", "maxmemory-policy", policy)
		require.NoError(p, err)
	}
	defer set("noeviction")
	for _, policy := range []string{"allkeys-lru", "allkeys-lfu", "allkeys-random"} {
		set(policy) // on one of them
		_, err := core.NewWriteBehind(p.a.Map, p.db.apply, queueOptions{})
		require.ErrorIs(p, err, core.ErrUnusable)
		require.ErrorContains(p, err, fmt.Sprintf("maxmemory-policy of %s is %s", master.Addr(), policy))
		require.ErrorContains(p, err, "noeviction and volatile-* are allowed")
	}
	set("volatile-lru")
	require.NoError(p, p.queue(p.b, queueOptions{}).Close(p.Context()))
	set("noeviction")
	require.NoError(p, p.queue(p.b, queueOptions{}).Put(p.Context(), 7, product{Name: "tea"}))
	p.has(p.a, 7, "tea")
}
