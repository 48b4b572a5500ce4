package main

import (
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/gincache"
)

func newGin(shop *Shop, cache *core.Cache) Server {
	fail := func(c *gin.Context, err error) {
		status, text := failure(err)
		c.JSON(status, gin.H{"message": text})
	}
	list := func(c *gin.Context) {
		catalog, err := shop.Catalog(c.Request.Context())
		if err != nil {
			fail(c, err)
			return
		}
		c.JSON(http.StatusOK, catalog)
	}
	show := func(c *gin.Context) {
		product, err := shop.Product(c.Request.Context(), c.Param("id"))
		if err != nil {
			fail(c, err)
			return
		}
		c.JSON(http.StatusOK, product)
	}
	update := func(c *gin.Context) {
		if err := shop.SetPrice(c.Request.Context(), c.Param("id"), c.Request.Body); err != nil {
			fail(c, err)
			return
		}
		c.Status(http.StatusNoContent)
	}
	stream := func(c *gin.Context) {
		c.Header("Content-Type", "text/event-stream")
		// An error means that the client has left.
		_ = shop.Stream(c.Request.Context(), c.Writer, func() error {
			c.Writer.Flush()
			return nil
		})
	}

	gin.SetMode(gin.ReleaseMode) // no list of the routes on standard output
	r := gin.New()
	r.GET("/products", gincache.Cache(cache, "list", "catalog"), list)
	r.GET("/products/:id", gincache.Cache(cache, "product", "product:{id}"), show)
	r.PUT("/products/:id", gincache.Invalidate(cache, "product:{id}", "catalog"), update)
	r.GET("/stream", gincache.Cache(cache, "list", "catalog"), stream)
	return &http.Server{Handler: r, ReadHeaderTimeout: 5 * time.Second}
}
