package echo5_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/labstack/echo/v5"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/echocache/echo5"
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
	e.Logger = slog.New(slog.DiscardHandler)
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

func (n *runs) handler(c *echo.Context) error { return c.String(http.StatusOK, n.text()) }

func (n *runs) text() string { return "run " + strconv.FormatInt(n.Add(1), 10) }

// recovers answers a panic, as Echo's own Recover does.
func recovers(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c *echo.Context) (err error) {
		defer func() {
			if v := recover(); v != nil {
				err = fmt.Errorf("%v", v)
			}
		}()
		return next(c)
	}
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
	return func(c *echo.Context) error {
		r := c.Request()
		o.err = next(c)
		res := response(c)
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
		{"text", func(c *echo.Context) error { c.Set("by-handler", 1); return c.String(http.StatusAccepted, "accepted") }},
		{"no content", func(c *echo.Context) error { return c.NoContent(http.StatusNoContent) }},
		{"nothing", func(*echo.Context) error { return nil }},
		{"redirect", func(c *echo.Context) error { return c.Redirect(http.StatusMovedPermanently, "/elsewhere") }},
		{"writes in pieces", func(c *echo.Context) error {
			_, _ = c.Response().Write([]byte("one "))
			_, err := c.Response().Write([]byte("two"))
			return err
		}},
		{"uncacheable", func(c *echo.Context) error {
			c.Response().Header().Set("Cache-Control", "no-store")
			return c.String(http.StatusOK, "private")
		}},
		{"streams", func(c *echo.Context) error {
			_, _ = c.Response().Write([]byte("one "))
			response(c).Flush()
			_, err := c.Response().Write([]byte("two"))
			return err
		}},
		{"too large", func(c *echo.Context) error { return c.String(http.StatusOK, strings.Repeat("x", 2<<20)) }},
		{"fails", func(*echo.Context) error { return failure }},
		{"fails with any error", func(*echo.Context) error { return errors.New("broken") }},
		{"fails with fields set", func(c *echo.Context) error {
			c.Response().Header().Set("Retry-After", "7")
			return failure
		}},
		{"fails after it has answered", func(c *echo.Context) error {
			_ = c.String(http.StatusOK, "all is well")
			return failure
		}},
		{"fails in JSON", func(c *echo.Context) error { return c.JSON(http.StatusOK, func() {}) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			bare, cached := &outside{}, &outside{}
			e := newEcho()
			e.GET("/bare", c.handler, bare.middleware)
			e.GET("/cached", c.handler, cached.middleware, echo5.Cache(newCache(t), "hour"))
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
	e.HTTPErrorHandler = func(c *echo.Context, err error) {
		require.Equal(t, failure, err)
		_ = c.String(http.StatusNotFound, fmt.Sprint("handled ", n))
	}
	e.GET("/", func(c *echo.Context) error { n++; return failure }, o.middleware, echo5.Cache(newCache(t), "hour"))
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
	e.GET("/", func(c *echo.Context) error {
		c.Set("result", n.text())
		return nil
	}, func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c *echo.Context) error {
			if err := next(c); err != nil || response(c).Committed {
				return err
			}
			return c.String(http.StatusOK, c.Get("result").(string))
		}
	}, echo5.Cache(newCache(t), "hour"))
	require.Equal(t, "run 1", get(e, "/").Body.String())
	require.Equal(t, "run 2", get(e, "/").Body.String())
}

func TestHitGoesThroughTheResponse(t *testing.T) {
	e, o := newEcho(), &outside{}
	after := 0
	e.Use(func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c *echo.Context) error {
			response(c).After(func() { after++ })
			return next(c)
		}
	})
	e.GET("/", func(c *echo.Context) error { return c.String(http.StatusOK, "hello") }, o.middleware, echo5.Cache(newCache(t), "hour"))
	e.HEAD("/", func(c *echo.Context) error { return c.NoContent(http.StatusOK) }, o.middleware, echo5.Cache(newCache(t), "hour"))
	etag := get(e, "/").Header().Get("Etag")
	require.Equal(t, 1, after)

	require.True(t, isHit(get(e, "/")))
	require.Equal(t, outside{committed: true, status: http.StatusOK, size: 5, sameRequest: true}, *o)
	require.Equal(t, 2, after)

	require.Equal(t, http.StatusNotModified, get(e, "/", "If-None-Match", etag).Code)
	require.Equal(t, outside{committed: true, status: http.StatusNotModified, sameRequest: true}, *o)
	require.Equal(t, 2, after)
}

func TestOlderResponseInPlaceOfAnError(t *testing.T) {
	for _, c := range []struct {
		name string
		fail echo.HandlerFunc
	}{
		{"returned", func(c *echo.Context) error {
			c.Response().Header().Set("X-Failed", "yes")
			return echo.NewHTTPError(http.StatusBadGateway, "")
		}},
		{"of any kind", func(*echo.Context) error { return errors.New("broken") }},
		{"answered", func(c *echo.Context) error {
			c.Response().Header().Set("X-Failed", "yes")
			return c.String(http.StatusServiceUnavailable, "down")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e, o, fail := newEcho(), &outside{}, false
				e.GET("/", func(ec *echo.Context) error {
					if fail {
						return c.fail(ec)
					}
					return ec.String(http.StatusOK, "well")
				}, o.middleware, echo5.Cache(newCache(t), "fallback"))
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
		e.GET("/", func(ec *echo.Context) error {
			if fail {
				return fmt.Errorf("looking: %w", echo.ErrNotFound)
			}
			return ec.String(http.StatusOK, "well")
		}, echo5.Cache(newCache(t), "fallback"))
		get(e, "/")
		fail = true
		time.Sleep(90 * time.Second)
		require.Equal(t, http.StatusNotFound, get(e, "/").Code)
	})
}

func TestWriteThatReturnsAnError(t *testing.T) {
	for _, c := range []struct {
		name        string
		handler     echo.HandlerFunc
		invalidates bool
	}{
		{"client's", func(*echo.Context) error { return echo.NewHTTPError(http.StatusConflict, "") }, false},
		{"client's, wrapped", func(*echo.Context) error { return fmt.Errorf("saving: %w", echo.NewHTTPError(http.StatusConflict, "")) }, false},
		{"server's", func(*echo.Context) error { return echo.ErrBadGateway }, true},
		{"server's inside a client's, which is the answer", func(*echo.Context) error {
			return echo.NewHTTPError(http.StatusBadRequest, "").Wrap(echo.ErrInternalServerError)
		}, false},
		{"unknown", func(*echo.Context) error { return errors.New("connection lost") }, true},
		{"client's, after success", func(c *echo.Context) error {
			_ = c.NoContent(http.StatusNoContent)
			return echo.ErrNotFound
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			// A load that is under way when a write ends is stored unless the write
			// invalidates.
			cache, e, n := newCache(t), newEcho(), &runs{}
			loading, gate, loaded := make(chan struct{}), make(chan struct{}), make(chan struct{})
			e.GET("/p/:id", func(c *echo.Context) error {
				if n.Load() == 0 {
					close(loading)
					<-gate
				}
				return n.handler(c)
			}, echo5.Cache(cache, "hour", "p:{id}"))
			e.POST("/save/:id", func(ec *echo.Context) error {
				go func() {
					defer close(loaded)
					get(e, "/p/1")
				}()
				<-loading
				return c.handler(ec)
			}, echo5.Invalidate(cache, "p:{id}"))
			do(e, http.MethodPost, "/save/1")
			close(gate)
			<-loaded
			require.Equal(t, !c.invalidates, isHit(get(e, "/p/1")))
		})
	}
}

func TestPanicLeavesAFreshResponse(t *testing.T) {
	for name, c := range map[string]func(*echo.Context) error{
		"before an answer": func(*echo.Context) error { panic("oops") },
		"amid the answer": func(c *echo.Context) error {
			c.Response().Header().Set("Content-Length", "1000")
			c.Response().Header().Set("X-Half", "yes")
			_, _ = c.Response().Write([]byte("half"))
			panic("oops")
		},
	} {
		t.Run(name, func(t *testing.T) {
			cache, e, o := newCache(t), newEcho(), &outside{}
			e.Use(recovers, o.middleware)
			e.GET("/", c, echo5.Cache(cache, "hour"))
			e.POST("/", c, echo5.Invalidate(cache, "any"))
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

type valueKey struct{}

func TestContextOfTheRun(t *testing.T) {
	cache, e := newCache(t), newEcho()
	e.Use(func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c *echo.Context) error {
			c.SetRequest(c.Request().WithContext(context.WithValue(c.Request().Context(), valueKey{}, "from outside")))
			err := next(c)
			if !errors.Is(core.NoStore(c.Request().Context()), core.ErrNoScope) {
				t.Error("the run's scope reaches outside")
			}
			return err
		}
	})
	n := &runs{}
	e.GET("/", func(c *echo.Context) error {
		if err := core.AddTags(c.Request().Context(), "said"); err != nil {
			return err
		}
		return c.String(http.StatusOK, c.Request().Context().Value(valueKey{}).(string)+" "+n.text())
	}, echo5.Cache(cache, "hour"))
	require.Equal(t, "from outside run 1", get(e, "/").Body.String())
	require.True(t, isHit(get(e, "/")))
	require.NoError(t, cache.Invalidate(t.Context(), core.Tag("said")))
	require.Equal(t, "from outside run 2", get(e, "/").Body.String())
}

func TestRouteThatIsWrong(t *testing.T) {
	cache := newCache(t)
	var ce *core.ConfigError
	_, err := echo5.Route{Cache: cache, Class: "unknown"}.Middleware()
	require.ErrorAs(t, err, &ce)
	for _, f := range []func(){
		func() { echo5.Cache(nil, "hour") },
		func() { echo5.Cache(cache, "unknown") },
		func() { echo5.Cache(cache, "hour", "p:{") },
		func() { echo5.Invalidate(cache) },
		func() { echo5.Invalidate(nil, "tag") },
	} {
		func() {
			defer func() { require.ErrorAs(t, recover().(error), &ce) }()
			f()
		}()
	}
}
