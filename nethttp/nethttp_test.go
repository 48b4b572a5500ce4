package nethttp_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/nethttp"
)

// The tests of this file concern net/http alone. Those that concern every framework are in
// core/adaptertest.

func newCache(t *testing.T) *core.Cache {
	t.Helper()
	cache, err := core.New(core.Options{Classes: core.Classes{"hour": {TTL: time.Hour}}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, cache.Close()) })
	return cache
}

// counting answers with the path that it sees and the number of its run.
func counting(runs *atomic.Int64) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s run %d", r.URL.Path, runs.Add(1))
	})
}

func get(h http.Handler, target string) (body, cacheStatus string) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, target, nil))
	return w.Body.String(), w.Header().Get("Cache-Status")
}

func TestHandlerBehindStrippedPrefixesSharesNothingBetweenThem(t *testing.T) {
	cache := newCache(t)
	var runs atomic.Int64
	h := nethttp.Cache(cache, "hour")(counting(&runs))
	mux := http.NewServeMux()
	mux.Handle("/a/", http.StripPrefix("/a", h))
	mux.Handle("/b/", http.StripPrefix("/b", h))

	body, _ := get(mux, "/a/p")
	require.Equal(t, "/p run 1", body)
	body, _ = get(mux, "/b/p")
	require.Equal(t, "/p run 2", body)
	body, _ = get(mux, "/a/p")
	require.Equal(t, "/p run 1", body)
}

func TestBothPathsOfARewrittenRequestInvalidateIt(t *testing.T) {
	cache := newCache(t)
	var runs atomic.Int64
	h := http.StripPrefix("/a", nethttp.Cache(cache, "hour")(counting(&runs)))
	for i, path := range []string{"/a/p", "/p"} {
		body, _ := get(h, "/a/p?q=1")
		require.Equal(t, fmt.Sprintf("/p run %d", i+1), body)
		require.NoError(t, cache.Invalidate(t.Context(), core.Path(path)))
	}
	body, _ := get(h, "/a/p?q=1")
	require.Equal(t, "/p run 3", body)
}

func TestAWriteBehindAStrippedPrefixInvalidatesBothPaths(t *testing.T) {
	cache := newCache(t)
	var runs atomic.Int64
	read := nethttp.Cache(cache, "hour")(counting(&runs))
	write := nethttp.Invalidate(cache, "unrelated")(counting(new(atomic.Int64)))
	mux := http.NewServeMux()
	mux.Handle("GET /p", read)
	mux.Handle("GET /a/p", read)
	mux.Handle("POST /a/p", http.StripPrefix("/a", write))
	get(mux, "/p")
	get(mux, "/a/p")
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/a/p", nil))
	require.Equal(t, http.StatusOK, w.Code)
	for _, target := range []string{"/p", "/a/p"} {
		_, status := get(mux, target)
		require.NotContains(t, status, "hit")
	}
}

func TestHandlerThatAsksForItsOwnURLDoesNotWaitForItself(t *testing.T) {
	cache := newCache(t)
	mux := http.NewServeMux()
	var runs atomic.Int64
	mux.Handle("GET /p", nethttp.Cache(cache, "hour")(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if runs.Add(1) == 1 {
			inner := httptest.NewRecorder()
			mux.ServeHTTP(inner, httptest.NewRequest(http.MethodGet, "/p", nil).WithContext(r.Context()))
			fmt.Fprint(w, "outer of ", inner.Body.String())
			return
		}
		fmt.Fprint(w, "inner")
	})))
	body, _ := get(mux, "/p")
	require.Equal(t, "outer of inner", body)
}

func TestSchemeThatMiddlewareSetsIsPartOfTheIdentity(t *testing.T) {
	cache := newCache(t)
	var runs atomic.Int64
	cached := nethttp.Cache(cache, "hour")(counting(&runs))
	// As for an app behind a proxy that ends TLS.
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.URL.Scheme = r.Header.Get("X-Forwarded-Proto")
		cached.ServeHTTP(w, r)
	})
	ask := func(scheme string) string {
		r := httptest.NewRequest(http.MethodGet, "/p", nil)
		r.Header.Set("X-Forwarded-Proto", scheme)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Body.String()
	}
	require.Equal(t, "/p run 1", ask("http"))
	require.Equal(t, "/p run 2", ask("https"))
	require.Equal(t, "/p run 1", ask("http"))
}

func TestMiddlewareAroundTheMuxResolvesItsTagsFromACopiedRequest(t *testing.T) {
	cache := newCache(t)
	var runs atomic.Int64
	type key struct{}
	mux := http.NewServeMux()
	mux.Handle("GET /p/{id}", counting(&runs))
	h := nethttp.Cache(cache, "hour", "p:{id}")(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// The mux sets its parameters on this copy, which nobody outside sees.
		mux.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), key{}, 1)))
	}))
	for i := range 2 {
		body, status := get(h, "/p/1")
		require.Equal(t, fmt.Sprintf("/p/1 run %d", i+1), body)
		require.Equal(t, "Larder; fwd=uri-miss; detail=missing-parameter", status)
	}
}

func TestHTTP2(t *testing.T) {
	cache := newCache(t)
	var runs atomic.Int64
	more := make(chan struct{})
	mux := http.NewServeMux()
	mux.Handle("GET /p", nethttp.Cache(cache, "hour")(counting(&runs)))
	mux.Handle("GET /events", nethttp.Cache(cache, "hour")(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for i := range 2 {
			fmt.Fprintln(w, "event", i)
			_ = http.NewResponseController(w).Flush()
			<-more
		}
	})))
	srv := httptest.NewUnstartedServer(mux)
	srv.EnableHTTP2 = true
	srv.StartTLS()
	defer srv.Close()

	for _, want := range []string{"Larder; fwd=uri-miss; stored", "Larder; hit"} {
		resp, err := srv.Client().Get(srv.URL + "/p")
		require.NoError(t, err)
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, 2, resp.ProtoMajor)
		require.Equal(t, "/p run 1", string(body))
		require.Contains(t, resp.Header.Get("Cache-Status"), want)
	}
	resp, err := srv.Client().Get(srv.URL + "/events")
	require.NoError(t, err)
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for i := range 2 {
		require.True(t, lines.Scan())
		require.Equal(t, fmt.Sprint("event ", i), lines.Text())
		more <- struct{}{}
	}
	require.False(t, lines.Scan())
}

func TestHandlerBehindAPrefixStrippedWithItsSlash(t *testing.T) {
	cache := newCache(t)
	var runs atomic.Int64
	h := nethttp.Cache(cache, "hour")(counting(&runs))
	mux := http.NewServeMux()
	mux.Handle("/a/", http.StripPrefix("/a/", h))
	mux.Handle("/b", http.StripPrefix("/b", h)) // nothing is left
	mux.Handle("/c/", http.StripPrefix("/c", h))
	mux.Handle("PUT /a/p", http.StripPrefix("/a/", nethttp.Invalidate(cache, "unrelated")(counting(new(atomic.Int64)))))
	ask := func(target string) string {
		body, status := get(mux, target)
		require.Equal(t, "Larder; fwd=uri-miss; stored", status, target)
		again, status := get(mux, target)
		require.Equal(t, body, again, target)
		require.Equal(t, "Larder; hit; ttl=3599", status, target)
		return body
	}
	require.Equal(t, "p run 1", ask("/a/p"))
	require.Equal(t, " run 2", ask("/a/"))
	require.Equal(t, " run 3", ask("/b"))
	require.Equal(t, "/p run 4", ask("/c/p"))
	for i, gone := range []func(){
		func() { require.NoError(t, cache.Invalidate(t.Context(), core.Path("/a/p"))) },
		func() { mux.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPut, "/a/p", nil)) },
	} {
		gone()
		require.Equal(t, fmt.Sprint("p run ", 5+i), ask("/a/p"))
	}
}

// Paths with and without their slash are others to a handler.
func TestPathWithoutItsSlashIsAnotherOne(t *testing.T) {
	var runs atomic.Int64
	h := nethttp.Cache(newCache(t), "hour")(counting(&runs))
	for i, path := range []string{"/p", "p", "", "/"} {
		r := httptest.NewRequest(http.MethodGet, "/p", nil)
		r.URL.Path, r.RequestURI = path, ""
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		require.Equal(t, fmt.Sprint(path, " run ", i+1), w.Body.String())
	}
	r := httptest.NewRequest(http.MethodGet, "/p", nil)
	r.URL.Path, r.RequestURI = "*", "*"
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	require.Equal(t, "Larder; fwd=bypass; detail=malformed-url", w.Header().Get("Cache-Status"))
}

func TestPathValuesOfAnotherRouter(t *testing.T) {
	cache := newCache(t)
	var runs atomic.Int64
	params := nethttp.PathValues(func(r *http.Request) map[string]string {
		return map[string]string{"id": r.URL.Query().Get("id"), "*": "rest"}
	})
	read := params(nethttp.Cache(cache, "hour", "p:{id}", "rest:{*}")(counting(&runs)))
	write := params(nethttp.Invalidate(cache, "p:{id}")(counting(new(atomic.Int64))))
	get(read, "/p?id=1")
	_, status := get(read, "/p?id=1")
	require.Equal(t, "Larder; hit; ttl=3599", status)
	write.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPut, "/w?id=1", nil))
	body, _ := get(read, "/p?id=1")
	require.Equal(t, "/p run 2", body)
}

func TestMissingParameterSaysWhatTheRouterHasToDo(t *testing.T) {
	h := nethttp.Invalidate(newCache(t), "p:{id}")(counting(new(atomic.Int64)))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodPut, "/p/1", nil))
	require.Equal(t, http.StatusInternalServerError, w.Code)
	require.Contains(t, w.Body.String(), "nethttp.PathValues(mux.Vars)")
}
