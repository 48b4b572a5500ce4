package gincache_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/gincache"
)

func Example() {
	cache, err := core.New(core.Options{Classes: core.Classes{"product": {TTL: 5 * time.Minute}}})
	if err != nil {
		panic(err)
	}
	defer cache.Close()

	price := 100
	r := gin.New()
	r.GET("/products/:id", gincache.Cache(cache, "product", "product:{id}", "catalog"), func(c *gin.Context) {
		c.String(http.StatusOK, "product %s costs %d", c.Param("id"), price)
	})
	r.PUT("/products/:id", gincache.Invalidate(cache, "product:{id}", "catalog"), func(c *gin.Context) {
		price += 50
		c.Status(http.StatusNoContent)
	})

	for _, method := range []string{"GET", "GET", "PUT", "GET"} {
		w := httptest.NewRecorder()
		r.ServeHTTP(w, httptest.NewRequest(method, "/products/42", nil))
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

	cart, err := gincache.Route{
		Cache: cache, Class: "cart", Tags: []string{"cart:{identity}"},
		Identity: func(c *gin.Context) (string, bool) {
			user := c.GetString(gin.AuthUserKey) // set by the middleware in front
			return user, user != ""
		},
	}.Middleware()
	if err != nil {
		panic(err)
	}

	r := gin.New()
	r.Use(gin.BasicAuth(gin.Accounts{"ann": "secret", "bob": "secret"}))
	r.GET("/cart", cart, func(c *gin.Context) {
		c.String(http.StatusOK, "the cart of %s", c.GetString(gin.AuthUserKey))
	})
	for _, user := range []string{"ann", "ann", "bob"} {
		q := httptest.NewRequest(http.MethodGet, "/cart", nil)
		q.SetBasicAuth(user, "secret")
		w := httptest.NewRecorder()
		r.ServeHTTP(w, q)
		fmt.Println(w.Body, "|", w.Header().Get("Cache-Status"))
	}
	// Output:
	// the cart of ann | Larder; fwd=uri-miss; stored
	// the cart of ann | Larder; hit; ttl=59
	// the cart of bob | Larder; fwd=uri-miss; stored
}

// authenticate stands for the application's own authentication.
func authenticate(c *gin.Context) {
	user, password, ok := c.Request.BasicAuth()
	if !ok || password != "secret" {
		c.AbortWithStatus(http.StatusUnauthorized)
		return
	}
	c.Set("user", user)
}

func userOf(c *gin.Context) (string, bool) {
	user := c.GetString("user") // that authenticate has set
	return user, user != ""
}

func ExampleCachePerUser() {
	cache, err := core.New(core.Options{Classes: core.Classes{"cart": {TTL: time.Minute}}})
	if err != nil {
		panic(err)
	}
	defer cache.Close()

	items := make(map[string]int)
	show := func(c *gin.Context) {
		user, _ := userOf(c)
		c.String(http.StatusOK, "the cart of %s: %d", user, items[user])
	}
	add := func(c *gin.Context) {
		user, _ := userOf(c)
		items[user]++
		c.Status(http.StatusNoContent)
	}

	r := gin.New()
	r.GET("/cart", authenticate, gincache.CachePerUser(cache, "cart", userOf, "cart:{identity}"), show)
	r.POST("/cart/items", authenticate, gincache.InvalidatePerUser(cache, userOf, "cart:{identity}"), add)
	for _, step := range []string{"GET ann", "GET bob", "POST ann", "GET ann", "GET bob"} {
		method, user, _ := strings.Cut(step, " ")
		path := "/cart"
		if method == "POST" {
			path = "/cart/items"
		}
		q := httptest.NewRequest(method, path, nil)
		q.SetBasicAuth(user, "secret")
		w := httptest.NewRecorder()
		r.ServeHTTP(w, q)
		fmt.Println(step, w.Code, "|", w.Header().Get("Cache-Status"), "|", w.Body.String()+".")
	}
	// Output:
	// GET ann 200 | Larder; fwd=uri-miss; stored | the cart of ann: 0.
	// GET bob 200 | Larder; fwd=uri-miss; stored | the cart of bob: 0.
	// POST ann 204 |  | .
	// GET ann 200 | Larder; fwd=uri-miss; stored | the cart of ann: 1.
	// GET bob 200 | Larder; hit; ttl=59 | the cart of bob: 0.
}
