package fibercache_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
)

func TestARefreshThatOutlivesItsRequestHasNoFasthttpValues(t *testing.T) {
	for name, of := range map[string]func(c *fiber.Ctx) context.Context{
		"itself": func(c *fiber.Ctx) context.Context { return c.Context() },
		"wrapped": func(c *fiber.Ctx) context.Context {
			c.SetUserContext(context.WithValue(c.Context(), fiber.HeaderAllow, "x")) //nolint:staticcheck // any key
			return c.UserContext()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				users, err := core.NewMap(newCache(t), core.MapOptions[string, string]{Class: "stale", Prefix: "user"})
				require.NoError(t, err)
				over, read := make(chan struct{}), make(chan any, 1)
				refreshes := false
				load := func(ctx context.Context, _ string) (string, error) {
					if refreshes {
						<-over
						read <- ctx.Value("tenant")
						return "new", nil
					}
					return ctx.Value("tenant").(string), nil
				}
				s := newSite(t)
				s.Get("/", func(c *fiber.Ctx) error {
					c.Locals("tenant", c.Query("tenant"))
					v, err := users.Get(of(c), "1", load)
					if err != nil {
						return err
					}
					return c.SendString(v)
				})
				require.Equal(t, "a", s.get("/?tenant=a").body)
				time.Sleep(time.Minute + time.Second)
				refreshes = true
				require.Equal(t, "a", s.get("/?tenant=b").body)
				close(over)
				for range 20 {
					s.get("/?tenant=c") // the context serves others
				}
				require.Nil(t, <-read)
				synctest.Wait()
				require.Equal(t, "new", s.get("/?tenant=c").body)
			})
		})
	}
}
