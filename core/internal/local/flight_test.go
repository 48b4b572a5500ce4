package local

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

var (
	gate      = Gate{MaxLoadsAfterError: 3, Wait: time.Second}
	errTested = errors.New("the database is down")
)

// lead makes the first load of key and as many readers who wait for it.
func lead(t *testing.T, c *Cache, waiters int) (*Turn, []*reader) {
	t.Helper()
	turn, _, err := c.Enter(t.Context(), key, nil, gate)
	require.NoError(t, err)
	require.True(t, turn.Granted())
	readers := make([]*reader, waiters)
	for i := range readers {
		readers[i] = enter(t, c, nil, gate)
		synctest.Wait() // one behind the other
		require.False(t, readers[i].done())
	}
	return &turn, readers
}

// loading returns the readers that have a turn.
func loading(readers []*reader) (list []*reader) {
	for _, r := range readers {
		if r.turn() != nil && !r.turn().done {
			list = append(list, r)
		}
	}
	return list
}

// mustBeIdle demands that nothing is kept of flights that have ended.
func mustBeIdle(t *testing.T, c *Cache) {
	t.Helper()
	for i := range c.flights.shards {
		require.Empty(t, c.flights.shards[i].m)
	}
}

func TestASharedLoadAnswersEveryWaiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t)
		turn, readers := lead(t, c, 100)
		require.True(t, turn.Waited())
		en, refusal := turn.Load.Fill(fillOf("v", nil))
		require.Equal(t, Stored, refusal)
		turn.Finish(Outcome{Verdict: Shared, Entry: en})
		synctest.Wait()
		for _, r := range readers {
			require.True(t, r.done())
			require.Nil(t, r.turn())
			require.Same(t, en, r.get().out.Entry)
		}
		require.EqualValues(t, 100, c.Count.Coalesced.Load())
		mustBeIdle(t, c)
	})
}

func TestASharedErrorAnswersEveryWaiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t)
		turn, readers := lead(t, c, 10)
		turn.Finish(Outcome{Verdict: Shared, Err: errTested})
		synctest.Wait()
		for _, r := range readers {
			require.ErrorIs(t, r.get().out.Err, errTested)
		}
		mustBeIdle(t, c)
	})
}

func TestWaitersOfAFailedLoadLoadAtMostMaxLoadsConcurrently(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t)
		turn, readers := lead(t, c, 10)
		turn.Finish(Outcome{Verdict: Failed})
		synctest.Wait()
		require.Len(t, loading(readers), gate.MaxLoadsAfterError)

		// Each further failure makes room for one; newcomers find no room.
		latecomer := enter(t, c, nil, gate)
		for range 5 {
			loading(readers)[0].turn().Finish(Outcome{Verdict: Failed})
			synctest.Wait()
			require.Len(t, loading(readers), gate.MaxLoadsAfterError)
		}
		require.False(t, latecomer.done())

		// The first success serves everybody who still waits.
		loading(readers)[0].turn().Finish(Outcome{Verdict: Shared, Entry: Unstored("v")})
		synctest.Wait()
		require.Equal(t, "v", latecomer.value())
		for _, r := range loading(readers) {
			r.turn().Finish(Outcome{Verdict: Failed})
		}
		for _, r := range readers {
			require.True(t, r.done())
		}
		mustBeIdle(t, c)
	})
}

func TestAFailedLoadWithoutWaitersRemovesItsFlight(t *testing.T) {
	c := open(t)
	for range 10 {
		turn, _, err := c.Enter(t.Context(), key, nil, gate)
		require.NoError(t, err)
		turn.Finish(Outcome{Verdict: Failed})
		mustBeIdle(t, c)
	}
}

func TestAPrivateValueReleasesTheWaiters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t)
		turn, readers := lead(t, c, 20)
		turn.Finish(Outcome{Verdict: Unshareable})
		synctest.Wait()
		require.Len(t, loading(readers), 20)
		latecomer := enter(t, c, nil, gate)
		synctest.Wait()
		require.NotNil(t, latecomer.turn())
		for _, r := range append(readers, latecomer) {
			r.turn().Finish(Outcome{Verdict: Unshareable})
		}
		mustBeIdle(t, c)
	})
}

func TestWaitersOfAFencedLoadThatFailsShareANewFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t)
		old, waiting := lead(t, c, 5)
		c.Fence([]Item{{Kind: Key, Value: key}})
		fresh := enter(t, c, nil, gate)
		synctest.Wait()
		require.NotNil(t, fresh.turn())
		old.Finish(Outcome{Verdict: Failed})
		synctest.Wait()
		require.Empty(t, loading(waiting), "they wait for the load after the invalidation")
		fresh.finish(t, "new")
		synctest.Wait()
		for _, r := range waiting {
			require.Equal(t, "new", r.value())
		}
		mustBeIdle(t, c)
	})
}

func TestAWaiterLeavesWhenItsContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t)
		turn, readers := lead(t, c, 3)
		ctx, cancel := context.WithCancel(t.Context())
		leaves := enterAs(ctx, c, nil, gate)
		synctest.Wait()
		cancel()
		synctest.Wait()
		require.ErrorIs(t, leaves.get().err, context.Canceled)
		turn.Finish(Outcome{Verdict: Shared, Entry: Unstored("v")})
		synctest.Wait()
		for _, r := range readers {
			require.Equal(t, "v", r.value())
		}
		mustBeIdle(t, c)
	})
}

func TestAnEndedContextStartsNoLoad(t *testing.T) {
	c := open(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	turn, _, err := c.Enter(ctx, key, nil, gate)
	require.False(t, turn.Granted())
	require.ErrorIs(t, err, context.Canceled)
	mustBeIdle(t, c)
}

func TestATurnGivenToAnEndedWaiterIsPassedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t)
		one := Gate{MaxLoadsAfterError: 1, Wait: minute}
		for range 100 { // which of the two is seen first is a matter of chance
			turn, _, err := c.Enter(t.Context(), key, nil, one)
			require.NoError(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			leaves := enterAs(ctx, c, nil, one)
			synctest.Wait()
			stays := enter(t, c, nil, one)
			synctest.Wait()
			cancel()
			turn.Finish(Outcome{Verdict: Failed})
			synctest.Wait()
			if leaves.turn() != nil {
				require.False(t, stays.done())
				leaves.turn().Finish(Outcome{Verdict: Failed})
				synctest.Wait()
			}
			require.NotNil(t, stays.turn(), "a turn was lost")
			stays.turn().Finish(Outcome{Verdict: Failed})
			mustBeIdle(t, c)
		}
	})
}

func TestAnOverdueLoadReleasesMaxLoadsWaiters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t)
		turn, readers := lead(t, c, 10)
		time.Sleep(gate.Wait - 1)
		synctest.Wait()
		require.Empty(t, loading(readers))
		time.Sleep(1)
		synctest.Wait()
		require.Len(t, loading(readers), gate.MaxLoadsAfterError)

		// One that is quicker serves all; the one that took too long changes nothing.
		loading(readers)[1].finish(t, "quick")
		synctest.Wait()
		for _, r := range readers {
			require.True(t, r.done())
		}
		turn.Finish(Outcome{Verdict: Shared, Entry: Unstored("slow")})
		mustBe(t, c, key, "quick")
		for _, r := range loading(readers) {
			r.turn().Finish(Outcome{Verdict: Failed})
		}
		mustBeIdle(t, c)
	})
}

func TestLoadsThatNeverEndBlockNoWaiterForever(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t)
		turn, readers := lead(t, c, 10)
		time.Sleep(10 * gate.Wait)
		synctest.Wait()
		for _, r := range readers {
			require.True(t, r.done())
		}
		turn.Finish(Outcome{Verdict: Failed})
		for _, r := range loading(readers) {
			r.turn().Finish(Outcome{Verdict: Failed})
		}
		mustBeIdle(t, c)
	})
}

func TestASecondFinishOfATurnHasNoEffect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t)
		turn, readers := lead(t, c, 1)
		turn.Finish(Outcome{Verdict: Shared, Entry: Unstored("v")})
		turn.Finish(Outcome{Verdict: Failed})
		synctest.Wait()
		require.Equal(t, "v", readers[0].value())
		next, _, err := c.Enter(t.Context(), key, nil, gate)
		require.NoError(t, err)
		turn.Finish(Outcome{Verdict: Failed}) // not the new flight's
		_, ok := c.TryLead(key, nil, gate)
		require.False(t, ok)
		next.Finish(Outcome{Verdict: Failed})
		mustBeIdle(t, c)
	})
}

func TestAnUnsharedLoadLeavesNoFlight(t *testing.T) {
	c := open(t)
	turn := c.Alone(key, nil)
	require.False(t, turn.Waited())
	mustBeIdle(t, c)
	c.Fence([]Item{{Kind: Key, Value: key}})
	turn.Load.Fill(fillOf("old", nil))
	turn.Finish(Outcome{Verdict: Shared})
	mustBeGone(t, c, key)
}

func TestAKeyHasOneRefreshAtATime(t *testing.T) {
	c := open(t)
	turn, ok := c.TryLead(key, nil, gate)
	require.True(t, ok)
	_, ok = c.TryLead(key, nil, gate)
	require.False(t, ok)
	turn.Finish(Outcome{Verdict: Failed})
	turn, ok = c.TryLead(key, nil, gate)
	require.True(t, ok)
	turn.Finish(Outcome{Verdict: Failed})
	mustBeIdle(t, c)
}

// Whatever loads come to, in whatever order readers come, leave and invalidate:
// everybody gets an answer, at most one load runs until one fails, and nothing is
// left behind.
func TestRandomHistoriesAnswerEveryReaderAndLeaveNothing(t *testing.T) {
	c := open(t)
	keys := []string{"a", "b", "c"}
	var answered, cancelled, loads atomic.Int64
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			rnd := rand.New(rand.NewPCG(uint64(i), 1))
			for range 500 {
				ctx, cancel := context.WithCancel(t.Context())
				if rnd.IntN(10) == 0 {
					time.AfterFunc(time.Duration(rnd.IntN(int(100*time.Microsecond))), cancel)
				}
				k := keys[rnd.IntN(len(keys))]
				if rnd.IntN(20) == 0 {
					c.Fence([]Item{{Kind: Key, Value: k}})
				}
				turn, _, err := c.Enter(ctx, k, nil, Gate{MaxLoadsAfterError: 1 + rnd.IntN(3), Wait: minute})
				switch {
				case err != nil:
					cancelled.Add(1)
				case !turn.Granted():
					answered.Add(1)
				default:
					loads.Add(1)
					if rnd.IntN(2) == 0 {
						time.Sleep(time.Duration(rnd.IntN(int(50 * time.Microsecond)))) // the load
					}
					turn.Finish(Outcome{Verdict: Verdict(1 + rnd.IntN(3)), Entry: Unstored(0)})
				}
				cancel()
			}
		}()
	}
	wg.Wait()
	require.EqualValues(t, 32*500, answered.Load()+cancelled.Load()+loads.Load())
	mustBeIdle(t, c)
}

// A fetch replaces the turn's load while the closing of the cache asks who waits for it.
func TestUnwatchedDoesNotReadALoadThatIsBeingReplaced(t *testing.T) {
	c := open(t)
	turn, ok := c.TryLead("k", nil, Gate{MaxLoadsAfterError: 1, Wait: time.Second})
	require.True(t, ok)
	var both sync.WaitGroup
	both.Go(func() { turn.Load = c.NewLoad("k", nil) })
	both.Go(func() { turn.Unwatched() })
	both.Wait()
	turn.Finish(Outcome{})
}

// A turn beside any flight leads one as soon as it has a claim, while the closing of the
// cache asks who waits for it.
func TestUnwatchedDoesNotRaceWithATurnThatBeginsToLead(t *testing.T) {
	c := open(t)
	turn := c.Alone("k", nil)
	var both sync.WaitGroup
	both.Go(func() { turn.Lead(nil) })
	both.Go(func() { turn.Unwatched() })
	both.Wait()
	turn.Finish(Outcome{})
	mustBeIdle(t, c)
}
