package fibercache

import (
	"regexp"
	"slices"

	"github.com/gofiber/fiber/v2"

	"github.com/larderhq/larder/core/httpcache"
	"github.com/larderhq/larder/fibercache/internal/fast"
)

// outerOf returns what stands in front of the first middleware of this package on a
// route.
func outerOf(stack [][]*fiber.Route, at *fiber.Route) httpcache.Outer {
	for _, routes := range stack {
		i := slices.Index(routes, at)
		if i < 0 {
			continue
		}
		front := httpcache.OuterNone
		for _, r := range routes[:i] {
			if fast.Meets(r, r.Path, at.Path) {
				front = max(front, fast.OuterOfHandlers(own, r.Handlers))
			}
		}
		return max(front, fast.OuterOfHandlers(own, at.Handlers))
	}
	return httpcache.OuterUnknown
}

var own = &fast.Own{ //nolint:gochecknoglobals // a constant
	File:       fast.FileOf(middleware),
	Middleware: regexp.MustCompile(`/gofiber/fiber/v2(?:@[^/]+)?/middleware/([a-z]+)/[^/]+$`),
	Harmless: map[string]bool{
		"basicauth": true, "cors": true, "csrf": true, "earlydata": true, "encryptcookie": true, "etag": true, "expvar": true,
		"favicon": true, "filesystem": true, "healthcheck": true, "helmet": true, "keyauth": true, "limiter": true, "logger": true,
		"monitor": true, "pprof": true, "recover": true, "redirect": true, "requestid": true, "rewrite": true,
	},
}
