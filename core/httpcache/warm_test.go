package httpcache_test

import (
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/httpcache"
	"github.com/larderhq/larder/fibercache"
	"github.com/larderhq/larder/nethttp"
)

func TestWarmedPagesAreHits(t *testing.T) {
	var runs atomic.Int64
	mux := http.NewServeMux()
	mux.Handle("GET /p/{id}", nethttp.Cache(cacheOf(t, core.Class{TTL: time.Hour}, nil), "c", "p:{id}")(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		runs.Add(1)
		switch r.PathValue("id") {
		case "missing":
			http.NotFound(w, r)
		case "broken":
			panic("oops")
		default:
			fmt.Fprint(w, r.URL.Query())
		}
	})))
	urls := []string{
		"http://example.com/p/1", "http://example.com/p/2?q=a%20b", "http://example.com/p/missing", "http://example.com/p/broken",
		"http://example.com", "/p/3", "ftp://example.com/p/4", "http://bad host/",
	}
	result, err := httpcache.Warm(t.Context(), mux, slices.Values(urls), core.WarmOptions{})
	require.NoError(t, err)
	require.Equal(t, len(urls), result.Items)
	require.Equal(t, 2, result.Filled)
	require.Equal(t, 6, result.Failed)
	before := runs.Load()
	for _, target := range []string{"/p/1", "/p/2?q=a%20b"} {
		w := askFor(mux, target)
		require.Equal(t, "Larder; hit; ttl=3599", said(w))
	}
	require.Equal(t, before, runs.Load())
}

func TestWarmRefusesWhatIsMissing(t *testing.T) {
	urls := slices.Values([]string{"http://a/"})
	for field, warm := range map[string]func() (core.WarmResult, error){
		"server": func() (core.WarmResult, error) {
			return httpcache.Warm(t.Context(), nil, urls, core.WarmOptions{})
		},
		"urls": func() (core.WarmResult, error) {
			return httpcache.Warm(t.Context(), http.NotFoundHandler(), nil, core.WarmOptions{})
		},
		"ask": func() (core.WarmResult, error) {
			return httpcache.WarmFunc(t.Context(), urls, core.WarmOptions{}, nil)
		},
		"app": func() (core.WarmResult, error) {
			return fibercache.Warm(t.Context(), nil, urls, core.WarmOptions{})
		},
	} {
		_, err := warm()
		var wrong *core.ConfigError
		require.ErrorAs(t, err, &wrong, field)
		require.Equal(t, field, wrong.Field)
	}
}
