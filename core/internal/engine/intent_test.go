package engine

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

func TestGivenAStoredEntry_WhenAWriterBegins_ThenItIsGone(t *testing.T) {
	eachWritable(t, func(t *testing.T, n naming) {
		e := open(t)
		store(t, e, key, "old", n.early, n.late)
		in := e.Begin(n.items, minute)
		mustBeGone(t, e, key)
		in.Abandon()
	})
}

func TestGivenAWriterAtWork_WhenSomethingIsLoaded_ThenItIsAnsweredUntilTheWriterEnds(t *testing.T) {
	eachWritable(t, func(t *testing.T, n naming) {
		e := open(t)
		in := e.Begin(n.items, minute)
		store(t, e, key, "old", n.early, n.late)
		mustBe(t, e, key, "old")
		in.End(nil)
		mustBeGone(t, e, key)
		store(t, e, key, "new", n.early, n.late)
		in.End(nil)
		in.Abandon()
		mustBe(t, e, key, "new") // only the first end counts
	})
}

func TestGivenALoadUnderWay_WhenAWriterBegins_ThenItIsNotStored(t *testing.T) {
	eachWritable(t, func(t *testing.T, n naming) {
		e := open(t)
		load := e.NewLoad(key, n.early)
		in := e.Begin(n.items, minute)
		load.Fill(fillOf("old", n.late))
		mustBeGone(t, e, key)
		in.Abandon()
	})
}

func TestGivenALoadUnderWay_WhenAWriterEnds_ThenItIsNotStored(t *testing.T) {
	eachWritable(t, func(t *testing.T, n naming) {
		e := open(t)
		in := e.Begin(n.items, minute)
		load := e.NewLoad(key, n.early)
		in.End(nil)
		load.Fill(fillOf("old", n.late))
		mustBeGone(t, e, key)
	})
}

func TestGivenAWriterAtWork_WhenItTouchesMore_ThenItsEndTakesThatToo(t *testing.T) {
	for _, n := range namings() {
		t.Run(n.name, func(t *testing.T) {
			e := open(t)
			in := e.Begin([]Item{{Tag, "t:own"}}, minute)
			store(t, e, key, "old", n.early, n.late)
			in.End(n.items)
			mustBeGone(t, e, key)
		})
	}
}

func TestGivenAWriterThatRefuses_WhenItAbandons_ThenWhatIsLoadedAfterwardsIsKept(t *testing.T) {
	eachWritable(t, func(t *testing.T, n naming) {
		e := open(t)
		in := e.Begin(n.items, minute)
		in.Abandon()
		in.End(nil)
		store(t, e, key, "v", n.early, n.late)
		time.Sleep(30 * minute)
		mustBe(t, e, key, "v")
	})
}

func TestGivenAWriterThatDies_WhenItsDeadlinePasses_ThenNothingLoadedMeanwhileIsAnswered(t *testing.T) {
	eachWritable(t, func(t *testing.T, n naming) {
		e := open(t)
		e.Begin(n.items, minute)
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
		e.Begin(n.items, minute)
		load := e.NewLoad(key, n.early) // reads; then the writer commits and dies
		time.Sleep(minute)
		_, refusal := load.Fill(fillOf("old", n.late))
		mustBeGone(t, e, key)
		require.Equal(t, Lapsed, refusal)

		time.Sleep(1)
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
		e.Begin(n.items, minute)
		load := e.NewLoad(key, n.early) // reads; then the writer commits and dies
		time.Sleep(minute + time.Second + 1)
		e.Begin([]Item{{Tag, "t:another"}}, minute).End(nil)
		load.Fill(fillOf("old", n.late))
		mustBeGone(t, e, key)
	})
}

func TestGivenAWriterBeyondItsDeadline_WhenItEnds_ThenWhatWasLoadedMeanwhileIsGone(t *testing.T) {
	eachWritable(t, func(t *testing.T, n naming) {
		e := open(t)
		in := e.Begin(n.items, minute)
		time.Sleep(2 * minute)
		e.Begin([]Item{{Tag, "t:another"}}, minute).End(nil) // and the intent is forgotten
		store(t, e, key, "old", n.early, n.late)
		in.End(nil)
		mustBeGone(t, e, key)
	})
}

func TestGivenWritersThatOverlap_WhenOneEnds_ThenTheOthersIntentStillCounts(t *testing.T) {
	eachWritable(t, func(t *testing.T, n naming) {
		e := open(t)
		long := e.Begin(n.items, 3*minute)
		short := e.Begin(n.items, minute)
		short.End(nil)
		store(t, e, key, "old", n.early, n.late)
		time.Sleep(3*minute - 1)
		mustBe(t, e, key, "old")
		time.Sleep(1)
		mustBeGone(t, e, key)
		long.End(nil)

		long, short = e.Begin(n.items, 3*minute), e.Begin(n.items, minute)
		long.End(nil)
		store(t, e, key, "old", n.early, n.late)
		time.Sleep(minute)
		mustBeGone(t, e, key)
		short.End(nil)
	})
}

func TestGivenAWriterAtWorkOnSomethingElse_WhenAnEntryIsLoaded_ThenItIsKeptForItsLifetime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := open(t)
		e.Begin([]Item{{Key, "item:2"}, {Tag, "t:other"}, {Tag, key}, {Key, "t:a"}}, minute)
		store(t, e, key, "v", []string{"t:a"}, []string{"t:b"})
		time.Sleep(30 * minute)
		mustBe(t, e, key, "v")
	})
}

func TestGivenMoreWritersThanAreListed_WhenSomethingIsLoaded_ThenItIsKeptUntilTheirDeadlineOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := open(t)
		for i := range maxIntents {
			e.Begin([]Item{{Key, fmt.Sprint("other:", i)}}, hour)
		}
		require.Len(t, e.intents.byEnd, maxIntents)
		e.Begin([]Item{{Key, key}}, minute)
		require.Len(t, e.intents.byEnd, maxIntents)
		store(t, e, key, "old", nil, nil)
		time.Sleep(minute)
		mustBeGone(t, e, key)

		// A load that was under way at that deadline is not stored; later ones are.
		unlisted := e.Begin([]Item{{Key, key}}, minute)
		load := e.NewLoad(key, nil)
		time.Sleep(minute + 1)
		load.Fill(fillOf("old", nil))
		mustBeGone(t, e, key)
		store(t, e, key, "old", nil, nil)
		mustBe(t, e, key, "old")
		unlisted.End(nil)
		mustBeGone(t, e, key)

		// The table is freed of writers that died, in time.
		time.Sleep(2 * hour)
		e.Begin([]Item{{Key, key}}, minute).End(nil)
		require.Empty(t, e.intents.byEnd)
		require.Empty(t, e.intents.open)
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
				items := []Item{{Tag, fmt.Sprint("t:", i%7)}, {Key, fmt.Sprint("item:", i%5)}, {Tag, fmt.Sprint("t:", i%7)}}
				in := e.Begin(items, time.Duration(1+(i*7+w)%50)*minute)
				if i%3 == 0 {
					in.Abandon()
				} else {
					in.End([]Item{{Key, "more"}})
				}
			}
		}()
	}
	wg.Wait()
	require.Empty(t, e.intents.open)
	require.Empty(t, e.intents.byEnd)
}

// A replica may lag behind: what it answered soon after an invalidation can be old.
func TestGivenAReplicaThatLags_WhenALoadBeginsSoonAfterAnInvalidation_ThenItIsSharedButNotStored(t *testing.T) {
	for _, n := range namings() {
		t.Run(n.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := open(t)
				f := fillOf("old", n.late)
				f.ReplicaLag = time.Second
				e.Invalidate(n.items)
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
	e.Invalidate([]Item{{Key, "item:2"}, {Tag, "t:z"}})
	f := fillOf("v", []string{"t:b"})
	f.ReplicaLag = hour
	e.NewLoad(key, []string{"t:a"}).Fill(f)
	mustBe(t, e, key, "v")
}

// What is not known is not stored: the log has a bound.
func TestGivenAReplicaThatLags_WhenTheInvalidationHasBeenTrimmedFromTheLog_ThenTheLoadIsNotStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := open(t)
		e.Invalidate([]Item{{Key, key}})
		for i := range logCapacity {
			e.Invalidate([]Item{{Key, fmt.Sprint("other:", i)}})
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
