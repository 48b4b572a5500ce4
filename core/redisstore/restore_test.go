package redisstore

import (
	"context"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/internal/test/redisserver"
)

func TestACallWithoutTheTimeToConnectFindsAConnectionLater(t *testing.T) {
	t.Parallel()
	const (
		trip   = 200 * time.Millisecond
		budget = trip + trip/2 // to connect takes twice the round trip
	)
	proxy, err := redisserver.StartProxy(redisserver.Single(t).Addr())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, proxy.Close()) })
	proxy.Delay(trip / 2)
	for name, send := range map[string]func(*nodes, context.Context) error{
		"a command": func(n *nodes, ctx context.Context) error {
			return n.process(ctx, n.all, redis.NewStringCmd(ctx, "get", "k"))
		},
		"a pipeline": func(n *nodes, ctx context.Context) error {
			cmds := []redis.Cmder{redis.NewStringCmd(ctx, "get", "k"), redis.NewStringCmd(ctx, "get", "l")}
			n.pipeline(ctx, n.all, cmds)
			return cmds[1].Err()
		},
	} {
		t.Run(name, func(t *testing.T) {
			client := redis.NewClient(&redis.Options{Addr: proxy.Addr()})
			defer client.Close()
			n, err := derive(client)
			require.NoError(t, err)
			defer n.close()
			attempt := func() error {
				ctx, cancel := context.WithTimeout(t.Context(), budget)
				defer cancel()
				return send(n, ctx)
			}
			require.True(t, cutOff(attempt()))
			require.Eventually(t, func() bool { return n.all.PoolStats().IdleConns == maxRestoring }, 10*time.Second, 10*time.Millisecond)
			require.ErrorIs(t, attempt(), redis.Nil)
		})
	}
}

func TestAServerThatHangsHasFewConnectionsRestored(t *testing.T) {
	t.Parallel()
	proxy, err := redisserver.StartProxy(redisserver.Single(t).Addr())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, proxy.Close()) })
	proxy.Hold(true)
	for size, most := range map[int]int{1: 1, 7: 1, 8: 2, 100: maxRestoring} {
		client := redis.NewClient(&redis.Options{Addr: proxy.Addr(), PoolSize: size})
		n, err := derive(client)
		require.NoError(t, err)
		for range 20 {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
			require.Error(t, n.process(ctx, n.all, redis.NewStringCmd(ctx, "get", "k")))
			cancel()
			n.restoring.Lock()
			require.LessOrEqual(t, n.made, most)
			n.restoring.Unlock()
		}
		begun := time.Now()
		require.NoError(t, n.close())
		require.Less(t, time.Since(begun), time.Second, "nobody waits for what is restored")
		require.NoError(t, client.Close())
	}
}
