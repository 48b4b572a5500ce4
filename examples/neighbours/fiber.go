package main

import (
	"crypto/rand"
	"io"
	"net"
	"strings"
	"time"

	"github.com/gofiber/contrib/otelfiber/v2"
	"github.com/gofiber/fiber/v2"
	"github.com/gofiber/fiber/v2/middleware/compress"
	"github.com/gofiber/fiber/v2/middleware/cors"
	"github.com/gofiber/fiber/v2/middleware/csrf"
	"github.com/gofiber/fiber/v2/middleware/earlydata"
	"github.com/gofiber/fiber/v2/middleware/encryptcookie"
	"github.com/gofiber/fiber/v2/middleware/etag"
	"github.com/gofiber/fiber/v2/middleware/favicon"
	"github.com/gofiber/fiber/v2/middleware/helmet"
	"github.com/gofiber/fiber/v2/middleware/idempotency"
	"github.com/gofiber/fiber/v2/middleware/limiter"
	"github.com/gofiber/fiber/v2/middleware/logger"
	"github.com/gofiber/fiber/v2/middleware/recover"
	"github.com/gofiber/fiber/v2/middleware/requestid"
	"github.com/gofiber/fiber/v2/middleware/session"
	"github.com/gofiber/fiber/v2/middleware/timeout"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/fibercache"
)

// fiberSite is the shop in Fiber.
func fiberSite(front, behind []fiber.Handler) build {
	return func(s *shop, cache *core.Cache) (string, func(), error) {
		app := fiber.New(fiber.Config{DisableStartupMessage: true})
		for _, m := range front {
			app.Use(m)
		}
		var show, update []fiber.Handler
		if cache != nil {
			show = append(show, fibercache.Cache(cache, "page", "product:{id}"))
			update = append(update, fibercache.Invalidate(cache, "product:{id}"))
		}
		show = append(append(show, behind...), func(c *fiber.Ctx) error {
			content, ok := s.show(c.Params("id"), c.Get(greetingField))
			if !ok {
				c.Status(fiber.StatusNotFound)
			}
			c.Set(fiber.HeaderContentType, "application/json")
			return c.SendString(content)
		})
		update = append(append(update, behind...), func(c *fiber.Ctx) error {
			s.update()
			return c.SendStatus(fiber.StatusNoContent)
		})
		app.Get("/p/:id", show...)
		app.Put("/p/:id", update...)
		return serveFiber(app)
	}
}

func serveFiber(app *fiber.App) (string, func(), error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = app.Listener(l) }()
	return "http://" + l.Addr().String(), func() {
		_ = app.ShutdownWithTimeout(5 * time.Second)
		<-done
	}, nil
}

func ofFiber(m fiber.Handler) func() fiber.Handler { return func() fiber.Handler { return m } }

func fiberNeighbours() []neighbour[fiber.Handler] {
	return []neighbour[fiber.Handler]{
		{name: "compress", use: ofFiber(compress.New()), front: differing("Vary lost", varyOfAnswer)},
		{name: "cors", use: ofFiber(cors.New(cors.Config{AllowOrigins: strings.Join([]string{originA, originB}, ",")}))},
		{name: "csrf", use: func() fiber.Handler {
			return csrf.New(csrf.Config{Next: func(c *fiber.Ctx) bool { return c.Method() == fiber.MethodPut }})
		}, front: uncachedBy("set-cookie"), behind: uncachedBy("set-cookie")},
		{name: "etag", use: ofFiber(etag.New()), front: differing("Content-Type lost", without304, "Etag changed", ownETag), behind: differing("Content-Type lost", without304)},
		{name: "etag, weak", use: ofFiber(etag.New(etag.Config{Weak: true})), front: differing("Content-Type lost", without304, "Etag changed", ownETag), behind: differing("Content-Type lost", without304)},
		{name: "session", use: sessionsOfFiber},
		{name: "encryptcookie", use: ofFiber(encryptcookie.New(encryptcookie.Config{Key: encryptcookie.GenerateKey()}))},
		{name: "helmet", use: ofFiber(helmet.New())},
		{name: "idempotency", use: func() fiber.Handler { return idempotency.New() }},
		{name: "limiter", use: func() fiber.Handler { return limiter.New(limiter.Config{Max: 1000, Expiration: time.Hour}) }, behind: differing("X-Ratelimit-Remaining of another visitor", frozen)},
		{name: "logger", use: func() fiber.Handler { return logger.New(logger.Config{Output: io.Discard}) }},
		{name: "recover", use: ofFiber(recover.New())},
		{name: "requestid", use: ofFiber(requestid.New()), behind: differing("X-Request-Id of another visitor", frozen)},
		{name: "timeout", use: ofFiber(timeout.NewWithContext(func(c *fiber.Ctx) error { return c.Next() }, time.Minute))},
		{name: "earlydata", use: ofFiber(earlydata.New())},
		{name: "favicon", use: ofFiber(favicon.New()), only: front},
		{name: "otelfiber", use: func() fiber.Handler { return otelfiber.Middleware() }},
	}
}

func sessionsOfFiber() fiber.Handler {
	store := session.New()
	return func(c *fiber.Ctx) error {
		if string(c.Request().URI().QueryString()) != "v" {
			return c.Next()
		}
		sess, err := store.Get(c)
		if err != nil {
			return err
		}
		greeting, ok := sess.Get("greeting").(string)
		if !ok {
			greeting = rand.Text()
			sess.Set("greeting", greeting)
			if err := sess.Save(); err != nil {
				return err
			}
		}
		c.Request().Header.Set(greetingField, greeting)
		return c.Next()
	}
}
