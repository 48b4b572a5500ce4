package echocache_test

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

	"github.com/labstack/echo/v4"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/echocache"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

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

func newEcho() *echo.Echo {
	e := echo.New()
	e.Logger.SetOutput(io.Discard)
	return e
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

func (n *runs) handler(c echo.Context) error { return c.String(http.StatusOK, n.text()) }

func (n *runs) text() string { return "run " + strconv.FormatInt(n.Add(1), 10) }

func TestParametersAreDecodedOnce(t *testing.T) {
	for _, c := range []struct{ route, target, tag string }{
		{"/p/:id", "/p/7", "p:7"},
		{"/p/:id", "/p/a%20b", "p:a b"},
		{"/p/:id", "/p/a%2Fb", "p:a/b"},
		{"/p/:id", "/p/a%252Fb", "p:a%2Fb"},
		{"/p/:id", "/p/a%2Fb%2520c", "p:a/b%20c"},
		{"/p/:id", "/p/a+b", "p:a+b"},
		{"/p/:id", "/p/a+b%2F", "p:a+b/"},
		{"/f/*", "/f/a/b%20c", "f:a/b c"},
		{"/f/*", "/f/a%2Fb/c", "f:a/b/c"},
	} {
		t.Run(c.target, func(t *testing.T) {
			cache, e, n := newCache(t), newEcho(), &runs{}
			template := "p:{id}"
			if strings.HasSuffix(c.route, "*") {
				template = "f:{*}"
			}
			e.GET(c.route, n.handler, echocache.Cache(cache, "hour", template))
			e.PUT(c.route, func(c echo.Context) error { return c.NoContent(http.StatusNoContent) }, echocache.Invalidate(cache, template))

			require.Equal(t, "run 1", get(e, c.target).Body.String())
			require.Equal(t, "run 1", get(e, c.target).Body.String())
			require.NoError(t, cache.Invalidate(t.Context(), core.Tag(c.tag)))
			require.Equal(t, "run 2", get(e, c.target).Body.String())
			require.Equal(t, http.StatusNoContent, do(e, http.MethodPut, c.target).Code)
			require.Equal(t, "run 3", get(e, c.target).Body.String())
		})
	}
}

// rewriteOld makes /p/… of /old/…, as Echo's own Rewrite does.
func rewriteOld(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) (err error) {
		r := c.Request()
		if rest, ok := strings.CutPrefix(r.RequestURI, "/old/"); ok {
			if r.URL, err = r.URL.Parse("/p/" + rest); err != nil {
				return err
			}
		}
		return next(c)
	}
}

// recovers answers a panic, as Echo's own Recover does.
func recovers(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) (err error) {
		defer func() {
			if v := recover(); v != nil {
				c.Error(fmt.Errorf("%v", v))
			}
		}()
		return next(c)
	}
}

func TestInFrontOfTheRouterTagsAreResolvedAfterwards(t *testing.T) {
	cache, e, n := newCache(t), newEcho(), &runs{}
	e.Pre(rewriteOld, echocache.Cache(cache, "hour", "p:{id}"))
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
	e.Pre(echocache.Invalidate(cache, "p:{id}"))
	e.PUT("/p/:id", n.handler)
	w := do(e, http.MethodPut, "/p/1")
	require.Equal(t, http.StatusInternalServerError, w.Code)
	require.Contains(t, w.Body.String(), "p:{id}")
	require.Zero(t, n.Load())
}

func TestUseSeesTheParameters(t *testing.T) {
	cache, e, n := newCache(t), newEcho(), &runs{}
	e.Use(echocache.Invalidate(cache, "p:{id}"))
	e.PUT("/p/:id", n.handler)
	require.Equal(t, http.StatusOK, do(e, http.MethodPut, "/p/1").Code)
}

// outside notes what middleware in front of the cache sees when next has returned.
type outside struct {
	err           error
	committed     bool
	status        int
	size          int64
	sameRequest   bool
	contextErr    error
	setByHandlers any
}

func (o *outside) middleware(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		r := c.Request()
		o.err = next(c)
		res := c.Response()
		o.committed, o.status, o.size = res.Committed, res.Status, res.Size
		o.sameRequest, o.contextErr = c.Request() == r, c.Request().Context().Err()
		o.setByHandlers = c.Get("by-handler")
		return o.err
	}
}

func TestResponseOutsideIsAsWithoutACache(t *testing.T) {
	failure := echo.NewHTTPError(http.StatusTeapot, "no coffee")
	for _, c := range []struct {
		name    string
		handler echo.HandlerFunc
	}{
		{"text", func(c echo.Context) error { c.Set("by-handler", 1); return c.String(http.StatusAccepted, "accepted") }},
		{"no content", func(c echo.Context) error { return c.NoContent(http.StatusNoContent) }},
		{"nothing", func(echo.Context) error { return nil }},
		{"redirect", func(c echo.Context) error { return c.Redirect(http.StatusMovedPermanently, "/elsewhere") }},
		{"writes in pieces", func(c echo.Context) error {
			_, _ = c.Response().Write([]byte("one "))
			_, err := c.Response().Write([]byte("two"))
			return err
		}},
		{"uncacheable", func(c echo.Context) error {
			c.Response().Header().Set("Cache-Control", "no-store")
			return c.String(http.StatusOK, "private")
		}},
		{"streams", func(c echo.Context) error {
			_, _ = c.Response().Write([]byte("one "))
			c.Response().Flush()
			_, err := c.Response().Write([]byte("two"))
			return err
		}},
		{"too large", func(c echo.Context) error { return c.String(http.StatusOK, strings.Repeat("x", 2<<20)) }},
		{"fails", func(echo.Context) error { return failure }},
		{"fails with any error", func(echo.Context) error { return errors.New("broken") }},
		{"fails with fields set", func(c echo.Context) error {
			c.Response().Header().Set("Retry-After", "7")
			return failure
		}},
		{"fails after it has answered", func(c echo.Context) error {
			_ = c.String(http.StatusOK, "all is well")
			return failure
		}},
		{"fails in JSON", func(c echo.Context) error { return c.JSON(http.StatusOK, func() {}) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			bare, cached := &outside{}, &outside{}
			e := newEcho()
			e.GET("/bare", c.handler, bare.middleware)
			e.GET("/cached", c.handler, cached.middleware, echocache.Cache(newCache(t), "hour"))
			want, got := get(e, "/bare"), get(e, "/cached")
			require.Equal(t, want.Code, got.Code)
			require.Equal(t, want.Body.String(), got.Body.String())
			for name, values := range want.Header() {
				require.Equal(t, values, got.Header()[name], name)
			}
			require.True(t, cached.sameRequest)
			require.NoError(t, cached.contextErr)
			require.Equal(t, bare, cached)
		})
	}
}

func TestErrorIsReturnedUnchangedAndNotStored(t *testing.T) {
	type own struct{ error }
	failure := own{errors.New("gone")}
	e, o, n := newEcho(), &outside{}, 0
	e.HTTPErrorHandler = func(err error, c echo.Context) {
		require.Equal(t, failure, err)
		_ = c.String(http.StatusNotFound, fmt.Sprint("handled ", n))
	}
	e.GET("/", func(c echo.Context) error { n++; return failure }, o.middleware, echocache.Cache(newCache(t), "hour"))
	for i := 1; i <= 2; i++ {
		w := get(e, "/")
		require.Equal(t, http.StatusNotFound, w.Code)
		require.Equal(t, fmt.Sprint("handled ", i), w.Body.String())
		require.Equal(t, failure, o.err)
		require.False(t, o.committed)
	}
}

func TestAnswerByMiddlewareOutsideIsLeftToIt(t *testing.T) {
	e, n := newEcho(), &runs{}
	e.GET("/", func(c echo.Context) error {
		c.Set("result", n.text())
		return nil
	}, func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			if err := next(c); err != nil || c.Response().Committed {
				return err
			}
			return c.String(http.StatusOK, c.Get("result").(string))
		}
	}, echocache.Cache(newCache(t), "hour"))
	require.Equal(t, "run 1", get(e, "/").Body.String())
	require.Equal(t, "run 2", get(e, "/").Body.String())
}

func TestHitGoesThroughTheResponse(t *testing.T) {
	e, o := newEcho(), &outside{}
	after := 0
	e.Use(func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			c.Response().After(func() { after++ })
			return next(c)
		}
	})
	e.GET("/", func(c echo.Context) error { return c.String(http.StatusOK, "hello") }, o.middleware, echocache.Cache(newCache(t), "hour"))
	e.HEAD("/", func(c echo.Context) error { return c.NoContent(http.StatusOK) }, o.middleware, echocache.Cache(newCache(t), "hour"))
	etag := get(e, "/").Header().Get("Etag")
	require.Equal(t, 1, after)

	require.True(t, isHit(get(e, "/")))
	require.Equal(t, outside{committed: true, status: http.StatusOK, size: 5, sameRequest: true}, *o)
	require.Equal(t, 2, after)

	require.Equal(t, http.StatusNotModified, get(e, "/", "If-None-Match", etag).Code)
	require.Equal(t, outside{committed: true, status: http.StatusNotModified, sameRequest: true}, *o)
	require.Equal(t, 2, after)
}

func TestHooksFromOutsideRunForEachAnswerAndAreNotStored(t *testing.T) {
	e := newEcho()
	served := 0
	e.Use(func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			served++
			n := strconv.Itoa(served)
			c.Response().Before(func() {
				c.Response().Header().Set("X-Served", n)
				c.Response().Header().Set("X-Status", strconv.Itoa(c.Response().Status))
				c.Response().Header().Add("Vary", "X-Outside")
			})
			return next(c)
		}
	})
	e.GET("/", func(c echo.Context) error {
		c.Response().Before(func() { c.Response().Header().Set("X-Handler", "hook") })
		c.Response().Header().Set("Vary", "X-Inside")
		return c.String(http.StatusOK, "hello")
	}, echocache.Cache(newCache(t), "hour"))
	for i := 1; i <= 3; i++ {
		w := get(e, "/")
		require.Equal(t, i > 1, isHit(w))
		require.Equal(t, []string{strconv.Itoa(i)}, w.Header()["X-Served"])
		require.Equal(t, []string{"200"}, w.Header()["X-Status"])
		require.Equal(t, []string{"X-Inside", "X-Outside"}, w.Header()["Vary"])
		require.Equal(t, []string{"hook"}, w.Header()["X-Handler"])
	}
}

func TestHooksFromOutsideRunWhenAnAnswerPassesThrough(t *testing.T) {
	e := newEcho()
	e.Use(func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			c.Response().Before(func() { c.Response().Header().Set("X-Hook", strconv.Itoa(c.Response().Status)) })
			return next(c)
		}
	})
	e.GET("/", func(c echo.Context) error {
		_, err := c.Response().Write([]byte("a"))
		c.Response().Flush()
		return err
	}, echocache.Cache(newCache(t), "hour"))
	w := get(e, "/")
	require.Equal(t, "200", w.Header().Get("X-Hook"))
	require.True(t, w.Flushed)
}

func TestOlderResponseInPlaceOfAnError(t *testing.T) {
	for _, c := range []struct {
		name string
		fail echo.HandlerFunc
	}{
		{"returned", func(c echo.Context) error {
			c.Response().Header().Set("X-Failed", "yes")
			return echo.NewHTTPError(http.StatusBadGateway)
		}},
		{"of any kind", func(echo.Context) error { return errors.New("broken") }},
		{"answered", func(c echo.Context) error {
			c.Response().Header().Set("X-Failed", "yes")
			return c.String(http.StatusServiceUnavailable, "down")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e, o, fail := newEcho(), &outside{}, false
				e.GET("/", func(ec echo.Context) error {
					if fail {
						return c.fail(ec)
					}
					return ec.String(http.StatusOK, "well")
				}, o.middleware, echocache.Cache(newCache(t), "fallback"))
				require.Equal(t, "well", get(e, "/").Body.String())
				fail = true
				time.Sleep(90 * time.Second)
				w := get(e, "/")
				require.Equal(t, http.StatusOK, w.Code)
				require.Equal(t, "well", w.Body.String())
				require.Empty(t, w.Header()["X-Failed"])
				require.Equal(t, outside{committed: true, status: http.StatusOK, size: 4, sameRequest: true}, *o)
			})
		})
	}
}

func TestClientErrorsAreNotReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, fail := newEcho(), false
		e.GET("/", func(ec echo.Context) error {
			if fail {
				return fmt.Errorf("looking: %w", echo.ErrNotFound)
			}
			return ec.String(http.StatusOK, "well")
		}, echocache.Cache(newCache(t), "fallback"))
		get(e, "/")
		fail = true
		time.Sleep(90 * time.Second)
		// Echo's own error handler does not unwrap.
		require.Equal(t, http.StatusInternalServerError, get(e, "/").Code)
	})
}

func TestWriteThatReturnsAnError(t *testing.T) {
	for _, c := range []struct {
		name        string
		handler     echo.HandlerFunc
		invalidates bool
	}{
		{"client's", func(echo.Context) error { return echo.ErrConflict }, false},
		{"client's, wrapped", func(echo.Context) error { return fmt.Errorf("saving: %w", echo.ErrConflict) }, false},
		{"server's", func(echo.Context) error { return echo.ErrBadGateway }, true},
		{"server's inside a client's", func(echo.Context) error {
			return echo.NewHTTPError(http.StatusBadRequest).SetInternal(echo.ErrInternalServerError)
		}, true},
		{"unknown", func(echo.Context) error { return errors.New("connection lost") }, true},
		{"client's, after success", func(c echo.Context) error {
			_ = c.NoContent(http.StatusNoContent)
			return echo.ErrNotFound
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			// A load that is under way when a write ends is stored unless the write
			// invalidates.
			cache, e, n := newCache(t), newEcho(), &runs{}
			loading, gate, loaded := make(chan struct{}), make(chan struct{}), make(chan struct{})
			e.GET("/p/:id", func(c echo.Context) error {
				if n.Load() == 0 {
					close(loading)
					<-gate
				}
				return n.handler(c)
			}, echocache.Cache(cache, "hour", "p:{id}"))
			e.POST("/save/:id", func(ec echo.Context) error {
				go func() {
					defer close(loaded)
					get(e, "/p/1")
				}()
				<-loading
				return c.handler(ec)
			}, echocache.Invalidate(cache, "p:{id}"))
			do(e, http.MethodPost, "/save/1")
			close(gate)
			<-loaded
			require.Equal(t, !c.invalidates, isHit(get(e, "/p/1")))
		})
	}
}

func TestPanicLeavesAFreshResponse(t *testing.T) {
	for name, c := range map[string]func(echo.Context) error{
		"before an answer": func(echo.Context) error { panic("oops") },
		"amid the answer": func(c echo.Context) error {
			c.Response().Header().Set("Content-Length", "1000")
			c.Response().Header().Set("X-Half", "yes")
			_, _ = c.Response().Write([]byte("half"))
			panic("oops")
		},
	} {
		t.Run(name, func(t *testing.T) {
			cache, e, o := newCache(t), newEcho(), &outside{}
			e.Use(recovers, o.middleware)
			e.GET("/", c, echocache.Cache(cache, "hour"))
			e.POST("/", c, echocache.Invalidate(cache, "any"))
			for _, method := range []string{http.MethodGet, http.MethodPost} {
				w := do(e, method, "/")
				require.Equal(t, http.StatusInternalServerError, w.Code)
				require.JSONEq(t, `{"message":"Internal Server Error"}`, w.Body.String())
				require.Empty(t, w.Header()["X-Half"])
				require.Empty(t, w.Header()["Content-Length"])
			}
		})
	}
}

type customContext struct {
	echo.Context
	user string
}

func custom(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error { return next(&customContext{c, c.Request().Header.Get("X-User")}) }
}

func TestCustomContextReachesTheHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, n := newEcho(), &runs{}
		m, err := echocache.Route{
			Cache: newCache(t), Class: "stale",
			Identity: func(c echo.Context) (string, bool) { return c.(*customContext).user, true },
			Skip:     func(c echo.Context) bool { return c.(*customContext).user == "root" },
		}.Middleware()
		require.NoError(t, err)
		e.GET("/", func(c echo.Context) error {
			return c.String(http.StatusOK, c.(*customContext).user+" "+n.text())
		}, custom, m)
		require.Equal(t, "ann run 1", get(e, "/", "X-User", "ann").Body.String())
		require.Equal(t, "bob run 2", get(e, "/", "X-User", "bob").Body.String())
		require.Equal(t, "ann run 1", get(e, "/", "X-User", "ann").Body.String())
		require.Equal(t, "root run 3", get(e, "/", "X-User", "root").Body.String())
		time.Sleep(90 * time.Second)
		require.Equal(t, "ann run 1", get(e, "/", "X-User", "ann").Body.String())
		synctest.Wait()
		require.Equal(t, "ann run 4", get(e, "/", "X-User", "ann").Body.String())
	})
}

func TestResponseHeldFromBeforeIsCaptured(t *testing.T) {
	e, n := newEcho(), &runs{}
	e.GET("/", func(c echo.Context) error {
		_, err := io.WriteString(c.Get("response").(*echo.Response), n.text())
		return err
	}, func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			c.Set("response", c.Response())
			return next(c)
		}
	}, echocache.Cache(newCache(t), "hour"))
	require.Equal(t, "run 1", get(e, "/").Body.String())
	require.Equal(t, "run 1", get(e, "/").Body.String())
}

type valueKey struct{}

func TestContextOfTheRun(t *testing.T) {
	cache, e := newCache(t), newEcho()
	e.Use(func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			c.SetRequest(c.Request().WithContext(context.WithValue(c.Request().Context(), valueKey{}, "from outside")))
			err := next(c)
			if !errors.Is(core.NoStore(c.Request().Context()), core.ErrNoScope) {
				t.Error("the run's scope reaches outside")
			}
			return err
		}
	})
	n := &runs{}
	e.GET("/", func(c echo.Context) error {
		if err := core.AddTags(c.Request().Context(), "said"); err != nil {
			return err
		}
		return c.String(http.StatusOK, c.Request().Context().Value(valueKey{}).(string)+" "+n.text())
	}, echocache.Cache(cache, "hour"))
	require.Equal(t, "from outside run 1", get(e, "/").Body.String())
	require.True(t, isHit(get(e, "/")))
	require.NoError(t, cache.Invalidate(t.Context(), core.Tag("said")))
	require.Equal(t, "from outside run 2", get(e, "/").Body.String())
}

func TestRefreshGoesThroughEchoAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cache, e, n := newCache(t), newEcho(), &runs{}
		// A rewrite that is not the same twice, as a rule on URL.Path may be.
		e.Pre(func(next echo.HandlerFunc) echo.HandlerFunc {
			return func(c echo.Context) error {
				u := c.Request().URL
				c.Set("locale", strings.Split(u.Path, "/")[1])
				u.Path = "/" + strings.Join(strings.Split(u.Path, "/")[2:], "/")
				return next(c)
			}
		})
		e.GET("/p/:id", func(c echo.Context) error {
			return c.String(http.StatusOK, fmt.Sprint(c.Get("locale"), " ", c.Param("id"), " ", n.text()))
		}, echocache.Cache(cache, "stale", "p:{id}"))

		require.Equal(t, "en 1 run 1", get(e, "/en/p/1?q=1").Body.String())
		for i := 1; i <= 3; i++ { // and again and again
			time.Sleep(90 * time.Second)
			w := get(e, "/en/p/1?q=1", "If-None-Match", `"another"`, "Range", "bytes=0-1", "If-Range", `"another"`)
			require.Equal(t, fmt.Sprint("en 1 run ", i), w.Body.String())
			synctest.Wait()
			w = get(e, "/en/p/1?q=1")
			require.True(t, isHit(w))
			require.Equal(t, fmt.Sprint("en 1 run ", i+1), w.Body.String())
		}
		require.NoError(t, cache.Invalidate(t.Context(), core.Tag("p:1")))
		require.Equal(t, "en 1 run 5", get(e, "/en/p/1?q=1").Body.String())
	})
}

func TestHeadSetsOffARefreshOfGet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, n, cached := newEcho(), &runs{}, echocache.Cache(newCache(t), "stale")
		e.GET("/", n.handler, cached)
		e.HEAD("/", func(c echo.Context) error { return c.NoContent(http.StatusOK) }, cached)
		get(e, "/")
		time.Sleep(90 * time.Second)
		require.True(t, isHit(do(e, http.MethodHead, "/")))
		synctest.Wait()
		require.Equal(t, "run 2", get(e, "/").Body.String())
	})
}

func TestRefreshThatMiddlewareAnswersStoresNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, n := newEcho(), &runs{}
		var requests atomic.Int64
		e.Use(func(next echo.HandlerFunc) echo.HandlerFunc {
			return func(c echo.Context) error {
				if requests.Add(1) == 3 {
					return echo.ErrTooManyRequests
				}
				return next(c)
			}
		})
		e.GET("/", n.handler, echocache.Cache(newCache(t), "stale"))
		get(e, "/")
		time.Sleep(90 * time.Second)
		for range 2 { // the first one's refresh is the third request
			require.Equal(t, "run 1", get(e, "/").Body.String())
			synctest.Wait()
		}
		require.Equal(t, int64(5), requests.Load())
		require.Equal(t, "run 2", get(e, "/").Body.String())
	})
}

// Pre middleware shows each request one of two pages in turn.
func TestRefreshThatComesToAnotherURLStoresNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cache, e, n := newCache(t), newEcho(), &runs{}
		var requests atomic.Int64
		e.Pre(func(next echo.HandlerFunc) echo.HandlerFunc {
			return func(c echo.Context) error {
				c.Request().URL.Path = "/p/" + []string{"b", "a"}[requests.Add(1)%2]
				return next(c)
			}
		})
		e.GET("/p/:id", func(c echo.Context) error { return c.String(http.StatusOK, c.Param("id")+" "+n.text()) },
			echocache.Cache(cache, "stale", "p:{id}"))
		require.Equal(t, "a run 1", get(e, "/").Body.String())
		require.Equal(t, "b run 2", get(e, "/").Body.String())
		time.Sleep(90 * time.Second)
		require.Equal(t, "a run 1", get(e, "/").Body.String()) // its refresh is for b
		synctest.Wait()
		require.NoError(t, cache.Invalidate(t.Context(), core.Tag("p:b")))
		requests.Store(1) // the next one is for b
		require.False(t, isHit(get(e, "/")))
	})
}

func TestRefreshFailsAsQuietlyAsItCan(t *testing.T) {
	for name, fail := range map[string]echo.HandlerFunc{
		"error": func(echo.Context) error { return echo.ErrBadGateway },
		"panic": func(echo.Context) error { panic("oops") },
		"flush": func(c echo.Context) error { c.Response().Flush(); return nil },
		"hijack": func(c echo.Context) error {
			_, _, err := c.Response().Hijack()
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e, n, failing := newEcho(), &runs{}, false
				e.GET("/", func(c echo.Context) error {
					if failing {
						return fail(c)
					}
					return n.handler(c)
				}, echocache.Cache(newCache(t), "stale"))
				get(e, "/")
				failing = true
				time.Sleep(90 * time.Second)
				require.Equal(t, "run 1", get(e, "/").Body.String())
				synctest.Wait()
				failing = false
				require.Equal(t, "run 1", get(e, "/").Body.String())
				synctest.Wait()
				require.Equal(t, "run 2", get(e, "/").Body.String())
			})
		})
	}
}

// Contexts go back to Echo's pool while refreshes of what they asked for still run.
func TestRefreshesDoNotTouchContextsThatAreReused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, n := newEcho(), &runs{}
		e.Use(func(next echo.HandlerFunc) echo.HandlerFunc {
			return func(c echo.Context) error {
				c.Set("id", c.Param("id"))
				return next(c)
			}
		})
		e.GET("/p/:id", func(c echo.Context) error {
			id := c.Param("id")
			time.Sleep(time.Millisecond)
			if c.Get("id") != id || c.Param("id") != id || c.Request().URL.Path != "/p/"+id {
				t.Errorf("the context of %s is another one's", id)
			}
			n.Add(1)
			return c.String(http.StatusOK, "I am "+id)
		}, echocache.Cache(newCache(t), "stale", "p:{id}"))
		const many = 50
		for range 3 {
			var all sync.WaitGroup
			for i := range many {
				all.Go(func() {
					id := strconv.Itoa(i)
					require.Equal(t, "I am "+id, get(e, "/p/"+id).Body.String())
				})
			}
			all.Wait()
			time.Sleep(90 * time.Second)
		}
		require.Equal(t, int64(3*many), n.Load())
	})
}

func TestConcurrentMissesRunTheHandlerOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, n := newEcho(), &runs{}
		e.GET("/", func(c echo.Context) error {
			time.Sleep(time.Second)
			return n.handler(c)
		}, echocache.Cache(newCache(t), "hour"))
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() { require.Equal(t, "run 1", get(e, "/").Body.String()) })
		}
		all.Wait()
	})
}

func TestBehindARealServer(t *testing.T) {
	e := newEcho()
	cached := echocache.Cache(newCache(t), "hour")
	e.GET("/hints", func(c echo.Context) error {
		h := c.Response().Header()
		h.Set("Link", "</style.css>; rel=preload")
		c.Response().Writer.WriteHeader(http.StatusEarlyHints)
		h.Del("Link")
		if c.Response().Committed {
			return errors.New("committed by a 103")
		}
		return c.String(http.StatusCreated, "made")
	}, cached)
	release := make(chan struct{})
	e.GET("/stream", func(c echo.Context) error {
		rc := http.NewResponseController(c.Response())
		if err := rc.SetWriteDeadline(time.Now().Add(time.Minute)); err != nil {
			return err
		}
		_, _ = io.WriteString(c.Response(), "first\n")
		if err := rc.Flush(); err != nil {
			return err
		}
		<-release
		_, err := io.WriteString(c.Response(), "second\n")
		return err
	}, cached)
	e.GET("/hijack", func(c echo.Context) error {
		conn, rw, err := c.Response().Hijack()
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		_, _ = rw.WriteString("HTTP/1.1 299 Mine\r\nContent-Length: 0\r\n\r\n")
		return rw.Flush()
	}, cached)
	srv := httptest.NewServer(e)
	defer srv.Close()
	defer http.DefaultClient.CloseIdleConnections()

	ask := func(path string) (*http.Response, *[]int) {
		var early []int
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(code int, _ textproto.MIMEHeader) error { early = append(early, code); return nil },
		})
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, srv.URL+path, nil)
		require.NoError(t, err)
		resp, err := http.DefaultClient.Do(r)
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
	e := newEcho()
	e.GET("/", func(c echo.Context) error {
		if err := c.Response().Writer.(http.Pusher).Push("/style.css", nil); err != nil {
			return err
		}
		return c.String(http.StatusOK, "pushed")
	}, echocache.Cache(newCache(t), "hour"))
	w := &pusher{ResponseRecorder: httptest.NewRecorder()}
	e.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	require.Equal(t, "pushed", w.Body.String())
	require.Equal(t, []string{"/style.css"}, w.pushed)
}

func TestRouteThatIsWrong(t *testing.T) {
	cache := newCache(t)
	var ce *core.ConfigError
	_, err := echocache.Route{Cache: cache, Class: "unknown"}.Middleware()
	require.ErrorAs(t, err, &ce)
	for _, f := range []func(){
		func() { echocache.Cache(nil, "hour") },
		func() { echocache.Cache(cache, "unknown") },
		func() { echocache.Cache(cache, "hour", "p:{") },
		func() { echocache.Invalidate(cache) },
		func() { echocache.Invalidate(nil, "tag") },
	} {
		func() {
			defer func() { require.ErrorAs(t, recover().(error), &ce) }()
			f()
		}()
	}
}

func TestASchemeThatEchoBelievesIsNobodyElses(t *testing.T) {
	e := newEcho()
	e.GET("/", func(c echo.Context) error {
		return c.String(http.StatusOK, c.Scheme()+"://"+c.Request().Host)
	}, echocache.Cache(newCache(t), "hour"))
	for _, field := range []string{"X-Forwarded-Proto", "X-Forwarded-Protocol", "X-Url-Scheme"} {
		for _, scheme := range []string{"javascript", "https", "http"} {
			require.Equal(t, scheme+"://example.com", get(e, "/", field, scheme).Body.String())
			require.Equal(t, "http://example.com", get(e, "/").Body.String())
		}
	}
	require.Equal(t, "https://example.com", get(e, "/", "X-Forwarded-Ssl", "on").Body.String())
	require.True(t, isHit(get(e, "/", "X-Forwarded-Proto", "https")), "one that is believed is kept like any other")
}
