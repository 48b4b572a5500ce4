package patterns

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// startRedis starts a server of the test's own, which its end stops, and returns
// the address.
func startRedis(t *testing.T) string {
	t.Helper()
	binary, err := exec.LookPath("redis-server")
	if err != nil {
		t.Fatalf("this test starts a redis-server: apt-get install redis-server, or make deps (%v)", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	logFile := filepath.Join(dir, "log")
	server := exec.Command(binary, "--bind", "127.0.0.1", "--port", port, "--save", "", "--dir", dir, "--logfile", logFile)
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait() // says that it was killed
	})
	address := net.JoinHostPort("127.0.0.1", port)
	until(t, "redis-server to listen", func() bool {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			if log, _ := os.ReadFile(logFile); bytes.Contains(log, []byte("Failed listening")) {
				t.Fatalf("redis-server:\n%s", log)
			}
			return false
		}
		_ = conn.Close()
		return true
	})
	return address
}

// connect returns a client that the test's end closes.
func connect(t *testing.T, o *redis.Options) *redis.Client {
	t.Helper()
	o.ContextTimeoutEnabled = true
	o.ReadTimeout, o.WriteTimeout, o.DialTimeout = patience, patience, patience // others may be busy on this machine
	client := redis.NewClient(o)
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// A wire connects a client; it can be cut, and hold a command.
type wire struct {
	mu    sync.Mutex
	down  chan struct{} // closed when it is mended
	word  []byte        // the command to hold
	n     int           // how many of them may pass before
	where func()
}

// cut keeps the client from connecting until it is mended. Connections that it has
// stay.
func (w *wire) cut(t *testing.T) (mend func()) {
	down := make(chan struct{})
	w.mu.Lock()
	w.down = down
	w.mu.Unlock()
	mend = sync.OnceFunc(func() {
		w.mu.Lock()
		w.down = nil
		w.mu.Unlock()
		close(down)
	})
	t.Cleanup(mend)
	return mend
}

// hold stops the client as it is about to send a command after n of the same name.
func (w *wire) hold(t *testing.T, command string, n int) *stop {
	s := newStop(t)
	w.on(command, n, func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		s.pass(ctx)
	})
	return s
}

// on calls do once, before the client sends a command after n of the same name.
func (w *wire) on(command string, n int, do func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.word, w.n, w.where = []byte("\r\n"+command+"\r\n"), n, do
}

func (w *wire) dial(ctx context.Context, network, address string) (net.Conn, error) {
	w.mu.Lock()
	down := w.down
	w.mu.Unlock()
	if down != nil {
		select {
		case <-down:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &wired{conn, w}, nil
}

type wired struct {
	net.Conn
	w *wire
}

func (c *wired) Write(b []byte) (int, error) {
	c.w.mu.Lock()
	var here func()
	if c.w.where != nil && bytes.Contains(bytes.ToLower(b), c.w.word) {
		if c.w.n--; c.w.n < 0 {
			here, c.w.where = c.w.where, nil
		}
	}
	c.w.mu.Unlock()
	if here != nil {
		here()
	}
	return c.Conn.Write(b)
}

// patience bounds every wait of a test for something that happens.
const patience = 15 * time.Second

// until waits until something is so.
func until(t *testing.T, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// receive waits for a caller's result.
func receive[T any](t *testing.T, what string, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		t.Fatalf("waited in vain for %s", what)
		panic("not reached")
	}
}
