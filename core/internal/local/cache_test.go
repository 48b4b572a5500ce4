package local

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAPatternMatchesTheNameWithoutTheVariant(t *testing.T) {
	c := open(t)
	variant := "item:1" + string(rune(NameEnd)) + "gzip"
	require.Equal(t, "item:1", Name(variant))
	require.Equal(t, "item:1", Name("item:1"))
	store(t, c, variant, "old", nil, nil)
	store(t, c, "item:10", "kept", nil, nil)
	load := c.NewLoad(variant, nil)
	c.Fence([]Item{{Kind: Pattern, Value: "item:1"}})
	mustBeGone(t, c, variant)
	load.Fill(fillOf("old", nil))
	mustBeGone(t, c, variant)
	mustBe(t, c, "item:10", "kept")
}

func TestALoadIsFencedByAnInvalidationOfTheKeyItStoresUnder(t *testing.T) {
	c := open(t)
	load := c.NewLoad("item", nil)
	c.Fence([]Item{{Kind: Key, Value: key}})
	f := fillOf("old", nil)
	f.Key = key
	load.Fill(f)
	mustBeGone(t, c, key)
	mustBeGone(t, c, "item")
	f.Value = "new"
	c.NewLoad("item", nil).Fill(f)
	mustBe(t, c, key, "new")
}

func TestATagNamedTwiceIsKeptOnce(t *testing.T) {
	c := open(t)
	en := store(t, c, key, "v", []string{"t:a"}, []string{"t:a", "t:b", "t:b"})
	require.Len(t, slices.Collect(en.generations), 3) // the era and two tags
}

func TestLoadsOfOneTurnDoNotShareLateTags(t *testing.T) {
	c := open(t)
	tags := append(make([]string, 0, 8), "t:a") // room to append into
	one, two := c.NewLoad("one", tags), c.NewLoad("two", tags)
	one.Fill(fillOf("1", []string{"t:one"}))
	two.Fill(fillOf("2", []string{"t:two"}))
	c.Fence([]Item{{Kind: Tag, Value: "t:one"}})
	mustBeGone(t, c, "one")
	mustBe(t, c, "two", "2")
}

func TestAMarkIsFoundUntilItsEndOrAnInvalidationOfAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t)
		c.Put("mark", 7, 8, minute)
		mustBeInt := func() {
			en, state := c.Lookup("mark")
			require.Equal(t, Fresh, state)
			require.Equal(t, 7, en.Value)
		}
		mustBeInt()
		time.Sleep(minute)
		mustBeGone(t, c, "mark")
		c.Put("mark", 7, 8, minute)
		mustBeInt()
		c.Fence([]Item{{Kind: All}})
		mustBeGone(t, c, "mark")
		c.Put("mark", 7, 8, minute)
		c.Drop("mark")
		mustBeGone(t, c, "mark")
	})
}

func TestADroppedEntryDoesNotFenceALoad(t *testing.T) {
	c := open(t)
	store(t, c, key, "bad", nil, nil)
	load := c.NewLoad(key, nil)
	c.Drop(key)
	load.Fill(fillOf("good", nil))
	mustBe(t, c, key, "good")
}

func TestALookupOfADeadEntryKeepsItsReplacement(t *testing.T) {
	c := open(t)
	old := store(t, c, key, "old", []string{"t:a"}, nil)
	c.Fence([]Item{{Kind: Tag, Value: "t:a"}})
	store(t, c, key, "new", []string{"t:a"}, nil)
	c.tier.dropEntry(key, old)
	mustBe(t, c, key, "new")
}

// Limits.

func settle(c *Cache) {
	c.tier.cache.CleanUp()
	synctest.Wait()
	c.tier.cache.CleanUp()
}

func TestAFloodOfKeysStaysWithinMaxBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 1 << 20
		c := openWith(t, Settings{MaxBytes: limit, Refreshes: 1})
		body := strings.Repeat("x", 1000)
		for i := range 12_000 {
			k := fmt.Sprint("item:", i)
			en, _ := c.NewLoad(k, []string{k}).Fill(fillOf(body, nil))
			if i%3_000 == 2_999 {
				settle(c)
				entries, bytes := c.Size()
				require.LessOrEqual(t, bytes, uint64(limit))
				require.Greater(t, bytes, uint64(limit)*3/4, "the room is used")
				require.InDelta(t, limit/int(en.weight), entries, 50)
			}
		}
		require.Greater(t, c.Count.Evicted.Load(), int64(10_000))
	})
}

func TestAFloodOfKeysLeavesABoundedHeap(t *testing.T) {
	if testing.Short() {
		t.Skip("measures the heap")
	}
	const limit = 4 << 20
	heap := func() int64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	c := openWith(t, Settings{MaxBytes: limit, Refreshes: 1})
	for i := range 30_000 {
		k := fmt.Sprint("item:", i)
		c.NewLoad(k, []string{"t:" + k, "t:all"}).Fill(Fill{Value: make([]byte, 1000), Size: 1000, Lifetime: Lifetime{Fresh: hour}})
	}
	c.tier.cache.CleanUp()
	grown := heap() - before
	t.Logf("a tier of %d bytes takes %d of the heap, %.2f times", limit, grown, float64(grown)/limit)
	require.Less(t, grown, int64(2*limit))
	runtime.KeepAlive(c)
}

func TestAHotKeySurvivesAFloodOfKeysUsedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := openWith(t, Settings{MaxBytes: 1 << 20, Refreshes: 1})
		body := strings.Repeat("x", 1000)
		hits, reads := 0, 0
		for i := range 20_000 {
			once := fmt.Sprint("once:", i)
			if _, state := c.Lookup(once); state == Gone {
				c.NewLoad(once, nil).Fill(fillOf(body, nil))
			}
			if i%4 == 0 {
				reads++
				hot := fmt.Sprint("hot:", i/4%50)
				if _, state := c.Lookup(hot); state == Fresh {
					hits++
				} else {
					c.NewLoad(hot, nil).Fill(fillOf(body, nil))
				}
			}
			if i%64 == 0 {
				settle(c)
			}
		}
		t.Logf("%d of %d reads of hot keys are hits", hits, reads)
		require.Greater(t, float64(hits)/float64(reads), 0.9)
	})
}

func TestAValueLargerThanTheTierEvictsNothing(t *testing.T) {
	c := openWith(t, Settings{MaxBytes: 1 << 16, Refreshes: 1})
	store(t, c, key, "v", nil, nil)
	f := fillOf("", nil)
	f.Size = 1 << 16
	en, refusal := c.NewLoad("large", nil).Fill(f)
	require.Equal(t, TooLarge, refusal)
	require.NotNil(t, en, "its load's caller is answered from it")
	mustBeGone(t, c, "large")
	mustBe(t, c, key, "v")
}

func TestGenerationsOfRemovedEntriesAreCollected(t *testing.T) {
	c := openWith(t, Settings{MaxBytes: 1 << 18, Refreshes: 1})
	const flood = 100_000
	most := 0
	for i := range flood {
		k := fmt.Sprint("item:", i)
		c.NewLoad(k, []string{"t:of:" + k}).Fill(fillOf("v", nil))
		if i%10_000 == 0 {
			c.tier.cache.CleanUp()
			most = max(most, c.Tags())
			runtime.GC()
		}
	}
	living, _ := c.Size()
	t.Logf("%d tags were carried in turn, %d entries live; at most %d tags were remembered", flood, living, most)
	require.Less(t, most, 25_000, "what lives, and what was made between two collections")
}

func TestInvalidationsOfUnusedTagsKeepNothing(t *testing.T) {
	c := open(t)
	c.journal.most = logCapacity
	for i := range 100_000 {
		c.Fence([]Item{{Kind: Tag, Value: fmt.Sprint("t:", i)}})
	}
	require.Zero(t, c.Tags())
	require.LessOrEqual(t, int(c.journal.head-c.journal.first), logCapacity+logBlock)
}

func TestTagsReachAnEntryAfterAGarbageCollection(t *testing.T) {
	c := open(t)
	store(t, c, key, "old", []string{"t:a"}, []string{"t:b"})
	for range 3 {
		runtime.GC()
	}
	mustBe(t, c, key, "old")
	c.Fence([]Item{{Kind: Tag, Value: "t:b"}})
	mustBeGone(t, c, key)
}

func TestASweepKeepsGenerationsInUse(t *testing.T) {
	s := newGenerations()
	held := map[string]*Generation{}
	for i := range 100_000 {
		tag := fmt.Sprint("t:", i)
		st, _ := s.get(tag)
		if i%100 == 0 {
			held[tag] = st
		}
		if i%10_000 == 0 {
			runtime.GC()
		}
	}
	for tag, st := range held {
		again, made := s.get(tag)
		require.Same(t, st, again)
		require.False(t, made)
		s.kill(tag)
		require.True(t, st.dead.Load())
		next, made := s.get(tag)
		require.NotSame(t, st, next)
		require.True(t, made)
	}
}

// The end.

func TestAClosedCacheStoresNothing(t *testing.T) {
	c := open(t)
	store(t, c, key, "v", nil, nil)
	load := c.NewLoad("later", nil)
	require.False(t, c.Closed())
	require.NoError(t, c.Close(t.Context()))
	require.True(t, c.Closed())
	_, refusal := load.Fill(fillOf("v", nil))
	require.Equal(t, NotOpen, refusal)
	c.Put("mark", 1, 1, minute)
	mustBeGone(t, c, key)
	mustBeGone(t, c, "later")
	mustBeGone(t, c, "mark")
	require.False(t, c.Spawn(t.Context(), minute, func(context.Context) { t.Error("it runs") }))
	require.False(t, c.Background(t.Context(), minute, func(context.Context) { t.Error("it runs") }))
	c.Fence([]Item{{Kind: All}, {Kind: Key, Value: key}, {Kind: Tag, Value: "t"}, {Kind: Pattern, Value: "*"}})
	c.Begin([]Item{{Kind: Key, Value: key}}, minute).End(nil)
	require.NoError(t, c.Close(t.Context()))
}

func TestCloseCancelsBackgroundLoadsAndWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t)
		var ended atomic.Int64
		for range 3 {
			require.True(t, c.Background(t.Context(), hour, func(ctx context.Context) {
				<-ctx.Done()
				time.Sleep(time.Second) // it tidies up
				ended.Add(1)
			}))
		}
		start := time.Now()
		require.NoError(t, c.Close(t.Context()))
		require.EqualValues(t, 3, ended.Load())
		require.Equal(t, time.Second, time.Since(start))
	})
}

func TestCloseWaitsForAnUnresponsiveLoadOnlyUntilItsLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t)
		release := make(chan struct{})
		require.True(t, c.Spawn(t.Context(), hour, func(context.Context) { <-release }))
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		start := time.Now()
		require.ErrorIs(t, c.Close(ctx), context.DeadlineExceeded)
		require.Equal(t, 5*time.Second, time.Since(start))
		close(release)
	})
}

func TestARefreshBeyondTheLimitIsLeftOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := openWith(t, Settings{MaxBytes: 1 << 20, Refreshes: 2})
		release := make(chan struct{})
		wait := func(context.Context) { <-release }
		require.True(t, c.Background(t.Context(), hour, wait))
		require.True(t, c.Background(t.Context(), hour, wait))
		require.False(t, c.Background(t.Context(), hour, wait))
		require.EqualValues(t, 1, c.Count.RefreshesSkipped.Load())
		require.True(t, c.Spawn(t.Context(), hour, wait), "a load that somebody waits for needs no place")
		close(release)
		synctest.Wait()
		require.True(t, c.Background(t.Context(), hour, func(context.Context) {}))
	})
}

func TestABackgroundLoadKeepsValuesButNotTheCancellation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t)
		type word struct{}
		parent, cancel := context.WithCancel(context.WithValue(t.Context(), word{}, "value"))
		checked := make(chan struct{})
		start := time.Now()
		c.Background(parent, minute, func(ctx context.Context) {
			defer close(checked)
			<-ctx.Done()
			require.Equal(t, "value", ctx.Value(word{}))
			require.ErrorIs(t, ctx.Err(), context.DeadlineExceeded)
			require.Equal(t, minute, time.Since(start))
		})
		cancel()
		<-checked
	})
}
