package echo5_test

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/labstack/echo/v5"
	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/echocache/echo5"
)

func TestParametersAreDecodedOnceByEachRouter(t *testing.T) {
	for name, config := range map[string]echo.RouterConfig{
		"default":   {AllowOverwritingRoute: true},
		"unescapes": {UnescapePathParamValues: true},
		"decoded":   {UseEscapedPathForMatching: true},
		"both":      {UseEscapedPathForMatching: true, UnescapePathParamValues: true},
	} {
		for _, c := range []struct{ route, target, tag string }{
			{"/p/:id", "/p/7", "7"},
			{"/p/:id", "/p/a%20b", "a b"},
			{"/p/:id", "/p/a%2Fb", "a/b"},
			{"/p/:id", "/p/a%252Fb", "a%2Fb"},
			{"/p/:id", "/p/a%2Fb%2520c", "a/b%20c"},
			{"/p/:id", "/p/a+b", "a+b"},
			{"/p/:id", "/p/a+b%2F", "a+b/"},
			{"/p/:id", "/p/a[b", "a[b"},
			{"/p/:shop/:id", "/p/s%21/a%252Fb%21", "a%2Fb!"},
			{"/p/:id\\:show", "/p/a%21b:show", "a!b"},
			{"/f/*", "/f/a/b%20c", "a/b c"},
			{"/f/*", "/f/a%2Fb/c", "a/b/c"},
			{"/f/*", "/f/a%252Fb%21/c", "a%2Fb!/c"},
		} {
			t.Run(name+" "+c.target, func(t *testing.T) {
				cache, e, n := newCache(t), echo.NewWithConfig(echo.Config{Router: echo.NewRouter(config)}), &runs{}
				template := "p:{id}"
				if strings.HasSuffix(c.route, "*") {
					template = "p:{*}"
				}
				e.GET(c.route, n.handler, echo5.Cache(cache, "hour", template))
				e.PUT(c.route, func(c *echo.Context) error { return c.NoContent(http.StatusNoContent) }, echo5.Invalidate(cache, template))

				require.Equal(t, "run 1", get(e, c.target).Body.String())
				require.Equal(t, "run 1", get(e, c.target).Body.String())
				require.NoError(t, cache.Invalidate(t.Context(), core.Tag("p:"+c.tag)))
				require.Equal(t, "run 2", get(e, c.target).Body.String())
				require.Equal(t, http.StatusNoContent, do(e, http.MethodPut, c.target).Code)
				require.Equal(t, "run 3", get(e, c.target).Body.String())
			})
		}
	}
}

// twice is a router that decodes the values of another one once more.
type twice struct{ echo.Router }

func (r twice) Route(c *echo.Context) echo.HandlerFunc {
	h := r.Router.Route(c)
	values := c.PathValues()
	for i := range values {
		if v, err := url.PathUnescape(values[i].Value); err == nil {
			values[i].Value = v
		}
	}
	return h
}

func TestParametersThatARouterHasDecodedTwiceAreRefused(t *testing.T) {
	var log bytes.Buffer
	cache, err := core.New(core.Options{
		Logger:  slog.New(slog.NewTextHandler(&log, nil)),
		Classes: core.Classes{"hour": {TTL: time.Hour}},
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, cache.Close()) })
	n := &runs{}
	e := echo.NewWithConfig(echo.Config{Router: twice{echo.NewRouter(echo.RouterConfig{UnescapePathParamValues: true})}})
	e.GET("/p/:id", n.handler, echo5.Cache(cache, "hour", "p:{id}"))
	e.PUT("/p/:id", n.handler, echo5.Invalidate(cache, "p:{id}"))
	// when: values in which the second decoding finds something
	for _, target := range []string{"/p/a%252Fb%2F", "/p/a%252Fb"} {
		n.Store(0)
		for range 2 {
			w := get(e, target)
			// then: nothing is stored under the tag of another page
			require.Equal(t, "Larder; fwd=uri-miss; detail=missing-parameter", w.Header().Get("Cache-Status"))
		}
		require.Equal(t, http.StatusInternalServerError, do(e, http.MethodPut, target).Code)
		require.EqualValues(t, 2, n.Load(), "a write whose tag is unknown does not run")
	}
	require.Contains(t, log.String(), "decoded it twice")
}

// rewriteOld makes /p/… of /old/…, as Echo's own Rewrite does.
func rewriteOld(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c *echo.Context) (err error) {
		r := c.Request()
		if rest, ok := strings.CutPrefix(r.RequestURI, "/old/"); ok {
			if r.URL, err = r.URL.Parse("/p/" + rest); err != nil {
				return err
			}
		}
		return next(c)
	}
}

func TestInFrontOfTheRouterTagsAreResolvedAfterwards(t *testing.T) {
	cache, e, n := newCache(t), newEcho(), &runs{}
	e.Pre(rewriteOld, echo5.Cache(cache, "hour", "p:{id}"))
	e.GET("/p/:id", n.handler)
	e.GET("/other", n.handler)

	for _, target := range []string{"/p/a%2Fb", "/old/a%2Fb"} {
		before := get(e, target).Body.String()
		w := get(e, target)
		require.True(t, isHit(w))
		require.Equal(t, before, w.Body.String())
		require.NoError(t, cache.Invalidate(t.Context(), core.Tag("p:a/b")))
		require.NotEqual(t, before, get(e, target).Body.String())
	}
	require.Contains(t, get(e, "/other").Header().Get("Cache-Status"), "missing-parameter")
}

func TestInvalidateInFrontOfTheRouterRefusesBeforeTheHandler(t *testing.T) {
	cache, e, n := newCache(t), newEcho(), &runs{}
	e.Pre(echo5.Invalidate(cache, "p:{id}"))
	e.PUT("/p/:id", n.handler)
	w := do(e, http.MethodPut, "/p/1")
	require.Equal(t, http.StatusInternalServerError, w.Code)
	require.Contains(t, w.Body.String(), "p:{id}")
	require.Zero(t, n.Load())
}

func TestUseSeesTheParameters(t *testing.T) {
	cache, e, n := newCache(t), newEcho(), &runs{}
	e.Use(echo5.Invalidate(cache, "p:{id}"))
	e.PUT("/p/:id", n.handler)
	require.Equal(t, http.StatusOK, do(e, http.MethodPut, "/p/1").Code)
}
