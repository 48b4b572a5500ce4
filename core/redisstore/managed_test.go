package redisstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/test/redisserver"
	"github.com/larderhq/larder/core/redisstore"
)

// served is what came of an app that uses all of the cache over some server.
type served struct {
	refused error    // by New
	wrong   []string // what did not work, or more slowly than it should
	log     string
}

// says reports whether the app, or its operator, was told of something.
func (s *served) says(text string) bool {
	said := s.log
	if s.refused != nil {
		said += s.refused.Error()
	}
	return strings.Contains(strings.ToLower(said), strings.ToLower(text))
}

// noted is a log in memory.
type noted struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (n *noted) Write(p []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.b.Write(p)
}

func (n *noted) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.b.String()
}

const (
	// managedStaleness is how long two instances of the tests may be behind.
	managedStaleness = time.Second
	// atOnce is much less than it, and much more than a message takes.
	atOnce = managedStaleness / 3
)

// anyApp is two instances of a cache over one server.
type anyApp struct {
	t      *testing.T
	caches [2]*core.Cache
	maps   [2]*core.Map[int, int64]
	data   atomic.Int64
	loads  atomic.Int64
	lines  *noted
	served
}

// use runs an app over the servers of the client, and reports the calls that did not work.
// Every answer must be right in any case.
func use(t *testing.T, client redis.UniversalClient) *served {
	t.Helper()
	a := start(t, client)
	if a.refused == nil {
		a.share()
		a.invalidateAll()
		a.writeBehind()
	}
	a.log += a.lines.String()
	return &a.served
}

func start(t *testing.T, client redis.UniversalClient) *anyApp {
	t.Helper()
	a := &anyApp{t: t, lines: new(noted)}
	for i := range a.maps {
		c, err := core.New(core.Options{
			Remote: redisstore.New(client), RequireRemote: true, MaxStaleness: managedStaleness, RemoteBudget: time.Second,
			Classes: core.Classes{"c": {TTL: time.Hour}}, Logger: slog.New(slog.NewTextHandler(a.lines, nil)),
		})
		if err != nil {
			a.refused = err
			return a
		}
		t.Cleanup(func() { require.NoError(t, c.Close()) })
		a.caches[i] = c
		a.maps[i], err = core.NewMap(c, core.MapOptions[int, int64]{Class: "c", Prefix: "x"})
		require.NoError(t, err)
	}
	return a
}

func (a *anyApp) invalidateAll() {
	for name, target := range map[string]core.Target{
		"tag": core.Tag("t"), "key": core.Key("x:1"), "pattern": core.Pattern("x:*"), "all": core.All(),
	} {
		a.invalidate(name, target)
	}
}

func (a *anyApp) fails(format string, args ...any) {
	a.wrong = append(a.wrong, fmt.Sprintf(format, args...))
}

func (a *anyApp) get(i, id int) int64 {
	v, err := a.maps[i].Get(a.t.Context(), id, func(ctx context.Context, _ int) (int64, error) {
		a.loads.Add(1)
		return a.data.Load(), core.AddTags(ctx, "t")
	})
	require.NoError(a.t, err)
	return v
}

// share demands that one load is enough for both.
func (a *anyApp) share() {
	for range 3 {
		a.get(0, 1)
		a.get(1, 1)
	}
	if n := a.loads.Load(); n != 1 {
		a.fails("two instances loaded %d times", n)
	}
}

// invalidate demands that the other instance answers the new value, soon.
func (a *anyApp) invalidate(name string, target core.Target) {
	a.get(0, 1)
	a.get(1, 1)
	want := a.data.Add(1)
	ctx, cancel := context.WithTimeout(a.t.Context(), time.Second)
	defer cancel()
	if err := a.caches[0].Invalidate(ctx, target); err != nil {
		a.fails("invalidate by %s: %v", name, err)
		a.log += err.Error()
		return
	}
	began := time.Now()
	for a.get(1, 1) != want {
		require.Less(a.t, time.Since(began), 2*managedStaleness, "stale, by %s", name)
		time.Sleep(5 * time.Millisecond)
	}
	if time.Since(began) > atOnce {
		a.fails("by %s it was heard of after %v", name, time.Since(began))
	}
}

// queue makes a queue that tells of the last value that was applied.
func (a *anyApp) queue() (*core.WriteBehind[int, int64], *atomic.Int64) {
	applied := new(atomic.Int64)
	q, err := core.NewWriteBehind(a.maps[0], func(_ context.Context, changes []core.Change[int, int64]) error {
		applied.Store(changes[len(changes)-1].Value)
		return nil
	}, core.WriteBehindOptions[int, int64]{})
	if err != nil {
		a.fails("write-behind: %v", err)
		a.log += err.Error()
	}
	return q, applied
}

// writeBehind demands that a change that is queued is applied.
func (a *anyApp) writeBehind() {
	ctx, cancel := context.WithTimeout(a.t.Context(), 2*time.Second)
	defer cancel()
	q, applied := a.queue()
	if q == nil {
		return
	}
	err := q.Put(ctx, 1, 4711)
	if err == nil {
		err = q.Flush(ctx)
	}
	if err == nil && applied.Load() != 4711 {
		err = errors.New("it was not applied")
	}
	if err != nil {
		a.fails("write-behind: %v", err)
		a.log += err.Error()
	}
}

func TestARightThatIsWithdrawnIsNeverMissedInSilence(t *testing.T) {
	for _, command := range []string{
		"EVALSHA", "GET", "GETRANGE", "HGET", "HGETALL", "HMGET", "HDEL", "HSET", "INFO", "MGET", "SET", "TIME", "UNLINK",
		"XADD", "XRANGE", "ZADD", "ZCARD", "ZRANGE", "ZREM",
	} {
		t.Run(command, func(t *testing.T) {
			t.Parallel() // it waits most of the time
			server := redisserver.Single(t)
			user := func(rights string) {
				_, err := server.Do(t.Context(), strings.Fields("ACL SETUSER some on >x ~* &* "+rights)...)
				require.NoError(t, err)
			}
			user("+@all")
			client := redis.NewClient(&redis.Options{Addr: server.Addr(), Username: "some", Password: "x"})
			defer client.Close()
			a := start(t, client)
			require.NoError(t, a.refused)
			a.share()
			q, applied := a.queue()
			require.NoError(t, q.Put(t.Context(), 1, 1))
			require.NoError(t, q.Flush(t.Context()))

			user("-" + strings.ToLower(command))
			a.invalidateAll()
			queued := int64(1)
			for v := queued + 1; v < 4; v++ {
				ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
				if err := q.Put(ctx, 1, v); err == nil {
					queued = v
				} else {
					a.fails("put: %v", err)
				}
				cancel()
			}
			if len(a.wrong) > 0 {
				require.Contains(t, a.lines.String(), "refuses", a.wrong)
			}
			t.Log(a.wrong)

			user("+@all")
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			require.NoError(t, q.Flush(ctx))
			require.GreaterOrEqual(t, applied.Load(), queued, "a change that was queued is lost")
			require.Eventually(t, func() bool { return a.caches[0].Stats().Pending == 0 }, 20*time.Second, 10*time.Millisecond)
			time.Sleep(2 * managedStaleness)
			want := a.data.Add(1)
			require.NoError(t, a.caches[0].Invalidate(ctx, core.Key("x:1")))
			require.Eventually(t, func() bool { return a.get(1, 1) == want }, 2*managedStaleness, 5*time.Millisecond)
		})
	}
}

// scriptCommands are those that the scripts call.
func scriptCommands(t *testing.T) (commands []string) {
	t.Helper()
	called := regexp.MustCompile(`redis\.p?call\('([A-Z]+)'`)
	files, err := filepath.Glob("lua/*.lua")
	require.NoError(t, err)
	for _, file := range files {
		source, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, m := range called.FindAllStringSubmatch(string(source), -1) {
			commands = append(commands, m[1])
		}
	}
	slices.Sort(commands)
	return slices.Compact(commands)
}

// directCommands are those that are sent outside of scripts, when a connection is made
// and later.
var directCommands = []string{
	"EVAL", "EVALSHA", "GET", "MGET", "HDEL", "HMGET", "INFO", "TIME", "SCAN", "UNLINK", "XRANGE", "SUBSCRIBE", "PING",
	"HELLO", "CLIENT", "COMMAND", "CLUSTER", "CONFIG", "ACL", "ROLE",
}

func TestDirectCommandsAreAllThatTheProgramSends(t *testing.T) {
	sent := make(map[string]bool)
	var mu sync.Mutex
	f := redisserver.StartFilter(t, redisserver.Single(t).Addr(), &redisserver.Filter{
		Command: func(args []string) ([]string, string) {
			mu.Lock()
			defer mu.Unlock()
			sent[strings.ToUpper(args[0])] = true
			return args, ""
		},
	})
	s := use(t, clientOf(t, f.Addr()))
	require.NoError(t, s.refused)
	require.Empty(t, s.wrong)
	require.NotContains(t, s.log, "WARN")
	mu.Lock()
	defer mu.Unlock()
	for command := range sent {
		require.Contains(t, directCommands, command)
	}
	require.NotContains(t, sent, "CLIENT", "SETINFO is refused to users of ACL, from Redis 7.2 on")
}

func clientOf(t *testing.T, addr string) *redis.Client {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: addr})
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// needless are commands whose refusal costs nothing on one server.
var needless = []string{"PING", "CLIENT", "SPUBLISH"}

// judgeRefusal demands that nothing fails in silence: the error or the log names the
// command, whether Larder refuses the server or works with less.
func judgeRefusal(t *testing.T, s *served, command string) {
	t.Helper()
	t.Logf("%s: refused: %v; lacks: %v", command, s.refused, s.wrong)
	if s.refused != nil {
		require.ErrorIs(t, s.refused, core.ErrUnusable)
	}
	if s.refused == nil && len(s.wrong) == 0 && slices.Contains(needless, command) {
		return
	}
	require.True(t, s.says(command), "nobody was told of %s:\n%s", command, s.log)
	require.LessOrEqual(t, strings.Count(s.log, "WARN"), 4, "it is told once or twice by each instance:\n%s", s.log)
}

func TestACommandThatScriptsMayNotCallIsNeverMissedInSilence(t *testing.T) {
	t.Parallel()
	server := redisserver.Single(t)
	for _, command := range scriptCommands(t) {
		t.Run(command, func(t *testing.T) {
			for _, line := range []string{"FLUSHALL", "SCRIPT FLUSH"} {
				_, err := server.Do(t.Context(), strings.Fields(line)...)
				require.NoError(t, err)
			}
			f := redisserver.StartFilter(t, server.Addr(), &redisserver.Filter{Command: notInScripts("'" + command + "'")})
			judgeRefusal(t, use(t, clientOf(t, f.Addr())), command)
		})
	}
}

// notInScripts makes scripts call what no script may, in the place of a command.
func notInScripts(command string) func([]string) ([]string, string) {
	return func(args []string) ([]string, string) {
		if strings.EqualFold(args[0], "eval") {
			// The probe names the tried command beside the call, as the reason does.
			args = slices.Clone(args)
			args[1] = regexp.MustCompile(`(redis\.p?call\()`+command).ReplaceAllString(args[1], "${1}'EXEC'")
		}
		return args, ""
	}
}

func TestACommandThatAUserMayNotSendIsNeverMissedInSilence(t *testing.T) {
	t.Parallel()
	server := redisserver.Single(t)
	for _, command := range append(directCommands, scriptCommands(t)...) {
		if slices.Contains([]string{"HELLO", "ACL", "CONFIG", "COMMAND", "CLUSTER", "ROLE"}, command) {
			continue // the program does not send it to one server, or goes on without
		}
		t.Run(command, func(t *testing.T) {
			for _, line := range []string{
				"FLUSHALL", "SCRIPT FLUSH", "ACL DELUSER less", "ACL SETUSER less on >x ~* &* +@all -" + strings.ToLower(command),
			} {
				_, err := server.Do(t.Context(), strings.Fields(line)...)
				require.NoError(t, err)
			}
			client := redis.NewClient(&redis.Options{Addr: server.Addr(), Username: "less", Password: "x"})
			defer client.Close()
			judgeRefusal(t, use(t, client), command)
		})
	}
}

// managed are restrictions that services document, see MANAGED.md. Each row has what
// the app is to make of it.
var managed = []struct {
	name    string
	filter  *redisserver.Filter
	refuses string // the error of New
	less    string // the log's line, where something is lost
}{
	{name: "no INFO in scripts", filter: &redisserver.Filter{Command: notInScripts("'INFO'")}, less: "INFO"},
	{name: "no PUBLISH in scripts", filter: &redisserver.Filter{Command: notInScripts("'S?PUBLISH'")}, less: "PUBLISH"},
	{name: "keys only as KEYS", filter: &redisserver.Filter{Command: onlyKEYS}, refuses: "KEYS array"},
	{name: "no unpack", filter: &redisserver.Filter{Command: before("local unpack = nil ")}, refuses: "unpack"},
	{name: "Lua 5.4", filter: &redisserver.Filter{
		Command: before("local table = setmetatable({unpack = unpack}, {__index = table}) local unpack = nil "),
	}},
	{name: "no RESP3", filter: &redisserver.Filter{Command: answers("-NOPROTO unsupported protocol version\r\n", "HELLO")}},
	{name: "no HELLO", filter: &redisserver.Filter{Command: unknown("HELLO")}},
	{name: "no ACL", filter: &redisserver.Filter{Command: unknown("ACL")}},
	{name: "no CLIENT, CLUSTER, COMMAND, CONFIG", filter: &redisserver.Filter{
		Command: unknown("CLIENT", "CLUSTER", "COMMAND", "CONFIG", "OBJECT", "MONITOR"),
	}},
	{name: "no EVALSHA", filter: &redisserver.Filter{Command: unknown("EVALSHA")}, refuses: "evalsha"},
	{name: "no EVAL for this user", filter: &redisserver.Filter{
		Command: answers("-ERR command eval not support for normal user\r\n", "EVAL"),
	}, refuses: "eval not support"},
	{name: "no SCAN", filter: &redisserver.Filter{Command: unknown("SCAN")}, less: "SCAN"},
	{name: "no SUBSCRIBE", filter: &redisserver.Filter{Command: unknown("SUBSCRIBE")}, less: "SUBSCRIBE"},
	{name: "INFO without role", filter: &redisserver.Filter{Info: without("role")}, refuses: "no role"},
	{name: "INFO without master_replid", filter: &redisserver.Filter{Info: without("master_replid")}, refuses: "no master_replid"},
	{name: "INFO without run_id", filter: &redisserver.Filter{Info: without("run_id")}},
	{name: "INFO without redis_version", filter: &redisserver.Filter{Info: without("redis_version")}},
	{name: "INFO without cluster_enabled", filter: &redisserver.Filter{Info: without("cluster_enabled")}},
	{name: "INFO without maxmemory_policy", filter: &redisserver.Filter{Info: without("maxmemory_policy")}, less: "maxmemory_policy"},
	{name: "INFO without keyspace", filter: &redisserver.Filter{Info: without("db0")}},
	{name: "one endpoint of a cluster, which INFO says", filter: &redisserver.Filter{
		Info: func(text string) string { return strings.ReplaceAll(text, "cluster_enabled:0", "cluster_enabled:1") },
	}, refuses: "ClusterClient"},
	{name: "one endpoint of several servers", filter: &redisserver.Filter{Info: ofSeveral()}, refuses: "another server"},
	{name: "one endpoint with an id of its own", filter: &redisserver.Filter{
		Info: replacing("master_replid", strings.Repeat("a", 40)),
	}, refuses: "another server"},
	{name: "Redis 6.0", filter: &redisserver.Filter{Info: replacing("redis_version", "6.0.20")}, refuses: "6.2.7"},
	{name: "Redis 6.2.6", filter: &redisserver.Filter{Info: replacing("redis_version", "6.2.6")}, less: "6.2.7"},
	{name: "miniredis", filter: &redisserver.Filter{Command: asMiniredis}, refuses: "tests need a redis-server"},
}

func TestManagedServers(t *testing.T) {
	t.Parallel()
	for _, row := range managed {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			server := redisserver.Single(t)
			f := redisserver.StartFilter(t, server.Addr(), row.filter)
			s := use(t, clientOf(t, f.Addr()))
			t.Logf("refused: %v; lacks: %v\n%s", s.refused, s.wrong, s.log)
			if row.refuses != "" {
				require.ErrorContains(t, s.refused, row.refuses)
				return
			}
			require.NoError(t, s.refused)
			if row.less != "" {
				require.True(t, s.says(row.less), s.log)
				return
			}
			require.Empty(t, s.wrong)
			require.NotContains(t, s.log, "WARN")
		})
	}
}

func TestEachManagedRestrictionIsDocumented(t *testing.T) {
	text, err := os.ReadFile("MANAGED.md")
	require.NoError(t, err)
	for _, row := range managed {
		require.Contains(t, string(text), "| "+row.name+" |")
	}
}

// before puts something before each script.
func before(lua string) func([]string) ([]string, string) {
	return func(args []string) ([]string, string) {
		if strings.EqualFold(args[0], "eval") {
			args = slices.Clone(args)
			args[1] = lua + args[1]
		}
		return args, ""
	}
}

// onlyKEYS refuses scripts as a proxy does that reads them.
func onlyKEYS(args []string) ([]string, string) {
	if strings.EqualFold(args[0], "eval") && regexp.MustCompile(`redis\.p?call\('[A-Z]+', [^K'"]`).MatchString(args[1]) {
		return nil, "-ERR bad lua script for redis cluster, all the keys that the script uses should be passed using the KEYS array\r\n"
	}
	return args, ""
}

func answers(answer string, commands ...string) func([]string) ([]string, string) {
	return func(args []string) ([]string, string) {
		if slices.Contains(commands, strings.ToUpper(args[0])) {
			return nil, answer
		}
		return args, ""
	}
}

func unknown(commands ...string) func([]string) ([]string, string) {
	return func(args []string) ([]string, string) {
		return answers(fmt.Sprintf("-ERR unknown command '%s', with args beginning with: \r\n", args[0]), commands...)(args)
	}
}

// asMiniredis answers INFO as a fake server does.
func asMiniredis(args []string) ([]string, string) {
	switch {
	case !strings.EqualFold(args[0], "info"):
		return args, ""
	case len(args) > 1:
		return nil, fmt.Sprintf("-section (%s) is not supported\r\n", args[1])
	}
	return nil, "$31\r\n# Clients\r\nconnected_clients:1\r\n\r\n"
}

func without(field string) func(string) string {
	return func(text string) string {
		return regexp.MustCompile(`(?m)^`+field+`:.*\r\n`).ReplaceAllString(text, "")
	}
}

func replacing(field, value string) func(string) string {
	return func(text string) string {
		return regexp.MustCompile(`(?m)^`+field+`:.*\r\n`).ReplaceAllString(text, field+":"+value+"\r\n")
	}
}

// ofSeveral answers INFO from another server each time.
func ofSeveral() func(string) string {
	var n atomic.Int64
	return func(text string) string {
		return replacing("master_replid", fmt.Sprintf("%040d", n.Add(1)%3))(text)
	}
}

func TestAnotherKindOfFailureIsToldToo(t *testing.T) {
	server := redisserver.Single(t)
	proxy, err := redisserver.StartProxy(server.Addr())
	require.NoError(t, err)
	defer proxy.Close()
	log := new(noted)
	c, err := core.New(core.Options{
		Remote: redisstore.New(clientOf(t, proxy.Addr())), MaxStaleness: managedStaleness, Logger: slog.New(slog.NewTextHandler(log, nil)),
	})
	require.NoError(t, err)
	defer c.Close()
	says := func(text string) {
		t.Helper()
		require.Eventually(t, func() bool { return strings.Contains(log.String(), text) }, 10*time.Second, 10*time.Millisecond)
	}
	require.NoError(t, proxy.Refuse(true))
	proxy.Cut()
	says("does not answer")

	_, err = server.Do(t.Context(), "CONFIG", "SET", "requirepass", "other")
	require.NoError(t, err)
	require.NoError(t, proxy.Refuse(false))
	says("NOAUTH")
	before := c.Stats().RemoteErrors
	require.Eventually(t, func() bool { return c.Stats().RemoteErrors > before+3 }, 10*time.Second, 10*time.Millisecond)
	require.Equal(t, 1, strings.Count(log.String(), "kind=NOAUTH"), log.String())
	require.Equal(t, 1, strings.Count(log.String(), "does not answer"), log.String())
}
