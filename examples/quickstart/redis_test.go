package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"

	"github.com/larderhq/larder/core"
)

func TestTheTourSharesOverRedis(t *testing.T) {
	client := startRedis(t)
	for _, adapter := range []string{"nethttp", "gin"} { // and echo, and fiber
		t.Run(adapter, func(t *testing.T) {
			var out strings.Builder
			err := run(t.Context(), []string{"-tour", "-adapter", adapter, "-orders", strconv.Itoa(fewOrders)}, urlOf(client), &out)
			if err != nil {
				t.Errorf("%v\n%s", err, out.String())
			}
			for _, line := range []string{
				adapter + " and " + another(adapter), "never loaded it", "both servers' subscriptions cut", "InvalidateEverywhere",
				"1000 clients at both servers", "Everything as promised.",
			} {
				if !strings.Contains(out.String(), line) {
					t.Errorf("the tour does not print %q:\n%s", line, out.String())
				}
			}
			keys, err := client.Keys(t.Context(), "*").Result()
			if err != nil || len(keys) > 0 {
				t.Errorf("the tour has left %q, %v", keys, err)
			}
		})
	}
}

func TestTheTourNoticesServersThatDoNotShare(t *testing.T) {
	client := startRedis(t)
	shop := openShop(t)
	var tour *tourist
	// Namespaces of their own are caches of their own.
	err := open(t.Context(), "nethttp", shop, client, "a", func(ctx context.Context, first string, _ *core.Cache) error {
		return open(ctx, "echo", shop, client, "b", func(ctx context.Context, second string, cache *core.Cache) (err error) {
			s := &sharing{second: second, cache: cache, shop: shop, cut: func(context.Context) (int, error) { return 0, nil }}
			tour = &tourist{visitor: visitor{first, &http.Client{Transport: &http.Transport{}}}, queries: shop.Queries}
			defer tour.client.CloseIdleConnections()
			if err := tour.shareRead(ctx, s, visitor{second, tour.client}); err != nil {
				return err
			}
			return tour.everywhere(ctx, s)
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, promise := range []string{"is a hit at the other", "after InvalidateEverywhere the first"} {
		if !strings.Contains(strings.Join(tour.failures, "\n"), promise) {
			t.Errorf("the tour did not notice: %s\n%q", promise, tour.failures)
		}
	}
}

func TestTwoServersShareAFileAndRedis(t *testing.T) {
	client := startRedis(t)
	file := filepath.Join(t.TempDir(), "cheese #1?.db")
	first, _ := start(t, urlOf(client), "-db", file, "-orders", "10")
	second, _ := start(t, urlOf(client), "-db", file, "-orders", "10", "-adapter", "fiber")

	web := &http.Client{Transport: &http.Transport{}}
	defer web.CloseIdleConnections()
	a, b := visitor{"http://" + first, web}, visitor{"http://" + second, web}
	get := func(v visitor) (reply, int64) {
		t.Helper()
		r, err := v.get(t.Context(), "/products/5", nil)
		if err != nil {
			t.Fatal(err)
		}
		cents, err := r.price()
		if err != nil {
			t.Fatal(err)
		}
		return r, cents
	}
	if r, _ := get(a); r.hit() {
		t.Errorf("the first request is answered %q", r.cacheStatus())
	}
	if r, _ := get(b); !r.hit() {
		t.Errorf("the other server answers %q", r.cacheStatus())
	}
	put, err := b.put(t.Context(), "/products/5", 4321)
	if err != nil || put.status != http.StatusNoContent {
		t.Fatalf("the update: status %d, %v", put.status, err)
	}
	for done := time.Now(); ; {
		began := time.Since(done)
		if _, cents := get(a); cents == 4321 {
			break
		}
		if began >= maxStaleness {
			t.Fatalf("the first server answers the old price %v after the update", began)
		}
	}

	// A published message is heard, at best effort.
	if r, _ := get(a); !r.hit() {
		t.Errorf("before PUBLISH: %q", r.cacheStatus())
	}
	if err := client.Publish(t.Context(), "quickstart:invalidate", "tag:product:5").Err(); err != nil {
		t.Fatal(err)
	}
	for done := time.Now(); ; {
		if r, _ := get(a); !r.hit() {
			break
		}
		if time.Since(done) > 10*time.Second {
			t.Fatal("PUBLISH is not heard")
		}
	}
}

func TestANewFileIsNotAnsweredFromTheCacheOfAnOldOne(t *testing.T) {
	client := startRedis(t)
	web := &http.Client{Transport: &http.Transport{}}
	defer web.CloseIdleConnections()
	for range 2 {
		file := filepath.Join(t.TempDir(), "shop.db")
		address, stop := start(t, urlOf(client), "-db", file, "-orders", "10")
		r, err := visitor{"http://" + address, web}.get(t.Context(), "/products/5", nil)
		if err != nil || r.hit() {
			t.Errorf("the first request to a new shop is answered %q, %v", r.cacheStatus(), err)
		}
		web.CloseIdleConnections()
		stop()
	}
}

func TestShopsShareAFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "shop.db")
	shops, errs := make([]*Shop, 4), make([]error, 4)
	var all sync.WaitGroup
	for i := range shops {
		all.Go(func() { shops[i], errs[i] = OpenShop(t.Context(), file, fewOrders) })
	}
	all.Wait()
	made := 0
	for i, s := range shops {
		if errs[i] != nil {
			t.Fatal(errs[i])
		}
		defer s.Close()
		if s.Made() {
			made++
		}
	}
	if made != 1 {
		t.Errorf("%d shops have filled the file", made)
	}
	if err := shops[0].setPrice(t.Context(), 1, 4321); err != nil {
		t.Fatal(err)
	}
	if p, err := shops[1].Product(t.Context(), "1"); err != nil || p.PriceCents != 4321 {
		t.Errorf("the other shop says %d, %v", p.PriceCents, err)
	}
}

func TestABadREDIS_URLIsNamed(t *testing.T) {
	for _, redisURL := range []string{
		"http://user:hunter2@localhost", "redis://user:hunter2@localhost:port", "redis://user:hunter2@localhost/first",
		"redis://a:6379,b:6379", "redis://a,b:6379", "localhost:6379", "redis://localhost?colour=red", "nonsense",
	} {
		err := run(t.Context(), []string{"-orders", "0"}, redisURL, io.Discard)
		if err == nil || !strings.Contains(err.Error(), "REDIS_URL: ") || !strings.Contains(err.Error(), "redis://[user:password@]host") {
			t.Errorf("REDIS_URL=%s: %v", redisURL, err)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error shows the password: %v", err)
		}
	}
}

func TestAnUnreachableRedisIsNotFatal(t *testing.T) {
	logging.Disable() // go-redis has a logger of its own
	defer logging.Enable()
	var log logBuffer
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	defer slog.SetDefault(before)

	nobody := "redis://" + freeAddress(t)
	address, stop := start(t, nobody, "-orders", "10")
	web := &http.Client{Transport: &http.Transport{}}
	defer web.CloseIdleConnections()
	for range 2 {
		r, err := visitor{"http://" + address, web}.get(t.Context(), "/products/5", nil)
		if err != nil || r.status != http.StatusOK || r.hit() {
			t.Errorf("without Redis: status %d, %q, %v", r.status, r.cacheStatus(), err)
		}
	}
	web.CloseIdleConnections()
	stop()
	if !strings.Contains(log.String(), "the shared tier does not answer") {
		t.Errorf("the log does not say that Redis cannot be reached:\n%s", log.String())
	}
	if err := run(t.Context(), []string{"-tour", "-orders", "10"}, nobody, io.Discard); err == nil {
		t.Error("the tour shows how to share over a Redis that is not there")
	}
}

// logBuffer is a buffer that goroutines may write to.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// startRedis starts a server that the test's end stops, and returns a client.
func startRedis(t *testing.T) *redis.Client {
	t.Helper()
	binary, err := exec.LookPath("redis-server")
	if err != nil {
		t.Fatalf("this test starts a redis-server: make deps installs it, or apt-get install redis-server, brew install redis (%v)", err)
	}
	address := freeAddress(t)
	_, port, _ := net.SplitHostPort(address)
	var log logBuffer
	server := exec.Command(binary, "--bind", "127.0.0.1", "--port", port, "--save", "", "--dir", t.TempDir())
	server.Stdout, server.Stderr = &log, &log
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(&redis.Options{Addr: address, DialerRetries: 1})
	t.Cleanup(func() {
		_ = client.Close()
		_ = server.Process.Kill()
		_ = server.Wait() // says that it was killed
	})
	for until := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			_ = conn.Close()
			return client
		}
		if time.Now().After(until) {
			t.Fatalf("redis-server on %s: %v\n%s", address, err, log.String())
		}
	}
}

// freeAddress returns an address without a listener.
func freeAddress(t *testing.T) string {
	t.Helper()
	l := listen(t)
	defer l.Close()
	return l.Addr().String()
}

func urlOf(client *redis.Client) string { return fmt.Sprintf("redis://%s", client.Options().Addr) }
