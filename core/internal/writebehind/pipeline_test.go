package writebehind

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/internal/tier"
)

func TestAFlushWaitsForRecordsThatMayBeOlderThanItsCall(t *testing.T) {
	until := []int64{10, 10, 10, 10, 10}

	n := waiting([]tier.QueueState{
		{},
		{Depth: 1, First: 11},
		{Depth: 20, First: 10},
		{Depth: 300, First: 11, Retrying: 300, Unseen: 1},
		{Depth: 4000, First: 3},
		{Depth: 50000, First: 3}, // a partition that was not there
	}, until)

	require.Equal(t, 4320, n)
}
