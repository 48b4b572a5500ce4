package redisstore

import (
	"context"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/internal/test/redisserver"
	"github.com/larderhq/larder/core/internal/tier"
)

// withSentinel opens the tier over a failover client.
func withSentinel(t *testing.T) (*redisserver.Sentinel, *session) {
	t.Helper()
	sentinel := redisserver.WithSentinel(t)
	client := redis.NewFailoverClient(&redis.FailoverOptions{
		MasterName: redisserver.MasterName, SentinelAddrs: sentinel.SentinelAddrs(),
	})
	t.Cleanup(func() { _ = client.Close() })
	return sentinel, open(t, client, layout("v1"))
}

// promoted waits for heads of another server than before.
func promoted(t *testing.T, s *session, before tier.Head) tier.Head {
	t.Helper()
	var now tier.Head
	require.Eventually(t, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		all, err := s.Heads(ctx)
		if err != nil || all[0].Err != nil {
			return false
		}
		now = all[0]
		return now.Server != before.Server
	}, 15*time.Second, 50*time.Millisecond)
	return now
}

func TestAFailoverIsFollowed(t *testing.T) {
	t.Parallel()
	sentinel, s := withSentinel(t)
	ctx := within(t, 60*time.Second)
	master, err := sentinel.Master(ctx)
	require.NoError(t, err)
	before := heads(t, s)[0]
	require.NoError(t, master.WaitReplicated(ctx))
	cut := make(chan error, 1)
	ready := make(chan struct{})
	go func() { cut <- s.Hints(ctx, func() { close(ready) }, func(tier.Hint) {}) }()
	<-ready

	_, err = sentinel.Failover(ctx)
	require.NoError(t, err)

	now := promoted(t, s, before)
	require.Equal(t, before.Server, now.Confirmed)
	require.Equal(t, before.Era, now.Era)
	select {
	case err := <-cut:
		require.Error(t, err)
	case <-time.After(5 * time.Second):
		t.Fatal("hints of a server that is not master any more")
	}
}

// A master that Sentinel has replaced, and that returns unaware, accepts writes until
// Sentinel demotes it. None of the instances may use it meanwhile.
func TestADemotedMasterIsAbandoned(t *testing.T) {
	t.Parallel()
	sentinel, s := withSentinel(t)
	ctx := within(t, 60*time.Second)
	master, err := sentinel.Master(ctx)
	require.NoError(t, err)
	before := heads(t, s)[0]
	require.NoError(t, master.WaitReplicated(ctx))

	require.NoError(t, master.Stop())
	_, err = sentinel.WaitPromotion(ctx, master)
	require.NoError(t, err)
	now := promoted(t, s, before)
	require.NoError(t, master.Continue())
	for range 20 {
		require.Equal(t, now.Server, heads(t, s)[0].Server)
		time.Sleep(20 * time.Millisecond)
	}
	require.Eventually(t, func() bool {
		n := 0
		s.nodes.conns.mu.Lock()
		defer s.nodes.conns.mu.Unlock()
		for conn := range s.nodes.conns.open {
			if conn.RemoteAddr().String() == master.Addr() {
				n++
			}
		}
		return n == 0
	}, 5*time.Second, 20*time.Millisecond)
}
