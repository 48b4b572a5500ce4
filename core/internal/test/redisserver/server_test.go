package redisserver_test

import (
	"bufio"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/internal/test/redisserver"
)

func TestAServerThatStartedAnswers(t *testing.T) {
	t.Parallel()
	s := redisserver.Single(t, "--maxmemory", "1mb")
	assert.Equal(t, "PONG", do(t, s, "PING"))
	assert.Equal(t, []any{"maxmemory", "1048576"}, do(t, s, "CONFIG", "GET", "maxmemory"))
	assert.Equal(t, []any{"save", ""}, do(t, s, "CONFIG", "GET", "save"))
	assert.Contains(t, s.Log(), "Ready to accept connections")

	_, err := ask(s, "INCR", "a", "b")
	var replied redisserver.ReplyError
	require.ErrorAs(t, err, &replied)
	assert.Contains(t, string(replied), "wrong number of arguments")
}

func TestAServerThatCannotStartSaysWhy(t *testing.T) {
	t.Parallel()
	_, err := redisserver.Start(deadline(t), redisserver.Options{Args: []string{"--maxmemory", "a lot"}})
	require.Error(t, err)
	assert.Contains(t, err.Error(), "maxmemory")

	s := redisserver.Single(t)
	_, err = redisserver.Start(deadline(t), redisserver.Options{Port: s.Port()})
	require.Error(t, err)
	assert.Contains(t, err.Error(), "port is taken")
}

func TestAnotherServerIsTakenWhereOneIsNamed(t *testing.T) {
	path, err := exec.LookPath("redis-server")
	require.NoError(t, err)
	named := filepath.Join(t.TempDir(), "another-server")
	require.NoError(t, os.WriteFile(named, []byte("#!/bin/sh\nexec '"+path+"' \"$@\" --proc-title-template another\n"), 0o700))
	t.Setenv(redisserver.BinaryVariable, named)
	s := redisserver.Single(t)
	assert.Equal(t, []any{"proc-title-template", "another"}, do(t, s, "CONFIG", "GET", "proc-title-template"))

	t.Setenv(redisserver.BinaryVariable, named+"-that-is-not-there")
	_, err = redisserver.Start(deadline(t), redisserver.Options{})
	require.ErrorContains(t, err, redisserver.BinaryVariable)
	require.ErrorContains(t, err, named+"-that-is-not-there")
}

func TestWithoutRedisTheErrorSaysHowToGetIt(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	t.Setenv(redisserver.BinaryVariable, "")
	_, err := redisserver.Start(deadline(t), redisserver.Options{})
	require.ErrorIs(t, err, redisserver.ErrMissing)
	assert.Contains(t, err.Error(), "apt-get install redis-server")
	_, err = redisserver.StartCluster(deadline(t), 3, 1, redisserver.Options{})
	require.ErrorIs(t, err, redisserver.ErrMissing)
	_, err = redisserver.StartSentinel(deadline(t), redisserver.Options{})
	require.ErrorIs(t, err, redisserver.ErrMissing)

	// And a test fails; it is not skipped.
	fatal := make(chan any, 1)
	go func() {
		defer close(fatal)
		redisserver.Single(&failing{t, fatal})
	}()
	said := <-fatal
	require.IsType(t, err, said)
	require.ErrorIs(t, said.(error), redisserver.ErrMissing)
}

// failing is a test that records its failure.
type failing struct {
	*testing.T
	fatal chan<- any
}

func (f *failing) Fatal(args ...any) {
	f.fatal <- args[0]
	runtime.Goexit()
}

func TestAKilledServerRestartsWithTheDataAskedFor(t *testing.T) {
	t.Parallel()
	for name, appendOnly := range map[string]bool{"append-only file": true, "no persistence": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := deadline(t)
			s, err := redisserver.Start(ctx, redisserver.Options{AppendOnly: appendOnly})
			require.NoError(t, err)
			defer s.Close()
			require.ErrorIs(t, s.Restart(ctx, redisserver.Snapshot), redisserver.ErrNoSnapshot)
			require.NoError(t, s.Restart(ctx, redisserver.Empty))

			do(t, s, "SET", "k", "of the snapshot")
			require.NoError(t, s.Snapshot(ctx))
			do(t, s, "SET", "k", "later")

			s.Kill()
			_, err = ask(s, "PING")
			require.ErrorIs(t, err, syscall.ECONNREFUSED)
			require.ErrorIs(t, s.Stop(), redisserver.ErrNotRunning)

			require.NoError(t, s.Restart(ctx, redisserver.AsItWas))
			if appendOnly {
				assert.Equal(t, "later", do(t, s, "GET", "k"))
			} else {
				assert.Equal(t, "of the snapshot", do(t, s, "GET", "k"), "the last RDB file")
			}

			require.NoError(t, s.Restart(ctx, redisserver.Snapshot))
			assert.Equal(t, "of the snapshot", do(t, s, "GET", "k"))
			do(t, s, "SET", "since", "1")
			require.NoError(t, s.Restart(ctx, redisserver.AsItWas))
			assert.Equal(t, "of the snapshot", do(t, s, "GET", "k"))
			if appendOnly {
				assert.Equal(t, "1", do(t, s, "GET", "since"))
			}

			require.NoError(t, s.Restart(ctx, redisserver.Empty))
			assert.Nil(t, do(t, s, "GET", "k"))
			require.NoError(t, s.Restart(ctx, redisserver.Snapshot), "a snapshot outlives the data")
			assert.Equal(t, "of the snapshot", do(t, s, "GET", "k"))
		})
	}
}

func TestAFrozenServerDoesNotAnswerUntilItContinues(t *testing.T) {
	t.Parallel()
	s := redisserver.Single(t)
	require.NoError(t, s.Stop())
	_, err := ask(s, "PING")
	require.ErrorIs(t, err, context.DeadlineExceeded)

	require.NoError(t, s.Continue())
	assert.Equal(t, "PONG", do(t, s, "PING"))

	require.NoError(t, s.Stop())
	s.Kill() // does not wait for it to thaw
	require.NoError(t, s.Restart(deadline(t), redisserver.Empty))
}

func TestCutClientsClosesConnectionsOfItsKindOnly(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	s := redisserver.Single(t)
	normal, subscriber := open(t, s.Addr()), open(t, s.Addr())
	normal.send("PING")
	normal.wants("+PONG")
	subscriber.send("SUBSCRIBE c")
	subscriber.wants("*3", "$9", "subscribe", "$1", "c", ":1")

	n, err := s.CutClients(ctx, redisserver.PubSubClients)
	require.NoError(t, err)
	assert.Equal(t, 1, n)
	subscriber.wantsEnd()
	normal.send("PING")
	normal.wants("+PONG")

	_, err = s.CutClients(ctx, redisserver.NormalClients)
	require.NoError(t, err)
	normal.wantsEnd()
}

func TestCloseEndsAServerForGood(t *testing.T) {
	t.Parallel()
	s, err := redisserver.Start(deadline(t), redisserver.Options{})
	require.NoError(t, err)
	require.DirExists(t, s.Dir())
	require.NoError(t, s.Close())
	require.NoError(t, s.Close())
	require.NoDirExists(t, s.Dir())
	s.Kill()
	require.ErrorIs(t, s.Restart(deadline(t), redisserver.Empty), redisserver.ErrNotRunning)
	assert.Empty(t, s.Log())
}

func TestAReplicaHasWhatItsMasterHas(t *testing.T) {
	t.Parallel()
	master := redisserver.Single(t)
	do(t, master, "SET", "k", "v")
	replica, err := redisserver.StartReplica(deadline(t), master, redisserver.Options{})
	require.NoError(t, err)
	defer replica.Close()
	assert.Equal(t, "v", do(t, replica, "GET", "k"))
	do(t, master, "SET", "k", "w")
	require.NoError(t, master.WaitReplicated(deadline(t)))
	assert.Equal(t, "w", do(t, replica, "GET", "k"))
}

func TestServersEndWithTheProcessThatStartedThem(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), orphan+"=1")
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()

	lines := bufio.NewScanner(out)
	for _, state := range []string{"running", "frozen"} {
		require.True(t, lines.Scan())
		addr, dir, ok := strings.Cut(lines.Text(), " ")
		require.True(t, ok, lines.Text())
		require.True(t, accepts(addr), state)
		require.DirExists(t, dir)
		defer func() {
			require.Eventually(t, func() bool { return !accepts(addr) }, 5*time.Second, pollEvery, state)
			require.Eventually(t, func() bool { _, err := os.Stat(dir); return err != nil }, 5*time.Second, pollEvery, state)
		}()
	}
	require.NoError(t, cmd.Process.Kill()) // SIGKILL
}

const pollEvery = 20 * time.Millisecond

func accepts(addr string) bool {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return false
	}
	return c.Close() == nil
}

// client is a connection that shows when it ends.
type client struct {
	net.Conn
	t *testing.T
	r *bufio.Reader
}

func open(t *testing.T, addr string) *client {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	require.NoError(t, c.SetDeadline(time.Now().Add(10*time.Second)))
	return &client{c, t, bufio.NewReader(c)}
}

func (c *client) send(line string) {
	c.t.Helper()
	_, err := c.Write([]byte(line + "\r\n"))
	require.NoError(c.t, err)
}

func (c *client) wants(lines ...string) {
	c.t.Helper()
	for _, want := range lines {
		got, err := c.r.ReadString('\n')
		require.NoError(c.t, err)
		require.Equal(c.t, want+"\r\n", got)
	}
}

// wantsEnd sees that the connection was closed, which is no timeout.
func (c *client) wantsEnd() {
	c.t.Helper()
	_, err := c.r.ReadByte()
	require.Error(c.t, err)
	require.NotErrorIs(c.t, err, os.ErrDeadlineExceeded)
}
