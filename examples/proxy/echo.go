package main

import (
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/echocache"
)

// newEcho has no routes: a route has a method, and the proxy is for all there are.
// The middleware also sees requests that come to none.
func newEcho(o *origin, cache *core.Cache) Server {
	e := echo.New()
	proxy := echo.WrapHandler(o.handler())
	e.Use(echocache.Cache(cache, className), func(echo.HandlerFunc) echo.HandlerFunc { return proxy })
	return &http.Server{Handler: e, ReadHeaderTimeout: 5 * time.Second}
}
