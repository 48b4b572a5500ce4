package simulate_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/local"
)

// The ages of nested loads would add up: b hears nothing, and each load is joined when it is
// nearly as old as MaxStaleness.
func TestScenarioALoadThatContainsAnOldOneIsNotJoined(t *testing.T) {
	play(t, func(s *scene) {
		a, b := s.actor("a"), s.actor("b")
		pages, err := core.NewMap(b.cache, core.MapOptions[int, value]{Class: "c", Prefix: "page", Codec: codec{}})
		require.NoError(s, err)
		time.Sleep(time.Second)
		b.line.cut(true)
		time.Sleep(2 * time.Second) // nothing is legal any more

		// A load of the row reads version 1.
		go func() { _, _ = b.get(time.Second) }()
		time.Sleep(100 * ms)
		s.data.Store(2)
		require.NoError(s, a.cache.Invalidate(s.Context(), core.Key("row:1")))

		// A page joins it.
		time.Sleep(750 * ms)
		goOn, first, later := make(chan struct{}), make(chan int64, 1), make(chan int64, 1)
		get := func(got chan<- int64) {
			v, err := pages.Get(s.Context(), 1, func(ctx context.Context, _ int) (value, error) {
				row, err := b.m.Get(ctx, 1, func(context.Context, int) (value, error) {
					return value{version: s.data.Load()}, nil
				})
				<-goOn
				return row, err
			})
			require.NoError(s, err)
			got <- v.version
		}
		go get(first)

		// A reader joins the page's load.
		time.Sleep(900 * ms)
		go get(later)
		synctest.Wait()
		time.Sleep(100 * ms)
		close(goOn)
		<-first // it may be either
		if v := <-later; v != 2 {
			s.Fatalf("STALE: a reader received version %d, 1.65 s after version 2 was announced", v)
		}
		b.line.cut(false)
	})
}

func TestScenarioALoadFromBeforeASuspensionIsNotJoined(t *testing.T) {
	play(t, func(s *scene) {
		x := s.sleeper(0)
		x.line.cut(true) // from here on the watchdog waits for an answer
		time.Sleep(600 * ms)
		gate := local.Gate{MaxLoadsAfterError: 1, Wait: 10 * time.Second}
		leader, _, err := x.Enter(s.Context(), "row:2", nil, gate)
		require.NoError(s, err)
		require.NotNil(s, leader)

		x.wall.Add(int64(time.Hour))

		loads := make(chan bool, 1)
		go func() {
			turn, _, err := x.Enter(s.Context(), "row:2", nil, gate)
			if turn != nil {
				turn.Finish(local.Outcome{Verdict: local.Failed})
			}
			loads <- err == nil && turn != nil
		}()
		synctest.Wait()
		if len(loads) == 0 {
			s.Error("STALE: a reader joins a load from before the suspension")
		}
		leader.Finish(local.Outcome{Verdict: local.Failed})
		<-loads
		x.line.cut(false)
	})
}
