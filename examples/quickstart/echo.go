package main

import (
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/echocache"
)

func newEcho(shop *Shop, cache *core.Cache) Server {
	fail := func(err error) error {
		status, text := failure(err)
		return echo.NewHTTPError(status, text)
	}
	list := func(c echo.Context) error {
		catalog, err := shop.Catalog(c.Request().Context())
		if err != nil {
			return fail(err)
		}
		return c.JSON(http.StatusOK, catalog)
	}
	show := func(c echo.Context) error {
		product, err := shop.Product(c.Request().Context(), c.Param("id"))
		if err != nil {
			return fail(err)
		}
		return c.JSON(http.StatusOK, product)
	}
	update := func(c echo.Context) error {
		if err := shop.SetPrice(c.Request().Context(), c.Param("id"), c.Request().Body); err != nil {
			return fail(err)
		}
		return c.NoContent(http.StatusNoContent)
	}
	stream := func(c echo.Context) error {
		c.Response().Header().Set(echo.HeaderContentType, "text/event-stream")
		return shop.Stream(c.Request().Context(), c.Response(), http.NewResponseController(c.Response()).Flush)
	}

	e := echo.New()
	e.GET("/products", list, echocache.Cache(cache, "list", "catalog"))
	e.GET("/products/:id", show, echocache.Cache(cache, "product", "product:{id}"))
	e.PUT("/products/:id", update, echocache.Invalidate(cache, "product:{id}", "catalog"))
	e.GET("/stream", stream, echocache.Cache(cache, "list", "catalog"))
	return &http.Server{Handler: e, ReadHeaderTimeout: 5 * time.Second}
}
