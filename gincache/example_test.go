package gincache_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
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
		Cache: cache, Class: "cart", Tags: []string{"cart:{user}"},
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
	r.GET("/carts/:user", cart, func(c *gin.Context) {
		c.String(http.StatusOK, "the cart of %s", c.GetString(gin.AuthUserKey))
	})
	for _, user := range []string{"ann", "ann", "bob"} {
		q := httptest.NewRequest(http.MethodGet, "/carts/mine", nil)
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
