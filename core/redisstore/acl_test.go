package redisstore

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/internal/test/redisserver"
	"github.com/larderhq/larder/core/internal/test/tiertest"
	"github.com/larderhq/larder/core/internal/tier"
)

// restricted makes a user with the rules of the namespaces on a server.
func restricted(t *testing.T, server *redisserver.Server, rules []string) {
	t.Helper()
	for _, line := range [][]string{
		append([]string{"ACL", "SETUSER", "larder", "on", ">secret"}, rules...),
		{"ACL", "LOG", "RESET"},
	} {
		_, err := server.Do(within(t, 5*time.Second), line...)
		require.NoError(t, err)
	}
}

// denied returns the commands that the user was refused.
func denied(t *testing.T, server *redisserver.Server) (objects []string) {
	t.Helper()
	reply, err := server.Do(within(t, 5*time.Second), "ACL", "LOG", "100")
	require.NoError(t, err)
	for _, entry := range reply.([]any) {
		fields := entry.([]any)
		for i := 0; i+1 < len(fields); i += 2 {
			if fields[i] == "object" {
				objects = append(objects, fields[i+1].(string))
			}
		}
	}
	return objects
}

func TestAUserWithJustTheRulesCanDoAll(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("the suite once more")
	}
	server := redisserver.Single(t)
	rules := ACL("*") // the suite has a namespace of its own for each case
	restricted(t, server, rules)
	client := redis.NewClient(&redis.Options{Addr: server.Addr(), Username: "larder", Password: "secret"})
	defer client.Close()
	h := harness(client)
	h.Evict = nil
	t.Run("suite", func(t *testing.T) { tiertest.Run(t, h) })
	require.Empty(t, slices.Compact(slices.Sorted(slices.Values(denied(t, server)))))
}

// useQueue calls every method of a queue.
func useQueue(t *testing.T, s *session, key string) {
	t.Helper()
	ctx := within(t, 10*time.Second)
	require.NoError(t, s.Durable(ctx))
	p := s.partitionOfKey(key)
	change := func() int64 {
		done, err := s.Enqueue(ctx, tier.Enqueue{
			Partition: p, Queue: "q", Limit: 10, Lag: time.Second, Changes: []tier.QueueChange{{Key: key, Payload: []byte("x")}},
		})
		require.NoError(t, err)
		return done[0].Version
	}
	settle := func(of tier.Settled) {
		_, err := s.Claim(ctx, tier.Claim{Partition: p, Queue: "q", Worker: "w", Max: 10, Lease: time.Minute})
		require.NoError(t, err)
		of.Key = key
		done, err := s.Settle(ctx, tier.Settle{Partition: p, Queue: "q", Worker: "w", Records: []tier.Settled{of}, Release: true})
		require.NoError(t, err)
		require.True(t, done.Held)
	}
	v := change()
	settle(tier.Settled{Version: v, Retry: time.Millisecond})
	settle(tier.Settled{Version: v, Dead: "why"})
	change()
	settle(tier.Settled{Version: change(), Dead: "why"})
	letters, err := s.DeadLetters(ctx, p, "q", "", 10)
	require.NoError(t, err)
	ok, err := s.Replay(ctx, p, "q", letters[0].ID)
	require.NoError(t, err)
	require.True(t, ok)
	states, err := s.States(ctx, "q")
	require.NoError(t, err)
	require.Positive(t, states[p].Depth)
}

func TestAUserWithJustTheRulesCanDoNothingElse(t *testing.T) {
	server := redisserver.Single(t)
	restricted(t, server, ACL("app"))
	client := redis.NewClient(&redis.Options{Addr: server.Addr(), Username: "larder", Password: "secret"})
	defer client.Close()
	s := open(t, client, layout("v1"))
	fill(t, s, "user:42", "x", "t:user")
	invalidate(t, s, tier.Tag, "t:user")
	did, err := s.Scan(within(t, 5*time.Second), scanOf("user:*"))
	require.NoError(t, err)
	require.True(t, did.Sure)
	useQueue(t, s, "user:43")
	require.Empty(t, denied(t, server))

	for _, line := range [][]any{
		{"GET", "other:key"}, {"SET", "other:key", "x"}, {"UNLINK", "other:key"}, {"PUBLISH", "other:channel", "x"},
		{"SPUBLISH", "other:channel", "x"}, {"PUBSUB", "CHANNELS"}, {"FLUSHALL"}, {"FLUSHDB"}, {"KEYS", "*"},
		{"CONFIG", "GET", "*"}, {"DEL", "app:{00}:head"}, {"MONITOR"},
	} {
		err := client.Do(context.Background(), line...).Err()
		require.ErrorContains(t, err, "NOPERM", "%v", line)
	}
	err = client.Eval(context.Background(), "return redis.call('GET', 'other:key')", nil).Err()
	require.Regexp(t, "can't access at least one of the keys|No permissions to access a key", err.Error(), "in a script")
}

func TestAUserOfAClusterWithJustTheRulesCanDoAll(t *testing.T) {
	t.Parallel()
	cluster := redisserver.ThreeByThree(t)
	for _, node := range cluster.Nodes() {
		restricted(t, node, ACL("app"))
	}
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: cluster.Addrs(), Username: "larder", Password: "secret"})
	defer client.Close()
	s := open(t, client, layout("v1"))
	listen(t, s).hears(t, s, "hint")
	for _, key := range []string{"a", "b", "c", "d", "e"} {
		fill(t, s, key, "x", "t:"+key)
		invalidate(t, s, tier.Tag, "t:"+key)
		useQueue(t, s, key)
	}
	_, err := s.Scan(within(t, 5*time.Second), scanOf("*"))
	require.NoError(t, err)
	heads(t, s)
	for _, node := range cluster.Nodes() {
		require.Empty(t, denied(t, node))
	}
}

// A right that is withdrawn must not make a script answer as if nothing were there.
func TestAReadThatIsRefusedInAScriptIsNoAnswer(t *testing.T) {
	server := redisserver.Single(t)
	restricted(t, server, ACL("app"))
	client := redis.NewClient(&redis.Options{Addr: server.Addr(), Username: "larder", Password: "secret"})
	defer client.Close()
	want := layout("v1")
	want.Partitions = 1
	s := open(t, client, want)
	ctx := within(t, 20*time.Second)
	without := func(command string, call func() error) {
		t.Helper()
		for _, rule := range []string{"-" + command, "+" + command} {
			_, err := server.Do(ctx, "ACL", "SETUSER", "larder", rule)
			require.NoError(t, err)
			if rule[0] == '-' {
				require.Error(t, call(), "without %s", command)
			}
		}
	}
	intent := tier.Change{Intent: "w", Mode: tier.Begin, Lasts: time.Minute, Remain: time.Minute, Items: []tier.Item{{Kind: tier.Key, Value: "k"}}}
	_, err := s.Change(ctx, intent)
	require.NoError(t, err)
	acquire := func() error { _, err := s.Acquire(ctx, "k", "", nil, time.Second); return err }
	without("hgetall", acquire)
	without("getrange", func() error { _, err := s.Acquire(ctx, "k", "seen", nil, time.Second); return err })
	for _, command := range []string{"exists", "mget", "hmget"} {
		without(command, acquire)
	}
	without("hget", acquire)
	l, err := s.Acquire(ctx, "k", "", nil, time.Minute)
	require.NoError(t, err)
	require.Positive(t, l.Open)
	without("get", func() error { _, err := s.Extend(ctx, l, time.Minute); return err })
	without("xrange", func() error { _, err := s.Log(ctx, 0, tier.Position{ID: "1-1", Token: "x"}); return err })

	_, err = s.Enqueue(ctx, tier.Enqueue{Queue: "q", Limit: 10, Changes: []tier.QueueChange{{Key: "k", Payload: []byte("x")}}})
	require.NoError(t, err)
	claim := func() (tier.Claimed, error) {
		return s.Claim(ctx, tier.Claim{Queue: "q", Worker: "w", Max: 10, Lease: time.Minute})
	}
	for _, command := range []string{"hmget", "zcard", "zrange", "zrangebyscore"} {
		without(command, func() error { _, err := claim(); return err })
	}
	claimed, err := claim()
	require.NoError(t, err)
	require.Len(t, claimed.Records, 1, "it is still queued")
}
