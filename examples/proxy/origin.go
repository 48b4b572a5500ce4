package main

import (
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"time"
)

// Time limits of the origin.
const (
	dialTimeout   = 5 * time.Second
	headerTimeout = 30 * time.Second
)

// origin is the server behind.
type origin struct {
	url       *url.URL
	transport *http.Transport
}

func newOrigin(u *url.URL) *origin {
	return &origin{u, &http.Transport{
		DialContext:           (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSHandshakeTimeout:   dialTimeout,
		ResponseHeaderTimeout: headerTimeout,
		DisableCompression:    true, // the cache and the client get the bytes that the origin sent
		DisableKeepAlives:     true,
	}}
}

// handler passes requests on and responses back, for the frameworks that are built
// on net/http. A body that breaks off makes it panic with http.ErrAbortHandler:
// nothing of it is stored, and the client's connection breaks off too.
func (o *origin) handler() http.Handler {
	proxy := &httputil.ReverseProxy{
		Transport: o.transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(o.url)
			// The key of a response has the host that the client named, so the origin has to
			// answer for that host.
			r.Out.Host = r.In.Host
			r.Out.URL.RawQuery = joinQuery(o.url.RawQuery, r.In.URL.RawQuery) // also where ReverseProxy cannot parse it
		},
		ModifyResponse: func(resp *http.Response) error {
			if resp.ContentLength == -1 {
				// ReverseProxy flushes a body of unknown length piece by piece, and a
				// flushed body is a stream, which is not stored. It asks only whether the length is
				// known; server-sent events it flushes anyway.
				resp.ContentLength = 0
			}
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if r.Context().Err() == nil { // otherwise the client has left
				slog.Warn("proxy: the origin does not answer", "method", r.Method, "path", r.URL.Path, "error", err)
			}
			w.WriteHeader(http.StatusBadGateway)
		},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Content-Type"] = nil // none is guessed where the origin has stated none
		proxy.ServeHTTP(w, r)
	})
}

func joinQuery(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "&" + b
}
