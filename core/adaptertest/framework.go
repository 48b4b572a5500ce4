package adaptertest

import (
	"context"
	"io"
	"iter"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/larderhq/larder/core"
)

// Framework is one adapter with its framework. The flags state what the framework cannot
// do; a case that a flag leaves out is skipped with the flag's name, so that the results of
// two adapters can be compared.
type Framework struct {
	Name string // as in "nethttp"

	// New builds an app. It panics as the adapter does where a Use is malformed.
	// The app must outlive a handler's panic: a framework whose server does not
	// recover (Fiber) gets its own recovery middleware around everything.
	New func(t testing.TB, app App) Server

	// Shared runs the suite with a shared tier, in memory, instead of in this
	// process only.
	Shared bool

	// Error makes the error that a handler of this framework returns to be
	// answered with a status: echo.NewHTTPError, fiber.NewError. nil: handlers
	// return no errors (net/http, Gin).
	Error func(status int) error

	// Fail makes a handler fail with a status in the way of the framework whose errors
	// Error does not cover: gin.Context.AbortWithError. The return value is the handler's.
	// nil: Error does, or there is none (net/http).
	Fail func(c Ctx, status int) error
	// OwnError is an error type of an app whose method StatusCode returns 404. New installs
	// an error handler that answers it so (Echo, Fiber). nil: there is none.
	OwnError error

	// NoHeadOnGet: a HEAD request does not reach the handler of a GET route (Gin
	// answers 404, Echo 405). The suite then registers HEAD as a route of its own.
	NoHeadOnGet bool
	// NoResponseWriter: there is no http.ResponseWriter under the framework's
	// context, so no http.Flusher, Hijacker, ResponseController, io.ReaderFrom
	// (Fiber). Ctx.ResponseWriter returns nil.
	NoResponseWriter bool
	// NoClientCancel: the request's context does not end when its client goes
	// away (Fiber).
	NoClientCancel bool
	// NoEarlyHints: a handler cannot send 103 before its answer.
	NoEarlyHints bool
	// NoDateOverride: the server states the Date itself, whatever the handler has
	// set, without the cache as well.
	NoDateOverride bool
	// NoEscapedSlash: /p/a%2Fb does not match /p/{id} (Gin without UseRawPath).
	NoEscapedSlash bool
	// NoImplicitAnswer: a handler that returns without having answered leaves the
	// answer to the middleware around it (Gin's c.Error, Echo), so that an empty
	// 200 is neither assumed nor stored.
	NoImplicitAnswer bool
	// NoRepeatedStatus: the framework's writer keeps a second status to itself, and says only
	// that there was one, so that one like the first counts as another (Echo).
	NoRepeatedStatus bool
	// ParamsOutside: middleware outside routing (App.Outside) knows the
	// parameters of the route already (Gin's Use; Echo's Use, but not its Pre).
	ParamsOutside bool

	warms, runsHandlers, uploads bool // which optional interfaces its Server and Ctx have
}

// Server is an app that can be served. The suite does the listening, over
// loopback sockets and, inside testing/synctest bubbles, over pipes in memory.
type Server interface {
	// Serve answers the connections of l until Close. It is called once, in a
	// goroutine of its own.
	Serve(l net.Listener) error
	// Close stops Serve and waits for requests under way, up to a few seconds.
	Close() error
}

// App is what the server is to serve.
type App struct {
	Outside []Use // around everything, outside routing, the outermost first
	Routes  []Route
}

// Route is one route. Its pattern is written as net/http's: "/p/{id}", and
// "/f/{rest...}" for a wildcard; Translate makes other syntaxes of it.
type Route struct {
	Method  string
	Pattern string
	Uses    []Use // the outermost first
	Handler Handler
}

// Handler answers a request. Its error is one that Framework.Error made, or any
// other where the framework has errors, and nil where it has not.
type Handler func(c Ctx) error

// Use is one middleware: a Cached, CachedRoute, CachedPerUser, Invalidates, AsSent, Compresses or Around. New
// translates it by a switch of its type.
type Use interface{ use() }

// Cached is <adapter>.Cache(cache, class, tags...).
type Cached struct {
	Cache *core.Cache
	Class string
	Tags  []string
}

// CachedRoute is <adapter>.Route{…}.Middleware(); New panics with its error.
type CachedRoute struct {
	Cached
	// IdentityField is the request field whose value Route.Identity returns; not
	// ok where the request has none. "": Route.Identity is left nil.
	IdentityField string
	// SkipField is the request field whose presence makes Route.Skip true. "":
	// Route.Skip is left nil.
	SkipField string
	// Reads is Route.Reads without the request. nil: Route.Reads is left nil.
	Reads func(content []byte) bool
}

// CachedPerUser is <adapter>.CachePerUser(cache, class, identity, tags...).
type CachedPerUser struct {
	Cached
	// IdentityField is the request field whose value identity returns, always ok.
	IdentityField string
}

// Invalidates is <adapter>.Invalidate(cache, tags...), and <adapter>.InvalidatePerUser(cache,
// identity, tags...) with an IdentityField.
type Invalidates struct {
	Cache *core.Cache
	Tags  []string
	// IdentityField is the request field whose value identity returns; not ok where the
	// request has none. "": there is no identity.
	IdentityField string
}

// AsSent is middleware that changes the header of an answer as that goes out, in the
// way of the framework's session libraries: by a writer of its own, by a hook, or
// when everything behind it has returned (Fiber).
type AsSent func(c Ctx)

// Compresses is middleware that encodes the content of answers with gzip for clients that
// accept it: the framework's own, or a well-known one.
type Compresses struct{}

// Around is any other middleware. next runs the middleware and handler behind it, with the
// context that c has then.
type Around func(c Ctx, next func() error) error

func (Cached) use()        {}
func (CachedRoute) use()   {}
func (CachedPerUser) use() {}
func (Invalidates) use()   {}
func (Around) use()        {}
func (AsSent) use()        {}
func (Compresses) use()    {}

// Ctx is one request and its answer for a handler or an Around. Each method works as a
// handler written for the framework would, and does not make up for what the framework
// lacks. Strings may be views of a buffer that is reused.
type Ctx interface {
	// Context is the request's context. SetContext sets the context for the handlers behind.
	Context() context.Context
	SetContext(ctx context.Context)
	// Native is the framework's own context where it is a context.Context
	// (*gin.Context, *fasthttp.RequestCtx), otherwise nil.
	Native() context.Context

	Method() string
	Target() string // path and query, as a handler sees them, undecoded
	Host() string
	Param(name string) string
	Values(name string) []string // of a request field
	Body() string                // of the request

	// Set and Add change the header of the answer.
	Set(name, value string)
	Add(name, value string)
	// Status sets the status, Write appends content; the fields must be set by
	// then. A handler that calls neither answers an empty 200.
	Status(status int)
	Write(p []byte) (int, error)
	// Text answers in the framework's usual way: c.String(status, body).
	Text(status int, body string) error
	// Stream answers piecemeal: the client is meant to see what fn writes and flushes
	// while fn still runs. fn may run after the handler has returned (Fiber). The handler
	// returns the return value.
	Stream(fn func(w io.Writer, flush func())) error
	// EarlyHints sends 103 with a Link field.
	EarlyHints(link string)

	// ResponseWriter is the writer of frameworks on net/http (http.ResponseWriter,
	// echo.Response, gin.ResponseWriter), nil if there is none.
	ResponseWriter() http.ResponseWriter
}

// Optional methods of a Ctx. The cases that need one are skipped without it.
type (
	// A Remover takes a field out of the header of the answer.
	Remover interface{ Remove(name string) }
	// A RequestSetter changes a field of the request, as middleware does.
	RequestSetter interface{ SetRequest(name, value string) }
	// A HandlerRunner has a handler of net/http answer the request, as the framework's
	// own adaptor does.
	HandlerRunner interface{ RunHandler(h http.Handler) error }
	// An Uploader reads a file of a form, through the file system where it can, and returns
	// its size.
	Uploader interface {
		Upload(field string) (size int64, err error)
	}
)

// A Warmer is a Server whose app can be warmed: httpcache.Warm, fibercache.Warm.
type Warmer interface {
	Warm(ctx context.Context, urls iter.Seq[string], o core.WarmOptions) (core.WarmResult, error)
}

// Translate writes a pattern in another syntax: param and rest make a parameter
// and the wildcard of their names.
func Translate(pattern string, param, rest func(name string) string) string {
	var b strings.Builder
	for {
		head, tail, found := strings.Cut(pattern, "{")
		b.WriteString(head)
		if !found {
			return b.String()
		}
		name, tail, _ := strings.Cut(tail, "}")
		if name, all := strings.CutSuffix(name, "..."); all {
			b.WriteString(rest(name))
		} else {
			b.WriteString(param(name))
		}
		pattern = tail
	}
}
