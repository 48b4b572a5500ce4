package redisstore_test

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/test/redisserver"
	"github.com/larderhq/larder/core/redisstore"
)

func sealingKey(id string) redisstore.SealingKey {
	return redisstore.SealingKey{ID: id, Secret: bytes.Repeat([]byte(id[:1]), 32)}
}

// sealedInstance is an instance whose values are sealed with the first of the keys.
func sealedInstance(t testing.TB, addr string, keys ...string) *instance {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: addr})
	t.Cleanup(func() { _ = client.Close() })
	var s redisstore.Sealing
	for _, id := range keys {
		s.Keys = append(s.Keys, sealingKey(id))
	}
	return newInstance(t, addr, func(o *core.Options) { o.Remote = redisstore.New(client, redisstore.Seal(s)) })
}

func TestSealingKeysRotateWithoutAMiss(t *testing.T) {
	t.Parallel()
	addr := redisserver.Single(t).Addr()
	const fleet, ids = 3, 20
	instances := make([]*instance, fleet)
	for i := range instances {
		instances[i] = sealedInstance(t, addr, "one")
	}
	known := 0
	loadMore := func(in *instance) {
		for range ids {
			require.True(t, in.get(t, known, "value"))
			known++
		}
	}
	hitsEverywhere := func() {
		for i, in := range instances {
			for id := range known {
				require.False(t, in.get(t, id, ""), "instance %d, id %d", i, id)
			}
		}
	}
	loadMore(instances[0])
	for _, keys := range [][]string{{"one", "two"}, {"two", "one"}} {
		for i := range instances { // one after the other, as a deployment does
			instances[i] = sealedInstance(t, addr, keys...)
			loadMore(instances[i])
			hitsEverywhere()
		}
	}
	// Without "one", only what it has sealed is missed.
	last := sealedInstance(t, addr, "two")
	require.True(t, last.get(t, 0, "value"))
	require.False(t, last.get(t, known-1, ""))
}

func TestAnInstanceWithoutTheSealingKeyLogsItOnce(t *testing.T) {
	t.Parallel()
	addr := redisserver.Single(t).Addr()
	one := sealedInstance(t, addr, "one")
	for id := range 5 {
		one.get(t, id, "value")
	}
	var log bytes.Buffer
	other := newInstance(t, addr, func(o *core.Options) { o.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	for id := range 5 {
		require.True(t, other.get(t, id, "value"))
	}
	require.NoError(t, other.cache.Close())
	require.Contains(t, log.String(), "a stored value is sealed, and the tier has no Sealing")
	require.Equal(t, 1, strings.Count(log.String(), "level=WARN"), log.String())
}

// A worker without the key of a queued change neither applies nor loses it.
func TestAQueuedChangeThatDoesNotOpenIsADeadLetter(t *testing.T) {
	t.Parallel()
	addr := redisserver.Single(t).Addr()
	applied := make(chan string, 10)
	queue := func(in *instance, o core.WriteBehindOptions[int, string]) *core.WriteBehind[int, string] {
		q, err := core.NewWriteBehind(in.Map, func(_ context.Context, changes []core.Change[int, string]) error {
			for _, c := range changes {
				applied <- c.Value
			}
			return nil
		}, o)
		require.NoError(t, err)
		return q
	}
	writer := queue(sealedInstance(t, addr, "one"), core.WriteBehindOptions[int, string]{Interval: time.Hour})
	other := queue(sealedInstance(t, addr, "two"), core.WriteBehindOptions[int, string]{
		Interval: time.Millisecond, Retry: time.Millisecond, MaxAttempts: 2,
	})
	require.NoError(t, writer.Put(t.Context(), 7, "tea"))
	var letters []core.DeadLetter[int, string]
	require.Eventually(t, func() bool {
		var err error
		letters, err = other.DeadLetters(t.Context(), 10)
		require.NoError(t, err)
		return len(letters) == 1
	}, 20*time.Second, 10*time.Millisecond)
	require.Empty(t, applied)

	require.NoError(t, other.Close(t.Context()))
	letters, err := writer.DeadLetters(t.Context(), 10)
	require.NoError(t, err)
	require.Equal(t, "tea", letters[0].Value)
	replayed, err := writer.Replay(t.Context(), letters[0])
	require.NoError(t, err)
	require.Equal(t, 1, replayed)
	require.NoError(t, writer.Flush(t.Context()))
	require.Equal(t, "tea", <-applied)
}

func BenchmarkSealedHitAndFill(b *testing.B) {
	addr := redisserver.Single(b).Addr()
	value := string(slices.Repeat([]byte("0123456789abcdef"), 64))
	for _, keys := range [][]string{nil, {"one"}} {
		name, in := "plain", newInstance(b, addr)
		other := newInstance(b, addr)
		if keys != nil {
			name, in, other = "sealed", sealedInstance(b, addr, keys...), sealedInstance(b, addr, keys...)
		}
		b.Run(name, func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				in.get(b, i, value)
				other.get(b, i, value)
			}
		})
	}
}
