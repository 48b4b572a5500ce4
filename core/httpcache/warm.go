package httpcache

import (
	"context"
	"crypto/tls"
	"fmt"
	"iter"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/bridge"
	"github.com/larderhq/larder/core/internal/warmup"
)

// Warm requests URLs from a server's handler, so that their responses are in the cache
// before the first client's request: with GET, without credentials, through all its
// middleware. The URLs are absolute: the host is part of the key. It works as core.Map.Warm
// does: WarmResult.Filled counts the answers 2xx, Failed the others.
//
// A net/http server's Handler, an Echo and a Gin engine are such handlers; for Fiber
// there is fibercache.Warm.
func Warm(ctx context.Context, server http.Handler, urls iter.Seq[string], o core.WarmOptions) (core.WarmResult, error) {
	if server == nil {
		return core.WarmResult{}, &core.ConfigError{Field: "server", Value: nil, Allowed: "a handler"}
	}
	return WarmFunc(ctx, urls, o, askHandler(server))
}

// askHandler returns what has a handler answer a request.
func askHandler(server http.Handler) func(*http.Request) (status int) {
	s := &http.Server{Handler: server, ReadHeaderTimeout: time.Minute} // it serves nothing
	return func(r *http.Request) (status int) {
		ctx := context.WithValue(context.WithValue(r.Context(), http.ServerContextKey, s), http.LocalAddrContextKey, here)
		ctx, end := context.WithCancel(ctx) // as a server's does when the request has been answered
		defer end()
		n := ServeDiscarding(server, accepted(r.WithContext(ctx)))
		return WarmStatus(n.Status(), n.Header().Values(cacheStatus))
	}
}

// WarmStatus returns the status by which WarmFunc counts an answer: 502 where its
// Cache-Status reports an incomplete response, otherwise status.
func WarmStatus(status int, cacheStatus []string) int {
	if slices.ContainsFunc(cacheStatus, func(s string) bool {
		return strings.HasPrefix(s, CacheName+";") && strings.HasSuffix(s, "; detail="+incomplete)
	}) {
		return http.StatusBadGateway
	}
	return status
}

// here is where a request comes from, and arrives, that has no connection.
var here net.Addr = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} //nolint:gochecknoglobals // a constant

// accepted makes of a request for an absolute URL what a server makes of it that has
// accepted it over a connection.
func accepted(r *http.Request) *http.Request {
	if r.URL.Scheme == "https" {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = r.Host
		}
		r.TLS = &tls.ConnectionState{Version: tls.VersionTLS13, HandshakeComplete: true, ServerName: host}
	}
	if u, err := url.ParseRequestURI(r.RequestURI); err == nil {
		r.URL = u
	}
	r.RemoteAddr = here.String()
	return r
}

// WarmFunc is Warm for a server that is not an http.Handler: ask has it answer a
// request, and returns the status.
func WarmFunc(ctx context.Context, urls iter.Seq[string], o core.WarmOptions, ask func(*http.Request) (status int)) (core.WarmResult, error) {
	switch {
	case urls == nil:
		return core.WarmResult{}, &core.ConfigError{Field: "urls", Value: nil, Allowed: "a sequence"}
	case ask == nil:
		return core.WarmResult{}, &core.ConfigError{Field: "ask", Value: nil, Allowed: "a function"}
	}
	if o.Batch == 0 {
		o.Batch = 1
	}
	p, err := bridge.WarmPlan(o)
	if err != nil {
		return core.WarmResult{}, err
	}
	done, err := warmup.Run(ctx, cloned(urls), p, func(ctx context.Context, urls []string) (filled, failed int) {
		for _, u := range urls {
			if ctx.Err() != nil {
				break
			}
			status, err := warmOne(ctx, u, ask)
			if err == nil && status < http.StatusMultipleChoices {
				filled++
			} else {
				failed++
			}
		}
		return filled, failed
	})
	return core.WarmResult(done), err
}

// cloned copies strings that may be views of a buffer that the sequence reuses.
func cloned(urls iter.Seq[string]) iter.Seq[string] {
	return func(yield func(string) bool) {
		for u := range urls {
			if !yield(strings.Clone(u)) {
				return
			}
		}
	}
}

// warmOne asks for one URL.
func warmOne(ctx context.Context, u string, ask func(*http.Request) int) (status int, err error) {
	r, err := requestFor(ctx, u)
	if err != nil {
		return 0, err
	}
	return guarded(r, ask)
}

// requestFor returns an anonymous request for an absolute URL.
func requestFor(ctx context.Context, u string) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u, http.NoBody)
	if err != nil {
		return nil, err
	}
	if r.URL.Host == "" || r.URL.Scheme != "http" && r.URL.Scheme != "https" {
		return nil, fmt.Errorf("larder: warm %q: not an absolute URL", u)
	}
	r.RequestURI = r.URL.RequestURI()
	if !strings.HasPrefix(r.RequestURI, "/") {
		r.RequestURI = "/" + r.RequestURI
	}
	return r, nil
}

// guarded has a request answered. A handler's panic is its failure.
func guarded(r *http.Request, ask func(*http.Request) int) (status int, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("larder: warm %q: the handler panicked: %v", r.URL, v)
		}
	}()
	return ask(r), nil
}
