package core_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/memtier"
)

// fleet is several instances over one tier in memory.
type fleet struct {
	t      *testing.T
	server *memtier.Server
	loads  atomic.Int64
	data   atomic.Int64 // what the database says of every id
}

func share(t *testing.T, test func(t *testing.T, f *fleet)) {
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{t: t, server: memtier.New(memtier.Config{})}
		defer f.server.Close()
		test(t, f)
	})
}

type instance struct {
	*core.Map[int, int64]
	cache *core.Cache
	f     *fleet
}

func (f *fleet) instance(name string, change ...func(*core.Options)) *instance {
	f.t.Helper()
	o := core.Options{
		Remote:  f.server.Tier(name),
		Classes: core.Classes{"c": {TTL: time.Hour, LoadTimeout: 10 * time.Second, NegativeTTL: time.Minute}},
		Logger:  slog.New(slog.DiscardHandler),
	}
	for _, c := range change {
		c(&o)
	}
	cache, err := core.New(o)
	require.NoError(f.t, err)
	f.t.Cleanup(func() { require.NoError(f.t, cache.Close()) })
	m, err := core.NewMap[int, int64](cache, "c", "item")
	require.NoError(f.t, err)
	synctest.Wait() // it listens
	return &instance{m, cache, f}
}

func (in *instance) get(id int, tags ...string) int64 {
	in.f.t.Helper()
	v, err := in.Get(in.f.t.Context(), id, func(ctx context.Context, _ int) (int64, error) {
		in.f.loads.Add(1)
		return in.f.data.Load(), core.AddTags(ctx, tags...)
	})
	require.NoError(in.f.t, err)
	return v
}

func TestGivenTwoInstances_WhenOneHasLoaded_ThenTheOtherIsAnsweredFromTheTier(t *testing.T) {
	share(t, func(t *testing.T, f *fleet) {
		a, b := f.instance("a"), f.instance("b")
		f.data.Store(1)
		require.EqualValues(t, 1, a.get(7, "late"))
		require.EqualValues(t, 1, b.get(7))
		require.EqualValues(t, 1, b.get(7))
		require.EqualValues(t, 1, f.loads.Load())
		s := b.cache.Stats()
		require.EqualValues(t, 1, s.RemoteHits)
		require.EqualValues(t, 1, s.Hits, "then from its own memory")
	})
}

func TestGivenTwoInstances_WhenOneInvalidates_ThenTheOtherLoadsAnew(t *testing.T) {
	for _, test := range []struct {
		name   string
		target core.Target
	}{
		{"key", core.Key("item:7")}, {"its own tag", core.Tag("item:7")}, {"late tag", core.Tag("late")},
		{"pattern", core.Pattern("item:*")}, {"all", core.All()},
	} {
		for _, lost := range []float64{0, 1} {
			t.Run(fmt.Sprintf("%s, messages lost: %v", test.name, lost), func(t *testing.T) {
				share(t, func(t *testing.T, f *fleet) {
					a, b := f.instance("a"), f.instance("b")
					f.server.SetFaults(memtier.Faults{HintLost: lost})
					f.data.Store(1)
					require.EqualValues(t, 1, a.get(7, "late"))
					require.EqualValues(t, 1, b.get(7, "late"))
					f.data.Store(2)
					require.NoError(t, a.cache.Invalidate(t.Context(), test.target))
					require.EqualValues(t, 2, a.get(7, "late"), "on the same instance at once")
					if lost == 1 {
						time.Sleep(time.Second + time.Millisecond)
					} else {
						synctest.Wait()
					}
					require.EqualValues(t, 2, b.get(7, "late"))
					require.EqualValues(t, 2, f.loads.Load())
					f.data.Store(3)
					require.NoError(t, a.cache.Invalidate(t.Context(), test.target, core.Everywhere))
					require.EqualValues(t, 3, b.get(7, "late"), "everywhere")
				})
			})
		}
	}
}
