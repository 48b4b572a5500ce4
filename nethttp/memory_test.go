package nethttp_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/nethttp"
)

func collected() int {
	var m runtime.MemStats
	for range 3 {
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

func TestResponsesTakeNoMoreMemoryThanMaxBytes(t *testing.T) {
	const most = 32 << 20
	before := collected()
	c, err := core.New(core.Options{MaxBytes: most, Classes: core.Classes{"page": {TTL: time.Hour}}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	body := strings.Repeat("x", 1024)
	h := nethttp.Cache(c, "page")(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("ETag", `"`+r.URL.Path+`"`)
		w.Header().Set("Cache-Control", "max-age=600")
		for i := range 3 {
			w.Header().Set(fmt.Sprint("X-Field-", i), fmt.Sprint("value ", i))
		}
		fmt.Fprint(w, body)
	}))
	for i := range 30_000 {
		for range 2 { // the second is a hit, which renders fields
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, fmt.Sprint("https://shop.example/items/", i), nil))
		}
		if i%5_000 == 0 {
			runtime.GC()
		}
	}
	taken := collected() - before
	t.Logf("%.3f of MaxBytes, %d entries", float64(taken)/most, c.Stats().Entries)
	require.Less(t, taken, most*103/100)
	require.Greater(t, taken, most*85/100)
}
