package redisstore

import (
	"bufio"
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/internal/test/redisserver"
	"github.com/larderhq/larder/core/internal/tier"
)

func TestClientsThatCannotWorkAreRefused(t *testing.T) {
	cluster := func(o redis.ClusterOptions) redis.UniversalClient {
		o.Addrs = []string{"127.0.0.1:1"}
		return redis.NewClusterClient(&o)
	}
	for name, client := range map[string]redis.UniversalClient{
		"nil":              nil,
		"nil client":       (*redis.Client)(nil),
		"nil cluster":      (*redis.ClusterClient)(nil),
		"ring":             redis.NewRing(&redis.RingOptions{Addrs: map[string]string{"a": "127.0.0.1:1"}, HeartbeatFrequency: time.Hour}),
		"read only":        cluster(redis.ClusterOptions{ReadOnly: true}),
		"route by latency": cluster(redis.ClusterOptions{RouteByLatency: true}),
		"route randomly":   cluster(redis.ClusterOptions{RouteRandomly: true}),
		"failover cluster": redis.NewFailoverClusterClient(&redis.FailoverOptions{MasterName: "m", SentinelAddrs: []string{"127.0.0.1:1"}}),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := New(client).Open(within(t, time.Second), layout("v1"))
			require.ErrorIs(t, err, tier.ErrUnusable)
			t.Log(err)
			if client != nil && !strings.HasPrefix(name, "nil") {
				_ = client.Close()
			}
		})
	}
}

func TestLayoutsThatCannotWorkAreRefused(t *testing.T) {
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"})
	defer client.Close()
	for name, change := range map[string]func(*tier.Layout){
		"no partitions":       func(l *tier.Layout) { l.Partitions = 0 },
		"too many partitions": func(l *tier.Layout) { l.Partitions = 65 },
		"braces":              func(l *tier.Layout) { l.Namespace = "a{b}" },
		"control character":   func(l *tier.Layout) { l.Version = "a\x1fb" },
		"negative staleness":  func(l *tier.Layout) { l.MaxStaleness = -1 },
	} {
		t.Run(name, func(t *testing.T) {
			l := layout("v1")
			change(&l)
			_, err := New(client).Open(within(t, time.Second), l)
			require.ErrorIs(t, err, tier.ErrUnusable)
		})
	}
	t.Run("a server that is not there is worth another try", func(t *testing.T) {
		_, err := New(client).Open(within(t, time.Second), layout("v1"))
		require.Error(t, err)
		require.NotErrorIs(t, err, tier.ErrUnusable)
	})
}

func TestServersThatCannotWorkAreRefused(t *testing.T) {
	server, client := single(t)
	ctx := within(t, 10*time.Second)
	unusable := func(client redis.UniversalClient, namespace string) {
		t.Helper()
		l := layout("v1")
		l.Namespace = namespace
		_, err := New(client).Open(ctx, l)
		require.ErrorIs(t, err, tier.ErrUnusable)
		t.Log(err)
	}
	require.NoError(t, client.HSet(ctx, "later:layout", "protocol", tier.Protocol+1, "partitions", 4).Err())
	unusable(client, "later")
	require.NoError(t, client.HSet(ctx, "garbled:layout", "protocol", tier.Protocol, "partitions", "many").Err())
	unusable(client, "garbled")
	require.NoError(t, client.Set(ctx, "other:layout", "x", 0).Err())
	unusable(client, "other")

	asCluster := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{server.Addr()}})
	defer asCluster.Close()
	unusable(asCluster, "app")

	require.NoError(t, client.Do(ctx, "ACL", "SETUSER", "reader", "on", ">secret", "~*", "+info").Err())
	may := *client.Options()
	may.Username, may.Password = "reader", "secret"
	limited := redis.NewClient(&may)
	defer limited.Close()
	unusable(limited, "app")
	may.Password = "wrong"
	wrong := redis.NewClient(&may)
	defer wrong.Close()
	unusable(wrong, "app")
}

func TestTheUsersOptionsAreKeptButForTheBounds(t *testing.T) {
	var dialed int
	client := redis.NewClient(&redis.Options{
		Addr: "127.0.0.1:1", DB: 3, Username: "u", Password: "p", PoolSize: 7, Protocol: 2, ClientName: "mine",
		MaxRetries: 9, ReadTimeout: time.Hour,
		Dialer: func(context.Context, string, string) (net.Conn, error) { dialed++; return nil, errors.New("no") },
	})
	defer client.Close()
	n, err := derive(client)
	require.NoError(t, err)
	defer n.close()
	o := n.single.Options()
	require.Equal(t, []any{3, "u", "p", 7, 2, "mine"}, []any{o.DB, o.Username, o.Password, o.PoolSize, o.Protocol, o.ClientName})
	require.Zero(t, o.MaxRetries)
	require.True(t, o.ContextTimeoutEnabled)
	require.Equal(t, ioTimeout, o.ReadTimeout)
	require.Equal(t, 9, client.Options().MaxRetries, "the user's are as they were")
	require.Error(t, n.single.Ping(t.Context()).Err())
	require.Equal(t, 1, dialed)
}

func TestAHangingServerDelaysNoCallBeyondItsDeadline(t *testing.T) {
	server, client := single(t)
	s := open(t, client, layout("v1"))
	l := fill(t, s, "k", "x", "t:x")
	require.NoError(t, server.Stop())
	defer func() { require.NoError(t, server.Continue()) }()
	require.Eventually(t, func() bool { // the signal may take a moment
		_, err := server.Do(within(t, 50*time.Millisecond), "PING")
		return err != nil
	}, time.Second, time.Millisecond)

	const budget = 50 * time.Millisecond
	for name, call := range map[string]func(context.Context) error{
		"get":   func(ctx context.Context) error { _, _, err := s.Get(ctx, "k", []string{"t:x"}); return err },
		"get 1": func(ctx context.Context) error { _, _, err := s.Get(ctx, "k", nil); return err },
		"lease": func(ctx context.Context) error {
			_, err := s.Acquire(ctx, "j", "", []string{"t:x"}, time.Second)
			return err
		},
		"fill": func(ctx context.Context) error { _, err := s.Fill(ctx, l, fillOf(s, l, "y")); return err },
		"change": func(ctx context.Context) error {
			_, err := s.Change(ctx, tier.Change{Items: []tier.Item{{Kind: tier.All}}})
			return err
		},
		"heads": func(ctx context.Context) error { h, _ := s.Heads(ctx); return h[0].Err },
		"scan":  func(ctx context.Context) error { _, err := s.Scan(ctx, scanOf("*")); return err },
		"hints": func(ctx context.Context) error { return s.Hints(ctx, func() {}, func(tier.Hint) {}) },
	} {
		t.Run(name, func(t *testing.T) {
			for range 3 {
				begin := time.Now()
				require.Error(t, call(within(t, budget)))
				require.Less(t, time.Since(begin), 10*budget, "not the seconds of go-redis")
			}
		})
	}
}

func TestADialerThatIgnoresItsContextDelaysNoCall(t *testing.T) {
	hang := make(chan struct{})
	client := redis.NewClient(&redis.Options{Dialer: func(context.Context, string, string) (net.Conn, error) {
		<-hang
		return nil, errors.New("no")
	}})
	defer client.Close()
	begin := time.Now()
	_, err := New(client).Open(within(t, 50*time.Millisecond), layout("v1"))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Less(t, time.Since(begin), 200*time.Millisecond)
	close(hang)
}

// answering is a server that answers every command alike, but for HELLO.
func answering(t *testing.T, answer string) redis.UniversalClient {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				r := bufio.NewReader(c)
				for {
					line, err := r.ReadString('\n')
					if err != nil {
						return
					}
					if !strings.HasPrefix(line, "*") {
						continue
					}
					if _, err = c.Write([]byte(answer)); err != nil {
						return
					}
				}
			}()
		}
	}()
	client := redis.NewClient(&redis.Options{Addr: l.Addr().String(), Protocol: 2, DisableIdentity: true})
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func TestAMalformedReplyIsAnErrorAndNoPanic(t *testing.T) {
	for _, answer := range []string{
		"+OK\r\n", ":1\r\n", ":-9223372036854775808\r\n", "$-1\r\n", "*-1\r\n", "*0\r\n", "*1\r\n$1\r\nx\r\n", "*2\r\n:1\r\n:2\r\n",
		"*3\r\n$4\r\ndone\r\n:1\r\n*0\r\n", "*2\r\n$5\r\nfound\r\n:1\r\n", "*2\r\n$8\r\nversions\r\n:1\r\n",
		"*3\r\n$7\r\nmessage\r\n:1\r\n:2\r\n", "*3\r\n$9\r\nsubscribe\r\n$1\r\nx\r\n$1\r\nx\r\n", "*1\r\n:1\r\n",
		"%1\r\n+a\r\n:1\r\n", "_\r\n", "#t\r\n", ",1.5\r\n", "*9223372036854775807\r\n", "$9223372036854775807\r\n", "?\r\n", "\r\n",
		"-ERR no\r\n", "-NOSCRIPT no\r\n", "-MOVED 1 x\r\n", "-ASK\r\n", "-\r\n",
	} {
		t.Run(strings.TrimSpace(answer), func(t *testing.T) {
			client := answering(t, answer)
			_, err := New(client).Open(within(t, 200*time.Millisecond), layout("v1"))
			require.Error(t, err)

			n, err := derive(client)
			require.NoError(t, err)
			s := newSession(n, layout("v1"))
			defer s.Close()
			l := tier.Lease{Key: "k", Token: "t"}
			ctx := within(t, 500*time.Millisecond)
			for name, call := range map[string]func() error{
				"agree":   func() error { _, err := s.Agree(ctx); return err },
				"acquire": func() error { _, err := s.Acquire(ctx, "k", "", []string{"a", "b"}, time.Second); return err },
				"late":    func() error { _, err := s.Late(ctx, "k", tier.Position{}); return err },
				"log":     func() error { _, err := s.Log(ctx, 0, tier.Position{}); return err },
				"scan":    func() error { _, err := s.Scan(ctx, scanOf("*")); return err },
				"heads":   func() error { h, _ := s.Heads(ctx); return h[0].Err },
				"change": func() error {
					_, err := s.Change(ctx, tier.Change{Items: []tier.Item{{Kind: tier.All}}})
					return err
				},
				"hints": func() error {
					ctx, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
					defer cancel()
					return s.Hints(ctx, func() {}, func(tier.Hint) {})
				},
			} {
				require.Error(t, call(), name)
			}
			_, _, _ = s.Get(ctx, "k", []string{"a"})
			_, _ = s.Fill(ctx, l, tier.Fill{Key: "k"})
			_, _ = s.Extend(ctx, l, time.Second)
			_ = s.Release(ctx, l)
			_ = s.NewEra(ctx, 0, "", true)
			_ = s.Note(ctx, "k", nil, time.Second)
		})
	}
}

func TestAnAddressThatNowNamesAReplicaIsLeft(t *testing.T) {
	first, _ := single(t)
	ctx := within(t, 30*time.Second)
	second, err := redisserver.StartReplica(ctx, first, redisserver.Options{})
	require.NoError(t, err)
	defer second.Close()
	to := first
	client := redis.NewClient(&redis.Options{Dialer: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", to.Addr())
	}})
	defer client.Close()
	s := open(t, client, layout("v1"))
	before := heads(t, s)
	require.NoError(t, first.WaitReplicated(ctx))

	host, port, _ := strings.Cut(second.Addr(), ":")
	_, err = second.Do(ctx, "REPLICAOF", "NO", "ONE")
	require.NoError(t, err)
	_, err = first.Do(ctx, "REPLICAOF", host, port)
	require.NoError(t, err)
	to = second

	after, err := s.Heads(ctx)
	require.NoError(t, err)
	require.Error(t, after[0].Err)
	after = heads(t, s)
	require.Equal(t, before[0].Era, after[0].Era)
	require.NotEqual(t, before[0].Server, after[0].Server, "a promotion is another server")
	require.Equal(t, before[0].Server, after[0].Confirmed)
}
