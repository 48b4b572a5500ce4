package coherence

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Partitions cease to be legal one after the other. A load that began in between may have
// read copies of those that were legal yet.
func TestAnySharedLoadBeganAfterEveryPartitionThatLapsed(t *testing.T) {
	const delta, second = int64(1600 * time.Millisecond), int64(time.Second)
	s, _ := following(t)
	s.delta = delta // a proof lasts for 1.5 s
	s.local.SetPartitions(2)
	at := func(first, other, now int64) int64 {
		s.parts[0].verified.Store(first)
		s.parts[1].verified.Store(other)
		s.legalUntil.Store(0)
		return s.OldestShared(now)
	}

	require.Zero(t, at(10*second, 10*second, 11*second), "both are legal")
	require.Equal(t, 11*second+second/2, at(10*second, 11*second, 12*second), "the first has lapsed at 11.5 s")
	require.Equal(t, 12*second+second/2, at(10*second, 11*second, 13*second), "the other at 12.5 s")
	require.Equal(t, 14*second-delta+delta/16+1, at(10*second, 0, 13*second+second), "a proof ago: the other was never verified")
	require.Zero(t, at(10*second, 11*second, 11*second), "at 11 s both were legal")
	s.suspension.found.Store(true)
	require.Equal(t, int64(math.MaxInt64), at(10*second, 10*second, 11*second), "from before a suspension")
}
