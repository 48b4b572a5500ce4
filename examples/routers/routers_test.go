// Package routers shows nethttp.Cache behind routers that are not net/http's own.
package routers

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/gorilla/mux"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/nethttp"
)

// shop counts how often its pages are made.
type shop struct {
	cache *core.Cache
	made  atomic.Int64
}

func newShop(t *testing.T) *shop {
	cache, err := core.New(core.Options{Classes: core.Classes{"product": {TTL: time.Minute, StaleWhileRevalidate: time.Hour}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cache.Close() })
	return &shop{cache: cache}
}

func (s *shop) show(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "%s made %d", r.PathValue("id"), s.made.Add(1))
}

func (s *shop) update(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }

func (s *shop) chi() http.Handler {
	r := chi.NewRouter()
	r.Route("/v1", func(r chi.Router) {
		r.With(nethttp.Cache(s.cache, "product", "product:{id}")).Get("/products/{id}", s.show)
		r.With(nethttp.Invalidate(s.cache, "product:{id}")).Put("/products/{id}", s.update)
		r.With(nethttp.Cache(s.cache, "product", "file:{*}")).Get("/files/*", s.show)
	})
	return r
}

func (s *shop) gorilla() http.Handler {
	r := mux.NewRouter()
	r.Use(nethttp.PathValues(mux.Vars)) // the one line that gorilla/mux needs
	v1 := r.PathPrefix("/v1").Subrouter()
	v1.Handle("/products/{id:[0-9]+}", nethttp.Cache(s.cache, "product", "product:{id}")(http.HandlerFunc(s.show))).Methods(http.MethodGet)
	v1.Handle("/products/{id}", nethttp.Invalidate(s.cache, "product:{id}")(http.HandlerFunc(s.update))).Methods(http.MethodPut)
	v1.Handle("/files/{rest:.*}", nethttp.Cache(s.cache, "product", "file:{rest}")(http.HandlerFunc(s.show))).Methods(http.MethodGet)
	return r
}

var routers = map[string]func(*shop) http.Handler{"chi": (*shop).chi, "gorilla/mux": (*shop).gorilla}

// ask sends a request as a server would hand it over, so that a refresh goes through the
// router again.
func ask(h http.Handler, method, target string) *httptest.ResponseRecorder {
	server := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
	ctx := context.WithValue(context.Background(), http.ServerContextKey, server)
	ctx = context.WithValue(ctx, http.LocalAddrContextKey, net.Addr(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, target, nil).WithContext(ctx))
	return w
}

func (s *shop) wants(t *testing.T, h http.Handler, target, body, status string) {
	t.Helper()
	w := ask(h, http.MethodGet, target)
	if got := w.Header().Get("Cache-Status"); w.Body.String() != body || !strings.HasPrefix(got, "Larder; "+status) {
		t.Fatalf("%s: %d %q, %s; want %q, %s", target, w.Code, w.Body, got, body, status)
	}
}

func TestParametersOfRouters(t *testing.T) {
	for name, router := range routers {
		t.Run(name, func(t *testing.T) {
			s := newShop(t)
			h := router(s)
			s.wants(t, h, "/v1/products/7", "7 made 1", "fwd=uri-miss; stored")
			s.wants(t, h, "/v1/products/7", "7 made 1", "hit")
			s.wants(t, h, "/v1/products/8", "8 made 2", "fwd=uri-miss; stored")
			if w := ask(h, http.MethodPut, "/v1/products/7"); w.Code != http.StatusNoContent {
				t.Fatal(w.Code, w.Body)
			}
			s.wants(t, h, "/v1/products/7", "7 made 3", "fwd=uri-miss; stored")
			s.wants(t, h, "/v1/products/8", "8 made 2", "hit")
			s.wants(t, h, "/v1/files/a/b.css", " made 4", "fwd=uri-miss; stored")
			if err := s.cache.Invalidate(t.Context(), core.Tag("file:a/b.css")); err != nil {
				t.Fatal(err)
			}
			s.wants(t, h, "/v1/files/a/b.css", " made 5", "fwd=uri-miss; stored")
		})
	}
}

func TestARefreshGoesThroughTheRouter(t *testing.T) {
	for name, router := range routers {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newShop(t)
				h := router(s)
				s.wants(t, h, "/v1/products/7", "7 made 1", "fwd=uri-miss; stored")
				time.Sleep(2 * time.Minute)
				s.wants(t, h, "/v1/products/7", "7 made 1", "hit")
				synctest.Wait()
				s.wants(t, h, "/v1/products/7", "7 made 2", "hit")
			})
		})
	}
}
