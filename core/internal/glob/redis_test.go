package glob_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/internal/glob"
	"github.com/larderhq/larder/core/internal/test/redisserver"
)

// Redis itself has the last word, since one pattern must mean the same in the tier
// that Redis is and in ours.
func TestPatternsMatchAsInARealRedis(t *testing.T) {
	r := startRedis(t)
	keys := map[string]bool{}
	for len(keys) < 2000 {
		k := random(keyAlphabet, 8)
		if rand.IntN(20) == 0 {
			k += string(byte(0x80 + rand.IntN(0x80))) // not only ASCII
		}
		if k != "" { // Larder has no empty names
			keys[k] = true
		}
	}
	for k := range keys {
		r.send("SET", k, "")
	}
	for range keys {
		require.Equal(t, "OK", r.receive(t))
	}

	matched := 0
	for i := range 1000 {
		pattern := random(patternAlphabet, 10)
		switch {
		case pattern == "":
			continue
		case i%20 == 0: // not as the end of a range: Redis compares C chars there, whose sign is the machine's
			pattern = "*[" + string(byte(0x80+rand.IntN(0x80))) + "]" + pattern
		}
		want := map[string]bool{}
		if i%2 == 0 {
			r.send("KEYS", pattern)
			for _, k := range r.receive(t).([]any) {
				want[k.(string)] = true
			}
		} else {
			for cursor := "0"; ; {
				r.send("SCAN", cursor, "MATCH", pattern, "COUNT", "10000")
				reply := r.receive(t).([]any)
				for _, k := range reply[1].([]any) {
					want[k.(string)] = true
				}
				if cursor = reply[0].(string); cursor == "0" {
					break
				}
			}
		}
		matched += len(want)
		for k := range keys {
			if got := glob.Match(pattern, k); got != want[k] {
				t.Errorf("%q against %q: %v, but Redis says %v", pattern, k, got, want[k])
			}
		}
	}
	t.Logf("%d matches of 1000 patterns and %d keys", matched, len(keys))
	require.Greater(t, matched, 5_000)
}

// FuzzMatchAgainstRedis compares the matcher, and what Cover leaves to a server, with
// Redis's own, through SCAN over one key.
func FuzzMatchAgainstRedis(f *testing.F) {
	for _, seed := range [][2]string{
		{"user:*", "user:42"}, {"*a*b", "xaxb"}, {"[^a-c]?\\*", "dx*"}, {"[a-", "-"}, {"[a-", "a"}, {"[a-]", "_"}, {"[]a]", "a]"},
		{"[]", "]"}, {"[^]", "x"}, {"[^", "x"}, {"[\\", "\\"}, {"[\\]]", "]"}, {"[a\\-c]", "b"}, {"[c-a]", "b"}, {"[--0]", "."},
		{"\\", "\\"}, {"a\\", "a\\"}, {"\\*", "*"}, {"**", "a"}, {"*?*?", "ab"}, {"?", "\xc3"}, {"[\xff]", "\xff"}, {"[^\xff]", "\xfe"},
		{"*a*a*a*a*b", "aaaaaaaaaaaaaaac"}, {"*[^b]*[^c]*[", "abcabc"}, {"^a", "^a"}, {"a\x00*", "a\x00b"}, {"*\n?", "\r\n\t"},
		{"[^-a]", "-"}, {"[a^]", "^"}, {"[[]", "["}, {"[[-]]", "]"}, {"x[*]y", "x*y"}, {"[\xe0-\xff]", "\xf0"},
	} {
		f.Add(seed[0], seed[1])
	}
	r := startRedis(f)
	f.Fuzz(func(t *testing.T, pattern, s string) {
		if len(pattern) > 1024 || len(s) > 1024 || s == "" {
			return // no target is longer, and no name is empty: Redis matches that with "*", and not with "**"
		}
		require.NoError(t, r.conn.SetDeadline(time.Now().Add(10*time.Second)))
		behind := "v\x1f" + s + "\x1fgzip"
		cover := "*\x1f" + glob.Cover(pattern)
		r.send("FLUSHALL", "SYNC")
		r.send("SET", s, "")
		r.send("SCAN", "0", "MATCH", pattern, "COUNT", "1000")
		r.send("FLUSHALL", "SYNC")
		r.send("SET", behind, "")
		r.send("SCAN", "0", "MATCH", cover, "COUNT", "1000")
		var matched [2]bool
		for i := range matched {
			require.Equal(t, "OK", r.receive(t))
			require.Equal(t, "OK", r.receive(t))
			matched[i] = len(r.receive(t).([]any)[1].([]any)) == 1
		}
		got := glob.Match(pattern, s)
		if got != matched[0] && !signed(pattern) {
			t.Errorf("%q against %q: %v, but Redis says %v", pattern, s, got, matched[0])
		}
		if got && !matched[1] {
			t.Errorf("%q matches %q, but Redis does not match %q with %q", pattern, s, behind, cover)
		}
	})
}

// signed reports whether a pattern may hold a range that ends in a byte of more than
// seven bits: Redis compares C chars there, whose sign is the machine's.
func signed(pattern string) bool {
	for i := 1; i+1 < len(pattern); i++ {
		if pattern[i] == '-' && (pattern[i-1] >= 0x80 || pattern[i+1] >= 0x80) {
			return strings.Contains(pattern, "[")
		}
	}
	return false
}

type redis struct {
	conn net.Conn
	in   *bufio.Reader
}

// startRedis starts a Redis that only this test can reach, and ends it with it.
func startRedis(t testing.TB) *redis {
	t.Helper()
	path, err := redisserver.Binary()
	require.NoError(t, err)
	dir := t.TempDir()
	socket := filepath.Join(dir, "s")
	require.Less(t, len(socket), 100, "a unix socket's path has a limit; set TMPDIR to a shorter one")
	server := exec.Command(path, "--port", "0", "--unixsocket", socket, "--dir", dir, "--save", "", "--appendonly", "no", "--daemonize", "no")
	out, err := server.StdoutPipe()
	require.NoError(t, err)
	server.Stderr = server.Stdout
	require.NoError(t, server.Start())
	t.Cleanup(func() {
		_ = server.Process.Kill() // this process, by its id
		_ = server.Wait()
	})

	// It says when it is ready, or why it is not.
	ready := make(chan string)
	go func() {
		var all string
		for lines := bufio.NewScanner(out); lines.Scan(); {
			all += lines.Text() + "\n"
			if strings.Contains(strings.ToLower(lines.Text()), "ready to accept connections") {
				close(ready)
				_, _ = io.Copy(io.Discard, out)
				return
			}
		}
		ready <- all
	}()
	select {
	case log, failed := <-ready:
		require.False(t, failed, "redis-server ended:\n%s", log)
	case <-time.After(30 * time.Second):
		t.Fatal("redis-server is not ready after 30s")
	}
	conn, err := (&net.Dialer{}).DialContext(context.Background(), "unix", socket)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(time.Minute)))
	return &redis{conn, bufio.NewReader(conn)}
}

// send writes a command in RESP.
func (r *redis) send(args ...string) {
	b := []byte(fmt.Sprintf("*%d\r\n", len(args)))
	for _, a := range args {
		b = append(b, fmt.Sprintf("$%d\r\n%s\r\n", len(a), a)...)
	}
	_, _ = r.conn.Write(b) // an error shows when the reply is read
}

func (r *redis) receive(t *testing.T) any {
	t.Helper()
	v, err := r.read()
	require.NoError(t, err)
	return v
}

func (r *redis) read() (any, error) {
	line, err := r.in.ReadString('\n')
	if err != nil || len(line) < 3 {
		return nil, errors.Join(err, errors.New("no reply"))
	}
	rest := line[1 : len(line)-2]
	switch line[0] {
	case '+', ':':
		return rest, nil
	case '$':
		n, err := strconv.Atoi(rest)
		if err != nil || n < 0 {
			return nil, err
		}
		b := make([]byte, n+2)
		_, err = io.ReadFull(r.in, b)
		return string(b[:n]), err
	case '*':
		n, err := strconv.Atoi(rest)
		if err != nil {
			return nil, err
		}
		list := make([]any, n)
		for i := range list {
			if list[i], err = r.read(); err != nil {
				return nil, err
			}
		}
		return list, nil
	default:
		return nil, errors.New(rest)
	}
}
