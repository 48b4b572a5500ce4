package coherence

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
func lead(t *testing.T, e *Engine, waiters int) (*Turn, []*reader) {
	t.Helper()
	turn, _, err := e.Enter(t.Context(), key, nil, gate)
	require.NoError(t, err)
	require.NotNil(t, turn)
	readers := make([]*reader, waiters)
	for i := range readers {
		readers[i] = enter(t, e, nil, gate)
		synctest.Wait() // one behind the other
		require.False(t, readers[i].done())
	}
	return turn, readers
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
func mustBeIdle(t *testing.T, e *Engine) {
	t.Helper()
	for i := range e.flights.shards {
		require.Empty(t, e.flights.shards[i].m)
	}
}

func TestGivenALoadUnderWay_WhenItIsShared_ThenEverybodyWhoWaitsGetsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := open(t)
		turn, readers := lead(t, e, 100)
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
		require.EqualValues(t, 100, e.Count.Coalesced.Load())
		mustBeIdle(t, e)
	})
}

func TestGivenALoadUnderWay_WhenItsErrorIsShared_ThenEverybodyWhoWaitsGetsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := open(t)
		turn, readers := lead(t, e, 10)
		turn.Finish(Outcome{Verdict: Shared, Err: errTested})
		synctest.Wait()
		for _, r := range readers {
			require.ErrorIs(t, r.get().out.Err, errTested)
		}
		mustBeIdle(t, e)
	})
}

func TestGivenALoadThatFailed_WhenOthersWait_ThenTheyLoadMaxLoadsAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := open(t)
		turn, readers := lead(t, e, 10)
		turn.Finish(Outcome{Verdict: Failed})
		synctest.Wait()
		require.Len(t, loading(readers), gate.MaxLoadsAfterError)

		// Each further failure makes room for one; newcomers find no room.
		latecomer := enter(t, e, nil, gate)
		for range 5 {
			loading(readers)[0].turn().Finish(Outcome{Verdict: Failed})
			synctest.Wait()
			require.Len(t, loading(readers), gate.MaxLoadsAfterError)
		}
		require.False(t, latecomer.done())

		// The first success serves everybody who still waits.
		loading(readers)[0].turn().Finish(Outcome{Verdict: Shared, Entry: Loose("v")})
		synctest.Wait()
		require.Equal(t, "v", latecomer.value())
		for _, r := range loading(readers) {
			r.turn().Finish(Outcome{Verdict: Failed})
		}
		for _, r := range readers {
			require.True(t, r.done())
		}
		mustBeIdle(t, e)
	})
}

func TestGivenALoadThatFailed_WhenNobodyWaits_ThenTheFlightIsForgotten(t *testing.T) {
	e := open(t)
	for range 10 {
		turn, _, err := e.Enter(t.Context(), key, nil, gate)
		require.NoError(t, err)
		turn.Finish(Outcome{Verdict: Failed})
		mustBeIdle(t, e)
	}
}

func TestGivenALoadWhoseValueIsItsOwn_WhenItEnds_ThenNobodyWaitsAnyMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := open(t)
		turn, readers := lead(t, e, 20)
		turn.Finish(Outcome{Verdict: Unshareable})
		synctest.Wait()
		require.Len(t, loading(readers), 20)
		latecomer := enter(t, e, nil, gate)
		synctest.Wait()
		require.NotNil(t, latecomer.turn())
		for _, r := range append(readers, latecomer) {
			r.turn().Finish(Outcome{Verdict: Unshareable})
		}
		mustBeIdle(t, e)
	})
}

func TestGivenALoadThatIsFencedAndFails_WhenOthersWaitForIt_ThenTheyStartOverTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := open(t)
		old, waiting := lead(t, e, 5)
		e.fence([]Item{{Kind: Key, Value: key}})
		fresh := enter(t, e, nil, gate)
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
		mustBeIdle(t, e)
	})
}

func TestGivenWhoWaits_WhenItsContextEnds_ThenItLeavesAndTheOthersAreServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := open(t)
		turn, readers := lead(t, e, 3)
		ctx, cancel := context.WithCancel(t.Context())
		leaves := enterAs(ctx, e, nil, gate)
		synctest.Wait()
		cancel()
		synctest.Wait()
		require.ErrorIs(t, leaves.get().err, context.Canceled)
		turn.Finish(Outcome{Verdict: Shared, Entry: Loose("v")})
		synctest.Wait()
		for _, r := range readers {
			require.Equal(t, "v", r.value())
		}
		mustBeIdle(t, e)
	})
}

func TestGivenAnEndedContext_WhenItEnters_ThenNothingBegins(t *testing.T) {
	e := open(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	turn, _, err := e.Enter(ctx, key, nil, gate)
	require.Nil(t, turn)
	require.ErrorIs(t, err, context.Canceled)
	mustBeIdle(t, e)
}

func TestGivenWhoWaits_WhenItsContextEndsAsItIsItsTurn_ThenTheTurnIsPassedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := open(t)
		one := Gate{MaxLoadsAfterError: 1, Wait: minute}
		for range 100 { // which of the two is seen first is a matter of chance
			turn, _, err := e.Enter(t.Context(), key, nil, one)
			require.NoError(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			leaves := enterAs(ctx, e, nil, one)
			synctest.Wait()
			stays := enter(t, e, nil, one)
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
			mustBeIdle(t, e)
		}
	})
}

func TestGivenALoadThatTakesTooLong_WhenOthersWait_ThenMaxLoadsAreLetGoBesideIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := open(t)
		turn, readers := lead(t, e, 10)
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
		turn.Finish(Outcome{Verdict: Shared, Entry: Loose("slow")})
		mustBe(t, e, key, "quick")
		for _, r := range loading(readers) {
			r.turn().Finish(Outcome{Verdict: Failed})
		}
		mustBeIdle(t, e)
	})
}

func TestGivenLoadsThatNeverEnd_WhenTimePasses_ThenNobodyWaitsForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := open(t)
		turn, readers := lead(t, e, 10)
		time.Sleep(10 * gate.Wait)
		synctest.Wait()
		for _, r := range readers {
			require.True(t, r.done())
		}
		turn.Finish(Outcome{Verdict: Failed})
		for _, r := range loading(readers) {
			r.turn().Finish(Outcome{Verdict: Failed})
		}
		mustBeIdle(t, e)
	})
}

func TestGivenATurn_WhenItIsFinishedTwice_ThenOnlyTheFirstCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := open(t)
		turn, readers := lead(t, e, 1)
		turn.Finish(Outcome{Verdict: Shared, Entry: Loose("v")})
		turn.Finish(Outcome{Verdict: Failed})
		synctest.Wait()
		require.Equal(t, "v", readers[0].value())
		next, _, err := e.Enter(t.Context(), key, nil, gate)
		require.NoError(t, err)
		turn.Finish(Outcome{Verdict: Failed}) // not the new flight's
		_, ok := e.TryLead(key, nil, gate)
		require.False(t, ok)
		next.Finish(Outcome{Verdict: Failed})
		mustBeIdle(t, e)
	})
}

func TestGivenALoadAlone_WhenItEnds_ThenNoFlightKnowsOfIt(t *testing.T) {
	e := open(t)
	turn := e.Alone(key, nil)
	require.False(t, turn.Waited())
	mustBeIdle(t, e)
	e.fence([]Item{{Kind: Key, Value: key}})
	turn.Load.Fill(fillOf("old", nil))
	turn.Finish(Outcome{Verdict: Shared})
	mustBeGone(t, e, key)
}

func TestGivenARefreshUnderWay_WhenAnotherIsAskedFor_ThenThereIsOne(t *testing.T) {
	e := open(t)
	turn, ok := e.TryLead(key, nil, gate)
	require.True(t, ok)
	_, ok = e.TryLead(key, nil, gate)
	require.False(t, ok)
	turn.Finish(Outcome{Verdict: Failed})
	turn, ok = e.TryLead(key, nil, gate)
	require.True(t, ok)
	turn.Finish(Outcome{Verdict: Failed})
	mustBeIdle(t, e)
}

// Whatever loads come to, in whatever order readers come, leave and invalidate:
// everybody gets an answer, at most one load runs until one fails, and nothing is
// left behind.
func TestGivenAnyCourseOfEvents_WhenAllIsOver_ThenEverybodyWasAnsweredAndNothingIsLeft(t *testing.T) {
	e := open(t)
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
					e.fence([]Item{{Kind: Key, Value: k}})
				}
				turn, _, err := e.Enter(ctx, k, nil, Gate{MaxLoadsAfterError: 1 + rnd.IntN(3), Wait: minute})
				switch {
				case err != nil:
					cancelled.Add(1)
				case turn == nil:
					answered.Add(1)
				default:
					loads.Add(1)
					if rnd.IntN(2) == 0 {
						time.Sleep(time.Duration(rnd.IntN(int(50 * time.Microsecond)))) // the load
					}
					turn.Finish(Outcome{Verdict: Verdict(1 + rnd.IntN(3)), Entry: Loose(0)})
				}
				cancel()
			}
		}()
	}
	wg.Wait()
	require.EqualValues(t, 32*500, answered.Load()+cancelled.Load()+loads.Load())
	mustBeIdle(t, e)
}
