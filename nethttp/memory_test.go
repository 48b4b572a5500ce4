package nethttp_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/nethttp"
)

// heapInUse is the memory of all that is reachable.
func heapInUse() int {
	runtime.GC()
	runtime.GC() // what pools and weak pointers keep for one collection
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// pagesOf is a server of pages, by number.
func pagesOf(t *testing.T, maxBytes int64, serve func(w http.ResponseWriter, id string)) (cache *core.Cache, get func(id int, fields ...string)) {
	t.Helper()
	cache, err := core.New(core.Options{MaxBytes: maxBytes, Classes: core.Classes{"page": {TTL: time.Hour}}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, cache.Close()) })
	mux := http.NewServeMux()
	mux.Handle("GET /pages/{id}", nethttp.Cache(cache, "page", "page:{id}")(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		serve(w, r.PathValue("id"))
	})))
	return cache, func(id int, fields ...string) {
		r := httptest.NewRequest(http.MethodGet, fmt.Sprint("/pages/", id), nil)
		for _, f := range fields {
			name, value, _ := strings.Cut(f, ": ")
			r.Header.Set(name, value)
		}
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		require.Equal(t, http.StatusOK, w.Code)
	}
}

// Pages of different kinds: what they are weighed by is what they take, also after hits of clients that accept content
// codings.
func TestAPageTakesTheMemoryThatItIsWeighedBy(t *testing.T) {
	body := func(size int) []byte { return []byte(strings.Repeat("x", size)) }
	fields := func(w http.ResponseWriter, pairs ...string) {
		for i := 0; i < len(pairs); i += 2 {
			w.Header().Set(pairs[i], pairs[i+1])
		}
	}
	for name, serve := range map[string]func(w http.ResponseWriter, id string){
		"small": func(w http.ResponseWriter, _ string) { _, _ = w.Write(body(200)) },
		"plain": func(w http.ResponseWriter, _ string) {
			fields(w, "Content-Type", "text/html; charset=utf-8", "Cache-Control", "max-age=60", "X-Frame-Options", "DENY",
				"X-Content-Type-Options", "nosniff", "Referrer-Policy", "no-referrer", "Content-Language", "en")
			_, _ = w.Write(body(1 << 10))
		},
		"with values of its own": func(w http.ResponseWriter, id string) {
			fields(w, "Content-Type", "application/json", "Etag", `"`+id+`-`+strings.Repeat("e", 20)+`"`,
				"Last-Modified", time.Unix(1_700_000_000, 0).UTC().Format(http.TimeFormat), "X-Request-Id", strings.Repeat(id, 5))
			_, _ = w.Write(body(3000))
		},
		"large": func(w http.ResponseWriter, _ string) { _, _ = w.Write(body(20_000)) },
	} {
		t.Run(name, func(t *testing.T) {
			const pages = 3_000
			before := heapInUse()
			cache, get := pagesOf(t, 1<<30, serve)
			for id := range pages {
				get(id)
				get(id)
				get(id, "Accept-Encoding: gzip")
			}
			taken := heapInUse() - before
			s := cache.Stats()
			require.Equal(t, pages, s.Entries)
			t.Logf("%d bytes per page, weighed %d: %.3f", taken/pages, s.Bytes/pages, float64(taken)/float64(s.Bytes))
			require.Less(t, taken, int(s.Bytes)*103/100)
			require.InEpsilon(t, s.Bytes, taken, 0.2)
			runtime.KeepAlive(cache)
		})
	}
}

func TestAFullCacheOfPagesTakesNoMoreThanMaxBytes(t *testing.T) {
	const most = 8 << 20
	content := []byte(strings.Repeat("x", 1<<10))
	before := heapInUse()
	cache, get := pagesOf(t, most, func(w http.ResponseWriter, _ string) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Cache-Control", "max-age=3600")
		_, _ = w.Write(content)
	})
	random := rand.NewZipf(rand.New(rand.NewPCG(1, 2)), 1.1, 1, 100_000)
	for i := range 60_000 {
		get(int(random.Uint64()), "Accept-Encoding: gzip")
		if i%10_000 == 0 {
			runtime.GC()
		}
	}
	taken := heapInUse() - before
	s := cache.Stats()
	require.Positive(t, s.Evicted)
	t.Logf("%.3f of MaxBytes, %.3f of what is weighed; %d pages of %d bytes; %d tags", float64(taken)/most, float64(taken)/float64(s.Bytes),
		s.Entries, s.Bytes/uint64(s.Entries), s.Tags)
	require.Less(t, taken, most*103/100)
	require.Greater(t, taken, most*85/100)
	runtime.KeepAlive(cache)
}
