package local

import (
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAnEntryIsFreshThenStaleThenSpareThenGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t)
		f := fillOf("v", nil)
		f.Lifetime = Lifetime{Fresh: 10 * time.Millisecond, Stale: 20 * time.Millisecond, Fallback: 50 * time.Millisecond}
		c.NewLoad(key, nil).Fill(f)
		state := func() State {
			_, s := c.Lookup(key)
			return s
		}
		for _, step := range []struct {
			after time.Duration
			now   State
		}{
			{0, Fresh}, {10*time.Millisecond - 1, Fresh}, {1, Stale}, {20*time.Millisecond - 1, Stale}, {1, Fallback},
			{30*time.Millisecond - 1, Fallback}, {1, Gone}, {hour, Gone},
		} {
			time.Sleep(step.after)
			require.Equal(t, step.now, state())
		}
	})
}

func TestAStaleWindowThatOutlastsTheSpareOneEndsTheEntry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t)
		f := fillOf("v", nil)
		f.Lifetime = Lifetime{Fresh: time.Second, Stale: minute, Fallback: time.Second}
		c.NewLoad(key, nil).Fill(f)
		time.Sleep(minute + time.Second - 1)
		_, state := c.Lookup(key)
		require.Equal(t, Stale, state)
		time.Sleep(1)
		_, state = c.Lookup(key)
		require.Equal(t, Gone, state)
	})
}

func TestALifetimeCountsFromItsGivenStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t)
		began := c.Now()
		load := c.NewLoad(key, nil)
		time.Sleep(4 * time.Second)
		f := fillOf("v", nil)
		f.Lifetime = Lifetime{Fresh: 5 * time.Second, Since: began}
		en, refusal := load.Fill(f)
		require.Equal(t, Stored, refusal)
		require.Equal(t, began+int64(5*time.Second), en.FreshUntil)
		require.Equal(t, int64(4*time.Second), en.LoadTime)
		require.Equal(t, began, en.Born)
		time.Sleep(time.Second)
		_, state := c.Lookup(key)
		require.Equal(t, Gone, state)

		f.Lifetime = Lifetime{Fresh: 5 * time.Second, Since: began}
		_, refusal = c.NewLoad(key, nil).Fill(f)
		require.Equal(t, NoLifetime, refusal, "its time was over before it was stored")
		_, refusal = c.NewLoad(key, nil).Fill(Fill{Value: "v"})
		require.Equal(t, NoLifetime, refusal)
	})
}

// The chance to refresh early, so long before the end, is exp(-left/loadTime).
func TestTheChanceOfAnEarlyRefreshFollowsXFetch(t *testing.T) {
	const draws = 200_000
	load := int64(100 * time.Millisecond)
	now := int64(hour)
	for _, left := range []float64{0.01, 0.25, 1, 2, 4, 8} {
		en := &Entry{FreshUntil: now + int64(left*float64(load)), LoadTime: load}
		early := 0
		for range draws {
			if en.Early(now) {
				early++
			}
		}
		want := math.Exp(-left)
		deviation := math.Sqrt(want * (1 - want) / draws)
		require.InDelta(t, want, float64(early)/draws, 6*deviation, "%v load times before the end", left)
	}
}

func TestNoEarlyRefreshFarFromTheEndOrWithoutALoadTime(t *testing.T) {
	now := int64(hour)
	for range 100_000 {
		require.False(t, (&Entry{FreshUntil: now + int64(minute), LoadTime: int64(time.Second)}).Early(now))
		require.False(t, (&Entry{FreshUntil: now + 1}).Early(now))
	}
	require.True(t, (&Entry{FreshUntil: now, LoadTime: 1}).Early(now))
}
