package redisstore

import (
	"context"
	"flag"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/larderhq/larder/core/internal/test/redisserver"
	"github.com/larderhq/larder/core/internal/tier"
)

func TestMain(m *testing.M) {
	logging.Disable() // go-redis has a global logger, and tests break servers on purpose
	runMoreAtATime()
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			println(err.Error())
			code = 1
		}
	}
	os.Exit(code)
}

// atATime is the number of parallel tests that run concurrently: more than there are processors, since they wait for
// servers most of the time.
const atATime = 6

// runMoreAtATime lets atATime tests run concurrently, unless the flag -parallel is given.
func runMoreAtATime() {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		_ = flag.Set("test.parallel", strconv.Itoa(max(atATime, runtime.GOMAXPROCS(0))))
	}
}

// layout is what tests ask for.
func layout(version string) tier.Layout {
	return tier.Layout{
		Namespace: "app", Version: version, Partitions: 4, MaxStaleness: time.Second, ReplicaLag: 0,
	}
}

// within is a context for one step of a test.
func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// single starts a server and returns it with a client of a user.
func single(t *testing.T, args ...string) (*redisserver.Server, *redis.Client) {
	t.Helper()
	server := redisserver.Single(t, args...)
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	t.Cleanup(func() { _ = client.Close() })
	return server, client
}

// open opens the tier with heads in all partitions.
func open(t *testing.T, client redis.UniversalClient, want tier.Layout) *session {
	t.Helper()
	ctx := within(t, 10*time.Second)
	opened, err := New(client).Open(ctx, want)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, opened.Close()) })
	s := opened.(*session)
	for p := range want.Partitions {
		require.NoError(t, s.NewEra(ctx, p, "", false))
	}
	return s
}

// heads returns the heads, all of which must be there.
func heads(t *testing.T, s *session) []tier.Head {
	t.Helper()
	all, err := s.Heads(within(t, 5*time.Second))
	require.NoError(t, err)
	for _, h := range all {
		require.NoError(t, h.Err)
		require.False(t, h.Missing)
	}
	return all
}

// fill stores an entry under key with tags, as a cache does.
func fill(t *testing.T, s *session, key, payload string, tags ...string) tier.Lease {
	t.Helper()
	ctx := within(t, 5*time.Second)
	l, err := s.Acquire(ctx, key, "", tags, 5*time.Second)
	require.NoError(t, err)
	require.NotEmpty(t, l.Token)
	stored, err := s.Fill(ctx, l, fillOf(s, l, payload))
	require.NoError(t, err)
	require.True(t, stored)
	return l
}

func fillOf(s *session, l tier.Lease, payload string) tier.Fill {
	e := tier.Entry{
		Payload: []byte(payload), Born: l.Now, FreshUntil: l.Now + 60_000, StaleUntil: l.Now + 60_000,
		KeepUntil: l.Now + 60_000,
		Eras:      []tier.PartitionEra{{Partition: s.partitionOfKey(l.Key), Era: l.Era}},
	}
	for _, g := range l.Generations {
		e.Tags = append(e.Tags, tier.TagGeneration{Tag: g.Tag, Token: g.Token})
		e.Eras = append(e.Eras, tier.PartitionEra{Partition: s.partitionOf(g.Tag), Era: g.Era})
	}
	return tier.Fill{Key: l.Key, Entry: e}
}

// invalidate executes one item in its partition.
func invalidate(t *testing.T, s *session, kind tier.Kind, value string) tier.Logged {
	t.Helper()
	p := s.partitionOf(value)
	if kind == tier.Key {
		p = s.partitionOfKey(value)
	}
	logged, err := s.Change(within(t, 5*time.Second), tier.Change{
		Partition: p, Items: []tier.Item{{Kind: kind, Value: value}},
	})
	require.NoError(t, err)
	require.Len(t, logged, 1)
	return logged[0]
}

func scanOf(globs ...string) tier.Scan { return tier.Scan{Globs: globs} }
