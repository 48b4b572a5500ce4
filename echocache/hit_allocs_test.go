//go:build !race

package echocache_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/echocache"
)

// headerWriter is a ResponseWriter whose header keeps its memory between answers.
type headerWriter struct {
	header http.Header
	n      int
}

func (w *headerWriter) Header() http.Header         { return w.header }
func (w *headerWriter) WriteHeader(int)             {}
func (w *headerWriter) Write(p []byte) (int, error) { w.n += len(p); return len(p), nil }

// Echo applies a route's middleware again for each request, which allocates a function. The
// values of many hits' fields share one allocation, which is none per hit on average.
func TestAHitAllocatesOneFunctionOnly(t *testing.T) {
	cache, err := core.New(core.Options{Classes: core.Classes{"hour": {TTL: time.Hour}}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, cache.Close()) })
	site := echo.New()
	site.GET("/p/:id", func(c echo.Context) error {
		for _, name := range []string{"Content-Language", "X-Frame-Options", "Link", "Referrer-Policy", "X-A"} {
			c.Response().Header().Set(name, "a")
		}
		return c.Blob(http.StatusOK, "text/plain", []byte(strings.Repeat("x", 1<<10)))
	}, echocache.Cache(cache, "hour", "product:{id}", "catalog"))
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
			require.Equal(t, 1.0, allocs)
		})
	}
}
