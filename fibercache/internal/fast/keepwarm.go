package fast

import (
	"context"
	"crypto/tls"
	"iter"
	"net"
	"net/http"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/httpcache"
)

// Patience is how long one page is waited for: Fiber's handlers do not hear of a
// context that ends.
const Patience = time.Minute

// KeepWarm keeps warm the responses of an app that are hit most. Requests of which Fiber
// believes something that a proxy said teach it nothing.
func KeepWarm(
	ctx context.Context, cache *core.Cache, handler fasthttp.RequestHandler, server *fasthttp.Server, o core.KeepWarmOptions,
) error {
	return httpcache.KeepWarmFunc(ctx, cache, o, func(r *http.Request) int {
		here := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}
		var from net.Conn = conn{local: here, remote: here}
		if r.URL.Scheme == "https" {
			from = tlsConn{conn{local: here, remote: here}, &tls.ConnectionState{HandshakeComplete: true}}
		}
		fctx := newContext(from, server)
		defer endContext(fctx)
		req := &fctx.Request
		req.Header.SetMethod(r.Method)
		req.SetRequestURI(r.RequestURI)
		req.Header.SetHost(r.Host)
		for name, values := range r.Header {
			for _, v := range values {
				req.Header.Add(name, v)
			}
		}
		fctx.SetUserValue(refreshKey{}, r.Context())
		handler(fctx)
		resp := &fctx.Response
		if t := fctx.LastTimeoutErrorResponse(); t != nil {
			resp = t
		}
		var said []string
		for _, v := range resp.Header.PeekAll("Cache-Status") {
			said = append(said, string(v))
		}
		return httpcache.WarmStatus(resp.StatusCode(), said)
	})
}

// Warm asks an app for URLs, by the means of its tests. Over TLS there is none. A page that
// takes longer than Patience counts as failed.
func Warm(
	ctx context.Context, urls iter.Seq[string], o core.WarmOptions, test func(*http.Request) (*http.Response, error),
) (core.WarmResult, error) {
	return httpcache.WarmFunc(ctx, urls, o, func(r *http.Request) int {
		if r.URL.Scheme != "http" {
			return http.StatusBadGateway
		}
		resp, err := test(r)
		if err != nil {
			return http.StatusBadGateway
		}
		_ = resp.Body.Close() // it is in memory
		return httpcache.WarmStatus(resp.StatusCode, resp.Header.Values("Cache-Status"))
	})
}
