package redisstore

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/internal/test/redisserver"
	"github.com/larderhq/larder/core/internal/tier"
)

func threeByThree(t *testing.T) (*redisserver.Cluster, *redis.ClusterClient) {
	t.Helper()
	cluster := redisserver.ThreeByThree(t)
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: cluster.Addrs()})
	t.Cleanup(func() { _ = client.Close() })
	return cluster, client
}

// migrate begins to move the slot of partition 0.
func migrate(t *testing.T, cluster *redisserver.Cluster, s *session) *redisserver.Migration {
	t.Helper()
	ctx := within(t, 10*time.Second)
	slot, err := cluster.SlotOf(ctx, s.names.head(0))
	require.NoError(t, err)
	source, err := cluster.MasterOf(ctx, slot)
	require.NoError(t, err)
	to := cluster.Nodes()[0]
	if to == source {
		to = cluster.Nodes()[1]
	}
	m, err := cluster.BeginMigration(ctx, slot, to)
	require.NoError(t, err)
	return m
}

func TestASlotMigration(t *testing.T) {
	t.Parallel()
	cluster, client := threeByThree(t)
	s := open(t, client, layout("v1"))
	ctx := within(t, 60*time.Second)
	in0 := func(name string) string {
		for s.partitionOf(name) != 0 {
			name += "x"
		}
		return name
	}
	key, tag := in0("k"), in0("t:")
	fill(t, s, key, "x", tag)
	change := func(kind tier.Kind, value string) error {
		_, err := s.Change(ctx, tier.Change{Items: []tier.Item{{Kind: kind, Value: value}}})
		return err
	}
	require.NoError(t, change(tier.Pattern, "nothing"))
	at := heads(t, s)[0]

	refused := func() {
		t.Helper()
		require.ErrorIs(t, change(tier.Key, key), tier.ErrMigrating)
		require.ErrorIs(t, change(tier.Tag, tag), tier.ErrMigrating)
		now := heads(t, s)[0]
		require.Equal(t, at.Position, now.Position, "nothing was changed")
		require.Equal(t, at.Era, now.Era)
	}
	era := func() {
		t.Helper()
		require.NoError(t, s.NewEra(ctx, 0, "", true))
		now := heads(t, s)[0]
		require.NotEqual(t, at.Era, now.Era)
		at = now
	}
	unsure := func() {
		t.Helper()
		did, err := s.Scan(ctx, scanOf("nothing"))
		require.NoError(t, err)
		require.False(t, did.Sure)
	}
	did, err := s.Scan(ctx, scanOf("nothing"))
	require.NoError(t, err)
	require.True(t, did.Sure)

	m := migrate(t, cluster, s)
	refused() // not all of its keys are there, and they might be elsewhere
	era()
	unsure()
	moved, err := m.MoveKeys(ctx, 1)
	require.NoError(t, err)
	require.Equal(t, 1, moved)
	refused()
	era()
	for moved > 0 { // the head too is elsewhere now, and the slot map says that it is here
		moved, err = m.MoveKeys(ctx, 1)
		require.NoError(t, err)
	}
	refused()
	era()
	unsure()
	_, generations, err := s.Get(ctx, key, []string{tag})
	require.NoError(t, err)
	require.NotEmpty(t, generations[0])
	require.NoError(t, m.Finish(ctx))
	require.Equal(t, at.Era, heads(t, s)[0].Era)
	require.NoError(t, change(tier.Key, key))
	require.NoError(t, change(tier.Tag, tag))
	did, err = s.Scan(ctx, scanOf("nothing"))
	require.NoError(t, err)
	require.True(t, did.Sure)
}

func TestAScanDuringASlotMigrationRemovesEntriesOnBothSides(t *testing.T) {
	t.Parallel()
	cluster, client := threeByThree(t)
	s := open(t, client, layout("v1"))
	ctx := within(t, 60*time.Second)
	var names []string
	for i := 0; len(names) < 80; i++ {
		if name := fmt.Sprint("k", i); s.partitionOf(name) == 0 {
			fill(t, s, name, "x")
			names = append(names, name)
		}
	}
	m := migrate(t, cluster, s)
	_, err := m.MoveKeys(ctx, 40)
	require.NoError(t, err)
	var keys []string // some are here, and some are there
	for _, name := range names[20:60] {
		keys = append(keys, s.names.entry(0, "v1", name))
	}
	removed, err := s.unlink(ctx, keys)
	require.NoError(t, err)
	require.EqualValues(t, len(keys), removed)
	did, err := s.Scan(ctx, scanOf("k*"))
	require.NoError(t, err)
	require.EqualValues(t, len(names)-len(keys), did.Removed)
	require.False(t, did.Sure)
	for _, name := range names {
		e, _, err := s.Get(ctx, name, nil)
		require.NoError(t, err)
		require.Empty(t, e.ID)
	}
	require.NoError(t, m.Finish(ctx))
}

// In a scan that lasts, a slot may leave and come back. Its keys may have been on each
// server while the scan was at another place there.
func TestASlotThatWasAwayIsNotTakenForOneThatStayed(t *testing.T) {
	t.Parallel()
	cluster, client := threeByThree(t)
	want := layout("v1")
	want.Partitions = 1
	s := open(t, client, want)
	ctx := within(t, 60*time.Second)
	fill(t, s, "k", "x")
	did, err := s.Scan(ctx, scanOf("nothing"))
	require.NoError(t, err)
	require.True(t, did.Sure)
	require.Equal(t, 1, did.Servers, "the others have no partition")
	require.Positive(t, did.Keys)

	before, err := s.topology(ctx)
	require.NoError(t, err)
	slot, err := cluster.SlotOf(ctx, s.names.head(0))
	require.NoError(t, err)
	home, err := cluster.MasterOf(ctx, slot)
	require.NoError(t, err)
	away := cluster.Nodes()[0]
	if away == home {
		away = cluster.Nodes()[1]
	}
	require.NoError(t, cluster.Migrate(ctx, slot, away))
	require.NoError(t, cluster.Migrate(ctx, slot, home))
	after, err := s.topology(ctx)
	require.NoError(t, err)
	require.True(t, after.stable)
	require.NotEqual(t, before.of, after.of)
}

func TestSlotsAreThoseOfTheServer(t *testing.T) {
	t.Parallel()
	_, client := single(t, "--cluster-enabled", "yes")
	n := newNames("app", "v1")
	for p := range tier.MaxPartitions {
		slot, err := client.ClusterKeySlot(t.Context(), n.head(p)).Result()
		require.NoError(t, err)
		require.EqualValues(t, slot, slotOf(fmt.Sprintf("%02x", p)))
	}
	_, err := New(client).Open(within(t, time.Second), layout("v1"))
	require.ErrorIs(t, err, tier.ErrUnusable, "a cluster needs its own client")
}

func TestAFailoverOfOneMaster(t *testing.T) {
	t.Parallel()
	cluster, client := threeByThree(t)
	s := open(t, client, layout("v1"))
	ctx := within(t, 60*time.Second)
	slot, err := cluster.SlotOf(ctx, s.names.head(0))
	require.NoError(t, err)
	old, err := cluster.MasterOf(ctx, slot)
	require.NoError(t, err)
	before := heads(t, s)
	require.NoError(t, old.WaitReplicated(ctx))
	mine := make(map[int]bool)
	for p, h := range before {
		mine[p] = h.Server == before[0].Server
	}
	require.Contains(t, mine, 0)

	require.NoError(t, old.Stop())
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	during, err := s.Heads(short)
	require.NoError(t, err)
	for p, h := range during {
		require.Equal(t, mine[p], h.Err != nil, "partition %d: %v", p, h.Err)
	}
	_, err = cluster.WaitPromotion(ctx, slot, old)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		defer cancel()
		during, err = s.Heads(short)
		return err == nil && during[0].Err == nil
	}, 10*time.Second, 50*time.Millisecond)
	require.NotEqual(t, before[0].Server, during[0].Server)
	require.Equal(t, before[0].Server, during[0].Confirmed)
	require.Equal(t, before[0].Era, during[0].Era)
	require.NoError(t, s.NewEra(ctx, 0, during[0].Confirmed, false))
	now := heads(t, s)[0]
	require.NotEqual(t, before[0].Era, now.Era)
	require.Equal(t, now.Server, now.Confirmed)
	require.NoError(t, old.Continue())
}
