package echo5_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/labstack/echo/v5"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/echocache/echo5"
)

func Example() {
	cache, err := core.New(core.Options{Classes: core.Classes{"product": {TTL: 5 * time.Minute}}})
	if err != nil {
		panic(err)
	}
	defer cache.Close()

	price := 100
	e := echo.New()
	e.GET("/products/:id", func(c *echo.Context) error {
		return c.String(http.StatusOK, fmt.Sprintf("product %s costs %d", c.Param("id"), price))
	}, echo5.Cache(cache, "product", "product:{id}", "catalog"))
	e.PUT("/products/:id", func(c *echo.Context) error {
		price += 50
		return c.NoContent(http.StatusNoContent)
	}, echo5.Invalidate(cache, "product:{id}", "catalog"))

	for _, method := range []string{"GET", "GET", "PUT", "GET"} {
		w := httptest.NewRecorder()
		e.ServeHTTP(w, httptest.NewRequest(method, "/products/42", nil))
		fmt.Println(method, w.Code, "|", w.Header().Get("Cache-Status"), "|", w.Body.String()+".")
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

	cart, err := echo5.Route{
		Cache: cache, Class: "cart", Tags: []string{"cart:{identity}"},
		Identity: func(c *echo.Context) (string, bool) {
			user, ok := c.Get("user").(string) // set by the middleware in front
			return user, ok
		},
	}.Middleware()
	if err != nil {
		panic(err)
	}

	e := echo.New()
	e.Use(func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c *echo.Context) error {
			if user, _, ok := c.Request().BasicAuth(); ok {
				c.Set("user", user)
			}
			return next(c)
		}
	})
	e.GET("/cart", func(c *echo.Context) error {
		return c.String(http.StatusOK, fmt.Sprint("the cart of ", c.Get("user")))
	}, cart)
	for _, user := range []string{"ann", "ann", "bob"} {
		r := httptest.NewRequest(http.MethodGet, "/cart", nil)
		r.SetBasicAuth(user, "secret")
		w := httptest.NewRecorder()
		e.ServeHTTP(w, r)
		fmt.Println(w.Body, "|", w.Header().Get("Cache-Status"))
	}
	// Output:
	// the cart of ann | Larder; fwd=uri-miss; stored
	// the cart of ann | Larder; hit; ttl=59
	// the cart of bob | Larder; fwd=uri-miss; stored
}

// authenticate stands for the application's own authentication.
func authenticate(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c *echo.Context) error {
		user, password, ok := c.Request().BasicAuth()
		if !ok || password != "secret" {
			return echo.ErrUnauthorized
		}
		c.Set("user", user)
		return next(c)
	}
}

func userOf(c *echo.Context) (string, bool) {
	user, ok := c.Get("user").(string) // that authenticate has set
	return user, ok
}

func ExampleCachePerUser() {
	cache, err := core.New(core.Options{Classes: core.Classes{"cart": {TTL: time.Minute}}})
	if err != nil {
		panic(err)
	}
	defer cache.Close()

	items := make(map[string]int)
	show := func(c *echo.Context) error {
		user, _ := userOf(c)
		return c.String(http.StatusOK, fmt.Sprintf("the cart of %s: %d", user, items[user]))
	}
	add := func(c *echo.Context) error {
		user, _ := userOf(c)
		items[user]++
		return c.NoContent(http.StatusNoContent)
	}

	e := echo.New()
	e.GET("/cart", show, authenticate, echo5.CachePerUser(cache, "cart", userOf, "cart:{identity}"))
	e.POST("/cart/items", add, authenticate, echo5.InvalidatePerUser(cache, userOf, "cart:{identity}"))
	for _, step := range []string{"GET ann", "GET bob", "POST ann", "GET ann", "GET bob"} {
		method, user, _ := strings.Cut(step, " ")
		path := "/cart"
		if method == "POST" {
			path = "/cart/items"
		}
		r := httptest.NewRequest(method, path, nil)
		r.SetBasicAuth(user, "secret")
		w := httptest.NewRecorder()
		e.ServeHTTP(w, r)
		fmt.Println(step, w.Code, "|", w.Header().Get("Cache-Status"), "|", w.Body.String()+".")
	}
	// Output:
	// GET ann 200 | Larder; fwd=uri-miss; stored | the cart of ann: 0.
	// GET bob 200 | Larder; fwd=uri-miss; stored | the cart of bob: 0.
	// POST ann 204 |  | .
	// GET ann 200 | Larder; fwd=uri-miss; stored | the cart of ann: 1.
	// GET bob 200 | Larder; hit; ttl=59 | the cart of bob: 0.
}
