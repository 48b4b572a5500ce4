package core_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/tier"
)

// ledger is a database that changes are applied to.
type ledger struct {
	t *testing.T
	w *twoWriters

	mu      sync.Mutex
	rows    map[int]int64
	batches [][]core.Change[int, int64]
	err     error                           // of every apply
	bad     int                             // an id that is never taken
	during  func([]core.Change[int, int64]) // in the middle of an apply
	dead    []core.Change[int, int64]

	a, b *core.WriteBehind[int, int64] // b is a's where there is one instance
}

var errBad = errors.New("value out of range")

type wbOptions = core.WriteBehindOptions[int, int64]

// eachQueue runs a test with a queue in one process, in one instance, and in two.
func eachQueue(t *testing.T, o wbOptions, test func(l *ledger)) {
	t.Helper()
	class := func(o *core.Options) {
		o.Classes = core.Classes{"c": {TTL: 3 * time.Minute, LoadTimeout: 10 * time.Second, NegativeTTL: time.Minute}}
	}
	for _, way := range []string{"one process", "one instance", "two instances"} {
		t.Run(way, func(t *testing.T) {
			oneWayWith(t, way, class, func(w *twoWriters) {
				l := &ledger{t: w.t, w: w, rows: make(map[int]int64)}
				l.a = l.queue(w.a, o)
				l.b = l.a
				if w.b != w.a {
					l.b = l.queue(w.b, o)
				}
				test(l)
			})
		})
	}
}

func (l *ledger) queue(in *instance, o wbOptions) *core.WriteBehind[int, int64] {
	l.t.Helper()
	if o.OnDead == nil {
		o.OnDead = func(c core.Change[int, int64], _ error) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.dead = append(l.dead, c)
		}
	}
	q, err := core.NewWriteBehind(in.Map, l.apply, o)
	require.NoError(l.t, err)
	return q
}

func (l *ledger) apply(_ context.Context, changes []core.Change[int, int64]) error {
	l.mu.Lock()
	during, err, bad := l.during, l.err, l.bad
	l.batches = append(l.batches, slices.Clone(changes))
	l.mu.Unlock()
	if during != nil {
		during(changes)
	}
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	failed := make(core.BatchError[int])
	for _, c := range changes {
		switch {
		case c.ID == bad && bad != 0:
			failed[bad] = errBad
		case c.Deleted:
			delete(l.rows, c.ID)
		default:
			l.rows[c.ID] = c.Value
		}
	}
	if len(failed) > 0 {
		return failed
	}
	return nil
}

func (l *ledger) set(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
}

func (l *ledger) load(_ context.Context, id int) (int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.w.f.loads.Add(1)
	if v, ok := l.rows[id]; ok {
		return v, nil
	}
	return 0, core.ErrNotFound
}

// table returns what the database has.
func (l *ledger) table() map[int]int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.rows)
}

// values returns what every apply since the last time was given.
func (l *ledger) values() (values []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range l.batches {
		var text []string
		for _, c := range b {
			if c.Deleted {
				text = append(text, fmt.Sprintf("-%d", c.ID))
			} else {
				text = append(text, fmt.Sprintf("%d=%d", c.ID, c.Value))
			}
		}
		slices.Sort(text)
		values = append(values, fmt.Sprint(text))
	}
	l.batches = nil
	slices.Sort(values)
	return values
}

// reads demands that readers of both instances get v of an id, -1: that it does not exist.
func (l *ledger) reads(id int, v int64) {
	l.t.Helper()
	synctest.Wait() // hints
	for _, in := range []*instance{l.w.a, l.w.b} {
		got, err := in.Get(l.t.Context(), id, l.load)
		if v == -1 {
			require.ErrorIs(l.t, err, core.ErrNotFound)
			continue
		}
		require.NoError(l.t, err)
		require.Equal(l.t, v, got)
	}
}

// settle waits until workers have applied what there is.
func (l *ledger) settle() { time.Sleep(3 * time.Second) }

func TestReadersHaveAPutAtOnceAndTheDatabaseLater(t *testing.T) {
	eachQueue(t, wbOptions{}, func(l *ledger) {
		l.rows[7] = 1
		l.reads(7, 1)
		require.NoError(l.t, l.a.Put(l.t.Context(), 7, 2))
		l.reads(7, 2)
		require.Equal(l.t, map[int]int64{7: 1}, l.table(), "not yet")
		st, err := l.b.Stats(l.t.Context())
		require.NoError(l.t, err)
		require.Equal(l.t, 1, st.Depth)
		l.settle()
		require.Equal(l.t, map[int]int64{7: 2}, l.table())
		l.reads(7, 2)
		st, err = l.b.Stats(l.t.Context())
		require.NoError(l.t, err)
		require.Zero(l.t, st.Depth)
	})
}

func TestEveryReadOfAQueuedIDReturnsTheQueuedValue(t *testing.T) {
	eachQueue(t, wbOptions{}, func(l *ledger) {
		ctx := l.t.Context()
		l.rows[7] = 1
		l.set(func() { l.err = errDown })
		require.NoError(l.t, l.a.Put(ctx, 7, 2))
		l.reads(7, 2)
		many, err := l.w.b.GetMany(ctx, []int{7, 8}, func(context.Context, []int) (map[int]int64, error) { return map[int]int64{8: 8}, nil })
		require.NoError(l.t, err)
		require.Equal(l.t, map[int]int64{7: 2, 8: 8}, many)
		for _, target := range []core.Target{core.Key("item:7"), core.Tag("item:7"), core.Pattern("item:*"), core.All()} {
			require.NoError(l.t, l.w.b.cache.Invalidate(ctx, target))
			l.reads(7, 2)
		}
		many, err = l.w.b.GetMany(ctx, []int{7}, func(context.Context, []int) (map[int]int64, error) { return nil, errors.New("loaded") })
		require.NoError(l.t, err)
		require.Equal(l.t, map[int]int64{7: 2}, many)
		time.Sleep(10 * time.Minute) // its TTL is over, and the database still down
		l.reads(7, 2)
		l.set(func() { l.err = nil })
		time.Sleep(3 * time.Minute)
		require.Equal(l.t, map[int]int64{7: 2}, l.table())
	})
}

func TestPendingChangesOfOneIDCoalesceToTheLatest(t *testing.T) {
	eachQueue(t, wbOptions{}, func(l *ledger) {
		for v := range int64(3) {
			require.NoError(l.t, l.a.Put(l.t.Context(), 7, v))
			require.NoError(l.t, l.b.Put(l.t.Context(), 8, -v))
		}
		require.NoError(l.t, l.b.Delete(l.t.Context(), 8))
		l.reads(7, 2)
		l.reads(8, -1)
		l.settle()
		require.Equal(l.t, map[int]int64{7: 2}, l.table())
		applied := l.values()
		require.Subset(l.t, []string{"[-8 7=2]", "[7=2]", "[-8]"}, applied, "%v", applied)
		l.reads(7, 2)
		l.reads(8, -1)
		require.NoError(l.t, l.a.PutMany(l.t.Context(), map[int]int64{1: 1, 2: 2, 3: 3}))
		l.reads(2, 2)
		require.NoError(l.t, l.b.Flush(l.t.Context()))
		require.Equal(l.t, map[int]int64{1: 1, 2: 2, 3: 3, 7: 2}, l.table())
	})
}

func TestAChangeQueuedDuringAnApplyIsAppliedAfterIt(t *testing.T) {
	eachQueue(t, wbOptions{}, func(l *ledger) {
		began, release := make(chan struct{}, 1), make(chan struct{})
		l.during = func([]core.Change[int, int64]) {
			began <- struct{}{}
			<-release
		}
		require.NoError(l.t, l.a.Put(l.t.Context(), 7, 1))
		<-began
		require.NoError(l.t, l.b.Put(l.t.Context(), 7, 2))
		l.reads(7, 2)
		l.set(func() { l.during = nil })
		close(release)
		synctest.Wait()
		l.reads(7, 2)
		l.settle()
		require.Equal(l.t, []string{"[7=1]", "[7=2]"}, l.values())
		require.Equal(l.t, map[int]int64{7: 2}, l.table())
		l.reads(7, 2)
	})
}

// A page is made of the database without asking the map: between the change and its
// being applied it is made of the old value.
func TestAnAppliedChangeInvalidatesPagesOfTheDatabase(t *testing.T) {
	eachQueue(t, wbOptions{}, func(l *ledger) {
		page := func(in *instance, through bool) int64 {
			pages, err := core.NewMap(in.cache, core.MapOptions[string, int64]{Class: "c", Prefix: "page"})
			require.NoError(l.t, err)
			v, err := pages.Get(l.t.Context(), fmt.Sprint(through), func(ctx context.Context, _ string) (int64, error) {
				require.NoError(l.t, core.AddTags(ctx, "item:7"))
				if through {
					return in.Get(ctx, 7, l.load)
				}
				return l.load(ctx, 7)
			})
			require.NoError(l.t, err)
			return v
		}
		l.rows[7] = 1
		require.EqualValues(l.t, 1, page(l.w.a, true))
		require.EqualValues(l.t, 1, page(l.w.a, false))
		require.NoError(l.t, l.b.Put(l.t.Context(), 7, 2))
		synctest.Wait()
		require.EqualValues(l.t, 2, page(l.w.a, true), "the map has it")
		require.EqualValues(l.t, 1, page(l.w.a, false), "the database does not")
		l.settle()
		require.EqualValues(l.t, 2, page(l.w.b, true))
		require.EqualValues(l.t, 2, page(l.w.b, false))
	})
}

func TestALoadDoesNotReplaceAChangeQueuedMeanwhile(t *testing.T) {
	eachQueue(t, wbOptions{}, func(l *ledger) {
		loading, release, got := make(chan struct{}), make(chan struct{}), make(chan int64, 1)
		go func() {
			v, err := l.w.b.Get(l.t.Context(), 7, func(context.Context, int) (int64, error) {
				close(loading)
				<-release
				return 1, nil
			})
			if err != nil {
				l.t.Error(err)
			}
			got <- v
		}()
		<-loading
		require.NoError(l.t, l.a.Put(l.t.Context(), 7, 2))
		synctest.Wait()
		v, err := l.w.b.Get(l.t.Context(), 7, l.load)
		require.NoError(l.t, err)
		require.EqualValues(l.t, 2, v, "who comes now does not wait for that load")
		close(release)
		require.EqualValues(l.t, 1, <-got, "it began before")
		l.reads(7, 2)
	})
}

func TestAFailingChangeHoldsUpNoOtherAndBecomesADeadLetter(t *testing.T) {
	eachQueue(t, wbOptions{MaxAttempts: 3, Retry: time.Second}, func(l *ledger) {
		ctx := l.t.Context()
		l.rows[7] = 1
		l.set(func() { l.bad = 7 })
		require.NoError(l.t, l.a.PutMany(ctx, map[int]int64{7: 2, 8: 2}))
		l.settle()
		require.Equal(l.t, map[int]int64{7: 1, 8: 2}, l.table())
		l.reads(7, 2)
		time.Sleep(30 * time.Second)
		tried := 0
		for _, batch := range l.values() {
			if strings.Contains(batch, "7=2") {
				tried++
			}
		}
		require.Equal(l.t, 3, tried)
		l.mu.Lock()
		require.Len(l.t, l.dead, 1)
		require.EqualValues(l.t, 2, l.dead[0].Value)
		l.mu.Unlock()
		l.reads(7, 1) // what the database has
		st, err := l.a.Stats(ctx)
		require.NoError(l.t, err)
		require.Equal(l.t, 1, st.Dead)
		require.Zero(l.t, st.Depth)

		letters, err := l.b.DeadLetters(ctx, 10)
		require.NoError(l.t, err)
		require.Len(l.t, letters, 1)
		require.Equal(l.t, 7, letters[0].ID)
		require.EqualValues(l.t, 2, letters[0].Value)
		require.Equal(l.t, errBad.Error(), letters[0].Reason)
		l.set(func() { l.bad = 0 })
		n, err := l.b.Replay(ctx, letters...)
		require.NoError(l.t, err)
		require.Equal(l.t, 1, n)
		l.reads(7, 2)
		l.settle()
		require.EqualValues(l.t, 2, l.table()[7])
		n, err = l.b.Replay(ctx, letters...)
		require.NoError(l.t, err)
		require.Zero(l.t, n, "it is there once")
	})
}

// A database that is down takes nothing. That says nothing of the changes.
func TestChangesSurviveALongOutageOfTheDatabase(t *testing.T) {
	eachQueue(t, wbOptions{MaxAttempts: 3}, func(l *ledger) {
		want := make(map[int]int64)
		l.set(func() { l.err = errDown })
		for id := range 20 {
			want[id] = int64(id)
			require.NoError(l.t, l.a.Put(l.t.Context(), id, int64(id)))
		}
		time.Sleep(20 * time.Minute)
		l.reads(7, 7)
		l.set(func() { l.err = nil })
		time.Sleep(2 * time.Minute)
		require.Equal(l.t, want, l.table())
	})
}

func TestADeadLetterOlderThanALaterChangeIsNotReplayed(t *testing.T) {
	eachQueue(t, wbOptions{}, func(l *ledger) {
		ctx := l.t.Context()
		l.set(func() { l.err = fmt.Errorf("constraint: %w", core.ErrPoison) })
		require.NoError(l.t, l.a.PutMany(ctx, map[int]int64{7: 2, 8: 2}))
		time.Sleep(10 * time.Second)
		letters, err := l.a.DeadLetters(ctx, 10)
		require.NoError(l.t, err)
		require.Len(l.t, letters, 2)
		l.set(func() { l.err = nil })
		require.NoError(l.t, l.b.Put(ctx, 7, 3))
		l.settle()
		n, err := l.a.Replay(ctx, letters...)
		require.NoError(l.t, err)
		require.Equal(l.t, 1, n)
		l.settle()
		require.Equal(l.t, map[int]int64{7: 3, 8: 2}, l.table())
		l.set(func() { l.err = core.ErrPoison })
		require.NoError(l.t, l.b.Put(ctx, 9, 3))
		l.settle()
		letters, err = l.a.DeadLetters(ctx, 10)
		require.NoError(l.t, err)
		require.Len(l.t, letters, 1)
		n, err = l.a.Discard(ctx, letters...)
		require.NoError(l.t, err)
		require.Equal(l.t, 1, n)
		letters, err = l.a.DeadLetters(ctx, 10)
		require.NoError(l.t, err)
		require.Empty(l.t, letters)
	})
}

func TestAPanickingApplyDoesNotStopTheQueue(t *testing.T) {
	eachQueue(t, wbOptions{}, func(l *ledger) {
		l.during = func([]core.Change[int, int64]) { panic("oops") }
		require.NoError(l.t, l.a.Put(l.t.Context(), 7, 2))
		l.settle()
		l.set(func() { l.during = nil })
		l.settle()
		require.Equal(l.t, map[int]int64{7: 2}, l.table())
	})
}

func TestConcurrentPartialChangesAreAllMerged(t *testing.T) {
	var l *ledger
	o := wbOptions{
		Interval: 10 * time.Millisecond,
		Merge:    func(old, change int64) int64 { return old + change },
		Load:     func(ctx context.Context, id int) (int64, error) { return l.load(ctx, id) },
	}
	eachQueue(t, o, func(it *ledger) {
		l = it
		l.rows[7] = 100
		var all sync.WaitGroup
		for i := range 40 {
			all.Go(func() {
				q := l.a
				if i%2 == 1 {
					q = l.b
				}
				if err := q.Put(l.t.Context(), 7, 1); err != nil {
					l.t.Error(err)
				}
				if err := q.Put(l.t.Context(), 8, 1); err != nil {
					l.t.Error(err)
				}
			})
		}
		all.Wait()
		l.reads(7, 140)
		require.NoError(l.t, l.a.Flush(l.t.Context()))
		require.Equal(l.t, map[int]int64{7: 140, 8: 40}, l.table())
		require.NoError(l.t, l.b.Delete(l.t.Context(), 7))
		require.NoError(l.t, l.a.Put(l.t.Context(), 7, 5))
		l.reads(7, 5)
	})
}

func TestAPutIntoAFullQueueWaitsForRoom(t *testing.T) {
	eachQueue(t, wbOptions{MaxQueued: 16, Wait: 4 * time.Second, MaxRetry: time.Second}, func(l *ledger) {
		ctx := l.t.Context()
		l.set(func() { l.err = errDown })
		accepted := 0
		var err error
		for id := 0; id < 100 && err == nil; id++ {
			if err = l.a.Put(ctx, id, 1); err == nil {
				accepted++
			}
		}
		require.ErrorIs(l.t, err, core.ErrQueueFull)
		require.LessOrEqual(l.t, accepted, 24)
		require.NoError(l.t, l.b.Put(ctx, 0, 2), "it is there already")
		done := make(chan error)
		go func() { done <- l.a.Put(ctx, accepted, 2) }()
		time.Sleep(time.Second)
		l.set(func() { l.err = nil })
		require.NoError(l.t, <-done)
		require.NoError(l.t, l.a.Flush(ctx))
		require.Len(l.t, l.table(), accepted+1)
	})
}

func TestCloseAppliesPendingChangesOfAQueueInProcess(t *testing.T) {
	share(t, func(t *testing.T, f *fleet) {
		l := &ledger{t: t, w: &twoWriters{t: t, f: f}, rows: make(map[int]int64)}
		in := f.instance("a", func(o *core.Options) { o.Remote = nil })
		q := l.queue(in, wbOptions{Interval: time.Hour})
		require.NoError(t, q.Put(t.Context(), 7, 2))
		require.NoError(t, q.Close(t.Context()))
		require.Equal(t, map[int]int64{7: 2}, l.table())
		require.ErrorIs(t, q.Put(t.Context(), 7, 3), core.ErrClosed)
		require.NoError(t, q.Close(t.Context()))

		q = l.queue(in, wbOptions{Interval: time.Hour})
		require.NoError(t, q.Put(t.Context(), 8, 2))
		require.NoError(t, in.cache.Close(), "closes it as well")
		require.Equal(t, map[int]int64{7: 2, 8: 2}, l.table())
	})
	share(t, func(t *testing.T, f *fleet) {
		l := &ledger{t: t, w: &twoWriters{t: t, f: f}, rows: make(map[int]int64), err: errDown}
		in := f.instance("a", func(o *core.Options) { o.Remote = nil })
		q := l.queue(in, wbOptions{})
		require.NoError(t, q.Put(t.Context(), 7, 2))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		require.ErrorContains(t, q.Close(ctx), "lost")
	})
}

func TestAnotherInstanceAppliesTheBatchOfAHungWorker(t *testing.T) {
	share(t, func(t *testing.T, f *fleet) {
		w := &twoWriters{t: t, f: f, a: f.instance("a"), b: f.instance("b")}
		l := &ledger{t: t, w: w, rows: make(map[int]int64)}
		hung, release := make(chan struct{}), make(chan struct{})
		a, err := core.NewWriteBehind(w.a.Map, func(context.Context, []core.Change[int, int64]) error {
			close(hung)
			<-release // whatever its context says
			return nil
		}, wbOptions{ApplyTimeout: time.Second})
		require.NoError(t, err)
		require.NoError(t, a.Put(t.Context(), 7, 2))
		<-hung
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.Error(t, a.Close(ctx))
		l.queue(w.b, wbOptions{})
		l.a, l.b = a, a
		time.Sleep(8 * time.Second)
		require.Equal(t, map[int]int64{7: 2}, l.table())
		close(release)
		synctest.Wait()
		l.reads(7, 2)
	})
}

// The apply ignores its context, and does not return. The rest of its instance works.
func TestAnotherInstanceAppliesTheBatchOfAnApplyPastItsLimit(t *testing.T) {
	share(t, func(t *testing.T, f *fleet) {
		w := &twoWriters{t: t, f: f, a: f.instance("a"), b: f.instance("b")}
		l := &ledger{t: t, w: w, rows: make(map[int]int64)}
		hung, release := make(chan struct{}), make(chan struct{})
		var once sync.Once
		a, err := core.NewWriteBehind(w.a.Map, func(context.Context, []core.Change[int, int64]) error {
			once.Do(func() { close(hung) })
			<-release
			return nil
		}, wbOptions{ApplyTimeout: 10 * time.Second, Workers: 1})
		require.NoError(t, err)
		require.NoError(t, a.Put(t.Context(), 7, 2))
		<-hung
		l.queue(w.b, wbOptions{})
		time.Sleep(9 * time.Second)
		require.Empty(t, l.table(), "it has time yet")
		time.Sleep(11 * time.Second)
		require.Equal(t, map[int]int64{7: 2}, l.table())
		close(release)
		synctest.Wait()
		st, err := a.Stats(t.Context())
		require.NoError(t, err)
		require.Zero(t, st.Applied)
		require.EqualValues(t, 1, st.Overtaken)
	})
}

// A change that was replaced has not been applied: what replaced it must be.
func TestFlushWaitsForTheReplacementOfAReplacedChange(t *testing.T) {
	for name, first := range map[string]func(l *ledger){
		"waits":   func(l *ledger) { l.set(func() { l.err = errDown }) },
		"retried": func(l *ledger) { l.set(func() { l.err = errDown }); time.Sleep(10 * time.Second) },
		"being applied in vain": func(l *ledger) {
			l.set(func() { l.during = func([]core.Change[int, int64]) { time.Sleep(5 * time.Second) }; l.err = errDown })
			time.Sleep(2 * time.Second)
		},
	} {
		t.Run(name, func(t *testing.T) {
			eachQueue(t, wbOptions{}, func(l *ledger) {
				require.NoError(l.t, l.a.Put(l.t.Context(), 7, 2))
				first(l)
				flushed := make(chan map[int]int64)
				go func() {
					assert.NoError(l.t, l.b.Flush(context.Background()))
					flushed <- l.table()
				}()
				time.Sleep(time.Second)
				require.NoError(l.t, l.a.Put(l.t.Context(), 7, 3))
				select {
				case <-flushed:
					l.t.Fatal("flushed, and nothing has been applied")
				case <-time.After(30 * time.Second):
				}
				l.set(func() { l.err, l.during = nil, nil })
				require.Equal(l.t, map[int]int64{7: 3}, <-flushed)
			})
		})
	}
}

// A change was queued while an earlier one was being applied, and replaced before that ended.
func TestFlushWaitsForAChangeReplacedDuringAnApply(t *testing.T) {
	eachQueue(t, wbOptions{}, func(l *ledger) {
		first := make(chan struct{})
		l.set(func() { l.during = func([]core.Change[int, int64]) { <-first } })
		require.NoError(l.t, l.a.Put(l.t.Context(), 7, 2))
		time.Sleep(2 * time.Second) // it is being applied
		require.NoError(l.t, l.a.Put(l.t.Context(), 7, 3))
		flushed := make(chan map[int]int64)
		go func() {
			assert.NoError(l.t, l.b.Flush(context.Background()))
			flushed <- l.table()
		}()
		time.Sleep(100 * time.Millisecond)
		require.NoError(l.t, l.a.Put(l.t.Context(), 7, 4))
		l.set(func() { l.during = func([]core.Change[int, int64]) { time.Sleep(3 * time.Second) } })
		close(first)
		require.Equal(l.t, map[int]int64{7: 4}, <-flushed)
	})
}

func TestAnInstanceWithoutAQueueReadsQueuedChanges(t *testing.T) {
	share(t, func(t *testing.T, f *fleet) {
		w := &twoWriters{t: t, f: f, a: f.instance("a"), b: f.instance("b")}
		l := &ledger{t: t, w: w, rows: map[int]int64{7: 1}, err: errDown}
		q := l.queue(w.a, wbOptions{})
		l.reads(7, 1)
		require.NoError(t, q.Put(t.Context(), 7, 2))
		l.reads(7, 2)
	})
}

func TestAPutWhileTheTierIsDownFails(t *testing.T) {
	share(t, func(t *testing.T, f *fleet) {
		w := &twoWriters{t: t, f: f, a: f.instance("a"), b: f.instance("b")}
		l := &ledger{t: t, w: w, rows: map[int]int64{7: 1}}
		q := l.queue(w.a, wbOptions{})
		f.server.Down(true)
		require.ErrorIs(t, q.Put(t.Context(), 7, 2), core.ErrNotQueued)
		v, err := w.a.Get(t.Context(), 7, l.load)
		require.NoError(t, err)
		require.EqualValues(t, 1, v)
		f.server.Down(false)
		time.Sleep(10 * time.Second)
		require.NoError(t, q.Put(t.Context(), 7, 3))
		l.reads(7, 3)
		l.settle()
		require.Equal(t, map[int]int64{7: 3}, l.table())
	})
}

func TestErrorsOfWrongQueueOptionsNameTheAllowedValues(t *testing.T) {
	bubble(t, core.Class{TTL: hour, MaxEntryBytes: 100}, func(t *testing.T, m *items) {
		type change = core.Change[int, item]
		type options = core.WriteBehindOptions[int, item]
		apply := func(context.Context, []change) error { return nil }
		var ce *core.ConfigError
		for _, o := range []options{
			{Batch: -1}, {Batch: 1001}, {Interval: -1}, {Workers: -2}, {Workers: 65}, {Workers: -1}, {MaxQueued: -1},
			{Wait: time.Nanosecond}, {ApplyTimeout: -1}, {Retry: -1}, {MaxRetry: -1}, {MaxAttempts: -1},
			{Merge: func(item, item) item { return item{} }},
			{Load: m.load},
		} {
			_, err := core.NewWriteBehind(m.Map, apply, o)
			require.ErrorAs(t, err, &ce, "%+v", o)
		}
		_, err := core.NewWriteBehind(m.Map, nil, options{})
		require.ErrorAs(t, err, &ce)
		_, err = core.NewWriteBehind[int, item](nil, apply, options{})
		require.ErrorAs(t, err, &ce)
		q, err := core.NewWriteBehind(m.Map, apply, options{})
		require.NoError(t, err)
		_, err = core.NewWriteBehind(m.Map, apply, options{})
		require.ErrorAs(t, err, &ce, "one queue for a map")
		require.ErrorAs(t, q.Put(t.Context(), 1, item{Name: fmt.Sprintf("%100d", 1)}), &ce)
		require.ErrorAs(t, q.Put(t.Context(), 1, item{}, ""), &ce)
		require.NoError(t, q.Close(t.Context()))
	})
}

// durability is a tier of which a test says whether it may evict what is queued.
type durability struct {
	tier.Tier
	evicts atomic.Bool
}

var errEvicts = fmt.Errorf("%w: maxmemory-policy is allkeys-lru", core.ErrUnusable)

func (d *durability) Open(ctx context.Context, want tier.Layout) (tier.Session, error) {
	ses, err := d.Tier.Open(ctx, want)
	if err != nil {
		return nil, err
	}
	return &durableSession{ses, d}, nil
}

type durableSession struct {
	tier.Session
	tier *durability
}

func (s *durableSession) Durable(ctx context.Context) error {
	if s.tier.evicts.Load() {
		return errEvicts
	}
	return s.Session.Durable(ctx)
}

func TestAQueueOverATierThatEvictsIsRefused(t *testing.T) {
	share(t, func(t *testing.T, f *fleet) {
		shared := &durability{Tier: f.server.Tier("a")}
		in := f.instance("a", func(o *core.Options) { o.Remote = shared })
		l := &ledger{t: t, w: &twoWriters{t: t, f: f, a: in, b: in}, rows: make(map[int]int64)}
		shared.evicts.Store(true)
		_, err := core.NewWriteBehind(in.Map, l.apply, wbOptions{})
		require.ErrorIs(t, err, errEvicts)
		shared.evicts.Store(false)
		q := l.queue(in, wbOptions{}) // the map is free
		require.NoError(t, q.Put(t.Context(), 7, 2))
		l.reads(7, 2)
	})
}

// The setting of the server changes while the queue is in use.
func TestAQueueRefusesChangesWhileItsTierEvicts(t *testing.T) {
	share(t, func(t *testing.T, f *fleet) {
		shared := &durability{Tier: f.server.Tier("a")}
		in := f.instance("a", func(o *core.Options) { o.Remote = shared })
		l := &ledger{t: t, w: &twoWriters{t: t, f: f, a: in, b: in}, rows: make(map[int]int64)}
		q := l.queue(in, wbOptions{})
		require.NoError(t, q.Put(t.Context(), 7, 2))
		shared.evicts.Store(true)
		time.Sleep(time.Minute)
		require.ErrorIs(t, q.Put(t.Context(), 7, 3), core.ErrUnusable)
		require.ErrorIs(t, q.Delete(t.Context(), 7), errEvicts)
		require.Equal(t, map[int]int64{7: 2}, l.table(), "what was queued is applied")
		l.reads(7, 2)
		shared.evicts.Store(false)
		time.Sleep(time.Minute)
		require.NoError(t, q.Put(t.Context(), 7, 3))
		l.reads(7, 3)
	})
}

// A tier that cannot be asked when the queue is made is asked before the first change.
func TestATierFoundToEvictAfterAnOutageQueuesNothing(t *testing.T) {
	share(t, func(t *testing.T, f *fleet) {
		shared := &durability{Tier: f.server.Tier("a")}
		f.server.Down(true)
		in := f.instance("a", func(o *core.Options) { o.Remote = shared })
		l := &ledger{t: t, w: &twoWriters{t: t, f: f, a: in, b: in}, rows: make(map[int]int64)}
		q := l.queue(in, wbOptions{})
		shared.evicts.Store(true)
		f.server.Down(false)
		time.Sleep(10 * time.Second) // it is connected
		require.ErrorIs(t, q.Put(t.Context(), 7, 2), errEvicts)
		l.settle()
		require.Empty(t, l.table())
	})
}

// inProcess runs a test of a queue without a shared tier.
func inProcess(t *testing.T, o wbOptions, test func(l *ledger)) {
	t.Helper()
	share(t, func(t *testing.T, f *fleet) {
		in := f.instance("a", func(o *core.Options) { o.Remote = nil })
		l := &ledger{t: t, w: &twoWriters{t: t, f: f, a: in, b: in}, rows: make(map[int]int64)}
		l.a = l.queue(in, o)
		l.b = l.a
		test(l)
	})
}

func TestAQueueInProcessKeepsItsBound(t *testing.T) {
	inProcess(t, wbOptions{MaxQueued: 10, Wait: 5 * time.Second}, func(l *ledger) {
		release := make(chan struct{})
		l.set(func() { l.during = func([]core.Change[int, int64]) { <-release } })
		for id := range 10 {
			require.NoError(l.t, l.a.Put(l.t.Context(), id, 1))
		}
		depth := func() int {
			st, err := l.a.Stats(l.t.Context())
			require.NoError(l.t, err)
			return st.Depth
		}
		for _, limit := range []struct {
			of   time.Duration // of the caller's context
			took time.Duration
		}{{0, 5 * time.Second}, {2 * time.Second, 2 * time.Second}} {
			ctx, cancel := l.t.Context(), context.CancelFunc(func() {})
			if limit.of > 0 {
				ctx, cancel = context.WithTimeout(ctx, limit.of)
			}
			began := time.Now()
			require.ErrorIs(l.t, l.a.Put(ctx, 10, 1), core.ErrQueueFull)
			require.InDelta(l.t, limit.took, time.Since(began), float64(20*time.Millisecond)) // it asks again so often
			require.Equal(l.t, 10, depth())
			cancel()
		}
		err := l.a.PutMany(l.t.Context(), map[int]int64{3: 2, 11: 1, 12: 1})
		var each core.BatchError[int]
		require.ErrorAs(l.t, err, &each)
		require.Len(l.t, each, 2, "3 is there already")
		require.ErrorIs(l.t, each[11], core.ErrQueueFull)
		require.ErrorIs(l.t, each[12], core.ErrQueueFull)
		require.Equal(l.t, 10, depth())
		l.set(func() { l.during = nil })
		close(release)
		l.settle()
		require.Len(l.t, l.table(), 10)
		require.EqualValues(l.t, 2, l.table()[3])
	})
}

// Nothing is gained by waiting for more changes that there is no room for.
func TestAFullQueueIsAppliedBeforeItsInterval(t *testing.T) {
	o := wbOptions{MaxQueued: 16, Interval: time.Hour}
	eachQueue(t, o, func(l *ledger) {
		for id := range 200 {
			require.NoError(l.t, l.a.Put(l.t.Context(), id, 1))
		}
		require.GreaterOrEqual(l.t, len(l.table()), 200-24)
	})
	t.Run("others apply", func(t *testing.T) {
		share(t, func(t *testing.T, f *fleet) {
			w := &twoWriters{t: t, f: f, a: f.instance("a"), b: f.instance("b")}
			l := &ledger{t: t, w: w, rows: make(map[int]int64)}
			l.queue(w.b, o)
			o.Workers = -1
			q := l.queue(w.a, o)
			for id := range 200 {
				require.NoError(t, q.Put(t.Context(), id, 1))
			}
			require.GreaterOrEqual(t, len(l.table()), 200-24)
		})
	})
}

// Writers wait for room in a full queue when it is closed. The outcome that each gets is true.
func TestCloseAppliesEveryAcceptedChangeOfAFullQueue(t *testing.T) {
	inProcess(t, wbOptions{MaxQueued: 10, Batch: 3, Interval: time.Hour, Wait: time.Minute}, func(l *ledger) {
		for id := range 10 {
			require.NoError(l.t, l.a.Put(l.t.Context(), id, 1))
		}
		release := make(chan struct{})
		l.set(func() { l.during = func([]core.Change[int, int64]) { <-release } })
		var accepted atomic.Int64
		var writers sync.WaitGroup
		for id := 10; id < 30; id++ {
			writers.Go(func() {
				switch err := l.a.Put(l.t.Context(), id, 1); {
				case err == nil:
					accepted.Add(1)
				case !errors.Is(err, core.ErrClosed):
					l.t.Error(err)
				}
			})
		}
		time.Sleep(time.Second) // they wait
		require.Empty(l.t, l.table())
		closed := make(chan error)
		go func() { closed <- l.a.Close(l.t.Context()) }()
		time.Sleep(time.Second)
		l.set(func() { l.during = nil })
		close(release)
		require.NoError(l.t, <-closed)
		writers.Wait()
		require.Len(l.t, l.table(), 10+int(accepted.Load()))
		require.ErrorIs(l.t, l.a.Put(l.t.Context(), 1, 2), core.ErrClosed)
		require.ErrorIs(l.t, l.a.Delete(l.t.Context(), 1), core.ErrClosed)
	})
}

// The error says how much is lost.
func TestCloseReportsChangesThatItCouldNotApplyInTime(t *testing.T) {
	inProcess(t, wbOptions{ApplyTimeout: time.Hour}, func(l *ledger) {
		for id := range 5 {
			require.NoError(l.t, l.a.Put(l.t.Context(), id, 1))
		}
		release := make(chan struct{})
		defer close(release)
		l.set(func() { l.during = func([]core.Change[int, int64]) { <-release } })
		ctx, cancel := context.WithTimeout(l.t.Context(), 10*time.Second)
		defer cancel()
		began := time.Now()
		err := l.a.Close(ctx)
		require.ErrorIs(l.t, err, context.DeadlineExceeded)
		require.ErrorContains(l.t, err, "waiting changes are lost")
		require.ErrorContains(l.t, err, "5 changes")
		require.Equal(l.t, 10*time.Second, time.Since(began))
	})
}

func TestAnAppliedChangeIsNotUndoneByALaggingReplica(t *testing.T) {
	const lag = 2 * time.Second
	class := func(o *core.Options) {
		o.Classes = core.Classes{"c": {TTL: time.Minute, LoadTimeout: 10 * time.Second, ReplicaLag: lag}}
	}
	for _, way := range []string{"one process", "one instance", "two instances"} {
		t.Run(way, func(t *testing.T) {
			oneWayWith(t, way, class, func(w *twoWriters) {
				l := &ledger{t: w.t, w: w, rows: make(map[int]int64)}
				var replicated sync.WaitGroup
				defer replicated.Wait()
				l.during = func(changes []core.Change[int, int64]) {
					replicated.Go(func() {
						time.Sleep(lag - time.Millisecond)
						w.f.data.Store(changes[0].Value)
					})
				}
				q := l.queue(w.a, wbOptions{Interval: 100 * time.Millisecond})
				w.f.data.Store(1)
				require.EqualValues(w.t, 1, w.a.get(7))
				require.EqualValues(w.t, 1, w.b.get(7))
				for v := int64(2); v < 5; v++ {
					require.NoError(w.t, q.Put(w.t.Context(), 7, v))
					for range 500 {
						synctest.Wait()
						require.Equal(w.t, v, w.a.get(7))
						require.Equal(w.t, v, w.b.get(7))
						time.Sleep(10 * time.Millisecond)
					}
					require.Equal(w.t, v, l.table()[7])
				}
				require.NoError(w.t, q.Close(w.t.Context()))
			})
		})
	}
}
