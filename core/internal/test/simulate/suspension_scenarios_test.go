package simulate_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/coherence"
	"github.com/larderhq/larder/core/internal/local"
	"github.com/larderhq/larder/core/internal/test/memtier"
	"github.com/larderhq/larder/core/internal/tier"
)

// sleeper is an instance on a machine that can be suspended. The bubble's clock is the
// monotonic clock of that machine, and stands for the other machines' as well: during a
// suspension it stands still, and the wall clock advances.
type sleeper struct {
	*coherence.Engine
	line *line
	wall atomic.Int64 // nanoseconds by which the wall clock is ahead
	log  bytes.Buffer // of warnings; read it when the instance is idle
}

// sleeper opens an instance with a MaxStaleness of one second, whose wall clock gains drift
// nanoseconds per second, and stores row 1 in it.
func (s *scene) sleeper(drift int64) *sleeper { return s.sleeperOf(drift, time.Second) }

// sleeperOf is sleeper with a MaxStaleness.
func (s *scene) sleeperOf(drift int64, delta time.Duration) *sleeper {
	s.Helper()
	sl := new(sleeper)
	begun := time.Now()
	a := &actor{s: s, tier: s.server.Tier("x"), parts: 4}
	sl.line = &a.line
	var err error
	sl.Engine, err = coherence.New(coherence.Settings{MaxBytes: 1 << 20, LongestLoad: time.Second, Refreshes: 1, Shared: &coherence.Sharing{
		Tier: a, Budget: 50 * ms, Log: slog.New(slog.NewTextHandler(&sl.log, nil)),
		Layout: tier.Layout{Namespace: "larder", Partitions: 4, MaxStaleness: delta},
		Wall: func() int64 {
			now := time.Now()
			return now.UnixNano() + sl.wall.Load() + int64(now.Sub(begun).Seconds()*float64(drift))
		},
	}})
	require.NoError(s, err)
	s.Cleanup(func() { _ = sl.Close(context.Background()) })
	time.Sleep(3 * time.Second)
	turn, _, err := sl.Enter(s.Context(), "row:1", nil, local.Gate{MaxLoadsAfterError: 1, Wait: time.Second})
	require.NoError(s, err)
	require.Nil(s, turn.Fetch(s.Context(), coherence.Query{Codec: bytesCodec{}, Wait: time.Second}).Entry)
	_, refused := turn.Fill(s.Context(), local.Fill{Value: []byte("old"), Lifetime: local.Lifetime{Fresh: time.Hour}, Codec: bytesCodec{}})
	require.Equal(s, local.Stored, refused)
	turn.Finish(local.Outcome{Verdict: local.Unshareable})
	return sl
}

func (sl *sleeper) holds() bool {
	_, state := sl.Lookup("row:1")
	return state == local.Fresh
}

func TestScenarioASuspendedMachineAnswersNoCopyWhenItResumes(t *testing.T) {
	play(t, func(s *scene) {
		b, x := s.actor("b"), s.sleeper(0)
		require.True(s, x.holds())

		// It is suspended: its clock stands still while the others run, and no message arrives.
		s.server.SetFaults(memtier.Faults{HintLost: 1})
		x.wall.Add(int64(time.Hour))
		require.NoError(s, b.cache.Invalidate(s.Context(), core.Key("row:1")))
		if _, state := x.Lookup("row:1"); state != local.Gone {
			s.Fatal("STALE: a copy that was invalidated during the suspension is served")
		}
		time.Sleep(time.Second)
		if _, state := x.Lookup("row:1"); state != local.Gone {
			s.Fatal("STALE: a copy that was invalidated during the suspension is served later")
		}

		// A second suspension soon after the first is not reported again.
		x.wall.Add(int64(time.Hour))
		x.Lookup("row:1")
		time.Sleep(time.Second)
		synctest.Wait()
		require.Equal(s, 1, strings.Count(x.log.String(), "the machine was suspended"))
	})
}

func TestScenarioABriefSuspensionIsPartOfMaxStaleness(t *testing.T) {
	for name, suspension := range map[string]struct {
		each  time.Duration
		times int
		drift int64
	}{
		"one that is just tolerated":                   {each: time.Second / 16, times: 1},
		"a quarter of MaxStaleness":                    {each: time.Second / 4, times: 1},
		"several brief ones":                           {each: 30 * ms, times: 8},
		"a wall clock that has been slewed backwards":  {each: 115 * ms, times: 1, drift: -int64(10 * ms)},
		"a wall clock that is slewed back, and longer": {each: 200 * ms, times: 1, drift: -int64(20 * ms)},
	} {
		t.Run(name, func(t *testing.T) {
			for phase := time.Duration(0); phase < 500*ms; phase += 20 * ms {
				play(t, func(s *scene) {
					b, x := s.actor("b"), s.sleeper(suspension.drift)
					time.Sleep(3*time.Second + phase)
					require.True(s, x.holds())

					// It hears nothing of an invalidation, and is suspended then.
					s.server.SetFaults(memtier.Faults{HintLost: 1})
					x.line.cut(true)
					require.NoError(s, b.cache.Invalidate(s.Context(), core.Key("row:1")))
					left := time.Second
					for range suspension.times {
						time.Sleep(5 * ms)
						x.wall.Add(int64(suspension.each))
						left -= 5*ms + suspension.each
					}

					time.Sleep(left)
					if x.holds() {
						s.Fatalf("STALE: a copy is served at the end of MaxStaleness after an invalidation (phase %v)", phase)
					}
					x.line.cut(false)
				})
			}
		})
	}
}

func TestScenarioASlewedWallClockAgesNothing(t *testing.T) {
	for _, drift := range []time.Duration{20 * ms, -20 * ms} {
		play(t, func(s *scene) {
			x := s.sleeper(int64(drift))

			for range 120 { // its requests keep it from resting
				time.Sleep(500 * ms)
				x.holds()
			}

			if !x.holds() {
				s.Fatal("LOST: a copy was aged because the wall clock was slewed")
			}
		})
	}
}
