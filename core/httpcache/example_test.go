package httpcache_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
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

// exchange is the smallest adapter for net/http: [httpcache.StdExchange] does the rest.
type exchange struct {
	httpcache.StdExchange
	next http.Handler
}

// Param returns a parameter of ServeMux's pattern.
func (x *exchange) Param(name string) (string, bool) {
	v := x.Request.PathValue(name)
	return v, v != ""
}

// Run runs the handler, and captures what it answers if c is not nil.
func (x *exchange) Run(ctx context.Context, c *httpcache.Capture) error {
	w := x.Writer
	if c != nil {
		x.Capture = httpcache.NewWriter(x.Writer, c)
		w = x.Capture
	}
	x.Handle(ctx, c, func(r *http.Request) { x.next.ServeHTTP(w, r) })
	if c != nil {
		x.Capture.Finish(http.StatusOK)
	}
	return nil
}

// Detach returns nil: this adapter refreshes nothing in the background.
func (x *exchange) Detach() func(context.Context, func(httpcache.Exchange)) { return nil }

// with returns the handler whose requests serve answers.
func with(serve func(httpcache.Exchange) error, next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = serve(&exchange{httpcache.StdExchange{Writer: w, Request: r}, next}) // next returns no error
	})
}

// do sends a request to a handler, and prints the answer.
func do(h http.Handler, method, target string) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, target, nil))
	fmt.Printf("%d %q [%s]\n", w.Code, w.Body, w.Header().Get("Cache-Status"))
}

func ExampleNewRoute() {
	cache, err := core.New(core.Options{Classes: core.Classes{"product": {TTL: 5 * time.Minute}}})
	if err != nil {
		panic(err)
	}
	defer cache.Close()
	route, err := httpcache.NewRoute(httpcache.Config{
		Cache: cache, Class: "product", Tags: []string{"product:{id}"},
		Skip: func(ex httpcache.Exchange) bool { return ex.Line().Query == "preview" },
	})
	if err != nil {
		panic(err)
	}

	mux := http.NewServeMux()
	mux.Handle("GET /products/{id}", with(route.Serve, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "product ", r.PathValue("id"))
	}))
	do(mux, "GET", "/products/1")
	do(mux, "GET", "/products/1")
	do(mux, "GET", "/products/1?preview")
	// Output:
	// 200 "product 1" [Larder; fwd=uri-miss; stored]
	// 200 "product 1" [Larder; hit; ttl=299]
	// 200 "product 1" [Larder; fwd=bypass; detail=skipped]
}

func ExampleNewInvalidator() {
	cache, err := core.New(core.Options{Classes: core.Classes{"product": {TTL: 5 * time.Minute}}})
	if err != nil {
		panic(err)
	}
	defer cache.Close()
	route, err := httpcache.NewRoute(httpcache.Config{Cache: cache, Class: "product", Tags: []string{"product:{id}"}})
	if err != nil {
		panic(err)
	}
	invalidator, err := httpcache.NewInvalidator(httpcache.WriteConfig{Cache: cache, Class: "product", Tags: []string{"product:{id}"}})
	if err != nil {
		panic(err)
	}

	price := 100
	mux := http.NewServeMux()
	mux.Handle("GET /products/{id}", with(route.Serve, func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, price)
	}))
	mux.Handle("PUT /products/{id}/price", with(invalidator.Serve, func(w http.ResponseWriter, _ *http.Request) {
		price = 120
		w.WriteHeader(http.StatusAccepted)
	}))
	do(mux, "GET", "/products/1")
	do(mux, "PUT", "/products/1/price")
	do(mux, "GET", "/products/1")
	// Output:
	// 200 "100" [Larder; fwd=uri-miss; stored]
	// 202 "" []
	// 200 "120" [Larder; fwd=uri-miss; stored]
}

func ExampleRouteMiddleware() {
	cache, err := core.New(core.Options{Classes: core.Classes{"cart": {TTL: time.Minute}}})
	if err != nil {
		panic(err)
	}
	defer cache.Close()
	config := httpcache.RouteConfig[*http.Request]{
		Cache: cache, Class: "cart",
		Identity: func(r *http.Request) (string, bool) { user, _, ok := r.BasicAuth(); return user, ok },
	}
	request := func(ex httpcache.Exchange) *http.Request { return ex.(*exchange).Request }
	wrap := func(serve func(httpcache.Exchange) error) func(http.HandlerFunc) http.Handler {
		return func(next http.HandlerFunc) http.Handler { return with(serve, next) }
	}
	cached, err := httpcache.RouteMiddleware(config, request, wrap)
	if err != nil {
		panic(err)
	}

	carts := cached(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "a cart") })
	for _, user := range []string{"ann", "ann", "bob"} {
		r := httptest.NewRequest(http.MethodGet, "/cart", nil)
		r.SetBasicAuth(user, "secret")
		w := httptest.NewRecorder()
		carts.ServeHTTP(w, r)
		fmt.Println(user, w.Header().Get("Cache-Status"))
	}
	// Output:
	// ann Larder; fwd=uri-miss; stored
	// ann Larder; hit; ttl=59
	// bob Larder; fwd=uri-miss; stored
}

func ExampleWriteMiddleware() {
	cache, err := core.New(core.Options{})
	if err != nil {
		panic(err)
	}
	defer cache.Close()
	request := func(ex httpcache.Exchange) *http.Request { return ex.(*exchange).Request }
	wrap := func(serve func(httpcache.Exchange) error) func(http.HandlerFunc) http.Handler {
		return func(next http.HandlerFunc) http.Handler { return with(serve, next) }
	}

	_, err = httpcache.WriteMiddleware(httpcache.WriteRouteConfig[*http.Request]{Cache: cache}, request, wrap)
	fmt.Println(err)

	writes, err := httpcache.WriteMiddleware(httpcache.WriteRouteConfig[*http.Request]{Cache: cache, Tags: []string{"catalog"}}, request, wrap)
	if err != nil {
		panic(err)
	}
	do(writes(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }), "POST", "/products")
	// Output:
	// larder: tags is 0; allowed: at least one
	// 204 "" []
}
