package fibercache

import (
	"context"
	"iter"
	"net/http"

	"github.com/gofiber/fiber/v2"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/fibercache/internal/fast"
)

// Warm asks the app for URLs, so that their responses are in the cache before anybody
// asks; see [httpcache.Warm]. It has no connection over TLS: an app that is behind one
// believes X-Forwarded-Proto of its proxy, and is warmed through that. A page that takes
// longer than a minute counts as failed.
func Warm(ctx context.Context, app *fiber.App, urls iter.Seq[string], o core.WarmOptions) (core.WarmResult, error) {
	if app == nil {
		return core.WarmResult{}, &core.ConfigError{Field: "app", Value: nil, Allowed: "an app"}
	}
	return fast.Warm(ctx, urls, o, func(r *http.Request) (*http.Response, error) {
		return app.Test(r, int(fast.Patience.Milliseconds()))
	})
}

// KeepWarm keeps warm the responses that are hit most; see [httpcache.KeepWarm]. Requests
// of which Fiber believes something that a proxy said (X-Forwarded-Host,
// X-Forwarded-Proto) teach it nothing.
func KeepWarm(ctx context.Context, cache *core.Cache, app *fiber.App, o core.KeepWarmOptions) error {
	if app == nil {
		return &core.ConfigError{Field: "app", Value: nil, Allowed: "an app"}
	}
	return fast.KeepWarm(ctx, cache, app.Handler(), app.Server(), o)
}
