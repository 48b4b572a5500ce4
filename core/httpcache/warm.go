package httpcache

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"strings"
	"sync/atomic"

	"github.com/larderhq/larder/core"
)

// Warm asks a server's handler for URLs, so that their responses are in the cache
// before anybody asks: with GET, without credentials, through all its middleware. The
// URLs are absolute: the host is part of what is cached. It works as core.Map.Warm
// does: WarmResult.Filled counts the answers 2xx, Failed the others.
//
// A net/http server's Handler, an Echo and a Gin engine are such handlers; for Fiber
// there is fibercache.Warm.
func Warm(ctx context.Context, server http.Handler, urls iter.Seq[string], o core.WarmOptions) (core.WarmResult, error) {
	return WarmBy(ctx, urls, o, askHandler(server))
}

// askHandler returns what has a handler answer a request.
func askHandler(server http.Handler) func(*http.Request) (status int) {
	return func(r *http.Request) (status int) {
		w := &statusOnly{Nowhere: NewNowhere(), status: http.StatusOK}
		server.ServeHTTP(w, r)
		return w.status
	}
}

// WarmBy is Warm for a server that is not an http.Handler: ask has it answer a
// request, and returns the status.
func WarmBy(ctx context.Context, urls iter.Seq[string], o core.WarmOptions, ask func(*http.Request) (status int)) (core.WarmResult, error) {
	if o.Batch == 0 {
		o.Batch = 1
	}
	return core.WarmBatches(ctx, urls, o, func(ctx context.Context, urls []string) (filled, failed int) {
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
}

// warmOne asks for one URL.
func warmOne(ctx context.Context, u string, ask func(*http.Request) int) (status int, err error) {
	r, err := requestFor(ctx, u)
	if err != nil {
		return 0, err
	}
	return guarded(r, ask)
}

// requestFor returns the request for an absolute URL that has nothing to say of who
// asks.
func requestFor(ctx context.Context, u string) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u, http.NoBody)
	if err != nil {
		return nil, err
	}
	if r.URL.Host == "" || r.URL.Scheme != "http" && r.URL.Scheme != "https" {
		return nil, fmt.Errorf("larder: warm %q: not an absolute URL", u)
	}
	// As a server gets it. The scheme stays, as that of a connection that is not there.
	r.RequestURI = r.URL.RequestURI()
	if !strings.HasPrefix(r.RequestURI, "/") {
		r.RequestURI = "/" + r.RequestURI
	}
	r.RemoteAddr = "127.0.0.1:0"
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

// statusOnly keeps the status of an answer that goes nowhere.
type statusOnly struct {
	*Nowhere
	status int
	final  atomic.Bool
}

// WriteHeader implements http.ResponseWriter.
func (w *statusOnly) WriteHeader(status int) {
	if status >= 200 && w.final.CompareAndSwap(false, true) {
		w.status = status
	}
}

// Write implements http.ResponseWriter.
func (w *statusOnly) Write(p []byte) (int, error) {
	w.final.Store(true)
	return len(p), nil
}
