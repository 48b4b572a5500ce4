package httpcache_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/httpcache"
	"github.com/larderhq/larder/nethttp"
)

// shop is a server with a cached route.
func shop() (*core.Cache, *http.Server) {
	cache, err := core.New(core.Options{Classes: core.Classes{"product": {TTL: 5 * time.Minute}}})
	if err != nil {
		panic(err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /products/{id}", nethttp.Cache(cache, "product", "product:{id}")(
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "product ", r.PathValue("id")) }),
	))
	return cache, &http.Server{Handler: mux}
}

func ExampleWarm() {
	cache, server := shop()
	defer cache.Close()
	urls := slices.Values([]string{"https://shop.example/products/1", "https://shop.example/products/2", "https://shop.example/none"})

	r, err := httpcache.Warm(context.Background(), server.Handler, urls, core.WarmOptions{})

	fmt.Println(r.Items, r.Filled, r.Failed, err)
	fmt.Println(cache.Stats().Entries)
	// Output:
	// 3 2 1 <nil>
	// 2
}

func ExampleWarmFunc() {
	urls := slices.Values([]string{"https://shop.example/", "https://shop.example/terms"})
	ask := func(r *http.Request) (status int) { // a server that is no http.Handler answers r
		fmt.Println(r.Method, r.URL)
		return http.StatusOK
	}

	r, err := httpcache.WarmFunc(context.Background(), urls, core.WarmOptions{Batch: 1, Parallel: 1}, ask)

	fmt.Println(r.Filled, err)
	// Output:
	// GET https://shop.example/
	// GET https://shop.example/terms
	// 2 <nil>
}

func ExampleKeepWarm() {
	cache, server := shop()
	defer cache.Close()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- httpcache.KeepWarm(ctx, cache, server.Handler, core.KeepWarmOptions{Top: 100}) }()

	cancel() // the server is shut down
	fmt.Println(<-done)
	// Output: context canceled
}
