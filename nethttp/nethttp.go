// Package nethttp caches the responses of net/http handlers.
//
//	mux.Handle("GET /products/{id}", nethttp.Cache(cache, "product", "product:{id}", "catalog")(show))
//	mux.Handle("PUT /products/{id}", nethttp.Invalidate(cache, "product:{id}", "catalog")(update))
//
// Any router whose handlers are http.Handler works: {id} is read with
// [http.Request.PathValue], which ServeMux and chi (from v5.0.12 on) set. For a router
// that keeps its parameters elsewhere, as gorilla/mux does, [PathValues] sets them, in one
// line for all its routes. A middleware that wraps the whole mux learns the
// parameters only as the handler runs: Cache then resolves its tags afterwards,
// Invalidate answers 500.
//
// A background refresh sends a copy of the request through the server's handler
// again. The middleware in front of the cache sees it as one more request, and if
// it answers by itself nothing is stored.
package nethttp

import (
	"context"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"sync"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/httpcache"
)

// Cache returns the middleware that caches a handler's responses under a TTL
// class, with tags by which they can be invalidated. A tag may hold path
// parameters, "{id}", and the wildcard, "{*}". It panics with a *core.ConfigError
// if something is wrong with the route, as ServeMux does.
func Cache(cache *core.Cache, class string, tags ...string) func(http.Handler) http.Handler {
	return httpcache.Must(Route{Cache: cache, Class: class, Tags: tags}.Middleware())
}

// Invalidate returns the middleware that invalidates tags, and the request's own
// path, when a handler has succeeded, before the client sees the end of the
// response. Of a stream of events or records (text/event-stream, application/x-ndjson)
// the client sees each one as it is flushed, before the invalidation; the end of the
// stream comes after it. It panics with a *core.ConfigError if something is wrong.
func Invalidate(cache *core.Cache, tags ...string) func(http.Handler) http.Handler {
	return httpcache.Must(WriteRoute{Cache: cache, Tags: tags}.Middleware())
}

// CachePerUser is [Cache] for a handler whose response differs per user: identity becomes
// Route.Identity. {identity} in a tag is the user's identity, escaped by [url.QueryEscape]
// (the SHA-256 behind "sha256=" if that is longer than 128 bytes), so that a job names the
// tag as core.Tag("cart:" + url.QueryEscape(user)).
//
// The authentication runs in front of the cache. A request with credentials for which
// identity returns "", "0", "<nil>" or the zero UUID is a bypass, and is logged once.
func CachePerUser(cache *core.Cache, class string, identity func(*http.Request) (id string, ok bool), tags ...string) func(http.Handler) http.Handler {
	return httpcache.Must(Route{Cache: cache, Class: class, Tags: tags, Identity: httpcache.PerUser(identity)}.Middleware())
}

// InvalidatePerUser is [Invalidate] for a handler that writes for one user. At least one of
// the tags has {identity}. The request's path is invalidated for all users.
func InvalidatePerUser(cache *core.Cache, identity func(*http.Request) (id string, ok bool), tags ...string) func(http.Handler) http.Handler {
	return httpcache.Must(WriteRoute{Cache: cache, Tags: tags, Identity: httpcache.PerUser(identity)}.Middleware())
}

// Route is a cached route with all its options.
type Route struct {
	Cache *core.Cache // required
	Class string      // of core.Options.Classes; "" is the default class
	Tags  []string    // tag templates, for example "product:{id}"; default: none
	// Identity returns the user whose response it is, for routes that answer each user
	// differently. It becomes part of the key; a response may then be private. ok is
	// false for a request that bypasses the cache. {identity} in a tag is the identity.
	// Default: one response for all users.
	Identity func(*http.Request) (id string, ok bool)
	// Skip reports whether a request bypasses the cache. Default: none does.
	Skip func(*http.Request) bool
	// Reads reports whether a POST with this content only reads: a GraphQL query
	// (httpcache.GraphQLQuery), a search. Its response is cached, with the content and its
	// Content-Type in the key. It must neither keep nor change content. Other POSTs, and
	// those larger than Class.MaxEntryBytes, are writes. Default: each POST is a write.
	Reads func(r *http.Request, content []byte) bool
}

// Middleware returns the middleware, or a *core.ConfigError.
func (r Route) Middleware() (func(http.Handler) http.Handler, error) {
	return httpcache.RouteMiddleware(httpcache.RouteConfig[*http.Request](r), requestOf, middleware)
}

// WriteRoute is an invalidating route with all its options.
type WriteRoute struct {
	Cache *core.Cache // required
	// Class names the class whose ConfirmWrites decides whether the route writes while
	// the shared tier is unreachable. Default: the class "".
	Class string
	Tags  []string // tag templates, at least one
	// Identity returns the user whose responses the tags with {identity} invalidate. A write for
	// which ok is false invalidates only the other tags and the path. Default: no tag may have
	// {identity}.
	Identity func(*http.Request) (id string, ok bool)
}

// Middleware returns the middleware, or a *core.ConfigError.
func (w WriteRoute) Middleware() (func(http.Handler) http.Handler, error) {
	return httpcache.WriteMiddleware(httpcache.WriteRouteConfig[*http.Request](w), requestOf, middleware)
}

// PathValues returns the middleware that sets a router's parameters as the request's path
// values, for routers that do not: {id} in a tag, and [http.Request.PathValue] in a handler,
// then find them. It goes between the router and Cache or Invalidate:
//
//	router := mux.NewRouter() // gorilla's
//	router.Use(nethttp.PathValues(mux.Vars))
//
// The parameter "*" is the wildcard's.
//
// It panics with a *core.ConfigError if params is nil.
func PathValues(params func(*http.Request) map[string]string) func(http.Handler) http.Handler {
	if params == nil {
		panic(&core.ConfigError{Field: "params", Value: nil, Allowed: "a function that returns the parameters of a request"})
	}
	return func(next http.Handler) http.Handler {
		required(next)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			for name, value := range params(r) {
				r.SetPathValue(name, value)
			}
			next.ServeHTTP(w, r)
		})
	}
}

// required panics with a *core.ConfigError if a route has no handler, as http.ServeMux does. It
// would otherwise panic at the first request.
func required(next http.Handler) {
	if next == nil {
		panic(&core.ConfigError{Field: "handler", Value: nil, Allowed: "an http.Handler"})
	}
}

func requestOf(ex httpcache.Exchange) *http.Request { return ex.(*exchange).Request }

func middleware(serve func(httpcache.Exchange) error) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		required(next)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			x := exchanges.Get().(*exchange)
			x.Begin(w, r)
			x.next = next
			_ = serve(x) // handlers of net/http return no errors
			if x.End() {
				x.next = nil
				exchanges.Put(x)
			}
		})
	}
}

var exchanges = sync.Pool{New: func() any { return new(exchange) }} //nolint:gochecknoglobals // shared scratch

type exchange struct {
	httpcache.StdExchange
	next http.Handler
}

var _ httpcache.Exchange = (*exchange)(nil)

// Param implements httpcache.Exchange. The wildcard is the last element of ServeMux's
// pattern, {name...}, and chi's *.
func (x *exchange) Param(name string) (string, bool) {
	if name == "*" {
		i := strings.LastIndexByte(x.Request.Pattern, '{')
		if rest, ok := strings.CutSuffix(x.Request.Pattern[i+1:], "...}"); i >= 0 && ok {
			name = rest
		}
	}
	v := x.Request.PathValue(name)
	return v, v != ""
}

// Run implements httpcache.Exchange.
func (x *exchange) Run(ctx context.Context, c *httpcache.Capture) error {
	if c == nil {
		x.Handle(ctx, nil, func(r *http.Request) { x.next.ServeHTTP(x.Writer, r) })
		return nil
	}
	x.Capture = httpcache.NewWriter(x.Writer, c)
	finished := false
	defer func() {
		if !finished {
			x.Capture.Abandon()
		}
	}()
	x.Handle(ctx, c, func(r *http.Request) {
		x.Request = r // the mux behind sets its parameters on this copy, which Param then reads
		x.next.ServeHTTP(x.Capture, r)
	})
	finished = true
	x.Capture.Finish(http.StatusOK)
	return nil
}

// Detach implements httpcache.Exchange. Where the request came through a server,
// the copy goes through it again from the beginning: routers keep what a request's
// context refers to in pools, give it to other requests once this one has ended,
// and create it again for the copy. Called without a server, as in tests with httptest.NewRecorder, there is
// nothing but the handler and the request's own values.
func (x *exchange) Detach() func(context.Context, func(httpcache.Exchange)) {
	ctx := context.WithoutCancel(x.Request.Context())
	r := httpcache.DetachRequest(ctx, x.Request)
	server := httpcache.ServerOf(ctx)
	u, err := url.ParseRequestURI(r.RequestURI)
	if server == nil || err != nil {
		if x.Request.Method == http.MethodHead {
			return nil // its handler need not be that of GET
		}
		next := x.next // the exchange ends before the refresh
		return func(ctx context.Context, load func(httpcache.Exchange)) {
			httpcache.ServeDiscarding(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				load(&exchange{StdExchange: httpcache.StdExchange{Writer: w, Request: r}, next: next})
			}), r.WithContext(ctx))
		}
	}
	handler := server.Handler
	if handler == nil {
		handler = http.DefaultServeMux
	}
	return func(ctx context.Context, _ func(httpcache.Exchange)) {
		again := r.WithContext(serverContext{ctx})
		again.URL = u // as it was before anybody rewrote it
		httpcache.ServeDiscarding(handler, again)
	}
}

// serverContext hides what chi keeps in a request's context: from that it would
// take the copy for a request that it is routing already.
type serverContext struct{ context.Context }

// Value implements context.Context.
func (c serverContext) Value(key any) any {
	if t := reflect.TypeOf(key); t != nil && t.Kind() == reflect.Pointer && strings.HasPrefix(t.Elem().PkgPath(), "github.com/go-chi/chi") {
		return nil
	}
	return c.Context.Value(key)
}
