package main

import (
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/echocache"
)

func newEcho(cache *core.Cache, routes []route) server {
	e := echo.New()
	for _, rt := range routes {
		handle := func(c echo.Context) error {
			a := rt.handle(c.Request().Context(), c.Param("id"), c.Request().Header.Get(fieldPause))
			for name, value := range a.fields() {
				c.Response().Header().Set(name, value)
			}
			return c.String(a.status, a.body)
		}
		var use []echo.MiddlewareFunc
		if rt.cached != nil {
			use = append(use, echocache.Cache(cache, class, rt.cached...))
		} else if rt.invalidated != nil {
			use = append(use, echocache.Invalidate(cache, rt.invalidated...))
		}
		e.Add(rt.method, colons(rt.pattern), handle, use...)
	}
	return &http.Server{Handler: e, ReadHeaderTimeout: time.Minute}
}
