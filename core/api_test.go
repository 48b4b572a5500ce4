package core_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/test/memtier"
)

func TestAnIntentIsPendingWhileTheTierIsDown(t *testing.T) {
	share(t, func(t *testing.T, f *fleet) {
		a, b := f.instance("a"), f.instance("b")
		f.data.Store(1)
		b.get(1)
		confirmed, err := a.cache.Begin(t.Context(), core.Key("item:1"))
		require.NoError(t, err)
		require.False(t, confirmed.Pending())
		confirmed.Abandon()

		f.server.Down(true)
		intent, err := a.cache.Begin(t.Context(), core.Key("item:1"))
		require.NoError(t, err, "an intent without confirmation is an intent")
		require.True(t, intent.Pending())
		f.data.Store(2)
		require.ErrorIs(t, intent.End(t.Context()), core.ErrPending)
		f.server.Down(false)
		time.Sleep(3 * time.Second)

		require.True(t, intent.Pending(), "it says what held when Begin returned")
		require.Zero(t, a.cache.Stats().Pending)
		require.EqualValues(t, 2, b.get(1), "the invalidation has reached the other instance")
	})
}

func TestAnIntentOfOneProcessIsNeverPending(t *testing.T) {
	c := open(t, core.Options{})
	intent, err := c.Begin(t.Context(), core.Tag("t"))
	require.NoError(t, err)
	require.False(t, intent.Pending())
	require.NoError(t, intent.End(t.Context()))
}

func TestALoaderInvalidatesOnEveryInstance(t *testing.T) {
	share(t, func(t *testing.T, f *fleet) {
		a, b := f.instance("a"), f.instance("b")
		f.server.SetFaults(memtier.Faults{HintLost: 1})
		f.data.Store(1)
		require.EqualValues(t, 1, b.get(7))
		f.data.Store(2)
		began := time.Now()

		_, err := a.Get(t.Context(), 1, func(ctx context.Context, _ int) (int64, error) {
			return 0, core.InvalidateEverywhere(ctx, core.Key("item:7"))
		})

		require.NoError(t, err)
		require.GreaterOrEqual(t, time.Since(began), 500*time.Millisecond, "it waits for the other instance")
		require.EqualValues(t, 2, b.get(7), "no message has told the other instance")
	})
}

func TestInvalidateEverywhereNeedsAScope(t *testing.T) {
	require.ErrorIs(t, core.InvalidateEverywhere(t.Context(), core.All()), core.ErrNoScope)
}

func TestALoaderInvalidatesEverywhereOnlyValidTargets(t *testing.T) {
	bubble(t, core.Class{TTL: hour}, func(t *testing.T, m *items) {
		_, err := m.Get(t.Context(), 1, func(ctx context.Context, _ int) (item, error) {
			return item{}, core.InvalidateEverywhere(ctx, core.Tag(""))
		})
		refused(t, err, "Tag", "")
	})
}

func TestWaitEverywhereCoversInvalidationsThatReturned(t *testing.T) {
	share(t, func(t *testing.T, f *fleet) {
		a, b := f.instance("a"), f.instance("b")
		f.server.SetFaults(memtier.Faults{HintLost: 1})
		f.data.Store(1)
		require.EqualValues(t, 1, b.get(7))
		f.data.Store(2)
		require.NoError(t, a.cache.Invalidate(t.Context(), core.Key("item:7")))

		require.NoError(t, a.cache.WaitEverywhere(t.Context()))

		require.EqualValues(t, 2, b.get(7))
	})
}

func TestWaitEverywhereEndsWithItsContext(t *testing.T) {
	share(t, func(t *testing.T, f *fleet) {
		a := f.instance("a")
		f.instance("b")
		f.server.Down(true)
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()

		err := a.cache.WaitEverywhere(ctx)

		require.Error(t, err)
		require.NotErrorIs(t, err, core.ErrPending)
	})
}

func TestOneProcessIsEverywhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t, core.Options{})
		began := time.Now()
		require.NoError(t, c.InvalidateEverywhere(t.Context(), core.All()))
		require.NoError(t, c.WaitEverywhere(t.Context()))
		require.Zero(t, time.Since(began))
	})
}

func TestMapOptionsDefaultToJSONWithoutCloneAndVersion(t *testing.T) {
	bubble(t, core.Class{TTL: hour}, func(t *testing.T, m *items) {
		m.name.Store("newer")
		v, err := m.Get(t.Context(), 1, m.load)
		require.NoError(t, err)
		v.Name = "changed by its caller"
		require.Equal(t, "newer", m.get(t), "each caller has its own copy")

		require.NoError(t, m.Put(t.Context(), 1, item{Name: "older"}))

		require.Equal(t, "older", m.get(t), "without Version the later Put wins")
		require.EqualValues(t, 1, m.loads.Load())
	})
}

func TestMapsOfOnePrefixHaveTheSameOptions(t *testing.T) {
	c := open(t, core.Options{Classes: core.Classes{"item": {TTL: hour}, "other": {TTL: hour}}})
	newMap := func(class string, opts ...option[item]) error {
		_, err := core.NewMap(c, with(core.MapOptions[int, item]{Class: class, Prefix: "item"}, opts...))
		return err
	}
	require.NoError(t, newMap("item"))
	require.NoError(t, newMap("item", encoded[item](core.JSON)), "JSON is the default")
	for name, err := range map[string]error{
		"class":   newMap("other"),
		"codec":   newMap("item", encoded[item](gobCodec{})),
		"clone":   newMap("item", cloned(func(v item) item { return v })),
		"version": newMap("item", versioned(func(item) int64 { return 1 })),
	} {
		t.Run(name, func(t *testing.T) { refused(t, err, "MapOptions.Prefix", "item") })
	}
}

func TestACodecGetsValuesNotPointers(t *testing.T) {
	c := open(t, core.Options{Classes: core.Classes{"item": {TTL: hour}}})
	m, err := core.NewMap(c, with(core.MapOptions[int, item]{Class: "item", Prefix: "item"}, encoded[item](onlyItems{t: t})))
	require.NoError(t, err)
	load := func(context.Context, int) (item, error) { return item{Name: strings.Repeat("x", 3)}, nil }
	for range 2 {
		v, err := m.Get(t.Context(), 1, load)
		require.NoError(t, err)
		require.Equal(t, "xxx", v.Name)
	}
}

type onlyItems struct {
	gobCodec
	t *testing.T
}

func (c onlyItems) Marshal(v any) ([]byte, error) {
	require.IsType(c.t, item{}, v)
	return c.gobCodec.Marshal(v)
}
