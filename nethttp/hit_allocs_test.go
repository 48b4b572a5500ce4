//go:build !race

package nethttp_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/nethttp"
)

// headerWriter is a ResponseWriter whose header keeps its memory between answers.
type headerWriter struct {
	header http.Header
	n      int
}

func (w *headerWriter) Header() http.Header         { return w.header }
func (w *headerWriter) WriteHeader(int)             {}
func (w *headerWriter) Write(p []byte) (int, error) { w.n += len(p); return len(p), nil }

// The values of many hits' fields share one allocation, which is none per hit on average.
func TestAHitAllocatesNothing(t *testing.T) {
	cache, err := core.New(core.Options{Classes: core.Classes{"hour": {TTL: time.Hour}}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, cache.Close()) })
	site := nethttp.Cache(cache, "hour", "product:{id}", "catalog")(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for _, name := range []string{"Content-Language", "X-Frame-Options", "Link", "Referrer-Policy", "X-A"} {
			w.Header().Set(name, "a")
		}
		_, _ = w.Write([]byte(strings.Repeat("x", 1<<10)))
	}))
	for _, c := range []struct {
		name   string
		fields []string
	}{
		{"plain", nil},
		{"of a browser", []string{"Accept-Encoding", "Accept-Language", "User-Agent", "Sec-Fetch-Mode", "X-Forwarded-For"}},
		{"behind a proxy", []string{"X-Forwarded-Proto", "X-Forwarded-Host"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://shop.example/p/1?page=1", nil)
			require.NoError(t, err)
			r.SetPathValue("id", "1")
			for _, name := range c.fields {
				r.Header.Set(name, "http")
			}
			w := &headerWriter{header: make(http.Header)}
			site.ServeHTTP(w, r)
			allocs := testing.AllocsPerRun(1000, func() {
				clear(w.header)
				site.ServeHTTP(w, r)
			})
			require.Contains(t, w.header.Get("Cache-Status"), "Larder; hit")
			require.Zero(t, allocs)
		})
	}
}
