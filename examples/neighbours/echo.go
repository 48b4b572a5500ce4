package main

import (
	"crypto/rand"
	"net/http"
	"time"

	"github.com/gorilla/sessions"
	"github.com/labstack/echo-contrib/session"
	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"
	"go.opentelemetry.io/contrib/instrumentation/github.com/labstack/echo/otelecho"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/echocache"
)

// echoSite is the shop in Echo.
func echoSite(front, behind []echo.MiddlewareFunc) build {
	return func(s *shop, cache *core.Cache) (string, func(), error) {
		e := echo.New()
		e.HideBanner = true
		e.Use(front...)
		var show, update []echo.MiddlewareFunc
		if cache != nil {
			show = append(show, echocache.Cache(cache, "page", "product:{id}"))
			update = append(update, echocache.Invalidate(cache, "product:{id}"))
		}
		e.GET("/p/:id", func(c echo.Context) error {
			content, ok := s.show(c.Param("id"), c.Request().Header.Get(greetingField))
			if !ok {
				return c.Blob(http.StatusNotFound, "application/json", []byte(content))
			}
			return c.Blob(http.StatusOK, "application/json", []byte(content))
		}, append(show, behind...)...)
		e.PUT("/p/:id", func(c echo.Context) error {
			s.update()
			return c.NoContent(http.StatusNoContent)
		}, append(update, behind...)...)
		return serve(e)
	}
}

func ofEcho(m echo.MiddlewareFunc) func() echo.MiddlewareFunc {
	return func() echo.MiddlewareFunc { return m }
}

func echoNeighbours() []neighbour[echo.MiddlewareFunc] {
	origins := []string{originA, originB}
	return []neighbour[echo.MiddlewareFunc]{
		{name: "Gzip", use: ofEcho(middleware.Gzip())},
		{name: "CORS", use: ofEcho(middleware.CORSWithConfig(middleware.CORSConfig{AllowOrigins: origins}))},
		{name: "CSRF", use: ofEcho(middleware.CSRFWithConfig(middleware.CSRFConfig{Skipper: func(c echo.Context) bool { return c.Request().Method == http.MethodPut }})), front: uncachedBy("set-cookie"), behind: uncachedBy("set-cookie")},
		{name: "echo-contrib/session", use: ofEcho(sessionsOfEcho)},
		{name: "Secure", use: ofEcho(middleware.Secure())},
		{name: "RequestID", use: ofEcho(middleware.RequestID()), behind: differing("X-Request-Id of another visitor", frozen)},
		{name: "Recover", use: ofEcho(middleware.Recover())},
		{name: "RequestLogger", use: ofEcho(middleware.RequestLoggerWithConfig(middleware.RequestLoggerConfig{
			LogStatus: true, LogResponseSize: true,
			LogValuesFunc: func(echo.Context, middleware.RequestLoggerValues) error { return nil },
		}))},
		{name: "BodyLimit", use: ofEcho(middleware.BodyLimit("1M"))},
		{name: "BodyDump", use: ofEcho(middleware.BodyDump(func(echo.Context, []byte, []byte) {}))},
		{name: "ContextTimeout", use: ofEcho(middleware.ContextTimeout(time.Minute))},
		{name: "RateLimiter", use: func() echo.MiddlewareFunc {
			return middleware.RateLimiter(middleware.NewRateLimiterMemoryStore(1000))
		}},
		{name: "MethodOverride", use: ofEcho(middleware.MethodOverride()), only: front},
		{name: "otelecho", use: ofEcho(otelecho.Middleware("shop"))},
		{name: "a Before hook that sets a field", use: ofEcho(beforeHook)},
	}
}

func sessionsOfEcho(next echo.HandlerFunc) echo.HandlerFunc {
	use := session.Middleware(sessions.NewCookieStore([]byte("a key of thirty-two bytes, or so")))
	return use(func(c echo.Context) error {
		if c.Request().URL.RawQuery == "v" {
			sess, err := session.Get("shop", c)
			if err != nil {
				return err
			}
			if sess.IsNew {
				sess.Values["greeting"] = rand.Text()
				if err := sess.Save(c.Request(), c.Response()); err != nil {
					return err
				}
			}
			c.Request().Header.Set(greetingField, sess.Values["greeting"].(string))
		}
		return next(c)
	})
}

func beforeHook(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		c.Response().Before(func() { c.Response().Header().Set("X-Before", "set") })
		return next(c)
	}
}
