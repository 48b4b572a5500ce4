package nethttp_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/nethttp"
)

func TestARouteWithoutHandlerFailsWhenItIsBuilt(t *testing.T) {
	cache, err := core.New(core.Options{})
	require.NoError(t, err)
	defer func() { require.NoError(t, cache.Close()) }()
	for name, middleware := range map[string]func(http.Handler) http.Handler{
		"cached":       nethttp.Cache(cache, ""),
		"invalidating": nethttp.Invalidate(cache, "a"),
		"path values":  nethttp.PathValues(func(*http.Request) map[string]string { return nil }),
	} {
		require.PanicsWithError(t, `larder: handler is <nil>; allowed: an http.Handler`, func() { middleware(nil) }, name)
	}
	require.PanicsWithError(t, `larder: params is <nil>; allowed: a function that returns the parameters of a request`, func() { nethttp.PathValues(nil) })
}
