package echo5_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"testing"

	"github.com/labstack/echo/v5"
	"github.com/labstack/echo/v5/middleware"

	"github.com/larderhq/larder/core/adaptertest"
	"github.com/larderhq/larder/echocache/echo5"
)

func TestAdapter(t *testing.T) {
	adaptertest.Run(t, adaptertest.Framework{
		Name:             "echo5",
		New:              newServer,
		Error:            func(status int) error { return echo.NewHTTPError(status, "") },
		OwnError:         errMissing,
		NoHeadOnGet:      true,
		NoImplicitAnswer: true,
		NoRepeatedStatus: true,
	})
}

// errMissing is an app's own error, for which its error handler has an answer.
var errMissing = missing{}

type missing struct{}

func (missing) Error() string   { return "missing" }
func (missing) StatusCode() int { return http.StatusNotFound }

// newServer puts what is outside into Pre, in front of the router.
func newServer(_ testing.TB, app adaptertest.App) adaptertest.Server {
	e := newEcho()
	e.HTTPErrorHandler = func(c *echo.Context, err error) {
		if errors.Is(err, errMissing) {
			_ = c.String(http.StatusNotFound, "no such thing")
			return
		}
		echo.DefaultHTTPErrorHandler(false)(c, err)
	}
	for _, u := range app.Outside {
		e.Pre(use(u))
	}
	for _, r := range app.Routes {
		path := adaptertest.Translate(r.Pattern,
			func(name string) string { return ":" + name },
			func(string) string { return "*" })
		uses := make([]echo.MiddlewareFunc, len(r.Uses))
		for i, u := range r.Uses {
			uses[i] = use(u)
		}
		e.Add(r.Method, path, func(c *echo.Context) error { return r.Handler(newCtx(c)) }, uses...)
	}
	return adaptertest.Serve(e)
}

func use(u adaptertest.Use) echo.MiddlewareFunc {
	switch u := u.(type) {
	case adaptertest.Cached:
		return echo5.Cache(u.Cache, u.Class, u.Tags...)
	case adaptertest.CachedRoute:
		return route(u)
	case adaptertest.CachedPerUser:
		return echo5.CachePerUser(u.Cache, u.Class, func(c *echo.Context) (string, bool) {
			return valueOf(c, u.IdentityField), true
		}, u.Tags...)
	case adaptertest.Invalidates:
		if u.IdentityField != "" {
			return echo5.InvalidatePerUser(u.Cache, func(c *echo.Context) (string, bool) {
				v := valueOf(c, u.IdentityField)
				return v, v != ""
			}, u.Tags...)
		}
		return echo5.Invalidate(u.Cache, u.Tags...)
	case adaptertest.AsSent:
		return func(next echo.HandlerFunc) echo.HandlerFunc {
			return func(c *echo.Context) error {
				response(c).Before(func() { u(newCtx(c)) })
				return next(c)
			}
		}
	case adaptertest.Compresses:
		return middleware.Gzip()
	case adaptertest.Around:
		return func(next echo.HandlerFunc) echo.HandlerFunc {
			return func(c *echo.Context) error { return u(newCtx(c), func() error { return next(c) }) }
		}
	default:
		panic("unknown use")
	}
}

func route(u adaptertest.CachedRoute) echo.MiddlewareFunc {
	rt := echo5.Route{Cache: u.Cache, Class: u.Class, Tags: u.Tags}
	if u.IdentityField != "" {
		rt.Identity = func(c *echo.Context) (string, bool) {
			v := c.Request().Header.Get(u.IdentityField)
			return v, v != ""
		}
	}
	if u.Reads != nil {
		rt.Reads = func(_ *echo.Context, content []byte) bool { return u.Reads(content) }
	}
	if u.SkipField != "" {
		rt.Skip = func(c *echo.Context) bool { return c.Request().Header.Get(u.SkipField) != "" }
	}
	m, err := rt.Middleware()
	if err != nil {
		panic(err)
	}
	return m
}

// response returns the Response of a context.
func response(c *echo.Context) *echo.Response {
	r, err := echo.UnwrapResponse(c.Response())
	if err != nil {
		panic(err)
	}
	return r
}

// ctx is what a handler of the suite sees of an *echo.Context.
type ctx struct {
	adaptertest.Std
	echo *echo.Context
}

func newCtx(c *echo.Context) *ctx {
	return &ctx{adaptertest.Std{Writer: c.Response(), Request: c.Request()}, c}
}

func (c *ctx) Context() context.Context { return c.echo.Request().Context() }

func (c *ctx) SetContext(ctx context.Context) {
	c.Std.SetContext(ctx)
	c.echo.SetRequest(c.Request)
}

func (c *ctx) Param(name string) string {
	if v := c.echo.Param(name); v != "" {
		return v
	}
	return c.echo.Param("*")
}

func (c *ctx) Text(status int, body string) error { return c.echo.String(status, body) }

func (c *ctx) Stream(fn func(w io.Writer, flush func())) error {
	fn(c.echo.Response(), func() { _ = http.NewResponseController(c.echo.Response()).Flush() })
	return nil
}

// EarlyHints goes past Echo's Response, which takes a 1xx for the answer.
func (c *ctx) EarlyHints(link string) {
	h := c.echo.Response().Header()
	h.Add("Link", link)
	response(c.echo).ResponseWriter.WriteHeader(http.StatusEarlyHints)
	h.Del("Link")
}

func valueOf(c *echo.Context, name string) string { return c.Request().Header.Get(name) }
