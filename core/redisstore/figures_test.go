package redisstore_test

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/bridge"
	"github.com/larderhq/larder/core/internal/test/redisserver"
	"github.com/larderhq/larder/core/internal/warmup"
	"github.com/larderhq/larder/core/redisstore"
)

// The cost of a cache for Redis and for its users, in figures. The counts are tests; the
// times are benchmarks that print ratios to something measured in the same run.

// instance is one cache over a server.
type instance struct {
	*core.Map[int, string]
	cache *core.Cache
}

func newInstance(t testing.TB, addr string, change ...func(*core.Options)) *instance {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: addr})
	o := core.Options{
		Remote:        redisstore.New(client),
		RequireRemote: true,
		MaxStaleness:  time.Hour, // the watchdog is silent while commands are counted
		RemoteBudget:  5 * time.Second,
		Classes:       core.Classes{"c": {TTL: time.Hour}},
		Logger:        slog.New(slog.DiscardHandler),
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

func (in *instance) get(t testing.TB, id int, value string, tags ...string) (loaded bool) {
	t.Helper()
	_, err := in.Get(t.Context(), id, func(ctx context.Context, _ int) (string, error) {
		loaded = true
		return value, core.AddTags(ctx, tags...)
	})
	require.NoError(t, err)
	return loaded
}

// work counts the work of a server.
type work struct {
	commands map[string]int // sent by clients, without the calls of scripts
	inside   map[string]int // all
	reads    int            // from sockets: round trips, if there is no other client
}

func info(t testing.TB, client *redis.Client, section, field string) string {
	t.Helper()
	reply, err := client.Info(t.Context(), section).Result()
	require.NoError(t, err)
	for line := range strings.Lines(reply) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), field+":"); ok {
			return value
		}
	}
	t.Fatalf("INFO %s has no %s", section, field)
	return ""
}

// did returns the work of the server for fn, without the questions about its work.
func did(t testing.TB, server *redisserver.Server, fn func()) work {
	t.Helper()
	asking := measure(t, server, func() {}).reads
	w := measure(t, server, fn)
	w.reads -= asking
	return w
}

func measure(t testing.TB, server *redisserver.Server, fn func()) work {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: server.Addr(), PoolSize: 1})
	defer client.Close()
	stats := func() (map[string]int, int) {
		reply, err := client.Info(t.Context(), "commandstats").Result()
		require.NoError(t, err)
		calls := map[string]int{}
		for line := range strings.Lines(reply) {
			name, rest, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "cmdstat_"), ":calls=")
			if ok {
				n, _, _ := strings.Cut(rest, ",")
				calls[name], _ = strconv.Atoi(n)
			}
		}
		reads, err := strconv.Atoi(info(t, client, "stats", "total_reads_processed"))
		require.NoError(t, err)
		return calls, reads
	}
	stats() // connected
	before, readsBefore := stats()
	fn()
	after, readsAfter := stats()
	w := work{commands: map[string]int{}, inside: map[string]int{}, reads: readsAfter - readsBefore}
	for name, n := range after {
		if n -= before[name]; n > 0 && name != "info" {
			w.inside[name] = n
			if strings.HasPrefix(name, "eval") {
				w.commands[name] = n
			}
		}
	}
	if w.commands["evalsha"] == 0 { // then nothing ran inside a script
		w.commands = w.inside
	}
	return w
}

func TestAHitOfTheTierIsOneCommandInOneRoundTrip(t *testing.T) {
	server := redisserver.Single(t)
	a, b := newInstance(t, server.Addr()), newInstance(t, server.Addr())
	for id := range 3 {
		require.True(t, a.get(t, id, "value", "catalog", "shop"))
	}
	first := did(t, server, func() { require.False(t, b.get(t, 0, "")) })
	t.Log("the first hit of an instance, which does not know the generations:", first)

	// The value's key is a tag of its own, which this instance has not seen: one
	// more key of the same command.
	hit := did(t, server, func() { require.False(t, b.get(t, 1, "")) })
	t.Log("a hit:", hit)
	require.Equal(t, map[string]int{"mget": 1}, hit.commands)
	require.Equal(t, 1, hit.reads)

	// Out of this process's memory, but known: one command.
	tiny := newInstance(t, server.Addr(), func(o *core.Options) { o.MaxBytes = 64 << 10 })
	big := strings.Repeat("x", 30<<10)
	for id := 10; id < 20; id++ {
		require.True(t, a.get(t, id, big))
		require.False(t, tiny.get(t, id, ""))
	}
	asked := 0
	for id := 10; id < 20; id++ { // no more than two of them fit into its memory
		again := did(t, server, func() { require.False(t, tiny.get(t, id, "")) })
		if len(again.commands) > 0 {
			t.Log("a hit, its tags known:", again)
			require.Equal(t, map[string]int{"get": 1}, again.commands)
			require.Equal(t, 1, again.reads)
			asked++
		}
	}
	require.Positive(t, asked)

	memory := did(t, server, func() { require.False(t, b.get(t, 1, "")) })
	require.Empty(t, memory.inside, "a hit in memory asks nobody")
	require.Zero(t, memory.reads)
}

func TestAMissIsThreeRoundTrips(t *testing.T) {
	server := redisserver.Single(t)
	a := newInstance(t, server.Addr())
	a.get(t, 0, "value", "late") // the scripts are known
	miss := did(t, server, func() { require.True(t, a.get(t, 1, "value")) })
	t.Log("a miss:", miss)
	require.Equal(t, 3, miss.reads, "look, lease, fill")
	late := did(t, server, func() { require.True(t, a.get(t, 2, "value", "late")) })
	t.Log("a miss whose tag the loader names:", late)
	require.LessOrEqual(t, late.reads, 4)
}

func TestAnInvalidationIsOneRoundTripHoweverManyEntriesCarryTheTag(t *testing.T) {
	server := redisserver.Single(t)
	a := newInstance(t, server.Addr())
	a.get(t, 0, "value", "catalog")
	require.NoError(t, a.cache.Invalidate(t.Context(), core.Tag("catalog")))
	one := did(t, server, func() { require.NoError(t, a.cache.Invalidate(t.Context(), core.Tag("catalog"))) })
	for id := range 1000 {
		a.get(t, id, "value", "catalog")
	}
	many := did(t, server, func() { require.NoError(t, a.cache.Invalidate(t.Context(), core.Tag("catalog"))) })
	t.Log("a tag:", many)
	require.Equal(t, one.inside, many.inside)
	require.Equal(t, 1, many.commands["evalsha"])
	require.Equal(t, 1, many.reads)
}

// Of a hundred ids half are in the tier.
func TestABatchIsAPipelineForEachStep(t *testing.T) {
	server := redisserver.Single(t)
	a := newInstance(t, server.Addr())
	ids := make([]int, 100)
	for i := range ids {
		if ids[i] = i; i%2 == 0 {
			a.get(t, i, "value")
		}
	}
	load := func(_ context.Context, ids []int) (map[int]string, error) {
		values := make(map[int]string)
		for _, id := range ids {
			values[id] = "value"
		}
		return values, nil
	}
	one := newInstance(t, server.Addr())
	single := did(t, server, func() {
		for _, id := range ids {
			if id%2 == 0 { // the others would be there for the batch
				one.get(t, id, "value")
			} else {
				one.get(t, 1000+id, "value")
			}
		}
	})
	b := newInstance(t, server.Addr())
	batch := did(t, server, func() {
		values, err := b.GetMany(t.Context(), ids, load)
		require.NoError(t, err)
		require.Len(t, values, 100)
	})
	t.Logf("100 Gets: %d round trips, %v", single.reads, single.inside)
	t.Logf("GetMany: %d round trips, %v", batch.reads, batch.inside)
	// A request that does not fit into one read of a socket is several reads for the server.
	require.LessOrEqual(t, batch.reads, 12, "look, lease, fill: a pipeline each")
	require.Greater(t, single.reads, 10*batch.reads)
	require.Equal(t, single.inside["mget"], batch.inside["mget"])
}

// median of the durations.
func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

// BenchmarkHitOfTheTier is a hit of Redis, against a raw GET of the same bytes by
// the same kind of client, in turns.
func BenchmarkHitOfTheTier(b *testing.B) {
	server := redisserver.Single(b)
	a := newInstance(b, server.Addr())
	// Each value fills the smallest tier to the half, so that nearly each Get goes to Redis.
	reader := newInstance(b, server.Addr(), func(o *core.Options) { o.MaxBytes = 64 << 10 })
	const ids = 2000
	value := strings.Repeat("v", 1024)
	for id := range ids {
		a.get(b, id, value)
		reader.get(b, id, "")
	}
	client := redis.NewClient(&redis.Options{Addr: server.Addr(), ContextTimeoutEnabled: true})
	defer client.Close()
	keys, err := client.Keys(b.Context(), "larder:*:e:*").Result()
	require.NoError(b, err)
	require.GreaterOrEqual(b, len(keys), ids)
	before := reader.cache.Stats()
	var raw, hit []time.Duration
	b.ResetTimer()
	for i := range b.N {
		start := time.Now()
		ctx, cancel := context.WithTimeout(b.Context(), time.Second)
		_, err := client.Get(ctx, keys[i%len(keys)]).Bytes()
		cancel()
		raw = append(raw, time.Since(start))
		require.NoError(b, err)
		start = time.Now()
		reader.get(b, i%ids, "")
		hit = append(hit, time.Since(start))
	}
	b.StopTimer()
	s := reader.cache.Stats()
	r, h := median(raw), median(hit)
	b.ReportMetric(float64(r.Nanoseconds()), "raw-ns")
	b.ReportMetric(float64(h.Nanoseconds()), "hit-ns")
	b.ReportMetric(float64(h)/float64(r), "ratio")
	b.ReportMetric(100*float64(s.RemoteHits-before.RemoteHits)/float64(b.N), "%remote")
}

// BenchmarkTagInvalidation is the invalidation of a tag that a million entries
// carry, against one that one entry carries, in turns.
func BenchmarkTagInvalidation(b *testing.B) {
	server := redisserver.Single(b)
	a := newInstance(b, server.Addr())
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	defer client.Close()
	const many = 1_000_000
	a.get(b, 0, "value", "one")
	a.get(b, 1, "value", "many")
	keys, err := client.Keys(b.Context(), "larder:*:e:*item:1").Result()
	require.NoError(b, err)
	require.Len(b, keys, 1)
	entry, err := client.Get(b.Context(), keys[0]).Bytes()
	require.NoError(b, err)
	for n := 0; n < many; { // a million entries that carry the tag, as they are stored
		p := client.Pipeline()
		for range 10_000 {
			p.Set(b.Context(), fmt.Sprintf("%s%d", keys[0], n), entry, time.Hour)
			n++
		}
		_, err := p.Exec(b.Context())
		require.NoError(b, err)
	}
	var one, million []time.Duration
	b.ResetTimer()
	for range b.N {
		for tag, times := range map[string]*[]time.Duration{"one": &one, "many": &million} {
			start := time.Now()
			require.NoError(b, a.cache.Invalidate(b.Context(), core.Tag(tag)))
			*times = append(*times, time.Since(start))
		}
	}
	b.StopTimer()
	o, m := median(one), median(million)
	b.ReportMetric(float64(o.Nanoseconds()), "one-ns")
	b.ReportMetric(float64(m.Nanoseconds()), "million-ns")
	b.ReportMetric(float64(m)/float64(o), "ratio")
}

// BenchmarkMessage is the time from the call of Invalidate until the last of eight
// instances answers the tag no more, against a raw PUBLISH until the last of eight
// subscribers has it.
func BenchmarkMessage(b *testing.B) {
	server := redisserver.Single(b)
	writer := newInstance(b, server.Addr())
	const instances = 8
	var readers []*instance
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	defer client.Close()
	got := make(chan struct{}, instances)
	var subscribers sync.WaitGroup
	for range instances {
		readers = append(readers, newInstance(b, server.Addr()))
		sub := client.Subscribe(b.Context(), "raw")
		_, err := sub.Receive(b.Context())
		require.NoError(b, err)
		subscribers.Add(1)
		go func() {
			defer subscribers.Done()
			for {
				if _, err := sub.ReceiveMessage(context.Background()); err != nil {
					return
				}
				got <- struct{}{}
			}
		}()
		defer sub.Close()
	}
	defer subscribers.Wait()
	defer client.Close()
	for len(readers) > 0 { // all of them listen
		n, err := client.PubSubNumSub(b.Context(), "larder:hints").Result()
		require.NoError(b, err)
		if n["larder:hints"] == instances+1 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	var raw, message []time.Duration
	b.ResetTimer()
	for i := range b.N {
		start := time.Now()
		require.NoError(b, client.Publish(b.Context(), "raw", "x").Err())
		for range instances {
			<-got
		}
		raw = append(raw, time.Since(start))

		writer.get(b, i, "value")
		for _, r := range readers {
			r.get(b, i, "")
		}
		start = time.Now()
		require.NoError(b, writer.Invalidate(b.Context(), i))
		for _, r := range readers {
			for !r.gone(i) {
				runtime.Gosched()
			}
		}
		message = append(message, time.Since(start))
	}
	b.StopTimer()
	r, m := median(raw), median(message)
	b.ReportMetric(float64(r.Nanoseconds()), "raw-ns")
	b.ReportMetric(float64(m.Nanoseconds()), "message-ns")
	b.ReportMetric(float64(m)/float64(r), "ratio")
	b.ReportMetric(float64(message[len(message)*99/100].Nanoseconds()), "message-p99-ns")
	_ = client.Close()
}

// gone reports whether the instance's own memory has let go of an id.
func (in *instance) gone(id int) bool {
	key, _ := in.Key(id)
	_, state := bridge.Of(in.cache).Engine.Lookup(key)
	return state == 0
}

// BenchmarkWatchdog is what following the log costs Redis while nothing is invalidated:
// commands per second and percent of one processor, for some instances that have requests, and
// for some that have had none for a while. For the latter it is also the time of the first
// request, whose value is in memory.
func BenchmarkWatchdog(b *testing.B) {
	const settle, span = 6 * time.Second, 20 * time.Second
	for _, n := range []int{1, 10, 100} {
		for _, busy := range []bool{true, false} {
			b.Run(fmt.Sprintf("%d instances, with requests %v", n, busy), func(b *testing.B) {
				server := redisserver.Single(b)
				client := redis.NewClient(&redis.Options{Addr: server.Addr()})
				defer client.Close()
				instances := make([]*instance, n)
				for i := range instances {
					instances[i] = newInstance(b, server.Addr(), func(o *core.Options) { o.MaxStaleness = time.Second })
				}
				answer := func() (longest time.Duration) {
					for _, in := range instances {
						began := time.Now()
						in.get(b, 1, "value")
						longest = max(longest, time.Since(began))
					}
					return longest
				}
				wait := func(d time.Duration) {
					for until := time.Now().Add(d); busy && time.Now().Before(until); {
						answer()
						time.Sleep(time.Second / 4)
					}
					if !busy {
						time.Sleep(d)
					}
				}
				state := func() (commands, cpu float64) {
					commands, err := strconv.ParseFloat(info(b, client, "stats", "total_commands_processed"), 64)
					require.NoError(b, err)
					return commands, serverCPU(b, client)
				}
				for range b.N {
					answer()
					wait(settle)
					commands, cpu := state()
					wait(span)
					c, p := state()
					b.ReportMetric((c-commands)/span.Seconds(), "commands/s")
					b.ReportMetric(100*(p-cpu)/span.Seconds(), "%cpu")
					b.ReportMetric(float64(answer().Microseconds()), "µs/first")
				}
			})
		}
	}
}

// serverCPU returns the CPU time of a server, in seconds.
func serverCPU(b *testing.B, client *redis.Client) (seconds float64) {
	b.Helper()
	for _, field := range []string{"used_cpu_sys", "used_cpu_user"} {
		v, err := strconv.ParseFloat(info(b, client, "cpu", field), 64)
		require.NoError(b, err)
		seconds += v
	}
	return seconds
}

// BenchmarkWarm is the warming of b.N values of 200 bytes by Map.Warm, against a plain
// loop of pipelined SETs of the same bytes with the same batches and concurrency, in
// turns of a tenth each: go test -run=xxx -bench=Warm -benchtime=1000000x ./core/redisstore
func BenchmarkWarm(b *testing.B) {
	const batch, parallel, turns = 1000, 4, 10
	server := redisserver.Single(b)
	a := newInstance(b, server.Addr())
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	defer client.Close()
	value := strings.Repeat("v", 200)
	load := func(_ context.Context, ids []int) (map[int]string, error) {
		values := make(map[int]string, len(ids))
		for _, id := range ids {
			values[id] = value
		}
		return values, nil
	}
	o := core.WarmOptions{Batch: batch, Parallel: parallel}
	ids := func(from, to int) iter.Seq[int] {
		return func(yield func(int) bool) {
			for id := from; id < to && yield(id); id++ {
			}
		}
	}
	filled, err := a.Warm(b.Context(), ids(-batch, 0), load, o) // the scripts are known
	require.NoError(b, err)
	require.Equal(b, batch, filled.Filled, "%+v", a.cache.Stats())
	keys, err := client.Keys(b.Context(), "larder:*:e:*item:-1").Result()
	require.NoError(b, err)
	require.Len(b, keys, 1)
	entry, err := client.Get(b.Context(), keys[0]).Bytes()
	require.NoError(b, err)
	raw := func(ctx context.Context, ids []int) (filled, failed int) {
		p := client.Pipeline()
		for _, id := range ids {
			p.Set(ctx, "raw:"+strconv.Itoa(id), entry, time.Hour)
		}
		if _, err := p.Exec(ctx); err != nil {
			return 0, len(ids)
		}
		return len(ids), 0
	}
	var plain, larder time.Duration
	var plainCPU, larderCPU, plainOwn, larderOwn float64
	stored := 0
	n := max(b.N/turns, 1)
	b.ResetTimer()
	for from := 0; from < b.N; from += n {
		to := min(from+n, b.N)
		begun, own := serverCPU(b, client), processCPU(b)
		done, err := warmup.Run(b.Context(), ids(from, to), warmup.Plan{Batch: batch, Parallel: parallel}, raw)
		require.NoError(b, err)
		require.Equal(b, to-from, done.Filled)
		plain += done.Elapsed
		between, ownBetween := serverCPU(b, client), processCPU(b)
		plainCPU += between - begun
		plainOwn += ownBetween - own
		r, err := a.Warm(b.Context(), ids(from, to), load, o)
		require.NoError(b, err)
		stored += r.Filled
		require.Zero(b, r.Failed)
		larder += r.Elapsed
		larderCPU += serverCPU(b, client) - between
		larderOwn += processCPU(b) - ownBetween
	}
	b.StopTimer()
	stats, err := client.Info(b.Context(), "commandstats").Result()
	require.NoError(b, err)
	for line := range strings.Lines(stats) {
		b.Log(strings.TrimSpace(line))
	}
	b.ReportMetric(100*float64(stored)/float64(b.N), "%stored")
	b.ReportMetric(float64(b.N)/plain.Seconds(), "raw/s")
	b.ReportMetric(float64(b.N)/larder.Seconds(), "warm/s")
	b.ReportMetric(plain.Seconds()/larder.Seconds(), "ratio")
	b.ReportMetric(1e6*plainCPU/float64(b.N), "raw-redis-µs/op")
	b.ReportMetric(1e6*larderCPU/float64(b.N), "warm-redis-µs/op")
	b.ReportMetric(1e6*plainOwn/float64(b.N), "raw-own-µs/op")
	b.ReportMetric(1e6*larderOwn/float64(b.N), "warm-own-µs/op")
	b.ReportMetric((plainCPU+plainOwn)/(larderCPU+larderOwn), "cpu-ratio")
}

// processCPU returns the CPU time of this process, in seconds.
func processCPU(b *testing.B) float64 {
	b.Helper()
	var u syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

// More items than a log holds, in Redis or in memory, go by during a load.
func TestALoadIsStoredWhateverElseIsInvalidatedMeanwhile(t *testing.T) {
	server := redisserver.Single(t)
	a, b, c := newInstance(t, server.Addr()), newInstance(t, server.Addr()), newInstance(t, server.Addr())
	invalidate := func(tags ...string) {
		targets := make([]core.Target, len(tags))
		for i, tag := range tags {
			targets[i] = core.Tag(tag)
		}
		require.NoError(t, b.cache.Invalidate(t.Context(), targets...))
	}
	load := func(id int, during func()) {
		_, err := a.Get(t.Context(), id, func(ctx context.Context, _ int) (string, error) {
			during()
			for i := range 40 {
				others := make([]string, 1000)
				for j := range others {
					others[j] = fmt.Sprint("other:", id, ":", i, ":", j)
				}
				invalidate(others...)
			}
			return "value", core.AddTags(ctx, "late")
		})
		require.NoError(t, err)
	}

	load(1, func() {})
	load(2, func() { invalidate("late") })

	require.True(t, c.get(t, 2, "value"), "its tag was invalidated")
	invalidate("late")
	load(3, func() {})
	require.False(t, c.get(t, 3, ""), "nothing that it depends on was")
}
