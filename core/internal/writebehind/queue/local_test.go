package queue

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/internal/tier"
)

func put(t testing.TB, l *Local, limit int, keys ...string) []int64 {
	t.Helper()
	e := tier.Enqueue{Queue: "q", Limit: limit}
	for _, k := range keys {
		e.Changes = append(e.Changes, tier.QueueChange{Key: k, Payload: []byte("of " + k)})
	}
	done, err := l.Enqueue(t.Context(), e)
	require.NoError(t, err)
	versions := make([]int64, len(done))
	for i, d := range done {
		require.Zero(t, d.Logged)
		versions[i] = d.Version
	}
	return versions
}

func take(t testing.TB, l *Local, worker string, most int) tier.Claimed {
	t.Helper()
	c, err := l.Claim(t.Context(), tier.Claim{Queue: "q", Worker: worker, Max: most, Lease: time.Minute})
	require.NoError(t, err)
	return c
}

func settled(t testing.TB, l *Local, worker string, of ...tier.Settled) tier.Settlement {
	t.Helper()
	s, err := l.Settle(t.Context(), tier.Settle{Queue: "q", Worker: worker, Records: of})
	require.NoError(t, err)
	return s
}

func state(t testing.TB, l *Local) tier.QueueState {
	t.Helper()
	states, err := l.States(t.Context(), "q")
	require.NoError(t, err)
	require.Len(t, states, 1)
	return states[0]
}

func keysOf(c tier.Claimed) []string {
	var keys []string
	for _, r := range c.Records {
		keys = append(keys, r.Key)
	}
	return keys
}

func TestPeekReturnsTheChangeQueuedLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLocal()
		require.NoError(t, l.Durable(t.Context()))
		_, ok := l.Peek("k")
		require.False(t, ok)
		one := put(t, l, 10, "k")[0]
		require.Equal(t, time.Now().UnixMicro(), one)
		two := put(t, l, 10, "k")[0]
		require.Equal(t, one+1, two, "the clock stands still")
		q, ok := l.Peek("k")
		require.True(t, ok)
		require.Equal(t, tier.Queued{Key: "k", Version: two, First: one, Payload: []byte("of k")}, q)
		q.Payload[0] = '!'
		take(t, l, "w", 1).Records[0].Payload[0] = '!'
		q, _ = l.Peek("k")
		require.Equal(t, "of k", string(q.Payload))
		settled(t, l, "w", tier.Settled{Key: "k", Version: two})
		_, ok = l.Peek("k")
		require.False(t, ok)
	})
}

func TestAFullQueueRefusesNewKeys(t *testing.T) {
	l := NewLocal()
	put(t, l, 2, "a", "b")
	require.Zero(t, put(t, l, 2, "c")[0])
	require.NotZero(t, put(t, l, 2, "a")[0])
	require.Equal(t, 2, state(t, l).Depth)
}

func TestASecondWorkerWaitsForTheEndOfTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLocal()
		v := put(t, l, 10, "k")[0]
		require.Len(t, take(t, l, "a", 1).Records, 1)
		require.Equal(t, time.Minute, take(t, l, "b", 1).Busy)
		require.False(t, settled(t, l, "b", tier.Settled{Key: "k", Version: v}).Held)
		time.Sleep(time.Minute)
		require.False(t, settled(t, l, "a", tier.Settled{Key: "k", Version: v}).Held)
		require.Len(t, take(t, l, "b", 1).Records, 1)
		require.Equal(t, time.Minute, take(t, l, "a", 1).Busy)
	})
}

func TestADueRetryComesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLocal()
		v := put(t, l, 10, "a", "b", "c")
		take(t, l, "w", 10)
		settled(t, l, "w", tier.Settled{Key: "b", Version: v[1], Retry: time.Second}, tier.Settled{Key: "c", Version: v[2], Retry: 2 * time.Second})
		got := take(t, l, "w", 10)
		require.Equal(t, []string{"a"}, keysOf(got))
		require.Equal(t, time.Second, got.Next)
		require.Equal(t, tier.QueueState{Depth: 3, Retrying: 2, First: v[0], Last: v[2], Now: time.Now().UnixMicro()}, state(t, l))
		time.Sleep(time.Second)
		got = take(t, l, "w", 1)
		require.Equal(t, []string{"b"}, keysOf(got))
		require.True(t, got.More)
		require.Equal(t, time.Second, got.Next)
		time.Sleep(time.Second)
		require.Equal(t, []string{"b", "c", "a"}, keysOf(take(t, l, "w", 10)))
	})
}

func TestADeadLetterIsReplayedOnce(t *testing.T) {
	l := NewLocal()
	v := put(t, l, 10, "a", "b")
	take(t, l, "w", 10)
	settled(t, l, "w", tier.Settled{Key: "a", Version: v[0], Dead: "why"}, tier.Settled{Key: "b", Version: v[1], Dead: "why"})
	letters, err := l.DeadLetters(t.Context(), 0, "q", "", 10)
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b"}, []string{letters[0].Key, letters[1].Key})
	for _, want := range []bool{true, false} {
		ok, err := l.Replay(t.Context(), 0, "q", letters[0].ID)
		require.NoError(t, err)
		require.Equal(t, want, ok)
	}
	require.Equal(t, []string{"a"}, keysOf(take(t, l, "w", 10)))
	put(t, l, 10, "b")
	require.Zero(t, state(t, l).Dead, "a later change takes it out")
	_, err = l.DeadLetters(t.Context(), 0, "q", "nonsense", 10)
	require.Error(t, err)
}

func TestTheOldestDeadLettersAreDropped(t *testing.T) {
	l := NewLocal()
	for i := range maxDeadLetters + 5 {
		k := strconv.Itoa(i)
		v := put(t, l, 10, k)[0]
		take(t, l, "w", 1)
		settled(t, l, "w", tier.Settled{Key: k, Version: v, Dead: "why"})
	}
	require.Equal(t, maxDeadLetters, state(t, l).Dead)
	require.Len(t, l.state.queues["q"].letter, maxDeadLetters)
	letters, err := l.DeadLetters(t.Context(), 0, "q", "", 1)
	require.NoError(t, err)
	require.Equal(t, "5", letters[0].Key)
}

func TestWhatALocalQueueCannotDoIsRefused(t *testing.T) {
	l := NewLocal()
	ctx := t.Context()
	_, err := l.Enqueue(ctx, tier.Enqueue{Queue: "q", Limit: 1, Changes: []tier.QueueChange{{Key: "k", Payload: []byte("x"), Lease: "lease"}}})
	require.ErrorIs(t, err, errNoLease)
	_, err = l.Enqueue(ctx, tier.Enqueue{Partition: 1, Queue: "q", Limit: 1, Changes: []tier.QueueChange{{Key: "k", Payload: []byte("x")}}})
	require.Error(t, err)
	_, err = l.DeadLetters(ctx, 1, "q", "", 1)
	require.Error(t, err)
	_, err = l.Replay(ctx, 1, "q", "1")
	require.Error(t, err)
	_, err = l.Claim(ctx, tier.Claim{Queue: "q"})
	require.Error(t, err)
	_, err = l.Settle(ctx, tier.Settle{Worker: "w"})
	require.Error(t, err)
	ended, cancel := context.WithCancel(ctx)
	cancel()
	_, err = l.States(ended, "q")
	require.ErrorIs(t, err, context.Canceled)
	require.Zero(t, state(t, l).Depth)
}

func TestWhileManyChangeAndOneApplies_ThenEveryLastChangeIsApplied(t *testing.T) {
	l := NewLocal()
	const writers, changes = 4, 500
	var mu sync.Mutex
	last, applied := map[string]int64{}, map[string]int64{}
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			for j := range changes {
				k := strconv.Itoa((i * j) % 37)
				v := put(t, l, 1000, k)[0]
				l.Peek(k)
				mu.Lock()
				last[k] = max(last[k], v)
				mu.Unlock()
			}
		})
	}
	drain := func() int {
		c := take(t, l, "w", 5)
		var of []tier.Settled
		for _, r := range c.Records {
			require.GreaterOrEqual(t, r.Version, applied[r.Key])
			applied[r.Key] = r.Version
			of = append(of, tier.Settled{Key: r.Key, Version: r.Version})
		}
		settled(t, l, "w", of...)
		return len(of)
	}
	for range changes {
		drain()
	}
	wg.Wait()
	for drain() > 0 {
	}
	require.Equal(t, last, applied)
}

// The state is compared with one that keeps no heaps and looks at everything.
func TestTheStateDoesAsAPlainOneDoes(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	s := NewState()
	type plain struct {
		version, first, due int64
		attempts            int
	}
	want := map[string]plain{}
	now := int64(1_000_000)
	held := &tier.Claim{Queue: "q", Worker: "w", Max: 1000, Lease: time.Hour}
	for step := range 4000 {
		now += rng.Int64N(5)
		if rng.IntN(4) == 0 {
			s = s.Clone()
		}
		key := "k" + strconv.Itoa(rng.IntN(40))
		old, is := want[key]
		switch rng.IntN(6) {
		case 0, 1:
			e := &tier.Enqueue{Queue: "q", Limit: 30, Changes: []tier.QueueChange{{Key: key, Payload: []byte("x")}}}
			v := s.Enqueue(e, now, "", nil)[0]
			require.Equal(t, is || len(want) < 30, v != 0)
			if v != 0 {
				p := plain{version: v, first: v}
				if is {
					p.first = old.first
				}
				want[key] = p
			}
		case 2, 3, 4:
			of := tier.Settled{Key: key, Version: old.version}
			switch rng.IntN(4) {
			case 0:
				of.Version--
			case 1:
				of.Retry = time.Duration(1+rng.IntN(50)) * time.Millisecond
			case 2:
				of.Dead = "why"
			}
			done := s.Settle(&tier.Settle{Queue: "q", Worker: "w", Records: []tier.Settled{of}}, now, "")
			require.Equal(t, []bool{is && of.Version != old.version}, done.Newer)
			switch {
			case !is || !done.Held:
			case of.Version != old.version:
				old.first = old.version
				want[key] = old
			case of.Retry > 0:
				old.attempts++
				old.due = now + of.Retry.Microseconds()
				want[key] = old
			default:
				delete(want, key)
			}
		case 5:
			now += rng.Int64N(20_000)
		}
		claimed := s.Claim(held, now)
		var due []string
		next := int64(0)
		for k, p := range want {
			if p.due <= now {
				due = append(due, k)
			} else if next == 0 || p.due < next {
				next = p.due
			}
		}
		slices.SortFunc(due, func(a, b string) int {
			x, y := want[a], want[b]
			switch {
			case (x.due == 0) != (y.due == 0):
				return int(min(1, y.due) - min(1, x.due))
			case x.due != y.due:
				return int(x.due - y.due)
			}
			return int(x.first - y.first)
		})
		require.Equal(t, due, keysOf(claimed), "step %d", step)
		require.False(t, claimed.More)
		if next > 0 {
			next = (next - now) * int64(time.Microsecond)
		}
		require.Equal(t, time.Duration(next), claimed.Next)
		for _, r := range claimed.Records {
			p := want[r.Key]
			require.Equal(t, fmt.Sprint(p.version, p.first, p.attempts), fmt.Sprint(r.Version, r.First, r.Attempts))
		}
	}
}
