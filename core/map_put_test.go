package core_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
)

func TestAPutValueIsAHitForItsTTL(t *testing.T) {
	bubble(t, core.Class{TTL: minute}, func(t *testing.T, m *items) {
		require.NoError(t, m.Put(t.Context(), 1, item{Name: "put"}))
		require.Equal(t, "put", m.get(t))
		require.NoError(t, m.Put(t.Context(), 1, item{Name: "again"}))
		require.Equal(t, "again", m.get(t))
		time.Sleep(minute - 1)
		require.Equal(t, "again", m.get(t))
		m.mustLoad(t, 0, "")
		time.Sleep(1)
		require.Equal(t, "one", m.get(t))
	})
}

func TestALoadUnderWayDoesNotReplaceAPutValue(t *testing.T) {
	bubble(t, core.Class{TTL: minute, StaleWhileRevalidate: minute}, func(t *testing.T, m *items) {
		release := m.hold()
		before := m.async(t.Context(), m.load)
		synctest.Wait()
		require.NoError(t, m.Put(t.Context(), 1, item{Name: "put"}))
		require.Equal(t, "put", m.get(t))
		release()
		synctest.Wait()
		require.Equal(t, "one", before.name(t), "it began before")
		require.Equal(t, "put", m.get(t))

		time.Sleep(minute) // and the same with a refresh
		release = m.hold()
		require.Equal(t, "put", m.get(t))
		synctest.Wait()
		m.mustLoad(t, 2, "")
		require.NoError(t, m.Put(t.Context(), 1, item{Name: "put again"}))
		release()
		synctest.Wait()
		require.Equal(t, "put again", m.get(t))
	})
}

func TestPutAndInvalidateReachEntriesTaggedWithTheKey(t *testing.T) {
	bubble(t, core.Class{TTL: hour}, func(t *testing.T, m *items) {
		lists, err := core.NewMap(m.cache, core.MapOptions[string, []string]{Class: "item", Prefix: "list"})
		require.NoError(t, err)
		loads := 0
		list := func() {
			_, err := lists.Get(t.Context(), "all", func(ctx context.Context, _ string) ([]string, error) {
				loads++
				return []string{"one"}, core.AddTags(ctx, "item:1", "item:2")
			})
			require.NoError(t, err)
		}
		list()
		list()
		require.Equal(t, 1, loads)
		require.NoError(t, m.Put(t.Context(), 1, item{}))
		list()
		require.Equal(t, 2, loads)
		require.NoError(t, m.Put(t.Context(), 3, item{}))
		list()
		require.Equal(t, 2, loads)
		require.NoError(t, m.Invalidate(t.Context(), 3, 2))
		list()
		require.Equal(t, 3, loads)
	})
}

func TestAPutValueIsKeptUntilAConcurrentWriterEnds(t *testing.T) {
	bubble(t, core.Class{TTL: hour}, func(t *testing.T, m *items) {
		other, err := m.cache.Begin(t.Context(), core.Key("item:1"))
		require.NoError(t, err)
		require.NoError(t, m.Put(t.Context(), 1, item{Name: "put"}))
		require.Equal(t, "put", m.get(t))
		require.NoError(t, other.End(t.Context()))
		require.Equal(t, "one", m.get(t))
	})
}

func TestLoadsWithinTheReplicaLagOfAPutAreNotStored(t *testing.T) {
	bubble(t, core.Class{TTL: minute, ReplicaLag: 3 * time.Second}, func(t *testing.T, m *items) {
		require.NoError(t, m.Invalidate(t.Context(), 1))
		for range 3 {
			require.Equal(t, "one", m.get(t), "it is answered")
		}
		m.mustLoad(t, 3, "but not stored")
		require.NoError(t, m.Put(t.Context(), 1, item{Name: "put"}))
		require.Equal(t, "put", m.get(t), "a value that is put comes from no replica")
		require.NoError(t, m.Invalidate(t.Context(), 1))
		time.Sleep(3*time.Second + 1)
		m.get(t)
		m.get(t)
		m.mustLoad(t, 1, "")
	})
}

func TestAnEndedContextDoesNotPreventAnInvalidation(t *testing.T) {
	bubble(t, core.Class{TTL: hour}, func(t *testing.T, m *items) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		// The request may have ended between its commit and its announcement.
		require.NoError(t, m.Put(ctx, 1, item{Name: "put"}))
		require.Equal(t, "put", m.get(t))
		require.NoError(t, m.Invalidate(ctx, 1))
		require.Equal(t, "one", m.get(t))
		m.mustLoad(t, 1, "")
		require.NoError(t, m.cache.Invalidate(ctx, core.All()))
		m.get(t)
		m.mustLoad(t, 1, "")
		// Nothing has been written yet: the writer may as well not begin.
		_, err := m.cache.Begin(ctx, core.Tag("item:1"))
		require.ErrorIs(t, err, context.Canceled)
		_, err = m.Get(ctx, 2, m.load)
		require.ErrorIs(t, err, context.Canceled)
		m.mustLoad(t, 0, "")
	})
}
