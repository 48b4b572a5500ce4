package redisstore

import (
	"context"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/internal/test/redisserver"
	"github.com/larderhq/larder/core/internal/test/tiertest"
	"github.com/larderhq/larder/core/internal/tier"
)

// trimmedTo keeps the cases on trimming short.
const trimmedTo = 500

func TestTheTierOnOneServer(t *testing.T) {
	t.Parallel()
	server := redisserver.Single(t, "--appendonly", "yes", "--appendfsync", "always")
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	defer client.Close()
	h := harness(client)
	h.Restart = func(t testing.TB) {
		require.NoError(t, server.Restart(t.Context(), redisserver.AsItWas))
	}
	h.Flush = func(t testing.TB) {
		_, err := server.Do(t.Context(), "FLUSHALL")
		require.NoError(t, err)
	}
	tiertest.Run(t, h)
}

func TestTheTierOnACluster(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("the suite once more")
	}
	cluster := redisserver.ThreeByThree(t)
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: cluster.Addrs()})
	defer client.Close()
	h := harness(client)
	// A partition's slot is that of every namespace, so migrations have tests of their own: see migration_test.go.
	tiertest.Run(t, h)
}

func harness(client redis.UniversalClient) tiertest.Harness {
	return tiertest.Harness{
		Open: func(t testing.TB, l tier.Layout) tier.Session {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			opened, err := New(client).Open(ctx, l)
			require.NoError(t, err)
			opened.(*session).logLength = trimmedTo
			return opened
		},
		Evict: func(t testing.TB, what tiertest.Stored) {
			n, p := newNames(what.Layout.Namespace, what.Layout.Version), what.Partition
			keys := map[tiertest.StoredKind][]string{
				tiertest.Entry:      {n.entry(p, n.version, what.Name)},
				tiertest.Lease:      {n.lease(p, n.version, what.Name)},
				tiertest.Generation: {n.generation(p, what.Name)},
				tiertest.Intents:    {n.keyIntents(p, what.Name), n.tagIntents(p, what.Name)},
				tiertest.Head:       {n.head(p)},
				tiertest.Log:        {n.log(p)},
				tiertest.Layout:     {n.layout()},
				tiertest.Queue:      {n.records(p)},
			}[what.Kind]
			require.NotEmpty(t, keys)
			for _, key := range keys {
				require.NoError(t, client.Del(t.Context(), key).Err())
			}
		},
		LogItems: trimmedTo,
	}
}
