package fibercache

import (
	"context"
	"iter"
	"net/http"

	"github.com/gofiber/fiber/v2"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/httpcache"
)

// Warm asks the app for URLs, so that their responses are in the cache before anybody
// asks; see [httpcache.Warm]. It has no connection over TLS: an app that is behind one
// believes X-Forwarded-Proto of its proxy, and is warmed through that.
func Warm(ctx context.Context, app *fiber.App, urls iter.Seq[string], o core.WarmOptions) (core.WarmResult, error) {
	return httpcache.WarmBy(ctx, urls, o, func(r *http.Request) int {
		if r.URL.Scheme != "http" {
			return http.StatusBadGateway
		}
		resp, err := app.Test(r, -1)
		if err != nil {
			return http.StatusBadGateway
		}
		_ = resp.Body.Close() // it is in memory
		return resp.StatusCode
	})
}
