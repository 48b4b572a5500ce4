package echocache_test

import (
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/labstack/echo/v4"

	"github.com/larderhq/larder/core/adaptertest"
	"github.com/larderhq/larder/echocache"
)

func TestAdapter(t *testing.T) {
	adaptertest.Run(t, adaptertest.Framework{
		Name:             "echocache",
		New:              newServer,
		Error:            func(status int) error { return echo.NewHTTPError(status) },
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
	e.HTTPErrorHandler = func(err error, c echo.Context) {
		if errors.Is(err, errMissing) {
			_ = c.String(http.StatusNotFound, "no such thing")
			return
		}
		e.DefaultHTTPErrorHandler(err, c)
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
		e.Add(r.Method, path, func(c echo.Context) error { return r.Handler(newCtx(c)) }, uses...)
	}
	return adaptertest.Serve(e)
}

func use(u adaptertest.Use) echo.MiddlewareFunc {
	switch u := u.(type) {
	case adaptertest.Cached:
		return echocache.Cache(u.Cache, u.Class, u.Tags...)
	case adaptertest.CachedRoute:
		return route(u)
	case adaptertest.CachedPerUser:
		return echocache.CachePerUser(u.Cache, u.Class, func(c echo.Context) (string, bool) {
			return valueOf(c, u.IdentityField), true
		}, u.Tags...)
	case adaptertest.Invalidates:
		if u.IdentityField != "" {
			return echocache.InvalidatePerUser(u.Cache, func(c echo.Context) (string, bool) {
				v := valueOf(c, u.IdentityField)
				return v, v != ""
			}, u.Tags...)
		}
		return echocache.Invalidate(u.Cache, u.Tags...)
	case adaptertest.AsSent:
		return func(next echo.HandlerFunc) echo.HandlerFunc {
			return func(c echo.Context) error {
				c.Response().Before(func() { u(newCtx(c)) })
				return next(c)
			}
		}
	case adaptertest.Compresses:
		return compresses
	case adaptertest.Around:
		return func(next echo.HandlerFunc) echo.HandlerFunc {
			return func(c echo.Context) error { return u(newCtx(c), func() error { return next(c) }) }
		}
	default:
		panic("unknown use")
	}
}

func route(u adaptertest.CachedRoute) echo.MiddlewareFunc {
	rt := echocache.Route{Cache: u.Cache, Class: u.Class, Tags: u.Tags}
	if u.IdentityField != "" {
		rt.Identity = func(c echo.Context) (string, bool) {
			v := c.Request().Header.Get(u.IdentityField)
			return v, v != ""
		}
	}
	if u.Reads != nil {
		rt.Reads = func(_ echo.Context, content []byte) bool { return u.Reads(content) }
	}
	if u.SkipField != "" {
		rt.Skip = func(c echo.Context) bool { return c.Request().Header.Get(u.SkipField) != "" }
	}
	m, err := rt.Middleware()
	if err != nil {
		panic(err)
	}
	return m
}

// compresses is as Echo's Gzip: it says beforehand that answers vary, and encodes
// whatever is written.
func compresses(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		res := c.Response()
		res.Header().Add("Vary", "Accept-Encoding")
		if !strings.Contains(c.Request().Header.Get("Accept-Encoding"), "gzip") {
			return next(c)
		}
		z := &compressor{ResponseWriter: res.Writer, gzip: gzip.NewWriter(res.Writer)}
		res.Writer = z
		defer z.close()
		return next(c)
	}
}

type compressor struct {
	http.ResponseWriter
	gzip   *gzip.Writer
	status int // that has not been sent
	wrote  bool
}

func (w *compressor) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *compressor) WriteHeader(status int) {
	w.Header().Del("Content-Length")
	w.status = status
}

func (w *compressor) Write(p []byte) (int, error) {
	if !w.wrote {
		w.Header().Set("Content-Encoding", "gzip")
		w.send()
	}
	return w.gzip.Write(p)
}

func (w *compressor) send() {
	w.wrote = true
	if w.status != 0 {
		w.ResponseWriter.WriteHeader(w.status)
	}
}

func (w *compressor) close() {
	if !w.wrote {
		w.send()
		return
	}
	_ = w.gzip.Close()
}

// ctx is what a handler of the suite sees of an echo.Context.
type ctx struct {
	adaptertest.Std
	echo echo.Context
}

func newCtx(c echo.Context) *ctx {
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
	fn(c.echo.Response(), c.echo.Response().Flush)
	return nil
}

// EarlyHints goes past Echo's Response, which takes a 1xx for the answer.
func (c *ctx) EarlyHints(link string) {
	h := c.echo.Response().Header()
	h.Add("Link", link)
	c.echo.Response().Writer.WriteHeader(http.StatusEarlyHints)
	h.Del("Link")
}

func valueOf(c echo.Context, name string) string { return c.Request().Header.Get(name) }
