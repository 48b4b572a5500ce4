package fibercache_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/fibercache"
)

func fetch(t *testing.T, app *fiber.App, method, target string, fields http.Header) string {
	t.Helper()
	r := httptest.NewRequest(method, target, nil)
	for name, values := range fields {
		r.Header[name] = values
	}
	res, err := app.Test(r, -1)
	require.NoError(t, err)
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return string(body)
}

// Fiber's strings are views of buffers that a handler may write to, as one that
// forwards requests does.
func TestGroupsAreOfTheHostThatWasAsked(t *testing.T) {
	cache, err := core.New(core.Options{Classes: core.Classes{"c": {TTL: time.Hour}}})
	require.NoError(t, err)
	defer func() { require.NoError(t, cache.Close()) }()
	app, runs := fiber.New(), 0
	app.Get("/x", fibercache.Cache(cache, "c"), func(c *fiber.Ctx) error {
		runs++
		was := strings.Clone(c.OriginalURL())
		c.Request().SetRequestURI("http://up.internal/x")
		_ = c.Request().URI().Host()
		defer c.Request().SetRequestURI(was)
		c.Set("Cache-Groups", `"g"`)
		return c.SendString(fmt.Sprint(runs))
	})
	app.Post("/y", fibercache.Cache(cache, "c"), func(c *fiber.Ctx) error {
		c.Set("Cache-Group-Invalidation", `"g"`)
		return nil
	})
	require.Equal(t, "1", fetch(t, app, http.MethodGet, "http://shop.example/x", nil))
	require.Equal(t, "1", fetch(t, app, http.MethodGet, "http://shop.example/x", nil))
	fetch(t, app, http.MethodPost, "http://shop.example/y", nil)
	require.Equal(t, "2", fetch(t, app, http.MethodGet, "http://shop.example/x", nil))
}

func TestAClientsConditionInAnotherCaseRenewsNothing(t *testing.T) {
	cache, err := core.New(core.Options{Classes: core.Classes{"c": {TTL: time.Hour}}})
	require.NoError(t, err)
	defer func() { require.NoError(t, cache.Close()) }()
	app, version := fiber.New(fiber.Config{DisableHeaderNormalizing: true}), 1
	app.Get("/x", fibercache.Cache(cache, "c"), func(c *fiber.Ctx) error {
		etag, same := fmt.Sprintf(`"%d"`, version), false
		c.Request().Header.VisitAll(func(name, value []byte) {
			same = same || strings.EqualFold(string(name), "if-none-match") && string(value) == etag
		})
		c.Set("ETag", etag)
		if same {
			return c.SendStatus(http.StatusNotModified)
		}
		return c.SendString(fmt.Sprint("version ", version))
	})
	const target = "http://shop.example/x"
	require.Equal(t, "version 1", fetch(t, app, http.MethodGet, target, nil))
	version = 2
	fetch(t, app, http.MethodGet, target, http.Header{"Cache-Control": {"no-cache"}, "if-none-match": {`"2"`}})
	require.Equal(t, "version 2", fetch(t, app, http.MethodGet, target, nil))
}

func TestWarmedPagesAreHits(t *testing.T) {
	cache, err := core.New(core.Options{Classes: core.Classes{"c": {TTL: time.Hour}}})
	require.NoError(t, err)
	defer func() { require.NoError(t, cache.Close()) }()
	app := fiber.New()
	var runs atomic.Int64 // pages are made side by side
	app.Get("/p/:id", fibercache.Cache(cache, "c", "p:{id}"), func(c *fiber.Ctx) error {
		runs.Add(1)
		return c.SendString(c.Params("id"))
	})
	urls := []string{"http://example.com/p/1", "http://example.com/p/2", "http://example.com/none", "https://example.com/p/3"}
	result, err := fibercache.Warm(t.Context(), app, slices.Values(urls), core.WarmOptions{})
	require.NoError(t, err)
	require.Equal(t, 2, result.Filled)
	require.Equal(t, 2, result.Failed)
	require.Equal(t, "2", fetch(t, app, http.MethodGet, "/p/2", nil))
	require.EqualValues(t, 2, runs.Load())
}
