package fibercache_test

import (
	"sync"
	"testing"

	"github.com/gofiber/fiber/v2"
	"github.com/stretchr/testify/require"
	"github.com/valyala/fasthttp"

	"github.com/larderhq/larder/fibercache"
)

// A route keeps the headers of its most frequent answers. They are copied for each answer,
// and each app, and each name of a server, has its own.
func TestEditsOfAFrequentHitStayItsOwn(t *testing.T) {
	// given: one middleware in apps that differ
	cache := newCache(t)
	middleware := fibercache.Cache(cache, "hour")
	apps := make([]fasthttp.RequestHandler, 0, 2)
	for _, config := range []fiber.Config{{}, {DisableHeaderNormalizing: true}} {
		config.DisableStartupMessage = true
		app := fiber.New(config)
		app.Get("/", middleware, func(c *fiber.Ctx) error {
			c.Set("X-Own", "own")
			return c.SendString("text")
		})
		apps = append(apps, app.Handler())
	}
	ask := func(app int, server string, edit bool) map[string]string {
		var c fasthttp.RequestCtx
		c.Request.Header.SetMethod(fiber.MethodGet)
		c.Request.Header.SetRequestURI("/")
		c.Request.Header.SetHost("shop.example")
		c.Response.Header.SetServer(server)
		later := "X-Later"
		if app == 1 { // as the server does
			c.Request.Header.DisableNormalizing()
			c.Response.Header.DisableNormalizing()
			later = "x-later"
		}
		apps[app](&c)
		c.Response.Header.Set("x-later", "1")
		fields := map[string]string{}
		c.Response.Header.VisitAll(func(key, value []byte) { fields[string(key)] = string(value) })
		if edit {
			for _, name := range []string{"X-Own", "Etag", "Date", "Cache-Control"} {
				for i, v := 0, c.Response.Header.Peek(name); i < len(v); i++ {
					v[i] = 'z'
				}
			}
		}
		if fields[later] != "1" {
			t.Errorf("no field %s in %v", later, fields)
		}
		delete(fields, later)
		delete(fields, "Age")
		delete(fields, "Cache-Status")
		return fields
	}
	ask(0, "one", false) // a miss
	want := ask(0, "one", false)
	require.Equal(t, "own", want["X-Own"])
	// when: concurrent hits edit the headers that they were given
	var all sync.WaitGroup
	for worker := range 4 {
		all.Go(func() {
			for range 50 {
				for _, server := range []string{"one", "two"} {
					for app := range apps {
						fields := ask(app, server, worker%2 == 0)
						// then: each is as the first, under its own server's name
						if fields["Server"] != server {
							t.Errorf("Server: %q in place of %q", fields["Server"], server)
						}
						fields["Server"] = "one"
						if len(fields) != len(want) {
							t.Errorf("fields: %v", fields)
						}
						for name, value := range want {
							if fields[name] != value {
								t.Errorf("%s: %q in place of %q", name, fields[name], value)
							}
						}
					}
				}
			}
		})
	}
	all.Wait()
}
