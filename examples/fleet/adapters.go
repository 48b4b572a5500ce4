package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/gofiber/fiber/v2"
	"github.com/labstack/echo/v4"

	"github.com/larderhq/larder/echocache"
	"github.com/larderhq/larder/fibercache"
	"github.com/larderhq/larder/gincache"
	"github.com/larderhq/larder/nethttp"
)

// adapters are the frameworks that shops are served with, by turns.
var adapters = []string{"nethttp", "echo", "gin", "fiber"}

func newServer(adapter string, s *shop) (server, error) {
	switch adapter {
	case "nethttp":
		return newNetHTTP(s), nil
	case "echo":
		return newEcho(s), nil
	case "gin":
		return newGin(s), nil
	case "fiber":
		return newFiber(s), nil
	default:
		return nil, fmt.Errorf("adapter %q", adapter)
	}
}

const readHeaderTimeout = 5 * time.Second

func newNetHTTP(s *shop) server {
	mux := http.NewServeMux()
	mux.Handle("GET /products/{id}", nethttp.Cache(s.cache, "page", "product:{id}")(stdHandler(s.product)))
	mux.Handle("GET /shelves/{id}", nethttp.Cache(s.cache, "page")(stdHandler(s.shelf)))
	mux.Handle("GET /data/{id}", stdHandler(s.product))
	mux.Handle("PUT /products/{id}", nethttp.Invalidate(s.cache, "product:{id}")(stdHandler(s.update)))
	mux.HandleFunc("GET /larder", func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(s.cache.Stats()) })
	return &http.Server{Handler: mux, ReadHeaderTimeout: readHeaderTimeout}
}

func stdHandler[T any](do func(context.Context, string) (T, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v, err := do(r.Context(), r.PathValue("id"))
		if err != nil {
			http.Error(w, err.Error(), statusOf(err))
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v) // an error here is a client that has gone
	})
}

func newEcho(s *shop) server {
	e := echo.New()
	e.GET("/products/:id", echoHandler(s.product), echocache.Cache(s.cache, "page", "product:{id}"))
	e.GET("/shelves/:id", echoHandler(s.shelf), echocache.Cache(s.cache, "page"))
	e.GET("/data/:id", echoHandler(s.product))
	e.PUT("/products/:id", echoHandler(s.update), echocache.Invalidate(s.cache, "product:{id}"))
	e.GET("/larder", func(c echo.Context) error { return c.JSON(http.StatusOK, s.cache.Stats()) })
	return &http.Server{Handler: e, ReadHeaderTimeout: readHeaderTimeout}
}

func echoHandler[T any](do func(context.Context, string) (T, error)) echo.HandlerFunc {
	return func(c echo.Context) error {
		v, err := do(c.Request().Context(), c.Param("id"))
		if err != nil {
			return echo.NewHTTPError(statusOf(err), err.Error())
		}
		return c.JSON(http.StatusOK, v)
	}
}

func newGin(s *shop) server {
	gin.SetMode(gin.ReleaseMode) // no list of the routes on standard output
	r := gin.New()
	r.GET("/products/:id", gincache.Cache(s.cache, "page", "product:{id}"), ginHandler(s.product))
	r.GET("/shelves/:id", gincache.Cache(s.cache, "page"), ginHandler(s.shelf))
	r.GET("/data/:id", ginHandler(s.product))
	r.PUT("/products/:id", gincache.Invalidate(s.cache, "product:{id}"), ginHandler(s.update))
	r.GET("/larder", func(c *gin.Context) { c.JSON(http.StatusOK, s.cache.Stats()) })
	return &http.Server{Handler: r, ReadHeaderTimeout: readHeaderTimeout}
}

func ginHandler[T any](do func(context.Context, string) (T, error)) gin.HandlerFunc {
	return func(c *gin.Context) {
		v, err := do(c.Request.Context(), c.Param("id"))
		if err != nil {
			c.String(statusOf(err), err.Error())
			return
		}
		c.JSON(http.StatusOK, v)
	}
}

func newFiber(s *shop) server {
	app := fiber.New(fiber.Config{
		DisableStartupMessage: true,
		ReadTimeout:           readHeaderTimeout,
		IdleTimeout:           2 * time.Minute, // clients close idle connections sooner
	})
	app.Get("/products/:id", fibercache.Cache(s.cache, "page", "product:{id}"), fiberHandler(s.product))
	app.Get("/shelves/:id", fibercache.Cache(s.cache, "page"), fiberHandler(s.shelf))
	app.Get("/data/:id", fiberHandler(s.product))
	app.Put("/products/:id", fibercache.Invalidate(s.cache, "product:{id}"), fiberHandler(s.update))
	app.Get("/larder", func(c *fiber.Ctx) error { return c.JSON(s.cache.Stats()) })
	return fiberServer{app}
}

func fiberHandler[T any](do func(context.Context, string) (T, error)) fiber.Handler {
	return func(c *fiber.Ctx) error {
		v, err := do(c.UserContext(), c.Params("id"))
		if err != nil {
			return fiber.NewError(statusOf(err), err.Error())
		}
		return c.JSON(v)
	}
}

// fiberServer gives Fiber the method names of http.Server.
type fiberServer struct{ app *fiber.App }

func (s fiberServer) Serve(l net.Listener) error         { return s.app.Listener(l) }
func (s fiberServer) Shutdown(ctx context.Context) error { return s.app.ShutdownWithContext(ctx) }
