package fibercache_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"iter"
	"net"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/gofiber/fiber/v2/middleware/adaptor"
	"github.com/gofiber/fiber/v2/middleware/compress"
	recovery "github.com/gofiber/fiber/v2/middleware/recover"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/adaptertest"
	"github.com/larderhq/larder/fibercache"
)

func TestAdapter(t *testing.T) { adaptertest.Run(t, framework()) }

func TestAdapterOverASharedTier(t *testing.T) {
	if testing.Short() {
		t.Skip("the suite once more")
	}
	f := framework()
	f.Shared = true
	adaptertest.Run(t, f)
}

func framework() adaptertest.Framework {
	return adaptertest.Framework{
		Name:             "fibercache",
		New:              newServer,
		Error:            func(status int) error { return fiber.NewError(status) },
		OwnError:         errMissing,
		NoResponseWriter: true,
		NoClientCancel:   true,
		NoEarlyHints:     true,
		NoDateOverride:   true,
	}
}

// errMissing is an app's own error, for which its error handler has an answer.
var errMissing = missing{}

type missing struct{}

func (missing) Error() string   { return "missing" }
func (missing) StatusCode() int { return http.StatusNotFound }

type server struct{ app *fiber.App }

func (s server) Warm(ctx context.Context, urls iter.Seq[string], o core.WarmOptions) (core.WarmResult, error) {
	return fibercache.Warm(ctx, s.app, urls, o)
}

func (s server) Serve(l net.Listener) error { return s.app.Listener(l) }

func (s server) Close() error { return s.app.ShutdownWithTimeout(5 * time.Second) }

func newServer(_ testing.TB, a adaptertest.App) adaptertest.Server {
	app := fiber.New(fiber.Config{
		DisableStartupMessage: true,
		ReadBufferSize:        16 << 10, // of a request with all its fields
		RequestMethods:        append(slices.Clone(fiber.DefaultMethods), "QUERY", "PROPFIND", "REPORT", "SEARCH"),
		ErrorHandler: func(c *fiber.Ctx, err error) error {
			if errors.Is(err, errMissing) {
				return c.Status(fiber.StatusNotFound).SendString("no such thing")
			}
			return fiber.DefaultErrorHandler(c, err)
		},
	})
	app.Use(recovery.New())
	for _, u := range a.Outside {
		app.Use(middleware(u))
	}
	for _, r := range a.Routes {
		handlers := make([]fiber.Handler, 0, len(r.Uses)+1)
		for _, u := range r.Uses {
			handlers = append(handlers, middleware(u))
		}
		handlers = append(handlers, func(c *fiber.Ctx) error { return r.Handler(&ctx{c}) })
		pattern := adaptertest.Translate(r.Pattern, func(name string) string { return ":" + name }, func(string) string { return "*" })
		if r.Method == http.MethodGet {
			app.Get(pattern, handlers...) // HEAD as well
		} else {
			app.Add(r.Method, pattern, handlers...)
		}
	}
	return server{app}
}

func middleware(u adaptertest.Use) fiber.Handler {
	switch u := u.(type) {
	case adaptertest.Cached:
		return fibercache.Cache(u.Cache, u.Class, u.Tags...)
	case adaptertest.CachedRoute:
		return route(u)
	case adaptertest.CachedPerUser:
		return fibercache.CachePerUser(u.Cache, u.Class, func(c *fiber.Ctx) (string, bool) {
			return valueOf(c, u.IdentityField), true
		}, u.Tags...)
	case adaptertest.Invalidates:
		if u.IdentityField != "" {
			return fibercache.InvalidatePerUser(u.Cache, func(c *fiber.Ctx) (string, bool) {
				v := valueOf(c, u.IdentityField)
				return v, v != ""
			}, u.Tags...)
		}
		return fibercache.Invalidate(u.Cache, u.Tags...)
	case adaptertest.AsSent:
		return func(c *fiber.Ctx) error {
			err := c.Next()
			u(&ctx{c})
			return err
		}
	case adaptertest.Compresses:
		return compress.New()
	case adaptertest.Around:
		return func(c *fiber.Ctx) error { return u(&ctx{c}, c.Next) }
	default:
		panic("unknown use")
	}
}

func route(u adaptertest.CachedRoute) fiber.Handler {
	rt := fibercache.Route{Cache: u.Cache, Class: u.Class, Tags: u.Tags}
	if u.IdentityField != "" {
		rt.Identity = func(c *fiber.Ctx) (string, bool) {
			v := c.Get(u.IdentityField)
			return v, v != ""
		}
	}
	if u.Reads != nil {
		rt.Reads = func(_ *fiber.Ctx, content []byte) bool { return u.Reads(content) }
	}
	if u.SkipField != "" {
		rt.Skip = func(c *fiber.Ctx) bool { return c.Get(u.SkipField) != "" }
	}
	h, err := rt.Middleware()
	if err != nil {
		panic(err)
	}
	return h
}

// ctx is an adaptertest.Ctx of Fiber.
type ctx struct{ c *fiber.Ctx }

func (x *ctx) Context() context.Context            { return x.c.UserContext() }
func (x *ctx) SetContext(ctx context.Context)      { x.c.SetUserContext(ctx) }
func (x *ctx) Native() context.Context             { return x.c.Context() }
func (x *ctx) Method() string                      { return x.c.Method() }
func (x *ctx) Target() string                      { return x.c.OriginalURL() }
func (x *ctx) Host() string                        { return x.c.Hostname() }
func (x *ctx) Body() string                        { return string(x.c.Body()) }
func (x *ctx) Set(name, value string)              { x.c.Set(name, value) }
func (x *ctx) Add(name, value string)              { x.c.Response().Header.Add(name, value) }
func (x *ctx) Status(status int)                   { x.c.Status(status) }
func (x *ctx) Write(p []byte) (int, error)         { return x.c.Write(p) }
func (x *ctx) EarlyHints(string)                   {}
func (x *ctx) ResponseWriter() http.ResponseWriter { return nil }

func (x *ctx) RunHandler(h http.Handler) error { return adaptor.HTTPHandler(h)(x.c) }

func (x *ctx) Upload(field string) (int64, error) {
	part, err := x.c.FormFile(field)
	if err != nil {
		return 0, err
	}
	return part.Size, nil
}

func (x *ctx) Param(name string) string {
	if v := x.c.Params(name); v != "" {
		return v
	}
	return x.c.Params("*")
}

func (x *ctx) SetRequest(name, value string) { x.c.Request().Header.Set(name, value) }

func (x *ctx) Values(name string) []string {
	var values []string
	for _, v := range x.c.Request().Header.PeekAll(name) {
		values = append(values, string(v))
	}
	return values
}

func (x *ctx) Text(status int, body string) error {
	return x.c.Status(status).Type("txt", "utf-8").SendString(body)
}

func (x *ctx) Stream(fn func(w io.Writer, flush func())) error {
	x.c.Context().SetBodyStreamWriter(func(w *bufio.Writer) { fn(w, func() { _ = w.Flush() }) })
	return nil
}

func valueOf(c *fiber.Ctx, name string) string { return c.Get(name) }
