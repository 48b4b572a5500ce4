package redisstore_test

import (
	"context"
	"fmt"
	"os"
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

// TestSweepAtSize sweeps a prefix that LARDER_KEYS entries have (a few, if it is not
// set), beside a fifth as many others, and prints its time and the latency of other clients
// of the servers: of a Sweep, of an Invalidate that has time, and of KEYS and DEL.
//
//	LARDER_KEYS=1000000 go test -v -run TestSweepAtSize -timeout 0 ./core/redisstore
func TestSweepAtSize(t *testing.T) {
	size := 5000
	if v := os.Getenv("LARDER_KEYS"); v != "" {
		var err error
		size, err = strconv.Atoi(v)
		require.NoError(t, err, "LARDER_KEYS")
	}
	t.Run("one server", func(t *testing.T) {
		server := redisserver.Single(t)
		client := redis.NewClient(&redis.Options{Addr: server.Addr(), ReadTimeout: time.Hour}) // KEYS is slow
		defer client.Close()
		(&sweepAtSize{t, client, size, []*redis.Client{client}, server.Addr()}).run()
	})
	t.Run("three masters", func(t *testing.T) {
		if testing.Short() {
			t.Skip("the same once more")
		}
		cluster := redisserver.ThreeByThree(t)
		for _, node := range cluster.Nodes() { // KEYS may last for longer than it takes to be given up
			_, err := node.Do(t.Context(), "CONFIG", "SET", "cluster-node-timeout", "60000")
			require.NoError(t, err)
		}
		client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: cluster.Addrs(), ReadTimeout: time.Hour})
		defer client.Close()
		var masters []*redis.Client
		var mu sync.Mutex
		require.NoError(t, client.ForEachMaster(t.Context(), func(_ context.Context, c *redis.Client) error {
			mu.Lock()
			defer mu.Unlock()
			masters = append(masters, c)
			return nil
		}))
		(&sweepAtSize{t, client, size, masters, cluster.Addrs()[0]}).run()
	})
}

type sweepAtSize struct {
	*testing.T
	client  redis.UniversalClient
	size    int
	masters []*redis.Client
	addr    string
}

func (s *sweepAtSize) run() {
	shared := func(o *core.Options) {
		o.Remote = redisstore.New(s.client)
		o.Classes = core.Classes{"c": {TTL: time.Hour, LoadTimeout: time.Hour}} // as long as a sweep of any size
	}
	a, b := newInstance(s, s.addr, shared), newInstance(s, s.addr, shared)
	a.get(s, 0, strings.Repeat("v", 100))
	entry, key := s.template()

	s.felt("nothing", func() { time.Sleep(time.Duration(s.size) * 2 * time.Microsecond) })

	s.fill(entry, key)
	s.loadsInFlight(b, func() {
		s.felt("Sweep", func() {
			did, err := a.InvalidateAll(s.Context())
			require.NoError(s, err)
			require.NoError(s, did.Everything)
			require.EqualValues(s, s.size, did.Removed)
			require.Equal(s, len(s.masters), did.Servers)
			require.GreaterOrEqual(s, did.Keys, int64(s.size))
			s.Logf("Sweep: %+v", did)
		})
	})
	s.left(0)

	s.fill(entry, key)
	s.felt("Invalidate", func() {
		ctx, cancel := context.WithTimeout(s.Context(), time.Hour)
		defer cancel()
		require.NoError(s, a.cache.Invalidate(ctx, core.Prefix("item:")))
	})
	s.left(0)

	s.fill(entry, key)
	s.felt("KEYS and DEL", func() {
		for _, m := range s.masters {
			keys, err := m.Keys(s.Context(), "larder:{??}:e:*item:*").Result()
			require.NoError(s, err)
			for some := range slices.Chunk(keys, 1000) {
				p := m.Pipeline()
				if len(s.masters) == 1 {
					p.Del(s.Context(), some...)
				} else {
					for _, key := range some {
						p.Del(s.Context(), key)
					}
				}
				_, err := p.Exec(s.Context())
				require.NoError(s, err)
			}
		}
	})
	s.left(0)
}

// template returns the bytes of the entry that is there, and what names of entries
// become in Redis.
func (s *sweepAtSize) template() (entry string, key func(name string) string) {
	for _, m := range s.masters {
		keys, err := m.Keys(s.Context(), "larder:{??}:e:*item:0").Result()
		require.NoError(s, err)
		for _, k := range keys {
			entry, err = s.client.Get(s.Context(), k).Result()
			require.NoError(s, err)
			version, _, _ := strings.Cut(k[len("larder:{00}:e:"):], "\x1f")
			return entry, func(name string) string {
				return fmt.Sprintf("larder:{%02x}:e:%s\x1f%s", tier.Partition(name, tier.DefaultPartitions), version, name)
			}
		}
	}
	s.Fatal("there is no entry")
	return "", nil
}

// fill stores the entries, a tenth as many of another map, and a tenth as many keys
// that are not ours.
func (s *sweepAtSize) fill(entry string, key func(string) string) {
	const batch = 5000
	p := s.client.Pipeline()
	set := func(key string) {
		p.Set(s.Context(), key, entry, time.Hour)
		if p.Len() == batch {
			_, err := p.Exec(s.Context())
			require.NoError(s, err)
		}
	}
	for i := range s.size {
		set(key(fmt.Sprint("item:", i)))
		if i%10 == 0 {
			set(key(fmt.Sprint("other:", i)))
			set(fmt.Sprint("session:item:", i))
		}
	}
	_, err := p.Exec(s.Context())
	require.NoError(s, err)
	s.left(s.size)
}

// left demands that so many of the entries are there, and all others.
func (s *sweepAtSize) left(want int) {
	s.Helper()
	for match, want := range map[string]int{
		"larder:*:e:*item:*": want, "larder:*:e:*other:*": (s.size + 9) / 10, "session:*": (s.size + 9) / 10,
	} {
		keys := map[string]bool{}
		for _, m := range s.masters {
			for it := m.Scan(s.Context(), 0, match, 10_000).Iterator(); it.Next(s.Context()); {
				keys[it.Val()] = true
			}
		}
		require.Len(s, keys, want, match)
	}
}

// loadsInFlight lets loads of some ids begin before fn and end after it.
func (s *sweepAtSize) loadsInFlight(in *instance, fn func()) {
	const first, n = 1 << 30, 20 // none of them is stored
	var begun, ended sync.WaitGroup
	gate := make(chan struct{})
	for id := range n {
		begun.Add(1)
		ended.Add(1)
		go func() {
			defer ended.Done()
			v, err := in.Get(s.Context(), first+id, func(context.Context, int) (string, error) {
				begun.Done()
				<-gate
				return "old", nil
			})
			if err != nil || v != "old" {
				s.Errorf("%q, %v", v, err)
			}
		}()
	}
	begun.Wait()
	fn()
	close(gate)
	ended.Wait()
	stored := 0
	for id := range n {
		if !in.get(s, first+id, "new") {
			stored++
		}
	}
	s.Logf("loads in flight: %d, stored of them: %d", n, stored)
	require.Zero(s, stored)
	require.NoError(s, in.Invalidate(s.Context(), ids(first, n)...))
}

func ids(first, n int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = first + i
	}
	return list
}

// felt does something, and prints how long it took, the longest that a server worked
// at one command or did not get to its clients, by its own account, and how long
// others waited for an answer meanwhile.
func (s *sweepAtSize) felt(what string, fn func()) {
	ctx := s.Context()
	for _, m := range s.masters {
		for _, set := range [][2]string{
			{"latency-monitor-threshold", "1"}, {"slowlog-log-slower-than", "200"}, {"slowlog-max-len", "100000"},
		} {
			require.NoError(s, m.ConfigSet(ctx, set[0], set[1]).Err())
		}
		require.NoError(s, m.ConfigResetStat(ctx).Err())
		require.NoError(s, m.Do(ctx, "LATENCY", "RESET").Err())
		require.NoError(s, m.Do(ctx, "SLOWLOG", "RESET").Err())
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var mu sync.Mutex
	var waits []time.Duration
	for _, m := range s.masters {
		other := redis.NewClient(&redis.Options{Addr: m.Options().Addr, PoolSize: 1, ReadTimeout: time.Hour})
		require.NoError(s, other.Ping(ctx).Err())
		wg.Go(func() {
			defer other.Close()
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Millisecond):
				}
				began := time.Now()
				err := other.Ping(ctx).Err()
				wait := time.Since(began)
				mu.Lock()
				waits = append(waits, wait)
				mu.Unlock()
				if err != nil {
					s.Error(err)
					return
				}
			}
		})
	}
	began := time.Now()
	fn()
	took := time.Since(began)
	close(stop)
	wg.Wait()
	slices.Sort(waits)
	var slowest time.Duration
	command := "none over 0.2ms"
	events := map[string]int64{}
	var percentiles []string
	for _, m := range s.masters {
		latest, err := m.Do(ctx, "LATENCY", "LATEST").Slice() // before the commands that ask for the rest
		require.NoError(s, err)
		for _, l := range latest {
			e := l.([]any) // event, when, the last, the longest in milliseconds
			events[e[0].(string)] = max(events[e[0].(string)], e[3].(int64))
		}
		stats, err := m.Info(ctx, "latencystats").Result()
		require.NoError(s, err)
		for line := range strings.Lines(stats) {
			line, ok := strings.CutPrefix(strings.TrimSpace(line), "latency_percentiles_usec_")
			if name, _, _ := strings.Cut(line, ":"); ok && slices.Contains([]string{"scan", "unlink", "keys", "del"}, name) {
				percentiles = append(percentiles, line)
			}
		}
		log, err := m.SlowLogGet(ctx, -1).Result()
		require.NoError(s, err)
		for _, l := range log {
			if l.Duration > slowest {
				slowest, command = l.Duration, l.Args[0]
			}
		}
	}
	s.Logf("%-12s %v (%.0f keys/s); slowest command %v (%s); LATENCY %v ms; µs of commands: %v; "+
		"%d PINGs: median %v, p99 %v, p99.9 %v, longest %v",
		what+":", took.Round(time.Millisecond), float64(s.size)/took.Seconds(), slowest, command, events, percentiles,
		len(waits), waits[len(waits)/2], waits[len(waits)*99/100], waits[len(waits)*999/1000], waits[len(waits)-1])
}
