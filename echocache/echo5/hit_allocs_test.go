//go:build !race

package echo5_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/labstack/echo/v5"
	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/adaptertest"
	"github.com/larderhq/larder/echocache/echo5"
)

// The values of many hits' fields share one allocation, which is none per hit on average.
func TestAHitAllocatesNothing(t *testing.T) {
	cache, err := core.New(core.Options{Classes: core.Classes{"hour": {TTL: time.Hour}}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, cache.Close()) })
	site := echo.New()
	site.GET("/p/:id", func(c *echo.Context) error {
		for _, name := range adaptertest.HitFields() {
			c.Response().Header().Set(name, "a")
		}
		return c.Blob(http.StatusOK, "text/plain", adaptertest.HitBody())
	}, echo5.Cache(cache, "hour", "product:{id}", "catalog"))
	adaptertest.HitAllocations(t, site, 0)
}
