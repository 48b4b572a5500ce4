// Package gincache caches the responses of Gin's handlers.
//
//	r.GET("/products/:id", gincache.Cache(cache, "product", "product:{id}", "catalog"), show)
//	r.PUT("/products/:id", gincache.Invalidate(cache, "product:{id}", "catalog"), update)
//
// {id} is Gin's :id. The wildcard is {*}, whatever its name, without the slash that
// Gin leaves in front of it. Parameters are decoded as Gin decodes them: once,
// unless the engine has UseRawPath without UnescapePathValues.
//
// A hit aborts the chain: [gin.Context.IsAborted] is true behind it. An answer for which the
// handler has called [gin.Context.Error] is not stored, but for a 404 or 410 in a class with a
// NegativeTTL: its hits come with an error of the same message, so that middleware which
// makes the content of it does so each time. Where an older response stands
// in for it, those errors are dropped, so that no middleware answers them as well.
// A handler that has set a status has answered, with content or without. One that
// has done neither leaves it to Gin, or to middleware outside, and nothing is
// stored.
//
// A background refresh sends a copy of the request through Gin again, from the
// beginning: a copy of the context would keep values that refer to the first one,
// which Gin has given to another request by then. The middleware in front of the
// cache sees it as one more request, and if it answers by itself nothing is stored.
package gincache

import (
	"context"
	"errors"
	"net/http"
	"reflect"
	"strings"
	"sync"

	"github.com/gin-gonic/gin"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/httpcache"
)

// Cache returns the middleware that caches a handler's responses under a TTL
// class, with tags by which they can be invalidated. A tag may hold path
// parameters, "{id}", and the wildcard, "{*}". It panics with a *core.ConfigError
// if something is wrong with the route, as Gin does.
func Cache(cache *core.Cache, class string, tags ...string) gin.HandlerFunc {
	return httpcache.Must(Route{Cache: cache, Class: class, Tags: tags}.Middleware())
}

// Invalidate returns the middleware that invalidates tags, and the request's own
// path, when a handler has succeeded, before the client sees the end of the
// response. Of a stream of events or records (text/event-stream, application/x-ndjson)
// the client sees each one as it is flushed, before the invalidation; the end of the
// stream comes after it. It panics with a *core.ConfigError if something is wrong.
func Invalidate(cache *core.Cache, tags ...string) gin.HandlerFunc {
	return httpcache.Must(WriteRoute{Cache: cache, Tags: tags}.Middleware())
}

// CachePerUser is [Cache] for a handler whose response differs per user: identity becomes
// Route.Identity. {identity} in a tag is the user's identity, escaped by url.QueryEscape
// (the SHA-256 behind "sha256=" if that is longer than 128 bytes), so that a job names the
// tag as core.Tag("cart:" + url.QueryEscape(user)).
//
// The authentication runs in front of the cache. A request with credentials for which
// identity returns "", "0", "<nil>" or the zero UUID is a bypass, and is logged once.
func CachePerUser(cache *core.Cache, class string, identity func(*gin.Context) (id string, ok bool), tags ...string) gin.HandlerFunc {
	return httpcache.Must(Route{Cache: cache, Class: class, Tags: tags, Identity: httpcache.PerUser(identity)}.Middleware())
}

// InvalidatePerUser is [Invalidate] for a handler that writes for one user. At least one of
// the tags has {identity}. The request's path is invalidated for all users.
func InvalidatePerUser(cache *core.Cache, identity func(*gin.Context) (id string, ok bool), tags ...string) gin.HandlerFunc {
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
	Identity func(*gin.Context) (id string, ok bool)
	// Skip reports whether a request bypasses the cache. Default: none does.
	Skip func(*gin.Context) bool
	// Reads reports whether a POST with this content only reads: a GraphQL query
	// (httpcache.GraphQLQuery), a search. Its response is cached, with the content and its
	// Content-Type in the key. It must neither keep nor change content. Other POSTs, and
	// those larger than Class.MaxEntryBytes, are writes. Default: each POST is a write.
	Reads func(c *gin.Context, content []byte) bool
}

// Middleware returns the middleware, or a *core.ConfigError.
func (r Route) Middleware() (gin.HandlerFunc, error) {
	return httpcache.RouteMiddleware(httpcache.RouteConfig[*gin.Context](r), requestOf, middleware)
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
	Identity func(*gin.Context) (id string, ok bool)
}

// Middleware returns the middleware, or a *core.ConfigError.
func (w WriteRoute) Middleware() (gin.HandlerFunc, error) {
	return httpcache.WriteMiddleware(httpcache.WriteRouteConfig[*gin.Context](w), requestOf, middleware)
}

func requestOf(ex httpcache.Exchange) *gin.Context { return ex.(*exchange).gin }

func middleware(serve func(httpcache.Exchange) error) gin.HandlerFunc {
	return func(c *gin.Context) {
		x := exchanges.Get().(*exchange)
		x.gin, x.errors = c, len(c.Errors)
		x.out.ResponseWriter, x.out.final = c.Writer, false
		x.Begin(&x.out, c.Request)
		_ = serve(x) // Gin has the errors in c.Errors
		if x.End() {
			x.gin, x.out.ResponseWriter = nil, nil
			exchanges.Put(x)
		}
	}
}

var exchanges = sync.Pool{New: func() any { return new(exchange) }} //nolint:gochecknoglobals // shared scratch

type exchange struct {
	httpcache.StdExchange
	gin    *gin.Context
	out    out
	errors int // that were there before
}

var _ httpcache.Exchange = (*exchange)(nil)

// Param implements httpcache.Exchange.
func (x *exchange) Param(name string) (string, bool) {
	if name != "*" {
		return x.gin.Params.Get(name)
	}
	_, name, _ = strings.Cut(x.gin.FullPath(), "/*")
	v, ok := x.gin.Params.Get(name)
	return strings.TrimPrefix(v, "/"), ok
}

// Run implements httpcache.Exchange.
func (x *exchange) Run(ctx context.Context, c *httpcache.Capture) error {
	g, request, outer := x.gin, x.gin.Request, x.gin.Writer
	// ctx ends with the run, and middleware outside goes on.
	defer func() { g.Request, g.Writer = request, outer }()
	if v := ctx.Value(httpcache.ContextKey); v != nil {
		// gin.Context.Value does not look into the request's context by default.
		before, _ := g.Get(httpcache.ContextKey)
		defer g.Set(httpcache.ContextKey, before)
		g.Set(httpcache.ContextKey, v)
	}
	if c == nil {
		x.handle(ctx, nil)
		return nil
	}
	x.Capture = httpcache.NewWriter(&x.out, c)
	w := &writer{out: &x.out, capture: x.Capture, status: outer.Status(), size: unwritten}
	g.Writer = w
	finished := false
	defer func() {
		if !finished {
			x.Capture.Abandon()
		}
	}()
	x.handle(ctx, c)
	finished = true
	return x.finish(c, w, outer)
}

// handle has the handlers behind the middleware answer the request.
func (x *exchange) handle(ctx context.Context, c *httpcache.Capture) {
	g, whole := x.gin, false
	x.Handle(ctx, c, func(r *http.Request) {
		g.Request = r
		g.Next()
		whole = true
	})
	if !whole {
		g.Abort() // nothing behind the handler that broke off
	}
}

// finish ends the capture of a run, and returns the error of the handlers, if it is not
// answered.
func (x *exchange) finish(c *httpcache.Capture, w *writer, outer gin.ResponseWriter) error {
	g := x.gin
	failed := len(g.Errors) > x.errors
	implicit := 0
	if !w.Written() && !outer.Written() { // a HandleContext writes to Gin's own
		outer.WriteHeader(w.status)
		if w.recorded && (!failed || w.status >= 400 && c.WantsErrorAnswer(w.status)) {
			implicit = w.status
		}
	}
	x.Capture.Finish(implicit)
	if !failed {
		return nil
	}
	if c.WantsErrorAnswer(w.status) && c.KeepsErrorAnswer() {
		c.ErrorMessage = failure(g.Errors.Last())
		return nil
	}
	err := &httpcache.HandlerError{Err: g.Errors.Last(), Status: w.status}
	if !w.Written() && w.status < 400 {
		err.Status = 0 // middleware outside will say
	}
	return err
}

// failure returns the message of an error, which is never empty.
func failure(err error) string {
	const longest = 1 << 10
	if s := err.Error(); s != "" {
		return s[:min(len(s), longest)]
	}
	return "error"
}

// Reply implements httpcache.Exchange. An answer that came with an error comes with one
// again: middleware outside may make the content of it.
func (x *exchange) Reply(a httpcache.Answer) {
	x.StdExchange.Reply(x.replies(a))
}

// ReplyHeader implements httpcache.HeaderSender.
func (x *exchange) ReplyHeader(a httpcache.Answer) httpcache.SentHeader {
	return x.StdExchange.ReplyHeader(x.replies(a))
}

// replies makes Gin ready for an answer in place of the handler's.
func (x *exchange) replies(a httpcache.Answer) httpcache.Answer {
	x.gin.Abort()
	x.gin.Errors = x.gin.Errors[:min(len(x.gin.Errors), x.errors)]
	x.out.final = true
	if a.ErrorMessage != "" {
		_ = x.gin.Error(errors.New(a.ErrorMessage))
		if len(a.Body) == 0 {
			x.out.final = false
			a.Extra = append(a.Extra[:len(a.Extra):len(a.Extra)], httpcache.Field{Name: "Content-Length", Mode: httpcache.Remove})
		}
	}
	return a
}

// Outer implements httpcache.OuterReporter: a writer in place of Gin's own, or one behind
// that.
func (x *exchange) Outer() httpcache.Outer {
	w := x.out.ResponseWriter
	own, unwraps := w.(interface{ Unwrap() http.ResponseWriter })
	if !unwraps || reflect.TypeOf(w) != ginWriter {
		return httpcache.OuterUnknown
	}
	return httpcache.OuterOf(own.Unwrap())
}

// ginWriter is the type of Gin's own writer, which a context has until middleware sets
// another one. nil: not in this version of Gin.
var ginWriter = func() reflect.Type { //nolint:gochecknoglobals // a constant
	f, ok := reflect.TypeFor[gin.Context]().FieldByName("writermem")
	if !ok {
		return nil
	}
	return reflect.PointerTo(f.Type)
}()

// Detach implements httpcache.Exchange. It dispatches through the engine, which a
// context does not show.
func (x *exchange) Detach() func(context.Context, func(httpcache.Exchange)) {
	f := reflect.ValueOf(x.gin).Elem().FieldByName("engine")
	if !f.IsValid() || f.Type() != reflect.TypeFor[*gin.Engine]() {
		return nil // not in this version of Gin
	}
	e, r := (*gin.Engine)(f.UnsafePointer()), httpcache.DetachRequest(context.WithoutCancel(x.Context()), x.Request)
	return func(ctx context.Context, _ func(httpcache.Exchange)) {
		httpcache.ServeDiscarding(e, r.WithContext(ctx))
	}
}
