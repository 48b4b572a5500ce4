package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/nethttp"
)

// origin is the server behind the caches: net/http with Larder. It counts the
// requests that reach Larder, and their statuses, by path.
type origin struct {
	port  int
	cache *core.Cache
	close func()

	mu       sync.Mutex
	arrivals map[string][]int
	versions map[string]int
}

func newOrigin() (*origin, error) {
	cache, err := core.New(core.Options{Classes: core.Classes{
		"page":   {TTL: time.Minute},
		"follow": {},
		"stale":  {TTL: time.Second, StaleWhileRevalidate: time.Minute},
		"deaf":   {TTL: time.Second, StaleWhileRevalidate: time.Minute, HTTP: core.HTTPPolicy{RequestDirectives: []string{}}},
	}})
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		_ = cache.Close()
		return nil, err
	}
	o := &origin{
		port: l.Addr().(*net.TCPAddr).Port, cache: cache,
		arrivals: map[string][]int{}, versions: map[string]int{},
	}
	srv := &http.Server{Handler: o.counted(o.routes()), ReadHeaderTimeout: 10 * time.Second}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	o.close = func() {
		_ = srv.Close()
		<-done
		_ = cache.Close()
	}
	return o, nil
}

// routes has a resource for each way of stating a lifetime.
func (o *origin) routes() http.Handler {
	mux := http.NewServeMux()
	page := func(class, pattern string, state func(http.Header)) {
		h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			state(w.Header())
			_, _ = io.WriteString(w, o.content(r.URL.Path))
		})
		mux.Handle("GET "+pattern, nethttp.Cache(o.cache, class, "{id}")(h))
	}
	says := func(value string) func(http.Header) {
		return func(h http.Header) { h.Set("Cache-Control", value) }
	}
	page("page", "/silent/{id}", func(http.Header) {})
	page("follow", "/minute/{id}", says("max-age=60"))
	page("follow", "/aged/{id}", func(h http.Header) { h.Set("Cache-Control", "max-age=53"); h.Set("Age", "50") })
	page("follow", "/short/{id}", says("max-age=2"))
	page("follow", "/expires/{id}", func(h http.Header) {
		h.Set("Expires", time.Now().Add(8*time.Second).UTC().Format(http.TimeFormat))
	})
	page("stale", "/stale/{id}", func(http.Header) {})
	page("deaf", "/deaf/{id}", func(http.Header) {})
	mux.Handle("PUT /minute/{id}", nethttp.Invalidate(o.cache, "{id}")(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o.update(r.URL.Path)
		w.WriteHeader(http.StatusNoContent)
	})))
	return mux
}

// content is 4 kB and the version of a path.
func (o *origin) content(path string) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return fmt.Sprintf("version %d %s", o.versions[path], strings.Repeat("0123456789abcdef", 256))
}

// invalidate tells Larder that a path has changed, past the caches in front.
func (o *origin) invalidate(ctx context.Context, path string) error {
	return o.cache.Invalidate(ctx, core.Path(path))
}

func (o *origin) update(path string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.versions[path]++
}

// reached returns the statuses with which Larder has answered requests for a path.
func (o *origin) reached(path string) []int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]int(nil), o.arrivals[path]...)
}

// counted notes each request. The host is the same whatever a cache in front makes
// of it: it is part of what Larder stores under.
func (o *origin) counted(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Host = "shop.example"
		sw := &statusWriter{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(sw, r)
		o.mu.Lock()
		defer o.mu.Unlock()
		o.arrivals[r.URL.Path] = append(o.arrivals[r.URL.Path], sw.status)
	})
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(code int) {
	if code >= http.StatusOK {
		w.status = code
	}
	w.ResponseWriter.WriteHeader(code)
}

func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (o *origin) url() string { return "http://127.0.0.1:" + strconv.Itoa(o.port) }
