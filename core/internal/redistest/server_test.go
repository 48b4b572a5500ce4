package redistest_test

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

	"github.com/larderhq/larder/core/internal/redistest"
)

func TestAServerThatStartedAnswers(t *testing.T) {
	t.Parallel()
	s := redistest.Single(t, "--maxmemory", "1mb")
	assert.Equal(t, "PONG", do(t, s, "PING"))
	assert.Equal(t, []any{"maxmemory", "1048576"}, do(t, s, "CONFIG", "GET", "maxmemory"))
	assert.Equal(t, []any{"save", ""}, do(t, s, "CONFIG", "GET", "save"))
	assert.Contains(t, s.Log(), "Ready to accept connections")

	_, err := ask(s, "INCR", "a", "b")
	var replied redistest.ReplyError
	require.ErrorAs(t, err, &replied)
	assert.Contains(t, string(replied), "wrong number of arguments")
}

func TestAServerThatCannotStartSaysWhy(t *testing.T) {
	t.Parallel()
	_, err := redistest.Start(deadline(t), redistest.Options{Args: []string{"--maxmemory", "a lot"}})
	require.Error(t, err)
	assert.Contains(t, err.Error(), "maxmemory")

	s := redistest.Single(t)
	_, err = redistest.Start(deadline(t), redistest.Options{Port: s.Port()})
	require.Error(t, err)
	assert.Contains(t, err.Error(), "port is taken")
}

func TestAnotherServerIsTakenWhereOneIsNamed(t *testing.T) {
	path, err := exec.LookPath("redis-server")
	require.NoError(t, err)
	named := filepath.Join(t.TempDir(), "another-server")
	require.NoError(t, os.WriteFile(named, []byte("#!/bin/sh\nexec '"+path+"' \"$@\" --proc-title-template another\n"), 0o700))
	t.Setenv(redistest.BinaryVariable, named)
	s := redistest.Single(t)
	assert.Equal(t, []any{"proc-title-template", "another"}, do(t, s, "CONFIG", "GET", "proc-title-template"))

	t.Setenv(redistest.BinaryVariable, named+"-that-is-not-there")
	_, err = redistest.Start(deadline(t), redistest.Options{})
	require.ErrorContains(t, err, redistest.BinaryVariable)
	require.ErrorContains(t, err, named+"-that-is-not-there")
}

func TestWithoutRedisTheErrorSaysHowToGetIt(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	t.Setenv(redistest.BinaryVariable, "")
	_, err := redistest.Start(deadline(t), redistest.Options{})
	require.ErrorIs(t, err, redistest.ErrMissing)
	assert.Contains(t, err.Error(), "apt-get install redis-server")
	_, err = redistest.StartCluster(deadline(t), 3, 1, redistest.Options{})
	require.ErrorIs(t, err, redistest.ErrMissing)
	_, err = redistest.StartSentinel(deadline(t), redistest.Options{})
	require.ErrorIs(t, err, redistest.ErrMissing)

	// And a test fails; it is not skipped.
	fatal := make(chan any, 1)
	go func() {
		defer close(fatal)
		redistest.Single(&failing{t, fatal})
	}()
	said := <-fatal
	require.IsType(t, err, said)
	require.ErrorIs(t, said.(error), redistest.ErrMissing)
}

// failing is a test that says what it failed of.
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
			s, err := redistest.Start(ctx, redistest.Options{AppendOnly: appendOnly})
			require.NoError(t, err)
			defer s.Close()
			require.ErrorIs(t, s.Restart(ctx, redistest.Snapshot), redistest.ErrNoSnapshot)
			require.NoError(t, s.Restart(ctx, redistest.Empty))

			do(t, s, "SET", "k", "of the snapshot")
			require.NoError(t, s.Snapshot(ctx))
			do(t, s, "SET", "k", "later")

			s.Kill()
			_, err = ask(s, "PING")
			require.ErrorIs(t, err, syscall.ECONNREFUSED)
			require.ErrorIs(t, s.Stop(), redistest.ErrNotRunning)

			require.NoError(t, s.Restart(ctx, redistest.AsItWas))
			if appendOnly {
				assert.Equal(t, "later", do(t, s, "GET", "k"))
			} else {
				assert.Equal(t, "of the snapshot", do(t, s, "GET", "k"), "the last RDB file")
			}

			require.NoError(t, s.Restart(ctx, redistest.Snapshot))
			assert.Equal(t, "of the snapshot", do(t, s, "GET", "k"))
			do(t, s, "SET", "since", "1")
			require.NoError(t, s.Restart(ctx, redistest.AsItWas))
			assert.Equal(t, "of the snapshot", do(t, s, "GET", "k"))
			if appendOnly {
				assert.Equal(t, "1", do(t, s, "GET", "since"))
			}

			require.NoError(t, s.Restart(ctx, redistest.Empty))
			assert.Nil(t, do(t, s, "GET", "k"))
			require.NoError(t, s.Restart(ctx, redistest.Snapshot), "a snapshot outlives the data")
			assert.Equal(t, "of the snapshot", do(t, s, "GET", "k"))
		})
	}
}

func TestAFrozenServerDoesNotAnswerUntilItContinues(t *testing.T) {
	t.Parallel()
	s := redistest.Single(t)
	require.NoError(t, s.Stop())
	_, err := ask(s, "PING")
	require.ErrorIs(t, err, context.DeadlineExceeded)

	require.NoError(t, s.Continue())
	assert.Equal(t, "PONG", do(t, s, "PING"))

	require.NoError(t, s.Stop())
	s.Kill() // does not wait for it to thaw
	require.NoError(t, s.Restart(deadline(t), redistest.Empty))
}

func TestCutClientsClosesConnectionsOfItsKindOnly(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	s := redistest.Single(t)
	normal, subscriber := open(t, s.Addr()), open(t, s.Addr())
	normal.send("PING")
	normal.wants("+PONG")
	subscriber.send("SUBSCRIBE c")
	subscriber.wants("*3", "$9", "subscribe", "$1", "c", ":1")

	n, err := s.CutClients(ctx, redistest.PubSubClients)
	require.NoError(t, err)
	assert.Equal(t, 1, n)
	subscriber.wantsEnd()
	normal.send("PING")
	normal.wants("+PONG")

	_, err = s.CutClients(ctx, redistest.NormalClients)
	require.NoError(t, err)
	normal.wantsEnd()
}

func TestCloseEndsAServerForGood(t *testing.T) {
	t.Parallel()
	s, err := redistest.Start(deadline(t), redistest.Options{})
	require.NoError(t, err)
	require.DirExists(t, s.Dir())
	require.NoError(t, s.Close())
	require.NoError(t, s.Close())
	require.NoDirExists(t, s.Dir())
	s.Kill()
	require.ErrorIs(t, s.Restart(deadline(t), redistest.Empty), redistest.ErrNotRunning)
	assert.Empty(t, s.Log())
}

func TestAReplicaHasWhatItsMasterHas(t *testing.T) {
	t.Parallel()
	master := redistest.Single(t)
	do(t, master, "SET", "k", "v")
	replica, err := redistest.StartReplica(deadline(t), master, redistest.Options{})
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
