package core_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/bridge"
)

// changed returns the cache's classes with one of them changed.
func changed(c *core.Cache, name string, change func(*core.Class)) core.Classes {
	classes := c.Options().Classes
	class := classes[name]
	change(&class)
	classes[name] = class
	return classes
}

// set changes the class of the map.
func (m *items) set(t testing.TB, change func(*core.Class)) {
	t.Helper()
	require.NoError(t, m.cache.SetClasses(changed(m.cache, "item", change)))
}

// lives demands that the value that is there lives for d from now, and no longer.
func (m *items) lives(t testing.TB, d time.Duration) {
	t.Helper()
	m.loads.Store(0)
	time.Sleep(d - 1)
	m.get(t)
	m.mustLoad(t, 0, "it is still there")
	time.Sleep(1)
	m.get(t)
	m.mustLoad(t, 1, "it is there no more")
}

func TestANewTTLHoldsForLoadedAndNotForStoredValues(t *testing.T) {
	for name, ttl := range map[string]struct{ from, to time.Duration }{
		"shortened": {hour, minute}, "lengthened": {minute, hour},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, core.Class{TTL: ttl.from}, func(t *testing.T, m *items) {
				m.get(t)
				m.set(t, func(c *core.Class) { c.TTL = ttl.to })
				m.lives(t, ttl.from)
				m.lives(t, ttl.to)
			})
		})
	}
}

func TestANewTTLHoldsForEveryCallThatStores(t *testing.T) {
	bubble(t, core.Class{TTL: hour}, func(t *testing.T, m *items) {
		save := func(context.Context, int, item) error { return nil }
		load := func(context.Context, []int) (map[int]item, error) { return map[int]item{1: {}}, nil }
		for i, store := range []func() error{
			func() error { _, err := m.Get(t.Context(), 1, m.load); return err },
			func() error { _, err := m.GetMany(t.Context(), []int{1}, load); return err },
			func() error { return m.Put(t.Context(), 1, item{}) },
			func() error { return m.PutMany(t.Context(), map[int]item{1: {}}) },
			func() error { return m.Write(t.Context(), 1, item{}, save) },
		} {
			require.NoError(t, m.Invalidate(t.Context(), 1))
			ttl := time.Duration(i+1) * minute
			m.set(t, func(c *core.Class) { c.TTL = ttl })
			require.NoError(t, store())
			m.lives(t, ttl)
		}
	})
}

func TestAShortenedTTLHoldsAfterAnInvalidation(t *testing.T) {
	bubble(t, core.Class{TTL: hour}, func(t *testing.T, m *items) {
		m.get(t)
		m.set(t, func(c *core.Class) { c.TTL = minute })
		require.NoError(t, m.cache.Invalidate(t.Context(), core.All()))
		m.get(t)
		m.lives(t, minute)
	})
}

func TestANewNegativeTTLHolds(t *testing.T) {
	bubble(t, core.Class{TTL: hour}, func(t *testing.T, m *items) {
		m.fail(core.ErrNotFound)
		ask := func(loads int) {
			t.Helper()
			_, err := m.Get(t.Context(), 1, m.load)
			require.ErrorIs(t, err, core.ErrNotFound)
			m.mustLoad(t, loads, "")
		}
		ask(1)
		ask(1)
		m.set(t, func(c *core.Class) { c.NegativeTTL = minute })
		ask(1)
		ask(0)
		m.set(t, func(c *core.Class) { c.NegativeTTL = 0 })
		time.Sleep(minute - 1)
		ask(0)
		time.Sleep(1)
		ask(1)
		ask(1)
	})
}

func TestANewStaleIfErrorHoldsWithinTheKeptWindow(t *testing.T) {
	bubble(t, core.Class{TTL: minute, StaleIfError: minute}, func(t *testing.T, m *items) {
		m.get(t)
		m.fail(errDown)
		time.Sleep(minute)
		require.Equal(t, "one", m.get(t))
		m.set(t, func(c *core.Class) { c.StaleIfError = 0 })
		_, err := m.Get(t.Context(), 1, m.load)
		require.ErrorIs(t, err, errDown, "no window any more")
		m.set(t, func(c *core.Class) { c.StaleIfError = hour })
		time.Sleep(minute - 1)
		require.Equal(t, "one", m.get(t))
		time.Sleep(1)
		_, err = m.Get(t.Context(), 1, m.load)
		require.ErrorIs(t, err, errDown, "not kept for longer")

		m.set(t, func(c *core.Class) { c.StaleIfError = 0 })

		m.fail(nil)
		m.get(t)
		m.set(t, func(c *core.Class) { c.StaleWhileRevalidate, c.StaleIfError = minute, hour })
		m.fail(errDown)
		time.Sleep(minute)
		_, err = m.Get(t.Context(), 1, m.load)
		require.ErrorIs(t, err, errDown, "stored without")

		m.fail(nil)
		m.get(t)
		m.fail(errDown)
		m.loads.Store(0)
		time.Sleep(2*minute - 1)
		require.Equal(t, "one", m.get(t))
		synctest.Wait()
		m.mustLoad(t, 1, "behind the stale value")
		time.Sleep(hour - minute)
		require.Equal(t, "one", m.get(t))
		time.Sleep(1)
		_, err = m.Get(t.Context(), 1, m.load)
		require.ErrorIs(t, err, errDown)
	})
}

func TestWithoutStaleIfErrorNoValueStandsInForAnError(t *testing.T) {
	bubble(t, core.Class{TTL: minute}, func(t *testing.T, m *items) {
		m.fail(errDown)
		release := m.hold()
		get := m.async(t.Context(), m.load)
		synctest.Wait()
		require.NoError(t, m.Put(t.Context(), 1, item{Name: "put"}))
		release()
		synctest.Wait()
		require.ErrorIs(t, get.err(t), errDown)
	})
}

func TestANewMaxEntryBytesHolds(t *testing.T) {
	bubble(t, core.Class{TTL: hour, MaxEntryBytes: 1000}, func(t *testing.T, m *items) {
		m.name.Store(strings.Repeat("x", 500))
		big := item{Name: strings.Repeat("x", 500)}
		m.get(t)
		m.set(t, func(c *core.Class) { c.MaxEntryBytes = 100 })
		m.get(t)
		m.mustLoad(t, 1, "what is stored stays")
		require.NoError(t, m.Invalidate(t.Context(), 1))
		m.get(t)
		m.get(t)
		m.mustLoad(t, 2, "too large")
		refused(t, m.Put(t.Context(), 1, big), "size of item:1", 523)
		require.ErrorContains(t, m.PutMany(t.Context(), map[int]item{1: big}), "MaxEntryBytes of its class, 100")
		m.set(t, func(c *core.Class) { c.MaxEntryBytes = 0 })
		m.get(t)
		m.get(t)
		m.mustLoad(t, 1, "the default is 1 MiB")
		require.NoError(t, m.Put(t.Context(), 1, big))
	})
}

func TestANewMaxLoadsAfterErrorHolds(t *testing.T) {
	bubble(t, core.Class{TTL: hour, MaxLoadsAfterError: 1}, func(t *testing.T, m *items) {
		m.set(t, func(c *core.Class) { c.MaxLoadsAfterError = 3 })
		release := m.hold()
		first := make(chan struct{})
		leader := m.async(t.Context(), func(context.Context, int) (item, error) { <-first; return item{}, context.Canceled })
		synctest.Wait()
		var waiters []*pending
		for range 10 {
			waiters = append(waiters, m.async(t.Context(), m.load))
		}
		synctest.Wait()
		m.mustLoad(t, 0, "they wait")
		close(first)
		synctest.Wait()
		m.mustLoad(t, 3, "MaxLoadsAfterError at a time")
		release()
		synctest.Wait()
		require.ErrorIs(t, leader.err(t), context.Canceled)
		for _, w := range waiters {
			require.Equal(t, "one", w.name(t))
		}
	})
}

func TestANewLoadTimeoutHoldsForLaterLoads(t *testing.T) {
	bubble(t, core.Class{TTL: hour, LoadTimeout: 20 * time.Second}, func(t *testing.T, m *items) {
		took := func() time.Duration {
			began := time.Now()
			_, err := m.Get(t.Context(), 1, func(ctx context.Context, _ int) (item, error) { <-ctx.Done(); return item{}, ctx.Err() })
			require.ErrorIs(t, err, context.DeadlineExceeded)
			return time.Since(began)
		}
		require.Equal(t, 20*time.Second, took())
		m.set(t, func(c *core.Class) { c.LoadTimeout = time.Second })
		require.Equal(t, time.Second, took())
		m.set(t, func(c *core.Class) { c.LoadTimeout = 30 * time.Second }) // that of the default class
		require.Equal(t, 30*time.Second, took())
	})
}

func TestALoadUnderWayKeepsItsClass(t *testing.T) {
	many := func(ctx context.Context, m *items) func(context.Context, core.Loader[int, item]) error {
		return func(_ context.Context, load core.Loader[int, item]) error {
			_, err := m.GetMany(ctx, []int{1}, func(ctx context.Context, ids []int) (map[int]item, error) {
				v, err := load(ctx, ids[0])
				return map[int]item{ids[0]: v}, err
			})
			return err
		}
	}
	for name, stale := range map[string]bool{"a miss": false, "a refresh": true} {
		for _, batch := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", in a batch: ", batch), func(t *testing.T) {
				bubble(t, core.Class{TTL: minute, StaleWhileRevalidate: hour, LoadTimeout: 20 * time.Second}, func(t *testing.T, m *items) {
					if stale {
						m.get(t)
						time.Sleep(minute)
					}
					get := func(ctx context.Context, load core.Loader[int, item]) error {
						_, err := m.Get(ctx, 1, load)
						return err
					}
					if batch {
						get = many(t.Context(), m)
					}
					release, done := m.hold(), make(chan error, 1)
					var left time.Duration
					go func() {
						done <- get(t.Context(), func(ctx context.Context, id int) (item, error) {
							v, err := m.load(ctx, id)
							until, _ := ctx.Deadline()
							left = time.Until(until)
							return v, err
						})
					}()
					synctest.Wait()
					m.set(t, func(c *core.Class) { *c = core.Class{TTL: hour, LoadTimeout: time.Second, MaxEntryBytes: 1} })
					release() // at once: what loads slowly is refreshed early
					synctest.Wait()
					require.NoError(t, <-done)
					require.Equal(t, 20*time.Second, left, "its deadline stays")
					m.loads.Store(0)
					time.Sleep(minute - 1)
					m.get(t)
					m.mustLoad(t, 0, "it has been stored, under the old MaxEntryBytes")
					time.Sleep(1)
					m.get(t) // stale, under the old window
					synctest.Wait()
					m.mustLoad(t, 1, "under the old TTL")
				})
			})
		}
	}
}

func TestABatchUnderWayKeepsItsClass(t *testing.T) {
	bubble(t, core.Class{TTL: hour}, func(t *testing.T, m *items) {
		ids := make([]int, 10)
		gates := make([]chan struct{}, len(ids))
		var others sync.WaitGroup
		for i := range ids {
			ids[i], gates[i] = i, make(chan struct{})
			others.Go(func() {
				_, _ = m.Get(t.Context(), i, func(context.Context, int) (item, error) {
					<-gates[i]
					return item{}, context.Canceled
				})
			})
		}
		synctest.Wait()
		done := make(chan error, 1)
		go func() { // it waits for one after the other, and loads itself
			_, err := m.GetMany(t.Context(), ids, func(_ context.Context, ids []int) (map[int]item, error) {
				values := make(map[int]item)
				for _, id := range ids {
					values[id] = item{}
				}
				return values, nil
			})
			done <- err
		}()
		synctest.Wait()
		m.set(t, func(c *core.Class) { c.TTL = minute })
		for _, gate := range gates {
			close(gate)
			synctest.Wait()
		}
		others.Wait()
		require.NoError(t, <-done)
		time.Sleep(hour - 1)
		for _, id := range ids {
			_, err := m.Get(t.Context(), id, m.load)
			require.NoError(t, err)
		}
		m.mustLoad(t, 0, "stored under the old TTL")
	})
}

func TestNewConfirmWritesRefusesWritesWithoutTheTier(t *testing.T) {
	share(t, func(t *testing.T, f *fleet) {
		in := f.instance("a")
		f.server.Down(true)
		saved := 0
		write := func() error {
			return in.Write(t.Context(), 1, 1, func(context.Context, int, int64) error { saved++; return nil })
		}
		require.ErrorIs(t, write(), core.ErrPending)
		require.Equal(t, 1, saved)
		require.NoError(t, in.cache.SetClasses(changed(in.cache, "c", func(c *core.Class) { c.ConfirmWrites = true })))
		require.ErrorIs(t, write(), core.ErrPending)
		require.Equal(t, 1, saved, "refused")
		f.server.Down(false)
	})
}

func TestANewReplicaLagHolds(t *testing.T) {
	bubble(t, core.Class{TTL: hour}, func(t *testing.T, m *items) {
		require.NoError(t, m.Invalidate(t.Context(), 1))
		time.Sleep(10 * time.Second)
		m.set(t, func(c *core.Class) { c.ReplicaLag = minute })
		m.get(t)
		m.get(t)
		m.mustLoad(t, 2, "within the lag, also of what was invalidated before")
		time.Sleep(minute)
		m.get(t)
		m.get(t)
		m.mustLoad(t, 1, "after it")
	})
}

func TestSetClassesAddsClasses(t *testing.T) {
	c := open(t, core.Options{Classes: core.Classes{"item": {TTL: hour}}})
	require.Zero(t, bridge.Of(c).ClassRevision())
	directives := []string{"max-age"}
	classes := core.Classes{
		"item": {TTL: minute},
		"new":  {TTL: 2 * minute, HTTP: core.HTTPPolicy{RequestDirectives: directives}},
	}
	require.NoError(t, c.SetClasses(classes))
	require.EqualValues(t, 1, bridge.Of(c).ClassRevision())
	classes["item"] = core.Class{}
	delete(classes, "new")
	directives[0] = "no-cache"

	fresh, err := c.Class("new")
	require.NoError(t, err)
	require.Equal(t, 2*minute, fresh.TTL)
	require.Equal(t, core.DefaultMaxLoadsAfterError, fresh.MaxLoadsAfterError, "with its defaults")
	require.Equal(t, []string{"max-age"}, fresh.HTTP.RequestDirectives, "the caller's lists are his own")
	_, err = core.NewMap(c, core.MapOptions[int, item]{Class: "new", Prefix: "new"})
	require.NoError(t, err)

	o := c.Options()
	require.Len(t, o.Classes, 3)
	require.Equal(t, minute, o.Classes["item"].TTL)
	require.Equal(t, core.DefaultLoadTimeout, o.Classes[""].LoadTimeout)
	clear(o.Classes)
	require.Len(t, c.Options().Classes, 3, "the map is the caller's")
	require.NoError(t, c.SetClasses(c.Options().Classes), "what the cache says of itself is right")
}

func TestBadClassesAreRefusedAndChangeNothing(t *testing.T) {
	share(t, func(t *testing.T, f *fleet) {
		policy := core.HTTPPolicy{Query: []string{"q"}, Headers: []string{"x-a"}}
		was := core.Classes{
			"":     {TTL: hour, LoadTimeout: time.Second},
			"c":    {TTL: hour, LoadTimeout: 10 * time.Second},
			"page": {HTTP: policy},
			"lags": {ReplicaLag: minute}, // with the default LoadTimeout, the longest of all
		}
		in := f.instance("a", func(o *core.Options) { o.Classes = was })
		_, err := core.NewMap(in.cache, core.MapOptions[int, int]{Prefix: "of-default"})
		require.NoError(t, err)
		const longest = core.DefaultLoadTimeout
		before := in.cache.Options()
		for _, test := range []struct {
			name   string
			change func(core.Classes)
			field  string
			value  any
			says   string
		}{
			{"one is missing", func(cs core.Classes) { delete(cs, "page") }, `Classes["page"]`, nil, "cannot be removed"},
			{"the default is missing", func(cs core.Classes) { delete(cs, "") }, `Classes[""].TTL`, "0s", `"of-default"`},
			{"a map's is without TTL", func(cs core.Classes) { cs["c"] = core.Class{} }, `Classes["c"].TTL`, "0s", `the map "item"`},
			{"one is wrong", func(cs core.Classes) { cs["c"] = core.Class{TTL: -1} }, `Classes["c"].TTL`, "-1ns", "1ms"},
			{"a new one is wrong", func(cs core.Classes) { cs["new"] = core.Class{Jitter: 2} }, `Classes["new"].Jitter`, 2.0, "0 to 1"},
			{"a new one's name is wrong", func(cs core.Classes) { cs["a\n"] = core.Class{} }, "Options.Classes", "a\n", "control"},
			{
				"a load may take longer than any before", func(cs core.Classes) { cs["c"] = core.Class{TTL: hour, LoadTimeout: longest + 1} },
				`Classes["c"].LoadTimeout`, (longest + 1).String(), "up to " + longest.String(),
			},
			{
				"and a new one's", func(cs core.Classes) { cs["new"] = core.Class{LoadTimeout: hour} },
				`Classes["new"].LoadTimeout`, "1h0m0s", "up to " + longest.String(),
			},
			{
				"a replica may lag longer than any before", func(cs core.Classes) { cs["c"] = core.Class{TTL: hour, ReplicaLag: minute + 1} },
				`Classes["c"].ReplicaLag`, (minute + 1).String(), "up to 1m0s",
			},
			{
				"a parameter more", func(cs core.Classes) {
					cs["page"] = core.Class{HTTP: core.HTTPPolicy{Query: []string{"q", "r"}, Headers: policy.Headers}}
				},
				`Classes["page"].HTTP.Query`, []string{"q", "r"}, `[]string{"q"}`,
			},
			{
				"no parameter, where all counted", func(cs core.Classes) { cs["lags"] = core.Class{HTTP: core.HTTPPolicy{Query: []string{}}} },
				`Classes["lags"].HTTP.Query`, []string{}, "[]string(nil)",
			},
			{
				"another number of variants", func(cs core.Classes) {
					cs["page"] = core.Class{HTTP: core.HTTPPolicy{Query: policy.Query, Headers: policy.Headers, MaxVariants: 1}}
				},
				`Classes["page"].HTTP.MaxVariants`, 1, "32, as it is",
			},
			{"the order of parameters", func(cs core.Classes) { cs["c"] = core.Class{TTL: hour, HTTP: core.HTTPPolicy{QueryOrder: true}} }, `Classes["c"].HTTP.QueryOrder`, true, "false"},
		} {
			t.Log(test.name)
			next := core.Classes{ // all others change
				"":     {TTL: minute, LoadTimeout: time.Second},
				"c":    {TTL: minute, LoadTimeout: 5 * time.Second},
				"page": {TTL: minute, HTTP: policy},
				"lags": {ReplicaLag: time.Second},
			}
			test.change(next)
			err := in.cache.SetClasses(next)
			refused(t, err, test.field, test.value)
			require.ErrorContains(t, err, test.says)
			require.Equal(t, before, in.cache.Options())
			require.Zero(t, bridge.Of(in.cache).ClassRevision())
		}
		policy.Query[0] = "another" // the lists of New are the cache's own
		err = in.cache.SetClasses(was)
		refused(t, err, `Classes["page"].HTTP.Query`, []string{"another"})
		require.NoError(t, in.cache.SetClasses(before.Classes))
	})
}

func TestNewMapRefusesAClassThatLostItsTTL(t *testing.T) {
	c := open(t, core.Options{Classes: core.Classes{"item": {TTL: hour}}})
	require.NoError(t, c.SetClasses(core.Classes{"item": {}}))
	_, err := core.NewMap(c, core.MapOptions[int, item]{Class: "item", Prefix: "item"})
	refused(t, err, `Classes["item"].TTL`, "0s")
	require.NoError(t, c.SetClasses(core.Classes{"item": {}}), "the map that was refused is none")
	require.NoError(t, c.SetClasses(core.Classes{"item": {TTL: hour}}))
	_, err = core.NewMap(c, core.MapOptions[int, item]{Class: "item", Prefix: "item"})
	require.NoError(t, err)
	refused(t, c.SetClasses(core.Classes{"item": {}}), `Classes["item"].TTL`, "0s")
}

// The fields of two classes show which set they are from: no operation may see a mixture,
// or the old set after SetClasses has returned.
func TestEachOperationFollowsOneClass(t *testing.T) {
	odd := core.Class{TTL: hour, LoadTimeout: 10 * time.Second, MaxEntryBytes: 1, NegativeTTL: minute}
	even := core.Class{TTL: minute, LoadTimeout: 20 * time.Second}
	c := open(t, core.Options{Classes: core.Classes{"item": even}})
	m := itemsOf(t, c)
	var all sync.WaitGroup
	stop := make(chan struct{})
	errs := make(chan error, 100)
	note := func(err error) {
		if err != nil {
			select {
			case errs <- err:
			default:
			}
		}
	}
	beside := func(do func(id int) error) {
		for id := range 2 {
			all.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
						note(do(id))
					}
				}
			})
		}
	}
	timeout := func(ctx context.Context) time.Duration {
		until, _ := ctx.Deadline()
		return time.Until(until).Round(10 * time.Second)
	}
	beside(func(id int) error {
		_, err := m.Get(t.Context(), id, func(ctx context.Context, id int) (item, error) {
			if left := timeout(ctx); left != odd.LoadTimeout && left != even.LoadTimeout {
				return item{}, fmt.Errorf("%v for a load", left)
			}
			return m.load(ctx, id)
		})
		return errors.Join(err, m.Invalidate(t.Context(), id))
	})
	beside(func(id int) error {
		_, err := m.GetMany(t.Context(), []int{id, 100 + id}, func(_ context.Context, ids []int) (map[int]item, error) {
			values := map[int]item{}
			for _, id := range ids {
				values[id] = item{}
			}
			return values, nil
		})
		return err
	})
	beside(func(id int) error {
		err := m.Put(t.Context(), 200+id, item{})
		var wrong *core.ConfigError
		if errors.As(err, &wrong) && wrong.Allowed == "up to MaxEntryBytes of its class, 1" {
			return nil
		}
		return err
	})
	beside(func(int) error {
		class, err := c.Class("item")
		for _, class := range []core.Class{c.Options().Classes["item"], class} {
			if class.TTL == odd.TTL != (class.MaxEntryBytes == odd.MaxEntryBytes) {
				return fmt.Errorf("a mixture: %+v", class)
			}
		}
		return err
	})
	for n := int64(1); n <= 500; n++ {
		class := even
		if n%2 == 1 {
			class = odd
		}
		require.NoError(t, c.SetClasses(core.Classes{"item": class, fmt.Sprint("new", n%3): {}, "new0": {}, "new1": {}, "new2": {}}))
		if err := m.Put(t.Context(), 300, item{}); n%2 == 1 {
			refused(t, err, "size of item:300", len(`{"Name":"","Tags":null}`))
		} else {
			require.NoError(t, err)
		}
	}
	close(stop)
	all.Wait()
	require.EqualValues(t, 500, bridge.Of(c).ClassRevision())
	select {
	case err := <-errs:
		require.NoError(t, err)
	default:
	}
}
