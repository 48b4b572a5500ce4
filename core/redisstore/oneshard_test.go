package redisstore_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/test/redisserver"
	"github.com/larderhq/larder/core/internal/tier"
	"github.com/larderhq/larder/core/redisstore"
)

// onCluster is one instance of an app.
func onCluster(t *testing.T, cluster *redisserver.Cluster, change ...func(*core.Options)) *instance {
	t.Helper()
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: cluster.Addrs()})
	o := core.Options{
		Remote:       redisstore.New(client),
		MaxStaleness: 4 * time.Second, // rounds of the watchdog are not missed on a busy machine
		RemoteBudget: time.Second,     // nor are replies
		Classes:      core.Classes{"c": {TTL: time.Hour, ReplicaLag: time.Millisecond}},
		Logger:       slog.New(slog.DiscardHandler),
	}
	for _, c := range change {
		c(&o)
	}
	cache, err := core.New(o)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, cache.Close())
		require.NoError(t, client.Close())
	})
	m, err := core.NewMap(cache, core.MapOptions[int, string]{Class: "c", Prefix: "item"})
	require.NoError(t, err)
	return &instance{m, cache}
}

// outage is a cluster of which one shard, master and replica, is stopped.
type outage struct {
	*redisserver.Cluster
	stopped       []*redisserver.Server
	served, other []int // ids that depend on nothing of the shard; that do
}

// prepareOutage chooses a shard that has not the layout, and sorts ids.
func prepareOutage(t *testing.T) *outage {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	// Otherwise Redis itself stops the rest of the cluster.
	cluster, err := redisserver.StartCluster(ctx, 3, 1, redisserver.Options{Args: []string{"--cluster-require-full-coverage", "no"}})
	require.NoError(t, err)
	t.Cleanup(func() { _ = cluster.Close() })
	o := &outage{Cluster: cluster}
	master := func(key string) *redisserver.Server {
		slot, err := cluster.SlotOf(ctx, key)
		require.NoError(t, err)
		m, err := cluster.MasterOf(ctx, slot)
		require.NoError(t, err)
		return m
	}
	var of [tier.DefaultPartitions]*redisserver.Server
	for p := range of {
		of[p] = master(fmt.Sprintf("{%02x}", p))
	}
	layout := master("larder:layout")
	at := slices.IndexFunc(of[:], func(m *redisserver.Server) bool { return m != layout })
	replica, err := cluster.ReplicaOf(ctx, of[at])
	require.NoError(t, err)
	o.stopped = []*redisserver.Server{replica, of[at]} // the replica first, so that there is no failover
	for id := range 200 {
		name := "item:" + strconv.Itoa(id)
		if of[tier.Partition(name, len(of))] == of[at] || of[tier.Partition("t:"+name, len(of))] == of[at] {
			o.other = append(o.other, id)
		} else {
			o.served = append(o.served, id)
		}
	}
	require.NotEmpty(t, o.served)
	require.NotEmpty(t, o.other)
	return o
}

func (o *outage) begin(t *testing.T) {
	t.Helper()
	for _, s := range o.stopped {
		require.NoError(t, s.Stop())
	}
}

func (o *outage) end(t *testing.T) {
	t.Helper()
	for _, s := range o.stopped {
		require.NoError(t, s.Continue())
	}
}

// until waits for a condition of the real world.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	require.Eventually(t, ok, 30*time.Second, 20*time.Millisecond, what)
}

func TestAShardThatIsDownTakesOnlyItsPartitions(t *testing.T) {
	t.Parallel()
	o := prepareOutage(t)
	small := func(o *core.Options) { o.MaxBytes = 64 << 10 } // most is asked of Redis
	writer, reader, remoteReader := onCluster(t, o.Cluster), onCluster(t, o.Cluster), onCluster(t, o.Cluster, small)
	first := strings.Repeat("first ", 1000)
	ids := append(slices.Clone(o.served), o.other...)
	until(t, "hits everywhere", func() bool {
		loads := 0
		for _, in := range []*instance{writer, reader, remoteReader} {
			for _, id := range ids {
				if in.get(t, id, first) {
					loads++
				}
			}
		}
		return loads == 0
	})

	o.begin(t)
	// From the moment on, and until the partitions of the shard are known to be gone.
	var wg sync.WaitGroup
	for range 8 {
		for _, in := range []*instance{reader, remoteReader} {
			wg.Go(func() {
				for begun := time.Now(); time.Since(begun) < 8*time.Second; {
					for i := range ids {
						if i < len(o.served) && in.get(t, o.served[i], "again") {
							t.Errorf("%d is a hit no more, after %v (remote: %v)", o.served[i], time.Since(begun), in == remoteReader)
							return
						}
						if i < len(o.other) {
							in.get(t, o.other[i], first)
						}
						time.Sleep(time.Millisecond)
					}
				}
			})
		}
	}
	wg.Wait()
	require.True(t, reader.get(t, o.other[0], first), "what was of the shard is loaded")

	t.Run("writes of others are confirmed", func(t *testing.T) {
		id := o.served[0]
		require.NoError(t, writer.Invalidate(t.Context(), id))
		require.Zero(t, writer.cache.Stats().Pending)
		require.NoError(t, writer.cache.InvalidateEverywhere(t.Context(), core.Key("item:"+strconv.Itoa(o.served[1]))))
		for _, in := range []*instance{reader, remoteReader} {
			until(t, "the new value", func() bool {
				v, err := in.Get(t.Context(), id, func(context.Context, int) (string, error) { return "second", nil })
				require.NoError(t, err)
				return v == "second"
			})
		}
	})
	t.Run("a further instance has hits", func(t *testing.T) {
		begun := time.Now()
		further := onCluster(t, o.Cluster)
		t.Logf("New took %v", time.Since(begun).Round(time.Millisecond))
		until(t, "hits", func() bool {
			return !slices.ContainsFunc(o.served[2:], func(id int) bool { return further.get(t, id, first) })
		})
		t.Logf("hits after %v", time.Since(begun).Round(time.Millisecond))
		require.NotZero(t, further.cache.Stats().RemoteHits)
	})
	t.Run("what concerns the shard is pending until it is back", func(t *testing.T) {
		require.ErrorIs(t, writer.Invalidate(t.Context(), o.other[0]), core.ErrPending)
		require.False(t, writer.get(t, o.served[2], "x"), "and nothing else is")
		for _, target := range []core.Target{core.All(), core.Pattern("item:*")} {
			alone := onCluster(t, o.Cluster)
			require.ErrorIs(t, alone.cache.InvalidateEverywhere(t.Context(), target), core.ErrPending)
			require.NotZero(t, alone.cache.Stats().Pending)
		}
	})
	o.end(t)
	until(t, "nothing is pending", func() bool { return writer.cache.Stats().Pending == 0 })
	until(t, "hits of all", func() bool {
		return !slices.ContainsFunc(ids, func(id int) bool { return reader.get(t, id, "third") })
	})
	v, err := reader.Get(t.Context(), o.other[0], func(context.Context, int) (string, error) { return "", nil })
	require.NoError(t, err)
	require.Equal(t, "third", v)
}
