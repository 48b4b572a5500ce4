package main

import (
	"net"
	"strings"

	"github.com/gofiber/fiber/v2"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/fibercache"
)

func newFiber(cache *core.Cache, routes []route) server {
	app := fiber.New(fiber.Config{DisableStartupMessage: true})
	for _, rt := range routes {
		handle := func(c *fiber.Ctx) error {
			// Fiber reuses what Params and Get return.
			a := rt.handle(c.UserContext(), strings.Clone(c.Params("id")), strings.Clone(c.Get(fieldPause)))
			for name, value := range a.fields() {
				c.Set(name, value)
			}
			return c.Status(a.status).SendString(a.body)
		}
		var chain []fiber.Handler
		if rt.cached != nil {
			chain = append(chain, fibercache.Cache(cache, class, rt.cached...))
		} else if rt.invalidated != nil {
			chain = append(chain, fibercache.Invalidate(cache, rt.invalidated...))
		}
		app.Add(rt.method, colons(rt.pattern), append(chain, handle)...)
	}
	return fiberServer{app}
}

// fiberServer gives Fiber the method of http.Server.
type fiberServer struct{ app *fiber.App }

func (s fiberServer) Serve(l net.Listener) error { return s.app.Listener(l) }
