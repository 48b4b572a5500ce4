//go:build defects

package echocache_test

// What is wrong behind the seam: go test -tags defects. Each test fails until it is
// mended.

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/nethttp"
)

type valuesContext struct {
	context.Context
	values map[string]string // makes it incomparable
}

func TestDefectNetHTTPComparesContexts(t *testing.T) {
	cache := newCache(t)
	h := nethttp.Cache(cache, "hour")(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {}))
	r := httptest.NewRequest(http.MethodOptions, "/", nil) // forwarded with the request's own context
	r = r.WithContext(valuesContext{r.Context(), nil})
	require.NotPanics(t, func() { h.ServeHTTP(httptest.NewRecorder(), r) })
}

// A HEAD route's handler answers a refresh of what GET has stored.
func TestDefectNetHTTPRefreshesWithTheHandlerOfHead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cache, mux := newCache(t), http.NewServeMux()
		mux.Handle("GET /", nethttp.Cache(cache, "stale")(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte("hello"))
		})))
		mux.Handle("HEAD /", nethttp.Cache(cache, "stale")(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusOK)
		})))
		get(mux, "/")
		time.Sleep(90 * time.Second)
		do(mux, http.MethodHead, "/")
		synctest.Wait()
		require.Equal(t, "hello", get(mux, "/").Body.String())
	})
}

type baseKey struct{}

// A refresh through the server lacks what http.Server.BaseContext and ConnContext
// put into every request's context: what the handler makes without is stored.
func TestDefectNetHTTPRefreshesWithoutTheServersBaseContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := nethttp.Cache(newCache(t), "stale")(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			tenant, _ := r.Context().Value(baseKey{}).(string)
			_, _ = w.Write([]byte("tenant " + tenant))
		}))
		base := context.WithValue(t.Context(), baseKey{}, "one")
		server := &http.Server{Handler: h, BaseContext: func(net.Listener) context.Context { return base }}
		ask := func() string {
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r.WithContext(context.WithValue(base, http.ServerContextKey, server)))
			return w.Body.String()
		}
		require.Equal(t, "tenant one", ask())
		time.Sleep(90 * time.Second)
		require.Equal(t, "tenant one", ask())
		synctest.Wait()
		require.Equal(t, "tenant one", ask())
	})
}
