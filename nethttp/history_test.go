package nethttp_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/nethttp"
)

// A history over HTTP: handlers that do everything a handler may do, writers that
// announce in every way there is, readers with every kind of request. No answer may
// be older than the last write that had been announced before its request began.
// LARDER_READS says how many requests; pauses here make it interesting and stand
// for nothing.
func TestHistoryOfRequests(t *testing.T) {
	want := int64(20_000)
	if s := os.Getenv("LARDER_READS"); s != "" {
		n, err := strconv.ParseInt(s, 10, 64)
		require.NoError(t, err)
		want = n
	}
	cache, err := core.New(core.Options{
		Logger: slog.New(slog.DiscardHandler),
		Classes: core.Classes{"page": {
			TTL: 3 * time.Millisecond, StaleWhileRevalidate: 5 * time.Millisecond, StaleIfError: 20 * time.Millisecond,
			MaxLoadsAfterError: 3, LoadTimeout: time.Second, HTTP: core.HTTPPolicy{MaxVariants: 3},
		}},
	})
	require.NoError(t, err)
	defer func() { require.NoError(t, cache.Close()) }()

	h := &history{cache: cache, mux: http.NewServeMux()}
	h.mux.Handle("GET /p/{id}", nethttp.Cache(cache, "page", "p:{id}")(http.HandlerFunc(h.show)))
	h.mux.Handle("PUT /p/{id}", nethttp.Invalidate(cache, "p:{id}")(http.HandlerFunc(h.update)))
	h.mux.Handle("POST /late/{id}", nethttp.Invalidate(cache, "late:{id}")(http.HandlerFunc(h.update)))

	var writers, readers sync.WaitGroup
	stop := make(chan struct{})
	for i := range 8 {
		writers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					h.write(i % rows)
					pause(4 * time.Millisecond)
				}
			}
		})
	}
	for range 32 {
		readers.Go(func() {
			for h.reads.Add(1) <= want && h.stale.Load() == 0 {
				h.read(t)
			}
		})
	}
	readers.Wait()
	close(stop)
	writers.Wait()
	t.Logf("HISTORY %d requests, %d answered, %d hits, %d stale", min(h.reads.Load(), want), h.answered.Load(), h.hits.Load(), h.stale.Load())
	require.Zero(t, h.stale.Load())
	require.Positive(t, h.hits.Load())
}

const rows = 3

type history struct {
	cache *core.Cache
	mux   *http.ServeMux

	version   [rows]atomic.Int64 // what is in the database
	announced [rows]atomic.Int64 // that every reader which begins now must see
	turn      [rows]sync.Mutex   // of the writers of a row

	reads, answered, hits, stale atomic.Int64
}

func pause(most time.Duration) { time.Sleep(rand.N(most)) }

func row(r *http.Request) int {
	k, _ := strconv.Atoi(r.PathValue("id"))
	return k
}

func (h *history) show(w http.ResponseWriter, r *http.Request) {
	k := row(r)
	v := h.version[k].Load()
	pause(2 * time.Millisecond)
	switch rand.IntN(12) {
	case 0:
		w.WriteHeader(http.StatusInternalServerError)
		return
	case 1:
		panic(http.ErrAbortHandler)
	case 2:
		w.Header().Set("Vary", "X-A")
	case 3:
		w.Header().Set("Vary", "X-A, X-B")
	case 4:
		w.Header().Set("Cache-Control", "private")
	case 5:
		_ = core.SetTTL(r.Context(), time.Second)
		w.Header().Set("Cache-Control", "public")
	case 6:
		w.Header().Set("Cache-Control", "public, max-age=1, stale-if-error=2")
	case 7:
		w.(http.Flusher).Flush()
	}
	_ = core.AddTags(r.Context(), fmt.Sprintf("late:%d", k))
	_, _ = io.WriteString(w, strconv.FormatInt(v, 10))
}

func (h *history) update(w http.ResponseWriter, r *http.Request) {
	pause(500 * time.Microsecond)
	h.version[row(r)].Add(1)
	pause(500 * time.Microsecond)
	if rand.IntN(3) == 0 {
		_ = core.Invalidate(r.Context(), core.Tag("late:"+r.PathValue("id")))
	}
	switch rand.IntN(4) {
	case 0:
		w.WriteHeader(http.StatusInternalServerError)
	case 1:
		panic(http.ErrAbortHandler)
	}
}

// write changes a row and announces it in one of the ways there are.
func (h *history) write(k int) {
	h.turn[k].Lock()
	defer h.turn[k].Unlock()
	id := strconv.Itoa(k)
	targets := []core.Target{
		core.Tag("p:" + id), core.Tag("late:" + id), core.Path("/p/" + id), core.Path("https://b/p/" + id),
		core.Key("http://a/p/" + id + "?x=1"), core.Pattern("http://a/p/" + id + "*"), core.All(),
	}
	switch i := rand.IntN(len(targets) + 2); i {
	case len(targets):
		h.serve(httptest.NewRequest(http.MethodPut, "http://a/p/"+id, nil))
	case len(targets) + 1:
		h.serve(httptest.NewRequest(http.MethodPost, "http://a/late/"+id, nil))
	default:
		h.version[k].Add(1)
		_ = h.cache.Invalidate(context.Background(), targets[i])
	}
	h.announced[k].Store(h.version[k].Load())
}

func (h *history) read(t *testing.T) {
	k := rand.IntN(rows)
	r := httptest.NewRequest(http.MethodGet, "http://a/p/"+strconv.Itoa(k), nil)
	if rand.IntN(3) == 0 {
		r.Header.Set("X-A", strconv.Itoa(rand.IntN(4)))
	}
	if rand.IntN(3) == 0 {
		r.Header.Set("X-B", strconv.Itoa(rand.IntN(2)))
	}
	switch rand.IntN(10) {
	case 0:
		r.Header.Set("Cookie", "a=b")
	case 1:
		r.Header.Set("Cache-Control", "no-cache")
	case 2:
		r.Header.Set("Range", "bytes=0-")
	case 3:
		r.Header.Set("If-None-Match", `"x"`)
	}
	if rand.IntN(8) == 0 { // a client that gives up
		ctx, cancel := context.WithTimeout(context.Background(), rand.N(1500*time.Microsecond))
		defer cancel()
		r = r.WithContext(ctx)
	}
	least := h.announced[k].Load()
	w, ok := h.serve(r)
	if !ok || w.Code != http.StatusOK {
		return
	}
	h.answered.Add(1)
	if strings.Contains(w.Header().Get("Cache-Status"), "hit") {
		h.hits.Add(1)
	}
	if v, err := strconv.ParseInt(w.Body.String(), 10, 64); err != nil || v < least {
		h.stale.Add(1)
		t.Errorf("STALE: row %d, got %q, announced before it began: %d; %v", k, w.Body, least, w.Header())
	}
}

// serve reports false if the handler panicked.
func (h *history) serve(r *http.Request) (w *httptest.ResponseRecorder, ok bool) {
	w = httptest.NewRecorder()
	defer func() { ok = recover() == nil }()
	h.mux.ServeHTTP(w, r)
	return w, true
}
