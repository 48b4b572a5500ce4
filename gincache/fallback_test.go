package gincache_test

import (
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/gincache"
)

// AbortWithError answers, and keeps the error. The answer is still held back, so an
// older response can stand in for it.
func TestOlderResponseStandsInForAnErrorThatHasBeenAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, failing := gin.New(), false
		r.GET("/", gincache.Cache(newCache(t), "fallback"), func(c *gin.Context) {
			if failing {
				_ = c.AbortWithError(http.StatusBadGateway, errors.New("broken"))
				return
			}
			c.String(http.StatusOK, "well")
		})
		get(r, "/")
		failing = true
		time.Sleep(90 * time.Second)
		require.Equal(t, "well", get(r, "/").Body.String())
	})
}
