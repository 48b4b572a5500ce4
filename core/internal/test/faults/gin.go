package main

import (
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/gincache"
)

func newGin(cache *core.Cache, routes []route) server {
	gin.SetMode(gin.ReleaseMode) // no list of the routes on standard output
	g := gin.New()
	for _, rt := range routes {
		handle := func(c *gin.Context) {
			a := rt.handle(c.Request.Context(), c.Param("id"), c.GetHeader(fieldPause))
			for name, value := range a.fields() {
				c.Header(name, value)
			}
			c.String(a.status, "%s", a.body)
		}
		var chain []gin.HandlerFunc
		if rt.cached != nil {
			chain = append(chain, gincache.Cache(cache, class, rt.cached...))
		} else if rt.invalidated != nil {
			chain = append(chain, gincache.Invalidate(cache, rt.invalidated...))
		}
		g.Handle(rt.method, colons(rt.pattern), append(chain, handle)...)
	}
	return &http.Server{Handler: g, ReadHeaderTimeout: time.Minute}
}
