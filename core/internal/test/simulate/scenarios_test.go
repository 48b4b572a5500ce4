package simulate_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/test/memtier"
	"github.com/larderhq/larder/core/internal/tier"
)

// The scenarios are interleavings that chance finds seldom.

// scene is a bubble with a server and a database of one number.
type scene struct {
	*testing.T
	server *memtier.Server
	data   atomic.Int64
	loads  atomic.Int64
	reads  sync.WaitGroup // under way: Close does not end a load with a waiting reader
}

func play(t *testing.T, script func(s *scene)) {
	synctest.Test(t, func(t *testing.T) {
		s := &scene{T: t, server: memtier.New(memtier.Config{})}
		defer s.server.Close()
		s.data.Store(1)
		script(s)
		s.reads.Wait()
	})
}

// actor is an instance in a scene.
type actor struct {
	s     *scene
	cache *core.Cache
	m     *core.Map[int, value]
	tier  *memtier.Tier
	line  line
	parts int

	session tier.Session // without the line
}

func (a *actor) Open(ctx context.Context, want tier.Layout) (tier.Session, error) {
	want.Partitions = a.parts
	ses, err := a.tier.Open(ctx, want)
	if err != nil {
		return nil, err
	}
	if rule := os.Getenv("LARDER_BROKEN"); rule != "" {
		ses = breakRule(ses, rule)
	}
	a.session = ses
	return &lined{ses, &a.line}, nil
}

func (s *scene) actor(name string, change ...func(*core.Options)) *actor {
	s.Helper()
	a := &actor{s: s, tier: s.server.Tier(name), parts: 4}
	o := core.Options{
		Remote: a, Classes: core.Classes{"c": {TTL: time.Hour, LoadTimeout: 10 * time.Second}},
		Logger: slog.New(slog.DiscardHandler),
	}
	for _, c := range change {
		c(&o)
	}
	var err error
	a.cache, err = core.New(o)
	require.NoError(s, err)
	s.Cleanup(func() { _ = a.cache.Close() })
	a.m, err = core.NewMap(a.cache, core.MapOptions[int, value]{Class: "c", Prefix: "row", Codec: codec{}})
	require.NoError(s, err)
	return a
}

func staleness(d time.Duration) func(*core.Options) {
	return func(o *core.Options) { o.MaxStaleness = d }
}

func class(change func(*core.Class)) func(*core.Options) {
	return func(o *core.Options) {
		c := o.Classes["c"]
		change(&c)
		o.Classes = core.Classes{"c": c}
	}
}

// get reads row 1. The load reads the database at once and returns after d.
func (a *actor) get(d time.Duration, tags ...string) (int64, error) {
	a.s.reads.Add(1)
	defer a.s.reads.Done()
	v, err := a.m.Get(context.Background(), 1, func(ctx context.Context, _ int) (value, error) {
		a.s.loads.Add(1)
		v := a.s.data.Load()
		select {
		case <-time.After(d):
			return value{version: v}, core.AddTags(ctx, tags...)
		case <-ctx.Done():
			return value{}, ctx.Err()
		}
	})
	return v.version, err
}

// must demands that row 1 is answered with at least a version.
func (a *actor) must(least int64, tags ...string) {
	a.s.Helper()
	v, err := a.get(0, tags...)
	require.NoError(a.s, err)
	if v < least {
		a.s.Fatalf("STALE: version %d was answered, %d had been announced", v, least)
	}
}

func TestScenarioAColdKeyIsLoadedOnceByAllInstances(t *testing.T) {
	play(t, func(s *scene) {
		s.server.SetFaults(memtier.Faults{Request: delays(ms), Reply: delays(ms)})
		var actors []*actor
		for i := range 5 {
			actors = append(actors, s.actor(fmt.Sprint(i)))
		}
		begun := time.Now()
		var wg sync.WaitGroup
		for _, a := range actors {
			for range 20 {
				wg.Add(1)
				go func() {
					defer wg.Done()
					a.must2(300 * ms)
				}()
			}
		}
		wg.Wait()
		if n := s.loads.Load(); n != 1 {
			s.Fatalf("LOADS: %d", n)
		}
		if took := time.Since(begun); took > 500*ms {
			s.Fatalf("SLOW: it took %v to share a load of 300ms", took)
		}
	})
}

func (a *actor) must2(d time.Duration) {
	if v, err := a.get(d); err != nil || v != 1 {
		a.s.Errorf("%v, %v", v, err)
	}
}

func TestScenarioALeaderThatDiesCostsTheOthersOneLease(t *testing.T) {
	play(t, func(s *scene) {
		a, b, c := s.actor("a"), s.actor("b"), s.actor("c")
		go func() { _, _ = a.get(9 * time.Second) }()
		time.Sleep(100 * ms)
		a.tier.Kill()
		begun := time.Now()
		var wg sync.WaitGroup
		for _, x := range []*actor{b, c} {
			for range 5 {
				wg.Add(1)
				go func() {
					defer wg.Done()
					x.must2(300 * ms)
				}()
			}
		}
		wg.Wait()
		if n := s.loads.Load(); n != 2 {
			s.Fatalf("LOADS: %d", n)
		}
		if took := time.Since(begun); took > 2*time.Second+400*ms {
			s.Fatalf("SLOW: it took %v", took)
		}
	})
}

func TestScenarioASilentTierCostsAReadLittleMoreThanItsLoad(t *testing.T) {
	for name, fail := range map[string]func(s *scene){
		"down":   func(s *scene) { s.server.Down(true) },
		"frozen": func(s *scene) { s.server.Freeze(true) },
		"full":   func(s *scene) { s.server.Full(true) },
		"slow":   func(s *scene) { s.server.SetFaults(memtier.Faults{Reply: memtier.Delay{Min: 40 * ms, Max: 200 * ms}}) },
		"silent": func(s *scene) { s.server.SetFaults(memtier.Faults{RequestLost: 1, Silent: 1}) },
	} {
		t.Run(name, func(t *testing.T) {
			play(t, func(s *scene) {
				a := s.actor("a")
				a.must(1)
				fail(s)
				for i := range 60 {
					begun := time.Now()
					_, err := a.get(100*ms, fmt.Sprint("late ", i))
					require.NoError(s, err)
					if took := time.Since(begun); took > 100*ms+2*50*ms {
						s.Fatalf("SLOW: read %d, %v after the tier failed, took %v", i, time.Duration(i)*100*ms, took)
					}
					time.Sleep(70 * ms)
					_ = a.cache.Invalidate(context.Background(), core.Key("row:1"))
				}
			})
		})
	}
}

// bytesCodec is for values that are bytes.
type bytesCodec struct{}

func (bytesCodec) Encode(v any) ([]byte, bool) { b, ok := v.([]byte); return b, ok }

func (bytesCodec) Decode(b []byte, _ int64) (any, int, bool) { return b, len(b), true }

func TestScenarioALongLoadOfADeafInstanceIsNotJoined(t *testing.T) {
	play(t, func(s *scene) {
		x, y := s.actor("x", staleness(200*ms)), s.actor("y")
		time.Sleep(time.Second)
		go func() { _, _ = x.get(4 * time.Second) }()
		time.Sleep(50 * ms)
		x.line.cut(true)
		s.data.Store(2)
		require.NoError(s, y.cache.Invalidate(s.Context(), core.Key("row:1")))
		time.Sleep(200 * ms)
		x.must(2)
		x.line.cut(false)
		time.Sleep(5 * time.Second)
		x.must(2)
	})
}

func TestScenarioADeadlineRemovesLoadsDuringACommittedWriter(t *testing.T) {
	play(t, func(s *scene) {
		x := s.actor("x")
		y := s.actor("y", func(o *core.Options) { o.WriteTimeout = 300 * ms })
		time.Sleep(time.Second)
		_, err := y.cache.Begin(s.Context(), core.Key("row:1"))
		require.NoError(s, err)
		time.Sleep(10 * ms) // x has heard of it
		x.must(1)
		s.data.Store(2)
		y.tier.Kill()
		time.Sleep(time.Second)
		x.must(2)
		s.actor("z").must(2)
	})
}

func TestScenarioALoadIsNotStoredIfItsLateTagHasALapsedWriter(t *testing.T) {
	for _, before := range []bool{true, false} {
		play(t, func(s *scene) {
			x := s.actor("x")
			y := s.actor("y", func(o *core.Options) { o.WriteTimeout = 300 * ms })
			time.Sleep(time.Second)
			write := func() {
				_, err := y.cache.Begin(s.Context(), core.Tag("late"))
				require.NoError(s, err)
			}
			if before {
				write()
				time.Sleep(10 * ms) // x has heard of it
			}
			go func() { _, _ = x.get(900*ms, "late") }()
			time.Sleep(50 * ms)
			if !before {
				write()
			}
			time.Sleep(50 * ms)
			s.data.Store(2)
			y.tier.Kill()
			time.Sleep(2 * time.Second)
			x.must(2, "late")
			s.actor("z").must(2, "late")
		})
	}
}

// The log of the tier holds 64 items of a partition: during the load it is trimmed several times.
func TestScenarioALateTagIsComparedThoughItsLogWasTrimmed(t *testing.T) {
	for _, invalidated := range []bool{false, true} {
		play(t, func(s *scene) {
			x, y, z := s.actor("x"), s.actor("y"), s.actor("z")
			time.Sleep(time.Second)
			go func() { _, _ = x.get(5*time.Second, "late") }()
			time.Sleep(50 * ms)
			want := int64(1)
			if invalidated {
				want = 2
				s.data.Store(want)
				require.NoError(s, y.cache.Invalidate(s.Context(), core.Tag("late")))
			}
			for i := range 800 {
				require.NoError(s, y.cache.Invalidate(s.Context(), core.Tag(fmt.Sprint("other:", i))))
				time.Sleep(5 * ms)
			}
			s.reads.Wait()
			before := s.loads.Load()
			z.must(want, "late")
			if loaded := s.loads.Load() - before; invalidated != (loaded == 1) {
				s.Errorf("invalidated: %v; another instance loaded %d times", invalidated, loaded)
			}
		})
	}
}

func TestScenarioAnInstanceWithALapsedLayoutAnswersNothingOld(t *testing.T) {
	play(t, func(s *scene) {
		x, y := s.actor("x"), s.actor("y", staleness(100*ms))
		time.Sleep(time.Second)
		x.line.noAgree.Store(true)
		s.server.SetFaults(memtier.Faults{HintLost: 1})
		time.Sleep(memtier.LayoutLapse + 90*time.Second) // and the others have dropped its settings
		for n := int64(2); n < 22; n++ {
			x.must(n - 1)
			s.data.Store(n)
			require.NoError(s, y.cache.InvalidateEverywhere(s.Context(), core.Key("row:1")))
			x.must(n)
			time.Sleep(37 * ms)
		}
	})
}

// A head proves the state at the time of its read, however late it arrives.
func TestScenarioALateHeadProvesNothingPastItsReading(t *testing.T) {
	play(t, func(s *scene) {
		x, y := s.actor("x"), s.actor("y")
		time.Sleep(time.Second)
		x.must(1)
		s.server.SetFaults(memtier.Faults{HintLost: 1})
		x.line.late.Store(int64(200 * ms))
		invalidated := make(chan error, 1)
		fn := func() {
			x.line.noHeads.Store(true) // nothing is verified any more
			s.data.Store(2)
			invalidated <- y.cache.Invalidate(context.Background(), core.Key("row:1"))
		}
		x.line.asked.Store(&fn)
		require.NoError(s, <-invalidated)
		time.Sleep(time.Second)
		x.must(2)
	})
}

// A new era leaves no item in the log. It must be noticed although items before it have not
// been applied.
func TestScenarioAnInstanceBehindTheLogDropsItsCopiesInANewEra(t *testing.T) {
	play(t, func(s *scene) {
		x, y := s.actor("x"), s.actor("y")
		time.Sleep(time.Second)
		x.must(1)
		s.server.SetFaults(memtier.Faults{HintLost: 1})
		// Items without an entry here, in every partition.
		require.NoError(s, y.cache.Invalidate(s.Context(), core.Pattern("nothing")))
		for p := range 4 {
			s.server.Migrating(p, true)
		}
		s.data.Store(2)
		require.NoError(s, y.cache.Invalidate(s.Context(), core.Key("row:1")))
		for p := range 4 {
			s.server.Migrating(p, false)
		}
		time.Sleep(time.Second)
		x.must(2)
	})
}

// The end of an era is unknown for a moment, and a value loaded then is stored.
func TestScenarioCopiesOfAnUnknownEraAreDroppedInTheNext(t *testing.T) {
	play(t, func(s *scene) {
		x, y := s.actor("x"), s.actor("y")
		time.Sleep(time.Second)
		migrate := func(on bool) {
			for p := range 4 {
				s.server.Migrating(p, on)
			}
		}
		x.line.noHeads.Store(true)
		migrate(true)
		require.NoError(s, y.cache.Invalidate(s.Context(), core.Key("row:1"))) // x hears of it
		synctest.Wait()
		migrate(false)
		x.must(1) // and keeps this
		s.server.SetFaults(memtier.Faults{HintLost: 1})
		migrate(true)
		s.data.Store(2)
		require.NoError(s, y.cache.Invalidate(s.Context(), core.Key("row:1"))) // x hears nothing
		migrate(false)
		x.line.noHeads.Store(false)
		time.Sleep(time.Second)
		x.must(2)
	})
}

// A head whose read began before an era ended does not prove the current era.
func TestScenarioALateHeadOfAnEndedEraIsNotAdopted(t *testing.T) {
	play(t, func(s *scene) {
		// Late heads look like a distant tier; x must use the tier nevertheless.
		x := s.actor("x", func(o *core.Options) { o.RemoteBudget = time.Second })
		time.Sleep(time.Second)
		s.actor("z").must(1) // what x will find
		x.line.late.Store(int64(100 * ms))
		time.Sleep(time.Second)
		for n := int64(2); n < 60; n++ {
			time.Sleep(17 * ms)
			for p := range 4 {
				s.server.Migrating(p, true)
			}
			s.data.Store(n)
			require.NoError(s, x.cache.Invalidate(s.Context(), core.Key("row:1")))
			for p := range 4 {
				s.server.Migrating(p, false)
			}
			time.Sleep(time.Duration(n) * 3 * ms)
			x.must(n)
		}
	})
}

func TestScenarioALoadWithinTheReplicaLagIsNotStored(t *testing.T) {
	for _, target := range []core.Target{core.Key("row:1"), core.Tag("row:1"), core.Pattern("row:*"), core.All()} {
		play(t, func(s *scene) {
			lag := class(func(c *core.Class) { c.ReplicaLag = 500 * ms })
			x, y := s.actor("x", lag), s.actor("y", lag)
			time.Sleep(1100 * ms)
			s.server.SetFaults(memtier.Faults{HintLost: 1}) // x has it from the tier's mark only
			require.NoError(s, y.cache.Invalidate(s.Context(), target))
			time.Sleep(50 * ms)
			x.must(1)
			s.data.Store(2) // the replica has caught up
			time.Sleep(3 * time.Second)
			x.must(2)
			y.must(2)
		})
	}
}

func TestScenarioALoadThatNamesItsTagAfterTheReplicaLagIsNotStored(t *testing.T) {
	play(t, func(s *scene) {
		lag := class(func(c *core.Class) { c.ReplicaLag = 500 * ms })
		x, y := s.actor("x", lag), s.actor("y", lag)
		time.Sleep(time.Second)
		// Committed; the replica still has the old version.
		require.NoError(s, y.cache.Invalidate(s.Context(), core.Tag("late")))
		time.Sleep(50 * ms)
		go func() { _, _ = x.get(time.Second, "late") }()
		time.Sleep(50 * ms)
		s.data.Store(2) // the replica has caught up
		time.Sleep(3 * time.Second)
		x.must(2, "late")
		y.must(2, "late")
	})
}

func TestScenarioALoadDuringAMigrationExpiresAtTheWritersDeadline(t *testing.T) {
	play(t, func(s *scene) {
		x := s.actor("x")
		y := s.actor("y", func(o *core.Options) { o.WriteTimeout = 300 * ms })
		time.Sleep(time.Second)
		for p := range 4 {
			s.server.Migrating(p, true)
		}
		intent, err := y.cache.Begin(s.Context(), core.Key("row:1"))
		require.NoError(s, err)
		for p := range 4 {
			s.server.Migrating(p, false)
		}
		if intent.Pending() {
			return // the reply says that the intent was not recorded
		}
		time.Sleep(20 * ms)
		x.must(1)
		s.data.Store(2)
		y.tier.Kill()
		time.Sleep(2 * time.Second)
		x.must(2)
	})
}

func TestScenarioInvalidateEverywhereReturnsIfTheTierIsSilent(t *testing.T) {
	play(t, func(s *scene) {
		a := s.actor("a")
		time.Sleep(time.Second)
		s.server.SetFaults(memtier.Faults{Reply: memtier.Delay{Min: 20 * ms, Max: 20 * ms}})
		go func() {
			time.Sleep(10 * ms) // the invalidation has been executed
			s.server.Freeze(true)
		}()
		done := make(chan error, 1)
		go func() { done <- a.cache.InvalidateEverywhere(context.Background(), core.Key("row:1")) }()
		select {
		case <-done:
		case <-time.After(time.Minute):
			s.Error("SLOW: InvalidateEverywhere waits for ever")
		}
		s.server.Freeze(false)
	})
}

func TestScenarioALostLayoutLeavesNothingOldAnywhere(t *testing.T) {
	play(t, func(s *scene) {
		x, y := s.actor("x"), s.actor("y", staleness(100*ms))
		time.Sleep(time.Second)
		s.server.SetFaults(memtier.Faults{HintLost: 1})
		s.server.Flush()
		time.Sleep(2 * time.Second)
		for n := int64(2); n < 22; n++ {
			x.must(n - 1)
			s.data.Store(n)
			require.NoError(s, y.cache.InvalidateEverywhere(s.Context(), core.Key("row:1")))
			x.must(n)
			time.Sleep(37 * ms)
		}
	})
}
