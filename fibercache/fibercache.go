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
	"bytes"
	"context"
	"errors"
	"net/http"
	"sync"

	"github.com/gofiber/fiber/v2"
	"github.com/valyala/fasthttp"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/httpcache"
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

func requestOf(ex httpcache.Exchange) *fiber.Ctx { return ex.(*exchange).c }

func cached(serve func(httpcache.Exchange) error) fiber.Handler { return middleware(serve, false) }

func invalidating(serve func(httpcache.Exchange) error) fiber.Handler { return middleware(serve, true) }

func middleware(serve func(httpcache.Exchange) error, writes bool) fiber.Handler {
	state := new(routeState)
	return func(c *fiber.Ctx) error {
		continueRefresh(c)
		x := exchanges.Get().(*exchange)
		x.state = state
		x.c, x.route, x.writes, x.snapshotTaken, x.ran, x.deferred = c, c.Route(), writes, false, false, false
		err := serve(x)
		x.c = nil
		if !x.deferred { // otherwise it is still asked what the request was
			exchanges.Put(x)
		}
		if he, ok := err.(*httpcache.HandlerError); ok { //nolint:errorlint // made by Run, never wrapped
			return he.Err
		}
		return err
	}
}

// routeState is what a middleware keeps between requests.
type routeState struct {
	outers   sync.Map // by the *fiber.Route that the middleware is on: httpcache.Outer
	prepared preparedHeaders
}

var exchanges = sync.Pool{New: func() any { return new(exchange) }} //nolint:gochecknoglobals // shared scratch

type exchange struct {
	c             *fiber.Ctx   // nil when the middleware has returned
	route         *fiber.Route // that the middleware is on
	state         *routeState
	writes        bool
	asTheyCome    bool // names of fields are; once c is nil
	snapshotTaken bool
	ran           bool
	deferred      bool                    // it is in use until the answer has been sent
	request       fasthttp.RequestHeader  // as it was at SnapshotFields
	before        fasthttp.ResponseHeader // what outer middleware had set before Run
	values        []string
	target        []byte
}

var (
	_ httpcache.Exchange         = (*exchange)(nil)
	_ httpcache.FieldSnapshotter = (*exchange)(nil)
	_ httpcache.ContentReader    = (*exchange)(nil)
	_ httpcache.OuterReporter    = (*exchange)(nil)
	_ httpcache.SentNotifier     = (*exchange)(nil)
)

// Context implements httpcache.Exchange.
func (x *exchange) Context() context.Context {
	if x.c == nil { // the answer has been sent
		return context.Background()
	}
	return x.c.UserContext()
}

// Run implements httpcache.Exchange.
func (x *exchange) Run(ctx context.Context, capture *httpcache.Capture) error {
	c, fctx := x.c, x.c.Context()
	outer, said := c.UserContext(), fctx.UserValue(httpcache.ContextKey)
	defer func() {
		c.SetUserContext(outer)
		fctx.SetUserValue(httpcache.ContextKey, said)
	}()
	ctx, streams := outlasting(ctx, outer)
	c.SetUserContext(ctx)
	fctx.SetUserValue(httpcache.ContextKey, ctx.Value(httpcache.ContextKey))
	if capture != nil {
		x.ran = true
		c.Response().Header.CopyTo(&x.before)
		if capture.Conditions != nil {
			defer x.ask(capture.Conditions)()
		}
	}
	if err := c.Next(); err != nil {
		he := &httpcache.HandlerError{Err: err, Status: httpcache.StatusOf(err)}
		var fe *fiber.Error
		if errors.As(err, &fe) {
			he.Status = fe.Code
		}
		if capture == nil || !x.answer(capture, he) {
			return he
		}
		return nil
	}
	if x.fill(capture) {
		streams(fctx)
	}
	return nil
}

// answer has the app's error handler answer an error into the capture, if its answer may
// be one to remember. It returns whether that is the answer to the request.
func (x *exchange) answer(capture *httpcache.Capture, he *httpcache.HandlerError) bool {
	resp := x.c.Response()
	if resp.IsBodyStream() || resp.ImmediateHeaderFlush || x.c.Context().Hijacked() || !capture.WantsErrorAnswer(he.Status) {
		return false
	}
	var was fasthttp.Response
	resp.CopyTo(&was)
	if err := x.c.App().ErrorHandler(x.c, he.Err); err != nil {
		_ = x.c.SendStatus(http.StatusInternalServerError) // as Fiber does
	}
	x.fill(capture)
	if capture.KeepsErrorAnswer() {
		return true
	}
	he.Status = capture.Status
	was.CopyTo(resp)
	capture.Retract()
	return false
}

// fill shows a capture what has been answered. It returns whether content is still
// to come.
func (x *exchange) fill(capture *httpcache.Capture) (streamed bool) {
	fctx := x.c.Context()
	resp := &fctx.Response
	streamed = resp.IsBodyStream() || resp.ImmediateHeaderFlush || fctx.Hijacked()
	if t := fctx.LastTimeoutErrorResponse(); t != nil { // it is sent in place of the other
		resp, streamed = t, true
	}
	if capture == nil {
		return streamed
	}
	status := resp.StatusCode()
	if status == http.StatusNotModified && capture.Conditions != nil {
		streamed = false // it has no content, and is not for the client
	}
	var body []byte
	if !streamed && status >= 200 && status != http.StatusNoContent && status != http.StatusNotModified {
		body = resp.Body()
	}
	hold, add := capture.Head(status, newHeader(&resp.Header, &x.before, streamed || len(body) > 0))
	switch {
	case !hold:
	case streamed:
		add = capture.Pass(httpcache.Streamed)
	case len(body) <= capture.Limit:
		capture.Held, capture.Body = true, bytes.Clone(body)
		// fasthttp states the length that it sends. A handler that has stated another one
		// has not been able to write all it meant to (a proxy whose upstream died). Content
		// that has been encoded since has another length anyway.
		if stated := resp.Header.ContentLength(); stated > 0 && stated != len(body) && len(resp.Header.ContentEncoding()) == 0 {
			capture.AbortStatus = http.StatusInternalServerError
		}
	case !capture.Tail: // Fiber sends the tail of a write later anyway
		add = capture.Pass(httpcache.Oversized)
	}
	setFields(&resp.Header, add)
	return streamed
}

// Release implements httpcache.Exchange.
func (x *exchange) Release(fields []httpcache.Field) { setFields(&x.c.Response().Header, fields) }

// Reply implements httpcache.Exchange.
func (x *exchange) Reply(a httpcache.Answer) {
	resp := x.c.Response()
	if x.ran {
		x.before.CopyTo(&resp.Header)
	}
	if x.ran || !x.state.prepared.copyTo(&resp.Header, &a, x.c.App()) {
		resp.SetStatusCode(a.Status)
		setFields(&resp.Header, a.Fields, a.Extra)
	}
	if a.NoBody {
		resp.ResetBody() // fasthttp leaves a HEAD's length as it is set
	} else {
		x.setBody(resp, a.Body)
	}
}
