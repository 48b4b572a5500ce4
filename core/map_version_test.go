package core_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/tier"
)

// eachVersioned is eachWay with versions only.
func eachVersioned(t *testing.T, test func(w *twoWriters)) {
	t.Helper()
	for _, way := range []string{"one process", "one instance", "two instances"} {
		t.Run(way, func(t *testing.T) { oneWay(t, way, test, itself) })
	}
}

// answers demands what is answered without a load.
func (w *twoWriters) answers(v int64) {
	w.t.Helper()
	synctest.Wait()
	for _, in := range []*instance{w.a, w.b} {
		got, err := in.Get(w.t.Context(), 7, func(context.Context, int) (int64, error) { return 0, errDown })
		require.NoError(w.t, err)
		require.Equal(w.t, v, got)
	}
}

func TestAPutOfAnOlderVersionInvalidatesAndIsNotStored(t *testing.T) {
	eachVersioned(t, func(w *twoWriters) {
		w.f.data.Store(6)
		require.NoError(w.t, w.a.Put(w.t.Context(), 7, 6))
		w.answers(6)
		require.NoError(w.t, w.b.Put(w.t.Context(), 7, 5))
		w.reads(6, 1)
		require.NoError(w.t, w.b.Put(w.t.Context(), 7, 6))
		w.answers(6)
		require.NoError(w.t, w.b.Put(w.t.Context(), 7, 7))
		w.answers(7)
		w.f.data.Store(1) // deleted and created again
		require.NoError(w.t, w.a.Invalidate(w.t.Context(), 7))
		synctest.Wait() // b has heard of it
		require.NoError(w.t, w.b.Put(w.t.Context(), 7, 1))
		w.answers(1)
		require.NoError(w.t, w.b.Put(w.t.Context(), 7, 0))
		w.answers(0)
	})
}

func TestAWriteOfAnOlderVersionIsNotStored(t *testing.T) {
	eachVersioned(t, func(w *twoWriters) {
		require.NoError(w.t, w.write(w.a, 5, func() {
			w.f.data.Store(6)
			synctest.Wait()
			require.EqualValues(w.t, 6, w.b.get(7))
		}))
		w.reads(6, 1)
		require.NoError(w.t, w.write(w.a, 7, func() { // older: it was alone
			synctest.Wait() // b has heard that it began
			require.EqualValues(w.t, 6, w.b.get(7))
		}))
		w.reads(7, 0)
		time.Sleep(10 * time.Millisecond)
		require.NoError(w.t, w.write(w.b, 1, nil)) // created again
		w.reads(1, 0)
	})
}

func TestARefreshThatReadsAnOlderVersionAnswersTheCachedOne(t *testing.T) {
	for name, version := range map[string]func(item) int64{
		"versions": func(v item) int64 { return int64(v.Name[0]) },
		"unknown":  func(item) int64 { return 0 },
	} {
		t.Run(name, func(t *testing.T) {
			eachTier(t, core.Class{TTL: minute, StaleWhileRevalidate: minute, StaleIfError: hour}, func(t *testing.T, l *validating) {
				m := l.m
				m.name.Store("b")
				require.Equal(t, "b", m.get(t))
				time.Sleep(minute)
				m.name.Store("a")
				require.Equal(t, "b", m.get(t))
				synctest.Wait()
				if name == "unknown" {
					require.Equal(t, "a", m.get(t))
					return
				}
				m.mustLoad(t, 2, "")
				require.Positive(t, m.cache.Stats().Refused)
				many, err := m.GetMany(t.Context(), []int{1}, func(context.Context, []int) (map[int]item, error) {
					return map[int]item{1: {Name: "a"}}, nil
				})
				require.NoError(t, err)
				require.Equal(t, map[int]item{1: {Name: "b"}}, many)
				synctest.Wait()
				require.Equal(t, core.Result[item]{Value: item{Name: "b"}, Source: core.FromProcess, Age: minute, Stale: true}, m.lookup(t))
				synctest.Wait()
				time.Sleep(minute) // it was not made to last longer
				require.Equal(t, "a", m.get(t))
			}, versioned(version))
		})
	}
}

// A load that is under way when a newer value is stored is answered with that.
func TestWaitersOfALoadOfAnOlderVersionGetTheNewerOne(t *testing.T) {
	eachVersioned(t, func(w *twoWriters) {
		w.f.data.Store(5)
		v, err := w.a.Get(w.t.Context(), 7, func(context.Context, int) (int64, error) {
			require.NoError(w.t, w.write(w.a, 6, nil))
			return 5, nil
		})
		require.NoError(w.t, err)
		require.EqualValues(w.t, 6, v)
		w.answers(6)
	})
}

// readFrom is a tier in which something happens before an entry is read.
type readFrom struct {
	tier.Tier
	before func() // each time
}

func (r *readFrom) Open(ctx context.Context, want tier.Layout) (tier.Session, error) {
	ses, err := r.Tier.Open(ctx, want)
	if err != nil {
		return nil, err
	}
	return &readFromSession{ses, r}, nil
}

type readFromSession struct {
	tier.Session
	tier *readFrom
}

func (s *readFromSession) Get(ctx context.Context, key string, tags []string) (tier.Entry, []string, error) {
	if s.tier.before != nil {
		s.tier.before()
	}
	return s.Session.Get(ctx, key, tags)
}

// The entry whose version is compared was stored a moment ago, and the earlier invalidation
// by its writer arrives at this instance meanwhile.
func TestAnOlderVersionIsNotStoredWhenANewerArrivesDuringThePut(t *testing.T) {
	for _, times := range []int{1, 100} {
		share(t, func(t *testing.T, f *fleet) {
			f.opts = append(f.opts, itself)
			shared := &readFrom{Tier: f.server.Tier("a")}
			w := &twoWriters{t: t, f: f, a: f.instance("a", func(o *core.Options) { o.Remote = shared }), b: f.instance("b")}
			newer := int64(6)
			shared.before = func() {
				if times > 0 {
					times--
					require.NoError(t, w.b.Put(t.Context(), 7, newer))
					newer++
					synctest.Wait() // the hint is there
				}
			}
			require.NoError(t, w.a.Put(t.Context(), 7, 5))
			shared.before = nil
			f.data.Store(newer)
			for _, in := range []*instance{w.a, w.b} {
				require.GreaterOrEqual(t, in.get(7), int64(6))
			}
		})
	}
}

func TestMapsOfOnePrefixBothHaveVersionsOrNeither(t *testing.T) {
	c := open(t, core.Options{Classes: core.Classes{"c": {TTL: hour}}})
	_, err := core.NewMap(c, with(core.MapOptions[int, int64]{Class: "c", Prefix: "item"}, itself))
	require.NoError(t, err)
	_, err = core.NewMap(c, core.MapOptions[int, int64]{Class: "c", Prefix: "item"})
	var ce *core.ConfigError
	require.ErrorAs(t, err, &ce, "one prefix for two kinds")
	require.Equal(t, "MapOptions.Prefix", ce.Field)
}
