package core_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/test/memtier"
	"github.com/larderhq/larder/core/internal/tier"
)

// distances are the round trips that a tier is tried at.
var distances = []time.Duration{
	time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 30 * time.Millisecond,
	60 * time.Millisecond, 120 * time.Millisecond, 400 * time.Millisecond,
}

// at runs a test over a tier at each distance, with the default budget.
func at(t *testing.T, test func(t *testing.T, f *fleet, trip time.Duration)) {
	for _, trip := range distances {
		t.Run(trip.String(), func(t *testing.T) {
			share(t, func(t *testing.T, f *fleet) {
				f.away(trip)
				test(t, f, trip)
			})
		})
	}
}

// away sets how long a round trip to the tier takes.
func (f *fleet) away(trip time.Duration) {
	way := memtier.Delay{Min: trip / 2, Max: trip / 2}
	f.server.SetFaults(memtier.Faults{Request: way, Reply: way, HintDelay: way})
}

// far makes an instance, and waits until it has opened the tier and measured it.
func (f *fleet) far(name string, change ...func(*core.Options)) *instance {
	in := f.instance(name, change...)
	time.Sleep(15 * time.Second)
	return in
}

const (
	remoteBudget = 50 * time.Millisecond // the default
	theLoad      = 20 * time.Millisecond
)

// slowly gets an id whose load takes a while, and demands that no caller waits for the tier
// longer than the budget.
func (in *instance) slowly(id int, tags ...string) int64 {
	in.f.t.Helper()
	start := time.Now()
	v, err := in.Get(in.f.t.Context(), id, func(ctx context.Context, _ int) (int64, error) {
		in.f.loads.Add(1)
		v := in.f.data.Load()
		time.Sleep(theLoad)
		return v, core.AddTags(ctx, tags...)
	})
	require.NoError(in.f.t, err)
	require.LessOrEqual(in.f.t, time.Since(start), remoteBudget+theLoad)
	return v
}

func TestADistantTierStoresMissesBehindTheResponse(t *testing.T) {
	at(t, func(t *testing.T, f *fleet, trip time.Duration) {
		// given
		a := f.far("a")
		// when
		for id := range 4 {
			a.slowly(id, "late")
		}
		time.Sleep(5 * time.Second)
		// then
		require.EqualValues(t, 4, a.cache.Stats().Stored)
		loads := f.loads.Load()
		for id := range 4 {
			start := time.Now()
			a.slowly(id)
			require.Zero(t, time.Since(start), "it is in this process")
		}
		require.Equal(t, loads, f.loads.Load())
		require.LessOrEqual(t, loads, int64(8), "one more for each, at most")
		if trip <= 30*time.Millisecond {
			require.EqualValues(t, 4, loads, "the first load is the one that is stored")
		}
	})
}

// strange is a tier whose server does not know a script yet, and to which connections
// have to be made: a new era takes three round trips, not one.
type strange struct {
	tier.Tier
	more time.Duration
}

func (s strange) Open(ctx context.Context, want tier.Layout) (tier.Session, error) {
	ses, err := s.Tier.Open(ctx, want)
	return strangeSession{ses, s.more}, err
}

type strangeSession struct {
	tier.Session
	more time.Duration
}

func (s strangeSession) NewEra(ctx context.Context, p int, was string, always bool) error {
	time.Sleep(s.more)
	return s.Session.NewEra(ctx, p, was, always)
}

func TestADistantTierIsFollowedThoughErasTakeSeveralRoundTrips(t *testing.T) {
	at(t, func(t *testing.T, f *fleet, trip time.Duration) {
		// given
		a := f.far("a", func(o *core.Options) { o.Remote = strange{o.Remote, 2 * trip} })
		// when
		a.slowly(1)
		time.Sleep(5 * time.Second)
		// then
		require.EqualValues(t, 1, a.cache.Stats().Stored)
	})
}

func TestADistantTierAnswersOtherInstances(t *testing.T) {
	at(t, func(t *testing.T, f *fleet, trip time.Duration) {
		// given
		a, b := f.far("a"), f.far("b")
		a.slowly(1)
		time.Sleep(5 * time.Second)
		loads := f.loads.Load()
		// when
		b.slowly(1)
		time.Sleep(5 * time.Second)
		b.slowly(1)
		// then
		if trip <= 30*time.Millisecond {
			require.Equal(t, loads, f.loads.Load())
		} else {
			require.Equal(t, loads+1, f.loads.Load(), "its first request does not wait for the tier")
		}
		require.EqualValues(t, 1, b.cache.Stats().RemoteHits)
	})
}

func TestAReaderDuringADeferredFillSharesItsLoad(t *testing.T) {
	share(t, func(t *testing.T, f *fleet) {
		// given
		f.away(30 * time.Millisecond)
		a := f.far("a")
		a.slowly(1, "late")
		require.Zero(t, a.cache.Stats().Stored, "the fill is on its way")
		// when
		start := time.Now()
		a.slowly(1)
		// then
		require.Zero(t, time.Since(start))
		require.EqualValues(t, 1, f.loads.Load())
	})
}

func TestADeferredFillThatIsInvalidatedIsNotAnswered(t *testing.T) {
	for name, target := range map[string]core.Target{
		"key": core.Key("item:1"), "its tag": core.Tag("item:1"), "a late tag": core.Tag("late"), "pattern": core.Pattern("item:*"), "all": core.All(),
	} {
		for _, after := range []time.Duration{0, 10, 20, 30, 40, 50, 60, 70, 90} {
			t.Run(fmt.Sprint(name, " after ", int(after)), func(t *testing.T) {
				share(t, func(t *testing.T, f *fleet) {
					// given
					f.away(30 * time.Millisecond)
					a, b := f.far("a"), f.far("b")
					f.data.Store(1)
					a.slowly(1, "late")
					time.Sleep(after * time.Millisecond)
					// when
					f.data.Store(2)
					require.NoError(t, a.cache.Invalidate(t.Context(), target))
					// then
					for range 5 {
						require.EqualValues(t, 2, a.get(1, "late")) // it may wait for the end of the fill
						time.Sleep(25 * time.Millisecond)
					}
					time.Sleep(time.Second)
					require.EqualValues(t, 2, b.slowly(1, "late"))
				})
			})
		}
	}
}

// An invalidation that arrives while the load runs concerns a tag that the load names at its
// end: the entry has the new generation.
func TestAFillWithALateTagInvalidatedDuringItsLoadIsNotJoined(t *testing.T) {
	share(t, func(t *testing.T, f *fleet) {
		// given
		f.away(30 * time.Millisecond)
		a := f.far("a")
		f.data.Store(1)
		go func() {
			_, _ = a.Get(t.Context(), 1, func(ctx context.Context, _ int) (int64, error) {
				time.Sleep(70 * time.Millisecond)
				return 1, core.AddTags(ctx, "late")
			})
		}()
		time.Sleep(35 * time.Millisecond) // it has the lease, and loads
		f.data.Store(2)
		require.NoError(t, a.cache.Invalidate(t.Context(), core.Tag("late")))
		time.Sleep(40 * time.Millisecond) // its fill is on its way
		require.EqualValues(t, 1, a.cache.Stats().Deferred)
		// when
		v := a.get(1, "late") // it may wait for the end of the fill
		// then
		require.EqualValues(t, 2, v, "STALE: a reader shares a deferred fill")
	})
}

func TestADeferredFillThatExpiresIsNotJoined(t *testing.T) {
	share(t, func(t *testing.T, f *fleet) {
		// given
		f.away(30 * time.Millisecond)
		a := f.far("a", func(o *core.Options) { o.Classes["c"] = core.Class{TTL: 10 * time.Millisecond} })
		f.data.Store(1)
		a.slowly(1, "late")
		f.data.Store(2)
		time.Sleep(11 * time.Millisecond)
		require.Zero(t, a.cache.Stats().Stored+a.cache.Stats().Refused, "the fill is on its way")
		// when
		v := a.get(1, "late") // it may wait for the end of the fill
		// then
		require.EqualValues(t, 2, v, "STALE: a reader shares a deferred fill")
	})
}

func TestKeepWarmWorksOverADistantTier(t *testing.T) {
	at(t, func(t *testing.T, f *fleet, _ time.Duration) {
		// given
		a := f.far("a", shortly)
		k := keep(a, core.KeepWarmOptions{})
		f.data.Store(1)
		for range 4 {
			k.ask(20, 1, 2, 3)
			time.Sleep(5 * time.Second)
		}
		loads := f.loads.Load()
		f.data.Store(2)
		// when
		for range 30 {
			k.ask(2, 1, 2, 3)
			time.Sleep(5 * time.Second)
		}
		k.end()
		// then
		require.EqualValues(t, 2, a.get(1))
		require.Equal(t, loads, f.loads.Load(), "readers found what KeepWarm has loaded")
		require.NotEmpty(t, k.loaded())
	})
}

func TestInvalidationsOverADistantTierReachAllInstancesInTime(t *testing.T) {
	at(t, func(t *testing.T, f *fleet, trip time.Duration) {
		// given
		a, b := f.far("a"), f.far("b")
		f.data.Store(1)
		a.slowly(1, "late")
		time.Sleep(5 * time.Second)
		b.slowly(1, "late")
		time.Sleep(5 * time.Second)
		// when
		f.data.Store(2)
		require.NoError(t, b.cache.Invalidate(t.Context(), core.Tag("late")))
		// then
		require.EqualValues(t, 2, b.slowly(1, "late"))
		time.Sleep(time.Second)
		require.EqualValues(t, 2, a.slowly(1, "late"))
		time.Sleep(5 * time.Second)
		require.EqualValues(t, 2, a.slowly(1))
		loads := f.loads.Load()
		require.EqualValues(t, 2, a.slowly(1))
		require.Equal(t, loads, f.loads.Load(), "and it is cached again")
	})
}

func TestADistantTierStoresTheValuesOfGetMany(t *testing.T) {
	at(t, func(t *testing.T, f *fleet, trip time.Duration) {
		// given
		a := f.far("a")
		load := func(ctx context.Context, ids []int) (map[int]int64, error) {
			f.loads.Add(1)
			values := make(map[int]int64)
			for _, id := range ids {
				values[id] = int64(id)
			}
			return values, core.AddTags(ctx, "late")
		}
		ids := []int{1, 2, 3, 4, 5}
		// when
		start := time.Now()
		_, err := a.GetMany(t.Context(), ids, load)
		// then
		require.NoError(t, err)
		require.LessOrEqual(t, time.Since(start), 2*remoteBudget)
		time.Sleep(5 * time.Second)
		loads := f.loads.Load()
		require.LessOrEqual(t, loads, int64(2), "together")
		values, err := a.GetMany(t.Context(), ids, load)
		require.NoError(t, err)
		require.Len(t, values, 5)
		require.Equal(t, loads, f.loads.Load())
		require.EqualValues(t, 5, a.cache.Stats().Stored)
	})
}

func TestADistantTierStoresWarmedValues(t *testing.T) {
	at(t, func(t *testing.T, f *fleet, _ time.Duration) {
		// given
		a := f.far("a")
		load := func(_ context.Context, ids []int) (map[int]int64, error) {
			f.loads.Add(int64(len(ids)))
			values := make(map[int]int64)
			for _, id := range ids {
				values[id] = int64(id)
			}
			return values, nil
		}
		// when
		r, err := a.Warm(t.Context(), func(yield func(int) bool) {
			for id := range 300 {
				if !yield(id) {
					return
				}
			}
		}, load, core.WarmOptions{})
		// then
		require.NoError(t, err)
		time.Sleep(5 * time.Second)
		require.EqualValues(t, 300, r.Filled)
		require.EqualValues(t, 300, f.loads.Load(), "each once")
		require.EqualValues(t, 300, a.cache.Stats().Stored)
	})
}

func TestADistantTierStoresWrittenValues(t *testing.T) {
	at(t, func(t *testing.T, f *fleet, _ time.Duration) {
		// given
		a, b := f.far("a"), f.far("b")
		a.slowly(1)
		time.Sleep(5 * time.Second)
		// when
		require.NoError(t, a.Write(t.Context(), 1, 7, func(context.Context, int, int64) error {
			f.data.Store(7)
			return nil
		}, "late"))
		// then
		time.Sleep(5 * time.Second)
		loads := f.loads.Load()
		require.EqualValues(t, 7, a.slowly(1))
		require.Equal(t, loads, f.loads.Load(), "the writer has it")
		require.Zero(t, a.cache.Stats().Pending)
		require.EqualValues(t, 7, b.slowly(1))
		require.NoError(t, a.Put(t.Context(), 2, 8))
		time.Sleep(5 * time.Second)
		loads = f.loads.Load()
		require.EqualValues(t, 8, a.slowly(2))
		require.Equal(t, loads, f.loads.Load(), "so has who puts")
	})
}

func TestAStaleValueOfADistantTierIsRefreshed(t *testing.T) {
	at(t, func(t *testing.T, f *fleet, _ time.Duration) {
		// given
		a := f.far("a", func(o *core.Options) {
			o.Classes["c"] = core.Class{TTL: 30 * time.Second, StaleWhileRevalidate: time.Minute}
		})
		f.data.Store(1)
		a.slowly(1)
		time.Sleep(5 * time.Second)
		f.data.Store(2)
		time.Sleep(35 * time.Second)
		a.slowly(3) // the first request after a while waits for a round
		time.Sleep(time.Second)
		// when
		start := time.Now()
		a.slowly(1)
		require.Zero(t, time.Since(start), "stale")
		time.Sleep(5 * time.Second)
		// then
		require.EqualValues(t, 2, a.slowly(1))
	})
}

func TestADistantTierStoresOneOfTwoConcurrentLoads(t *testing.T) {
	share(t, func(t *testing.T, f *fleet) {
		// given
		f.away(30 * time.Millisecond)
		a, b := f.far("a"), f.far("b")
		load := func(context.Context, int) (int64, error) {
			f.loads.Add(1)
			time.Sleep(5 * time.Second)
			return 1, nil
		}
		var answered atomic.Int64
		for _, in := range []*instance{a, b} {
			go func() {
				if _, err := in.Get(t.Context(), 1, load); err == nil {
					answered.Add(1)
				}
			}()
		}
		// when
		time.Sleep(20 * time.Second)
		// then
		require.EqualValues(t, 2, answered.Load())
		require.EqualValues(t, 1, f.loads.Load(), "the other waits for it, however many round trips that takes")
	})
}

func TestCloseEndsDeferredFills(t *testing.T) {
	at(t, func(t *testing.T, f *fleet, _ time.Duration) {
		a := f.far("a")
		for id := range 50 {
			a.slowly(id)
		}
		start := time.Now()
		require.NoError(t, a.cache.Close())
		require.Less(t, time.Since(start), time.Second)
	})
}

func TestTheBudgetOfADistantTierIsLoggedOnce(t *testing.T) {
	share(t, func(t *testing.T, f *fleet) {
		// given
		var said bytes.Buffer
		a := f.far("a", func(o *core.Options) {
			o.Logger = slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelInfo}))
		})
		synctest.Wait()
		require.Empty(t, said.String())
		// when
		f.away(60 * time.Millisecond)
		time.Sleep(10 * time.Second)
		a.slowly(1)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		// then
		require.Equal(t, 1, bytes.Count(said.Bytes(), []byte("\n")), said.String())
		require.Contains(t, said.String(), `"round trip"=60ms RemoteBudget=50ms "set RemoteBudget to"=190ms`)
		require.EqualValues(t, 1, a.cache.Stats().OverBudget)
		// when
		said.Reset()
		f.away(time.Millisecond)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		// then
		require.Equal(t, 1, bytes.Count(said.Bytes(), []byte("\n")), said.String())
		require.Contains(t, said.String(), "fits into Options.RemoteBudget again")
	})
}
