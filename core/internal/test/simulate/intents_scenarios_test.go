package simulate_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
)

// dying begins a write on a tag at a new instance, commits version 2 and dies.
func dying(s *scene, lasts time.Duration, target core.Target) {
	y := s.actor("dying", func(o *core.Options) { o.WriteTimeout = lasts })
	_, err := y.cache.Begin(s.Context(), target)
	require.NoError(s, err)
	time.Sleep(10 * ms) // others have heard of it
	s.data.Store(2)
	y.tier.Kill()
}

func TestScenarioADeadlineRemovesCopiesFromBeforeTheWriter(t *testing.T) {
	for _, target := range []core.Target{core.Tag("row:1"), core.Key("row:1")} {
		play(t, func(s *scene) {
			x, z := s.actor("x"), s.actor("z")
			time.Sleep(time.Second)
			x.must(1)
			z.must(1)
			dying(s, 500*ms, target)
			x.must(1) // and keeps it
			time.Sleep(2 * time.Second)
			x.must(2)
			s.actor("new").must(2)
			z.must(2)
		})
	}
}

func TestScenarioADeadlineRemovesTheCopyOfANewInstance(t *testing.T) {
	play(t, func(s *scene) {
		x := s.actor("x", func(o *core.Options) { o.WriteTimeout = time.Minute })
		time.Sleep(time.Second)
		x.must(1)
		dying(s, 500*ms, core.Tag("row:1"))
		later, err := x.cache.Begin(s.Context(), core.Tag("row:1"))
		require.NoError(s, err)
		z := s.actor("z")
		z.must(1)
		z.must(1)
		time.Sleep(2 * time.Second)
		z.must(2)
		later.Abandon()
		z.must(2)
	})
}

func TestScenarioADeadlineStaysWhenAnotherWriterIsRefused(t *testing.T) {
	for _, target := range []core.Target{core.Tag("row:1"), core.Key("row:1")} {
		play(t, func(s *scene) {
			x := s.actor("x")
			time.Sleep(time.Second)
			x.must(1)
			dying(s, 500*ms, target)
			refused, err := x.cache.Begin(s.Context(), target)
			require.NoError(s, err)
			refused.Abandon()
			x.must(1)
			time.Sleep(2 * time.Second)
			s.actor("new").must(2)
			x.must(2)
		})
	}
}

func TestScenarioADeadlineOfARefusedWriterRemovesNothing(t *testing.T) {
	for _, target := range []core.Target{core.Tag("row:1"), core.Key("row:1")} {
		play(t, func(s *scene) {
			x, y := s.actor("x"), s.actor("y", func(o *core.Options) { o.WriteTimeout = 500 * ms })
			time.Sleep(time.Second)
			x.must(1)
			y.must(1)
			for range 10 {
				refused, err := y.cache.Begin(s.Context(), target)
				require.NoError(s, err)
				time.Sleep(100 * ms)
				refused.Abandon()
			}
			s.data.Store(2) // without an announcement
			time.Sleep(2 * time.Second)
			x.must(1)
			y.must(1)
			s.actor("new").must(1)
		})
	}
}
