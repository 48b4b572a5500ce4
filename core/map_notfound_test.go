package core_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
)

var errDeleted = errors.New("user is deleted")

func notFound[V any](errs ...error) option[V] {
	return func(o *core.MapOptions[int, V]) { o.NotFound = errs }
}

// lacks demands that err says that an id does not exist, by one error of the database.
func lacks(t *testing.T, err, is error) {
	t.Helper()
	require.ErrorIs(t, err, is)
	require.ErrorIs(t, err, core.ErrNotFound)
	for _, other := range []error{sql.ErrNoRows, errDeleted} {
		require.Equal(t, errors.Is(is, other), errors.Is(err, other), "%v", other)
	}
}

func TestAnErrorOfTheDatabaseIsRememberedAsNotFound(t *testing.T) {
	share(t, func(t *testing.T, f *fleet) {
		f.opts = []option[int64]{notFound[int64](sql.ErrNoRows, errDeleted)}
		a, b := f.instance("a"), f.instance("b")
		for id, is := range []error{sql.ErrNoRows, errDeleted} {
			load := func(context.Context, int) (int64, error) {
				f.loads.Add(1)
				return 0, fmt.Errorf("user %d: %w", id, is)
			}
			for range 2 {
				for _, in := range []*instance{a, b} { // a load, memory, the shared tier
					_, err := in.Get(t.Context(), id, load)
					lacks(t, err, is)
				}
			}
			require.EqualValues(t, 1, f.loads.Swap(0))
		}
		require.Zero(t, a.cache.Stats().LoadErrors)

		values, err := b.GetMany(t.Context(), []int{0, 1}, mustNotLoad(t))
		require.NoError(t, err)
		require.Empty(t, values)
	})
}

// mustNotLoad is a loader that must not run.
func mustNotLoad(t *testing.T) core.ManyLoader[int, int64] {
	return func(context.Context, []int) (map[int]int64, error) {
		t.Error("a load of values that are known not to exist")
		return nil, nil
	}
}

func TestAnIDThatABatchLacksIsTheFirstErrorOfNotFound(t *testing.T) {
	for _, way := range []string{"GetMany", "Warm"} {
		t.Run(way, func(t *testing.T) {
			share(t, func(t *testing.T, f *fleet) {
				f.opts = []option[int64]{notFound[int64](sql.ErrNoRows, errDeleted)}
				a, b := f.instance("a"), f.instance("b")
				load := func(context.Context, []int) (map[int]int64, error) {
					return map[int]int64{3: 3}, core.BatchError[int]{2: fmt.Errorf("2: %w", errDeleted)}
				}
				if way == "Warm" {
					done, err := a.Warm(t.Context(), slices.Values([]int{1, 2, 3}), load, core.WarmOptions{})
					require.NoError(t, err)
					require.Zero(t, done.Failed)
				} else {
					values, err := a.GetMany(t.Context(), []int{1, 2, 3}, load)
					require.NoError(t, err)
					require.Equal(t, map[int]int64{3: 3}, values)
				}
				for _, in := range []*instance{a, b} {
					for id, is := range map[int]error{1: sql.ErrNoRows, 2: errDeleted} {
						_, err := in.Get(t.Context(), id, func(context.Context, int) (int64, error) { return 1, nil })
						lacks(t, err, is)
					}
				}
			})
		})
	}
}

func TestNotFoundAsTheErrorOfAWholeBatchIsNotRemembered(t *testing.T) {
	share(t, func(t *testing.T, f *fleet) {
		f.opts = []option[int64]{notFound[int64](sql.ErrNoRows)}
		a := f.instance("a")
		_, err := a.GetMany(t.Context(), []int{1, 2}, func(context.Context, []int) (map[int]int64, error) { return nil, sql.ErrNoRows })
		require.ErrorIs(t, err, sql.ErrNoRows)
		require.NotErrorIs(t, err, core.ErrNotFound)
		v, err := a.Get(t.Context(), 1, func(context.Context, int) (int64, error) { return 7, nil })
		require.NoError(t, err)
		require.EqualValues(t, 7, v)
	})
}

func TestNotFoundHoldsWithTheCacheSwitchedOff(t *testing.T) {
	m := openItems(t, core.Class{TTL: hour, NegativeTTL: minute}, notFound[item](sql.ErrNoRows))
	m.cache.SetEnabled(false)
	m.fail(sql.ErrNoRows)
	_, err := m.Get(t.Context(), 1, m.load)
	require.ErrorIs(t, err, sql.ErrNoRows)
	require.ErrorIs(t, err, core.ErrNotFound)
}

func TestAnErrorThatIsNotListedIsNotNotFound(t *testing.T) {
	bubble(t, core.Class{TTL: hour, NegativeTTL: minute}, func(t *testing.T, m *items) {
		m.fail(sql.ErrNoRows)
		for range 2 {
			_, err := m.Get(t.Context(), 1, m.load)
			require.ErrorIs(t, err, sql.ErrNoRows)
			require.NotErrorIs(t, err, core.ErrNotFound)
		}
		m.mustLoad(t, 2, "an error is not remembered")
	})
}

func TestNotFoundReachesMergeAndReadersOfAQueue(t *testing.T) {
	for _, way := range []string{"one process", "one instance", "two instances"} {
		t.Run(way, func(t *testing.T) {
			share(t, func(t *testing.T, f *fleet) {
				f.opts = []option[int64]{notFound[int64](sql.ErrNoRows)}
				var a, b *instance
				a = f.instance("a", func(o *core.Options) {
					if way == "one process" {
						o.Remote = nil
					}
				})
				if b = a; way == "two instances" {
					b = f.instance("b")
				}
				none := func(context.Context, int) (int64, error) { return 0, sql.ErrNoRows }
				q, err := core.NewWriteBehind(a.Map, func(context.Context, []core.Change[int, int64]) error { return nil }, wbOptions{
					Interval: time.Hour, Merge: func(old, more int64) int64 { return old + more }, Load: none,
				})
				require.NoError(t, err)

				require.NoError(t, q.Put(t.Context(), 1, 5), "Load says that there is nothing to merge with")
				v, err := b.Get(t.Context(), 1, none)
				require.NoError(t, err)
				require.EqualValues(t, 5, v)
				require.NoError(t, q.Delete(t.Context(), 1))
				time.Sleep(time.Second) // the hint
				_, err = b.Get(t.Context(), 1, func(context.Context, int) (int64, error) { return 9, nil })
				require.ErrorIs(t, err, sql.ErrNoRows)
				require.ErrorIs(t, err, core.ErrNotFound)
			})
		})
	}
}

func TestErrorsThatCannotMeanNotFoundAreRefused(t *testing.T) {
	c := open(t, core.Options{Classes: core.Classes{"item": {TTL: hour}}})
	for name, list := range map[string][]error{
		"nil":            {nil},
		"no text":        {errors.New("")},
		"one text twice": {errors.New("none"), errors.New("none")},
		"too long":       {errors.New(strings.Repeat("x", 1025))},
		"a deadline":     {context.DeadlineExceeded},
		"a cancellation": {fmt.Errorf("query: %w", context.Canceled)},
		"not modified":   {core.ErrNotModified},
	} {
		_, err := core.NewMap(c, core.MapOptions[int, item]{Class: "item", Prefix: "item", NotFound: list})
		var bad *core.ConfigError
		require.ErrorAs(t, err, &bad, name)
		require.Equal(t, "MapOptions.NotFound", bad.Field, name)
	}
	_, err := core.NewMap(c, core.MapOptions[int, item]{Class: "item", Prefix: "item", NotFound: []error{sql.ErrNoRows}})
	require.NoError(t, err)
	_, err = core.NewMap(c, core.MapOptions[int, item]{Class: "item", Prefix: "item"})
	require.Error(t, err, "two maps of one prefix have the same options")
}
