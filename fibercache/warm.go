package fibercache

import (
	"context"
	"crypto/tls"
	"iter"
	"net"
	"net/http"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/valyala/fasthttp"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/httpcache"
)

// patience is how long one page is waited for: Fiber's handlers do not hear of a
// context that ends.
const patience = time.Minute

// Warm asks the app for URLs, so that their responses are in the cache before anybody
// asks; see [httpcache.Warm]. It has no connection over TLS: an app that is behind one
// believes X-Forwarded-Proto of its proxy, and is warmed through that. A page that takes
// longer than a minute counts as failed.
func Warm(ctx context.Context, app *fiber.App, urls iter.Seq[string], o core.WarmOptions) (core.WarmResult, error) {
	if app == nil {
		return core.WarmResult{}, &core.ConfigError{Field: "app", Value: nil, Allowed: "an app"}
	}
	return httpcache.WarmFunc(ctx, urls, o, func(r *http.Request) int {
		if r.URL.Scheme != "http" {
			return http.StatusBadGateway
		}
		resp, err := app.Test(r, int(patience.Milliseconds()))
		if err != nil {
			return http.StatusBadGateway
		}
		_ = resp.Body.Close() // it is in memory
		return httpcache.WarmStatus(resp.StatusCode, resp.Header.Values("Cache-Status"))
	})
}

// KeepWarm keeps warm the responses that are hit most; see [httpcache.KeepWarm]. Requests
// of which Fiber believes something that a proxy said (X-Forwarded-Host,
// X-Forwarded-Proto) teach it nothing.
func KeepWarm(ctx context.Context, cache *core.Cache, app *fiber.App, o core.KeepWarmOptions) error {
	if app == nil {
		return &core.ConfigError{Field: "app", Value: nil, Allowed: "an app"}
	}
	handler, server := app.Handler(), app.Server()
	return httpcache.KeepWarmFunc(ctx, cache, o, func(r *http.Request) int {
		fctx := new(fasthttp.RequestCtx)
		here := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}
		c := conn{local: here, remote: here}
		if r.URL.Scheme == "https" {
			fctx.Init2(tlsConn{c, &tls.ConnectionState{HandshakeComplete: true}}, server.Logger, true)
		} else {
			fctx.Init2(c, server.Logger, true)
		}
		req := &fctx.Request
		req.Header.SetMethod(r.Method)
		req.SetRequestURI(r.RequestURI)
		req.Header.SetHost(r.Host)
		for name, values := range r.Header {
			for _, v := range values {
				req.Header.Add(name, v)
			}
		}
		fctx.Response.Header.SetNoDefaultContentType(server.NoDefaultContentType)
		if server.DisableHeaderNamesNormalizing {
			fctx.Response.Header.DisableNormalizing()
		}
		defer func() {
			fctx.ResetUserValues()
			fctx.Response.Reset() // an unread stream is closed
		}()
		fctx.SetUserValue(refreshKey{}, r.Context())
		handler(fctx)
		var said []string
		for _, v := range fctx.Response.Header.PeekAll("Cache-Status") {
			said = append(said, string(v))
		}
		return httpcache.WarmStatus(fctx.Response.StatusCode(), said)
	})
}
