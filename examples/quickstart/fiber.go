package main

import (
	"bufio"
	"bytes"
	"context"
	"net"
	"net/http"
	"time"

	"github.com/gofiber/fiber/v2"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/fibercache"
)

func newFiber(shop *Shop, cache *core.Cache) Server {
	fail := func(err error) error {
		status, text := failure(err)
		return fiber.NewError(status, text)
	}
	list := func(c *fiber.Ctx) error {
		catalog, err := shop.Catalog(c.UserContext())
		if err != nil {
			return fail(err)
		}
		return c.JSON(catalog)
	}
	show := func(c *fiber.Ctx) error {
		product, err := shop.Product(c.UserContext(), c.Params("id"))
		if err != nil {
			return fail(err)
		}
		return c.JSON(product)
	}
	update := func(c *fiber.Ctx) error {
		if err := shop.SetPrice(c.UserContext(), c.Params("id"), bytes.NewReader(c.Body())); err != nil {
			return fail(err)
		}
		return c.SendStatus(http.StatusNoContent)
	}
	stream := func(c *fiber.Ctx) error {
		c.Set(fiber.HeaderContentType, "text/event-stream")
		ctx := c.UserContext() // Fiber reuses c before the stream has ended
		c.Context().SetBodyStreamWriter(func(w *bufio.Writer) {
			// An error means that the client has left.
			_ = shop.Stream(ctx, w, w.Flush)
		})
		return nil
	}

	app := fiber.New(fiber.Config{
		DisableStartupMessage: true,
		ReadTimeout:           30 * time.Second, // also how long Shutdown may wait for an idle connection
	})
	app.Get("/products", fibercache.Cache(cache, "list", "catalog"), list)
	app.Get("/products/:id", fibercache.Cache(cache, "product", "product:{id}"), show)
	app.Put("/products/:id", fibercache.Invalidate(cache, "product:{id}", "catalog"), update)
	app.Get("/stream", fibercache.Cache(cache, "list", "catalog"), stream)
	return fiberServer{app}
}

// fiberServer gives Fiber the method names of http.Server.
type fiberServer struct{ app *fiber.App }

func (s fiberServer) Serve(l net.Listener) error         { return s.app.Listener(l) }
func (s fiberServer) Shutdown(ctx context.Context) error { return s.app.ShutdownWithContext(ctx) }
