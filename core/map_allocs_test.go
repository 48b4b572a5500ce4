package core_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
)

func hits(tb testing.TB, opts ...option[int64]) *core.Map[int, int64] {
	tb.Helper()
	c := open(tb, core.Options{Classes: core.Classes{"c": {TTL: hour}}})
	m, err := core.NewMap(c, with(core.MapOptions[int, int64]{Class: "c", Prefix: "item"}, opts...))
	require.NoError(tb, err)
	_, err = m.Get(tb.Context(), 1, one)
	require.NoError(tb, err)
	return m
}

func one(context.Context, int) (int64, error) { return 1, nil }

var asItIs = cloned(func(v int64) int64 { return v })

// Information about a value costs nothing where the caller does not ask for it.
func TestAHitAllocatesTheKeyAndTheValue(t *testing.T) {
	m, ctx := hits(t, asItIs), t.Context()
	require.LessOrEqual(t, testing.AllocsPerRun(1000, func() { _, _ = m.Get(ctx, 1, one) }), 3.0, "32 bytes in all")
}

func BenchmarkMapHit(b *testing.B) {
	for name, opts := range map[string][]option[int64]{"cloned": {asItIs}, "decoded": nil} {
		b.Run(name, func(b *testing.B) {
			m, ctx := hits(b, opts...), b.Context()
			b.ReportAllocs()
			for b.Loop() {
				_, _ = m.Get(ctx, 1, one)
			}
		})
	}
}
