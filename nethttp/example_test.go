package nethttp_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/nethttp"
)

func Example() {
	price := 100
	show := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "product %s costs %d", r.PathValue("id"), price)
	})
	update := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		price += 50
		w.WriteHeader(http.StatusNoContent)
	})

	cache, err := core.New(core.Options{
		Classes: core.Classes{
			"product": {TTL: 5 * time.Minute, StaleWhileRevalidate: time.Minute},
		},
	})
	if err != nil {
		panic(err)
	}
	defer cache.Close()

	mux := http.NewServeMux()
	mux.Handle("GET /products/{id}", nethttp.Cache(cache, "product", "product:{id}", "catalog")(show))
	mux.Handle("PUT /products/{id}", nethttp.Invalidate(cache, "product:{id}", "catalog")(update))

	server := httptest.NewServer(mux)
	defer server.Close()
	for _, method := range []string{"GET", "GET", "PUT", "GET"} {
		r, _ := http.NewRequest(method, server.URL+"/products/42", strings.NewReader(""))
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			panic(err)
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		fmt.Println(method, resp.StatusCode, "|", resp.Header.Get("Cache-Status"), "|", string(body)+".")
	}
	http.DefaultClient.CloseIdleConnections()
	// Output:
	// GET 200 | Larder; fwd=uri-miss; stored | product 42 costs 100.
	// GET 200 | Larder; hit; ttl=299 | product 42 costs 100.
	// PUT 204 |  | .
	// GET 200 | Larder; fwd=uri-miss; stored | product 42 costs 150.
}

func ExampleRoute() {
	cache, err := core.New(core.Options{Classes: core.Classes{"cart": {TTL: time.Minute}}})
	if err != nil {
		panic(err)
	}
	defer cache.Close()

	cart, err := nethttp.Route{
		Cache: cache, Class: "cart", Tags: []string{"cart:{user}"},
		Identity: func(r *http.Request) (string, bool) {
			user, _, ok := r.BasicAuth() // checked by the middleware in front
			return user, ok
		},
		Skip: func(r *http.Request) bool { return r.URL.Query().Has("preview") },
	}.Middleware()
	if err != nil {
		panic(err)
	}

	mux := http.NewServeMux()
	mux.Handle("GET /carts/{user}", cart(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, _, _ := r.BasicAuth()
		fmt.Fprint(w, "the cart of ", user)
	})))
	for _, user := range []string{"ann", "ann", "bob"} {
		r := httptest.NewRequest(http.MethodGet, "/carts/mine", nil)
		r.SetBasicAuth(user, "secret")
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		fmt.Println(w.Body, "|", w.Header().Get("Cache-Status"))
	}
	// Output:
	// the cart of ann | Larder; fwd=uri-miss; stored
	// the cart of ann | Larder; hit; ttl=59
	// the cart of bob | Larder; fwd=uri-miss; stored
}
