package core_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/maypok86/otter/v2"
	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
)

type (
	plainRow struct {
		ID      int64
		Name    string
		Email   string
		Active  bool
		Balance float64
		Created time.Time
	}
	listRow struct {
		ID    int64
		Name  string
		Email string
		Price float64
		Tags  []string
	}
)

var (
	aPlainRow = plainRow{42, "Ada Lovelace", "ada@example.com", true, 12.5, time.Date(2024, 5, 17, 11, 30, 0, 0, time.UTC)}
	aListRow  = listRow{42, "A chair of oak", "chairs@shop.example", 129.9, []string{"chair", "oak", "indoor"}}
)

// hitOf returns a hit of a map that keeps v.
func hitOf[V any](tb testing.TB, v V) func() {
	tb.Helper()
	c := open(tb, core.Options{Classes: core.Classes{"c": {TTL: hour}}})
	m, err := core.NewMap(c, core.MapOptions[int, V]{Class: "c", Prefix: "row"})
	require.NoError(tb, err)
	load := func(context.Context, int) (V, error) { return v, nil }
	ctx := tb.Context()
	get := func() {
		if _, err := m.Get(ctx, 123456, load); err != nil {
			tb.Fatal(err)
		}
	}
	get()
	return get
}

func TestAHitAllocatesTheKeyAndWhatCanBeChanged(t *testing.T) {
	for name, c := range map[string]struct {
		hit func()
		max float64
	}{
		"numbers and strings":   {hitOf(t, aPlainRow), 1},
		"a list of strings":     {hitOf(t, aListRow), 2},
		"a list of structs":     {hitOf(t, []plainRow{aPlainRow, aPlainRow}), 3}, // one is the slice header
		"a pointer to a struct": {hitOf(t, &aPlainRow), 2},
	} {
		require.LessOrEqual(t, testing.AllocsPerRun(1000, c.hit), c.max, name)
	}
}

// A sync.Map and Otter hold the value itself: what a hit costs beside them is the price of
// the key, of validity, and of a value that is the caller's own.
func BenchmarkMapHitBesideOthers(b *testing.B) {
	for name, hit := range map[string]func(){
		"larder/plain": hitOf(b, aPlainRow), "larder/list": hitOf(b, aListRow),
		"otter/list": otterHit(b, aListRow), "syncmap/list": syncMapHit(aListRow),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				hit()
			}
		})
	}
}

func otterHit[V any](tb testing.TB, v V) func() {
	tb.Helper()
	c := otter.Must(&otter.Options[string, V]{MaximumSize: 1000, ExpiryCalculator: otter.ExpiryWriting[string, V](hour)})
	tb.Cleanup(func() { c.StopAllGoroutines() })
	c.Set("row:123456", v)
	return func() {
		if _, ok := c.GetIfPresent("row:123456"); !ok {
			tb.Fatal("a miss")
		}
	}
}

func syncMapHit[V any](v V) func() {
	var m sync.Map
	m.Store("row:123456", v)
	return func() { m.Load("row:123456") }
}
