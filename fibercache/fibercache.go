// Package fibercache caches the responses of Fiber handlers.
//
//	app.Get("/products/:id", fibercache.Cache(cache, "product", "product:{id}", "catalog"), show)
//	app.Put("/products/:id", fibercache.Invalidate(cache, "product:{id}", "catalog"), update)
//
// {id} is the route's parameter, decoded once; {*} is the wildcard, * or +. A
// middleware given to Use or Group learns the parameters only as the handler runs:
// Cache then resolves its tags afterwards, Invalidate answers 500.
//
// An error that a handler returns goes to the app's error handler as it would without a
// cache, unless an older response may stand in for it. In a class with a NegativeTTL the
// error handler is asked inside the cache what it answers to a [fiber.Error] with 404 or
// 410, or to an error whose method StatusCode() int says so: if that is what it answers, it
// is the answer, and middleware in front sees it as it will see the hits, without the
// error. If it answers anything else, that is taken back, and Fiber asks again.
//
// core's context functions take c.UserContext() as well as c.Context().
//
// # What Fiber makes different
//
// By default Fiber trusts X-Forwarded-Host and X-Forwarded-Proto of any client, and
// c.BaseURL() puts them into links. The trusted host and scheme are therefore part of a
// response's key, beside those that the client sent: no client can have its own links
// stored for others. EnableTrustedProxyCheck keeps such requests from filling the cache
// with responses that no other client requests.
//
// A background refresh is a copy of the request that goes through the whole app
// again, outer middleware included.
//
// A body stream is sent after its handler has returned. It is never stored. Behind
// Invalidate it is read when the invalidation has happened; what a stream itself
// commits is for it to announce, by core.Invalidate.
package fibercache

import (
	"context"
	"errors"
	"reflect"
	"sync"

	"github.com/gofiber/fiber/v2"
	"github.com/valyala/fasthttp"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/httpcache"
	"github.com/larderhq/larder/fibercache/internal/fast"
)

// Cache returns the middleware that caches a handler's responses under a TTL
// class, with tags by which they can be invalidated. A tag may hold path
// parameters, "{id}", and the wildcard, "{*}". It panics with a *core.ConfigError
// if something is wrong with the route.
func Cache(cache *core.Cache, class string, tags ...string) fiber.Handler {
	return httpcache.Must(Route{Cache: cache, Class: class, Tags: tags}.Middleware())
}

// Invalidate returns the middleware that invalidates tags, and the request's own
// path, when a handler has succeeded, before the client sees the response. It
// panics with a *core.ConfigError if something is wrong.
func Invalidate(cache *core.Cache, tags ...string) fiber.Handler {
	return httpcache.Must(WriteRoute{Cache: cache, Tags: tags}.Middleware())
}

// CachePerUser is [Cache] for a handler whose response differs per user: identity becomes
// Route.Identity. {identity} in a tag is the user's identity, escaped by url.QueryEscape
// (the SHA-256 behind "sha256=" if that is longer than 128 bytes), so that a job names the
// tag as core.Tag("cart:" + url.QueryEscape(user)).
//
// The authentication runs in front of the cache. A request with credentials for which
// identity returns "", "0", "<nil>" or the zero UUID is a bypass, and is logged once.
func CachePerUser(cache *core.Cache, class string, identity func(*fiber.Ctx) (id string, ok bool), tags ...string) fiber.Handler {
	return httpcache.Must(Route{Cache: cache, Class: class, Tags: tags, Identity: httpcache.PerUser(identity)}.Middleware())
}

// InvalidatePerUser is [Invalidate] for a handler that writes for one user. At least one of
// the tags has {identity}. The request's path is invalidated for all users.
func InvalidatePerUser(cache *core.Cache, identity func(*fiber.Ctx) (id string, ok bool), tags ...string) fiber.Handler {
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
	Identity func(*fiber.Ctx) (id string, ok bool)
	// Skip reports whether a request bypasses the cache. Default: none does.
	Skip func(*fiber.Ctx) bool
	// Reads reports whether a POST with this content only reads: a GraphQL query
	// (httpcache.GraphQLQuery), a search. Its response is cached, with the content and its
	// Content-Type in the key. It must neither keep nor change content. Other POSTs, and
	// those larger than Class.MaxEntryBytes, are writes. Default: each POST is a write.
	Reads func(c *fiber.Ctx, content []byte) bool
}

// Middleware returns the middleware, or a *core.ConfigError.
func (r Route) Middleware() (fiber.Handler, error) {
	return httpcache.RouteMiddleware(httpcache.RouteConfig[*fiber.Ctx](r), requestOf, cached)
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
	Identity func(*fiber.Ctx) (id string, ok bool)
}

// Middleware returns the middleware, or a *core.ConfigError.
func (w WriteRoute) Middleware() (fiber.Handler, error) {
	return httpcache.WriteMiddleware(httpcache.WriteRouteConfig[*fiber.Ctx](w), requestOf, invalidating)
}

func requestOf(ex httpcache.Exchange) *fiber.Ctx { return ex.(*exchange).fiber.c }

func cached(serve func(httpcache.Exchange) error) fiber.Handler { return middleware(serve, false) }

func invalidating(serve func(httpcache.Exchange) error) fiber.Handler { return middleware(serve, true) }

func middleware(serve func(httpcache.Exchange) error, writes bool) fiber.Handler {
	state := new(fast.State)
	return func(c *fiber.Ctx) error {
		x := exchanges.Get().(*exchange)
		x.fiber.c = c
		x.Begin(c.Context(), state, c.Route(), writes)
		reusable, err := x.End(serve(x))
		x.fiber.c = nil
		if reusable {
			exchanges.Put(x)
		}
		return err
	}
}

var exchanges = sync.Pool{New: func() any { //nolint:gochecknoglobals // shared scratch
	x := new(exchange)
	x.Request = &x.fiber
	return x
}}

type exchange struct {
	fast.Exchange
	fiber request
}

// request is a fast.Request of Fiber v2.
type request struct{ c *fiber.Ctx }

var _ fast.Request = (*request)(nil)

func (r *request) Context() context.Context       { return r.c.UserContext() }
func (r *request) SetContext(ctx context.Context) { r.c.SetUserContext(ctx) }
func (r *request) Method() string                 { return r.c.Method() }
func (r *request) Scheme() string                 { return r.c.Protocol() }
func (r *request) Host() string                   { return r.c.Hostname() }
func (r *request) Next() error                    { return r.c.Next() }
func (r *request) Server() *fasthttp.Server       { return r.c.App().Server() }
func (r *request) AppHandler() uintptr            { return appHandler() }

func (r *request) Outer(route any) httpcache.Outer {
	return outerOf(r.c.App().Stack(), route.(*fiber.Route))
}

func (r *request) Param(name string) (value string, decoded bool) {
	v := r.c.Params(name)
	if v == "" && name == "*" {
		v = r.c.Params("+")
	}
	return v, r.c.App().Config().UnescapePath
}

func (r *request) Status(err error) int {
	var fe *fiber.Error
	if errors.As(err, &fe) {
		return fe.Code
	}
	return httpcache.StatusOf(err)
}

func (r *request) Fail(err error) {
	if err := r.c.App().ErrorHandler(r.c, err); err != nil {
		_ = r.c.SendStatus(fiber.StatusInternalServerError) // as Fiber does
	}
}

// appHandler returns the code of the handler of any app.
var appHandler = sync.OnceValue(func() uintptr { //nolint:gochecknoglobals // a constant
	return reflect.ValueOf(fiber.New().Handler()).Pointer()
})
