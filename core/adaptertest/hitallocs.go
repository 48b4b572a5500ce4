package adaptertest

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// HitBody is the body of the response that [HitAllocations] asks for: 1 KiB.
func HitBody() []byte { return []byte(strings.Repeat("x", 1<<10)) }

// HitFields are the names of the header fields of the response that [HitAllocations] asks for.
func HitFields() []string {
	return []string{"Content-Language", "X-Frame-Options", "Link", "Referrer-Policy", "X-A"}
}

// HitAllocations demands that a hit of a site allocates exactly as often as given. The site
// caches GET /p/{id} under the tag product:{id}, and its requests and responses are those of
// net/http. HitAllocations asks as a plain client, as a browser and as a proxy do. A site
// without a router finds id as the path value of the request. The race detector allocates:
// build the test without it.
func HitAllocations(t *testing.T, site http.Handler, allocations float64) {
	t.Helper()
	for name, fields := range map[string][]string{
		"plain":          nil,
		"of a browser":   {"Accept-Encoding", "Accept-Language", "User-Agent", "Sec-Fetch-Mode", "X-Forwarded-For"},
		"behind a proxy": {"X-Forwarded-Proto", "X-Forwarded-Host"},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://shop.example/p/1?page=1", nil)
			require.NoError(t, err)
			r.SetPathValue("id", "1")
			for _, name := range fields {
				r.Header.Set(name, "http")
			}
			w := &headerWriter{header: make(http.Header)}
			site.ServeHTTP(w, r)
			got := testing.AllocsPerRun(1000, func() {
				clear(w.header)
				site.ServeHTTP(w, r)
			})
			require.Contains(t, w.header.Get("Cache-Status"), "Larder; hit")
			require.Equal(t, allocations, got)
		})
	}
}

// headerWriter is a ResponseWriter whose header keeps its memory between answers.
type headerWriter struct{ header http.Header }

func (w *headerWriter) Header() http.Header         { return w.header }
func (w *headerWriter) WriteHeader(int)             {}
func (w *headerWriter) Write(p []byte) (int, error) { return len(p), nil }
