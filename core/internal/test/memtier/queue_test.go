package memtier_test

import (
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/internal/test/memtier"
	"github.com/larderhq/larder/core/internal/tier"
)

// queueKey lies in partition 0 of two.
func queueKey() string {
	for _, k := range []string{"a", "b", "c", "d", "e"} {
		if tier.Partition(k, 2) == 0 {
			return k
		}
	}
	panic("none of them")
}

func queueChange(payload string) tier.Enqueue {
	return tier.Enqueue{Queue: "q", Limit: 10, Changes: []tier.QueueChange{{Key: queueKey(), Payload: []byte(payload)}}}
}

func (w *world) enqueue(payload string) int64 {
	done, err := w.a.Enqueue(w.within(time.Minute), queueChange(payload))
	require.NoError(w, err)
	return done[0].Version
}

func (w *world) claim() tier.Claimed {
	c, err := w.b.Claim(w.within(time.Minute), tier.Claim{Queue: "q", Worker: "w", Max: 10, Lease: time.Hour})
	require.NoError(w, err)
	return c
}

func (w *world) state() tier.QueueState {
	states, err := w.b.States(w.within(time.Minute), "q")
	require.NoError(w, err)
	require.NoError(w, states[0].Err)
	return states[0]
}

func TestAFullServerQueuesNothingAndSettlesEverything(t *testing.T) {
	bubble(t, func(w *world) {
		v := w.enqueue("x")
		w.Full(true)
		_, err := w.a.Enqueue(w.within(time.Second), queueChange("y"))
		require.Error(w, err)
		require.Len(w, w.log(), 1)
		require.Equal(w, v, w.claim().Records[0].Version)
		settle := tier.Settle{Queue: "q", Worker: "w", Records: []tier.Settled{{Key: queueKey(), Version: v, Dead: "why"}}}
		done, err := w.b.Settle(w.within(time.Second), settle)
		require.NoError(w, err)
		require.True(w, done.Held)
		letters, err := w.b.DeadLetters(w.within(time.Second), 0, "q", "", 1)
		require.NoError(w, err)
		_, err = w.b.Replay(w.within(time.Second), 0, "q", letters[0].ID)
		require.Error(w, err)
		require.Equal(w, 1, w.state().Dead)
	})
}

func TestAFailoverLosesTheLastQueuedChanges(t *testing.T) {
	bubble(t, func(w *world) {
		v := w.enqueue("kept")
		snap := w.Snapshot()
		time.Sleep(time.Second)
		lost := w.enqueue("lost")
		w.LoseLast(500*time.Millisecond, 0)
		require.Equal(w, v, w.claim().Records[0].Version)
		require.Greater(w, w.enqueue("next"), lost, "the clock goes on")
		w.Restore(snap)
		require.Equal(w, v, w.claim().Records[0].Version)
		w.Flush()
		require.Empty(w, w.claim().Records)
	})
}

func TestWhatIsQueuedIsNotEvictedUnlessItIsNamed(t *testing.T) {
	bubble(t, func(w *world) {
		w.enqueue("x")
		rng := rand.New(rand.NewPCG(3, 3))
		for {
			kind, _, ok := w.Evict(rng)
			if !ok {
				break
			}
			require.NotEqual(w, memtier.Queue, kind)
		}
		require.Equal(w, 1, w.state().Depth)
		_, _, ok := w.Evict(rng, memtier.Queue)
		require.True(w, ok)
		require.Zero(w, w.state().Depth)
	})
}

func TestAResentChangeIsQueuedOnce(t *testing.T) {
	bubble(t, func(w *world) {
		again := func(do func()) {
			w.SetFaults(memtier.Faults{ReplyLost: 1, Resent: 1, Reply: memtier.Delay{Min: time.Second, Max: time.Second}})
			go func() {
				time.Sleep(1500 * time.Millisecond)
				w.SetFaults(memtier.Faults{})
			}()
			do()
			synctest.Wait()
		}
		l, err := w.a.Acquire(w.within(time.Second), queueKey(), "", nil, time.Minute)
		require.NoError(w, err)
		e := queueChange("x")
		e.Changes[0].Lease = l.Token
		var v int64
		again(func() {
			done, err := w.a.Enqueue(w.within(time.Minute), e)
			require.NoError(w, err)
			v = done[0].Version
		})
		require.NotZero(w, v, "its lease ended when it was executed first")
		require.Len(w, w.log(), 3)
		q := w.claim().Records
		require.Len(w, q, 1)
		require.Equal(w, v, q[0].Version)
		settle := func(of tier.Settled) {
			of.Key, of.Version = queueKey(), v
			_, err := w.b.Settle(w.within(time.Minute), tier.Settle{Queue: "q", Worker: "w", Records: []tier.Settled{of}})
			require.NoError(w, err)
		}
		again(func() { settle(tier.Settled{Retry: time.Hour}) })
		l, err = w.a.Acquire(w.within(time.Second), queueKey(), "", nil, time.Minute)
		require.NoError(w, err)
		require.Equal(w, 1, l.Queued.Attempts)
		again(func() { settle(tier.Settled{Dead: "why"}) })
		letters, err := w.b.DeadLetters(w.within(time.Second), 0, "q", "", 10)
		require.NoError(w, err)
		require.Len(w, letters, 1)
		again(func() {
			ok, err := w.b.Replay(w.within(time.Minute), 0, "q", letters[0].ID)
			require.NoError(w, err)
			require.True(w, ok)
		})
		require.Equal(w, 1, w.state().Depth)
	})
}

func TestAChangeExecutedAfterItsLimitDoesNothing(t *testing.T) {
	bubble(t, func(w *world) {
		for _, skew := range []time.Duration{0, time.Hour} {
			w.Skew(skew)
			e := queueChange("x")
			e.Within = time.Second
			failed := make(chan error, 1)
			w.Freeze(true, 0)
			go func() { _, err := w.a.Enqueue(w.within(time.Minute), e); failed <- err }()
			time.Sleep(time.Second + time.Millisecond)
			w.Freeze(false, 0)
			require.ErrorContains(w, <-failed, "too late")
			require.Zero(w, w.state().Depth)
			w.Freeze(true, 0)
			go func() { _, err := w.a.Enqueue(w.within(time.Minute), e); failed <- err }()
			time.Sleep(time.Second)
			w.Freeze(false, 0)
			require.NoError(w, <-failed)
			require.Equal(w, 1, w.state().Depth)
			w.Flush()
		}
	})
}

func TestAPartitionThatIsDownFailsOnlyItsQueue(t *testing.T) {
	bubble(t, func(w *world) {
		w.Down(true, 1)
		states, err := w.b.States(w.within(time.Second), "q")
		require.NoError(w, err)
		require.NoError(w, states[0].Err)
		require.Error(w, states[1].Err)
		require.Error(w, w.b.Durable(w.within(time.Second)), "it cannot be asked")
	})
}
