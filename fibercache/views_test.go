package fibercache_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
)

// Fiber's parameters are views of a buffer that the next request on the connection
// overwrites.

func TestAMapLoadsTheIdThatItsRequestNamedWhenTheNextOneHasCome(t *testing.T) {
	for name, get := range map[string]func(ctx context.Context, users *core.Map[string, string], id string) (string, error){
		"Get": func(ctx context.Context, users *core.Map[string, string], id string) (string, error) {
			return users.Get(ctx, id, row)
		},
		"Lookup": func(ctx context.Context, users *core.Map[string, string], id string) (string, error) {
			r, err := users.Lookup(ctx, id, row)
			return r.Value, err
		},
		"GetMany": func(ctx context.Context, users *core.Map[string, string], id string) (string, error) {
			values, err := users.GetMany(ctx, []string{id}, func(ctx context.Context, ids []string) (map[string]string, error) {
				v, err := row(ctx, ids[0])
				return map[string]string{ids[0]: v}, err
			})
			return values[id], err
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				users, err := core.NewMap(newCache(t), core.MapOptions[string, string]{Class: "stale", Prefix: "user"})
				require.NoError(t, err)
				s := newSite(t)
				s.Get("/u/:id", func(c *fiber.Ctx) error {
					v, err := get(c.UserContext(), users, c.Params("id"))
					if err != nil {
						return err
					}
					return c.SendString(v)
				})
				s.get("/u/ann")
				time.Sleep(61 * time.Second)
				require.Equal(t, "row of ann", s.get("/u/ann").body) // stale: refreshed behind it
				s.get("/u/bob")
				time.Sleep(time.Second)
				require.Equal(t, "row of ann", s.get("/u/ann").body)
				v, err := users.Get(t.Context(), "ann", row)
				require.NoError(t, err)
				require.Equal(t, "row of ann", v)
			})
		})
	}
}

// row is a query that takes its time before it looks at the id.
func row(_ context.Context, id string) (string, error) {
	time.Sleep(20 * time.Millisecond)
	return "row of " + id, nil
}

func TestAnInvalidationByParametersOutlivesItsRequest(t *testing.T) {
	for name, target := range map[string]func(param string) core.Target{
		"pattern": core.Pattern,
		"prefix":  func(param string) core.Target { return core.Prefix(param[:len(param)-1]) },
	} {
		t.Run(name, func(t *testing.T) {
			cache := newCache(t)
			users, err := core.NewMap(cache, core.MapOptions[string, int64]{Class: "hour", Prefix: "user"})
			require.NoError(t, err)
			var loads atomic.Int64
			load := func(context.Context, string) (int64, error) { return loads.Add(1), nil }
			s := newSite(t)
			s.Delete("/cache/:what", func(c *fiber.Ctx) error {
				return cache.Invalidate(c.UserContext(), target(c.Params("what")))
			})
			_, err = users.Get(t.Context(), "ann", load)
			require.NoError(t, err)
			require.Equal(t, 200, s.do("DELETE", "/cache/user:a*").StatusCode)
			for i := range 20 {
				require.Equal(t, 200, s.do("DELETE", fmt.Sprintf("/cache/oth%d:*", i%10)).StatusCode)
			}
			v, err := users.Get(t.Context(), "ann", load)
			require.NoError(t, err)
			require.EqualValues(t, 2, v, "a value of before the invalidation")
		})
	}
}
