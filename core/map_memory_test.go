package core_test

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
)

type account struct {
	ID        int64
	Name      string
	Email     string
	City      string
	CreatedAt time.Time
	Roles     []string
	Active    bool
}

func anAccount(i int) account {
	return account{
		int64(i), fmt.Sprint("Customer number ", i), fmt.Sprintf("customer%d@shop.example", i), "Copenhagen, Region, Denmark",
		time.Unix(1_700_000_000+int64(i), 0).UTC(), []string{"reader", "editor"}, i%2 == 0,
	}
}

func collected() uint64 {
	var m runtime.MemStats
	for range 3 {
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// filled returns the bytes that n values of a map take in memory, and by its count.
func filled[V any](t *testing.T, n int, value func(i int) V, opts ...option[V]) (taken, counted uint64) {
	t.Helper()
	before := collected()
	c := open(t, core.Options{MaxBytes: 1 << 30, Classes: core.Classes{"c": {TTL: hour}}})
	m, err := core.NewMap(c, with(core.MapOptions[int, V]{Class: "c", Prefix: "user"}, opts...))
	require.NoError(t, err)
	for i := range n {
		_, err := m.Get(t.Context(), i, func(context.Context, int) (V, error) { return value(i), nil })
		require.NoError(t, err)
	}
	taken = collected() - before
	require.Equal(t, n, c.Stats().Entries)
	return taken, c.Stats().Bytes
}

func TestAMapEntryOf195BytesTakesNoMoreThan350(t *testing.T) {
	data, err := json.Marshal(anAccount(12345))
	require.NoError(t, err)
	require.InDelta(t, 195, len(data), 5)
	const n = 20_000

	taken, counted := filled(t, n, anAccount)

	t.Logf("%d bytes per entry, counted as %d", taken/n, counted/n)
	require.LessOrEqual(t, taken/n, uint64(350))
	require.InEpsilon(t, counted, taken, 0.05)
}

func TestMaxBytesCountsWhatValuesOfEachKindTake(t *testing.T) {
	const n = 10_000
	for name, fill := range map[string]func(*testing.T) (taken, counted uint64){
		"a clone": func(t *testing.T) (taken, counted uint64) {
			return filled(t, n, func(i int) *account { a := anAccount(i); return &a }, cloned(func(a *account) *account { b := *a; return &b }))
		},
		"any": func(t *testing.T) (taken, counted uint64) {
			return filled(t, n, func(i int) any { return fmt.Sprint(i) })
		},
		"a large text": func(t *testing.T) (taken, counted uint64) {
			return filled(t, n, func(int) string { return strings.Repeat("x", 3000) })
		},
		"another codec": func(t *testing.T) (taken, counted uint64) {
			return filled(t, n, anAccount, encoded[account](gobCodec{}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			taken, counted := fill(t)
			t.Logf("%d bytes per entry, counted as %d", taken/n, counted/n)
			require.InEpsilon(t, counted, taken, 0.15) // text of the program counts as if it were the value's
		})
	}
}
