package memtier_test

import (
	"context"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/internal/test/memtier"
	"github.com/larderhq/larder/core/internal/tier"
)

// world is a server with two clients of two partitions, in a bubble.
type world struct {
	*testing.T
	*memtier.Server
	tier *memtier.Tier // of a
	a, b tier.Session
}

func bubble(t *testing.T, test func(w *world)) {
	synctest.Test(t, func(t *testing.T) {
		s := memtier.New(memtier.Config{Rand: rand.New(rand.NewPCG(1, 1)), LogItems: 8})
		defer s.Close()
		w := &world{T: t, Server: s, tier: s.Tier("a")}
		open := func(shared *memtier.Tier) tier.Session {
			c, err := shared.Open(w.within(time.Second), tier.Layout{Namespace: "ns", Partitions: 2})
			require.NoError(t, err)
			return c
		}
		w.a, w.b = open(w.tier), open(s.Tier("b"))
		for p := range 2 {
			require.NoError(t, w.a.NewEra(w.within(time.Second), p, "", false))
		}
		test(w)
	})
}

func (w *world) within(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	w.Cleanup(cancel)
	return ctx
}

func (w *world) change(ctx context.Context, kind tier.Kind, values ...string) error {
	ch := tier.Change{}
	for _, v := range values {
		ch.Items = append(ch.Items, tier.Item{Kind: kind, Value: v})
	}
	_, err := w.a.Change(ctx, ch)
	return err
}

// log returns the log of partition 0 as b reads it.
func (w *world) log() []string {
	l, err := w.b.Log(w.within(time.Second), 0, tier.Position{})
	require.NoError(w, err)
	var values []string
	for _, it := range l.Items {
		values = append(values, it.Value)
	}
	return values
}

func (w *world) heads() []tier.Head {
	heads, err := w.b.Heads(w.within(time.Second))
	require.NoError(w, err)
	return heads
}

func TestALateRequestIsExecutedAfterItsCallerLeft(t *testing.T) {
	bubble(t, func(w *world) {
		w.SetFaults(memtier.Faults{Request: memtier.Delay{Min: time.Second, Max: time.Second}})
		require.ErrorIs(w, w.change(w.within(100*time.Millisecond), tier.Tag, "t"), context.DeadlineExceeded)
		w.SetFaults(memtier.Faults{})
		require.Empty(w, w.log())
		time.Sleep(time.Second)
		require.Equal(w, []string{"t"}, w.log())
		require.Equal(w, 1, w.Stats().ExecutedLate)
	})
}

func TestALostRequestIsNotExecuted(t *testing.T) {
	bubble(t, func(w *world) {
		w.SetFaults(memtier.Faults{RequestLost: 1})
		require.Error(w, w.change(w.within(time.Second), tier.Tag, "t"))
		w.SetFaults(memtier.Faults{RequestLost: 1, Silent: 1})
		require.ErrorIs(w, w.change(w.within(time.Second), tier.Tag, "t"), context.DeadlineExceeded)
		w.SetFaults(memtier.Faults{})
		require.Empty(w, w.log())
	})
}

func TestACallWithALostReplyIsExecutedOnceOrTwice(t *testing.T) {
	bubble(t, func(w *world) {
		w.SetFaults(memtier.Faults{ReplyLost: 1})
		require.Error(w, w.change(w.within(time.Second), tier.Tag, "t"))
		w.SetFaults(memtier.Faults{ReplyLost: 1, Resent: 1, Reply: memtier.Delay{Min: time.Second, Max: time.Second}})
		go func() {
			time.Sleep(1500 * time.Millisecond)
			w.SetFaults(memtier.Faults{})
		}()
		require.NoError(w, w.change(w.within(time.Minute), tier.Tag, "u"))
		require.Equal(w, []string{"t", "u", "u", "u"}, w.log())
	})
}

func TestRequestsToAFrozenServerWait(t *testing.T) {
	bubble(t, func(w *world) {
		w.Freeze(true, 0)
		require.ErrorIs(w, w.change(w.within(time.Second), tier.Tag, "t"), context.DeadlineExceeded)
		require.NoError(w, w.a.NewEra(w.within(time.Second), 1, "", true), "the other partition answers")
		w.Freeze(false, 0)
		synctest.Wait()
		require.Equal(w, []string{"t"}, w.log())
	})
}

func TestAServerThatIsDownFailsOnlyItsPartitions(t *testing.T) {
	bubble(t, func(w *world) {
		w.Down(true, 1)
		heads := w.heads()
		require.NoError(w, heads[0].Err)
		require.Error(w, heads[1].Err)
		w.Down(true)
		_, err := w.b.Heads(w.within(time.Second))
		require.Error(w, err)
		w.Down(false)
		require.NoError(w, w.heads()[1].Err)
	})
}

func TestAFailoverLosesTheLastWrites(t *testing.T) {
	bubble(t, func(w *world) {
		require.NoError(w, w.change(w.within(time.Second), tier.Tag, "kept"))
		before := w.heads()
		time.Sleep(time.Second)
		require.NoError(w, w.change(w.within(time.Second), tier.All, ""))
		cut := make(chan error, 1)
		go func() { cut <- w.b.Hints(w.Context(), nil, func(tier.Hint) {}) }()
		synctest.Wait()
		w.SetFaults(memtier.Faults{Request: memtier.Delay{Min: time.Second, Max: time.Second}})
		inFlight := make(chan error, 1)
		go func() { inFlight <- w.change(w.within(time.Minute), tier.Tag, "in flight") }()
		synctest.Wait()
		w.SetFaults(memtier.Faults{})
		w.LoseLast(500*time.Millisecond, 0)
		require.Error(w, <-inFlight)
		require.Error(w, <-cut)
		after := w.heads()
		require.Equal(w, before[0].Era, after[0].Era)
		require.Equal(w, before[0].Position, after[0].Position)
		require.NotEqual(w, before[0].Server, after[0].Server)
		require.Equal(w, before[1].Server, after[1].Server)
		require.Equal(w, []string{"kept"}, w.log())
		require.NoError(w, w.change(w.within(time.Second), tier.Tag, "next"))
		require.Equal(w, []string{"kept", "next"}, w.log())
	})
}

func TestARestoredSnapshotHasTheOlderState(t *testing.T) {
	bubble(t, func(w *world) {
		snap, before := w.Snapshot(), w.heads()
		for range 2 {
			require.NoError(w, w.change(w.within(time.Second), tier.All, ""))
			w.Restore(snap)
			after := w.heads()
			require.Equal(w, before[0].Era, after[0].Era)
			require.NotEqual(w, after[0].Confirmed, after[0].Server)
		}
	})
}

func TestAChangeOnAFullServerRemovesAndFails(t *testing.T) {
	bubble(t, func(w *world) {
		ctx := w.within(time.Second)
		l, err := w.a.Acquire(ctx, "key", "", []string{"t"}, time.Minute)
		require.NoError(w, err)
		w.Full(true)
		_, err = w.a.Fill(ctx, l, tier.Fill{Key: "key", Entry: tier.Entry{KeepUntil: l.Now + 1000}})
		require.Error(w, err)
		require.Error(w, w.a.Note(ctx, "note", nil, time.Minute))
		_, err = w.a.Acquire(ctx, "other", "", nil, time.Minute)
		require.Error(w, err)
		for p := range 2 { // the tag lies in one of them
			_, err = w.a.Change(ctx, tier.Change{Partition: p, Items: []tier.Item{{Kind: tier.Tag, Value: "t"}}})
			require.Error(w, err)
		}
		tokens, err := w.a.Generations(ctx, []string{"t"})
		require.NoError(w, err)
		require.Equal(w, []string{""}, tokens)
		require.NoError(w, w.heads()[0].Err)
		require.NoError(w, w.a.NewEra(ctx, 0, "", true))
	})
}

func TestCallsOfADeadProcessAreNotExecuted(t *testing.T) {
	bubble(t, func(w *world) {
		cut := make(chan error, 1)
		go func() { cut <- w.a.Hints(w.Context(), nil, func(tier.Hint) {}) }()
		synctest.Wait()
		w.tier.Kill()
		require.Error(w, <-cut)
		require.ErrorIs(w, w.change(w.within(time.Second), tier.Tag, "t"), context.DeadlineExceeded)
		require.Empty(w, w.log())
	})
}

func TestHintsMayBeLostDoubledAndOutOfOrder(t *testing.T) {
	bubble(t, func(w *world) {
		w.SetFaults(memtier.Faults{
			HintLost: 0.2, HintTwice: 0.2, HintReordered: 0.5, HintDelay: memtier.Delay{Max: time.Second},
		})
		ctx, cancel := context.WithCancel(w.Context())
		var got []int
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = w.b.Hints(ctx, nil, func(h tier.Hint) {
				n, _ := strconv.Atoi(h.Item.Value)
				got = append(got, n)
			})
		}()
		synctest.Wait()
		for i := range 100 {
			require.NoError(w, w.change(w.within(time.Second), tier.Tag, strconv.Itoa(i)))
		}
		time.Sleep(2 * time.Second)
		cancel()
		<-done
		stats := w.Stats()
		require.Positive(w, stats.LostHints)
		require.Positive(w, stats.DoubledHints)
		require.Len(w, got, 100-stats.LostHints+stats.DoubledHints)
		require.False(w, slices.IsSorted(got))
	})
}

func TestPartitionsHaveClocksOfTheirOwn(t *testing.T) {
	bubble(t, func(w *world) {
		w.Skew(time.Hour, 1)
		heads := w.heads()
		require.Equal(w, time.Hour.Milliseconds(), heads[1].Now-heads[0].Now)
	})
}

func TestALongSimulationDoesNotGrow(t *testing.T) {
	bubble(t, func(w *world) {
		for i := range 20_000 {
			name := strconv.Itoa(i)
			require.NoError(w, w.a.Note(context.Background(), name, nil, time.Second))
			require.NoError(w, w.change(context.Background(), tier.Key, name))
			time.Sleep(100 * time.Millisecond)
		}
		require.Less(w, w.Keys(), 2000)
	})
}

func TestEvictDrawsWhatASeedSays(t *testing.T) {
	bubble(t, func(w *world) {
		for i := range 20 {
			require.NoError(w, w.a.Note(context.Background(), strconv.Itoa(i), nil, time.Minute))
		}
		snap := w.Snapshot()
		_, first, ok := w.Evict(rand.New(rand.NewPCG(3, 3)), memtier.Entry)
		require.True(w, ok)
		w.Restore(snap)
		kind, again, _ := w.Evict(rand.New(rand.NewPCG(3, 3)), memtier.Entry)
		require.Equal(w, first, again)
		require.Equal(w, memtier.Entry, kind)
		for range 19 {
			_, _, ok = w.Evict(rand.New(rand.NewPCG(3, 3)), memtier.Entry)
			require.True(w, ok)
		}
		_, _, ok = w.Evict(rand.New(rand.NewPCG(3, 3)), memtier.Entry)
		require.False(w, ok)
		require.Positive(w, w.Keys(), "heads and the layout are left")
	})
}
