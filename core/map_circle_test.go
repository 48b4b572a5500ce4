package core_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/test/memtier"
)

// Loads that ask for other values: which of them wait for each other.

// family is rows that have parents, and loaders that get these through the cache.
type family struct {
	t     *testing.T
	maps  []*core.Map[int, string] // by id, in turn
	mu    sync.Mutex
	loads map[int]int
	takes time.Duration // a query, before the parents are asked for
	of    map[int][]int // parents
}

func newFamily(t *testing.T, of map[int][]int, caches ...*core.Cache) *family {
	t.Helper()
	f := &family{t: t, loads: make(map[int]int), takes: 10 * time.Millisecond, of: of}
	for _, c := range caches {
		m, err := core.NewMap(c, core.MapOptions[int, string]{Class: "c", Prefix: "row"})
		require.NoError(t, err)
		f.maps = append(f.maps, m)
	}
	return f
}

func (f *family) at(id int) *core.Map[int, string] { return f.maps[id%len(f.maps)] }

func (f *family) load(ctx context.Context, id int) (string, error) {
	f.mu.Lock()
	f.loads[id]++
	f.mu.Unlock()
	time.Sleep(f.takes)
	s := fmt.Sprint(id)
	for _, parent := range f.of[id] {
		if _, err := f.at(parent).Get(ctx, parent, f.leaf); err != nil {
			return "", err
		}
		s += fmt.Sprint(" of ", parent)
	}
	return s, nil
}

// leaf loads what a loader asks for, which needs no parents.
func (f *family) leaf(_ context.Context, id int) (string, error) {
	f.mu.Lock()
	f.loads[id]++
	f.mu.Unlock()
	time.Sleep(f.takes)
	return fmt.Sprint(id), nil
}

func (f *family) loadMany(ctx context.Context, ids []int) (map[int]string, error) {
	values := make(map[int]string)
	for _, id := range ids {
		v, err := f.load(ctx, id)
		if err != nil {
			return nil, err
		}
		values[id] = v
	}
	return values, nil
}

// at the same time.
func together(calls ...func()) time.Duration {
	began := time.Now()
	var all sync.WaitGroup
	for _, call := range calls {
		all.Go(call)
	}
	all.Wait()
	return time.Since(began)
}

func (f *family) gets(id int) func() {
	return func() {
		_, err := f.at(id).Get(f.t.Context(), id, f.load)
		require.NoError(f.t, err)
	}
}

func (f *family) getsMany(ids ...int) func() {
	return func() {
		values, err := f.maps[0].GetMany(f.t.Context(), ids, f.loadMany)
		require.NoError(f.t, err)
		require.Len(f.t, values, len(ids))
	}
}

func oneCache(t *testing.T) *core.Cache {
	t.Helper()
	return open(t, core.Options{Classes: core.Classes{"c": {TTL: hour}}})
}

func TestLoadsThatWaitForEachOtherAllEnd(t *testing.T) {
	pair := map[int][]int{1: {2}, 2: {1}}
	ring := map[int][]int{1: {2}, 2: {3}, 3: {1}}
	chain := map[int][]int{1: {2}, 2: {3}, 3: {4}, 4: {5}, 5: {6}}
	for name, run := range map[string]func(t *testing.T) (took time.Duration){
		"two loaders": func(t *testing.T) time.Duration {
			f := newFamily(t, pair, oneCache(t))
			return together(f.gets(1), f.gets(2))
		},
		"three loaders": func(t *testing.T) time.Duration {
			f := newFamily(t, ring, oneCache(t))
			return together(f.gets(1), f.gets(2), f.gets(3))
		},
		"two caches": func(t *testing.T) time.Duration {
			f := newFamily(t, pair, oneCache(t), oneCache(t))
			return together(f.gets(1), f.gets(2))
		},
		"batches of a chain": func(t *testing.T) time.Duration {
			f := newFamily(t, chain, oneCache(t))
			return together(f.getsMany(1, 3), f.getsMany(2))
		},
		"three batches of a chain": func(t *testing.T) time.Duration {
			f := newFamily(t, chain, oneCache(t))
			return together(f.getsMany(1, 4), f.getsMany(2, 5), f.getsMany(3))
		},
		"a batch and a loader": func(t *testing.T) time.Duration {
			f := newFamily(t, chain, oneCache(t))
			return together(f.getsMany(1, 3), f.gets(2))
		},
		"a loader that begins another load": func(t *testing.T) time.Duration {
			f := newFamily(t, nil, oneCache(t))
			m := f.maps[0]
			get := func(id, child, other int) func() {
				return func() {
					_, err := m.Get(t.Context(), id, func(ctx context.Context, _ int) (string, error) {
						return m.Get(ctx, child, func(ctx context.Context, _ int) (string, error) {
							time.Sleep(f.takes)
							return m.Get(ctx, other, f.leaf)
						})
					})
					require.NoError(t, err)
				}
			}
			return together(get(1, 11, 2), get(2, 12, 1))
		},
		"a loader that asks with several goroutines": func(t *testing.T) time.Duration {
			f := newFamily(t, nil, oneCache(t))
			m := f.maps[0]
			get := func(id int, others ...int) func() {
				return func() {
					_, err := m.Get(t.Context(), id, func(ctx context.Context, _ int) (string, error) {
						time.Sleep(f.takes)
						var all sync.WaitGroup
						for _, other := range others {
							all.Go(func() {
								_, err := m.Get(ctx, other, f.leaf)
								require.NoError(t, err)
							})
						}
						all.Wait()
						return "v", nil
					})
					require.NoError(t, err)
				}
			}
			return together(get(1, 9, 2), get(2, 9, 1), get(3, 1, 2))
		},
		"a loader that writes": func(t *testing.T) time.Duration {
			f := newFamily(t, nil, oneCache(t))
			m := f.maps[0]
			get := func(id, other int) func() {
				return func() {
					_, err := m.Get(t.Context(), id, func(ctx context.Context, _ int) (string, error) {
						time.Sleep(f.takes)
						return "v", m.Write(ctx, 100+id, "v", func(ctx context.Context, _ int, _ string) error {
							_, err := m.Get(ctx, other, f.leaf)
							return err
						})
					})
					require.NoError(t, err)
				}
			}
			return together(get(1, 2), get(2, 1))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				require.Less(t, run(t), time.Second, "somebody waited for a timeout")
			})
		})
	}
}

func TestNestedLoadsAreShared(t *testing.T) {
	for name, test := range map[string]struct {
		of   map[int][]int
		gets []int
	}{
		"one parent":  {map[int][]int{1: {9}, 2: {9}, 3: {9}, 4: {9}}, []int{1, 2, 3, 4, 9}},
		"two parents": {map[int][]int{1: {8, 9}, 2: {9, 8}, 3: {8}, 4: {9}}, []int{1, 2, 3, 4}},
		"a chain":     {map[int][]int{1: {2}, 2: {3}, 3: {4}, 4: {5}}, []int{1, 2, 3, 4, 5}},
		"a diamond":   {map[int][]int{1: {2, 3}, 2: {4}, 3: {4}}, []int{1, 2, 3, 1, 2, 3, 4}},
	} {
		for _, caches := range []int{1, 2} {
			t.Run(fmt.Sprint(name, ", caches: ", caches), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var list []*core.Cache
					for range caches {
						list = append(list, oneCache(t))
					}
					f := newFamily(t, test.of, list...)
					var calls []func()
					for range 3 {
						for _, id := range test.gets {
							calls = append(calls, f.gets(id))
						}
					}
					together(calls...)
					for id, n := range f.loads {
						require.Equal(t, 1, n, "loads of %d", id)
					}
				})
			})
		}
	}
}

func TestALoadThatHasGivenUpWaitsForNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFamily(t, nil, oneCache(t))
		m := f.maps[0]
		gate := make(chan struct{})
		asked := make(chan struct{})
		first := make(chan error)
		go func() {
			_, err := m.Get(t.Context(), 1, func(ctx context.Context, _ int) (string, error) {
				ctx, cancel := context.WithTimeout(ctx, time.Millisecond)
				defer cancel()
				_, err := m.Get(ctx, 2, f.leaf)
				require.ErrorIs(t, err, context.DeadlineExceeded)
				close(asked)
				<-gate
				return "v", nil
			})
			first <- err
		}()
		f.takes = time.Hour
		_, err := m.Get(t.Context(), 2, func(ctx context.Context, _ int) (string, error) {
			<-asked
			go func() { time.Sleep(time.Second); close(gate) }()
			return m.Get(ctx, 1, func(context.Context, int) (string, error) { panic("a load beside one that is under way") })
		})
		require.NoError(t, err)
		require.NoError(t, <-first)
	})
}

func TestALoaderThatAsksForItsOwnValueLoadsBesideItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := openItems(t, core.Class{TTL: hour})
		inner := func(ctx context.Context, id int) (item, error) {
			require.NoError(t, core.NoStore(ctx), "what the inner loader says is said of the inner value")
			_, _, ok := core.StaleValue[item](ctx)
			require.False(t, ok)
			return m.load(ctx, id)
		}
		_, err := m.Get(t.Context(), 1, func(ctx context.Context, id int) (item, error) { return m.Get(ctx, id, inner) })
		require.NoError(t, err)
		m.get(t)
		_, err = m.Get(t.Context(), 2, func(ctx context.Context, id int) (item, error) {
			_, err := m.Get(ctx, id, func(context.Context, int) (item, error) { panic("boom") })
			var panicked *core.PanicError
			require.ErrorAs(t, err, &panicked)
			return item{}, nil
		})
		require.NoError(t, err)
		m.mustLoad(t, 1, "")
	})
}

func TestEndlessRecursionOfALoaderIsAnError(t *testing.T) {
	m := openItems(t, core.Class{TTL: hour})
	var load core.Loader[int, item]
	load = func(ctx context.Context, id int) (item, error) { return m.Get(ctx, 3-id, load) }
	_, err := m.Get(t.Context(), 1, load)
	require.ErrorContains(t, err, "larder: the loader of item asks for item:")
	_, err = m.GetMany(t.Context(), []int{1}, func(ctx context.Context, ids []int) (map[int]item, error) {
		v, err := m.Get(ctx, ids[0], load)
		return map[int]item{ids[0]: v}, err
	})
	require.ErrorContains(t, err, "larder: the loader of item asks for item:")
}

func TestTheSameKeyInTwoCachesIsTwoValues(t *testing.T) {
	a, b := openItems(t, core.Class{TTL: hour}), openItems(t, core.Class{TTL: hour})
	for range 2 {
		_, err := a.Get(t.Context(), 1, func(ctx context.Context, id int) (item, error) { return b.Get(ctx, id, b.load) })
		require.NoError(t, err)
		require.NoError(t, a.Invalidate(t.Context(), 1))
	}
	b.mustLoad(t, 1, "it is cached although the other cache loads what is called so")
}

// Over several instances.

func instances(t *testing.T, n int) (list []*core.Cache) {
	t.Helper()
	server := memtier.New(memtier.Config{})
	for i := range n {
		list = append(list, open(t, core.Options{
			Remote: server.Tier(fmt.Sprint("i", i)), Classes: core.Classes{"c": {TTL: hour}},
		}))
	}
	t.Cleanup(func() { server.Close() })
	synctest.Wait()
	return list
}

func TestLoadsOfTwoInstancesThatWaitForEachOtherEndSoon(t *testing.T) {
	for name, run := range map[string]func(a, b *family) time.Duration{
		"two loaders": func(a, b *family) time.Duration { return together(a.gets(1), b.gets(2)) },
		"with others who wait": func(a, b *family) time.Duration {
			return together(a.gets(1), b.gets(2), a.gets(1), b.gets(2), a.gets(2), b.gets(1))
		},
		"batches": func(a, b *family) time.Duration { return together(a.getsMany(1), b.getsMany(2)) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				list := instances(t, 2)
				of := map[int][]int{1: {2}, 2: {1}}
				a, b := newFamily(t, of, list[0]), newFamily(t, of, list[1])
				a.takes, b.takes = 100*time.Millisecond, 100*time.Millisecond
				require.Less(t, run(a, b), 5*time.Second, "LoadTimeout is 30s")
			})
		})
	}
}

func TestLoadsLeaveAFlightThatAnotherInstanceHoldsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list := instances(t, 2)
		a, b := newFamily(t, nil, list[0]), newFamily(t, nil, list[1])
		gate := make(chan struct{})
		atB := func() { // has the lease of 2, and waits for 1
			_, err := b.maps[0].Get(t.Context(), 2, func(ctx context.Context, _ int) (string, error) {
				close(gate)
				time.Sleep(time.Second)
				return b.maps[0].Get(ctx, 1, b.leaf)
			})
			require.NoError(t, err)
		}
		noLoad := func() { // is no load, and waits for the lease of 2
			<-gate
			_, err := a.maps[0].Get(t.Context(), 2, a.leaf)
			require.NoError(t, err)
		}
		atA := func() { // has the lease of 1, and joins who waits for that of 2
			_, err := a.maps[0].Get(t.Context(), 1, func(ctx context.Context, _ int) (string, error) {
				<-gate
				time.Sleep(100 * time.Millisecond)
				return a.maps[0].Get(ctx, 2, a.leaf)
			})
			require.NoError(t, err)
		}
		require.Less(t, together(atA, atB, noLoad), 10*time.Second)
	})
}

func TestALoadWithinALoadWaitsForAnotherInstance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list := instances(t, 2)
		of := map[int][]int{1: {9}, 2: {9}, 3: {9}}
		a, b := newFamily(t, of, list[0]), newFamily(t, of, list[1])
		a.takes, b.takes = time.Second, time.Second
		together(a.gets(1), b.gets(2), a.gets(3), b.gets(3))
		require.Equal(t, 1, a.loads[9]+b.loads[9])
		require.Equal(t, 1, a.loads[3]+b.loads[3])
	})
}

// No order of steps leaves a caller waiting.
func TestManyLoadsThatAskForEachOtherAllEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rows = 12
		of := make(map[int][]int)
		for id := range rows {
			of[id] = []int{(id*5 + 3) % rows, (id*7 + 1) % rows}
		}
		f := newFamily(t, of, oneCache(t), oneCache(t))
		var depth atomic.Int64
		var load core.Loader[int, string]
		load = func(ctx context.Context, id int) (string, error) {
			n, _ := ctx.Value(ctxDepth{}).(int)
			depth.Add(1)
			time.Sleep(time.Duration(id+1) * time.Millisecond)
			if n < 3 {
				for _, parent := range of[id] {
					if _, err := f.at(parent).Get(context.WithValue(ctx, ctxDepth{}, n+1), parent, load); err != nil {
						return "", err
					}
				}
			}
			return "v", nil
		}
		for range 20 {
			var calls []func()
			for id := range rows {
				calls = append(calls, func() {
					_, err := f.at(id).Get(t.Context(), id, load)
					require.NoError(t, err)
				})
			}
			require.Less(t, together(calls...), 10*time.Second)
			for _, m := range f.maps {
				_, err := m.InvalidateAll(t.Context())
				require.NoError(t, err)
			}
		}
	})
}

type ctxDepth struct{}
