package main

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/httpcache"
	"github.com/larderhq/larder/fibercache"
)

func TestPagesThatAreHitAreKeptWarm(t *testing.T) {
	for _, adapter := range adapters {
		t.Run(adapter, func(t *testing.T) {
			shop := openShop(t)
			cache, err := newCache(core.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer cache.Close()
			server, err := newServer(adapter, shop, cache)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			begun, filled, ended := make(chan struct{}), make(chan int, 1), make(chan error, 1)
			first := true
			options := core.KeepWarmOptions{Every: 100 * time.Millisecond, Progress: func(r core.KeepWarmRound) {
				if first {
					first = false
					close(begun)
				}
				if r.Filled > 0 {
					select {
					case filled <- r.Filled:
					default:
					}
				}
			}}
			go func() {
				if s, ok := server.(fiberServer); ok {
					ended <- fibercache.KeepWarm(ctx, cache, s.app, options)
				} else {
					ended <- httpcache.KeepWarm(ctx, cache, server.(*http.Server).Handler, options)
				}
			}()
			<-begun
			for range 4 {
				status(t, server, "/products/3")
			}
			if err := cache.Invalidate(t.Context(), core.Tag("product:3")); err != nil {
				t.Fatal(err)
			}
			select {
			case n := <-filled:
				if n != 1 {
					t.Errorf("%d pages were filled in", n)
				}
			case <-time.After(30 * time.Second):
				t.Fatal("it was not kept warm")
			}
			if got := status(t, server, "/products/3"); !strings.HasPrefix(got, "Larder; hit") {
				t.Errorf("Cache-Status: %s", got)
			}
			cancel()
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
	}
}

// status asks a server for a page of shop.example, and returns its Cache-Status.
func status(t *testing.T, server Server, path string) string {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://shop.example"+path, http.NoBody)
	r.RequestURI = path
	r.URL.Scheme, r.URL.Host = "", ""
	if s, ok := server.(fiberServer); ok {
		resp, err := s.app.Test(r, 10_000)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.Header.Get("Cache-Status")
	}
	w := httptest.NewRecorder()
	server.(*http.Server).Handler.ServeHTTP(w, r)
	return w.Header().Get("Cache-Status")
}
