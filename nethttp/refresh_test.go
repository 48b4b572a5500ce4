package nethttp_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/nethttp"
)

func newStaleCache(t *testing.T) *core.Cache {
	t.Helper()
	cache, err := core.New(core.Options{Classes: core.Classes{"stale": {TTL: time.Minute, StaleWhileRevalidate: time.Hour}}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, cache.Close()) })
	return cache
}

type valuesContext struct {
	context.Context
	values map[string]string // makes it incomparable
}

func TestContextOfAnIncomparableTypeIsServed(t *testing.T) {
	h := nethttp.Cache(newCache(t), "hour")(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	r := httptest.NewRequest(http.MethodOptions, "/", nil) // forwarded with the request's own context
	r = r.WithContext(valuesContext{r.Context(), nil})
	require.NotPanics(t, func() { h.ServeHTTP(httptest.NewRecorder(), r) })
}

func TestHandlerOfHEADDoesNotRefreshWhatGETHasStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cache, mux := newStaleCache(t), http.NewServeMux()
		mux.Handle("GET /", nethttp.Cache(cache, "stale")(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte("hello"))
		})))
		mux.Handle("HEAD /", nethttp.Cache(cache, "stale")(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusOK)
		})))
		get(mux, "/")
		time.Sleep(90 * time.Second)
		mux.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodHead, "/", nil))
		synctest.Wait()
		body, _ := get(mux, "/")
		require.Equal(t, "hello", body)
	})
}

type baseKey struct{}

// Values that http.Server.BaseContext and ConnContext put into every request's context are
// there in a refresh through the server as well.
func TestRefreshThroughTheServerHasItsBaseContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := nethttp.Cache(newStaleCache(t), "stale")(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
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
