package coherence

import (
	"context"
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
		e := open(t)
		store(t, e, key, "v", n.early, n.late)
		in := e.beginHere(n.items, minute)
		mustBe(t, e, key, "v")
		in.Abandon(context.Background())
		time.Sleep(30 * minute)
		mustBe(t, e, key, "v")
		require.Empty(t, e.intents.due)
	})
}

func TestGivenAStoredEntry_WhenAWriterBeginsAndDies_ThenItIsGoneAtTheDeadline(t *testing.T) {
	eachWritable(t, func(t *testing.T, n naming) {
		e := open(t)
		store(t, e, key, "old", n.early, n.late)
		e.beginHere(n.items, minute)
		time.Sleep(minute - 1)
		mustBe(t, e, key, "old")
		time.Sleep(1)
		mustBeGone(t, e, key)
		require.Empty(t, e.intents.due)
		require.Empty(t, e.intents.open)
	})
}

func TestAbandonLeavesTheDeadlineOfAnotherWriter(t *testing.T) {
	eachWritable(t, func(t *testing.T, n naming) {
		e := open(t)
		store(t, e, key, "old", n.early, n.late)
		e.beginHere(n.items, minute)
		refused := e.beginHere(n.items, 2*minute)
		time.Sleep(minute / 2)
		refused.Abandon(context.Background())
		mustBe(t, e, key, "old")
		time.Sleep(minute / 2)
		mustBeGone(t, e, key)
	})
}

func TestGivenAWriterAtWork_WhenSomethingIsLoaded_ThenItIsAnsweredUntilTheWriterEnds(t *testing.T) {
	eachWritable(t, func(t *testing.T, n naming) {
		e := open(t)
		in := e.beginHere(n.items, minute)
		store(t, e, key, "old", n.early, n.late)
		mustBe(t, e, key, "old")
		_ = in.End(context.Background(), nil)
		mustBeGone(t, e, key)
		store(t, e, key, "new", n.early, n.late)
		_ = in.End(context.Background(), nil)
		in.Abandon(context.Background())
		mustBe(t, e, key, "new") // only the first end counts
	})
}

func TestLoadUnderWayAtABeginIsStoredUntilTheDeadline(t *testing.T) {
	eachWritable(t, func(t *testing.T, n naming) {
		e := open(t)
		load := e.NewLoad(key, n.early)
		e.beginHere(n.items, minute)
		load.Fill(fillOf("old", n.late))
		mustBe(t, e, key, "old")
		time.Sleep(minute)
		mustBeGone(t, e, key)
	})
}

func TestGivenALoadUnderWay_WhenAWriterEnds_ThenItIsNotStored(t *testing.T) {
	eachWritable(t, func(t *testing.T, n naming) {
		e := open(t)
		in := e.beginHere(n.items, minute)
		load := e.NewLoad(key, n.early)
		_ = in.End(context.Background(), nil)
		load.Fill(fillOf("old", n.late))
		mustBeGone(t, e, key)
	})
}

func TestGivenAWriterAtWork_WhenItTouchesMore_ThenItsEndTakesThatToo(t *testing.T) {
	for _, n := range namings() {
		t.Run(n.name, func(t *testing.T) {
			e := open(t)
			in := e.beginHere([]Item{{Kind: Tag, Value: "t:own"}}, minute)
			store(t, e, key, "old", n.early, n.late)
			_ = in.End(context.Background(), n.items)
			mustBeGone(t, e, key)
		})
	}
}

func TestGivenAWriterThatRefuses_WhenItAbandons_ThenWhatIsLoadedAfterwardsIsKept(t *testing.T) {
	eachWritable(t, func(t *testing.T, n naming) {
		e := open(t)
		in := e.beginHere(n.items, minute)
		in.Abandon(context.Background())
		_ = in.End(context.Background(), nil)
		store(t, e, key, "v", n.early, n.late)
		time.Sleep(30 * minute)
		mustBe(t, e, key, "v")
	})
}

func TestGivenAWriterThatDies_WhenItsDeadlinePasses_ThenNothingLoadedMeanwhileIsAnswered(t *testing.T) {
	eachWritable(t, func(t *testing.T, n naming) {
		e := open(t)
		e.beginHere(n.items, minute)
		time.Sleep(minute / 2)
		store(t, e, key, "old", n.early, n.late) // and now the writer commits and dies
		time.Sleep(minute/2 - 1)
		mustBe(t, e, key, "old")
		time.Sleep(1)
		mustBeGone(t, e, key) // neither fresh, nor stale, nor in place of an error
	})
}

func TestGivenAWriterThatDies_WhenItsDeadlinePassesDuringALoad_ThenTheLoadIsNotStored(t *testing.T) {
	eachWritable(t, func(t *testing.T, n naming) {
		e := open(t)
		e.beginHere(n.items, minute)
		load := e.NewLoad(key, n.early) // reads; then the writer commits and dies
		time.Sleep(minute)
		_, refusal := load.Fill(fillOf("old", n.late))
		mustBeGone(t, e, key)
		require.Equal(t, Fenced, refusal)

		store(t, e, key, "new", n.early, n.late)
		time.Sleep(minute)
		mustBe(t, e, key, "new") // the dead writer's time is over
	})
}

// LongestLoad is the longest that a class allows, but nobody can stop a loader that
// does not listen, or a handler.
func TestGivenAWriterThatDies_WhenALoadOutlastsTheMemoryOfIt_ThenTheLoadIsNotStored(t *testing.T) {
	eachWritable(t, func(t *testing.T, n naming) {
		e := openWith(t, Settings{MaxBytes: 1 << 20, LongestLoad: time.Second, Refreshes: 1})
		e.beginHere(n.items, minute)
		load := e.NewLoad(key, n.early) // reads; then the writer commits and dies
		time.Sleep(minute + time.Second + 1)
		_ = e.beginHere([]Item{{Kind: Tag, Value: "t:another"}}, minute).End(context.Background(), nil)
		load.Fill(fillOf("old", n.late))
		mustBeGone(t, e, key)
	})
}

func TestGivenAWriterBeyondItsDeadline_WhenItEnds_ThenWhatWasLoadedMeanwhileIsGone(t *testing.T) {
	eachWritable(t, func(t *testing.T, n naming) {
		e := open(t)
		in := e.beginHere(n.items, minute)
		time.Sleep(2 * minute)
		_ = e.beginHere([]Item{{Kind: Tag, Value: "t:another"}}, minute).End(context.Background(), nil) // and the intent is forgotten
		store(t, e, key, "old", n.early, n.late)
		_ = in.End(context.Background(), nil)
		mustBeGone(t, e, key)
	})
}

func TestGivenWritersThatOverlap_WhenOneEnds_ThenTheOthersIntentStillCounts(t *testing.T) {
	eachWritable(t, func(t *testing.T, n naming) {
		e := open(t)
		long := e.beginHere(n.items, 3*minute)
		short := e.beginHere(n.items, minute)
		_ = short.End(context.Background(), nil)
		store(t, e, key, "old", n.early, n.late)
		time.Sleep(3*minute - 1)
		mustBe(t, e, key, "old")
		time.Sleep(1)
		mustBeGone(t, e, key)
		_ = long.End(context.Background(), nil)

		long, short = e.beginHere(n.items, 3*minute), e.beginHere(n.items, minute)
		_ = long.End(context.Background(), nil)
		store(t, e, key, "old", n.early, n.late)
		time.Sleep(minute)
		mustBeGone(t, e, key)
		_ = short.End(context.Background(), nil)
	})
}

func TestGivenAWriterAtWorkOnSomethingElse_WhenAnEntryIsLoaded_ThenItIsKeptForItsLifetime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := open(t)
		e.beginHere([]Item{{Kind: Key, Value: "item:2"}, {Kind: Tag, Value: "t:other"}, {Kind: Tag, Value: key}, {Kind: Key, Value: "t:a"}}, minute)
		store(t, e, key, "v", []string{"t:a"}, []string{"t:b"})
		time.Sleep(30 * minute)
		mustBe(t, e, key, "v")
	})
}

func TestNothingIsStoredWhileMoreWritersThanAreListedAreOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := open(t)
		store(t, e, key, "old", nil, nil)
		for i := range maxDeadlines {
			e.beginHere([]Item{{Kind: Key, Value: fmt.Sprint("other:", i)}}, hour)
		}
		mustBe(t, e, key, "old")
		unlisted := e.beginHere([]Item{{Kind: Key, Value: key}}, minute)
		require.Equal(t, maxDeadlines+1, len(e.intents.due), "and the one at which everything goes")
		mustBeGone(t, e, key)
		e.NewLoad(key, nil).Fill(fillOf("old", nil))
		mustBeGone(t, e, key)
		load := e.NewLoad(key, nil)
		time.Sleep(minute)
		load.Fill(fillOf("old", nil))
		mustBeGone(t, e, key)
		store(t, e, key, "old", nil, nil)
		mustBe(t, e, key, "old")
		_ = unlisted.End(context.Background(), nil)
		mustBeGone(t, e, key)

		// The list is freed of writers that died, in time.
		time.Sleep(2 * hour)
		_ = e.beginHere([]Item{{Kind: Key, Value: key}}, minute).End(context.Background(), nil)
		e.Lookup(key)
		require.Empty(t, e.intents.due)
		require.Empty(t, e.intents.open)
		require.Empty(t, e.intents.byID)
		store(t, e, key, "v", nil, nil)
		time.Sleep(30 * minute)
		mustBe(t, e, key, "v")
	})
}

func TestGivenManyWriters_WhenTheyHaveEnded_ThenNothingIsKeptOfThem(t *testing.T) {
	e := open(t)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range 500 {
				items := []Item{{Kind: Tag, Value: fmt.Sprint("t:", i%7)}, {Kind: Key, Value: fmt.Sprint("item:", i%5)}, {Kind: Tag, Value: fmt.Sprint("t:", i%7)}}
				in := e.beginHere(items, time.Duration(1+(i*7+w)%50)*minute)
				if i%3 == 0 {
					in.Abandon(context.Background())
				} else {
					_ = in.End(context.Background(), []Item{{Kind: Key, Value: "more"}})
				}
			}
		}()
	}
	wg.Wait()
	require.Empty(t, e.intents.open)
	require.Empty(t, e.intents.due)
}

// A replica may lag behind: what it answered soon after an invalidation can be old.
func TestGivenAReplicaThatLags_WhenALoadBeginsSoonAfterAnInvalidation_ThenItIsSharedButNotStored(t *testing.T) {
	for _, n := range namings() {
		t.Run(n.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := open(t)
				f := fillOf("old", n.late)
				f.ReplicaLag = time.Second
				e.fence(n.items)
				time.Sleep(time.Second)
				en, refusal := e.NewLoad(key, n.early).Fill(f)
				mustBeGone(t, e, key)
				require.Equal(t, Lagging, refusal)
				require.Equal(t, "old", en.Value)

				time.Sleep(1)
				f.Value = "new"
				_, refusal = e.NewLoad(key, n.early).Fill(f)
				require.Equal(t, Stored, refusal)
				mustBe(t, e, key, "new")
			})
		})
	}
}

func TestGivenAReplicaThatLags_WhenSomethingElseIsInvalidated_ThenTheLoadIsStored(t *testing.T) {
	e := open(t)
	e.fence([]Item{{Kind: Key, Value: "item:2"}, {Kind: Tag, Value: "t:z"}})
	f := fillOf("v", []string{"t:b"})
	f.ReplicaLag = hour
	e.NewLoad(key, []string{"t:a"}).Fill(f)
	mustBe(t, e, key, "v")
}

// What is not known is not stored: the log has a bound.
func TestGivenAReplicaThatLags_WhenTheInvalidationHasBeenTrimmedFromTheLog_ThenTheLoadIsNotStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := open(t)
		e.fence([]Item{{Kind: Key, Value: key}})
		for i := range logCapacity {
			e.fence([]Item{{Kind: Key, Value: fmt.Sprint("other:", i)}})
		}
		f := fillOf("old", nil)
		f.ReplicaLag = time.Second
		e.NewLoad(key, nil).Fill(f)
		mustBeGone(t, e, key)

		// All that the log has forgotten is older than the lag.
		time.Sleep(time.Second + 1)
		_, refusal := e.NewLoad(key, nil).Fill(f)
		require.Equal(t, Stored, refusal)
	})
}
