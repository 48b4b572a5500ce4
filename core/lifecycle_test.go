package core_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
)

// The switch.

func TestACacheThatIsOffRunsLoadersAndStoresNothing(t *testing.T) {
	bubble(t, core.Class{TTL: hour}, func(t *testing.T, m *items) {
		require.True(t, m.cache.Enabled())
		m.cache.SetEnabled(false)
		require.False(t, m.cache.Enabled())
		for range 3 {
			require.Equal(t, "one", m.get(t))
		}
		m.mustLoad(t, 3, "")
		v, err := m.Get(t.Context(), 1, func(ctx context.Context, id int) (item, error) {
			require.NoError(t, core.AddTags(ctx, "a"), "what a loader says is heard")
			return m.load(ctx, id)
		})
		require.NoError(t, err)
		require.Equal(t, "one", v.Name)
		require.NoError(t, m.Put(t.Context(), 1, item{Name: "put"}))
		stats := m.cache.Stats()
		require.Zero(t, stats.Entries)
		require.EqualValues(t, 4, stats.Bypassed)
		m.cache.SetEnabled(true)
		m.loads.Store(0)
		m.get(t)
		m.get(t)
		m.mustLoad(t, 1, "")
	})
}

func TestInvalidationsHoldWhileTheCacheIsOff(t *testing.T) {
	for name, write := range map[string]func(t *testing.T, m *items){
		"key": func(t *testing.T, m *items) {
			require.NoError(t, m.cache.Invalidate(t.Context(), core.Key("item:1")))
		},
		"tag": func(t *testing.T, m *items) {
			require.NoError(t, m.cache.Invalidate(t.Context(), core.Tag("item:1")))
		},
		"pattern": func(t *testing.T, m *items) {
			require.NoError(t, m.cache.Invalidate(t.Context(), core.Pattern("item:*")))
		},
		"all": func(t *testing.T, m *items) { require.NoError(t, m.cache.Invalidate(t.Context(), core.All())) },
		"put": func(t *testing.T, m *items) { require.NoError(t, m.Put(t.Context(), 1, item{Name: "two"})) },
		"intent": func(t *testing.T, m *items) {
			in, err := m.cache.Begin(t.Context(), core.Key("item:1"))
			require.NoError(t, err)
			require.NoError(t, in.End(t.Context()))
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, core.Class{TTL: hour}, func(t *testing.T, m *items) {
				m.get(t)
				m.cache.SetEnabled(false)
				m.name.Store("two")
				write(t, m)
				m.cache.SetEnabled(true)
				require.Equal(t, "two", m.get(t))

				// A load that began before the switch was thrown is fenced as well.
				require.NoError(t, m.Invalidate(t.Context(), 1))
				release := m.hold()
				before := m.async(t.Context(), m.load)
				synctest.Wait()
				m.cache.SetEnabled(false)
				m.name.Store("two")
				write(t, m)
				release()
				synctest.Wait()
				before.name(t)
				m.cache.SetEnabled(true)
				require.Equal(t, "two", m.get(t))
			})
		})
	}
}

func TestEntriesOutlastASwitchOffAndOn(t *testing.T) {
	bubble(t, core.Class{TTL: hour}, func(t *testing.T, m *items) {
		m.get(t)
		m.cache.SetEnabled(false)
		m.cache.SetEnabled(true)
		m.get(t)
		m.mustLoad(t, 1, "")
	})
}

// Close.

func TestAClosedCacheRunsLoadersAndRefusesWriters(t *testing.T) {
	m := openItems(t, core.Class{TTL: hour})
	m.get(t)
	in, err := m.cache.Begin(t.Context(), core.Tag("a"))
	require.NoError(t, err)
	require.NoError(t, m.cache.Close())
	require.NoError(t, m.cache.Close())
	require.False(t, m.cache.Enabled())
	m.loads.Store(0)
	require.Equal(t, "one", m.get(t))
	require.Equal(t, "one", m.get(t))
	m.mustLoad(t, 2, "as if there were no cache")

	require.ErrorIs(t, m.cache.Invalidate(t.Context(), core.All()), core.ErrClosed)
	require.ErrorIs(t, m.Invalidate(t.Context(), 1), core.ErrClosed)
	require.ErrorIs(t, m.Put(t.Context(), 1, item{}), core.ErrClosed)
	_, err = m.cache.Begin(t.Context(), core.Tag("a"))
	require.ErrorIs(t, err, core.ErrClosed)
	require.NoError(t, in.End(t.Context()), "there is nothing left that could be old")
	m.cache.SetEnabled(true)
	require.False(t, m.cache.Enabled())
	require.Zero(t, m.cache.Stats().Entries)
}

func TestCloseWaitsForALoaderUntilTheCloseTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := core.New(core.Options{CloseTimeout: 2 * time.Second, Classes: core.Classes{"item": {TTL: minute}}})
		require.NoError(t, err)
		m := itemsOf(t, c)
		release := m.hold()
		p := m.async(t.Context(), m.load)
		synctest.Wait()
		start := time.Now()
		err = c.Close()
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "larder: close: loads still running after 2s")
		require.Equal(t, 2*time.Second, time.Since(start))
		require.NoError(t, c.Close())
		release()
		synctest.Wait()
		require.Equal(t, "one", p.name(t), "its caller gets the value all the same")
	})
}

// Stats.

func TestStatsCountRequestsAndLoads(t *testing.T) {
	bubble(t, core.Class{TTL: minute, StaleWhileRevalidate: minute, StaleIfError: hour, MaxEntryBytes: 100}, func(t *testing.T, m *items) {
		before := m.cache.Stats()
		require.Equal(t, core.Stats{}, before)
		counts := func(change func(), want core.Stats) {
			t.Helper()
			before := m.cache.Stats()
			change()
			synctest.Wait()
			after := m.cache.Stats()
			want.Entries, want.Bytes, want.Tags = after.Entries, after.Bytes, after.Tags
			require.Equal(t, want, core.Stats{
				Hits: after.Hits - before.Hits, StaleHits: after.StaleHits - before.StaleHits, Misses: after.Misses - before.Misses,
				Bypassed: after.Bypassed - before.Bypassed, Coalesced: after.Coalesced - before.Coalesced, Loads: after.Loads - before.Loads,
				LoadErrors: after.LoadErrors - before.LoadErrors, Panics: after.Panics - before.Panics, Refreshes: after.Refreshes - before.Refreshes,
				Skipped: after.Skipped - before.Skipped, Stored: after.Stored - before.Stored, Refused: after.Refused - before.Refused,
				Invalidations: after.Invalidations - before.Invalidations, Evicted: after.Evicted - before.Evicted,
				Undecodable: after.Undecodable - before.Undecodable, Entries: after.Entries, Bytes: after.Bytes, Tags: after.Tags,
			})
		}
		counts(func() { m.get(t) }, core.Stats{Misses: 1, Loads: 1, Stored: 1})
		require.Equal(t, 1, m.cache.Stats().Entries)
		require.Equal(t, 1, m.cache.Stats().Tags)
		require.Greater(t, m.cache.Stats().Bytes, uint64(20))
		counts(func() { m.get(t); m.get(t) }, core.Stats{Hits: 2})
		counts(func() { require.NoError(t, m.cache.Invalidate(t.Context(), core.Tag("a"), core.Tag("b"))) }, core.Stats{Invalidations: 2})
		time.Sleep(minute)
		counts(func() { m.get(t) }, core.Stats{StaleHits: 1, Loads: 1, Refreshes: 1, Stored: 1})
		time.Sleep(2 * minute)
		m.fail(errDown)
		counts(func() { m.get(t) }, core.Stats{Misses: 1, StaleHits: 1, Loads: 1, LoadErrors: 1})
		require.NoError(t, m.Invalidate(t.Context(), 1))
		counts(func() { _, _ = m.Get(t.Context(), 1, m.load) }, core.Stats{Misses: 1, Loads: 1, LoadErrors: 1})
		m.fail(nil)
		counts(func() {
			release := m.hold()
			for range 5 {
				m.async(t.Context(), m.load)
			}
			synctest.Wait()
			require.NoError(t, m.cache.Invalidate(t.Context(), core.Key("item:1")))
			release()
		}, core.Stats{Misses: 5, Loads: 1, Coalesced: 4, Refused: 1, Invalidations: 1})
		counts(func() {
			_, _ = m.Get(t.Context(), 1, func(context.Context, int) (item, error) { panic("boom") })
		}, core.Stats{Misses: 1, Loads: 1, LoadErrors: 1, Panics: 1})
		m.cache.SetEnabled(false)
		counts(func() { m.get(t) }, core.Stats{Bypassed: 1})
	})
}

func TestStatsCountOnlyRunsOfLoadersAsLoads(t *testing.T) {
	t.Run("somebody filled it between the look and the turn", func(t *testing.T) {
		bubble(t, core.Class{TTL: hour}, func(t *testing.T, m *items) {
			_, err := m.Get(&hookedContext{Context: t.Context(), hook: func() { m.get(t) }}, 1, m.load)
			require.NoError(t, err)
			require.Equal(t, m.loads.Load(), m.cache.Stats().Loads)
		})
	})
	t.Run("as many refreshes as may run", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m := itemsOf(t, open(t, core.Options{MaxRefreshes: 1, Classes: core.Classes{"item": {TTL: minute, StaleWhileRevalidate: hour}}}))
			for id := range 5 {
				_, err := m.Get(t.Context(), id, m.load)
				require.NoError(t, err)
			}
			time.Sleep(minute)
			release := m.hold()
			for id := range 5 {
				_, err := m.Get(t.Context(), id, m.load)
				require.NoError(t, err)
			}
			synctest.Wait()
			require.Equal(t, m.loads.Load(), m.cache.Stats().Loads)
			release()
		})
	})
	t.Run("a refresh that fails answers nobody", func(t *testing.T) {
		bubble(t, core.Class{TTL: minute, StaleWhileRevalidate: minute, StaleIfError: hour}, func(t *testing.T, m *items) {
			m.get(t)
			time.Sleep(minute)
			m.fail(errDown)
			m.get(t)
			synctest.Wait()
			require.EqualValues(t, 1, m.cache.Stats().StaleHits)
		})
	})
}
