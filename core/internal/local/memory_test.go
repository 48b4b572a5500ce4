package local

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/internal/tier"
)

// heapInUse returns the bytes in use after a collection.
func heapInUse() int {
	var m runtime.MemStats
	for range 3 { // weak pointers and what they led to take two
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// kinds are entries as maps and responses make them. Each returns a load and a fill.
var kinds = map[string]func(c *Cache, i int, size int) (*Load, Fill){
	"a value with the tag of its key": func(c *Cache, i, size int) (*Load, Fill) {
		key := fmt.Sprint("user:", i)
		return c.NewLoad(key, []string{tier.TagPrefix + key}), bytesOf(size)
	},
	"a response with a tag of its own": func(c *Cache, i, size int) (*Load, Fill) {
		key := fmt.Sprint("https://shop.example/items/", i)
		return c.NewLoad(key, []string{fmt.Sprint("p:/items/", i)}), bytesOf(size)
	},
	"a value with shared tags": func(c *Cache, i, size int) (*Load, Fill) {
		key := fmt.Sprint("user:", i)
		f := bytesOf(size)
		f.Tags = []string{"t:all", fmt.Sprint("t:", i%100), fmt.Sprint("t:even", i%2)}
		return c.NewLoad(key, []string{tier.TagPrefix + key}), f
	},
}

// block is a value that is one block of memory, and one word in an interface.
type block struct{ first *byte }

func bytesOf(size int) Fill {
	b := make([]byte, size)
	return Fill{Value: block{&b[0]}, Size: size, Lifetime: Lifetime{Fresh: hour}}
}

func TestAnEntryTakesTheMemoryThatItIsWeighedBy(t *testing.T) {
	for name, make := range kinds {
		for _, size := range []int{64, 195, 1273} {
			t.Run(fmt.Sprint(name, " of ", size), func(t *testing.T) {
				const entries = 20_000
				before := heapInUse()
				c := openWith(t, Settings{MaxBytes: 1 << 30, Refreshes: 4})
				for i := range entries {
					l, f := make(c, i, size)
					_, refusal := l.Fill(f)
					require.Equal(t, Stored, refusal)
				}
				taken := heapInUse() - before
				n, weighed := c.Size()
				require.Equal(t, entries, n)
				t.Logf("%d bytes per entry, weighed %d: %.3f", taken/entries, weighed/entries, float64(taken)/float64(weighed))
				require.Less(t, taken, int(weighed)*103/100)
				require.InEpsilon(t, weighed, taken, 0.2) // the place of a tag counts twice, and is taken once
				runtime.KeepAlive(c)
			})
		}
	}
}

func TestAFullTierTakesNoMoreMemoryThanItMay(t *testing.T) {
	for name, make := range kinds {
		t.Run(name, func(t *testing.T) {
			const most = 32 << 20
			before := heapInUse()
			c := openWith(t, Settings{MaxBytes: most, Refreshes: 4})
			for i := range 4 * most / 1500 {
				l, f := make(c, i, 1000+i%500)
				l.Fill(f)
				if i%10_000 == 0 { // whatever was collected before the test
					runtime.GC()
				}
			}
			taken := heapInUse() - before
			n, weighed := c.Size()
			t.Logf("%.3f of MaxBytes; %d entries of %d bytes, %d tags", float64(taken)/most, n, weighed/uint64(n), c.Tags())
			require.Less(t, taken, most*103/100)
			require.Greater(t, taken, most*90/100)
			runtime.KeepAlive(c)
		})
	}
}
