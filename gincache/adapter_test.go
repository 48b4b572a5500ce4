package gincache_test

import (
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"

	"github.com/larderhq/larder/core/adaptertest"
	"github.com/larderhq/larder/gincache"
)

func TestAdapter(t *testing.T) {
	adaptertest.Run(t, adaptertest.Framework{
		Name: "gincache",
		New:  newServer,
		Fail: func(c adaptertest.Ctx, status int) error {
			return c.(*ctx).gin.AbortWithError(status, errors.New("failed"))
		},
		NoHeadOnGet:      true,
		NoEscapedSlash:   true,
		NoImplicitAnswer: true,
		ParamsOutside:    true,
	})
}

func newServer(_ testing.TB, app adaptertest.App) adaptertest.Server {
	r := gin.New()
	for _, u := range app.Outside {
		r.Use(use(u))
	}
	for _, route := range app.Routes {
		path := adaptertest.Translate(route.Pattern,
			func(name string) string { return ":" + name },
			func(name string) string { return "*" + name })
		chain := make([]gin.HandlerFunc, 0, len(route.Uses)+1)
		for _, u := range route.Uses {
			chain = append(chain, use(u))
		}
		r.Handle(route.Method, path, append(chain, func(c *gin.Context) {
			_ = route.Handler(newCtx(c)) // handlers of Gin return no errors
		})...)
	}
	return adaptertest.Serve(r)
}

func use(u adaptertest.Use) gin.HandlerFunc {
	switch u := u.(type) {
	case adaptertest.Cached:
		return gincache.Cache(u.Cache, u.Class, u.Tags...)
	case adaptertest.CachedRoute:
		return route(u)
	case adaptertest.CachedPerUser:
		return gincache.CachePerUser(u.Cache, u.Class, func(c *gin.Context) (string, bool) {
			return valueOf(c, u.IdentityField), true
		}, u.Tags...)
	case adaptertest.Invalidates:
		if u.IdentityField != "" {
			return gincache.InvalidatePerUser(u.Cache, func(c *gin.Context) (string, bool) {
				v := valueOf(c, u.IdentityField)
				return v, v != ""
			}, u.Tags...)
		}
		return gincache.Invalidate(u.Cache, u.Tags...)
	case adaptertest.AsSent:
		return func(c *gin.Context) {
			x := newCtx(c)
			c.Writer = &asSent{ResponseWriter: c.Writer, fn: func() { u(x) }}
			c.Next()
		}
	case adaptertest.Compresses:
		return compresses
	case adaptertest.Around:
		return func(c *gin.Context) {
			ran := false
			_ = u(newCtx(c), func() error { ran = true; c.Next(); return nil })
			if !ran {
				c.Abort() // otherwise Gin goes on by itself
			}
		}
	default:
		panic("unknown use")
	}
}

func route(u adaptertest.CachedRoute) gin.HandlerFunc {
	rt := gincache.Route{Cache: u.Cache, Class: u.Class, Tags: u.Tags}
	if u.IdentityField != "" {
		rt.Identity = func(c *gin.Context) (string, bool) {
			v := c.GetHeader(u.IdentityField)
			return v, v != ""
		}
	}
	if u.Reads != nil {
		rt.Reads = func(_ *gin.Context, content []byte) bool { return u.Reads(content) }
	}
	if u.SkipField != "" {
		rt.Skip = func(c *gin.Context) bool { return c.GetHeader(u.SkipField) != "" }
	}
	m, err := rt.Middleware()
	if err != nil {
		panic(err)
	}
	return m
}

// asSent is a writer as session libraries have: it calls fn before the header goes out.
type asSent struct {
	gin.ResponseWriter
	fn func()
}

func (w *asSent) before() {
	if !w.Written() {
		w.fn()
	}
}

func (w *asSent) WriteHeaderNow() {
	w.before()
	w.ResponseWriter.WriteHeaderNow()
}

func (w *asSent) Write(p []byte) (int, error) {
	w.before()
	return w.ResponseWriter.Write(p)
}

func (w *asSent) WriteString(s string) (int, error) {
	w.before()
	return w.ResponseWriter.WriteString(s)
}

// compresses is as gin-contrib/gzip: it states the coding beforehand.
func compresses(c *gin.Context) {
	if !strings.Contains(c.GetHeader("Accept-Encoding"), "gzip") {
		return
	}
	c.Header("Content-Encoding", "gzip")
	c.Writer.Header().Add("Vary", "Accept-Encoding")
	z := gzip.NewWriter(c.Writer)
	c.Writer = &compressor{c.Writer, z}
	defer func() {
		if c.Writer.Size() < 0 {
			z.Reset(io.Discard)
		}
		_ = z.Close()
	}()
	c.Next()
}

type compressor struct {
	gin.ResponseWriter
	gzip *gzip.Writer
}

func (w *compressor) Write(p []byte) (int, error) {
	w.Header().Del("Content-Length")
	return w.gzip.Write(p)
}

func (w *compressor) WriteString(s string) (int, error) { return w.Write([]byte(s)) }

// ctx is what a handler of the suite sees of a gin.Context.
type ctx struct {
	adaptertest.Std
	gin *gin.Context
}

func newCtx(c *gin.Context) *ctx {
	return &ctx{adaptertest.Std{Writer: c.Writer, Request: c.Request}, c}
}

func (c *ctx) Context() context.Context { return c.gin.Request.Context() }

func (c *ctx) SetContext(ctx context.Context) {
	c.Std.SetContext(ctx)
	c.gin.Request = c.Request
}

func (c *ctx) Native() context.Context { return c.gin }

func (c *ctx) Param(name string) string { return c.gin.Param(name) }

func (c *ctx) Text(status int, body string) error {
	c.gin.String(status, "%s", body)
	return nil
}

func (c *ctx) Stream(fn func(w io.Writer, flush func())) error {
	fn(c.gin.Writer, c.gin.Writer.Flush)
	return nil
}

// EarlyHints goes past Gin's writer, which only records a 1xx.
func (c *ctx) EarlyHints(link string) {
	h := c.gin.Writer.Header()
	h.Add("Link", link)
	c.gin.Writer.(interface{ Unwrap() http.ResponseWriter }).Unwrap().WriteHeader(http.StatusEarlyHints)
	h.Del("Link")
}

func valueOf(c *gin.Context, name string) string { return c.GetHeader(name) }
