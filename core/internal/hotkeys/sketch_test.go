package hotkeys_test

import (
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/internal/hotkeys"
)

func names(items []hotkeys.Item[int]) (list []string) {
	for _, it := range items {
		list = append(list, it.Name)
	}
	return list
}

func ask(s *hotkeys.Sketch[int], n int, name string) {
	for range n {
		if s.Sampled() {
			s.Saw(name, len(name))
		}
	}
}

func TestNamesRequestedTwiceAreTheTopOfFew(t *testing.T) {
	s := hotkeys.New[int](2)
	ask(s, 3, "c")
	ask(s, 5, "aa")
	ask(s, 2, "b")
	ask(s, 1, "once")
	require.Equal(t, []hotkeys.Item[int]{{"aa", 2}, {"c", 1}}, s.Top())
}

func TestFrequentNamesAreTheTopOfAStream(t *testing.T) {
	s := hotkeys.New[int](10)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range 200_000 {
		if random.IntN(4) == 0 {
			ask(s, 1, "hot"+strconv.Itoa(random.IntN(10)))
		} else {
			ask(s, 1, "cold"+strconv.Itoa(i))
		}
	}
	for _, name := range names(s.Top()) {
		require.Contains(t, name, "hot")
	}
	require.Len(t, s.Top(), 10)
}

func TestOldRequestsGiveWayToRecentOnes(t *testing.T) {
	s := hotkeys.New[int](1)
	ask(s, 100, "old")
	require.Equal(t, []string{"old"}, names(s.Top()))
	for range 8 {
		s.Fade(0.5)
	}
	require.Empty(t, s.Top(), "the name counts for less than two requests")
	ask(s, 3, "new")
	require.Equal(t, []string{"new"}, names(s.Top()))
}

func TestTheSamplingRateFollowsTheLoad(t *testing.T) {
	s := hotkeys.New[int](1)
	ask(s, 1_000_000, "a")
	sampled := func() (n int) {
		for range 10_000 {
			if s.Sampled() {
				n++
			}
		}
		return n
	}
	require.Less(t, sampled(), 100, "one in a thousand")
	require.Equal(t, []string{"a"}, names(s.Top()))
	for range 11 {
		s.Fade(1)
	}
	require.Equal(t, 10_000, sampled())
}

func TestASeedTakesItsFirstItems(t *testing.T) {
	s := hotkeys.New[int](2)
	s.Seed([]hotkeys.Item[int]{{"a", 1}, {"b", 2}, {"c", 3}})
	require.Equal(t, []hotkeys.Item[int]{{"a", 1}, {"b", 2}}, s.Top())
	ask(s, 1, "b")
	require.Equal(t, []string{"b", "a"}, names(s.Top()))
}

func TestConcurrentRequestsDoNotWait(t *testing.T) {
	s := hotkeys.New[int](4)
	var all sync.WaitGroup
	for g := range 8 {
		all.Go(func() {
			for i := range 10_000 {
				ask(s, 1, strconv.Itoa((g+i)%20))
				if i%1000 == 0 {
					s.Top()
					s.Fade(0.9)
				}
			}
		})
	}
	all.Wait()
	require.LessOrEqual(t, len(s.Top()), 4)
}
