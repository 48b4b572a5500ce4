package main

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func testHistory() (h *history, writer, other *process) {
	h = newHistory(1)
	h.base = h.base.Add(-time.Hour) // a past exists
	writer = &process{name: "writer", announced: make([]atomic.Int64, 1)}
	other = &process{name: "other", announced: make([]atomic.Int64, 1)}
	return h, writer, other
}

// staleReads has a process answer a version to a read that begins now, and returns the number of stale reads so far.
func staleReads(h *history, p *process, version int64) int64 {
	least := h.least(p, 0)
	h.judge(p, 0, h.now(), least, response{version: version})
	return h.stale.Load()
}

// On the writing process an older version is stale, whether the write is confirmed or not.
func TestReadsOfTheWritersProcess(t *testing.T) {
	h, writer, other := testHistory()
	h.promised(0, promise{version: 2, by: writer, here: h.now()}, 0)
	require.Zero(t, staleReads(h, writer, 2))
	require.Zero(t, staleReads(h, other, 1))
	require.EqualValues(t, 1, staleReads(h, writer, 1))
}

// On another process an older version is stale from MaxStaleness after the confirmation.
func TestReadsOfOtherProcesses(t *testing.T) {
	h, writer, other := testHistory()
	confirmed := h.now() - h.delta/2
	h.promised(0, promise{version: 2, by: writer, confirmed: confirmed, everywhere: confirmed + h.delta}, 0)
	require.Zero(t, staleReads(h, other, 1))
	require.GreaterOrEqual(t, h.longest.Load(), h.delta/2)
	confirmed = h.now() - h.delta - 1
	h.promised(0, promise{version: 3, by: writer, confirmed: confirmed, everywhere: confirmed + h.delta}, 0)
	require.Zero(t, staleReads(h, other, 3))
	require.EqualValues(t, 1, staleReads(h, other, 2))
}

// While the loss of a server's data is a limit, it excuses only versions confirmed before the new server answered.
func TestLimits(t *testing.T) {
	h, writer, _ := testHistory()
	h.promised(0, promise{version: 2, by: writer, here: h.now()}, 0)
	answers := h.losing()
	require.Zero(t, staleReads(h, writer, 1))
	answers()
	require.Zero(t, staleReads(h, writer, 1))
	require.EqualValues(t, 2, h.excused.Load())

	h.promised(0, promise{version: 3, by: writer, here: h.now()}, 0)
	require.EqualValues(t, 1, staleReads(h, writer, 2), "it was written to the new server")

	h.limits[0].until = h.now() - 1
	require.EqualValues(t, 2, staleReads(h, writer, 1), "the limit is over")
}

// A write during which a replaced master acts as the master has no promise.
func TestSplit(t *testing.T) {
	h, writer, _ := testHistory()
	before := h.splits.Load()
	h.splits.Add(1)
	h.promised(0, promise{version: 2, by: writer, here: h.now()}, before)
	h.promised(0, promise{version: 2, by: writer, here: h.now()}, h.splits.Load())
	during := h.splits.Load()
	h.splits.Add(1)
	h.promised(0, promise{version: 2, by: writer, here: h.now()}, during)
	require.Zero(t, staleReads(h, writer, 1))
	require.EqualValues(t, 3, h.unpromised.Load())
	h.promised(0, promise{version: 2, by: writer, here: h.now()}, h.splits.Load())
	require.EqualValues(t, 1, staleReads(h, writer, 1))
}

// Quantiles have a relative precision of 1/16.
func TestSpread(t *testing.T) {
	var s spread
	for i := range 1000 {
		s.add(time.Duration(i) * time.Microsecond)
	}
	require.InEpsilon(t, 500*time.Microsecond, s.quantile(.5), .07)
	require.InEpsilon(t, 990*time.Microsecond, s.quantile(.99), .07)
	require.Equal(t, 999*time.Microsecond, s.quantile(1))
	for _, ns := range []int64{0, 1, 15, 16, 17, 31, 32, 1000, 1 << 40} {
		require.GreaterOrEqual(t, int64(atMost(bucket(ns))), ns)
	}
}
