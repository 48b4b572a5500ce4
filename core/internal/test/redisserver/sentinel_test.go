package redisserver_test

import (
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/internal/test/redisserver"
)

func TestSentinelsMakeTheReplicaTheMaster(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	s := redisserver.WithSentinel(t)
	require.Len(t, s.SentinelAddrs(), 3)
	old, err := s.Master(ctx)
	require.NoError(t, err)
	replica, err := s.Replica(ctx)
	require.NoError(t, err)
	do(t, old, "SET", "k", "v")
	require.NoError(t, old.WaitReplicated(ctx))

	// When it is asked for.
	master, err := s.Failover(ctx)
	require.NoError(t, err)
	require.Same(t, replica, master)
	for _, n := range s.Sentinels() {
		assert.Equal(t, []any{"127.0.0.1", strconv.Itoa(master.Port())},
			do(t, n, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", redisserver.MasterName))
	}
	_, err = ask(old, "SET", "k", "w")
	require.ErrorContains(t, err, "READONLY")

	// When the master dies.
	master.Kill()
	promoted, err := s.WaitPromotion(ctx, master)
	require.NoError(t, err)
	require.Same(t, old, promoted)
	assert.Equal(t, "v", do(t, promoted, "GET", "k"))

	// And the dead comes back as the replica.
	require.NoError(t, master.Restart(ctx, redisserver.Empty))
	require.NoError(t, s.WaitHealthy(ctx))
	assert.Equal(t, "v", do(t, master, "GET", "k"))
}
