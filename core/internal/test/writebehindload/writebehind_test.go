package main

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A process is killed after it has put a batch into the database, and Redis is killed and restarted. Every acknowledged
// change is applied, and changes of one id in order.
func TestShortRunLosesNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes several seconds")
	}
	for name, cluster := range map[string]bool{"one Redis": false, "cluster": true} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			came, err := conduct(t.Context(), config{
				changes: 5000, ids: 500, processes: 2, writers: 32, limit: 2 * time.Minute, cluster: cluster,
				killAtBatch: 3, restartAtChange: 2500,
			}, &out)
			t.Log("\n" + out.String())
			require.NoError(t, err)
			require.Zero(t, came.lost)
			require.Zero(t, came.outOfOrder)
			require.Equal(t, 1, came.killed)
			require.Equal(t, 1, came.restarted)
			require.GreaterOrEqual(t, came.applied, 500)
		})
	}
}

func TestFlags(t *testing.T) {
	cfg, err := parse([]string{"-changes", "1000000", "-cluster"})
	require.NoError(t, err)
	require.Equal(t, 1_000_000, cfg.changes)
	require.Equal(t, 100_000, cfg.ids)
	require.Equal(t, 4, cfg.processes)
	require.True(t, cfg.cluster)
	for _, args := range [][]string{
		{"-changes", "0"}, {"-writers", "0"}, {"-processes", "0"}, {"-kill", "0s"}, {"-restart", "0s"}, {"-plain", "-1"}, {"-plain", "1"},
		{"-ids", "1"}, {"x"},
	} {
		_, err := parse(args)
		require.Error(t, err, "%q", args)
	}
}
