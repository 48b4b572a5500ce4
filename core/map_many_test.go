package core_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
)

// many loads ids from a database in which every id but the multiples of 10 has
// itself times a factor as its value.
type many struct {
	t      *testing.T
	calls  [][]int
	err    error
	factor atomic.Int64
}

func (d *many) load(_ context.Context, ids []int) (map[int]int64, error) {
	ids = slices.Clone(ids)
	slices.Sort(ids)
	d.calls = append(d.calls, ids)
	values := make(map[int]int64)
	for _, id := range ids {
		if id%10 != 0 {
			values[id] = int64(id) * d.factor.Load()
		}
	}
	return values, d.err
}

// get demands the values of ids, and returns which were loaded.
func (d *many) get(in *instance, ids ...int) (loaded []int) {
	d.t.Helper()
	d.calls = nil
	values, err := in.GetMany(d.t.Context(), ids, d.load)
	require.NoError(d.t, err)
	for _, id := range ids {
		v, ok := values[id]
		require.Equal(d.t, id%10 != 0, ok, "%d is there", id)
		require.Equal(d.t, int64(id)*d.factor.Load()*map[bool]int64{true: 1}[ok], v)
	}
	require.LessOrEqual(d.t, len(d.calls), 1, "one call")
	return slices.Concat(d.calls...)
}

func eachManyWay(t *testing.T, test func(w *twoWriters, d *many)) {
	t.Helper()
	eachWay(t, func(w *twoWriters) {
		d := &many{t: w.t}
		d.factor.Store(1)
		test(w, d)
	})
}

func TestGetManyLoadsMissingIdsWithOneCall(t *testing.T) {
	eachManyWay(t, func(w *twoWriters, d *many) {
		require.Equal(w.t, []int{1, 2, 10}, d.get(w.a, 1, 2, 10, 2))
		require.Equal(w.t, []int{3, 20}, d.get(w.b, 1, 2, 3, 10, 20), "what is not there is remembered")
		require.Empty(w.t, d.get(w.a, 1, 2, 3, 10, 20))
		d.factor.Store(2)
		require.NoError(w.t, w.b.InvalidateMany(w.t.Context(), []int{1, 10}))
		synctest.Wait()
		d.calls = nil
		values, err := w.a.GetMany(w.t.Context(), []int{1, 2, 10}, d.load)
		require.NoError(w.t, err)
		require.Equal(w.t, map[int]int64{1: 2, 2: 2}, values)
		require.Equal(w.t, [][]int{{1, 10}}, d.calls)
		require.Empty(w.t, d.get(w.a))
	})
}

func TestGetManyAnswersOtherIdsWhenSomeFail(t *testing.T) {
	eachManyWay(t, func(w *twoWriters, d *many) {
		d.err = core.BatchError[int]{2: errDown}
		values, err := w.a.GetMany(w.t.Context(), []int{1, 2, 3}, d.load)
		require.Equal(w.t, map[int]int64{1: 1, 3: 3}, values)
		var each core.BatchError[int]
		require.ErrorAs(w.t, err, &each)
		require.Equal(w.t, core.BatchError[int]{2: errDown}, each)
		require.ErrorIs(w.t, err, errDown)
		d.err = nil
		require.Equal(w.t, []int{2}, d.get(w.a, 1, 2, 3))

		d.err = errDown
		values, err = w.a.GetMany(w.t.Context(), []int{1, 4, 5}, d.load)
		require.Equal(w.t, map[int]int64{1: 1}, values)
		require.ErrorAs(w.t, err, &each)
		require.Equal(w.t, core.BatchError[int]{4: errDown, 5: errDown}, each)
	})
}

func TestGetManyWaitsForLoadsOfOthers(t *testing.T) {
	eachManyWay(t, func(w *twoWriters, d *many) {
		loading, release, other := make(chan struct{}), make(chan struct{}), make(chan struct{})
		go func() {
			defer close(other)
			v, err := w.b.Get(w.t.Context(), 2, func(context.Context, int) (int64, error) {
				close(loading)
				<-release
				return 200, nil
			})
			if err != nil || v != 200 {
				w.t.Error(v, err)
			}
		}()
		<-loading
		time.AfterFunc(time.Second, func() { close(release) })
		values, err := w.a.GetMany(w.t.Context(), []int{1, 2, 3}, d.load)
		require.NoError(w.t, err)
		require.Equal(w.t, map[int]int64{1: 1, 2: 200, 3: 3}, values)
		require.Equal(w.t, [][]int{{1, 3}}, d.calls)
		<-other // its context ends with the test
	})
}

// Two batches that each have begun what the other one wants wait for each other's
// loads, and not for each other.
func TestOverlappingBatchesBothEnd(t *testing.T) {
	eachManyWay(t, func(w *twoWriters, _ *many) {
		get := func(in *instance, ids []int) func() {
			done := make(chan struct{})
			go func() {
				defer close(done)
				values, err := in.GetMany(w.t.Context(), ids, func(_ context.Context, ids []int) (map[int]int64, error) {
					time.Sleep(100 * time.Millisecond)
					values := make(map[int]int64)
					for _, id := range ids {
						values[id] = int64(id)
					}
					return values, nil
				})
				if err != nil || len(values) != len(ids) {
					w.t.Error(values, err)
				}
			}()
			return func() { <-done }
		}
		for i := range 20 {
			var ids, back []int
			for j := range 30 {
				ids = append(ids, i*100+j)
			}
			for j := range 30 {
				back = append(back, i*100+44-j)
			}
			one, two := get(w.a, ids), get(w.b, back)
			one()
			two()
		}
	})
}

func TestABatchWhoseLoaderPanicsOrIsCancelledHoldsUpNoOther(t *testing.T) {
	eachManyWay(t, func(w *twoWriters, d *many) {
		_, err := w.a.GetMany(w.t.Context(), []int{1, 2}, func(context.Context, []int) (map[int]int64, error) { panic("oops") })
		var p *core.PanicError
		require.ErrorAs(w.t, err, &p)
		require.Equal(w.t, "oops", p.Value)
		start := time.Now()
		synctest.Wait() // the leases have been given back
		require.Equal(w.t, []int{1, 2}, d.get(w.b, 1, 2))
		require.Zero(w.t, time.Since(start))

		ctx, cancel := context.WithCancel(w.t.Context())
		values, err := w.a.GetMany(ctx, []int{3}, func(context.Context, []int) (map[int]int64, error) {
			cancel()
			time.Sleep(time.Second)
			return map[int]int64{3: 3}, nil
		})
		require.ErrorIs(w.t, err, context.Canceled)
		defer func() { require.Empty(w.t, values, "what comes later is not put into it") }()
		require.Empty(w.t, d.get(w.b, 3), "the load goes on for the others")
	})
}

func TestTagsOfABatchLoaderAreOnAllItsValues(t *testing.T) {
	eachManyWay(t, func(w *twoWriters, d *many) {
		_, err := w.a.GetMany(w.t.Context(), []int{1, 2}, func(ctx context.Context, ids []int) (map[int]int64, error) {
			return map[int]int64{1: 1, 2: 2}, core.AddTags(ctx, "list")
		})
		require.NoError(w.t, err)
		require.Empty(w.t, d.get(w.b, 1, 2))
		require.NoError(w.t, w.b.cache.Invalidate(w.t.Context(), core.Tag("list")))
		synctest.Wait()
		require.Equal(w.t, []int{1, 2}, d.get(w.a, 1, 2))
	})
}

func TestPutManyChecksAllValuesFirst(t *testing.T) {
	eachManyWay(t, func(w *twoWriters, d *many) {
		values := make(map[int]int64)
		for id := range 200 {
			if id%10 != 0 {
				values[id] = int64(id)
			}
		}
		require.NoError(w.t, w.a.PutMany(w.t.Context(), values))
		synctest.Wait()
		for id, v := range values {
			require.Equal(w.t, v, w.b.mustHave(id))
		}
		require.Empty(w.t, d.calls)
		var ce *core.ConfigError
		require.ErrorAs(w.t, w.a.PutMany(w.t.Context(), values, ""), &ce)
	})
}

func TestABatchLoaderThatGetsItsOwnIdsDoesNotWaitForItself(t *testing.T) {
	eachManyWay(t, func(w *twoWriters, d *many) {
		start := time.Now()
		values, err := w.a.GetMany(w.t.Context(), []int{1, 2}, func(ctx context.Context, ids []int) (map[int]int64, error) {
			one, err := w.a.Get(ctx, 1, func(context.Context, int) (int64, error) { return 11, nil })
			if err != nil {
				return nil, err
			}
			both, err := w.a.GetMany(ctx, []int{1, 2}, d.load)
			return map[int]int64{1: one, 2: both[2]}, err
		})
		require.NoError(w.t, err)
		require.Equal(w.t, map[int]int64{1: 11, 2: 2}, values)
		require.Zero(w.t, time.Since(start))
	})
}

func TestGoexitOfABatchLoaderFailsItsIds(t *testing.T) {
	eachManyWay(t, func(w *twoWriters, d *many) {
		_, err := w.a.GetMany(w.t.Context(), []int{1, 2}, func(context.Context, []int) (map[int]int64, error) {
			runtime.Goexit()
			return nil, nil
		})
		var each core.BatchError[int]
		require.ErrorAs(w.t, err, &each)
		require.Len(w.t, each, 2)
		synctest.Wait()
		require.Equal(w.t, []int{1, 2}, d.get(w.a, 1, 2))
	})
}

// mustHave answers an id without a load.
func (in *instance) mustHave(id int) int64 {
	in.f.t.Helper()
	v, err := in.Get(in.f.t.Context(), id, func(context.Context, int) (int64, error) {
		return 0, errors.New("it had to be loaded")
	})
	require.NoError(in.f.t, err)
	return v
}

func TestGetManyOfACacheThatIsOffLoads(t *testing.T) {
	eachManyWay(t, func(w *twoWriters, d *many) {
		w.a.cache.SetEnabled(false)
		for range 2 {
			require.Equal(w.t, []int{1, 2, 10}, d.get(w.a, 1, 2, 10))
		}
		d.err = core.BatchError[int]{1: errDown}
		values, err := w.a.GetMany(w.t.Context(), []int{1, 2}, d.load)
		require.Equal(w.t, map[int]int64{2: 2}, values)
		require.ErrorIs(w.t, err, errDown)
		_, err = w.a.GetMany(w.t.Context(), []int{1}, nil)
		var ce *core.ConfigError
		require.ErrorAs(w.t, err, &ce)
		_ = fmt.Sprint(err)
	})
}
