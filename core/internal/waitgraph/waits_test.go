package waitgraph

import (
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// run returns a flight with a turn, whose load is l.
func run(l *Load) *Flight {
	f := new(Flight)
	f.Turn()
	f.Runs(l)
	return f
}

func TestAWaitThatClosesACircleIsRefused(t *testing.T) {
	a, b, c := new(Load), new(Load), new(Load)
	fa, fb, fc := run(a), run(b), run(c)
	_, ok := a.For(fb)
	require.True(t, ok)
	_, ok = b.For(fc)
	require.True(t, ok)
	_, ok = c.For(fa)
	require.False(t, ok)
	_, ok = a.For(fa)
	require.False(t, ok)
	_, ok = c.For(new(Flight))
	require.True(t, ok)
}

func TestAWaitForAFlightWithAnotherLoadIsNotRefused(t *testing.T) {
	a, b, c := new(Load), new(Load), new(Load)
	fa, fb := run(a), run(b)
	fb.Turn()
	_, ok := b.For(fa)
	require.True(t, ok)
	leave, ok := a.For(fb)
	require.True(t, ok, "the other turn may end")
	leave()
	fb.Runs(c)
	leave, ok = a.For(fb)
	require.True(t, ok, "the other load may end")
	leave()
	_, ok = c.For(fa)
	require.True(t, ok)
	_, ok = a.For(fb)
	require.False(t, ok)
}

func TestALoadThatBeganAnotherWaitsForThatOneAlone(t *testing.T) {
	a, inner, b := new(Load), new(Load), new(Load)
	fa, fInner, fb := run(a), run(inner), run(b)
	leave := a.Begins(inner)
	fInner.Turn() // a second load of the flight: a waits for the one that it has begun
	fInner.Runs(new(Load))
	stay, ok := inner.For(fb)
	require.True(t, ok)
	_, ok = b.For(fa)
	require.False(t, ok)
	leave()
	_, ok = b.For(fa)
	require.True(t, ok, "a no longer waits for inner")
	stay()
	stay()
	require.Empty(t, inner.on)
	require.Empty(t, a.on)
}

func TestAnEndedLoadHoldsUpNoOther(t *testing.T) {
	a, b := new(Load), new(Load)
	fa, fb := run(a), run(b)
	_, ok := a.For(fb)
	require.True(t, ok)
	fa.Ended(a)
	_, ok = b.For(fa)
	require.True(t, ok)
	require.Empty(t, fa.loads)
	require.Zero(t, fa.turns)
}

func TestALoadIsHeldUpByALongWaitForAnotherInstance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, c := new(Load), new(Load), new(Load)
		_, ok := a.For(run(b))
		require.True(t, ok)
		_, ok = b.For(run(c))
		require.True(t, ok)
		back := c.WaitForInstance()
		require.False(t, a.HeldUp(time.Second))
		time.Sleep(time.Second)
		require.True(t, a.HeldUp(time.Second))
		require.False(t, new(Load).HeldUp(time.Second))
		back()
		require.False(t, a.HeldUp(time.Second))
	})
}

// The reference runs the loads: every permitted wait ends in some order, and no refused one.
func TestWaitsAreRefusedExactlyIfNoOrderLetsThemEnd(t *testing.T) {
	for seed := range uint64(3000) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		loads := make([]*Load, 2+rnd.IntN(5))
		flights := make([]*Flight, len(loads))
		runs := make([][]int, len(loads)) // loads of a flight
		for i := range loads {
			loads[i] = new(Load)
			flights[i] = run(loads[i])
			runs[i] = []int{i}
		}
		for i := range flights {
			if rnd.IntN(4) == 0 {
				other := rnd.IntN(len(loads))
				flights[i].Turn()
				flights[i].Runs(loads[other])
				runs[i] = append(runs[i], other)
			}
		}
		on := make([][]int, len(loads)) // the flights for which each load waits
		for range 12 {
			l, f := rnd.IntN(len(loads)), rnd.IntN(len(loads))
			on[l] = append(on[l], f)
			want := orderExists(l, on, runs)
			_, ok := loads[l].For(flights[f])
			require.Equal(t, want, ok, "seed %d", seed)
			if !ok {
				on[l] = on[l][:len(on[l])-1]
			}
		}
	}
}

// orderExists ends the loads that wait for nothing, one after the other.
func orderExists(l int, on, runs [][]int) bool {
	ended := make([]bool, len(on))
	done := func(flight int) bool {
		for _, r := range runs[flight] {
			if ended[r] {
				return true
			}
		}
		return false
	}
	for range on {
		for i := range on {
			ready := true
			for _, f := range on[i] {
				ready = ready && done(f)
			}
			ended[i] = ended[i] || ready
		}
	}
	return ended[l]
}
