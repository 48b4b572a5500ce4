package httpcache_test

import (
	"bufio"
	"context"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/labstack/echo/v4"
	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/httpcache"
	"github.com/larderhq/larder/echocache"
	"github.com/larderhq/larder/gincache"
	"github.com/larderhq/larder/nethttp"
)

// mounts are the frameworks on net/http, each with one cached handler.
var mounts = map[string]func(cache *core.Cache, h http.Handler) http.Handler{
	"nethttp": func(cache *core.Cache, h http.Handler) http.Handler { return nethttp.Cache(cache, "c")(h) },
	"echo": func(cache *core.Cache, h http.Handler) http.Handler {
		e := echo.New()
		e.GET("/", echo.WrapHandler(h), echocache.Cache(cache, "c"))
		return e
	},
	"gin": func(cache *core.Cache, h http.Handler) http.Handler {
		gin.SetMode(gin.TestMode)
		r := gin.New()
		r.GET("/", gincache.Cache(cache, "c"), gin.WrapH(h), func(c *gin.Context) { _, _ = c.Writer.WriteString("") })
		return r
	},
}

// breaking is a proxy whose upstream dies in the middle of its first answer.
func breaking(t *testing.T, asked *atomic.Int64) http.Handler {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = http.ReadRequest(bufio.NewReader(conn))
			if asked.Add(1) == 1 {
				_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nc\r\nhalf a page \r\n")
			} else {
				_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole")
			}
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	transport := &http.Transport{DisableKeepAlives: true}
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: l.Addr().String()})
	proxy.Transport, proxy.ErrorLog = transport, log.New(io.Discard, "", 0)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		proxy.ServeHTTP(struct{ http.ResponseWriter }{w}, r) // which cannot flush
	})
}

func briefCache(t *testing.T) *core.Cache {
	cache, err := core.New(core.Options{Classes: core.Classes{"c": {TTL: time.Hour}}, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, cache.Close()) })
	return cache
}

// A sub-request, a lambda, FastCGI: no http.Server has accepted the request, and a proxy
// whose upstream dies returns as if its answer were whole.
func TestWithoutAServerABrokenAnswerIsPassedOnAndNotStored(t *testing.T) {
	for name, mount := range mounts {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Int64
			proxy := breaking(t, &asked)
			site := mount(briefCache(t), proxy)

			w := askFor(site, "/")
			require.Equal(t, 200, w.Code)
			require.Equal(t, "half a page ", w.Body.String())
			require.Equal(t, "Larder; fwd=uri-miss; detail=incomplete", said(w))

			w = askFor(site, "/")
			require.Equal(t, "whole", w.Body.String())
			require.Equal(t, "Larder; fwd=uri-miss; stored", said(w))
			require.Equal(t, "whole", askFor(site, "/").Body.String())
			require.EqualValues(t, 2, asked.Load())
		})
	}
}

// A handler that breaks its answer off by itself does so with and without a server.
func TestWithoutAServerAHandlersOwnPanicGoesOn(t *testing.T) {
	for name, mount := range mounts {
		t.Run(name, func(t *testing.T) {
			site := mount(briefCache(t), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				_, _ = io.WriteString(w, "half")
				panic(http.ErrAbortHandler)
			}))
			require.PanicsWithValue(t, http.ErrAbortHandler, func() { askFor(site, "/") })
		})
	}
}

// A handler finds the server that accepted its request, never the stand-in.
func TestServerOfARequestIsTheOneThatAcceptedIt(t *testing.T) {
	server := &http.Server{ReadHeaderTimeout: time.Minute}
	for _, accepted := range []*http.Server{nil, server} {
		var found *http.Server
		site := nethttp.Cache(briefCache(t), "c")(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			found = httpcache.ServerOf(r.Context())
		}))
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		if accepted != nil {
			r = r.WithContext(context.WithValue(r.Context(), http.ServerContextKey, accepted))
		}
		site.ServeHTTP(httptest.NewRecorder(), r)
		require.Same(t, accepted, found)
	}
}

func TestWarmedPageOverTLSFindsTLS(t *testing.T) {
	var found []any
	site := nethttp.Cache(briefCache(t), "c")(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		found = append(found, r.TLS != nil && r.TLS.HandshakeComplete, r.URL.String(), r.Host)
	}))
	result, err := httpcache.Warm(t.Context(), site, func(yield func(string) bool) { yield("https://shop.example/p?q") }, core.WarmOptions{})
	require.NoError(t, err)
	require.Equal(t, 1, result.Filled)
	require.Equal(t, []any{true, "/p?q", "shop.example"}, found)
	r := httptest.NewRequest(http.MethodGet, "https://shop.example/p?q", nil)
	r.RequestURI = "/p?q"
	w := httptest.NewRecorder()
	site.ServeHTTP(w, r)
	require.Equal(t, "Larder; hit; ttl=3599", said(w))
}

// A server ends a request's context when it has been answered, and what a handler has
// started with it.
func TestContextOfAWarmedPageEndsWithIt(t *testing.T) {
	ended := make(chan struct{})
	site := nethttp.Cache(briefCache(t), "c")(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		context.AfterFunc(r.Context(), func() { close(ended) })
	}))
	_, err := httpcache.Warm(t.Context(), site, func(yield func(string) bool) {
		if yield("http://shop.example/p") {
			<-ended // while warming goes on
		}
	}, core.WarmOptions{})
	require.NoError(t, err)
}
