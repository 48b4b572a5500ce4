package core_test

import (
	"context"
	"math"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/test/memtier"
)

// keeper is an instance that is kept warm, and what KeepWarm did.
type keeper struct {
	*instance
	t      *testing.T
	cancel context.CancelFunc
	ended  chan error

	mu     sync.Mutex
	calls  [][]int
	rounds []core.KeepWarmRound
	err    error
	during func() // each load
}

// keep keeps an instance warm until the test ends.
func keep(in *instance, o core.KeepWarmOptions) *keeper {
	k := &keeper{instance: in, t: in.f.t, ended: make(chan error, 1)}
	var ctx context.Context
	ctx, k.cancel = context.WithCancel(k.t.Context())
	o.Progress = func(r core.KeepWarmRound) {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.rounds = append(k.rounds, r)
	}
	go func() { k.ended <- in.KeepWarm(ctx, k.load, o) }()
	synctest.Wait()
	return k
}

func (k *keeper) load(_ context.Context, ids []int) (map[int]int64, error) {
	k.mu.Lock()
	during := k.during
	ids = slices.Sorted(slices.Values(ids))
	k.calls = append(k.calls, ids)
	values := make(map[int]int64)
	for _, id := range ids {
		if id%10 != 0 {
			values[id] = k.f.data.Load()
		}
	}
	err := k.err
	k.mu.Unlock()
	if during != nil {
		during()
	}
	return values, err
}

// loaded returns the ids that KeepWarm has loaded since it was asked last.
func (k *keeper) loaded() []int {
	k.mu.Lock()
	defer k.mu.Unlock()
	ids := slices.Sorted(slices.Values(slices.Concat(k.calls...)))
	k.calls = nil
	return ids
}

func (k *keeper) end() {
	k.t.Helper()
	k.cancel()
	require.ErrorIs(k.t, <-k.ended, context.Canceled)
}

// ask asks for ids so often.
func (k *keeper) ask(n int, ids ...int) {
	for range n {
		for _, id := range ids {
			k.get(id)
		}
	}
}

func fleetOf(t *testing.T, test func(f *fleet)) {
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{t: t, server: memtier.New(memtier.Config{})}
		defer f.server.Close()
		test(f)
	})
}

// shortly has values live for a minute.
func shortly(o *core.Options) {
	o.Classes = core.Classes{"c": {TTL: minute, LoadTimeout: 10 * time.Second, NegativeTTL: 5 * time.Second}}
}

// eachKeptWay is eachWay with values that live for a minute, and a that is kept warm.
func eachKeptWay(t *testing.T, test func(w *twoWriters, k *keeper)) {
	t.Helper()
	for _, way := range []string{"one process", "one instance", "two instances"} {
		t.Run(way, func(t *testing.T) {
			fleetOf(t, func(f *fleet) {
				w := &twoWriters{t: f.t, f: f}
				w.a = f.instance("a", shortly, func(o *core.Options) {
					if way == "one process" {
						o.Remote = nil
					}
				})
				w.b = w.a
				if way == "two instances" {
					w.b = f.instance("b", shortly)
				}
				k := keep(w.a, core.KeepWarmOptions{})
				defer k.end()
				test(w, k)
			})
		})
	}
}

func TestAHotIdIsRefreshedBeforeItExpires(t *testing.T) {
	eachKeptWay(t, func(w *twoWriters, k *keeper) {
		w.f.data.Store(1)
		k.ask(5, 1, 2)
		k.ask(1, 3) // once: not hot
		require.EqualValues(w.t, 3, w.f.loads.Swap(0))
		w.f.data.Store(2)
		time.Sleep(minute)
		synctest.Wait()
		require.Equal(w.t, []int{1, 2}, k.loaded(), "once each, together")
		require.Zero(w.t, w.f.loads.Load())
		require.EqualValues(w.t, 2, k.get(1))
		require.EqualValues(w.t, 2, w.b.get(2))
		require.EqualValues(w.t, 2, k.get(3), "it has expired")
		require.EqualValues(w.t, 1, w.f.loads.Load())
	})
}

func TestAnInvalidatedHotIdIsLoadedInTheNextRound(t *testing.T) {
	eachKeptWay(t, func(w *twoWriters, k *keeper) {
		k.ask(3, 1, 2)
		w.f.data.Store(7)
		require.NoError(w.t, w.b.Invalidate(w.t.Context(), 1))
		time.Sleep(10 * time.Second)
		synctest.Wait()
		require.Equal(w.t, []int{1}, k.loaded())
		w.f.loads.Store(0)
		require.EqualValues(w.t, 7, k.get(1))
		require.Zero(w.t, w.f.loads.Load())
	})
}

func TestKeepWarmDoesNotStoreAValueWrittenDuringItsLoad(t *testing.T) {
	eachKeptWay(t, func(w *twoWriters, k *keeper) {
		w.f.data.Store(1)
		k.ask(3, 1, 2)
		k.mu.Lock()
		k.during = func() {
			if err := w.b.Put(w.t.Context(), 1, 99); err != nil {
				w.t.Error(err)
			}
			if err := w.b.Invalidate(w.t.Context(), 2); err != nil {
				w.t.Error(err)
			}
			w.f.data.Store(3)
		}
		k.mu.Unlock()
		time.Sleep(minute - 2*time.Second)
		synctest.Wait()
		require.NotEmpty(w.t, k.loaded())
		require.EqualValues(w.t, 99, k.get(1))
		require.EqualValues(w.t, 3, k.get(2))
		k.mu.Lock()
		k.during = nil
		k.mu.Unlock()
	})
}

func TestInstancesThatKeepWarmLoadEachEntryOnce(t *testing.T) {
	fleetOf(t, func(f *fleet) {
		ids := []int{1, 2, 3, 4, 5, 6, 7, 8, 9}
		a, b := keep(f.instance("a", shortly), core.KeepWarmOptions{Batch: 2}), keep(f.instance("b", shortly), core.KeepWarmOptions{Batch: 2})
		defer a.end()
		defer b.end()
		for range 12 {
			a.ask(5, ids...)
			b.ask(5, ids...)
			time.Sleep(10 * time.Second)
		}
		synctest.Wait()
		require.EqualValues(t, len(ids), f.loads.Load(), "at the beginning")
		// Each was renewed near the end of the first minute and of the second.
		both := slices.Sorted(slices.Values(slices.Concat(a.loaded(), b.loaded())))
		want := slices.Sorted(slices.Values(slices.Concat(ids, ids)))
		require.Equal(t, want, both)
		require.Zero(t, a.cache.Stats().LoadErrors)
	})
}

func TestAStartingInstanceTakesOverTheHotIds(t *testing.T) {
	fleetOf(t, func(f *fleet) {
		a := keep(f.instance("a"), core.KeepWarmOptions{})
		a.ask(5, 1, 2, 3)
		time.Sleep(2 * minute)
		a.end()
		b := keep(f.instance("b"), core.KeepWarmOptions{})
		defer b.end()
		require.Equal(t, 3, b.rounds[0].Hot)
		require.Equal(t, 3, b.rounds[0].Due)
		require.Empty(t, b.loaded(), "the tier had them")
		before := b.cache.Stats()
		b.ask(1, 1, 2, 3)
		require.EqualValues(t, 3, b.cache.Stats().Hits-before.Hits)
		require.EqualValues(t, before.RemoteHits, b.cache.Stats().RemoteHits)
	})
}

func TestKeepWarmLoadsNothingWhileTheTierIsDown(t *testing.T) {
	fleetOf(t, func(f *fleet) {
		in := f.instance("a")
		k := keep(in, core.KeepWarmOptions{})
		defer k.end()
		k.ask(3, 1)
		f.server.Down(true)
		time.Sleep(2 * minute)
		require.Empty(t, k.loaded())
		f.server.Down(false)
	})
}

func TestKeepWarmDoesNotReloadValuesThatAreNotStored(t *testing.T) {
	bubble(t, core.Class{TTL: hour, MaxEntryBytes: 1}, func(t *testing.T, m *items) {
		ctx, cancel := context.WithCancel(t.Context())
		ended, loads := make(chan error), 0
		go func() {
			ended <- m.KeepWarm(ctx, func(_ context.Context, ids []int) (map[int]item, error) {
				loads++
				return map[int]item{1: {Name: "large"}}, nil
			}, core.KeepWarmOptions{})
		}()
		synctest.Wait()
		for range 20 {
			m.get(t)
			m.get(t)
			time.Sleep(10 * time.Second)
		}
		synctest.Wait()
		require.Positive(t, loads)
		require.LessOrEqual(t, loads, 4)
		cancel()
		require.ErrorIs(t, <-ended, context.Canceled)
	})
}

func TestAFailedLoadOfKeepWarmIsCountedAndKeepsTheEntries(t *testing.T) {
	eachKeptWay(t, func(w *twoWriters, k *keeper) {
		k.ask(3, 1)
		k.mu.Lock()
		k.err = errDown
		k.mu.Unlock()
		time.Sleep(minute - 2*time.Second)
		synctest.Wait()
		w.f.loads.Store(0)
		k.get(1)
		require.Zero(w.t, w.f.loads.Load())
		k.mu.Lock()
		defer k.mu.Unlock()
		last := k.rounds[len(k.rounds)-1]
		require.Equal(w.t, 1, last.Due)
		require.Equal(w.t, 1, last.Failed)
		require.Zero(w.t, last.Filled)
	})
}

func TestAPanicInKeepWarmFailsOnlyItsLoad(t *testing.T) {
	eachKeptWay(t, func(w *twoWriters, k *keeper) {
		k.ask(3, 1)
		k.mu.Lock()
		k.during = func() { panic("oops") }
		k.mu.Unlock()
		time.Sleep(minute - 2*time.Second)
		synctest.Wait()
		require.NotEmpty(w.t, k.loaded())
		k.mu.Lock()
		k.during = nil
		k.mu.Unlock()
		time.Sleep(20 * time.Second)
		synctest.Wait()
		require.Equal(w.t, []int{1}, k.loaded())
	})
}

func TestKeepWarmKeepsToItsRate(t *testing.T) {
	fleetOf(t, func(f *fleet) {
		k := keep(f.instance("a"), core.KeepWarmOptions{Batch: 1, PerSecond: 2})
		defer k.end()
		k.ask(5, 1, 2, 3, 4, 5)
		require.NoError(t, k.cache.Invalidate(t.Context(), core.All()))
		time.Sleep(15 * time.Second)
		synctest.Wait()
		require.Equal(t, []int{1, 2, 3, 4, 5}, k.loaded())
		var took time.Duration
		for _, r := range k.rounds {
			took = max(took, r.Elapsed)
		}
		require.Equal(t, 2*time.Second, took, "the last of five begins after four")
	})
}

func TestKeepWarmReportsASecondCallAndItsEnd(t *testing.T) {
	fleetOf(t, func(f *fleet) {
		k := keep(f.instance("a"), core.KeepWarmOptions{})
		var ce *core.ConfigError
		require.ErrorAs(t, k.KeepWarm(t.Context(), k.load, core.KeepWarmOptions{}), &ce)
		k.end()
		again := keep(k.instance, core.KeepWarmOptions{})
		require.NoError(t, again.cache.Close())
		require.ErrorIs(t, <-again.ended, core.ErrClosed)

		for _, o := range []core.KeepWarmOptions{
			{Top: -1},
			{Top: 100_001},
			{Every: time.Millisecond},
			{Every: 2 * hour},
			{Every: -1},
			{Batch: 1001},
			{Batch: -1},
			{Parallel: 65},
			{PerSecond: -1},
			{PerSecond: math.NaN()},
		} {
			require.ErrorAs(t, k.KeepWarm(t.Context(), k.load, o), &ce)
			require.Contains(t, ce.Field, "KeepWarmOptions.")
		}
		require.ErrorAs(t, k.KeepWarm(t.Context(), nil, core.KeepWarmOptions{}), &ce)
	})
}

func TestKeepWarmLoadsNothingWhileTheCacheIsOff(t *testing.T) {
	eachKeptWay(t, func(w *twoWriters, k *keeper) {
		k.ask(3, 1)
		w.a.cache.SetEnabled(false)
		time.Sleep(minute)
		require.Empty(w.t, k.loaded())
	})
}

func TestWarmedIdsAreNotHot(t *testing.T) {
	eachKeptWay(t, func(w *twoWriters, k *keeper) {
		for range 3 {
			_, err := w.a.Warm(w.t.Context(), first(5), k.load, core.WarmOptions{})
			require.NoError(w.t, err)
		}
		_, err := w.a.GetMany(w.t.Context(), []int{1}, k.load)
		require.NoError(w.t, err)
		_, err = w.a.GetMany(w.t.Context(), []int{1}, k.load)
		require.NoError(w.t, err)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		require.Equal(w.t, 1, k.rounds[len(k.rounds)-1].Hot)
	})
}

func TestHotIdsAreCopiesOfTheCallersBuffer(t *testing.T) {
	bubble(t, core.Class{TTL: hour}, func(t *testing.T, m *items) {
		names, err := core.NewMap(m.cache, core.MapOptions[string, int]{Class: "item", Prefix: "name"})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		var got []string
		ended := make(chan error)
		go func() {
			ended <- names.KeepWarm(ctx, func(_ context.Context, ids []string) (map[string]int, error) {
				got = append(got, ids...)
				return nil, nil
			}, core.KeepWarmOptions{})
		}()
		synctest.Wait()
		buffer := []byte("first")
		for range 3 {
			_, err := names.Get(t.Context(), unsafe.String(&buffer[0], len(buffer)), func(context.Context, string) (int, error) { return 1, nil })
			require.NoError(t, err)
		}
		copy(buffer, "other")
		require.NoError(t, m.cache.Invalidate(t.Context(), core.All()))
		time.Sleep(10 * time.Second)
		cancel()
		require.ErrorIs(t, <-ended, context.Canceled)
		require.Equal(t, []string{"first"}, got)
	})
}

// BenchmarkHitWhileKeptWarm is a hit of a map that is kept warm, against one that is
// not, in turns.
func BenchmarkHitWhileKeptWarm(b *testing.B) {
	cache := open(b, core.Options{Classes: core.Classes{"item": {TTL: hour}}})
	load := func(context.Context, int) (int, error) { return 1, nil }
	hit := func(m *core.Map[int, int], n int) time.Duration {
		start := time.Now()
		for i := range n {
			if _, err := m.Get(b.Context(), i%1000, load); err != nil {
				b.Fatal(err)
			}
		}
		return time.Since(start)
	}
	cold, err := core.NewMap(cache, core.MapOptions[int, int]{Class: "item", Prefix: "cold"})
	require.NoError(b, err)
	warm, err := core.NewMap(cache, core.MapOptions[int, int]{Class: "item", Prefix: "warm"})
	require.NoError(b, err)
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error)
	go func() {
		ended <- warm.KeepWarm(ctx, func(context.Context, []int) (map[int]int, error) { return nil, nil }, core.KeepWarmOptions{})
	}()
	defer func() { cancel(); <-ended }()
	const turn = 10_000
	hit(cold, 20*turn)
	hit(warm, 20*turn) // so that few of many are counted
	var ratio []float64
	var with, without time.Duration
	b.ResetTimer()
	for range b.N {
		c, w := hit(cold, turn), hit(warm, turn)
		with, without = with+w, without+c
		ratio = append(ratio, float64(w)/float64(c))
	}
	slices.Sort(ratio)
	b.ReportMetric(float64(without.Nanoseconds())/float64(b.N*turn), "ns/hit")
	b.ReportMetric(float64(with.Nanoseconds())/float64(b.N*turn), "ns/hit-kept-warm")
	b.ReportMetric(ratio[len(ratio)/2], "ratio")
}
