package main

import (
	"github.com/gofiber/fiber/v2"
	cachev2 "github.com/gofiber/fiber/v2/middleware/cache"
	fiberv3 "github.com/gofiber/fiber/v3"
	cachev3 "github.com/gofiber/fiber/v3/middleware/cache"

	"github.com/larderhq/larder/fibercache"
)

// stored is the setting of both of Fiber's caches beyond their READMEs.
const stored = "StoreResponseHeaders, without which it drops the handler's fields"

func fiberV2() framework {
	return framework{
		name: "Fiber v2",
		larder: func(s *site) (app, error) {
			return fiberV2App(s, fibercache.Cache(s.cache, "product", "product:{id}", "catalog")), nil
		},
		bare: func(s *site) (app, error) { return fiberV2App(s), nil },
		peers: []peer{{"Fiber v2's own", "github.com/gofiber/fiber/v2", stored, func(s *site) (app, error) {
			return fiberV2App(s, cachev2.New(cachev2.Config{Expiration: ttl, StoreResponseHeaders: true})), nil
		}}},
	}
}

func fiberV2App(s *site, cached ...fiber.Handler) app {
	a := fiber.New(fiber.Config{DisableStartupMessage: true})
	a.Get("/p/:id", append(cached[:len(cached):len(cached)], func(c *fiber.Ctx) error {
		s.runs.Add(1)
		h := &c.Response().Header
		for _, f := range s.fields {
			h.Set(f[0], f[1])
		}
		return c.Send(s.body)
	})...)
	a.Get("/probe/:id", append(cached[:len(cached):len(cached)], func(c *fiber.Ctx) error {
		p := s.probed(c.Params("id"), string(c.Request().URI().QueryString()), c.Get("Accept-Language"))
		for _, f := range p.fields {
			c.Response().Header.Add(f[0], f[1])
		}
		return c.Status(p.status).SendString(p.body)
	})...)
	return fastApp{a.Handler(), a.Server()}
}

// fiberV3 has no adapter of Larder: "same" is its bare handler.
func fiberV3() framework {
	return framework{
		name: "Fiber v3",
		bare: func(s *site) (app, error) { return fiberV3App(s), nil },
		peers: []peer{{"Fiber v3's own", "github.com/gofiber/fiber/v3", stored, func(s *site) (app, error) {
			return fiberV3App(s, cachev3.New(cachev3.Config{Expiration: ttl, StoreResponseHeaders: true})), nil
		}}},
	}
}

func fiberV3App(s *site, cached ...any) app {
	a := fiberv3.New()
	page := func(c fiberv3.Ctx) error {
		s.runs.Add(1)
		h := &c.Response().Header
		for _, f := range s.fields {
			h.Set(f[0], f[1])
		}
		return c.Send(s.body)
	}
	probe := func(c fiberv3.Ctx) error {
		p := s.probed(c.Params("id"), string(c.Request().URI().QueryString()), c.Get("Accept-Language"))
		for _, f := range p.fields {
			c.Response().Header.Add(f[0], f[1])
		}
		return c.Status(p.status).SendString(p.body)
	}
	for path, h := range map[string]any{"/p/:id": page, "/probe/:id": probe} {
		all := append(cached[:len(cached):len(cached)], h)
		a.Get(path, all[0], all[1:]...)
	}
	return fastApp{a.Handler(), a.Server()}
}
