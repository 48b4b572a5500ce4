package fibercache_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/fibercache"
)

func TestHit(t *testing.T) {
	cache := newCache(t)
	s := newSite(t)
	s.Get("/p/:id", fibercache.Cache(cache, "hour", "p:{id}"), counted())

	first := s.get("/p/1")
	require.Equal(t, "run 1", first.body)
	require.Equal(t, "Larder; fwd=uri-miss; stored", first.status())
	second := s.get("/p/1")
	require.Equal(t, "run 1", second.body)
	require.True(t, second.hit(), second.status())
	require.Equal(t, "text/plain; charset=utf-8", second.Header.Get("Content-Type"))
	require.Equal(t, first.Header.Get("Etag"), second.Header.Get("Etag"))
	require.EqualValues(t, 5, second.ContentLength)

	require.NoError(t, cache.Invalidate(context.Background(), core.Tag("p:1")))
	require.Equal(t, "run 2", s.get("/p/1").body)
}

func TestHeadAndConditional(t *testing.T) {
	cache := newCache(t)
	s := newSite(t)
	long := strings.Repeat("x", 5000)
	s.Get("/short", fibercache.Cache(cache, "hour"), counted())
	s.Get("/long", fibercache.Cache(cache, "hour"), func(c *fiber.Ctx) error { return c.SendString(long) })
	s.Get("/none", fibercache.Cache(cache, "hour"), func(c *fiber.Ctx) error { return c.SendStatus(204) })

	for target, length := range map[string]int64{"/short": 5, "/long": 5000} {
		miss := s.get(target)
		head := s.do("HEAD", target)
		require.True(t, head.hit(), head.status())
		require.Equal(t, length, head.ContentLength, target)
		require.Len(t, head.Header.Values("Content-Length"), 1)
		require.Empty(t, head.body)
		require.Equal(t, miss.Header.Get("Content-Type"), head.Header.Get("Content-Type"))

		cond := s.get(target, "If-None-Match: "+miss.Header.Get("Etag"))
		require.Equal(t, 304, cond.StatusCode)
		require.Empty(t, cond.body)
		require.Empty(t, cond.Header.Values("Content-Length"))
		require.Empty(t, cond.Header.Values("Content-Type"))
	}
	require.Equal(t, 204, s.get("/none").StatusCode)
	for _, method := range []string{"GET", "HEAD"} {
		none := s.do(method, "/none")
		require.True(t, none.hit())
		require.Equal(t, 204, none.StatusCode)
		require.Empty(t, none.Header.Values("Content-Length"), method)
		require.Empty(t, none.Header.Values("Content-Type"), "SendStatus sets a body that is not sent")
	}
}

// The length of a HEAD's answer does not count content that outer middleware has written.
func TestHeadAfterOuterContent(t *testing.T) {
	cache := newCache(t)
	s := newSite(t)
	s.Use(func(c *fiber.Ctx) error { _, _ = c.WriteString("something else"); return c.Next() })
	s.Get("/", fibercache.Cache(cache, "hour"), func(c *fiber.Ctx) error { return c.SendString("hello") })
	require.Equal(t, "hello", s.get("/").body)
	head := s.do("HEAD", "/")
	require.True(t, head.hit())
	require.EqualValues(t, 5, head.ContentLength)
}

func TestConfigErrors(t *testing.T) {
	cache := newCache(t)
	for name, build := range map[string]func(){
		"class":          func() { fibercache.Cache(cache, "no such") },
		"cache":          func() { fibercache.Cache(nil, "hour") },
		"template":       func() { fibercache.Cache(cache, "hour", "p:{") },
		"no tags":        func() { fibercache.Invalidate(cache) },
		"no cache":       func() { fibercache.Invalidate(nil, "p") },
		"write template": func() { fibercache.Invalidate(cache, "p:{}") },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				err, _ := recover().(error)
				var ce *core.ConfigError
				require.ErrorAs(t, err, &ce)
			}()
			build()
		})
	}
	_, err := fibercache.Route{Cache: cache, Class: "no such"}.Middleware()
	var ce *core.ConfigError
	require.ErrorAs(t, err, &ce)
}

func TestIdentityAndSkip(t *testing.T) {
	cache := newCache(t)
	s := newSite(t)
	route, err := fibercache.Route{
		Cache: cache, Class: "hour",
		Identity: func(c *fiber.Ctx) (string, bool) { u := c.Get("X-User"); return u, u != "" },
		Skip:     func(c *fiber.Ctx) bool { return c.Query("skip") != "" },
	}.Middleware()
	require.NoError(t, err)
	s.Get("/cart", route, func(c *fiber.Ctx) error { return c.SendString("cart of " + c.Get("X-User")) })

	require.Equal(t, "cart of ann", s.get("/cart", "X-User: ann").body)
	require.Equal(t, "cart of bob", s.get("/cart", "X-User: bob").body)
	require.True(t, s.get("/cart", "X-User: ann").hit())
	require.Equal(t, "Larder; fwd=bypass; detail=no-identity", s.get("/cart").status())
	require.Equal(t, "Larder; fwd=bypass; detail=skipped", s.get("/cart?skip=1", "X-User: ann").status())
}

// A stored response answers many requests: a change by outer middleware must stay with
// its request.
func TestOuterMiddlewareCannotChangeWhatIsStored(t *testing.T) {
	for _, size := range []int{100, 100_000} {
		cache := newCache(t)
		s := newSite(t)
		body := strings.Repeat("b", size)
		s.Use(func(c *fiber.Ctx) error {
			if err := c.Next(); err != nil {
				return err
			}
			switch c.Get("X-Do") {
			case "change":
				for i := range c.Response().Body() {
					c.Response().Body()[i] = 'z'
				}
			case "append":
				_, _ = c.WriteString("end")
			case "swap":
				c.Response().SwapBody([]byte("swapped"))
			}
			return nil
		})
		s.Get("/", fibercache.Cache(cache, "hour"), func(c *fiber.Ctx) error { return c.SendString(body) })

		require.Equal(t, strings.Repeat("z", size), s.get("/", "X-Do: change").body, "what was stored of the miss is a copy")
		require.Equal(t, body, s.get("/").body)
		require.Equal(t, strings.Repeat("z", size), s.get("/", "X-Do: change").body)
		require.Equal(t, body, s.get("/").body)
		require.Equal(t, body+"end", s.get("/", "X-Do: append").body)
		require.Equal(t, "swapped", s.get("/", "X-Do: swap").body)
		last := s.get("/")
		require.Equal(t, body, last.body)
		require.True(t, last.hit())
	}
}

// The handler's own memory (c.Send does not copy) is not what is stored.
func TestBodyIsCopiedFromTheHandler(t *testing.T) {
	cache := newCache(t)
	s := newSite(t)
	buf := []byte("first")
	s.Get("/", fibercache.Cache(cache, "hour"), func(c *fiber.Ctx) error { return c.Send(buf) })
	require.Equal(t, "first", s.get("/").body)
	copy(buf, "other")
	require.Equal(t, "first", s.get("/").body)
}

func TestErrorsAreFibersToAnswer(t *testing.T) {
	cache := newCache(t)
	plain := errors.New("no database")
	var seen []error
	s := newSite(t, fiber.Config{ErrorHandler: func(c *fiber.Ctx, err error) error {
		seen = append(seen, err)
		return c.Status(599).SendString("handled: " + err.Error())
	}})
	s.Get("/plain", fibercache.Cache(cache, "hour"), func(c *fiber.Ctx) error {
		c.Set("X-Partly", "yes")
		return plain
	})
	teapot := fiber.NewError(418)
	s.Get("/teapot", fibercache.Cache(cache, "hour"), func(*fiber.Ctx) error { return fmt.Errorf("pot: %w", teapot) })

	for range 2 {
		a := s.get("/plain")
		require.Equal(t, 599, a.StatusCode)
		require.Equal(t, "handled: no database", a.body)
		require.Equal(t, "yes", a.Header.Get("X-Partly"))
	}
	require.Same(t, plain, seen[0])
	s.get("/teapot")
	require.ErrorIs(t, seen[2], teapot)
	require.Equal(t, "pot: I'm a teapot", seen[2].Error())
	require.EqualValues(t, 0, cache.Stats().Hits)
}

// The status of a fiber.Error says whether a write may have been committed.
func TestErrorsOfWrites(t *testing.T) {
	cache := newCache(t)
	s := newSite(t)
	s.Get("/p", fibercache.Cache(cache, "hour", "p"), counted())
	var fail error
	s.Put("/other", fibercache.Invalidate(cache, "p"), func(*fiber.Ctx) error {
		s.get("/p") // loaded meanwhile
		return fail
	})
	for _, c := range []struct {
		err    error
		status int
		gone   bool
	}{
		{fiber.ErrNotFound, 404, false},
		{fmt.Errorf("shop: %w", fiber.ErrConflict), 409, false},
		{fiber.ErrBadGateway, 502, true},
		{errors.New("unknown"), 500, true},
		{nil, 200, true},
	} {
		fail = c.err
		require.Equal(t, c.status, s.do("PUT", "/other").StatusCode)
		require.Equal(t, !c.gone, s.get("/p").hit(), "%v", c.err)
	}
}

// A handler may change its request. The identity of what it answers is the
// client's request all the same.
func TestHandlerChangesItsRequest(t *testing.T) {
	cache := newCache(t)
	s := newSite(t)
	s.Get("/p", fibercache.Cache(cache, "hour"), func(c *fiber.Ctx) error {
		lang := strings.Clone(c.Get("Accept-Language"))
		c.Request().Header.Set("Accept-Language", "en")
		c.Request().SetRequestURI("/elsewhere")
		c.Vary("Accept-Language")
		return c.SendString("for " + lang)
	})
	s.Get("/shop/items/:id", fibercache.Cache(cache, "hour"), counted())
	s.All("/shop/items", fibercache.Invalidate(cache, "x"), func(c *fiber.Ctx) error {
		c.Request().SetRequestURI("/else/where")
		_ = c.Request().URI().Path() // the buffers are used again
		c.Location("items/1")
		return c.SendStatus(201)
	})
	for _, lang := range []string{"de", "en", "fr"} {
		require.Equal(t, "for "+lang, s.get("/p", "Accept-Language: "+lang).body)
	}
	for _, lang := range []string{"de", "en", "fr"} {
		a := s.get("/p", "Accept-Language: "+lang)
		require.True(t, a.hit(), lang)
		require.Equal(t, "for "+lang, a.body)
	}

	// Location is relative to the request as it came.
	for _, method := range []string{"POST", "GET"} {
		s.get("/shop/items/1")
		require.True(t, s.get("/shop/items/1").hit())
		require.Equal(t, 201, s.do(method, "/shop/items").StatusCode)
		require.False(t, s.get("/shop/items/1").hit(), method)
	}
}

func TestStaleInPlaceOfAnError(t *testing.T) {
	for name, fail := range map[string]func(c *fiber.Ctx) error{
		"returned":  func(*fiber.Ctx) error { return errors.New("no database") },
		"fiber's":   func(*fiber.Ctx) error { return fiber.NewError(503) },
		"answered":  func(c *fiber.Ctx) error { return c.Status(503).SendString("sorry") },
		"half done": func(c *fiber.Ctx) error { _ = c.SendString("half"); return errors.New("no database") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cache := newCache(t)
				s := newSite(t)
				s.Use(func(c *fiber.Ctx) error { c.Set("X-Outer", c.Get("X-Request")); return c.Next() })
				failing := false
				s.Get("/", fibercache.Cache(cache, "fallback"), func(c *fiber.Ctx) error {
					if failing {
						c.Set("X-Failed", "yes")
						c.Set("X-Outer", "changed")
						c.Cookie(&fiber.Cookie{Name: "a", Value: "b"})
						return fail(c)
					}
					c.Set("X-Good", "yes")
					return c.SendString("good")
				})
				require.Equal(t, "good", s.get("/", "X-Request: 1").body)
				failing = true
				time.Sleep(2 * time.Minute)
				a := s.get("/", "X-Request: 2")
				require.Equal(t, 200, a.StatusCode)
				require.Equal(t, "good", a.body)
				require.Equal(t, "yes", a.Header.Get("X-Good"))
				require.Equal(t, "2", a.Header.Get("X-Outer"))
				require.Empty(t, a.Header.Get("X-Failed"))
				require.Empty(t, a.Header.Get("Set-Cookie"))
				require.EqualValues(t, 4, a.ContentLength)
			})
		})
	}
}

func TestLimit(t *testing.T) {
	cache := newCache(t)
	s := newSite(t)
	s.Get("/:n", fibercache.Cache(cache, "small"), func(c *fiber.Ctx) error {
		n, _ := c.ParamsInt("n")
		return c.SendString(strings.Repeat("x", n))
	})
	for range 2 {
		a := s.get("/101")
		require.Len(t, a.body, 101)
		require.Equal(t, "Larder; fwd=uri-miss; detail=too-large", a.status())
	}
	s.get("/100")
	require.True(t, s.get("/100").hit())
}

func TestContextFunctions(t *testing.T) {
	cache := newCache(t)
	for name, of := range map[string]func(*fiber.Ctx) context.Context{
		"UserContext": (*fiber.Ctx).UserContext,
		"Context":     func(c *fiber.Ctx) context.Context { return c.Context() },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			var outer context.Context
			s.Use(func(c *fiber.Ctx) error {
				before := c.UserContext()
				err := c.Next()
				outer = c.UserContext()
				require.Equal(t, before, outer)
				require.ErrorIs(t, core.NoStore(c.Context()), core.ErrNoScope)
				return err
			})
			s.Get("/tagged/"+name, fibercache.Cache(cache, "hour"), func(c *fiber.Ctx) error {
				require.NoError(t, core.AddTags(of(c), "late"))
				return c.SendString("tagged")
			})
			s.Get("/not/"+name, fibercache.Cache(cache, "hour"), func(c *fiber.Ctx) error {
				return core.NoStore(of(c))
			})
			s.Post("/late/"+name, fibercache.Invalidate(cache, "other"), func(c *fiber.Ctx) error {
				return core.Invalidate(of(c), core.Tag("late"))
			})
			s.get("/tagged/" + name)
			require.True(t, s.get("/tagged/"+name).hit())
			require.Equal(t, "Larder; fwd=uri-miss; detail=handler-said-no-store", s.get("/not/"+name).status())
			require.Equal(t, 200, s.do("POST", "/late/"+name).StatusCode)
			require.False(t, s.get("/tagged/"+name).hit())
		})
	}
}

// app.Test has no client that could be slow or go away; it works as well.
func TestAppTest(t *testing.T) {
	cache := newCache(t)
	s := newSite(t)
	s.Get("/", fibercache.Cache(cache, "hour"), counted())
	for range 3 {
		resp, err := s.Test(httptest.NewRequest("GET", "/", nil), -1)
		require.NoError(t, err)
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.Equal(t, "run 1", string(body))
	}
	require.EqualValues(t, 2, cache.Stats().Hits)
}
