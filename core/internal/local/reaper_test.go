package local

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/internal/tier"
)

// fill stores n entries of a tag under keys that begin with a prefix.
func fill(t testing.TB, c *Cache, n int, prefix, tag string) {
	t.Helper()
	for i := range n {
		store(t, c, fmt.Sprint(prefix, i), "v", []string{tag}, nil)
	}
}

func entries(c *Cache) int {
	c.tier.cache.CleanUp()
	n, _ := c.Size()
	return n
}

func TestEntriesThatAreInvalidatedAreGivenBackWithoutALookup(t *testing.T) {
	for name, item := range map[string]Item{
		"by tag":     {Kind: Tag, Value: "t:gone"},
		"by pattern": {Kind: Pattern, Value: "gone:*"},
		"by era":     EraItem(0),
		"all":        {Kind: All},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const n = 3 * reapStep
				c := openWith(t, Settings{MaxBytes: 1 << 30, Refreshes: 4})
				fill(t, c, n, "gone:", "t:gone")
				fill(t, c, n, "stays:", "t:stays")
				require.Equal(t, 2*n, entries(c))

				c.Fence([]Item{item})

				time.Sleep(2 * time.Second)
				stay := n
				if item.Kind == tier.Era || item.Kind == All {
					stay = 0
				}
				require.Equal(t, stay, entries(c))
				require.False(t, c.reaper.running.Load(), "its goroutine has ended")
			})
		})
	}
}

func TestAPassLooksAtABoundedNumberOfEntriesPerStep(t *testing.T) {
	c := openWith(t, Settings{MaxBytes: 1 << 30, Refreshes: 4})
	fill(t, c, 10*reapStep, "k", "t:a")
	steps := 0
	require.True(t, c.reap(func() bool { steps++; return true }))
	require.Equal(t, 10, steps)
	require.False(t, c.reap(func() bool { return false }), "it ends between two steps")
}

func TestAnInvalidationDuringAPassIsFollowedByAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := openWith(t, Settings{MaxBytes: 1 << 30, Refreshes: 4})
		fill(t, c, 4*reapStep, "one", "t:one")
		fill(t, c, 4*reapStep, "two", "t:two")
		c.Fence([]Item{{Kind: Tag, Value: "t:one"}})
		time.Sleep(reapDelay + 2*reapPause + 1) // the pass is under way

		c.Fence([]Item{{Kind: Tag, Value: "t:two"}})

		time.Sleep(3 * time.Second)
		require.Zero(t, entries(c))
	})
}

func TestAnEntryThatReplacesADeadOneStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t)
		store(t, c, key, "old", []string{"t:a"}, nil)
		c.Fence([]Item{{Kind: Tag, Value: "t:a"}})
		store(t, c, key, "new", []string{"t:a"}, nil)
		time.Sleep(2 * time.Second)
		mustBe(t, c, key, "new")
	})
}

func TestATagThatNothingCarriesStartsNoPass(t *testing.T) {
	c := open(t)
	c.Fence([]Item{{Kind: Tag, Value: "t:unknown"}, {Kind: Key, Value: "unknown"}})
	require.False(t, c.reaper.running.Load())
}

func TestClosingEndsAPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := openWith(t, Settings{MaxBytes: 1 << 30, Refreshes: 4})
		fill(t, c, 10*reapStep, "k", "t:a")
		c.Fence([]Item{{Kind: Tag, Value: "t:a"}})
		time.Sleep(reapDelay + reapPause + 1)
		require.NoError(t, c.Close(t.Context()))
		c.Fence([]Item{{Kind: Pattern, Value: "*"}})
		synctest.Wait() // the bubble ends only when each goroutine has
	})
}

func TestAnEntryIsGoneAtOnceWhenTheTagOfItsKeyIsInvalidated(t *testing.T) {
	c := open(t)
	own := tier.TagPrefix + key
	en := store(t, c, key, "old", []string{own}, []string{"t:late"})
	require.Equal(t, []string{"t:late"}, en.Tags(), "it holds no generation of its own tag")
	other := store(t, c, "other", "stays", []string{tier.TagPrefix + "other"}, nil)

	c.Fence([]Item{{Kind: Tag, Value: own}})

	mustBeGone(t, c, key)
	require.True(t, en.is(removed))
	require.False(t, other.is(removed))
	mustBe(t, c, "other", "stays")
}

func TestTheTagOfAKeyReachesAnEntryUnderAnotherKey(t *testing.T) {
	c := open(t)
	own := tier.TagPrefix + key
	f := fillOf("old", nil)
	f.Key = "elsewhere"
	_, refusal := c.NewLoad(key, []string{own}).Fill(f)
	require.Equal(t, Stored, refusal)
	c.Fence([]Item{{Kind: Tag, Value: own}})
	mustBeGone(t, c, "elsewhere")
}

func TestTheTagOfAKeyLeavesAnEntryThatDoesNotCarryIt(t *testing.T) {
	c := open(t)
	store(t, c, key, "v", nil, nil)
	c.Fence([]Item{{Kind: Tag, Value: tier.TagPrefix + key}})
	mustBe(t, c, key, "v")
}

func TestALoadWithTheTagOfItsKeyIsFencedByIt(t *testing.T) {
	c := open(t)
	own := tier.TagPrefix + key
	load := c.NewLoad(key, []string{own})
	c.Fence([]Item{{Kind: Tag, Value: own}})
	_, refusal := load.Fill(fillOf("old", nil))
	require.Equal(t, Fenced, refusal)
	mustBeGone(t, c, key)
}
