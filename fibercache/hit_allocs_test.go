//go:build !race

package fibercache_test

import (
	"strings"
	"testing"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/stretchr/testify/require"
	"github.com/valyala/fasthttp"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/fibercache"
)

func TestAHitAllocatesNothing(t *testing.T) {
	cache, err := core.New(core.Options{Classes: core.Classes{"hour": {TTL: time.Hour}}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, cache.Close()) })
	for _, config := range []fiber.Config{{}, {ServerHeader: "shop"}, {DisableHeaderNormalizing: true}} {
		config.DisableStartupMessage = true
		app := fiber.New(config)
		app.Get("/p/:id", fibercache.Cache(cache, "hour", "product:{id}", "catalog"), func(c *fiber.Ctx) error {
			for _, name := range []string{"Content-Language", "X-Frame-Options", "Link", "Referrer-Policy", "X-A"} {
				c.Set(name, "a")
			}
			return c.SendString(strings.Repeat("x", 1<<10))
		})
		handler := app.Handler()
		for _, fields := range [][]string{
			nil,
			{"Accept-Encoding", "Accept-Language", "User-Agent", "Sec-Fetch-Mode", "X-Forwarded-For"},
			{"X-Forwarded-Proto", "X-Forwarded-Host"},
		} {
			var c fasthttp.RequestCtx
			c.Request.Header.SetMethod(fiber.MethodGet)
			c.Request.SetRequestURI("/p/1?page=1")
			c.Request.Header.SetHost("shop.example")
			for _, name := range fields {
				c.Request.Header.Set(name, "http")
			}
			handler(&c)
			allocs := testing.AllocsPerRun(1000, func() {
				c.Response.Reset()
				handler(&c)
			})
			require.Contains(t, string(c.Response.Header.Peek("Cache-Status")), "Larder; hit")
			require.Zero(t, allocs, "%+v %v", config, fields)
		}
	}
}
