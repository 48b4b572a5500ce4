package fibercache

import (
	"context"
	"iter"
	"net/http"
	"time"

	"github.com/gofiber/fiber/v2"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/httpcache"
)

// patience is how long one page is waited for: Fiber's handlers do not hear of a
// context that ends.
const patience = time.Minute

// Warm asks the app for URLs, so that their responses are in the cache before anybody
// asks; see [httpcache.Warm]. It has no connection over TLS: an app that is behind one
// believes X-Forwarded-Proto of its proxy, and is warmed through that. A page that takes
// longer than a minute counts as failed.
func Warm(ctx context.Context, app *fiber.App, urls iter.Seq[string], o core.WarmOptions) (core.WarmResult, error) {
	return httpcache.WarmBy(ctx, urls, o, func(r *http.Request) int {
		if r.URL.Scheme != "http" {
			return http.StatusBadGateway
		}
		resp, err := app.Test(r, int(patience.Milliseconds()))
		if err != nil {
			return http.StatusBadGateway
		}
		_ = resp.Body.Close() // it is in memory
		return resp.StatusCode
	})
}
