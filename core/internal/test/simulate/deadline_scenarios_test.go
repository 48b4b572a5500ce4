package simulate_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/test/memtier"
)

// opened begins a write on a target at a new instance.
func opened(s *scene, lasts time.Duration, targets ...core.Target) *actor {
	y := s.actor("dying", func(o *core.Options) { o.WriteTimeout = lasts })
	_, err := y.cache.Begin(s.Context(), targets...)
	require.NoError(s, err)
	time.Sleep(10 * ms)
	return y
}

func TestLoadOfANewInstanceThatSpansADeadlineIsNotKept(t *testing.T) {
	play(t, func(s *scene) {
		x := s.actor("x")
		time.Sleep(time.Second)
		_ = x
		y := opened(s, 500*ms, core.Tag("row:1"))
		z := s.actor("z")
		time.Sleep(100 * ms)
		go func() { _, _ = z.get(2 * time.Second) }() // reads version 1
		time.Sleep(100 * ms)
		s.data.Store(2)
		y.tier.Kill()
		time.Sleep(5 * time.Second)
		z.must(2)
	})
}

func TestLoadOfANewInstanceThatSpansADeadlineIsNotJoined(t *testing.T) {
	for _, target := range []core.Target{core.Tag("row:1"), core.Key("row:1")} {
		play(t, func(s *scene) {
			x := s.actor("x")
			time.Sleep(time.Second)
			_ = x
			y := opened(s, 500*ms, target)
			z := s.actor("z")
			time.Sleep(100 * ms)
			go func() { _, _ = z.get(9 * time.Second) }() // reads version 1
			time.Sleep(100 * ms)
			s.data.Store(2)
			y.tier.Kill()
			time.Sleep(7 * time.Second)
			z.must(2)
		})
	}
}

func TestReadThatBeganJustBeforeADeadlineIsNotKept(t *testing.T) {
	for i := range 100 {
		play(t, func(s *scene) {
			x := s.actor("x")
			time.Sleep(time.Second)
			x.must(1)
			y := s.actor("dying", func(o *core.Options) { o.WriteTimeout = 10 * time.Second })
			_, err := y.cache.Begin(s.Context(), core.Tag("row:1"))
			require.NoError(s, err)
			deadline := time.Now().Add(10 * time.Second)
			time.Sleep(time.Second)
			s.data.Store(2)
			y.tier.Kill()
			time.Sleep(time.Until(deadline) - time.Duration(1+i%10*2)*ms) // x cannot know whether it has passed
			s.server.SetFaults(memtier.Faults{Reply: memtier.Delay{Min: time.Duration(10+i/10*15) * ms, Max: time.Duration(10+i/10*15) * ms}})
			v0, _ := x.get(0)
			s.server.SetFaults(memtier.Faults{})
			time.Sleep(10 * time.Second)
			if v, _ := x.get(0); v < 2 {
				s.Errorf("STALE at %d, answered %d", i, v0)
			}
		})
	}
}

func TestServerClockThatIsSetBackLeavesNoCopyPastADeadline(t *testing.T) {
	play(t, func(s *scene) {
		x := s.actor("x")
		time.Sleep(time.Second)
		x.must(1)
		y := opened(s, 500*ms, core.Tag("row:1"))
		s.server.Skew(-3 * time.Second)
		s.data.Store(2)
		y.tier.Kill()
		time.Sleep(time.Second)
		x.must(1)
		time.Sleep(10 * time.Second)
		s.actor("new").must(2)
		x.must(2)
	})
}

func TestServerWithAnotherClockLeavesNoCopyPastADeadline(t *testing.T) {
	for i := range 60 {
		for _, d := range []time.Duration{-3 * time.Second, 3 * time.Second} {
			play(t, func(s *scene) {
				s.server.SetFaults(memtier.Faults{Request: delays(10 * ms), Reply: delays(30 * ms)})
				x, z := s.actor("x"), s.actor("z")
				time.Sleep(time.Second + time.Duration(i)*20*ms)
				x.must(1)
				z.must(1)
				y := opened(s, 8*time.Second, core.Tag("row:1"))
				time.Sleep(time.Second)
				s.server.Restart()
				s.server.Skew(d)
				time.Sleep(3 * time.Second)
				x.must(1)
				z.must(1)
				s.data.Store(2)
				y.tier.Kill()
				for range 10 {
					time.Sleep(500 * ms)
					x.must(1)
					z.must(1)
				}
				time.Sleep(10 * time.Second)
				x.must(2)
				z.must(2)
			})
		}
	}
}

func TestLaggingReplicaAfterADeadlineFillsInNothingOld(t *testing.T) {
	play(t, func(s *scene) {
		lags := func(o *core.Options) {
			o.Classes = core.Classes{"c": {TTL: time.Hour, LoadTimeout: 10 * time.Second, ReplicaLag: 2 * time.Second}}
		}
		x := s.actor("x", lags)
		time.Sleep(3 * time.Second)
		x.must(1)
		y := s.actor("dying", lags, func(o *core.Options) { o.WriteTimeout = 10 * time.Second })
		time.Sleep(time.Second)
		_, err := y.cache.Begin(s.Context(), core.Tag("row:1"))
		require.NoError(s, err)
		z := s.actor("new", lags)
		time.Sleep(9900 * ms) // it commits, which the replica shows in two seconds
		y.tier.Kill()
		time.Sleep(200 * ms)
		z.must(1)
		time.Sleep(1700 * ms)
		s.data.Store(2)
		time.Sleep(10 * time.Second)
		s.actor("newer", lags).must(2)
		x.must(2)
	})
}
