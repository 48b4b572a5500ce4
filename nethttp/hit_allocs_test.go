//go:build !race

package nethttp_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/adaptertest"
	"github.com/larderhq/larder/nethttp"
)

// The values of many hits' fields share one allocation, which is none per hit on average.
func TestAHitAllocatesNothing(t *testing.T) {
	cache, err := core.New(core.Options{Classes: core.Classes{"hour": {TTL: time.Hour}}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, cache.Close()) })
	adaptertest.HitAllocations(t, nethttp.Cache(cache, "hour", "product:{id}", "catalog")(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for _, name := range adaptertest.HitFields() {
			w.Header().Set(name, "a")
		}
		_, _ = w.Write(adaptertest.HitBody())
	})), 0)
}
