package core_test

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/tier"
)

func TestAShardThatHangsLeavesTheHitsOfOthers(t *testing.T) {
	share(t, func(t *testing.T, f *fleet) {
		a, b := f.instance("a"), f.instance("b")
		const rows, readers = 4000, 8
		f.data.Store(1)
		var served, other []int
		for id := range rows {
			name := "item:" + strconv.Itoa(id)
			if tier.Partition(name, tier.DefaultPartitions) > 10 || tier.Partition("t:"+name, tier.DefaultPartitions) > 10 {
				other = append(other, id)
			} else {
				served = append(served, id)
			}
			a.get(id)
		}
		f.server.Freeze(true, 11, 12, 13, 14, 15)
		var wg sync.WaitGroup
		var loads atomic.Int64
		wg.Go(func() { // what is pending is tried again all the time
			for range 3 {
				ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
				require.ErrorIs(t, b.Invalidate(ctx, other[0]), core.ErrPending)
				cancel()
			}
		})
		each := len(served) / readers
		for r := range readers {
			wg.Go(func() { // what it has not kept yet
				for i := r * each; i < (r+1)*each; i++ {
					_, err := b.Get(t.Context(), served[i], func(context.Context, int) (int64, error) {
						loads.Add(1)
						return 0, nil
					})
					require.NoError(t, err)
					time.Sleep(20 * time.Millisecond)
				}
			})
			wg.Go(func() {
				for i := range each {
					start := time.Now()
					b.get(other[(i*readers+r)%len(other)])
					require.LessOrEqual(t, time.Since(start), 100*time.Millisecond)
					time.Sleep(7 * time.Millisecond)
				}
			})
		}
		wg.Wait()
		require.Zero(t, loads.Load(), "of %d", each*readers)
		require.NotZero(t, b.cache.Stats().Pending)

		f.server.Freeze(false, 11, 12, 13, 14, 15)
		time.Sleep(2 * time.Second)
		require.Zero(t, b.cache.Stats().Pending)
		before := f.loads.Load()
		b.get(other[0])
		b.get(other[0])
		require.EqualValues(t, 1, f.loads.Load()-before)
	})
}
