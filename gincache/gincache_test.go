package gincache_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/gincache"
)

func TestMain(m *testing.M) {
	gin.SetMode(gin.ReleaseMode)
	goleak.VerifyTestMain(m)
}

func newCache(t testing.TB) *core.Cache {
	cache, err := core.New(core.Options{
		Logger: slog.New(slog.DiscardHandler),
		Classes: core.Classes{
			"hour":     {TTL: time.Hour, NegativeTTL: time.Hour},
			"stale":    {TTL: time.Minute, StaleWhileRevalidate: time.Minute},
			"fallback": {TTL: time.Minute, StaleIfError: time.Minute},
		},
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, cache.Close()) })
	return cache
}

func do(h http.Handler, method, target string, fields ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, nil)
	for i := 0; i < len(fields); i += 2 {
		r.Header.Add(fields[i], fields[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func get(h http.Handler, target string, fields ...string) *httptest.ResponseRecorder {
	return do(h, http.MethodGet, target, fields...)
}

func isHit(w *httptest.ResponseRecorder) bool {
	return strings.Contains(w.Header().Get("Cache-Status"), "; hit")
}

// runs counts the runs of a handler that answers their number.
type runs struct{ atomic.Int64 }

func (n *runs) handler(c *gin.Context) { c.String(http.StatusOK, n.text()) }

func (n *runs) text() string { return "run " + strconv.FormatInt(n.Add(1), 10) }

func TestParametersAreDecodedOnce(t *testing.T) {
	for _, c := range []struct {
		route, target, tag string
		raw                bool
	}{
		{"/p/:id", "/p/7", "p:7", false},
		{"/p/:id", "/p/a%20b", "p:a b", false},
		{"/p/:id", "/p/a%252Fb", "p:a%2Fb", false},
		{"/p/:id", "/p/a+b", "p:a+b", false},
		{"/p/:id", "/p/a%2Fb", "p:a/b", true},
		{"/p/:id", "/p/a%252Fb%2F", "p:a%2Fb/", true},
		{"/f/*path", "/f/a/b%20c", "f:a/b c", false},
		{"/f/*path", "/f/a%2Fb/c", "f:a/b/c", false},
		{"/f/*path", "/f/a%2Fb/c", "f:a/b/c", true},
		{"/:id/*path", "/7/a", "f:a", false},
	} {
		t.Run(fmt.Sprint(c.target, c.raw), func(t *testing.T) {
			cache, r, n := newCache(t), gin.New(), &runs{}
			r.UseRawPath = c.raw
			template := "p:{id}"
			if strings.Contains(c.route, "*") {
				template = "f:{*}"
			}
			r.GET(c.route, gincache.Cache(cache, "hour", template), n.handler)
			r.PUT(c.route, gincache.Invalidate(cache, template), func(c *gin.Context) { c.Status(http.StatusNoContent) })

			require.Equal(t, "run 1", get(r, c.target).Body.String())
			require.Equal(t, "run 1", get(r, c.target).Body.String())
			require.NoError(t, cache.Invalidate(t.Context(), core.Tag(c.tag)))
			require.Equal(t, "run 2", get(r, c.target).Body.String())
			require.Equal(t, http.StatusNoContent, do(r, http.MethodPut, c.target).Code)
			require.Equal(t, "run 3", get(r, c.target).Body.String())
		})
	}
}

func TestWildcardByItsName(t *testing.T) {
	cache, r, n := newCache(t), gin.New(), &runs{}
	r.GET("/f/*path", gincache.Cache(cache, "hour", "f:{path}"), n.handler)
	get(r, "/f/a/b")
	require.NoError(t, cache.Invalidate(t.Context(), core.Tag("f:/a/b"))) // as Gin has it
	require.Equal(t, "run 2", get(r, "/f/a/b").Body.String())
}

func TestParameterThatTheRouteHasNot(t *testing.T) {
	cache, r, n := newCache(t), gin.New(), &runs{}
	for path, tag := range map[string]string{"/a/:id": "{name}", "/b/:id": "{*}", "/c/*rest": "{*}"} {
		r.GET(path, gincache.Cache(cache, "hour", tag), n.handler)
		r.PUT(path, gincache.Invalidate(cache, tag), n.handler)
	}
	for _, target := range []string{"/a/1", "/b/1", "/c/"} {
		before := n.Load()
		require.Contains(t, get(r, target).Header().Get("Cache-Status"), "missing-parameter")
		require.Equal(t, before+1, n.Load())
		require.Equal(t, http.StatusInternalServerError, do(r, http.MethodPut, target).Code)
		require.Equal(t, before+1, n.Load())
	}
}

func TestUseSeesTheParameters(t *testing.T) {
	cache, r, n := newCache(t), gin.New(), &runs{}
	r.Use(gincache.Cache(cache, "hour", "p:{id}"))
	r.GET("/p/:id", n.handler)
	get(r, "/p/1")
	require.True(t, isHit(get(r, "/p/1")))
	require.NoError(t, cache.Invalidate(t.Context(), core.Tag("p:1")))
	require.False(t, isHit(get(r, "/p/1")))
}

// outside notes what middleware in front of the cache sees when Next has returned.
type outside struct {
	written, aborted bool
	status, size     int
	sameRequest      bool
	sameWriter       bool
	contextErr       error
	errors           []string
	setByHandlers    any
}

func (o *outside) middleware(c *gin.Context) {
	r, w := c.Request, c.Writer
	c.Next()
	*o = outside{
		written: c.Writer.Written(), aborted: c.IsAborted(), status: c.Writer.Status(), size: c.Writer.Size(),
		sameRequest: c.Request == r, sameWriter: c.Writer == w, contextErr: c.Request.Context().Err(),
		errors: c.Errors.Errors(),
	}
	o.setByHandlers, _ = c.Get("by-handler")
}

func TestContextOutsideIsAsWithoutACache(t *testing.T) {
	for _, c := range []struct {
		name    string
		handler gin.HandlerFunc
	}{
		{"text", func(c *gin.Context) { c.Set("by-handler", 1); c.String(http.StatusAccepted, "accepted") }},
		{"status only", func(c *gin.Context) { c.Status(http.StatusNoContent) }},
		{"status now", func(c *gin.Context) { c.Status(http.StatusNoContent); c.Writer.WriteHeaderNow() }},
		{"status of an error only", func(c *gin.Context) { c.Status(http.StatusNotFound) }},
		{"aborted", func(c *gin.Context) { c.AbortWithStatus(http.StatusNotFound) }},
		{"nothing", func(*gin.Context) {}},
		{"redirect", func(c *gin.Context) { c.Redirect(http.StatusMovedPermanently, "/elsewhere") }},
		{"writes in pieces", func(c *gin.Context) {
			_, _ = c.Writer.Write([]byte("one "))
			_, _ = c.Writer.WriteString("two")
		}},
		{"uncacheable", func(c *gin.Context) { c.Header("Cache-Control", "no-store"); c.String(http.StatusOK, "private") }},
		{"uncacheable, status only", func(c *gin.Context) { c.Header("Cache-Control", "no-store"); c.Status(http.StatusNoContent) }},
		{"uncacheable, status now", func(c *gin.Context) { c.Header("Cache-Control", "no-store"); c.AbortWithStatus(http.StatusNoContent) }},
		{"streams", func(c *gin.Context) {
			_, _ = c.Writer.WriteString("one ")
			c.Writer.Flush()
			_, _ = c.Writer.WriteString("two")
		}},
		{"too large", func(c *gin.Context) { c.String(http.StatusOK, strings.Repeat("x", 2<<20)) }},
		{"fails", func(c *gin.Context) { _ = c.Error(errors.New("broken")) }},
		{"fails with a status and fields", func(c *gin.Context) {
			c.Header("Retry-After", "7")
			c.Status(http.StatusUnprocessableEntity)
			_ = c.Error(errors.New("broken"))
		}},
		{"fails, answering", func(c *gin.Context) { _ = c.AbortWithError(http.StatusBadGateway, errors.New("broken")) }},
		{"fails after it has answered", func(c *gin.Context) {
			c.String(http.StatusOK, "all is well")
			_ = c.Error(errors.New("broken"))
		}},
		{"fails to render", func(c *gin.Context) { c.JSON(http.StatusOK, func() {}) }},
		{"changes its mind too late", func(c *gin.Context) { c.String(http.StatusOK, "a"); c.Status(http.StatusTeapot) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			bare, cached := &outside{}, &outside{}
			r := gin.New()
			r.GET("/bare", bare.middleware, c.handler)
			r.GET("/cached", cached.middleware, gincache.Cache(newCache(t), "hour"), c.handler)
			want, got := get(r, "/bare"), get(r, "/cached")
			require.Equal(t, want.Code, got.Code)
			require.Equal(t, want.Body.String(), got.Body.String())
			for name, values := range want.Header() {
				require.Equal(t, values, got.Header()[name], name)
			}
			require.Equal(t, bare, cached)
			require.True(t, cached.sameRequest && cached.sameWriter)
			require.NoError(t, cached.contextErr)
		})
	}
}

func TestHitEndsTheChainAndGoesThroughTheWriter(t *testing.T) {
	r, o, n := gin.New(), &outside{}, &runs{}
	cached := gincache.Cache(newCache(t), "hour")
	r.GET("/", o.middleware, cached, n.handler, func(c *gin.Context) { _, _ = c.Writer.WriteString(" and more") })
	r.GET("/empty", o.middleware, cached, func(c *gin.Context) { c.Status(http.StatusNoContent) })
	etag := get(r, "/").Header().Get("Etag")
	get(r, "/empty")

	w := get(r, "/")
	require.True(t, isHit(w))
	require.Equal(t, "run 1 and more", w.Body.String())
	require.Equal(t, outside{written: true, aborted: true, status: http.StatusOK, size: 14, sameRequest: true, sameWriter: true}, *o)

	require.Equal(t, http.StatusNotModified, get(r, "/", "If-None-Match", etag).Code)
	require.Equal(t, outside{written: true, aborted: true, status: http.StatusNotModified, sameRequest: true, sameWriter: true}, *o)

	w = get(r, "/empty")
	require.True(t, isHit(w))
	require.Equal(t, http.StatusNoContent, w.Code)
	require.Equal(t, outside{written: true, aborted: true, status: http.StatusNoContent, sameRequest: true, sameWriter: true}, *o)
}

func TestErrorsAreNotStored(t *testing.T) {
	for name, fail := range map[string]func(*gin.Context){
		"nothing written": func(c *gin.Context) { _ = c.Error(errors.New("broken")) },
		"a status only":   func(c *gin.Context) { c.Status(http.StatusOK); _ = c.Error(errors.New("broken")) },
		"written":         func(c *gin.Context) { c.String(http.StatusOK, "half a p"); _ = c.Error(errors.New("broken")) },
		"conflict":        func(c *gin.Context) { _ = c.AbortWithError(http.StatusConflict, errors.New("no row")) },
	} {
		t.Run(name, func(t *testing.T) {
			r, n := gin.New(), 0
			r.GET("/", gincache.Cache(newCache(t), "hour"), func(c *gin.Context) { n++; fail(c) })
			get(r, "/")
			get(r, "/")
			require.Equal(t, 2, n)
		})
	}
}

// Middleware in front makes the content of a remembered error each time, as of the first.
func TestMiddlewareOutsideAnswersRememberedErrors(t *testing.T) {
	for name, fail := range map[string]func(*gin.Context){
		"aborted":  func(c *gin.Context) { _ = c.AbortWithError(http.StatusNotFound, errors.New("no row")) },
		"recorded": func(c *gin.Context) { c.Status(http.StatusNotFound); _ = c.Error(errors.New("no row")) },
	} {
		t.Run(name, func(t *testing.T) {
			r, n := gin.New(), 0
			r.Use(func(c *gin.Context) {
				c.Next()
				if len(c.Errors) > 0 {
					c.JSON(-1, gin.H{"message": c.Errors.Last().Error()})
				}
			})
			r.GET("/", gincache.Cache(newCache(t), "hour"), func(c *gin.Context) { n++; fail(c) })
			for i := range 3 {
				w := get(r, "/")
				require.Equal(t, http.StatusNotFound, w.Code)
				require.JSONEq(t, `{"message":"no row"}`, w.Body.String())
				require.Equal(t, i > 0, isHit(w))
			}
			require.Equal(t, 1, n)
		})
	}
}

func TestMiddlewareOutsideAnswersErrors(t *testing.T) {
	r := gin.New()
	r.Use(func(c *gin.Context) {
		c.Next()
		if len(c.Errors) > 0 {
			c.JSON(-1, gin.H{"message": c.Errors.Last().Error()}) // -1: the status that is there
		}
	})
	r.GET("/", gincache.Cache(newCache(t), "hour"), func(c *gin.Context) {
		c.Status(http.StatusUnprocessableEntity)
		_ = c.Error(errors.New("broken"))
	})
	for range 2 {
		w := get(r, "/")
		require.Equal(t, http.StatusUnprocessableEntity, w.Code)
		require.JSONEq(t, `{"message":"broken"}`, w.Body.String())
	}
}

func TestAnswerByMiddlewareOutsideIsLeftToIt(t *testing.T) {
	r, n := gin.New(), &runs{}
	r.GET("/", func(c *gin.Context) {
		c.Next()
		c.String(http.StatusOK, c.GetString("result"))
	}, gincache.Cache(newCache(t), "hour"), func(c *gin.Context) { c.Set("result", n.text()) })
	require.Equal(t, "run 1", get(r, "/").Body.String())
	require.Equal(t, "run 2", get(r, "/").Body.String())
}

func TestHandlerThatDoesNothingIsLeftToGin(t *testing.T) {
	r, n := gin.New(), 0
	r.Use(gincache.Cache(newCache(t), "hour"), func(c *gin.Context) { n++ })
	r.GET("/nothing", func(*gin.Context) {})
	for i := 1; i <= 2; i++ {
		w := get(r, "/no/such/route")
		require.Equal(t, http.StatusNotFound, w.Code)
		require.Equal(t, "404 page not found", w.Body.String())
		require.Equal(t, 2*i-1, n)
		require.Equal(t, http.StatusOK, get(r, "/nothing").Code)
		require.Equal(t, 2*i, n)
	}
}

func TestHandlerOfNetHTTPThatWritesAStatusOnly(t *testing.T) {
	r, n := gin.New(), 0
	r.GET("/", gincache.Cache(newCache(t), "hour"), gin.WrapF(func(w http.ResponseWriter, _ *http.Request) {
		n++
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(http.StatusMovedPermanently)
	}))
	for range 2 {
		w := get(r, "/")
		require.Equal(t, http.StatusMovedPermanently, w.Code)
		require.Equal(t, "/elsewhere", w.Header().Get("Location"))
	}
	require.Equal(t, 1, n)
}

func TestOlderResponseInPlaceOfAnError(t *testing.T) {
	for name, fail := range map[string]func(*gin.Context){
		"error":              func(c *gin.Context) { c.Header("X-Failed", "yes"); _ = c.Error(errors.New("broken")) },
		"error and a status": func(c *gin.Context) { c.Status(http.StatusBadGateway); _ = c.Error(errors.New("broken")) },
		"answer":             func(c *gin.Context) { c.Header("X-Failed", "yes"); c.String(http.StatusBadGateway, "down") },
		"status":             func(c *gin.Context) { c.Status(http.StatusBadGateway) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, o, failing := gin.New(), &outside{}, false
				r.Use(func(c *gin.Context) { // as Gin's documentation has it: without a look at Written
					c.Next()
					if len(c.Errors) > 0 {
						c.JSON(http.StatusInternalServerError, gin.H{"message": c.Errors.Last().Error()})
					}
				})
				r.GET("/", o.middleware, gincache.Cache(newCache(t), "fallback"), func(c *gin.Context) {
					if failing {
						fail(c)
						return
					}
					c.String(http.StatusOK, "well")
				})
				get(r, "/")
				failing = true
				time.Sleep(90 * time.Second)
				w := get(r, "/")
				require.Equal(t, http.StatusOK, w.Code)
				require.Equal(t, "well", w.Body.String())
				require.Empty(t, w.Header()["X-Failed"])
				require.Equal(t, outside{written: true, aborted: true, status: http.StatusOK, size: 4, sameRequest: true, sameWriter: true}, *o)
			})
		})
	}
}

func TestWriteThatFails(t *testing.T) {
	for _, c := range []struct {
		name        string
		handler     gin.HandlerFunc
		invalidates bool
	}{
		{"status", func(c *gin.Context) { c.Status(http.StatusConflict) }, false},
		{"client's", func(c *gin.Context) { _ = c.AbortWithError(http.StatusConflict, errors.New("conflict")) }, false},
		{"client's, recorded", func(c *gin.Context) { c.Status(http.StatusConflict); _ = c.Error(errors.New("conflict")) }, false},
		{"server's", func(c *gin.Context) { _ = c.AbortWithError(http.StatusBadGateway, errors.New("lost")) }, true},
		{"unknown", func(c *gin.Context) { _ = c.Error(errors.New("connection lost")) }, true},
		{"after success", func(c *gin.Context) { c.String(http.StatusOK, "saved"); _ = c.Error(errors.New("not logged")) }, true},
		{"nothing said", func(*gin.Context) {}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			// A load that is under way when a write ends is stored unless the write
			// invalidates.
			cache, r, n := newCache(t), gin.New(), &runs{}
			loading, gate, loaded := make(chan struct{}), make(chan struct{}), make(chan struct{})
			r.GET("/p/:id", gincache.Cache(cache, "hour", "p:{id}"), func(c *gin.Context) {
				if n.Load() == 0 {
					close(loading)
					<-gate
				}
				n.handler(c)
			})
			r.POST("/save/:id", gincache.Invalidate(cache, "p:{id}"), func(gc *gin.Context) {
				go func() {
					defer close(loaded)
					get(r, "/p/1")
				}()
				<-loading
				c.handler(gc)
			})
			do(r, http.MethodPost, "/save/1")
			close(gate)
			<-loaded
			require.Equal(t, !c.invalidates, isHit(get(r, "/p/1")))
		})
	}
}

func TestPanicLeavesAFreshWriter(t *testing.T) {
	for name, handler := range map[string]gin.HandlerFunc{
		"before an answer": func(*gin.Context) { panic("oops") },
		"amid the answer": func(c *gin.Context) {
			c.Header("Content-Length", "1000")
			c.Header("X-Half", "yes")
			_, _ = c.Writer.WriteString("half")
			panic("oops")
		},
	} {
		t.Run(name, func(t *testing.T) {
			cache, r := newCache(t), gin.New()
			r.Use(gin.CustomRecoveryWithWriter(io.Discard, func(c *gin.Context, _ any) {
				c.String(http.StatusInternalServerError, "recovered")
			}))
			r.GET("/", gincache.Cache(cache, "hour"), handler)
			r.POST("/", gincache.Invalidate(cache, "any"), handler)
			for _, method := range []string{http.MethodGet, http.MethodPost} {
				w := do(r, method, "/")
				require.Equal(t, http.StatusInternalServerError, w.Code)
				require.Equal(t, "recovered", w.Body.String())
				require.Empty(t, w.Header()["X-Half"])
				require.Empty(t, w.Header()["Content-Length"])
			}
		})
	}
}

type valueKey struct{}

func TestContextOfTheRun(t *testing.T) {
	for name, of := range map[string]func(*gin.Context) context.Context{
		"request": func(c *gin.Context) context.Context { return c.Request.Context() },
		"gin":     func(c *gin.Context) context.Context { return c },
	} {
		t.Run(name, func(t *testing.T) {
			cache, r, n := newCache(t), gin.New(), &runs{}
			r.Use(func(c *gin.Context) {
				c.Request = c.Request.WithContext(context.WithValue(c.Request.Context(), valueKey{}, "from outside"))
				c.Next()
				if !errors.Is(core.NoStore(of(c)), core.ErrNoScope) {
					t.Error("the run's scope reaches outside")
				}
			})
			r.GET("/", gincache.Cache(cache, "hour"), func(c *gin.Context) {
				require.NoError(t, core.AddTags(of(c), "said"))
				c.String(http.StatusOK, fmt.Sprint(c.Request.Context().Value(valueKey{}), " ", n.text()))
			})
			r.GET("/nested", gincache.Invalidate(cache, "none"), func(c *gin.Context) {
				require.NoError(t, core.Invalidate(of(c), core.Tag("none")))
				c.Next()
				require.NoError(t, core.Invalidate(of(c), core.Tag("said"))) // the outer scope again
			}, gincache.Cache(cache, "hour"), func(c *gin.Context) {
				require.NoError(t, core.NoStore(of(c)))
				c.String(http.StatusOK, n.text())
			})
			require.Equal(t, "from outside run 1", get(r, "/").Body.String())
			require.True(t, isHit(get(r, "/")))
			require.Contains(t, get(r, "/nested").Header().Get("Cache-Status"), "handler-said-no-store")
			require.Equal(t, "from outside run 3", get(r, "/").Body.String())
		})
	}
}

func TestIdentityAndSkipSeeGinsContext(t *testing.T) {
	r, n := gin.New(), &runs{}
	m, err := gincache.Route{
		Cache: newCache(t), Class: "hour",
		Identity: func(c *gin.Context) (string, bool) { return c.GetString("user"), true },
		Skip:     func(c *gin.Context) bool { return c.GetString("user") == "root" },
	}.Middleware()
	require.NoError(t, err)
	r.GET("/", func(c *gin.Context) { c.Set("user", c.GetHeader("X-User")) }, m, n.handler)
	require.Equal(t, "run 1", get(r, "/", "X-User", "ann").Body.String())
	require.Equal(t, "run 2", get(r, "/", "X-User", "bob").Body.String())
	require.Equal(t, "run 1", get(r, "/", "X-User", "ann").Body.String())
	require.Equal(t, "run 3", get(r, "/", "X-User", "root").Body.String())
}

func TestRefreshGoesThroughGinAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cache, r, n := newCache(t), gin.New(), &runs{}
		var outer atomic.Int64
		r.GET("/p/:id/*rest", func(c *gin.Context) {
			outer.Add(1)
			c.Set("locale", "en")
			c.SetAccepted("text/plain")
			c.Next()
		}, gincache.Cache(cache, "stale", "p:{id}"), func(c *gin.Context) {
			c.Set("inner", c.Param("id"))
			c.Next()
			_, _ = c.Writer.WriteString(".")
		}, func(c *gin.Context) {
			require.NoError(t, core.AddTags(c, "said"))
			require.Empty(t, c.Errors)
			c.String(http.StatusOK, strings.Join([]string{
				c.GetString("locale"), c.GetString("inner"), c.Param("rest"), c.Query("q"), c.FullPath(),
				c.NegotiateFormat("text/html", "text/plain"), n.text(),
			}, " "))
		})
		const text = "en 1 /a b /p/:id/*rest text/plain run "
		require.Equal(t, text+"1.", get(r, "/p/1/a?q=b", "Accept", "text/html").Body.String())
		for i := 1; i <= 3; i++ { // and again and again
			time.Sleep(90 * time.Second)
			w := get(r, "/p/1/a?q=b", "If-None-Match", `"another"`, "Range", "bytes=0-1", "If-Range", `"another"`)
			require.Equal(t, fmt.Sprint(text, i, "."), w.Body.String())
			synctest.Wait()
			w = get(r, "/p/1/a?q=b")
			require.True(t, isHit(w))
			require.Equal(t, fmt.Sprint(text, i+1, "."), w.Body.String())
		}
		require.Equal(t, int64(10), outer.Load())
		require.NoError(t, cache.Invalidate(t.Context(), core.Tag("said")))
		require.Equal(t, text+"5.", get(r, "/p/1/a?q=b").Body.String())
	})
}

// The refresh keeps the class of the request that caused it, and the route is still its own.
func TestARefreshGoesOnAfterItsClassHasChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cache, r, n := newCache(t), gin.New(), &runs{}
		var passed atomic.Int64
		release := make(chan struct{})
		r.GET("/p/:id", func(c *gin.Context) {
			if passed.Add(1) == 3 { // the refresh, on its way to its route
				<-release
			}
		}, gincache.Cache(cache, "stale"), n.handler)
		require.Equal(t, "run 1", get(r, "/p/1").Body.String())
		time.Sleep(90 * time.Second)
		require.Equal(t, "run 1", get(r, "/p/1").Body.String())
		synctest.Wait()
		classes := cache.Options().Classes
		class := classes["stale"]
		class.TTL *= 2
		classes["stale"] = class
		require.NoError(t, cache.SetClasses(classes))
		require.Equal(t, "run 1", get(r, "/p/1").Body.String()) // the route knows the new class
		close(release)
		synctest.Wait()
		require.EqualValues(t, 2, n.Load(), "NOT REFRESHED: the handler has not run")
		w := get(r, "/p/1")
		require.True(t, isHit(w))
		require.Equal(t, "run 2", w.Body.String())
		require.EqualValues(t, 2, n.Load())
	})
}

func TestHeadSetsOffARefreshOfGet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, n, cached := gin.New(), &runs{}, gincache.Cache(newCache(t), "stale")
		r.GET("/", cached, n.handler)
		r.HEAD("/", cached, func(c *gin.Context) { c.Status(http.StatusOK) }) // the body of no GET
		get(r, "/")
		time.Sleep(90 * time.Second)
		require.True(t, isHit(do(r, http.MethodHead, "/")))
		synctest.Wait()
		require.Equal(t, "run 2", get(r, "/").Body.String())
	})
}

func TestRefreshThatMiddlewareAnswersStoresNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, n := gin.New(), &runs{}
		var requests atomic.Int64
		r.Use(func(c *gin.Context) {
			if requests.Add(1) == 3 {
				c.AbortWithStatus(http.StatusTooManyRequests)
			}
		})
		r.GET("/", gincache.Cache(newCache(t), "stale"), n.handler)
		get(r, "/")
		time.Sleep(90 * time.Second)
		for range 2 { // the first one's refresh is the third request
			require.Equal(t, "run 1", get(r, "/").Body.String())
			synctest.Wait()
		}
		require.Equal(t, int64(5), requests.Load())
		require.Equal(t, "run 2", get(r, "/").Body.String())
	})
}

type ginKey struct{}

// A widespread recipe puts Gin's context into the request's. In a refresh it must
// not be the one of the request that set it off: that is another request's by then.
func TestRefreshHasItsOwnContextInTheRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := gin.New()
		r.Use(func(c *gin.Context) {
			c.Request = c.Request.WithContext(context.WithValue(c.Request.Context(), ginKey{}, c))
		})
		started, gate := make(chan struct{}, 2), make(chan struct{}, 2)
		r.GET("/u/:user", gincache.Cache(newCache(t), "stale"), func(c *gin.Context) {
			started <- struct{}{}
			<-gate
			c.String(http.StatusOK, c.Request.Context().Value(ginKey{}).(*gin.Context).Param("user"))
		})
		r.GET("/other/:user", func(*gin.Context) {})
		gate <- struct{}{}
		require.Equal(t, "ann", get(r, "/u/ann").Body.String())
		<-started
		time.Sleep(90 * time.Second)
		require.Equal(t, "ann", get(r, "/u/ann").Body.String())
		<-started // the refresh
		for range 20 {
			get(r, "/other/bob") // takes contexts out of the pool
		}
		gate <- struct{}{}
		synctest.Wait()
		w := get(r, "/u/ann")
		require.True(t, isHit(w))
		require.Equal(t, "ann", w.Body.String())
	})
}

func TestRefreshBehindAPrefix(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, n := gin.New(), &runs{}
		r.GET("/p/:id", gincache.Cache(newCache(t), "stale"), n.handler)
		h := http.StripPrefix("/shop", r)
		get(h, "/shop/p/1")
		time.Sleep(90 * time.Second)
		require.True(t, isHit(get(h, "/shop/p/1")))
		synctest.Wait()
		require.Equal(t, "run 2", get(h, "/shop/p/1").Body.String())
	})
}

func TestRefreshFailsAsQuietlyAsItCan(t *testing.T) {
	for name, fail := range map[string]gin.HandlerFunc{
		"error": func(c *gin.Context) { _ = c.AbortWithError(http.StatusBadGateway, errors.New("broken")) },
		"panic": func(*gin.Context) { panic("oops") },
		"flush": func(c *gin.Context) { c.Writer.Flush() },
		"hijack": func(c *gin.Context) {
			if _, _, err := c.Writer.Hijack(); err != nil {
				_ = c.Error(err)
			}
		},
		"stream": func(c *gin.Context) {
			require.Nil(t, c.Writer.Pusher())
			c.Stream(func(w io.Writer) bool { _, _ = io.WriteString(w, "one"); return false })
		},
		"silent": func(*gin.Context) {},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, n, failing := gin.New(), &runs{}, false
				r.GET("/", gincache.Cache(newCache(t), "stale"), func(c *gin.Context) {
					if failing {
						fail(c)
						return
					}
					n.handler(c)
				})
				get(r, "/")
				failing = true
				time.Sleep(90 * time.Second)
				require.Equal(t, "run 1", get(r, "/").Body.String())
				synctest.Wait()
				failing = false
				require.Equal(t, "run 1", get(r, "/").Body.String())
				synctest.Wait()
				require.Equal(t, "run 2", get(r, "/").Body.String())
			})
		})
	}
}

// Contexts go back to Gin's pool while refreshes of what they asked for still run.
func TestRefreshesDoNotTouchContextsThatAreReused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, n := gin.New(), &runs{}
		r.Use(func(c *gin.Context) {
			c.Set("id", c.Param("id"))
			c.Next()
			c.Set("later", c.Param("id"))
		})
		r.GET("/p/:id", gincache.Cache(newCache(t), "stale", "p:{id}"), func(c *gin.Context) {
			id := c.Param("id")
			time.Sleep(time.Millisecond)
			c.Set("inner", id)
			if c.GetString("id") != id || c.Param("id") != id || c.Request.URL.Path != "/p/"+id || len(c.Errors) > 0 {
				t.Errorf("the context of %s is another one's", id)
			}
			if n.Add(1)%7 == 0 {
				_ = c.Error(errors.New("every seventh"))
			}
			c.String(http.StatusOK, "I am "+id)
		})
		const many = 50
		for range 4 {
			var all sync.WaitGroup
			for i := range many {
				all.Go(func() {
					id := strconv.Itoa(i)
					require.Equal(t, "I am "+id, get(r, "/p/"+id).Body.String())
				})
			}
			all.Wait()
			time.Sleep(90 * time.Second)
		}
		require.GreaterOrEqual(t, n.Load(), int64(4*many))
	})
}

func TestHandleContextBehindTheCacheStoresNothing(t *testing.T) {
	r, n := gin.New(), &runs{}
	cache := newCache(t)
	r.GET("/alias", gincache.Cache(cache, "stale"), func(c *gin.Context) {
		c.Request.URL.Path = "/real"
		r.HandleContext(c)
		c.Abort() // Gin 1.10 goes on with the other route's handlers
	})
	r.GET("/real", n.handler)
	for i := 1; i <= 2; i++ {
		w := get(r, "/alias")
		require.Equal(t, fmt.Sprint("run ", i), w.Body.String())
	}
}

func TestConcurrentMissesRunTheHandlerOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, n := gin.New(), &runs{}
		r.GET("/", gincache.Cache(newCache(t), "hour"), func(c *gin.Context) {
			time.Sleep(time.Second)
			n.handler(c)
		})
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() { require.Equal(t, "run 1", get(r, "/").Body.String()) })
		}
		all.Wait()
	})
}

func TestBehindARealServer(t *testing.T) {
	r := gin.New()
	cached := gincache.Cache(newCache(t), "hour")
	r.GET("/hints", cached, func(c *gin.Context) {
		c.Header("Link", "</style.css>; rel=preload")
		c.Writer.(interface{ Unwrap() http.ResponseWriter }).Unwrap().WriteHeader(http.StatusEarlyHints)
		c.Header("Link", "")
		c.String(http.StatusCreated, "made")
	})
	release := make(chan struct{})
	r.GET("/stream", cached, func(c *gin.Context) {
		if err := http.NewResponseController(c.Writer).SetWriteDeadline(time.Now().Add(time.Minute)); err != nil {
			_ = c.Error(err)
		}
		_, _ = c.Writer.WriteString("first\n")
		c.Writer.Flush()
		<-release
		_, _ = c.Writer.WriteString("second\n")
	})
	r.GET("/events", cached, func(c *gin.Context) {
		n := 0
		c.Stream(func(io.Writer) bool {
			n++
			c.SSEvent("count", n)
			return n < 2
		})
	})
	r.GET("/hijack", cached, func(c *gin.Context) {
		conn, rw, err := c.Writer.Hijack()
		if err != nil {
			_ = c.Error(err)
			return
		}
		defer func() { _ = conn.Close() }()
		_, _ = rw.WriteString("HTTP/1.1 299 Mine\r\nContent-Length: 0\r\n\r\n")
		_ = rw.Flush()
	})
	srv := httptest.NewServer(r)
	defer srv.Close()
	defer http.DefaultClient.CloseIdleConnections()
	ask := func(path string) (*http.Response, *[]int) {
		var early []int
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(code int, _ textproto.MIMEHeader) error { early = append(early, code); return nil },
		})
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, srv.URL+path, nil)
		require.NoError(t, err)
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		t.Cleanup(func() { _ = resp.Body.Close() })
		return resp, &early
	}

	resp, early := ask("/hints")
	require.Equal(t, http.StatusCreated, resp.StatusCode)
	require.Equal(t, []int{http.StatusEarlyHints}, *early)
	require.Empty(t, resp.Header["Link"])

	resp, _ = ask("/stream")
	lines := bufio.NewReader(resp.Body)
	line, err := lines.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "first\n", line)
	close(release)
	line, err = lines.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "second\n", line)
	require.Contains(t, resp.Header.Get("Cache-Status"), "streamed")

	resp, _ = ask("/events")
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, 2, strings.Count(string(body), "event:count"))

	resp, _ = ask("/hijack")
	require.Equal(t, 299, resp.StatusCode)
}

// pusher is a server's writer of HTTP/2.
type pusher struct {
	*httptest.ResponseRecorder
	pushed []string
}

func (p *pusher) Push(target string, _ *http.PushOptions) error {
	p.pushed = append(p.pushed, target)
	return nil
}

func TestPush(t *testing.T) {
	r := gin.New()
	r.GET("/", gincache.Cache(newCache(t), "hour"), func(c *gin.Context) {
		if p := c.Writer.Pusher(); p != nil {
			_ = p.Push("/style.css", nil)
		}
		c.String(http.StatusOK, "here")
	})
	w := &pusher{ResponseRecorder: httptest.NewRecorder()}
	r.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	require.Equal(t, []string{"/style.css"}, w.pushed)
	require.Equal(t, "here", get(r, "/").Body.String())
}

func TestRouteThatIsWrong(t *testing.T) {
	cache := newCache(t)
	var ce *core.ConfigError
	_, err := gincache.Route{Cache: cache, Class: "unknown"}.Middleware()
	require.ErrorAs(t, err, &ce)
	for _, f := range []func(){
		func() { gincache.Cache(nil, "hour") },
		func() { gincache.Cache(cache, "unknown") },
		func() { gincache.Cache(cache, "hour", "p:{") },
		func() { gincache.Invalidate(cache) },
		func() { gincache.Invalidate(nil, "tag") },
	} {
		func() {
			defer func() { require.ErrorAs(t, recover().(error), &ce) }()
			f()
		}()
	}
}
