package fibercache_test

import (
	"fmt"
	"io"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/gofiber/fiber/v2/utils"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/fibercache"
)

func Example() {
	price := 100
	show := func(c *fiber.Ctx) error {
		return c.SendString(fmt.Sprintf("product %s costs %d", c.Params("id"), price))
	}
	update := func(c *fiber.Ctx) error {
		price += 50
		return c.SendStatus(fiber.StatusNoContent)
	}

	cache, err := core.New(core.Options{
		Classes: core.Classes{
			"product": {TTL: 5 * time.Minute, StaleWhileRevalidate: time.Minute},
		},
	})
	if err != nil {
		panic(err)
	}
	defer cache.Close()

	app := fiber.New()
	app.Get("/products/:id", fibercache.Cache(cache, "product", "product:{id}", "catalog"), show)
	app.Put("/products/:id", fibercache.Invalidate(cache, "product:{id}", "catalog"), update)

	for _, method := range []string{"GET", "GET", "PUT", "GET"} {
		resp, err := app.Test(httptest.NewRequest(method, "/products/42", nil), -1)
		if err != nil {
			panic(err)
		}
		body, _ := io.ReadAll(resp.Body)
		fmt.Println(method, resp.StatusCode, "|", resp.Header.Get("Cache-Status"), "|", string(body)+".")
	}
	// Output:
	// GET 200 | Larder; fwd=uri-miss; stored | product 42 costs 100.
	// GET 200 | Larder; hit; ttl=299 | product 42 costs 100.
	// PUT 204 |  | .
	// GET 200 | Larder; fwd=uri-miss; stored | product 42 costs 150.
}

func ExampleRoute() {
	cache, err := core.New(core.Options{Classes: core.Classes{"cart": {TTL: time.Minute}}})
	if err != nil {
		panic(err)
	}
	defer cache.Close()

	cart, err := fibercache.Route{
		Cache: cache, Class: "cart", Tags: []string{"cart:{identity}"},
		Identity: func(c *fiber.Ctx) (string, bool) {
			user, ok := c.Locals("user").(string) // set by the middleware in front
			return user, ok
		},
		Skip: func(c *fiber.Ctx) bool { return c.Query("preview") != "" },
	}.Middleware()
	if err != nil {
		panic(err)
	}

	app := fiber.New()
	app.Use(func(c *fiber.Ctx) error {
		c.Locals("user", c.Get("X-User"))
		return c.Next()
	})
	app.Get("/cart", cart, func(c *fiber.Ctx) error {
		return c.SendString("the cart of " + c.Locals("user").(string))
	})
	for _, user := range []string{"ann", "ann", "bob"} {
		r := httptest.NewRequest("GET", "/cart", nil)
		r.Header.Set("X-User", user)
		resp, err := app.Test(r, -1)
		if err != nil {
			panic(err)
		}
		body, _ := io.ReadAll(resp.Body)
		fmt.Println(string(body), "|", resp.Header.Get("Cache-Status"))
	}
	// Output:
	// the cart of ann | Larder; fwd=uri-miss; stored
	// the cart of ann | Larder; hit; ttl=59
	// the cart of bob | Larder; fwd=uri-miss; stored
}

// authenticate stands for the application's own authentication.
func authenticate(c *fiber.Ctx) error {
	user := c.Get("X-User")
	if user == "" {
		return fiber.ErrUnauthorized
	}
	c.Locals("user", utils.CopyString(user))
	return c.Next()
}

func userOf(c *fiber.Ctx) (string, bool) {
	user, ok := c.Locals("user").(string) // that authenticate has set
	return user, ok
}

func ExampleCachePerUser() {
	cache, err := core.New(core.Options{Classes: core.Classes{"cart": {TTL: time.Minute}}})
	if err != nil {
		panic(err)
	}
	defer cache.Close()

	items := make(map[string]int)
	show := func(c *fiber.Ctx) error {
		user, _ := userOf(c)
		return c.SendString(fmt.Sprintf("the cart of %s: %d", user, items[user]))
	}
	add := func(c *fiber.Ctx) error {
		user, _ := userOf(c)
		items[user]++
		return c.SendStatus(fiber.StatusNoContent)
	}

	app := fiber.New()
	app.Get("/cart", authenticate, fibercache.CachePerUser(cache, "cart", userOf, "cart:{identity}"), show)
	app.Post("/cart/items", authenticate, fibercache.InvalidatePerUser(cache, userOf, "cart:{identity}"), add)
	for _, step := range []string{"GET ann", "GET bob", "POST ann", "GET ann", "GET bob"} {
		method, user, _ := strings.Cut(step, " ")
		path := "/cart"
		if method == "POST" {
			path = "/cart/items"
		}
		r := httptest.NewRequest(method, path, nil)
		r.Header.Set("X-User", user)
		resp, err := app.Test(r, -1)
		if err != nil {
			panic(err)
		}
		body, _ := io.ReadAll(resp.Body)
		fmt.Println(step, resp.StatusCode, "|", resp.Header.Get("Cache-Status"), "|", string(body)+".")
	}
	// Output:
	// GET ann 200 | Larder; fwd=uri-miss; stored | the cart of ann: 0.
	// GET bob 200 | Larder; fwd=uri-miss; stored | the cart of bob: 0.
	// POST ann 204 |  | .
	// GET ann 200 | Larder; fwd=uri-miss; stored | the cart of ann: 1.
	// GET bob 200 | Larder; hit; ttl=59 | the cart of bob: 0.
}
