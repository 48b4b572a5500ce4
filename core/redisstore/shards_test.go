package redisstore

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/internal/test/redisserver"
	"github.com/larderhq/larder/core/internal/tier"
)

// manyPartitions lie on all masters.
func manyPartitions() tier.Layout {
	l := layout("v1")
	l.Partitions = 16
	return l
}

// ear listens to a session, until it is closed or the test ends.
type ear struct {
	ready chan struct{} // something for each time
	ended chan error
	stop  context.CancelFunc

	mu    sync.Mutex
	heard map[string]int // items, by partition and value
	asked int            // of hearsAgain: what was heard before is not heard again
}

func listen(t *testing.T, s *session) *ear {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	e := &ear{ready: make(chan struct{}, 1000), ended: make(chan error, 1), stop: cancel, heard: make(map[string]int)}
	go func() {
		e.ended <- s.Hints(ctx, func() { e.ready <- struct{}{} }, func(h tier.Hint) {
			e.mu.Lock()
			defer e.mu.Unlock()
			e.heard[fmt.Sprint(h.Partition, " ", h.Item.Value)]++
		})
	}()
	t.Cleanup(func() { e.close(t) })
	select {
	case <-e.ready:
	case <-time.After(10 * time.Second):
		t.Fatal("it does not listen")
	}
	return e
}

func (e *ear) close(t *testing.T) {
	t.Helper()
	e.stop()
	select {
	case err := <-e.ended:
		require.Error(t, err)
		e.ended <- err
	case <-time.After(10 * time.Second):
		t.Error("hints do not end")
	}
}

func (e *ear) has(p int, value string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.heard[fmt.Sprint(p, " ", value)] > 0
}

// said publishes an item in a partition.
func said(t *testing.T, s *session, p int, value string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := s.Change(ctx, tier.Change{Partition: p, Items: []tier.Item{{Kind: tier.Pattern, Value: value}}})
	return err
}

// hears requires that an item of each partition is heard, each said once.
func (e *ear) hears(t *testing.T, s *session, value string) {
	t.Helper()
	for p := range int(s.partitions.Load()) {
		require.NoError(t, said(t, s, p, value))
	}
	for p := range int(s.partitions.Load()) {
		require.Eventually(t, func() bool { return e.has(p, value) }, 5*time.Second, time.Millisecond, "partition %d", p)
	}
}

// hearsAgain waits until messages of some partitions arrive.
func (e *ear) hearsAgain(t *testing.T, s *session, partitions []int) {
	t.Helper()
	begun := time.Now()
	for _, p := range partitions {
		for {
			e.asked++
			value := fmt.Sprint("again ", e.asked)
			if err := said(t, s, p, value); err == nil {
				for range 20 {
					if e.has(p, value) {
						break
					}
					time.Sleep(time.Millisecond)
				}
			}
			if e.has(p, value) {
				break
			}
			require.Less(t, time.Since(begun), 20*time.Second, "partition %d", p)
		}
	}
	t.Logf("heard again after %v", time.Since(begun).Round(time.Millisecond))
}

// stat returns a number that INFO commandstats has, 0 if none.
func stat(t *testing.T, node *redisserver.Server, command string) (calls int) {
	t.Helper()
	reply, err := node.Do(within(t, 5*time.Second), "INFO", "commandstats")
	require.NoError(t, err)
	_, _ = fmt.Sscanf(infoField(reply.(string), "cmdstat_"+command), "calls=%d,", &calls)
	return calls
}

// subscribers returns how many connections of a node are subscribed to anything.
func subscribers(t *testing.T, node *redisserver.Server) int {
	t.Helper()
	reply, err := node.Do(within(t, 5*time.Second), "CLIENT", "LIST", "TYPE", "PUBSUB")
	require.NoError(t, err)
	return strings.Count(reply.(string), "id=")
}

// on returns the partitions that a node is the master of.
func on(t *testing.T, cluster *redisserver.Cluster, s *session, node *redisserver.Server) (list []int) {
	t.Helper()
	for p := range int(s.partitions.Load()) {
		master, err := cluster.MasterOf(within(t, 5*time.Second), slotOf(fmt.Sprintf("%02x", p)))
		require.NoError(t, err)
		if master == node {
			list = append(list, p)
		}
	}
	return list
}

func TestInAClusterAHintGoesToItsShardAlone(t *testing.T) {
	t.Parallel()
	cluster, client := threeByThree(t)
	s := open(t, client, manyPartitions())
	other := open(t, client, manyPartitions())
	ears := []*ear{listen(t, s), listen(t, other)}

	for _, e := range ears {
		e.hears(t, s, "x")
		e.hears(t, other, "y")
	}
	published := 0
	for i, node := range cluster.Nodes() {
		published += stat(t, node, "spublish")
		require.Zero(t, stat(t, node, "publish"), "on the bus of the cluster")
		if i < 3 {
			require.Equal(t, len(ears), subscribers(t, node), "one connection to each master")
		} else {
			require.Zero(t, subscribers(t, node), "a replica")
		}
	}
	require.GreaterOrEqual(t, published, 4*16)

	t.Run("other programs publish to any node", func(t *testing.T) {
		for i, node := range cluster.Nodes() {
			_, err := node.Do(within(t, 5*time.Second), "PUBLISH", "app:invalidate", fmt.Sprint("tag:", i))
			require.NoError(t, err)
			tag := fmt.Sprint("t:", i)
			for _, e := range ears {
				require.Eventually(t, func() bool { return e.has(s.partitionOf(tag), tag) }, 5*time.Second, time.Millisecond)
				e.mu.Lock()
				require.Equal(t, 1, e.heard[fmt.Sprint(s.partitionOf(tag), " ", tag)], "one connection tells")
				e.mu.Unlock()
			}
		}
	})
	t.Run("invalidate.lua too", func(t *testing.T) {
		tag := "t:catalog"
		p := s.partitionOf(tag)
		require.NoError(t, client.Eval(within(t, 5*time.Second), Program(), []string{s.names.head(p)}, "tag", "catalog").Err())
		require.Eventually(t, func() bool { return ears[0].has(p, tag) }, 5*time.Second, time.Millisecond)
	})
	t.Run("when it ends nothing is left", func(t *testing.T) {
		for _, e := range ears {
			e.close(t)
		}
		for _, node := range cluster.Nodes() {
			require.Eventually(t, func() bool { return subscribers(t, node) == 0 }, 5*time.Second, 10*time.Millisecond)
		}
	})
}

func TestASlotThatMovesTakesItsHintsWithIt(t *testing.T) {
	t.Parallel()
	cluster, client := threeByThree(t)
	s := open(t, client, manyPartitions())
	e := listen(t, s)
	ctx := within(t, 60*time.Second)
	e.hears(t, s, "before")
	nodes := cluster.Nodes()
	slot := slotOf("00")
	source, err := cluster.MasterOf(ctx, slot)
	require.NoError(t, err)
	to := nodes[0]
	if to == source {
		to = nodes[1]
	}
	// There and back, between two looks at the layout: the source has forgotten its subscribers.
	require.NoError(t, cluster.Migrate(ctx, slot, to))
	require.NoError(t, cluster.Migrate(ctx, slot, source))
	e.hearsAgain(t, s, []int{0})
	for range 2 {
		for _, p := range []int{0, 1, 2} {
			slot := slotOf(fmt.Sprintf("%02x", p))
			source, err := cluster.MasterOf(ctx, slot)
			require.NoError(t, err)
			to := nodes[0]
			if to == source {
				to = nodes[1]
			}
			require.NoError(t, cluster.Migrate(ctx, slot, to))
		}
		e.hearsAgain(t, s, []int{0, 1, 2})
	}
	e.hears(t, s, "after")
	for i, node := range nodes {
		require.LessOrEqual(t, subscribers(t, node), max(0, min(1, 3-i)), "node %d", i)
	}
	select {
	case err := <-e.ended:
		t.Fatal("a slot that moves cuts nothing else: ", err)
	default:
	}
}

func TestAMasterThatFailsTakesItsPartitionsHintsAlone(t *testing.T) {
	t.Parallel()
	cluster, client := threeByThree(t)
	s := open(t, client, manyPartitions())
	e := listen(t, s)
	ctx := within(t, 90*time.Second)
	e.hears(t, s, "before")
	slot := slotOf("00")

	step := func(what string, fail func(old *redisserver.Server), mend func(old *redisserver.Server)) {
		old, err := cluster.MasterOf(ctx, slot)
		require.NoError(t, err)
		theirs := on(t, cluster, s, old)
		require.NotEmpty(t, theirs)
		require.Less(t, len(theirs), 16)
		require.NoError(t, old.WaitReplicated(ctx))
		fail(old)
		for p := range 16 {
			if !slices.Contains(theirs, p) {
				require.NoError(t, said(t, s, p, what))
				require.Eventually(t, func() bool { return e.has(p, what) }, 5*time.Second, time.Millisecond, "partition %d of another", p)
			}
		}
		_, err = cluster.WaitPromotion(ctx, slot, old)
		require.NoError(t, err)
		e.hearsAgain(t, s, theirs)
		mend(old)
		require.NoError(t, cluster.WaitHealthy(ctx))
		e.hears(t, s, what+" is over")
		for _, node := range cluster.Nodes() {
			require.Eventually(t, func() bool { return subscribers(t, node) <= 1 }, 5*time.Second, 10*time.Millisecond)
		}
	}
	step("killed",
		func(old *redisserver.Server) { old.Kill() },
		func(old *redisserver.Server) { require.NoError(t, old.Restart(ctx, redisserver.AsItWas)) })
	step("stopped",
		func(old *redisserver.Server) { require.NoError(t, old.Stop()) },
		func(old *redisserver.Server) { require.NoError(t, old.Continue()) })
	old, err := cluster.MasterOf(ctx, slot)
	require.NoError(t, err)
	theirs := on(t, cluster, s, old)
	_, err = cluster.Failover(ctx, slot)
	require.NoError(t, err)
	e.hearsAgain(t, s, theirs)
	e.hears(t, s, "handed over")
	require.Empty(t, e.ended)
}

// Servers before 7.0 know neither SPUBLISH nor SSUBSCRIBE.
func TestAClusterWithoutShardedPubSubTellsAllNodes(t *testing.T) {
	t.Parallel()
	ctx := within(t, 60*time.Second)
	cluster, err := redisserver.StartCluster(ctx, 3, 0, redisserver.Options{Args: []string{
		"--rename-command", "SPUBLISH", "", "--rename-command", "SSUBSCRIBE", "",
	}})
	require.NoError(t, err)
	defer cluster.Close()
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: cluster.Addrs()})
	defer client.Close()
	s := open(t, client, manyPartitions())
	e := listen(t, s)
	e.hears(t, s, "x")
	for _, node := range cluster.Nodes() {
		require.Equal(t, 1, subscribers(t, node))
	}
}

func TestAUserWithoutShardedPubSubHearsHints(t *testing.T) {
	t.Parallel()
	cluster := redisserver.ThreeByThree(t)
	for _, node := range cluster.Nodes() {
		restricted(t, node, append(ACL("app"), "-spublish", "-ssubscribe"))
	}
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: cluster.Addrs(), Username: "larder", Password: "secret"})
	defer client.Close()
	s := open(t, client, manyPartitions())
	listen(t, s).hears(t, s, "x")
}

func TestAConnectionThatIsCutComesBack(t *testing.T) {
	t.Parallel()
	cluster, client := threeByThree(t)
	s := open(t, client, manyPartitions())
	e := listen(t, s)
	e.hears(t, s, "before")
	for range 3 {
		for _, node := range cluster.Nodes()[:3] {
			_, err := node.CutClients(within(t, 5*time.Second), redisserver.PubSubClients)
			require.NoError(t, err)
			e.hearsAgain(t, s, on(t, cluster, s, node))
		}
	}
	e.hears(t, s, "after")
	tag := "t:x"
	require.Eventually(t, func() bool { // other programs too
		_, err := cluster.Nodes()[0].Do(within(t, 5*time.Second), "PUBLISH", "app:invalidate", "tag:x")
		return err == nil && e.has(s.partitionOf(tag), tag)
	}, 5*time.Second, 10*time.Millisecond)
}

// While servers are upgraded, some have sharded pub/sub and others do not. Each server
// is asked for itself, by publishers and by subscribers.
func TestASlotThatMovesToAServerWithShardedPubSub(t *testing.T) {
	t.Parallel()
	cluster := redisserver.ThreeByThree(t)
	for i, node := range cluster.Nodes() {
		rules := ACL("app")
		if i == 0 {
			rules = append(rules, "-spublish", "-ssubscribe")
		}
		restricted(t, node, rules)
	}
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: cluster.Addrs(), Username: "larder", Password: "secret"})
	defer client.Close()
	s := open(t, client, manyPartitions())
	e := listen(t, s)
	e.hears(t, s, "before")
	old := cluster.Nodes()[0]
	p := on(t, cluster, s, old)[0]
	for _, to := range []*redisserver.Server{cluster.Nodes()[1], old} {
		// The old server does not say that the channel has left it.
		require.NoError(t, cluster.Migrate(within(t, 20*time.Second), slotOf(fmt.Sprintf("%02x", p)), to))
		e.hearsAgain(t, s, []int{p})
		e.hears(t, s, "at "+to.Addr())
	}
}
