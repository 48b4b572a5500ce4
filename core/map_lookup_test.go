package core_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/test/memtier"
)

func (m *items) lookup(t testing.TB) core.Result[item] {
	t.Helper()
	r, err := m.Lookup(t.Context(), 1, m.load)
	require.NoError(t, err)
	return r
}

func TestLookupReturnsSourceAndAge(t *testing.T) {
	bubble(t, core.Class{TTL: minute, StaleWhileRevalidate: minute, StaleIfError: hour}, func(t *testing.T, m *items) {
		one := item{Name: "one"}
		slow := func(ctx context.Context, id int) (item, error) { time.Sleep(time.Second); return m.load(ctx, id) }
		r, err := m.Lookup(t.Context(), 1, slow)
		require.NoError(t, err)
		require.Equal(t, core.Result[item]{Value: one, Source: core.FromLoader, Age: time.Second, Fresh: minute}, r, "loaded")
		time.Sleep(5 * time.Second)
		require.Equal(t, core.Result[item]{Value: one, Source: core.FromProcess, Age: 6 * time.Second, Fresh: 55 * time.Second}, m.lookup(t), "hit")
		m.fail(errDown)
		time.Sleep(minute)
		require.Equal(t, core.Result[item]{Value: one, Source: core.FromProcess, Age: 66 * time.Second, Stale: true}, m.lookup(t), "stale")
		synctest.Wait()

		time.Sleep(minute) // past the stale window
		release := m.hold()
		results := make(chan core.Result[item], 2)
		for range 2 {
			go func() {
				r, err := m.Lookup(t.Context(), 1, m.load)
				if err != nil {
					t.Error(err)
				}
				results <- r
			}()
			synctest.Wait()
		}
		release()
		want := core.Result[item]{Value: one, Source: core.FromProcess, Age: 126 * time.Second, Stale: true}
		for range 2 {
			r := <-results
			if !r.Waited {
				require.Equal(t, errDown, r.Instead, "in place of an error")
				r.Instead = nil
			}
			want.Waited = r.Waited
			require.Equal(t, want, r)
		}

		m.fail(nil)
		m.name.Store("two")
		release = m.hold()
		for range 2 {
			go func() { results <- m.lookup(t) }()
			synctest.Wait()
		}
		release()
		first, second := <-results, <-results
		require.NotEqual(t, first.Waited, second.Waited)
		second.Waited = first.Waited
		require.Equal(t, first, second)
		require.Equal(t, core.Result[item]{Value: item{Name: "two"}, Source: core.FromLoader, Fresh: minute, Waited: first.Waited}, first)
	})
}

func TestLookupOfAValueThatIsNotStoredHasNoAge(t *testing.T) {
	bubble(t, core.Class{TTL: minute, NegativeTTL: time.Second}, func(t *testing.T, m *items) {
		r, err := m.Lookup(t.Context(), 1, func(ctx context.Context, id int) (item, error) {
			require.NoError(t, core.NoStore(ctx))
			return m.load(ctx, id)
		})
		require.NoError(t, err)
		require.Equal(t, core.Result[item]{Value: item{Name: "one"}}, r)
		r, err = m.Lookup(t.Context(), 1, func(ctx context.Context, id int) (item, error) {
			require.NoError(t, m.Invalidate(ctx, id))
			return m.load(ctx, id)
		})
		require.NoError(t, err)
		require.Equal(t, core.Result[item]{Value: item{Name: "one"}}, r, "invalidated meanwhile")

		m.fail(core.ErrNotFound)
		r, err = m.Lookup(t.Context(), 1, m.load)
		require.ErrorIs(t, err, core.ErrNotFound)
		require.Equal(t, core.Result[item]{Fresh: time.Second}, r)
		r, err = m.Lookup(t.Context(), 1, m.load)
		require.ErrorIs(t, err, core.ErrNotFound)
		require.Equal(t, core.Result[item]{Source: core.FromProcess, Fresh: time.Second}, r)
		m.fail(errDown)
		time.Sleep(time.Second)
		r, err = m.Lookup(t.Context(), 1, m.load)
		require.ErrorIs(t, err, errDown)
		require.Equal(t, core.Result[item]{}, r)
		m.cache.SetEnabled(false)
		m.fail(nil)
		require.Equal(t, core.Result[item]{Value: item{Name: "one"}}, m.lookup(t))
		_, err = m.Lookup(t.Context(), 1, nil)
		var ce *core.ConfigError
		require.ErrorAs(t, err, &ce)
	})
}

func TestLookupOfAnotherInstancesValueNamesTheSharedTier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := memtier.New(memtier.Config{})
		defer server.Close()
		instance := func(name string) *items {
			m := itemsOf(t, open(t, core.Options{Remote: server.Tier(name), Classes: core.Classes{"item": {TTL: minute, StaleWhileRevalidate: minute}}}))
			synctest.Wait()
			return m
		}
		a, b, c := instance("a"), instance("b"), instance("c")
		a.get(t)
		time.Sleep(time.Second)
		one := item{Name: "one"}
		require.Equal(t, core.Result[item]{Value: one, Source: core.FromRemote, Age: time.Second, Fresh: minute - time.Second}, b.lookup(t))
		require.Equal(t, core.Result[item]{Value: one, Source: core.FromProcess, Age: time.Second, Fresh: minute - time.Second}, b.lookup(t))
		time.Sleep(minute)
		release := c.hold()
		require.Equal(t, core.Result[item]{Value: one, Source: core.FromRemote, Age: minute + time.Second, Stale: true}, c.lookup(t))
		release()
		synctest.Wait()
		require.Equal(t, "process loader remote", core.FromProcess.String()+" "+core.FromLoader.String()+" "+core.FromRemote.String())
	})
}
