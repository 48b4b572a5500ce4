package nethttp_test

import (
	"compress/gzip"
	"net/http"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/larderhq/larder/core/adaptertest"
	"github.com/larderhq/larder/nethttp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAdapter(t *testing.T) {
	adaptertest.Run(t, adaptertest.Framework{Name: "nethttp", New: newServer})
}

func TestAdapterOverASharedTier(t *testing.T) {
	if testing.Short() {
		t.Skip("the suite once more")
	}
	adaptertest.Run(t, adaptertest.Framework{Name: "nethttp", New: newServer, Shared: true})
}

func newServer(_ testing.TB, app adaptertest.App) adaptertest.Server {
	mux := http.NewServeMux()
	for _, r := range app.Routes {
		mux.Handle(r.Method+" "+r.Pattern, wrap(handler(r.Handler), r.Uses))
	}
	return adaptertest.Serve(wrap(mux, app.Outside))
}

func handler(h adaptertest.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = h(&adaptertest.Std{Writer: w, Request: r}) // handlers of net/http return no errors
	})
}

func wrap(h http.Handler, uses []adaptertest.Use) http.Handler {
	for i := len(uses) - 1; i >= 0; i-- {
		h = middleware(uses[i])(h)
	}
	return h
}

func middleware(u adaptertest.Use) func(http.Handler) http.Handler {
	switch u := u.(type) {
	case adaptertest.Cached:
		return nethttp.Cache(u.Cache, u.Class, u.Tags...)
	case adaptertest.CachedRoute:
		return route(u)
	case adaptertest.CachedPerUser:
		return nethttp.CachePerUser(u.Cache, u.Class, func(r *http.Request) (string, bool) {
			return valueOf(r, u.IdentityField), true
		}, u.Tags...)
	case adaptertest.Invalidates:
		if u.IdentityField != "" {
			return nethttp.InvalidatePerUser(u.Cache, func(r *http.Request) (string, bool) {
				v := valueOf(r, u.IdentityField)
				return v, v != ""
			}, u.Tags...)
		}
		return nethttp.Invalidate(u.Cache, u.Tags...)
	case adaptertest.AsSent:
		return func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				c := &adaptertest.Std{Writer: w, Request: r}
				next.ServeHTTP(&adaptertest.AsSentWriter{ResponseWriter: w, Fn: func() { u(c) }}, r)
			})
		}
	case adaptertest.Compresses:
		return compresses
	case adaptertest.Around:
		return func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				c := &adaptertest.Std{Writer: w, Request: r}
				_ = u(c, func() error { next.ServeHTTP(c.Writer, c.Request); return nil })
			})
		}
	default:
		panic("unknown use")
	}
}

// compresses is as chi's middleware.Compress: it decides as the header goes out.
func compresses(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		z := &compressor{ResponseWriter: w, accepted: strings.Contains(r.Header.Get("Accept-Encoding"), "gzip")}
		defer z.close()
		next.ServeHTTP(z, r)
	})
}

type compressor struct {
	http.ResponseWriter
	accepted, wrote bool
	gzip            *gzip.Writer
}

func (c *compressor) Unwrap() http.ResponseWriter { return c.ResponseWriter }

func (c *compressor) WriteHeader(status int) {
	if h := c.Header(); !c.wrote && h.Get("Content-Encoding") == "" && c.accepted && status != http.StatusNotModified {
		h.Set("Content-Encoding", "gzip")
		h.Add("Vary", "Accept-Encoding")
		h.Del("Content-Length")
		c.gzip = gzip.NewWriter(c.ResponseWriter)
	}
	c.wrote = true
	c.ResponseWriter.WriteHeader(status)
}

func (c *compressor) Write(p []byte) (int, error) {
	if !c.wrote {
		c.WriteHeader(http.StatusOK)
	}
	if c.gzip != nil {
		return c.gzip.Write(p)
	}
	return c.ResponseWriter.Write(p)
}

func (c *compressor) close() {
	if c.gzip != nil {
		_ = c.gzip.Close()
	}
}

func route(u adaptertest.CachedRoute) func(http.Handler) http.Handler {
	rt := nethttp.Route{Cache: u.Cache, Class: u.Class, Tags: u.Tags}
	if u.IdentityField != "" {
		rt.Identity = func(r *http.Request) (string, bool) {
			v := r.Header.Get(u.IdentityField)
			return v, v != ""
		}
	}
	if u.Reads != nil {
		rt.Reads = func(_ *http.Request, content []byte) bool { return u.Reads(content) }
	}
	if u.SkipField != "" {
		rt.Skip = func(r *http.Request) bool { return r.Header.Get(u.SkipField) != "" }
	}
	m, err := rt.Middleware()
	if err != nil {
		panic(err)
	}
	return m
}

func valueOf(r *http.Request, name string) string { return r.Header.Get(name) }
