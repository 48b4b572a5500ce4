package simulate_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/test/memtier"
)

// rested returns an instance that keeps row 1 and has rested for d.
func (s *scene) rested(d time.Duration, change ...func(*core.Options)) *actor {
	s.Helper()
	x := s.actor("x", change...)
	time.Sleep(time.Second)
	x.must(1)
	time.Sleep(d)
	synctest.Wait()
	return x
}

// roundsOf returns the number of rounds of an instance during fn.
func (a *actor) roundsOf(fn func()) int64 {
	synctest.Wait()
	before := a.line.rounds.Load()
	fn()
	return a.line.rounds.Load() - before
}

func TestScenarioAnIdleInstanceAsksSeldom(t *testing.T) {
	play(t, func(s *scene) {
		x := s.rested(10 * time.Second)

		n := x.roundsOf(func() { time.Sleep(time.Minute) })

		if n > 7 {
			s.Fatalf("BUSY: %d rounds in a minute without a request", n)
		}
	})
}

func TestScenarioAnInstanceInUseAnswersWithoutWaiting(t *testing.T) {
	play(t, func(s *scene) {
		s.server.SetFaults(memtier.Faults{Request: delays(2 * ms), Reply: delays(2 * ms)})
		x := s.rested(0)

		for range 20 {
			time.Sleep(4 * time.Second)
			began := time.Now()
			x.must(1)
			if took := time.Since(began); took > 0 {
				s.Fatalf("SLOW: a hit took %v", took)
			}
		}
		require.EqualValues(s, 1, s.loads.Load())
	})
}

func TestScenarioAnInstanceThatRestedKeepsItsCopies(t *testing.T) {
	for name, read := range map[string]func(a *actor) (int64, error){
		"Get": func(a *actor) (int64, error) { return a.get(0) },
		"GetMany": func(a *actor) (int64, error) {
			got, err := a.m.GetMany(context.Background(), []int{1}, func(context.Context, []int) (map[int]value, error) {
				a.s.loads.Add(1)
				return map[int]value{1: {version: a.s.data.Load()}}, nil
			})
			return got[1].version, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, func(s *scene) {
				s.server.SetFaults(memtier.Faults{Request: delays(2 * ms), Reply: delays(2 * ms)})
				x := s.rested(30 * time.Minute)

				began := time.Now()
				v, err := read(x)

				require.NoError(s, err)
				require.EqualValues(s, 1, v)
				require.EqualValues(s, 1, s.loads.Load())
				require.Zero(s, x.cache.Stats().RemoteHits, "the copy in memory was not used")
				if took := time.Since(began); took > 4*ms {
					s.Fatalf("SLOW: the first request after a rest took %v, a round trip takes 4ms", took)
				}
			})
		})
	}
}

func TestScenarioNothingOldIsAnsweredAfterARest(t *testing.T) {
	for name, invalidate := range map[string]func(s *scene, y *actor){
		"a key":     func(s *scene, y *actor) { require.NoError(s, y.cache.Invalidate(s.Context(), core.Key("row:1"))) },
		"a tag":     func(s *scene, y *actor) { require.NoError(s, y.cache.Invalidate(s.Context(), core.Tag("row:1"))) },
		"a pattern": func(s *scene, y *actor) { require.NoError(s, y.cache.Invalidate(s.Context(), core.Pattern("row:*"))) },
		"all":       func(s *scene, y *actor) { require.NoError(s, y.cache.Invalidate(s.Context(), core.All())) },
		"more items than the log holds": func(s *scene, y *actor) {
			require.NoError(s, y.cache.Invalidate(s.Context(), core.Tag("row:1")))
			for range 200 {
				require.NoError(s, y.cache.Invalidate(s.Context(), core.Tag("row:1")))
			}
		},
		"a writer that dies": func(s *scene, _ *actor) { opened(s, 500*ms, core.Tag("row:1")).tier.Kill() },
	} {
		t.Run(name, func(t *testing.T) {
			for phase := time.Duration(0); phase < 12*time.Second; phase += 700 * ms {
				play(t, func(s *scene) {
					y := s.actor("y")
					x := s.rested(time.Minute + phase)
					s.server.SetFaults(memtier.Faults{HintLost: 1})

					s.data.Store(2)
					invalidate(s, y)
					time.Sleep(time.Second)

					x.must(2)
				})
			}
		})
	}
}

func TestScenarioACopyIsServedInARestForMaxStalenessAtMost(t *testing.T) {
	for phase := time.Duration(0); phase < 12*time.Second; phase += 90 * ms {
		play(t, func(s *scene) {
			y, x := s.actor("y"), s.rested(time.Minute+phase)
			s.server.SetFaults(memtier.Faults{HintLost: 1})
			s.data.Store(2)
			require.NoError(s, y.cache.Invalidate(s.Context(), core.Tag("row:1")))
			x.line.cut(true)
			defer x.line.cut(false)

			time.Sleep(time.Second)

			x.must(2)
		})
	}
}

func TestScenarioATierThatDiedInARestCostsNoMoreThanAnyOther(t *testing.T) {
	play(t, func(s *scene) {
		x := s.rested(time.Minute)
		x.line.cut(true)
		defer x.line.cut(false)

		for i := range 5 {
			began := time.Now()
			x.must(1)
			took := time.Since(began)
			if took > 51*ms || i > 3 && took > 0 { // requests do not ask after three failures
				s.Fatalf("SLOW: request %d waited %v for a dead tier", i, took)
			}
		}
	})
}

func TestScenarioALongLoadKeepsItsStaleFallback(t *testing.T) {
	play(t, func(s *scene) {
		x := s.rested(0, class(func(c *core.Class) {
			c.TTL, c.StaleIfError, c.LoadTimeout = time.Minute, time.Hour, 30*time.Second
		}))
		time.Sleep(2 * time.Minute)

		v, err := x.m.Get(s.Context(), 1, func(context.Context, int) (value, error) {
			time.Sleep(25 * time.Second)
			return value{}, errors.New("the database has failed")
		})

		if err != nil || v.version != 1 {
			s.Fatalf("LOST: the stale value does not stand in for the error: %v, %v", v, err)
		}
	})
}

func TestScenarioASlewedWallClockAgesNothingInARest(t *testing.T) {
	for _, delta := range []time.Duration{100 * ms, time.Second, 10 * time.Second} {
		for _, drift := range []time.Duration{ms, -ms} { // twice as much as NTP slews a clock
			play(t, func(s *scene) {
				x := s.sleeperOf(int64(drift), delta)

				time.Sleep(30 * time.Minute)
				x.Awaken(s.Context())

				if !x.holds() {
					s.Fatalf("LOST: a copy was aged because the wall clock was slewed (MaxStaleness %v)", delta)
				}
			})
		}
	}
}

func TestScenarioAMachineThatIsSuspendedInARestAnswersNoCopy(t *testing.T) {
	for phase := time.Duration(0); phase < 11*time.Second; phase += 300 * ms {
		play(t, func(s *scene) {
			b, x := s.actor("b"), s.sleeper(0)
			time.Sleep(time.Minute + phase)
			s.server.SetFaults(memtier.Faults{HintLost: 1})
			x.line.cut(true)
			defer x.line.cut(false)

			x.wall.Add(int64(time.Second))
			require.NoError(s, b.cache.Invalidate(s.Context(), core.Key("row:1")))

			if x.holds() {
				s.Fatalf("STALE: a copy that was invalidated during the suspension is served (phase %v)", phase)
			}
		})
	}
}

func TestScenarioAQueueIsWorkedOffInARest(t *testing.T) {
	play(t, func(s *scene) {
		s.actor("x").queue(queueOpts{}, nil)
		y := s.actor("y").queue(queueOpts{Workers: -1}, nil)
		time.Sleep(10 * time.Minute)

		y.put(1, 2)
		time.Sleep(5 * time.Second)

		if s.data.Load() != 2 {
			s.Fatal("LOST: the worker did not apply the change")
		}
	})
}

func TestScenarioAPartitionThatAnsweredBeforeARestCountsAsAnswering(t *testing.T) {
	play(t, func(s *scene) {
		x := s.sleeper(0)
		time.Sleep(time.Minute)

		if !x.Answers(0) {
			s.Fatal("SLOW: queued changes are not sent together")
		}
	})
}

func TestScenarioWarmStoresTogetherAfterARest(t *testing.T) {
	play(t, func(s *scene) {
		s.server.SetFaults(memtier.Faults{Request: delays(2 * ms), Reply: delays(2 * ms)})
		x := s.rested(time.Minute)
		leases := 0
		asked := func() { leases++ }
		x.line.leased.Store(&asked)
		ids := []int{2, 3, 4, 5, 6, 7, 8, 9}

		done, err := x.m.Warm(s.Context(), slices.Values(ids), func(_ context.Context, ids []int) (map[int]value, error) {
			got := make(map[int]value)
			for _, id := range ids {
				got[id] = value{version: 1}
			}
			return got, nil
		}, core.WarmOptions{})

		require.NoError(s, err)
		require.Equal(s, len(ids), done.Filled)
		if leases > 0 {
			s.Fatalf("SLOW: %d leases were taken for a batch", leases)
		}
	})
}

func TestScenarioHotIdsAreKeptWarmInARest(t *testing.T) {
	play(t, func(s *scene) {
		x := s.rested(0, class(func(c *core.Class) { c.TTL = time.Minute }))
		ctx, cancel := context.WithCancel(s.Context())
		defer cancel()
		s.reads.Go(func() {
			_ = x.m.KeepWarm(ctx, func(context.Context, []int) (map[int]value, error) {
				return map[int]value{1: {version: 1}}, nil
			}, core.KeepWarmOptions{Every: 30 * time.Second})
		})
		synctest.Wait()
		for range 10_000 { // it samples few of them
			x.must(1)
		}

		time.Sleep(5 * time.Minute)
		x.must(1)

		if n := s.loads.Load(); n > 1 {
			s.Fatal("LOST: the hot id had expired")
		}
		cancel()
	})
}
