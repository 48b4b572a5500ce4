package tier_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/internal/tier"
)

// sent collects what goes out together.
type sent struct {
	mu   sync.Mutex
	went [][]int
}

func (s *sent) send(_ context.Context, all []any) {
	together := make([]int, len(all))
	for i, v := range all {
		together[i] = v.(int)
	}
	slices.Sort(together)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.went = append(s.went, together)
}

func TestABatchSendsWhenEveryMemberHasSomething(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, b := new(sent), tier.NewBatch(3)
		var all sync.WaitGroup
		start := time.Now()
		for i := range 3 {
			all.Go(func() {
				defer b.Leave()
				for step := range 2 {
					if i == 2 && step == 1 {
						return // it has nothing more
					}
					if err := b.Send(t.Context(), 10*step+i, s.send); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		require.Equal(t, [][]int{{0, 1, 2}, {10, 11}}, s.went)
		require.Zero(t, time.Since(start))
	})
}

func TestABatchWaitsShortlyForABusyMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, b := new(sent), tier.NewBatch(2)
		start := time.Now()
		require.NoError(t, b.Send(t.Context(), 1, s.send))
		require.Less(t, time.Since(start), 10*time.Millisecond)
		require.NoError(t, b.Send(t.Context(), 2, s.send), "and again")
		b.Leave()
		b.Leave()
		require.Equal(t, [][]int{{1}, {2}}, s.went)
	})
}

func TestABatchNeverSendsContentWhoseContextEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, b := new(sent), tier.NewBatch(2)
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		require.ErrorIs(t, b.Send(ctx, 1, s.send), context.DeadlineExceeded)
		b.Leave()
		require.NoError(t, b.Send(t.Context(), 2, s.send))
		b.Leave()
		require.Equal(t, [][]int{{2}}, s.went)
	})
}

func TestABatchOfManyMembersSendsEverythingOnce(t *testing.T) {
	const members, each = 300, 20
	s, b := new(sent), tier.NewBatch(members)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var all sync.WaitGroup
	for i := range members {
		all.Go(func() {
			defer b.Leave()
			for step := range 1 + i%each {
				if err := b.Send(ctx, i*each+step, s.send); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	got := slices.Concat(s.went...)
	slices.Sort(got)
	want := 0
	for i := range members {
		want += 1 + i%each
	}
	require.Len(t, got, want)
	require.Len(t, slices.Compact(got), want)
}
