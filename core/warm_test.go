package core_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
)

// first yields 1 to n.
func first(n int) func(yield func(int) bool) {
	return func(yield func(int) bool) {
		for i := 1; i <= n; i++ {
			if !yield(i) {
				return
			}
		}
	}
}

func TestWarmedIdsAreHits(t *testing.T) {
	eachManyWay(t, func(w *twoWriters, d *many) {
		require.Equal(w.t, []int{7}, d.get(w.a, 7))
		var mu sync.Mutex
		load := func(ctx context.Context, ids []int) (map[int]int64, error) {
			mu.Lock()
			defer mu.Unlock()
			return d.load(ctx, ids)
		}
		var seen []core.WarmResult
		result, err := w.a.Warm(w.t.Context(), first(95), load, core.WarmOptions{Batch: 10, Progress: func(r core.WarmResult) { seen = append(seen, r) }})
		require.NoError(w.t, err)
		require.Equal(w.t, 95, result.Items)
		require.Equal(w.t, 95-9-1, result.Filled, "without multiples of ten, and what was there")
		require.Zero(w.t, result.Failed)
		require.Len(w.t, seen, 10)
		require.Equal(w.t, result.Items, seen[9].Items)
		require.True(w.t, slices.IsSortedFunc(seen, func(a, b core.WarmResult) int { return a.Items - b.Items }))
		require.Empty(w.t, d.get(w.b, slices.Collect(first(95))...))
	})
}

func TestWarmDoesNotStoreAValueWrittenDuringItsLoad(t *testing.T) {
	eachManyWay(t, func(w *twoWriters, d *many) {
		_, err := w.a.Warm(w.t.Context(), first(5), func(ctx context.Context, ids []int) (map[int]int64, error) {
			values, err := d.load(ctx, ids)
			require.NoError(w.t, w.b.Put(w.t.Context(), 3, 333))
			require.NoError(w.t, w.b.Invalidate(w.t.Context(), 4))
			synctest.Wait()
			return values, err
		}, core.WarmOptions{})
		require.NoError(w.t, err)
		require.EqualValues(w.t, 333, w.a.mustHave(3))
		require.EqualValues(w.t, 333, w.b.mustHave(3))
		require.Equal(w.t, []int{4}, d.get(w.a, 1, 2, 4, 5))
	})
}

func TestWarmContinuesWithSkip(t *testing.T) {
	eachManyWay(t, func(w *twoWriters, d *many) {
		ctx, cancel := context.WithCancel(w.t.Context())
		result, err := w.a.Warm(ctx, first(100), d.load, core.WarmOptions{Batch: 9, Parallel: 1, Progress: func(r core.WarmResult) {
			if r.Items >= 45 {
				cancel()
			}
		}})
		require.ErrorIs(w.t, err, context.Canceled)
		require.Equal(w.t, 45, result.Items)
		d.calls = nil
		result, err = w.a.Warm(w.t.Context(), first(100), d.load, core.WarmOptions{Skip: result.Items})
		require.NoError(w.t, err)
		require.Equal(w.t, 100, result.Items)
		require.Equal(w.t, 46, d.calls[0][0])
	})
}

func TestWarmKeepsToItsRate(t *testing.T) {
	eachManyWay(t, func(w *twoWriters, d *many) {
		start := time.Now()
		_, err := w.a.Warm(w.t.Context(), first(100), d.load, core.WarmOptions{Batch: 10, Parallel: 1, PerSecond: 20})
		require.NoError(w.t, err)
		require.Equal(w.t, 4500*time.Millisecond, time.Since(start), "the last of ten batches begins after nine")
	})
}

func TestWarmCountsFailedLoads(t *testing.T) {
	eachManyWay(t, func(w *twoWriters, d *many) {
		d.err = core.BatchError[int]{2: errDown}
		result, err := w.a.Warm(w.t.Context(), first(5), d.load, core.WarmOptions{})
		require.NoError(w.t, err)
		require.Equal(w.t, 5, result.Items)
		require.Equal(w.t, 1, result.Failed)
		for _, o := range []core.WarmOptions{{Batch: -1}, {Batch: 1001}, {Parallel: -1}, {PerSecond: -1}, {Skip: -1}} {
			_, err := w.a.Warm(w.t.Context(), first(5), d.load, o)
			var ce *core.ConfigError
			require.ErrorAs(w.t, err, &ce)
		}
	})
}

func TestAPanicOfWarmReachesItsCaller(t *testing.T) {
	eachManyWay(t, func(w *twoWriters, d *many) {
		require.PanicsWithValue(w.t, "oops", func() {
			_, _ = w.a.Warm(w.t.Context(), first(50), d.load, core.WarmOptions{Progress: func(core.WarmResult) { panic("oops") }})
		})
		w.a.cache.SetEnabled(false)
		_, err := w.a.Warm(w.t.Context(), first(50), d.load, core.WarmOptions{})
		require.ErrorIs(w.t, err, core.ErrClosed)
	})
}

func TestWarmSkipsABadId(t *testing.T) {
	bubble(t, core.Class{TTL: hour}, func(t *testing.T, m *items) {
		names, err := core.NewMap(m.cache, core.MapOptions[string, int]{Class: "item", Prefix: "name"})
		require.NoError(t, err)
		result, err := names.Warm(t.Context(), slices.Values([]string{"a", "", "b"}), func(_ context.Context, ids []string) (map[string]int, error) {
			return map[string]int{"a": 1, "b": 2}, nil
		}, core.WarmOptions{})
		require.NoError(t, err)
		require.Equal(t, 2, result.Filled)
		require.Equal(t, 1, result.Failed)
	})
}

func TestAReaderJoinsTheLoadOfWarm(t *testing.T) {
	eachManyWay(t, func(w *twoWriters, d *many) {
		joined := make(chan int64, 1)
		result, err := w.a.Warm(w.t.Context(), first(5), func(ctx context.Context, ids []int) (map[int]int64, error) {
			go func() { joined <- w.a.mustHave(3) }()
			synctest.Wait()
			values, err := d.load(ctx, ids)
			require.NoError(w.t, core.NoStore(ctx))
			return values, err
		}, core.WarmOptions{})
		require.NoError(w.t, err)
		require.EqualValues(w.t, 3, <-joined)
		require.Zero(w.t, result.Filled, "the loader forbids it")

		result, err = w.a.Warm(w.t.Context(), first(5), func(ctx context.Context, ids []int) (map[int]int64, error) {
			values, err := d.load(ctx, ids)
			return values, errors.Join(err, core.AddTags(ctx, "batch"))
		}, core.WarmOptions{})
		require.NoError(w.t, err)
		require.Equal(w.t, 5, result.Filled)
		require.Empty(w.t, d.get(w.b, 1, 2, 3, 4, 5))
		require.NoError(w.t, w.b.cache.Invalidate(w.t.Context(), core.Tag("batch")))
		require.Equal(w.t, []int{1, 2, 3, 4, 5}, d.get(w.b, 1, 2, 3, 4, 5))
	})
}
