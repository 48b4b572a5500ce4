package core_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/local"
)

func TestAGetAfterTheTTLIsAMiss(t *testing.T) {
	bubble(t, core.Class{TTL: minute}, func(t *testing.T, m *items) {
		require.Equal(t, "one", m.get(t))
		m.name.Store("two")
		time.Sleep(minute - 1)
		require.Equal(t, "one", m.get(t))
		time.Sleep(1)
		require.Equal(t, "two", m.get(t))
		m.mustLoad(t, 2, "")
	})
}

func TestTheShortestTTLIsKept(t *testing.T) {
	bubble(t, core.Class{TTL: time.Millisecond}, func(t *testing.T, m *items) {
		m.get(t)
		time.Sleep(time.Millisecond - 1)
		m.get(t)
		m.mustLoad(t, 1, "")
		time.Sleep(1)
		m.get(t)
		m.mustLoad(t, 1, "")
	})
}

func TestJitterSpreadsExpiries(t *testing.T) {
	bubble(t, core.Class{TTL: 100 * time.Second, Jitter: 0.5}, func(t *testing.T, m *items) {
		const n = 1000
		for id := range n {
			_, err := m.Get(t.Context(), id, m.load)
			require.NoError(t, err)
		}
		expired := func(at time.Duration) int {
			time.Sleep(at)
			m.loads.Store(0)
			for id := range n {
				// A loader that stores nothing leaves the picture as it is.
				_, err := m.Get(t.Context(), id, func(ctx context.Context, id int) (item, error) {
					require.NoError(t, core.NoStore(ctx))
					return m.load(ctx, id)
				})
				require.NoError(t, err)
			}
			return int(m.loads.Load())
		}
		require.Zero(t, expired(50*time.Second-1), "no more than half is taken off")
		require.InDelta(t, n/4, expired(12500*time.Millisecond), 100)
		require.InDelta(t, n/2, expired(12500*time.Millisecond), 100)
		require.InDelta(t, n*3/4, expired(12500*time.Millisecond), 100)
		require.Equal(t, n, expired(12500*time.Millisecond+1), "and nothing is added")
	})
}

func TestJitterOfOneLeavesAMillisecond(t *testing.T) {
	for range 10_000 {
		ttl := local.Jittered(2*time.Millisecond, 1)
		require.GreaterOrEqual(t, ttl, time.Millisecond)
		require.LessOrEqual(t, ttl, 2*time.Millisecond)
	}
	require.Equal(t, hour, local.Jittered(hour, 0))
	require.Zero(t, local.Jittered(0, 1))
}

// Stale while revalidate.

func TestAStaleHitIsAnsweredAndRefreshed(t *testing.T) {
	bubble(t, core.Class{TTL: minute, StaleWhileRevalidate: minute}, func(t *testing.T, m *items) {
		m.get(t)
		for i := range 5 { // not only the first time
			old, next := fmt.Sprint("v", i), fmt.Sprint("v", i+1)
			if i == 0 {
				old = "one"
			}
			m.loads.Store(0)
			m.name.Store(next)
			time.Sleep(minute)
			release := m.hold()
			require.Equal(t, old, m.get(t), "the stale value is answered at once")
			synctest.Wait()
			m.mustLoad(t, 1, "and refreshed in the background")
			for range 3 {
				require.Equal(t, old, m.get(t))
			}
			synctest.Wait()
			m.mustLoad(t, 0, "once")
			release()
			synctest.Wait()
			require.Equal(t, next, m.get(t))
			time.Sleep(minute - 1)
			require.Equal(t, next, m.get(t), "for the whole of its TTL")
			m.mustLoad(t, 0, "")
			time.Sleep(1)
			m.name.Store(next)
			require.Equal(t, next, m.get(t))
			synctest.Wait()
		}
		require.EqualValues(t, 10, m.cache.Stats().Refreshes)
	})
}

func TestAGetAfterTheStaleWindowIsAMiss(t *testing.T) {
	bubble(t, core.Class{TTL: minute, StaleWhileRevalidate: minute}, func(t *testing.T, m *items) {
		m.get(t)
		m.name.Store("two")
		time.Sleep(2 * minute)
		require.Equal(t, "two", m.get(t))
	})
}

func TestAFailedRefreshIsRetriedAndKeepsTheStaleValue(t *testing.T) {
	bubble(t, core.Class{TTL: minute, StaleWhileRevalidate: minute}, func(t *testing.T, m *items) {
		m.get(t)
		m.mustLoad(t, 1, "")
		time.Sleep(minute)
		for _, failure := range []func(context.Context, int) (item, error){
			func(context.Context, int) (item, error) { m.loads.Add(1); return item{}, errDown },
			func(context.Context, int) (item, error) { m.loads.Add(1); panic("boom") },
		} {
			v, err := m.Get(t.Context(), 1, failure)
			require.NoError(t, err)
			require.Equal(t, "one", v.Name)
			synctest.Wait()
			m.mustLoad(t, 1, "")
		}
		m.name.Store("two")
		require.Equal(t, "one", m.get(t))
		synctest.Wait()
		require.Equal(t, "two", m.get(t))
	})
}

func TestARefreshOutlivesItsClient(t *testing.T) {
	bubble(t, core.Class{TTL: minute, StaleWhileRevalidate: minute, LoadTimeout: 3 * time.Second}, func(t *testing.T, m *items) {
		m.get(t)
		time.Sleep(minute)
		m.name.Store("two")
		ctx, cancel := context.WithCancel(t.Context())
		release := m.hold()
		_, err := m.Get(ctx, 1, func(ctx context.Context, id int) (item, error) {
			v, err := m.load(ctx, id)
			if deadline, ok := ctx.Deadline(); !ok || time.Until(deadline) > 3*time.Second {
				t.Error("a refresh has the class's time limit")
			}
			return v, errors.Join(err, ctx.Err())
		})
		require.NoError(t, err)
		cancel()
		synctest.Wait()
		release()
		synctest.Wait()
		require.Equal(t, "two", m.get(t))
	})
}

func TestAnInvalidatedStaleValueIsNeitherAnsweredNorRefreshed(t *testing.T) {
	for name, target := range map[string]core.Target{
		"key": core.Key("item:1"), "tag": core.Tag("item:1"), "pattern": core.Pattern("item:?"), "all": core.All(),
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, core.Class{TTL: minute, StaleWhileRevalidate: minute, StaleIfError: hour}, func(t *testing.T, m *items) {
				m.get(t)
				time.Sleep(minute)
				release := m.hold()
				require.Equal(t, "one", m.get(t))
				synctest.Wait() // the refresh has read
				m.name.Store("two")
				require.NoError(t, m.cache.Invalidate(t.Context(), target))
				later := m.async(t.Context(), m.load)
				synctest.Wait()
				require.False(t, later.done(), "the stale value must not be answered")
				release()
				synctest.Wait()
				require.Equal(t, "two", later.name(t))
				require.Equal(t, "two", m.get(t))
			})
		})
	}
}

func TestRefreshesBeyondMaxRefreshesAreSkipped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := itemsOf(t, open(t, core.Options{MaxRefreshes: 3, Classes: core.Classes{"item": {TTL: minute, StaleWhileRevalidate: hour}}}))
		getAll := func() {
			for id := range 10 {
				_, err := m.Get(t.Context(), id, m.load)
				require.NoError(t, err)
			}
			synctest.Wait()
		}
		getAll()
		m.mustLoad(t, 10, "")
		time.Sleep(minute)
		release := m.hold()
		getAll()
		m.mustLoad(t, 3, "as many as may run")
		require.EqualValues(t, 7, m.cache.Stats().Skipped)
		release()
		synctest.Wait()
		getAll()
		require.Positive(t, m.loads.Load(), "and later ones follow")
		for range 10 {
			getAll()
		}
		require.EqualValues(t, 17, m.loads.Load()+10, "each value once")
	})
}

// Early refresh.

func TestHitsNearTheExpiryRefreshEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := itemsOf(t, open(t, core.Options{MaxRefreshes: 2000, Classes: core.Classes{"item": {TTL: 100 * time.Second}}}))
		slow := func(ctx context.Context, id int) (item, error) {
			time.Sleep(time.Second) // the load time is measured, and exact in a bubble
			return m.load(ctx, id)
		}
		const n = 2000
		done := make(chan error, n)
		getAll := func() {
			for id := range n {
				go func() { _, err := m.Get(t.Context(), id, slow); done <- err }()
			}
			for range n {
				require.NoError(t, <-done)
			}
			synctest.Wait()
		}
		getAll()
		m.mustLoad(t, n, "")
		time.Sleep(50 * time.Second)
		getAll()
		time.Sleep(2 * time.Second)
		m.mustLoad(t, 0, "fifty load times before the end nobody refreshes")
		time.Sleep(46 * time.Second)
		getAll() // two load times before the end
		require.EqualValues(t, 2*n, m.cache.Stats().Hits)
		time.Sleep(time.Second)
		synctest.Wait()
		want := n * math.Exp(-2)
		require.InDelta(t, want, float64(m.loads.Load()), 6*math.Sqrt(want), "the chance is exp(-left/load time)")
		require.Equal(t, m.loads.Load(), m.cache.Stats().Refreshes)
	})
}

// Stale if error.

func TestAStaleValueStandsInForAnErrorWithinItsWindow(t *testing.T) {
	for name, failure := range map[string]error{
		"an error": errDown, "a cancellation": context.Canceled, "a deadline": context.DeadlineExceeded,
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, core.Class{TTL: minute, StaleIfError: hour}, func(t *testing.T, m *items) {
				m.get(t)
				m.fail(failure)
				time.Sleep(minute)
				require.Equal(t, "one", m.get(t))
				time.Sleep(hour - 1)
				release := m.hold()
				one, two := m.async(t.Context(), m.load), m.async(t.Context(), m.load)
				synctest.Wait()
				release()
				synctest.Wait()
				require.Equal(t, "one", one.name(t))
				require.Equal(t, "one", two.name(t), "for those who wait too")
				require.EqualValues(t, 0, m.cache.Stats().Hits)
				time.Sleep(1)
				_, err := m.Get(t.Context(), 1, m.load)
				require.ErrorIs(t, err, failure)
			})
		})
	}
}

func TestAnInvalidatedValueDoesNotStandInForAnError(t *testing.T) {
	for name, target := range map[string]core.Target{
		"key": core.Key("item:1"), "tag": core.Tag("item:1"), "pattern": core.Pattern("item:?"), "all": core.All(),
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, core.Class{TTL: minute, StaleIfError: hour}, func(t *testing.T, m *items) {
				m.get(t)
				time.Sleep(minute)
				m.fail(errDown)
				require.Equal(t, "one", m.get(t))
				require.NoError(t, m.cache.Invalidate(t.Context(), target))
				_, err := m.Get(t.Context(), 1, m.load)
				require.ErrorIs(t, err, errDown)
			})
		})
	}
}

func TestAGetAfterAStaleIfErrorAnswerLoads(t *testing.T) {
	bubble(t, core.Class{TTL: minute, StaleIfError: hour}, func(t *testing.T, m *items) {
		m.get(t)
		time.Sleep(minute)
		m.fail(errDown)
		require.Equal(t, "one", m.get(t))
		m.fail(nil)
		m.name.Store("two")
		require.Equal(t, "two", m.get(t))
	})
}

func TestAStaleValueDoesNotStandInForNotFound(t *testing.T) {
	bubble(t, core.Class{TTL: minute, StaleIfError: hour}, func(t *testing.T, m *items) {
		m.get(t)
		time.Sleep(minute)
		m.fail(core.ErrNotFound)
		_, err := m.Get(t.Context(), 1, m.load)
		require.ErrorIs(t, err, core.ErrNotFound)
	})
}
