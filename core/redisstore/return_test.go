package redisstore_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/test/redisserver"
)

// Data may return to a server that goes on under the same replication id: SWAPDB there
// and back, or a restore in place. Values that were invalidated since are there again.
func TestRestoredDataThatWasInvalidatedIsAnsweredByNoInstance(t *testing.T) {
	t.Parallel()
	for name, play := range map[string]func(r *returning){
		"exchanged":                      func(r *returning) { r.exchange(func() { r.newest("a", "b") }) },
		"exchanged, an instance is new":  func(r *returning) { r.exchange(func() { r.begin("c"); r.newest("a", "c") }) },
		"exchanged, all instances new":   func(r *returning) { r.end("a", "b"); r.exchange(func() { r.begin("c", "d"); r.newest("c", "d") }) },
		"exchanged for a flushed server": func(r *returning) { r.exchange(func() { r.flush(); r.newest("a", "b") }) },
		"restored":                       func(r *returning) { r.restore("*", core.Tag("t")) },
		"restored from before all":       func(r *returning) { r.restore("*", core.All()) },
		"restored are the heads":         func(r *returning) { r.restore("*head", core.All()) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redisserver.Single(t)
			r := &returning{T: t, server: server, client: redis.NewClient(&redis.Options{Addr: server.Addr()}), instances: map[string]*instance{}}
			t.Cleanup(func() { require.NoError(t, r.client.Close()) })
			r.begin("a", "b")
			require.True(t, r.instances["a"].get(t, 1, "old", "t"))
			require.False(t, r.instances["b"].get(t, 1, "never", "t"))
			play(r)
			r.begin("z") // it knows nothing of what was
			for name, in := range r.instances {
				in.is(r, name, "new")
			}
		})
	}
}

// returning is a server whose data returns, and its instances.
type returning struct {
	*testing.T
	server    *redisserver.Server
	client    *redis.Client
	instances map[string]*instance
}

const returnStaleness = 400 * time.Millisecond

func (r *returning) begin(names ...string) {
	for _, name := range names {
		r.instances[name] = newInstance(r, r.server.Addr(), func(o *core.Options) { o.MaxStaleness = returnStaleness })
	}
}

func (r *returning) end(names ...string) {
	for _, name := range names {
		require.NoError(r, r.instances[name].cache.Close())
		delete(r.instances, name)
	}
}

func (r *returning) do(args ...any) any {
	r.Helper()
	v, err := r.client.Do(r.Context(), args...).Result()
	require.NoError(r, err)
	return v
}

func (r *returning) flush() { r.do("FLUSHDB") }

// is demands a value, from a load or from the cache.
func (in *instance) is(r *returning, name, want string) {
	r.Helper()
	v, err := in.Get(r.Context(), 1, func(ctx context.Context, _ int) (string, error) { return "new", core.AddTags(ctx, "t") })
	require.NoError(r, err)
	require.Equal(r, want, v, "instance %s", name)
}

// newest lets one instance invalidate and another load again.
func (r *returning) newest(writer, reader string) {
	r.settle(writer, reader)
	require.NoError(r, r.instances[writer].cache.InvalidateEverywhere(r.Context(), core.Tag("t")))
	r.instances[reader].is(r, reader, "new")
}

// settle waits until instances store what they load.
func (r *returning) settle(names ...string) {
	for _, name := range names {
		n := 0
		require.Eventually(r, func() bool {
			n++
			id := 1000 + n
			return r.instances[name].get(r, id, "v") && !r.instances[name].get(r, id, "v")
		}, 10*time.Second, time.Millisecond)
	}
}

func (r *returning) exchange(meanwhile func()) {
	eras := r.eras()
	r.do("SWAPDB", 0, 1)
	meanwhile()
	r.do("SWAPDB", 0, 1)
	r.renewed(eras)
}

// restore puts the keys that match back as they are before an invalidation.
func (r *returning) restore(pattern string, target core.Target) {
	eras, dumps, logged := r.eras(), map[string]string{}, map[string]string{}
	for head := range eras {
		logged[head] = r.client.HGet(r.Context(), head, "ptok").Val()
	}
	for _, key := range r.client.Keys(r.Context(), pattern).Val() {
		dumps[key] = r.client.Dump(r.Context(), key).Val()
	}
	require.NoError(r, r.instances["a"].cache.InvalidateEverywhere(r.Context(), target))
	r.instances["b"].is(r, "b", "new")
	for head := range eras {
		if r.client.HGet(r.Context(), head, "ptok").Val() == logged[head] { // nothing was invalidated there
			delete(eras, head)
		}
	}
	require.NotEmpty(r, eras)
	_, err := r.client.TxPipelined(r.Context(), func(p redis.Pipeliner) error {
		if pattern == "*" {
			p.FlushDB(r.Context())
		}
		for key, dump := range dumps {
			p.RestoreReplace(r.Context(), key, 0, dump)
		}
		return nil
	})
	require.NoError(r, err)
	r.renewed(eras)
}

// eras returns the era of each partition.
func (r *returning) eras() map[string]string {
	eras := map[string]string{}
	for _, key := range r.client.Keys(r.Context(), "*head").Val() {
		eras[key] = r.client.HGet(r.Context(), key, "era").Val()
	}
	require.Len(r, eras, 16)
	return eras
}

// renewed demands that partitions are in other eras than before, within MaxStaleness, and
// the time that a round takes on a busy machine.
func (r *returning) renewed(was map[string]string) {
	r.Helper()
	returned := time.Now()
	for {
		var still []string
		for key, era := range r.eras() {
			if era == was[key] {
				still = append(still, key)
			}
		}
		if len(still) == 0 {
			return
		}
		if took := time.Since(returned); took > returnStaleness+2*time.Second {
			r.Fatalf("STALE: %v after the data has returned these are in an era that has ended: %s", took, strings.Join(still, ", "))
		}
		time.Sleep(time.Millisecond)
	}
}
