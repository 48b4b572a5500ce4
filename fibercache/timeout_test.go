package fibercache_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/gofiber/fiber/v2/middleware/timeout"
	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/fibercache"
)

// Fiber's timeout middleware answers 408 whatever the handler has done by then.
func TestWriteThatTimesOutMayHaveBeenCommitted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cache := newCache(t)
		s := newSite(t)
		value := "old"
		s.Get("/p", fibercache.Cache(cache, "hour", "p"), func(c *fiber.Ctx) error { return c.SendString(value) })
		s.Put("/p", fibercache.Invalidate(cache, "p"), timeout.NewWithContext(func(c *fiber.Ctx) error {
			s.get("/p") // another client, before the commit
			value = "new"
			<-c.UserContext().Done() // and then something slow
			return c.UserContext().Err()
		}, time.Second))
		require.Equal(t, fiber.StatusRequestTimeout, s.do(fiber.MethodPut, "/p").StatusCode)
		require.Equal(t, "new", s.get("/p").body)
	})
}
