//go:build !race

package gincache_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/adaptertest"
	"github.com/larderhq/larder/gincache"
)

// The values of many hits' fields share one allocation, which is none per hit on average.
func TestAHitAllocatesNothing(t *testing.T) {
	cache, err := core.New(core.Options{Classes: core.Classes{"hour": {TTL: time.Hour}}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, cache.Close()) })
	gin.SetMode(gin.TestMode)
	site := gin.New()
	site.GET("/p/:id", gincache.Cache(cache, "hour", "product:{id}", "catalog"), func(c *gin.Context) {
		for _, name := range adaptertest.HitFields() {
			c.Header(name, "a")
		}
		c.Data(http.StatusOK, "text/plain", adaptertest.HitBody())
	})
	adaptertest.HitAllocations(t, site, 0)
}
