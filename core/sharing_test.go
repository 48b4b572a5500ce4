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
	"github.com/larderhq/larder/core/internal/test/memtier"
	"github.com/larderhq/larder/core/internal/tier"
)

// fleet is several instances over one tier in memory.
type fleet struct {
	t      *testing.T
	server *memtier.Server
	loads  atomic.Int64
	data   atomic.Int64 // what the database says of every id
	opts   []option[int64]
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
	m, err := core.NewMap(cache, with(core.MapOptions[int, int64]{Class: "c", Prefix: "item"}, f.opts...))
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

func TestALoadOfOneInstanceIsARemoteHitOfAnother(t *testing.T) {
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

func TestAnInvalidationReachesTheOtherInstance(t *testing.T) {
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
					require.NoError(t, a.cache.InvalidateEverywhere(t.Context(), test.target))
					require.EqualValues(t, 3, b.get(7, "late"), "everywhere")
				})
			})
		}
	}
}

func TestACacheWithoutItsTierConnectsLater(t *testing.T) {
	share(t, func(t *testing.T, f *fleet) {
		f.server.Down(true)
		a := f.instance("a")
		f.data.Store(1)
		require.EqualValues(t, 1, a.get(1))
		f.data.Store(2)
		require.EqualValues(t, 2, a.get(1), "nothing is stored without the tier")
		f.server.Down(false)
		time.Sleep(2 * time.Second)
		require.EqualValues(t, 2, a.get(1))
		f.data.Store(3)
		require.EqualValues(t, 2, a.get(1), "a hit")
	})
}

func TestNewFailsWhenARequiredTierDoesNotAnswer(t *testing.T) {
	share(t, func(t *testing.T, f *fleet) {
		f.server.Down(true)
		_, err := core.New(core.Options{Remote: f.server.Tier("a"), RequireRemote: true})
		require.Error(t, err)
		f.server.Down(false)
		c, err := core.New(core.Options{Remote: f.server.Tier("b"), RequireRemote: true, Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		require.NoError(t, c.Close())
	})
}

// unusable is a tier that can be reached and cannot be used.
type unusable struct{}

func (unusable) Open(context.Context, tier.Layout) (tier.Session, error) {
	return nil, fmt.Errorf("no permission: %w", core.ErrUnusable)
}

func TestNewFailsWithAnUnusableTier(t *testing.T) {
	_, err := core.New(core.Options{Remote: unusable{}})
	require.ErrorIs(t, err, core.ErrUnusable)
}

func TestAHangingTierCostsTheBudgetAtMostAndSoonNothing(t *testing.T) {
	share(t, func(t *testing.T, f *fleet) {
		a := f.instance("a", func(o *core.Options) { o.RemoteBudget = 40 * time.Millisecond })
		a.get(0)
		f.server.Freeze(true)
		var waited []time.Duration
		for id := range 10 {
			start := time.Now()
			a.get(100 + id)
			waited = append(waited, time.Since(start))
		}
		for _, d := range waited {
			require.LessOrEqual(t, d, 80*time.Millisecond)
		}
		require.Zero(t, waited[9], "the breaker")
		time.Sleep(2 * time.Second)
		start := time.Now()
		a.get(0)
		require.Zero(t, time.Since(start), "what has not been verified for so long is not asked for")
		f.server.Freeze(false)
		time.Sleep(2 * time.Second)
		before := f.loads.Load()
		a.get(0)
		a.get(0)
		require.LessOrEqual(t, f.loads.Load(), before+1, "hits are back")
	})
}

func TestAnInvalidationIsPendingWhileTheTierIsDown(t *testing.T) {
	share(t, func(t *testing.T, f *fleet) {
		a, b := f.instance("a"), f.instance("b")
		f.data.Store(1)
		a.get(1)
		b.get(1)
		f.server.Down(true)
		f.data.Store(2)
		require.ErrorIs(t, a.Invalidate(t.Context(), 1), core.ErrPending)
		require.Positive(t, a.cache.Stats().Pending)
		require.EqualValues(t, 2, a.get(1), "this instance at once")
		f.data.Store(3)
		require.EqualValues(t, 3, a.get(1), "and it keeps nothing of it")
		f.server.Down(false)
		time.Sleep(3 * time.Second)
		require.Zero(t, a.cache.Stats().Pending)
		require.EqualValues(t, 3, b.get(1))
		require.EqualValues(t, 3, a.get(1))
		f.data.Store(4)
		require.EqualValues(t, 3, a.get(1), "a hit again")
	})
}

func TestMorePendingThanTheLimitInvalidatesEverything(t *testing.T) {
	share(t, func(t *testing.T, f *fleet) {
		a, b := f.instance("a"), f.instance("b")
		f.data.Store(1)
		for id := range 3 {
			a.get(id)
			b.get(id)
		}
		f.server.Down(true)
		f.data.Store(2)
		for id := range 2000 {
			require.ErrorIs(t, a.Invalidate(t.Context(), id), core.ErrPending)
		}
		require.EqualValues(t, 1, a.cache.Stats().Pending)
		f.server.Down(false)
		time.Sleep(5 * time.Second)
		require.Zero(t, a.cache.Stats().Pending)
		for id := range 3 {
			require.EqualValues(t, 2, b.get(id))
		}
	})
}

func TestTheLaterPutOfTwoInstancesWinsEverywhere(t *testing.T) {
	share(t, func(t *testing.T, f *fleet) {
		a, b := f.instance("a"), f.instance("b")
		require.NoError(t, a.Put(t.Context(), 1, 10, "shelf"))
		require.EqualValues(t, 10, b.get(1))
		require.NoError(t, b.Put(t.Context(), 1, 20))
		synctest.Wait()
		require.EqualValues(t, 20, a.get(1))
		require.EqualValues(t, 20, b.get(1))
		require.Zero(t, f.loads.Load())
	})
}

func TestInstancesWaitForTheLoadOfAnotherAndAreWoken(t *testing.T) {
	share(t, func(t *testing.T, f *fleet) {
		var all []*instance
		for _, name := range []string{"a", "b", "c"} {
			all = append(all, f.instance(name))
		}
		got := make(chan time.Duration, 30)
		start := time.Now()
		for _, in := range all {
			for range 10 {
				go func() {
					_, err := in.Get(t.Context(), 1, func(context.Context, int) (int64, error) {
						f.loads.Add(1)
						time.Sleep(3 * time.Second) // longer than a lease
						return 1, nil
					})
					if err == nil {
						got <- time.Since(start)
					}
				}()
			}
		}
		for range cap(got) {
			require.Equal(t, 3*time.Second, <-got, "nobody polls")
		}
		require.EqualValues(t, 1, f.loads.Load())
	})
}

func TestAnInstanceThatDiesDuringALoadHoldsUpOthersForOneLease(t *testing.T) {
	share(t, func(t *testing.T, f *fleet) {
		dying := f.server.Tier("dying")
		a := f.instance("a", func(o *core.Options) { o.Remote = dying })
		b := f.instance("b")
		begun := make(chan struct{})
		go func() {
			_, _ = a.Get(t.Context(), 1, func(ctx context.Context, _ int) (int64, error) {
				close(begun)
				<-ctx.Done()
				return 0, ctx.Err()
			})
		}()
		<-begun
		dying.Kill()
		start := time.Now()
		f.data.Store(1)
		require.EqualValues(t, 1, b.get(1))
		require.LessOrEqual(t, time.Since(start), time.Second)
		require.EqualValues(t, 1, f.loads.Load())
	})
}

func TestAWriterThatDiesAfterItsCommitInvalidatesAtItsDeadline(t *testing.T) {
	share(t, func(t *testing.T, f *fleet) {
		dying := f.server.Tier("dying")
		a := f.instance("a", func(o *core.Options) { o.Remote, o.WriteTimeout = dying, 10*time.Second })
		b, c := f.instance("b"), f.instance("c")
		f.data.Store(1)
		b.get(1)
		_, err := a.cache.Begin(t.Context(), core.Tag("item:1"))
		require.NoError(t, err)
		synctest.Wait()
		require.EqualValues(t, 1, b.get(1))
		require.EqualValues(t, 1, c.get(1))
		require.EqualValues(t, 1, f.loads.Load(), "a beginning invalidates nothing")
		f.data.Store(2) // the commit
		dying.Kill()
		require.EqualValues(t, 1, c.get(1))
		time.Sleep(10 * time.Second)
		require.EqualValues(t, 2, b.get(1))
		require.EqualValues(t, 2, c.get(1))
	})
}

func TestOverlappingRefusedWritesInvalidateNothing(t *testing.T) {
	share(t, func(t *testing.T, f *fleet) {
		a, b := f.instance("a"), f.instance("b")
		a.get(1)
		b.get(1)
		asked := b.cache.Stats().RemoteHits
		begin := func() *core.Intent {
			in, err := a.cache.Begin(t.Context(), core.Tag("item:1"), core.Key("item:1"), core.Path("/items"))
			require.NoError(t, err)
			return in
		}
		open := begin()
		for range 1000 {
			next := begin()
			time.Sleep(100 * time.Millisecond)
			open.Abandon()
			open = next
			a.get(1)
			b.get(1)
		}
		open.Abandon()
		time.Sleep(time.Minute)
		a.get(1)
		b.get(1)
		f.instance("c").get(1)
		require.EqualValues(t, 1, f.loads.Load())
		require.Equal(t, asked, b.cache.Stats().RemoteHits, "what it keeps itself was not let go of")
	})
}

func TestRefusedWritesDoNotDelayTheDeadlineOfADeadWriter(t *testing.T) {
	share(t, func(t *testing.T, f *fleet) {
		dying := f.server.Tier("dying")
		a := f.instance("a", func(o *core.Options) { o.Remote, o.WriteTimeout = dying, 10*time.Second })
		b := f.instance("b")
		b.get(1)
		begin := func(in *instance) *core.Intent {
			intent, err := in.cache.Begin(t.Context(), core.Tag("item:1"))
			require.NoError(t, err)
			return intent
		}
		begin(a)
		f.data.Store(1)
		dying.Kill()
		for range 99 {
			refused := begin(b)
			time.Sleep(100 * time.Millisecond)
			refused.Abandon()
			require.EqualValues(t, 0, b.get(1))
		}
		c := f.instance("c") // it has not heard of the dead writer
		require.EqualValues(t, 0, c.get(1))
		time.Sleep(200 * time.Millisecond)
		require.EqualValues(t, 1, b.get(1))
		require.EqualValues(t, 1, c.get(1))
	})
}

func TestAnInvalidationReachesAllVersions(t *testing.T) {
	share(t, func(t *testing.T, f *fleet) {
		version := func(v string) func(*core.Options) { return func(o *core.Options) { o.Version = v } }
		a, b := f.instance("a", version("1")), f.instance("b", version("2"))
		f.data.Store(1)
		a.get(1)
		b.get(1)
		require.EqualValues(t, 2, f.loads.Load(), "they do not share what they store")
		f.data.Store(2)
		require.NoError(t, a.cache.Invalidate(t.Context(), core.Key("item:1")))
		synctest.Wait()
		require.EqualValues(t, 2, a.get(1))
		require.EqualValues(t, 2, b.get(1))
	})
}
