package core_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/bridge"
	"github.com/larderhq/larder/core/internal/local"
	"github.com/larderhq/larder/core/internal/naming"
)

func TestATargetInvalidatesExactlyTheEntriesThatItNames(t *testing.T) {
	bubble(t, core.Class{TTL: hour}, func(t *testing.T, m *items) {
		load := func(ctx context.Context, id int) (item, error) {
			require.NoError(t, core.AddTags(ctx, map[bool]string{true: "even", false: "odd"}[id%2 == 0]))
			return m.load(ctx, id)
		}
		getAll := func() int {
			m.loads.Store(0)
			for id := range 20 {
				_, err := m.Get(t.Context(), id, load)
				require.NoError(t, err)
			}
			return int(m.loads.Load())
		}
		require.Equal(t, 20, getAll())
		for _, test := range []struct {
			targets []core.Target
			gone    int
		}{
			{[]core.Target{core.Key("item:7")}, 1},
			{[]core.Target{core.Key("item:77")}, 0},
			{[]core.Target{core.Tag("item:7")}, 1},
			{[]core.Target{core.Tag("even")}, 10},
			{[]core.Target{core.Tag("even"), core.Tag("odd")}, 20},
			{[]core.Target{core.Key("item:1"), core.Key("item:2"), core.Key("item:2")}, 2},
			{[]core.Target{core.Pattern("item:1?")}, 10},
			{[]core.Target{core.Pattern("item:[0-4]")}, 5},
			{[]core.Target{core.Pattern("it*")}, 20},
			{[]core.Target{core.Pattern("item")}, 0},
			{[]core.Target{core.Path("/item:1")}, 0},
			{[]core.Target{core.Tag("item:*"), core.Key("item:?")}, 0},
			{[]core.Target{core.Key("even")}, 0},
			{[]core.Target{core.All()}, 20},
		} {
			require.NoError(t, m.cache.Invalidate(t.Context(), test.targets...))
			require.Equal(t, test.gone, getAll(), "%v", test.targets)
			require.Zero(t, getAll())
		}
		require.NoError(t, m.Invalidate(t.Context(), 3, 4, 5))
		require.Equal(t, 3, getAll())
	})
}

// Entries of responses carry the tag of their path.
func TestAPathInvalidatesEntriesHoweverItIsEscaped(t *testing.T) {
	c := open(t, core.Options{})
	e := bridge.Of(c).Engine
	long := "/" + strings.Repeat("x", 3000)
	for _, test := range []struct {
		path   string
		target core.Target
		gone   bool
	}{
		{"/items", core.Path("/items"), true},
		{"/items", core.Path("https://shop.example/items"), true},
		{"/items", core.Path("http://other.example:8080/items"), true},
		{"/items", core.Key("https://shop.example/items?page=2"), true},
		{"/items", core.Path("/items/"), false},
		{"/items", core.Path("/Items"), false},
		{"/items", core.Path("/it%65ms"), true},
		{"/caf%C3%A9", core.Path("/café"), true},
		{"/café", core.Path("/caf%c3%a9"), true},
		{"/a%2Fb", core.Path("/a/b"), true},
		{"/100%", core.Path("/100%"), true},
		{"", core.Path("/"), true},
		{"/", core.Path("https://shop.example"), true},
		{"/", core.Path("https://shop.example/"), true},
		{long, core.Path(long), true},
		{long + "y", core.Path(long), false},
		{"/items", core.Tag("/items"), false},
		{"/items", core.Key("/items"), false},
	} {
		_, refusal := e.NewLoad("entry", []string{naming.Path(test.path)}).
			Fill(local.Fill{Value: 1, Lifetime: local.Lifetime{Fresh: hour}})
		require.Equal(t, local.Stored, refusal)
		require.NoError(t, c.Invalidate(t.Context(), test.target))
		_, state := e.Lookup("entry")
		require.Equal(t, test.gone, state == local.Gone, "%q by %v", test.path, test.target)
	}
}

func TestATagIsNeverAPath(t *testing.T) {
	require.NotEqual(t, naming.Tag("/items"), naming.Path("/items"))
	require.NotEqual(t, naming.Tag("p:/items"), naming.Path("/items"))
}

// Intents.

func TestReadersGetTheOldValueUntilTheWriterEnds(t *testing.T) {
	for name, target := range map[string]core.Target{"key": core.Key("item:1"), "tag": core.Tag("item:1"), "late tag": core.Tag("late")} {
		t.Run(name, func(t *testing.T) {
			bubble(t, core.Class{TTL: hour}, func(t *testing.T, m *items) {
				load := func(ctx context.Context, id int) (item, error) {
					require.NoError(t, core.AddTags(ctx, "late"))
					return m.load(ctx, id)
				}
				get := func() string {
					v, err := m.Get(t.Context(), 1, load)
					require.NoError(t, err)
					return v.Name
				}
				get()
				m.mustLoad(t, 1, "")
				in, err := m.cache.Begin(t.Context(), target)
				require.NoError(t, err)
				get()
				m.mustLoad(t, 0, "Begin invalidates nothing")
				m.name.Store("two") // the commit
				require.NoError(t, in.End(t.Context()))
				require.Equal(t, "two", get())
				m.mustLoad(t, 1, "End invalidates")
				require.NoError(t, in.End(t.Context()))
				in.Abandon()
				get()
				m.mustLoad(t, 0, "once")
			})
		})
	}
}

func TestAnIntentThatExpiresInvalidatesItsTargets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := itemsOf(t, open(t, core.Options{
			WriteTimeout: 10 * time.Second,
			Classes:      core.Classes{"item": {TTL: hour, StaleWhileRevalidate: hour, StaleIfError: hour}},
		}))
		_, err := m.cache.Begin(t.Context(), core.Tag("item:1"))
		require.NoError(t, err)
		time.Sleep(5 * time.Second)
		m.get(t)
		m.name.Store("two") // it commits, and is never heard of again
		time.Sleep(5*time.Second - 1)
		require.Equal(t, "one", m.get(t))
		m.mustLoad(t, 1, "")
		time.Sleep(2) // a load that begins at the very deadline is not stored
		release := m.hold()
		late := m.async(t.Context(), m.load)
		synctest.Wait()
		require.False(t, late.done(), "neither fresh nor stale")
		release()
		synctest.Wait()
		require.Equal(t, "two", late.name(t))
		time.Sleep(hour - 1)
		require.Equal(t, "two", m.get(t))
		m.mustLoad(t, 1, "")
	})
}

func TestALapsedIntentInvalidatesAtItsDeadline(t *testing.T) {
	bubble(t, core.Class{TTL: hour}, func(t *testing.T, m *items) {
		in, err := m.cache.Begin(t.Context(), core.Tag("another"))
		require.NoError(t, err)
		m.get(t)
		m.mustLoad(t, 1, "")
		require.NoError(t, in.Lapse(t.Context(), core.Tag("item:1"), core.Pattern("item:*")))
		require.NoError(t, in.End(t.Context()), "only the first call counts")
		require.Equal(t, "one", m.get(t))
		require.Equal(t, "one", m.get(t))
		m.mustLoad(t, 1, "Lapse invalidates; what is loaded then is kept")
		m.name.Store("two")
		time.Sleep(writeTimeout + time.Millisecond)
		require.Equal(t, "two", m.get(t))
		m.mustLoad(t, 1, "the deadline")
		time.Sleep(writeTimeout)
		m.get(t)
		m.mustLoad(t, 0, "what is loaded after it is kept")

		in, err = m.cache.Begin(t.Context(), core.Tag("item:1"))
		require.NoError(t, err)
		refused(t, in.Lapse(t.Context(), core.Tag("")), "Tag", "")
		m.get(t)
		m.mustLoad(t, 1, "the intent's own targets are invalidated")
	})
}

func TestALapsedIntentEndsLoadsBeforeItsDeadline(t *testing.T) {
	bubble(t, core.Class{TTL: hour}, func(t *testing.T, m *items) {
		in, err := m.cache.Begin(t.Context(), core.Tag("item:1"))
		require.NoError(t, err)
		time.Sleep(100 * time.Millisecond)
		require.NoError(t, in.Lapse(t.Context()))

		// Reads each millisecond, until the intent is over: what was read before a
		// commit lives for four times as long as the commit took, at most.
		loads := 0
		for began, age := time.Now(), time.Duration(0); time.Since(began) < writeTimeout; time.Sleep(time.Millisecond) {
			m.get(t)
			if m.loads.Swap(0) == 0 {
				age += time.Millisecond
				require.LessOrEqual(t, age, 4*(time.Since(began)+100*time.Millisecond-age))
				continue
			}
			loads, age = loads+1, 0
		}
		require.LessOrEqual(t, loads, 7, "and it is loaded a few times only")
		require.Greater(t, loads, 1)
	})
}

func TestAnAbandonedIntentInvalidatesNothing(t *testing.T) {
	bubble(t, core.Class{TTL: hour}, func(t *testing.T, m *items) {
		in, err := m.cache.Begin(t.Context(), core.Tag("item:1"))
		require.NoError(t, err)
		m.get(t)
		in.Abandon()
		require.NoError(t, in.End(t.Context()))
		m.get(t)
		m.mustLoad(t, 1, "")
	})
}

func TestEndInvalidatesMoreTargetsAndTheIntentsOwnDespiteBadOnes(t *testing.T) {
	bubble(t, core.Class{TTL: hour}, func(t *testing.T, m *items) {
		m.get(t)
		_, err := m.Get(t.Context(), 2, m.load)
		require.NoError(t, err)
		m.mustLoad(t, 2, "")
		in, err := m.cache.Begin(t.Context(), core.Tag("item:1"))
		require.NoError(t, err)
		m.get(t)
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		require.NoError(t, in.End(ended, core.Pattern("item:2")), "the client has gone; the write has happened")
		m.get(t)
		_, err = m.Get(t.Context(), 2, m.load)
		require.NoError(t, err)
		m.mustLoad(t, 2, "")

		in, err = m.cache.Begin(t.Context(), core.Tag("item:1"))
		require.NoError(t, err)
		m.get(t)
		refused(t, in.End(t.Context(), core.Tag("")), "Tag", "")
		m.get(t)
		m.mustLoad(t, 1, "its own targets were invalidated all the same")
	})
}
