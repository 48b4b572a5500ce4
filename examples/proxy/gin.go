package main

import (
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/gincache"
)

// newGin has no routes: a route has a method, and the proxy is for all there are.
func newGin(o *origin, cache *core.Cache) Server {
	gin.SetMode(gin.ReleaseMode) // no list of the routes on standard output
	r := gin.New()
	r.NoRoute(gincache.Cache(cache, className), gin.WrapH(o.handler()))
	return &http.Server{Handler: r, ReadHeaderTimeout: 5 * time.Second}
}
