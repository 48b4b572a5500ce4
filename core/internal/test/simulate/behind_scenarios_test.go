package simulate_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/test/memtier"
)

// queue is the queue of an actor, over the ids of its own map.
type queue struct {
	*actor
	*core.WriteBehind[int, value]
	ids *core.Map[int, value]
}

type (
	changes   = []core.Change[int, value]
	queueOpts = core.WriteBehindOptions[int, value]
)

// onePartition puts all keys and tags of an actor into one partition.
func onePartition(o *core.Options) {
	o.Remote.(*actor).parts = 1 //nolint:forcetypeassert // it always is
}

// queue gives an actor a queue. Without an apply of its own changes of id 1 are put into
// the database of the scene.
func (a *actor) queue(o queueOpts, apply func(context.Context, changes) error) *queue {
	a.s.Helper()
	q := &queue{actor: a}
	var err error
	q.ids, err = core.NewMap(a.cache, core.MapOptions[int, value]{Class: "c", Prefix: "later", Codec: codec{}})
	require.NoError(a.s, err)
	if o.Interval == 0 {
		o.Interval = ms
	}
	if apply == nil {
		apply = func(_ context.Context, list changes) error {
			a.s.apply(list)
			return nil
		}
	}
	q.WriteBehind, err = core.NewWriteBehind(q.ids, apply, o)
	require.NoError(a.s, err)
	return q
}

func (s *scene) apply(list changes) {
	for _, c := range list {
		if c.ID == 1 {
			s.data.Store(c.Value.version)
		}
	}
}

func (q *queue) put(id int, version int64) {
	q.s.Helper()
	require.NoError(q.s, q.Put(q.s.Context(), id, value{version: version}))
}

// reads demands that id 1 is answered with at least a version.
func (q *queue) reads(least int64) {
	q.s.Helper()
	v, err := q.ids.Get(q.s.Context(), 1, func(context.Context, int) (value, error) { return value{version: q.s.data.Load()}, nil })
	require.NoError(q.s, err)
	if v.version < least {
		q.s.Fatalf("STALE: version %d was answered, %d had been queued", v.version, least)
	}
}

// tablePage demands at least a version of a page that is made of the database without the
// queue.
func (a *actor) tablePage(least int64) {
	a.s.Helper()
	v, err := a.m.Get(a.s.Context(), 2000, func(ctx context.Context, _ int) (value, error) {
		return value{version: a.s.data.Load()}, core.AddTags(ctx, laterKey(1))
	})
	require.NoError(a.s, err)
	if v.version < least {
		a.s.Fatalf("STALE: a page of version %d was answered, %d had been applied", v.version, least)
	}
}

// A value may be stale for MaxStaleness; a value that is made of it must not be stale for
// longer.
func TestScenarioAValueMadeOfAnotherIsNotKeptBeforeItsInvalidationIsHeard(t *testing.T) {
	play(t, func(s *scene) {
		a, b := s.actor("a"), s.actor("b")
		pages, err := core.NewMap(b.cache, core.MapOptions[int, value]{Class: "c", Prefix: "page", Codec: codec{}})
		require.NoError(s, err)
		nested := func() int64 {
			v, err := pages.Get(s.Context(), 1, func(context.Context, int) (value, error) {
				version, err := b.get(0, "page:1")
				return value{version: version}, err
			})
			require.NoError(s, err)
			return v.version
		}
		time.Sleep(time.Second)
		b.must(1, "page:1")
		s.server.SetFaults(memtier.Faults{HintLost: 1})
		s.data.Store(2)
		require.NoError(s, a.cache.Invalidate(s.Context(), core.Tag("page:1")))
		nested() // it may be either
		time.Sleep(time.Second + ms)
		if v := nested(); v != 2 {
			s.Fatalf("STALE: what was made of version %d is kept", v)
		}
	})
}

func TestScenarioAValueMadeOfManyIsNotKeptWhenOnePartitionHasHeardAll(t *testing.T) {
	play(t, func(s *scene) {
		a, b := s.actor("a"), s.actor("b")
		pages, err := core.NewMap(b.cache, core.MapOptions[int, value]{Class: "c", Prefix: "page", Codec: codec{}})
		require.NoError(s, err)
		parts, err := core.NewMap(b.cache, core.MapOptions[int, value]{Class: "c", Prefix: "part", Codec: codec{}})
		require.NoError(s, err)
		least := func(ctx context.Context, _ int) (v value, err error) { // of values in all partitions
			v.version = s.data.Load()
			for id := range 100 {
				part, err := parts.Get(ctx, id, func(context.Context, int) (value, error) { return value{version: s.data.Load()}, nil })
				if err != nil {
					return v, err
				}
				v.version = min(v.version, part.version)
			}
			return v, nil
		}
		oldest := func() int64 {
			v, err := pages.Get(s.Context(), 1, least)
			require.NoError(s, err)
			return v.version
		}
		time.Sleep(time.Second)
		_, err = least(s.Context(), 0)
		require.NoError(s, err)
		s.server.SetFaults(memtier.Faults{HintLost: 1})
		s.data.Store(2)
		done := make(chan error)
		go func() { done <- a.cache.Invalidate(s.Context(), core.All()) }()
		synctest.Wait()
		oldest() // it may be either
		require.NoError(s, <-done)
		time.Sleep(time.Second + ms)
		if v := oldest(); v != 2 {
			s.Fatalf("STALE: what was made of version %d is kept", v)
		}
	})
}

func TestScenarioALoadOfALegalCopyIsNotJoinedOnceTheCopyIsNot(t *testing.T) {
	play(t, func(s *scene) {
		a, b := s.actor("a"), s.actor("b")
		pages, err := core.NewMap(b.cache, core.MapOptions[int, value]{Class: "c", Prefix: "page", Codec: codec{}})
		require.NoError(s, err)
		time.Sleep(time.Second)
		b.must(1, "row")
		s.server.SetFaults(memtier.Faults{HintLost: 1})
		s.data.Store(2)
		require.NoError(s, a.cache.Invalidate(s.Context(), core.Tag("row")))
		s.server.Down(true)
		time.Sleep(5 * ms)
		goOn, first, later := make(chan struct{}), make(chan int64, 1), make(chan int64, 1)
		get := func(got chan<- int64) {
			v, err := pages.Get(s.Context(), 1, func(context.Context, int) (value, error) {
				version, err := b.get(0, "row")
				<-goOn
				return value{version: version}, err
			})
			require.NoError(s, err)
			got <- v.version
		}
		go get(first)
		synctest.Wait()
		time.Sleep(time.Second*15/16 - ms) // the load is younger than a proof lasts, and the proof has ended
		go get(later)
		synctest.Wait()
		time.Sleep(100 * ms) // it has no answer from the tier
		close(goOn)
		<-first // it may be either
		if v := <-later; v != 2 {
			s.Fatalf("STALE: who came later was given what was made of version %d", v)
		}
		s.server.Down(false)
	})
}

func TestScenarioAReaderOfAQueuedChangeDoesNotWaitForALease(t *testing.T) {
	play(t, func(s *scene) {
		a, b := s.actor("a"), s.actor("b")
		p, q := a.queue(queueOpts{Workers: -1}, nil), b.queue(queueOpts{Workers: -1}, nil)
		time.Sleep(time.Second)
		p.put(1, 2)
		l, err := a.session.Acquire(s.Context(), laterKey(1), "", nil, 5*time.Second)
		require.NoError(s, err)
		require.NotEmpty(s, l.Token)
		begun := time.Now()
		q.reads(2)
		if took := time.Since(begun); took > 100*ms {
			s.Fatalf("SLOW: it took %v to read what is queued", took)
		}
	})
}

func TestScenarioAWorkerThatDiesAfterSettlingLeavesNoOldPage(t *testing.T) {
	play(t, func(s *scene) {
		a, b := s.actor("a"), s.actor("b")
		q := a.queue(queueOpts{Interval: 100 * ms}, nil)
		time.Sleep(time.Second)
		q.put(1, 2)
		time.Sleep(10 * ms)
		b.tablePage(1) // the change waits
		die := a.tier.Kill
		a.line.settled.Store(&die)
		time.Sleep(5 * time.Second)
		require.EqualValues(s, 2, s.data.Load())
		b.tablePage(2)
	})
}

func TestScenarioAChangeStaysQueuedUntilItsTagIsInvalidated(t *testing.T) {
	play(t, func(s *scene) {
		a, b := s.actor("a"), s.actor("b")
		q := a.queue(queueOpts{Interval: 100 * ms}, nil)
		time.Sleep(time.Second)
		q.put(1, 2)
		time.Sleep(10 * ms)
		b.tablePage(1)
		a.line.noChange.Store(true)
		time.Sleep(500 * ms)
		a.tier.Kill()
		require.EqualValues(s, 2, s.data.Load())
		s.actor("c").queue(queueOpts{}, nil)
		time.Sleep(8 * time.Second) // the lease of the queue is over
		b.tablePage(2)
	})
}

func TestScenarioAnApplyEndsBeforeAnotherWorkerHasItsLease(t *testing.T) {
	play(t, func(s *scene) {
		claimed, over := make(chan struct{}), make(chan struct{})
		a, b := s.actor("a"), s.actor("b")
		q := a.queue(queueOpts{}, func(ctx context.Context, list changes) error {
			close(claimed)
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-over:
				s.apply(list)
				return nil
			}
		})
		time.Sleep(time.Second)
		q.put(1, 2)
		<-claimed
		a.line.cut(true)
		other := b.queue(queueOpts{}, nil)
		other.put(1, 3)
		time.Sleep(8 * time.Second)
		require.EqualValues(s, 3, s.data.Load())
		close(over)
		time.Sleep(time.Second)
		if v := s.data.Load(); v != 3 {
			s.Fatalf("ORDER: version %d was applied after 3", v)
		}
		a.line.cut(false)
	})
}

func TestScenarioAnIdQueuedOnceIsAppliedBesideBusyIds(t *testing.T) {
	play(t, func(s *scene) {
		a := s.actor("a", onePartition)
		var turn, applied atomic.Int64
		q := a.queue(queueOpts{Batch: 1}, func(_ context.Context, list changes) error {
			n := applied.Add(1)
			if list[0].ID == 1 {
				turn.CompareAndSwap(0, n)
			}
			time.Sleep(10 * ms)
			return nil
		})
		time.Sleep(time.Second)
		q.put(1, 2)
		for n := range 200 {
			for id := range 8 {
				q.put(10+id, int64(n))
			}
			time.Sleep(5 * ms)
		}
		if n := turn.Load(); n == 0 || n > 10 {
			s.Fatalf("SLOW: the longest queued was applied as number %d (0: never)", n)
		}
	})
}

func TestScenarioAChangeExecutedAfterItsCallerLeftHasNoEffect(t *testing.T) {
	play(t, func(s *scene) {
		a, b := s.actor("a"), s.actor("b")
		p, q := a.queue(queueOpts{Workers: -1}, nil), b.queue(queueOpts{Workers: -1}, nil)
		time.Sleep(time.Second)
		s.server.SetFaults(memtier.Faults{Request: memtier.Delay{Min: time.Second, Max: time.Second}})
		ctx, cancel := context.WithTimeout(s.Context(), 100*ms)
		defer cancel()
		require.ErrorIs(s, p.Put(ctx, 1, value{version: 2}), core.ErrNotQueued)
		s.server.SetFaults(memtier.Faults{})
		q.put(1, 3)
		time.Sleep(3 * time.Second)
		p.reads(3)
		q.reads(3)
	})
}

func TestScenarioAChangeNotSentWhenItsCallerLeavesIsNotQueued(t *testing.T) {
	play(t, func(s *scene) {
		a, b := s.actor("a"), s.actor("b")
		p, q := a.queue(queueOpts{Workers: -1}, nil), b.queue(queueOpts{Workers: -1}, nil)
		time.Sleep(time.Second)
		s.server.SetFaults(memtier.Faults{Request: memtier.Delay{Min: time.Second, Max: time.Second}})
		go func() { _ = p.Put(context.Background(), 2, value{version: 1}) }() // the next waits for its reply
		time.Sleep(10 * ms)
		s.server.SetFaults(memtier.Faults{})
		ctx, cancel := context.WithTimeout(s.Context(), 100*ms)
		defer cancel()
		require.ErrorIs(s, p.Put(ctx, 1, value{version: 2}), core.ErrNotQueued)
		q.put(1, 3)
		time.Sleep(3 * time.Second)
		p.reads(3)
		q.reads(3)
	})
}

func TestScenarioALateReleaseDoesNotEndItsWorkersNextLease(t *testing.T) {
	play(t, func(s *scene) {
		a, b := s.actor("a"), s.actor("b")
		var calls atomic.Int64
		p := a.queue(queueOpts{}, func(ctx context.Context, list changes) error {
			if calls.Add(1) > 1 { // it has been applied before; this time it takes long
				select {
				case <-time.After(1200 * ms):
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			s.apply(list)
			return nil
		})
		slow := func() {
			if calls.Load() == 1 {
				s.server.SetFaults(memtier.Faults{Request: memtier.Delay{Min: 2500 * ms, Max: 2500 * ms}})
				time.AfterFunc(100*ms, func() { s.server.SetFaults(memtier.Faults{}) })
			}
		}
		a.line.settling.Store(&slow)
		time.Sleep(time.Second)
		q := b.queue(queueOpts{}, nil)
		p.put(1, 2)
		time.Sleep(2600 * ms)
		q.put(1, 3)
		time.Sleep(20 * time.Second)
		if v := s.data.Load(); v != 3 {
			s.Fatalf("ORDER: version %d was applied after 3", v)
		}
		p.reads(3)
		q.reads(3)
	})
}

// A restart keeps queued changes. Until the tier has been verified again, queued changes
// are all that is answered from it.
func TestScenarioAQueuedChangeIsReadWhileTheTierIsNotVerified(t *testing.T) {
	for name, how := range map[string]func(s *scene, x, y *queue){
		"restarted":              func(s *scene, _, _ *queue) { s.server.Restart() },
		"restarted in a new era": func(s *scene, _, y *queue) { s.server.Restart(); y.line.noEra.Store(false) },
		"an invalidation pending": func(s *scene, x, _ *queue) {
			x.line.noChange.Store(true)
			_ = x.cache.Invalidate(s.Context(), core.All())
		},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, func(s *scene) {
				never := func(ctx context.Context, _ changes) error { <-ctx.Done(); return ctx.Err() }
				x, y := s.actor("x").queue(queueOpts{}, never), s.actor("y").queue(queueOpts{}, never)
				time.Sleep(time.Second)
				x.reads(1)
				y.put(1, 2)
				time.Sleep(time.Second)
				x.line.noEra.Store(true)
				y.line.noEra.Store(true)
				how(s, x, y)
				time.Sleep(time.Second)
				for range 20 {
					x.reads(2)
					values, err := x.ids.GetMany(s.Context(), []int{1, 2}, func(_ context.Context, ids []int) (map[int]value, error) {
						values := map[int]value{}
						for _, id := range ids {
							values[id] = value{version: s.data.Load()}
						}
						return values, nil
					})
					require.NoError(s, err)
					if v := values[1].version; v != 2 {
						s.Fatalf("STALE: a batch was answered version %d, 2 had been queued", v)
					}
					if v := x.pageOfQueued(); v != 2 {
						s.Fatalf("STALE: a page of version %d was answered, 2 had been queued", v)
					}
					time.Sleep(100 * ms)
				}
			})
		})
	}
}

// pageOfQueued reads a page that is made of the Map's value of id 1.
func (q *queue) pageOfQueued() int64 {
	q.s.Helper()
	v, err := q.m.Get(q.s.Context(), 3000, func(ctx context.Context, _ int) (value, error) {
		v, err := q.ids.Get(ctx, 1, func(context.Context, int) (value, error) { return value{version: q.s.data.Load()}, nil })
		if err != nil {
			return value{}, err
		}
		return v, core.AddTags(ctx, laterKey(1))
	})
	require.NoError(q.s, err)
	return v.version
}

// A load behind a response waits longer for the tier than MaxStaleness. A change that was
// queued at the time of its question is not answered to readers that begin after the next
// change.
func TestScenarioAChangeReadBeforeTheNextIsNotJoined(t *testing.T) {
	play(t, func(s *scene) {
		a, b := s.actor("a", onePartition), s.actor("b", onePartition)
		p, q := a.queue(idle, nil), b.queue(idle, nil)
		time.Sleep(time.Second)
		q.put(1, 2)

		asked, reply := make(chan struct{}), make(chan struct{})
		question := func() { close(asked); <-reply }
		a.line.busy.Store(true)
		v, err := p.ids.Get(s.Context(), 1, func(context.Context, int) (value, error) {
			a.line.busy.Store(false)
			a.line.leased.Store(&question)
			return value{version: s.data.Load()}, nil
		})
		require.NoError(s, err)
		require.EqualValues(s, 1, v.version, "of the database: the tier does not answer the request")

		<-asked // the load behind the response has the lease and version 2, and waits for the reply
		q.put(1, 3)
		time.Sleep(2 * time.Second) // MaxStaleness
		fill := make(chan struct{})
		wait := func() { <-fill }
		a.line.filling.Store(&wait)
		close(reply)
		synctest.Wait()
		s.reads.Go(func() { p.reads(3) })
		synctest.Wait()
		close(fill)
	})
}
