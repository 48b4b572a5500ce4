package main

import (
	"net/http"

	gincache2 "github.com/chenyahui/gin-cache"
	"github.com/chenyahui/gin-cache/persist"
	contrib "github.com/gin-contrib/cache"
	"github.com/gin-contrib/cache/persistence"
	"github.com/gin-gonic/gin"

	"github.com/larderhq/larder/gincache"
)

func ginFramework() framework {
	return framework{
		name: "Gin",
		larder: func(s *site) (app, error) {
			return ginEngine(s, before(gincache.Cache(s.cache, "product", "product:{id}", "catalog"))), nil
		},
		bare: func(s *site) (app, error) {
			return ginEngine(s, func(h gin.HandlerFunc) []gin.HandlerFunc { return []gin.HandlerFunc{h} }), nil
		},
		peers: []peer{
			{"gin-contrib/cache", "github.com/gin-contrib/cache", "", func(s *site) (app, error) {
				store := persistence.NewInMemoryStore(ttl)
				return ginEngine(s, func(h gin.HandlerFunc) []gin.HandlerFunc {
					return []gin.HandlerFunc{contrib.CachePage(store, ttl, h)}
				}), nil
			}},
			{"chenyahui/gin-cache", "github.com/chenyahui/gin-cache", "", func(s *site) (app, error) {
				return ginEngine(s, before(gincache2.CacheByRequestURI(persist.NewMemoryStore(ttl), ttl))), nil
			}},
		},
	}
}

// before puts a middleware before a handler.
func before(m gin.HandlerFunc) func(gin.HandlerFunc) []gin.HandlerFunc {
	return func(h gin.HandlerFunc) []gin.HandlerFunc { return []gin.HandlerFunc{m, h} }
}

func ginEngine(s *site, cached func(gin.HandlerFunc) []gin.HandlerFunc) app {
	gin.SetMode(gin.ReleaseMode)
	e := gin.New()
	e.GET("/p/:id", cached(func(c *gin.Context) {
		s.runs.Add(1)
		h := c.Writer.Header()
		for _, f := range s.fields {
			h.Set(f[0], f[1])
		}
		c.Status(http.StatusOK)
		_, _ = c.Writer.Write(s.body)
	})...)
	e.GET("/probe/:id", cached(func(c *gin.Context) {
		p := s.probed(c.Param("id"), c.Request.URL.RawQuery, c.GetHeader("Accept-Language"))
		for _, f := range p.fields {
			c.Writer.Header().Add(f[0], f[1])
		}
		c.Status(p.status)
		_, _ = c.Writer.Write([]byte(p.body))
	})...)
	return netApp{e}
}
