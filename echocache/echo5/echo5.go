// Package echo5 caches the responses of handlers of Echo v5. Package echocache is for v4.
//
//	e.GET("/products/:id", show, echo5.Cache(cache, "product", "product:{id}", "catalog"))
//	e.PUT("/products/:id", update, echo5.Invalidate(cache, "product:{id}", "catalog"))
//
// {id} is Echo's :id, {*} its *. A route's, a group's and [echo.Echo.Use]'s
// middleware sees them. With [echo.Echo.Pre] they are known only as the handler
// runs: Cache then resolves its tags afterwards, Invalidate answers 500. Parameters are
// decoded once, whatever [echo.RouterConfig] says of escaped paths. A router of the app's
// own whose values are neither those of the escaped path nor those of the decoded one has
// no parameters that a tag can name.
//
// An error that a handler returns goes to Echo's error handler as it would without
// a cache, unless an older response may stand in for it. In a class with a NegativeTTL
// the error handler is asked inside the cache what it answers to an error whose method
// StatusCode() int returns 404 or 410, as [echo.HTTPError] has it: if that is what it
// answers, it is the answer, and middleware in front sees it as it will see the hits,
// without the error. If it answers anything else, that is taken back, and Echo asks again.
// Nothing is stored of other errors, nor where a handler returns without having answered,
// since middleware outside may be about to, nor where a handler answers a second status
// behind the first content, which is then half of a page.
//
// Hooks set with [echo.Response.Before] in front of the cache run for each answer, hit or
// miss, and their fields are not stored; a response to which they add Set-Cookie is not
// stored at all. Hooks set behind the cache are the handler's, and their fields are stored.
//
// The handler writes to the Response that is the context's in front of the cache, or,
// where middleware has put a writer of its own before that with [echo.Context.SetResponse],
// to a new one. A handler that gets hold of a writer further out, and writes to that,
// writes past the cache: the client sees the answer, and nothing is stored.
//
// Echo takes a request's scheme from X-Forwarded-Proto and similar fields where its peer
// is in a private network, or as [echo.Echo.SchemeExtractor] says. Where that is not the
// connection's own scheme, it is part of a response's identity.
//
// With [echo.RouterConfig].AutoHandleHEAD a HEAD is answered from the stored response to
// GET. A HEAD that misses runs the handler, and is not stored.
//
// A background refresh sends a copy of the request through Echo again, from the
// beginning, since there is no other way to a context like the first. The
// middleware in front of the cache sees it as one more request, and if it answers
// by itself nothing is stored. The copy has the target that the client sent:
// behind http.StripPrefix it does not come to its route, and a stale response is
// answered until it expires, then loaded in the foreground.
package echo5

import (
	"context"
	"net/http"
	"net/url"
	"sync"

	"github.com/labstack/echo/v5"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/httpcache"
)

// Cache returns the middleware that caches a handler's responses under a TTL
// class, with tags by which they can be invalidated. A tag may hold path
// parameters, "{id}", and the wildcard, "{*}". It panics with a *core.ConfigError
// if something is wrong with the route.
func Cache(cache *core.Cache, class string, tags ...string) echo.MiddlewareFunc {
	return httpcache.Must(Route{Cache: cache, Class: class, Tags: tags}.Middleware())
}

// Invalidate returns the middleware that invalidates tags, and the request's own
// path, when a handler has succeeded, before the client sees the end of the
// response. Of a stream of events or records (text/event-stream, application/x-ndjson)
// the client sees each one as it is flushed, before the invalidation; the end of the
// stream comes after it. It panics with a *core.ConfigError if something is wrong.
func Invalidate(cache *core.Cache, tags ...string) echo.MiddlewareFunc {
	return httpcache.Must(WriteRoute{Cache: cache, Tags: tags}.Middleware())
}

// CachePerUser is [Cache] for a handler whose response differs per user: identity becomes
// Route.Identity. {identity} in a tag is the user's identity, escaped by [url.QueryEscape]
// (the SHA-256 behind "sha256=" if that is longer than 128 bytes), so that a job names the
// tag as core.Tag("cart:" + url.QueryEscape(user)).
//
// The authentication runs in front of the cache. A request with credentials for which
// identity returns "", "0", "<nil>" or the zero UUID is a bypass, and is logged once.
func CachePerUser(cache *core.Cache, class string, identity func(*echo.Context) (id string, ok bool), tags ...string) echo.MiddlewareFunc {
	return httpcache.Must(Route{Cache: cache, Class: class, Tags: tags, Identity: httpcache.PerUser(identity)}.Middleware())
}

// InvalidatePerUser is [Invalidate] for a handler that writes for one user. At least one of
// the tags has {identity}. The request's path is invalidated for all users.
func InvalidatePerUser(cache *core.Cache, identity func(*echo.Context) (id string, ok bool), tags ...string) echo.MiddlewareFunc {
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
	Identity func(*echo.Context) (id string, ok bool)
	// Skip reports whether a request bypasses the cache. Default: none does.
	Skip func(*echo.Context) bool
	// Reads reports whether a POST with this content only reads: a GraphQL query
	// (httpcache.GraphQLQuery), a search. Its response is cached, with the content and its
	// Content-Type in the key. It must neither keep nor change content. Other POSTs, and
	// those larger than Class.MaxEntryBytes, are writes. Default: each POST is a write.
	Reads func(c *echo.Context, content []byte) bool
}

// Middleware returns the middleware, or a *core.ConfigError.
func (r Route) Middleware() (echo.MiddlewareFunc, error) {
	return httpcache.RouteMiddleware(httpcache.RouteConfig[*echo.Context](r), requestOf, middleware)
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
	Identity func(*echo.Context) (id string, ok bool)
}

// Middleware returns the middleware, or a *core.ConfigError.
func (w WriteRoute) Middleware() (echo.MiddlewareFunc, error) {
	return httpcache.WriteMiddleware(httpcache.WriteRouteConfig[*echo.Context](w), requestOf, middleware)
}

func requestOf(ex httpcache.Exchange) *echo.Context { return ex.(*exchange).echo }

// middleware makes a middleware of the engine's part.
func middleware(serve func(httpcache.Exchange) error) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c *echo.Context) error {
			r := c.Request()
			x := exchanges.Get().(*exchange)
			x.Begin(c.Response(), r)
			x.echo, x.next, x.url = c, next, r.URL
			err := serve(x)
			if x.End() {
				x.echo, x.next, x.url = nil, nil, nil
				exchanges.Put(x)
			}
			if he, ok := err.(*httpcache.HandlerError); ok { //nolint:errorlint // made by Run, never wrapped
				return he.Err
			}
			return err
		}
	}
}

var exchanges = sync.Pool{New: func() any { return new(exchange) }} //nolint:gochecknoglobals // shared scratch

type exchange struct {
	httpcache.StdExchange
	echo *echo.Context
	next echo.HandlerFunc
	url  *url.URL // by which Echo has routed, or will have
}

var _ httpcache.Exchange = (*exchange)(nil)

// Line implements httpcache.Exchange. The handler sees the scheme that Echo takes from a
// proxy's fields; the target that came over the wire is then the original.
func (x *exchange) Line() httpcache.Line {
	l := x.StdExchange.Line()
	if !x.mayBelieve(l.Lacks) {
		return l
	}
	if s := x.echo.Scheme(); s != l.Scheme {
		l.Original = s + " " + l.Scheme + "://" + l.Host + x.Request.RequestURI
		if s == "https" {
			l.Scheme = s
		}
	}
	return l
}

// mayBelieve reports whether Echo may take a scheme from the request's fields. An extractor
// of the app's own may take it from any.
func (x *exchange) mayBelieve(lacks httpcache.FieldSet) bool {
	if e := x.echo.Echo(); e != nil && e.SchemeExtractor != nil {
		return true
	}
	if lacks.Forwarding() {
		return false
	}
	for _, name := range believed {
		if len(x.Request.Header[name]) > 0 {
			return true
		}
	}
	return false
}

// believed are the fields that Echo takes a request's scheme from.
var believed = []string{ //nolint:gochecknoglobals // a constant
	echo.HeaderXForwardedProto, echo.HeaderXForwardedProtocol, echo.HeaderXForwardedSsl, echo.HeaderXUrlScheme,
}

// Run implements httpcache.Exchange.
func (x *exchange) Run(ctx context.Context, c *httpcache.Capture) error {
	outside := x.echo.Request()
	defer func() {
		x.url = x.echo.Request().URL // Pre middleware behind the cache may have rewritten it
		// ctx ends with the run, and middleware outside goes on.
		x.echo.SetRequest(outside)
	}()
	next := func() (err error) {
		x.Handle(ctx, c, func(r *http.Request) {
			x.echo.SetRequest(r)
			err = x.next(x.echo)
		})
		return err
	}
	if c == nil {
		return next()
	}
	return x.captured(c, next)
}

// captured runs the handlers with a Response whose content goes to the capture.
func (x *exchange) captured(c *httpcache.Capture, next func() error) error {
	run := begin(x.echo, c)
	x.Capture = run.capture
	finished := false
	defer func() {
		run.end()
		if !finished {
			x.Capture.Abandon()
		}
	}()
	err := next()
	if err != nil {
		err = run.answer(c, err)
	}
	finished = true
	if run.bypassed() && x.Capture.Answered() {
		x.Capture.Flush() // the answer is not only what has been captured
	}
	x.Capture.Finish(0) // a handler that has not answered leaves it to Echo, or to middleware outside
	return err
}

// Detach implements httpcache.Exchange. It dispatches: a context made by
// Echo.NewContext would lack what middleware has set.
func (x *exchange) Detach() func(context.Context, func(httpcache.Exchange)) {
	e := x.echo.Echo()
	if e == nil { // a context of a test
		return nil
	}
	r := httpcache.DetachRequest(context.WithoutCancel(x.Context()), x.Request)
	if u, err := url.ParseRequestURI(r.RequestURI); err == nil {
		r.URL = u // as it was before Pre middleware rewrote it
	}
	return func(ctx context.Context, _ func(httpcache.Exchange)) {
		httpcache.ServeDiscarding(e, r.WithContext(ctx))
	}
}
