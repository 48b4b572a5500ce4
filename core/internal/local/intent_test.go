package local

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// writable are the namings that a writer can be at work on.
func writable() (list []naming) {
	for _, n := range namings() {
		if k := n.items[0].Kind; k == Key || k == Tag {
			list = append(list, n)
		}
	}
	return list
}

func eachWritable(t *testing.T, test func(t *testing.T, n naming)) {
	for _, n := range writable() {
		t.Run(n.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { test(t, n) })
		})
	}
}

func TestAbandonedIntentCostsAStoredEntryNothing(t *testing.T) {
	eachWritable(t, func(t *testing.T, n naming) {
		c := open(t)
		store(t, c, key, "v", n.early, n.late)
		in := c.Begin(n.items, minute)
		mustBe(t, c, key, "v")
		in.Abandon()
		time.Sleep(30 * minute)
		mustBe(t, c, key, "v")
		require.Empty(t, c.intents.due)
	})
}

func TestAnEntryIsGoneAtTheDeadlineOfAWriterThatDied(t *testing.T) {
	eachWritable(t, func(t *testing.T, n naming) {
		c := open(t)
		store(t, c, key, "old", n.early, n.late)
		c.Begin(n.items, minute)
		time.Sleep(minute - 1)
		mustBe(t, c, key, "old")
		time.Sleep(1)
		mustBeGone(t, c, key)
		require.Empty(t, c.intents.due)
		require.Empty(t, c.intents.open)
	})
}

func TestAbandonLeavesTheDeadlineOfAnotherWriter(t *testing.T) {
	eachWritable(t, func(t *testing.T, n naming) {
		c := open(t)
		store(t, c, key, "old", n.early, n.late)
		c.Begin(n.items, minute)
		refused := c.Begin(n.items, 2*minute)
		time.Sleep(minute / 2)
		refused.Abandon()
		mustBe(t, c, key, "old")
		time.Sleep(minute / 2)
		mustBeGone(t, c, key)
	})
}

func TestALoadDuringAWriteIsAnsweredUntilTheWriterEnds(t *testing.T) {
	eachWritable(t, func(t *testing.T, n naming) {
		c := open(t)
		in := c.Begin(n.items, minute)
		store(t, c, key, "old", n.early, n.late)
		mustBe(t, c, key, "old")
		in.End(nil)
		mustBeGone(t, c, key)
		store(t, c, key, "new", n.early, n.late)
		in.End(nil)
		in.Abandon()
		mustBe(t, c, key, "new") // only the first end counts
	})
}

func TestLoadUnderWayAtABeginIsStoredUntilTheDeadline(t *testing.T) {
	eachWritable(t, func(t *testing.T, n naming) {
		c := open(t)
		load := c.NewLoad(key, n.early)
		c.Begin(n.items, minute)
		load.Fill(fillOf("old", n.late))
		mustBe(t, c, key, "old")
		time.Sleep(minute)
		mustBeGone(t, c, key)
	})
}

func TestALoadThatOverlapsAWriteIsNotStored(t *testing.T) {
	eachWritable(t, func(t *testing.T, n naming) {
		c := open(t)
		in := c.Begin(n.items, minute)
		load := c.NewLoad(key, n.early)
		in.End(nil)
		load.Fill(fillOf("old", n.late))
		mustBeGone(t, c, key)
	})
}

func TestAnIntentInvalidatesTargetsAddedLater(t *testing.T) {
	for _, n := range namings() {
		t.Run(n.name, func(t *testing.T) {
			c := open(t)
			in := c.Begin([]Item{{Kind: Tag, Value: "t:own"}}, minute)
			store(t, c, key, "old", n.early, n.late)
			in.End(n.items)
			mustBeGone(t, c, key)
		})
	}
}

func TestALoadAfterAnAbandonedWriteIsKept(t *testing.T) {
	eachWritable(t, func(t *testing.T, n naming) {
		c := open(t)
		in := c.Begin(n.items, minute)
		in.Abandon()
		in.End(nil)
		store(t, c, key, "v", n.early, n.late)
		time.Sleep(30 * minute)
		mustBe(t, c, key, "v")
	})
}

func TestALoadDuringAWriteIsNotAnsweredPastTheDeadline(t *testing.T) {
	eachWritable(t, func(t *testing.T, n naming) {
		c := open(t)
		c.Begin(n.items, minute)
		time.Sleep(minute / 2)
		store(t, c, key, "old", n.early, n.late) // and now the writer commits and dies
		time.Sleep(minute/2 - 1)
		mustBe(t, c, key, "old")
		time.Sleep(1)
		mustBeGone(t, c, key) // neither fresh, nor stale, nor in place of an error
	})
}

func TestALoadThatSpansADeadlineIsNotStored(t *testing.T) {
	eachWritable(t, func(t *testing.T, n naming) {
		c := open(t)
		c.Begin(n.items, minute)
		load := c.NewLoad(key, n.early) // reads; then the writer commits and dies
		time.Sleep(minute)
		_, refusal := load.Fill(fillOf("old", n.late))
		mustBeGone(t, c, key)
		require.Equal(t, Fenced, refusal)

		store(t, c, key, "new", n.early, n.late)
		time.Sleep(minute)
		mustBe(t, c, key, "new") // the dead writer's time is over
	})
}

// LongestLoad is the longest load that a class allows. A handler, or a loader that ignores its
// context, can run longer.
func TestALoadThatOutlastsTheMemoryOfAWriterIsNotStored(t *testing.T) {
	eachWritable(t, func(t *testing.T, n naming) {
		c := openWith(t, Settings{MaxBytes: 1 << 20, Refreshes: 1})
		c.Begin(n.items, minute)
		load := c.NewLoad(key, n.early) // reads; then the writer commits and dies
		time.Sleep(minute + time.Second + 1)
		c.Begin([]Item{{Kind: Tag, Value: "t:another"}}, minute).End(nil)
		load.Fill(fillOf("old", n.late))
		mustBeGone(t, c, key)
	})
}

func TestAnEndAfterTheDeadlineRemovesLaterLoads(t *testing.T) {
	eachWritable(t, func(t *testing.T, n naming) {
		c := open(t)
		in := c.Begin(n.items, minute)
		time.Sleep(2 * minute)
		c.Begin([]Item{{Kind: Tag, Value: "t:another"}}, minute).End(nil) // and the intent is forgotten
		store(t, c, key, "old", n.early, n.late)
		in.End(nil)
		mustBeGone(t, c, key)
	})
}

func TestAnIntentOutlivesAnOverlappingOne(t *testing.T) {
	eachWritable(t, func(t *testing.T, n naming) {
		c := open(t)
		long := c.Begin(n.items, 3*minute)
		short := c.Begin(n.items, minute)
		short.End(nil)
		store(t, c, key, "old", n.early, n.late)
		time.Sleep(3*minute - 1)
		mustBe(t, c, key, "old")
		time.Sleep(1)
		mustBeGone(t, c, key)
		long.End(nil)

		long, short = c.Begin(n.items, 3*minute), c.Begin(n.items, minute)
		long.End(nil)
		store(t, c, key, "old", n.early, n.late)
		time.Sleep(minute)
		mustBeGone(t, c, key)
		short.End(nil)
	})
}

func TestAWriteOfSomethingElseLeavesALoadItsLifetime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t)
		c.Begin([]Item{{Kind: Key, Value: "item:2"}, {Kind: Tag, Value: "t:other"}, {Kind: Tag, Value: key}, {Kind: Key, Value: "t:a"}}, minute)
		store(t, c, key, "v", []string{"t:a"}, []string{"t:b"})
		time.Sleep(30 * minute)
		mustBe(t, c, key, "v")
	})
}

func TestNothingIsStoredWhileMoreWritersThanAreListedAreOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t)
		store(t, c, key, "old", nil, nil)
		for i := range maxDeadlines {
			c.Begin([]Item{{Kind: Key, Value: fmt.Sprint("other:", i)}}, hour)
		}
		mustBe(t, c, key, "old")
		unlisted := c.Begin([]Item{{Kind: Key, Value: key}}, minute)
		require.Equal(t, maxDeadlines+1, len(c.intents.due), "and the one at which everything goes")
		mustBeGone(t, c, key)
		c.NewLoad(key, nil).Fill(fillOf("old", nil))
		mustBeGone(t, c, key)
		load := c.NewLoad(key, nil)
		time.Sleep(minute)
		load.Fill(fillOf("old", nil))
		mustBeGone(t, c, key)
		store(t, c, key, "old", nil, nil)
		mustBe(t, c, key, "old")
		unlisted.End(nil)
		mustBeGone(t, c, key)

		// The list is freed of writers that died, in time.
		time.Sleep(2 * hour)
		c.Begin([]Item{{Kind: Key, Value: key}}, minute).End(nil)
		c.Lookup(key)
		require.Empty(t, c.intents.due)
		require.Empty(t, c.intents.open)
		require.Empty(t, c.intents.byID)
		store(t, c, key, "v", nil, nil)
		time.Sleep(30 * minute)
		mustBe(t, c, key, "v")
	})
}

func TestEndedIntentsLeaveNothing(t *testing.T) {
	c := open(t)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range 500 {
				items := []Item{{Kind: Tag, Value: fmt.Sprint("t:", i%7)}, {Kind: Key, Value: fmt.Sprint("item:", i%5)}, {Kind: Tag, Value: fmt.Sprint("t:", i%7)}}
				in := c.Begin(items, time.Duration(1+(i*7+w)%50)*minute)
				if i%3 == 0 {
					in.Abandon()
				} else {
					in.End([]Item{{Kind: Key, Value: "more"}})
				}
			}
		}()
	}
	wg.Wait()
	require.Empty(t, c.intents.open)
	require.Empty(t, c.intents.due)
}

// A replica may lag behind: what it answered soon after an invalidation can be old.
func TestALoadWithinReplicaLagIsSharedButNotStored(t *testing.T) {
	for _, n := range namings() {
		t.Run(n.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := open(t)
				f := fillOf("old", n.late)
				f.ReplicaLag = time.Second
				c.Fence(n.items)
				time.Sleep(time.Second)
				en, refusal := c.NewLoad(key, n.early).Fill(f)
				mustBeGone(t, c, key)
				require.Equal(t, Lagging, refusal)
				require.Equal(t, "old", en.Value)

				time.Sleep(1)
				f.Value = "new"
				_, refusal = c.NewLoad(key, n.early).Fill(f)
				require.Equal(t, Stored, refusal)
				mustBe(t, c, key, "new")
			})
		})
	}
}

func TestReplicaLagOfAnotherTagDoesNotFenceALoad(t *testing.T) {
	c := open(t)
	c.Fence([]Item{{Kind: Key, Value: "item:2"}, {Kind: Tag, Value: "t:z"}})
	f := fillOf("v", []string{"t:b"})
	f.ReplicaLag = hour
	c.NewLoad(key, []string{"t:a"}).Fill(f)
	mustBe(t, c, key, "v")
}

// The log has a bound: a load older than it is not stored.
func TestReplicaLagFencesALoadAfterTheLogWasTrimmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t)
		c.journal.most = logBlock
		c.Fence([]Item{{Kind: Key, Value: key}})
		for i := range 3 * logBlock {
			c.Fence([]Item{{Kind: Key, Value: fmt.Sprint("other:", i)}})
		}
		f := fillOf("old", nil)
		f.ReplicaLag = time.Second
		c.NewLoad(key, nil).Fill(f)
		mustBeGone(t, c, key)

		// All that the log has forgotten is older than the lag.
		time.Sleep(time.Second + 1)
		_, refusal := c.NewLoad(key, nil).Fill(f)
		require.Equal(t, Stored, refusal)
	})
}

func TestNothingIsMirroredBeforeTheLatestUncertainDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t)
		items := []Item{{Kind: Tag, Value: "t:b"}}
		for range maxDeadlines {
			c.Schedule(Deadline{At: c.Now() + int64(hour), Items: items})
		}
		c.Schedule(Deadline{At: c.Now() + int64(minute), Doubt: c.Now() + int64(2*minute), Items: items})
		learn := func(pos uint64) {
			c.Lapse()
			c.Mirror(pos, "t:b", "g")
		}
		before := c.NewLoad(key, []string{"t:b"})
		learn(before.pos)
		require.Empty(t, c.Mirrored("t:b"), "its generation may expire unheard")
		time.Sleep(minute + time.Second)
		_, refusal := c.NewLoad(key, []string{"t:b"}).Fill(fillOf("old", nil))
		require.Equal(t, Lapsed, refusal, "the server may not be there yet")
		time.Sleep(minute)
		learn(before.pos)
		require.Empty(t, c.Mirrored("t:b"), "it was read before")
		_, refusal = before.Fill(fillOf("old", nil))
		require.Equal(t, Fenced, refusal)
		store(t, c, key, "new", []string{"t:b"}, nil)
		mustBe(t, c, key, "new")
	})
}
