package echo5_test

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/labstack/echo/v5"
	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/echocache/echo5"
)

func TestRefreshGoesThroughEchoAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cache, e, n := newCache(t), newEcho(), &runs{}
		// A rewrite that is not the same twice, as a rule on URL.Path may be.
		e.Pre(func(next echo.HandlerFunc) echo.HandlerFunc {
			return func(c *echo.Context) error {
				u := c.Request().URL
				c.Set("locale", strings.Split(u.Path, "/")[1])
				u.Path = "/" + strings.Join(strings.Split(u.Path, "/")[2:], "/")
				return next(c)
			}
		})
		e.GET("/p/:id", func(c *echo.Context) error {
			return c.String(http.StatusOK, fmt.Sprint(c.Get("locale"), " ", c.Param("id"), " ", n.text()))
		}, echo5.Cache(cache, "stale", "p:{id}"))

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
		e, n, cached := newEcho(), &runs{}, echo5.Cache(newCache(t), "stale")
		e.GET("/", n.handler, cached)
		e.HEAD("/", func(c *echo.Context) error { return c.NoContent(http.StatusOK) }, cached)
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
			return func(c *echo.Context) error {
				if requests.Add(1) == 3 {
					return echo.ErrTooManyRequests
				}
				return next(c)
			}
		})
		e.GET("/", n.handler, echo5.Cache(newCache(t), "stale"))
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
			return func(c *echo.Context) error {
				c.Request().URL.Path = "/p/" + []string{"b", "a"}[requests.Add(1)%2]
				return next(c)
			}
		})
		e.GET("/p/:id", func(c *echo.Context) error { return c.String(http.StatusOK, c.Param("id")+" "+n.text()) },
			echo5.Cache(cache, "stale", "p:{id}"))
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
		"error": func(*echo.Context) error { return echo.ErrBadGateway },
		"panic": func(*echo.Context) error { panic("oops") },
		"flush": func(c *echo.Context) error { response(c).Flush(); return nil },
		"hijack": func(c *echo.Context) error {
			_, _, err := response(c).Hijack()
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e, n, failing := newEcho(), &runs{}, false
				e.GET("/", func(c *echo.Context) error {
					if failing {
						return fail(c)
					}
					return n.handler(c)
				}, echo5.Cache(newCache(t), "stale"))
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
			return func(c *echo.Context) error {
				c.Set("id", c.Param("id"))
				return next(c)
			}
		})
		e.GET("/p/:id", func(c *echo.Context) error {
			id := c.Param("id")
			time.Sleep(time.Millisecond)
			if c.Get("id") != id || c.Param("id") != id || c.Request().URL.Path != "/p/"+id {
				t.Errorf("the context of %s is another one's", id)
			}
			n.Add(1)
			return c.String(http.StatusOK, "I am "+id)
		}, echo5.Cache(newCache(t), "stale", "p:{id}"))
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
		e.GET("/", func(c *echo.Context) error {
			time.Sleep(time.Second)
			return n.handler(c)
		}, echo5.Cache(newCache(t), "hour"))
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() { require.Equal(t, "run 1", get(e, "/").Body.String()) })
		}
		all.Wait()
	})
}
