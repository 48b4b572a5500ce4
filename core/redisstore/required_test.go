package redisstore_test

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/test/redisserver"
	"github.com/larderhq/larder/core/redisstore"
)

// startup is the time for which New waits for a tier that is required.
const startup = 5 * time.Second

// required makes a cache that requires the tier at an address, and returns New's error
// and how long New took.
func required(t *testing.T, addr string) (time.Duration, error) {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: addr})
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	began := time.Now()
	cache, err := core.New(core.Options{
		Remote: redisstore.New(client), RequireRemote: true, MaxStaleness: 200 * time.Millisecond,
		Classes: core.Classes{"c": {TTL: time.Hour}},
	})
	took := time.Since(began)
	if err == nil {
		require.NoError(t, cache.Close())
	}
	return took, err
}

func TestRequireRemoteWaitsForAServerWhoseFirstRepliesAreLate(t *testing.T) {
	t.Parallel()
	// Given a server whose round trips take longer than a round of the watchdog (90 ms
	// at this MaxStaleness) until 2 s have passed.
	proxy := proxied(t, redisserver.Single(t).Addr())
	proxy.Delay(60 * time.Millisecond)
	defer time.AfterFunc(2*time.Second, func() { proxy.Delay(0) }).Stop()

	took, err := required(t, proxy.Addr())

	require.NoError(t, err)
	require.Greater(t, took, 1900*time.Millisecond)
}

func TestRequireRemoteWaitsForAServerThatStarts(t *testing.T) {
	t.Parallel()
	proxy := proxied(t, redisserver.Single(t).Addr())
	require.NoError(t, proxy.Refuse(true))
	defer time.AfterFunc(time.Second, func() { _ = proxy.Refuse(false) }).Stop()

	took, err := required(t, proxy.Addr())

	require.NoError(t, err)
	require.Greater(t, took, 900*time.Millisecond)
}

func TestRequireRemoteFailsWithTheReasonAfterItsLimit(t *testing.T) {
	t.Parallel()
	proxy := proxied(t, redisserver.Single(t).Addr())
	require.NoError(t, proxy.Refuse(true))

	took, err := required(t, proxy.Addr())

	require.ErrorContains(t, err, "not ready within 5s")
	require.ErrorContains(t, err, "connection refused")
	require.NotErrorIs(t, err, core.ErrUnusable)
	require.GreaterOrEqual(t, took, startup)
}

func proxied(t *testing.T, addr string) *redisserver.Proxy {
	t.Helper()
	proxy, err := redisserver.StartProxy(addr)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, proxy.Close()) })
	return proxy
}
