package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/redisstore"
	"github.com/larderhq/larder/nethttp"
)

// theLoad is the run time of the handler.
const theLoad = 20 * time.Millisecond

// origin is the handler of all instances, and counts its runs.
type origin struct {
	mu   sync.Mutex
	runs map[string]int
}

func (o *origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	o.runs[r.URL.Path]++
	o.mu.Unlock()
	time.Sleep(theLoad)
	_, _ = w.Write([]byte("body")) // the recorder takes everything
}

// ran returns the number of runs of the handler for a path.
func (o *origin) ran(path string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.runs[path]
}

// instance is a cache, its client of Redis, and its route.
type instance struct {
	cache   *core.Cache
	client  *redis.Client
	handler http.Handler
}

func open(addr, namespace string, budget time.Duration, o *origin) (*instance, error) {
	in := &instance{client: redis.NewClient(&redis.Options{Addr: addr, PoolSize: 32})}
	var err error
	in.cache, err = core.New(core.Options{
		Remote: redisstore.New(in.client), RemoteBudget: budget, Namespace: namespace,
		Classes: core.Classes{"page": {TTL: time.Hour}}, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, errors.Join(err, in.client.Close())
	}
	in.handler = nethttp.Cache(in.cache, "page", "page")(o)
	return in, nil
}

func (in *instance) close() error { return errors.Join(in.cache.Close(), in.client.Close()) }

// recorder is a response that is not read.
type recorder struct {
	header http.Header
	status int
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) Write(b []byte) (int, error) { return len(b), nil }
func (r *recorder) WriteHeader(status int)      { r.status = status }

// get requests a path, and returns the time that it took.
func (in *instance) get(ctx context.Context, path string) (time.Duration, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://site.example"+path, http.NoBody)
	if err != nil {
		return 0, err
	}
	w := &recorder{header: make(http.Header), status: http.StatusOK}
	began := time.Now()
	in.handler.ServeHTTP(w, r)
	took := time.Since(began)
	if w.status != http.StatusOK {
		return took, fmt.Errorf("%s: status %d", path, w.status)
	}
	return took, nil
}
