package redisserver_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/internal/test/redisserver"
)

func TestAClusterForms(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	c := redisserver.ThreeByThree(t)
	require.Len(t, c.Nodes(), 6)
	require.Len(t, c.Addrs(), 6)
	seen := map[*redisserver.Server]bool{}
	for slot := 0; slot < redisserver.Slots; slot += redisserver.Slots / 3 {
		master, err := c.MasterOf(ctx, min(slot, redisserver.Slots-1))
		require.NoError(t, err)
		replica, err := c.ReplicaOf(ctx, master)
		require.NoError(t, err)
		seen[master], seen[replica] = true, true
	}
	require.Len(t, seen, 6)

	slot, err := c.SlotOf(ctx, "foo")
	require.NoError(t, err)
	assert.Equal(t, 12182, slot)
	master, err := c.MasterOf(ctx, slot)
	require.NoError(t, err)
	do(t, master, "SET", "foo", "bar")
	assert.Equal(t, "bar", do(t, master, "GET", "foo"))
}

func TestFailoverMakesAReplicaTheMaster(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	c := redisserver.ThreeByThree(t)
	slot, err := c.SlotOf(ctx, "k")
	require.NoError(t, err)
	old, err := c.MasterOf(ctx, slot)
	require.NoError(t, err)
	do(t, old, "SET", "k", "v")

	// When it is asked for.
	master, err := c.Failover(ctx, slot)
	require.NoError(t, err)
	require.NotSame(t, old, master)
	assert.Equal(t, "v", do(t, master, "GET", "k"))
	_, err = ask(old, "GET", "k")
	require.ErrorContains(t, err, fmt.Sprintf("MOVED %d %s", slot, master.Addr()))
	replica, err := c.ReplicaOf(ctx, master)
	require.NoError(t, err)
	require.Same(t, old, replica)

	// When the master dies.
	do(t, master, "SET", "k", "w")
	require.NoError(t, master.WaitReplicated(ctx))
	killed, err := c.KillMaster(ctx, slot)
	require.NoError(t, err)
	require.Same(t, master, killed)
	promoted, err := c.WaitPromotion(ctx, slot, killed)
	require.NoError(t, err)
	require.Same(t, old, promoted)
	assert.Equal(t, "w", do(t, promoted, "GET", "k"))

	// And the dead comes back as the replica of the new master.
	require.NoError(t, killed.Restart(ctx, redisserver.Empty))
	require.NoError(t, c.WaitHealthy(ctx))
	replica, err = c.ReplicaOf(ctx, promoted)
	require.NoError(t, err)
	require.Same(t, killed, replica)

	// A frozen master is as good as dead; when it continues, it learns that it is not the master any more.
	require.NoError(t, promoted.Stop())
	after, err := c.WaitPromotion(ctx, slot, promoted)
	require.NoError(t, err)
	require.Same(t, killed, after)
	require.NoError(t, promoted.Continue())
	require.NoError(t, c.WaitHealthy(ctx))
	replica, err = c.ReplicaOf(ctx, after)
	require.NoError(t, err)
	require.Same(t, promoted, replica)
}

func TestAMigrationInItsStages(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	c := redisserver.ThreeByThree(t)
	slot, err := c.SlotOf(ctx, "{t}")
	require.NoError(t, err)
	source, err := c.MasterOf(ctx, slot)
	require.NoError(t, err)
	target, err := c.MasterOf(ctx, (slot+redisserver.Slots/2)%redisserver.Slots)
	require.NoError(t, err)
	require.NotSame(t, source, target)
	do(t, source, "MSET", "{t}1", "1", "{t}2", "2", "{t}3", "3")

	// Given a slot that is on its way with one of its keys,
	m, err := c.BeginMigration(ctx, slot, target)
	require.NoError(t, err)
	require.Same(t, source, m.Source)
	moved, err := m.MoveKeys(ctx, 1)
	require.NoError(t, err)
	require.Equal(t, 1, moved)

	// then the source redirects requests for missing keys to the target,
	asks := fmt.Sprintf("ASK %d %s", slot, target.Addr())
	_, err = ask(source, "GET", "{t}none")
	require.ErrorContains(t, err, asks)
	there, gone := 0, 0
	for _, key := range []string{"{t}1", "{t}2", "{t}3"} {
		if _, err := ask(source, "GET", key); err == nil {
			there++
		} else {
			require.ErrorContains(t, err, asks)
			gone++
		}
	}
	assert.Equal(t, 2, there)
	assert.Equal(t, 1, gone)
	// which serves clients that send ASKING,
	asking := open(t, target.Addr())
	asking.send("GET {t}none")
	asking.wants(fmt.Sprintf("-MOVED %d %s", slot, source.Addr()))
	asking.send("ASKING")
	asking.wants("+OK")
	asking.send("GET {t}none")
	asking.wants("$-1")
	// and neither node has all keys.
	_, err = ask(source, "MGET", "{t}1", "{t}2", "{t}3")
	require.ErrorContains(t, err, "TRYAGAIN")

	// When it is finished, the target has it all, and all nodes say so.
	require.NoError(t, m.Finish(ctx))
	assert.Equal(t, []any{"1", "2", "3"}, do(t, target, "MGET", "{t}1", "{t}2", "{t}3"))
	for _, s := range c.Nodes() {
		if s != target {
			_, err = ask(s, "GET", "{t}1")
			require.ErrorContains(t, err, fmt.Sprintf("MOVED %d %s", slot, target.Addr()))
		}
	}

	// And back, at once.
	require.NoError(t, c.Migrate(ctx, slot, source))
	assert.Equal(t, []any{"1", "2", "3"}, do(t, source, "MGET", "{t}1", "{t}2", "{t}3"))
}
