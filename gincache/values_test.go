package gincache_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
)

// tenants is an engine whose handler gives its own context to a map.
func tenants(users *core.Map[string, string], load core.Loader[string, string]) *gin.Engine {
	e := gin.New()
	e.ContextWithFallback = true
	e.GET("/:id", func(c *gin.Context) {
		c.Set("tenant", c.Query("tenant"))
		v, err := users.Get(c, c.Param("id"), load)
		if err != nil {
			c.String(http.StatusInternalServerError, err.Error())
			return
		}
		c.String(http.StatusOK, v)
	})
	return e
}

func TestARefreshThatOutlivesItsRequestHasNoGinValues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		users, err := core.NewMap(newCache(t), core.MapOptions[string, string]{Class: "stale", Prefix: "user"})
		require.NoError(t, err)
		over, read := make(chan struct{}), make(chan any, 1)
		refreshes := false
		e := tenants(users, func(ctx context.Context, _ string) (string, error) {
			if refreshes {
				<-over
				read <- ctx.Value("tenant")
				return "new", nil
			}
			return ctx.Value("tenant").(string), nil
		})
		require.Equal(t, "a", get(e, "/1?tenant=a").Body.String())
		time.Sleep(time.Minute + time.Second)
		refreshes = true
		require.Equal(t, "a", get(e, "/1?tenant=b").Body.String())
		close(over)
		for range 20 {
			get(e, "/1?tenant=c") // the context serves others
		}
		require.Nil(t, <-read)
		synctest.Wait()
		require.Equal(t, "new", get(e, "/1?tenant=c").Body.String())
	})
}

func TestGinsContextHasNoValuesAfterTheClientLeavesItsLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		users, err := core.NewMap(newCache(t), core.MapOptions[string, string]{Class: "stale", Prefix: "user"})
		require.NoError(t, err)
		over, read := make(chan struct{}), make(chan any, 2)
		e := tenants(users, func(ctx context.Context, _ string) (string, error) {
			read <- ctx.Value("tenant")
			<-over
			read <- ctx.Value("tenant")
			return "v", nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			e.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, http.MethodGet, "/1?tenant=a", nil))
		}()
		require.Equal(t, "a", <-read, "while the request waits")
		cancel()
		<-done
		close(over)
		require.Nil(t, <-read)
		synctest.Wait()
		require.Equal(t, "v", get(e, "/1?tenant=b").Body.String())
	})
}
