package simulate_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/test/memtier"
)

// Data return after SWAPDB there and back, or after a restore in place. The servers keep
// their ids, no client is disconnected, and entries invalidated since are there again. An
// instance that has seen the later state begins a new era within its MaxStaleness.

func TestScenarioExchangedDataThatReturnsIsNotAnsweredOld(t *testing.T) {
	for name, target := range map[string]core.Target{
		"key": core.Key("row:1"), "tag": core.Tag("row:1"), "pattern": core.Pattern("row:*"), "all": core.All(),
	} {
		t.Run(name, func(t *testing.T) {
			play(t, func(s *scene) {
				x, y := s.actor("x"), s.actor("y")
				time.Sleep(time.Second)
				x.must(1)
				before := s.server.Swap(memtier.Snapshot{})
				time.Sleep(2 * time.Second) // all instances have begun a new era there
				x.must(1)
				s.data.Store(2)
				require.NoError(s, y.cache.Invalidate(s.Context(), target))
				time.Sleep(time.Second)
				s.server.Swap(before)
				time.Sleep(time.Second + ms)
				x.must(2)
				y.must(2)
				s.actor("z").must(2)
			})
		})
	}
}

// No instance that knew the returning era is left. Later instances go on writing, so that
// positions in the log pass the ones that they knew.
func TestScenarioOlderDataIsNotAnsweredByLaterInstances(t *testing.T) {
	for _, writes := range []bool{false, true} {
		play(t, func(s *scene) {
			first := s.actor("first")
			time.Sleep(time.Second)
			first.must(1)
			require.NoError(s, first.cache.Close())
			before := s.server.Swap(memtier.Snapshot{})
			x, y := s.actor("x"), s.actor("y")
			time.Sleep(time.Second)
			s.data.Store(2)
			require.NoError(s, y.cache.Invalidate(s.Context(), core.Key("row:1")))
			time.Sleep(time.Second)
			s.server.Swap(before)
			for n := range 100 {
				if writes {
					require.NoError(s, x.cache.Invalidate(s.Context(), core.Key("row:"+string(rune('A'+n%26)))))
				}
				time.Sleep(10 * ms)
			}
			time.Sleep(2 * ms)
			x.must(2)
			y.must(2)
			s.actor("z").must(2)
		})
	}
}

// No head was asked for meanwhile. The writer alone knows that its item is gone.
func TestScenarioInvalidationsHoldAfterABriefExchangeOfData(t *testing.T) {
	play(t, func(s *scene) {
		x, y := s.actor("x"), s.actor("y")
		time.Sleep(time.Second)
		x.must(1)
		s.server.SetFaults(memtier.Faults{HintLost: 1})
		for _, a := range []*actor{x, y} {
			a.line.noHeads.Store(true)
		}
		before := s.server.Swap(memtier.Snapshot{})
		s.data.Store(2)
		require.NoError(s, y.cache.Invalidate(s.Context(), core.Key("row:1")))
		s.server.Swap(before)
		for _, a := range []*actor{x, y} {
			a.line.noHeads.Store(false)
		}
		time.Sleep(time.Second + ms)
		x.must(2)
		y.must(2)
	})
}

// The log becomes an older one of the same era. An instance that has noticed, and could not
// begin a new era, does not adopt the log either.
func TestScenarioOlderDataOfAnEraIsNotAnsweredUntilTheNextBegins(t *testing.T) {
	for _, fails := range []time.Duration{0, time.Second + ms, 3 * time.Second} {
		play(t, func(s *scene) {
			x := s.actor("x")
			time.Sleep(time.Second)
			x.must(1)
			before := s.server.Snapshot()
			s.data.Store(2)
			require.NoError(s, x.cache.Invalidate(s.Context(), core.Key("row:1")))
			time.Sleep(time.Second)
			x.line.noEra.Store(true)
			s.server.Swap(before)
			if fails > 0 {
				time.Sleep(fails)
				x.must(2)
			}
			x.line.noEra.Store(false)
			time.Sleep(time.Second + ms)
			x.must(2)
			s.actor("z").must(2)
		})
	}
}
