package nethttp_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/httpcache"
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

	cart := httpcache.Must(nethttp.Route{
		Cache: cache, Class: "cart", Tags: []string{"cart:{identity}"},
		Identity: userOf,
		Skip:     func(r *http.Request) bool { return r.URL.Query().Has("preview") },
	}.Middleware())

	mux := http.NewServeMux()
	mux.Handle("GET /cart", authenticate(cart(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, _ := userOf(r)
		fmt.Fprint(w, "the cart of ", user)
	}))))
	for _, user := range []string{"ann", "ann", "bob"} {
		r := httptest.NewRequest(http.MethodGet, "/cart", nil)
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

type userKey struct{}

// authenticate stands for the application's own authentication.
func authenticate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, ok := r.BasicAuth()
		if !ok || password != "secret" {
			http.Error(w, "log in", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), userKey{}, user)))
	})
}

func userOf(r *http.Request) (string, bool) {
	user, ok := r.Context().Value(userKey{}).(string) // that authenticate has set
	return user, ok
}

func ExampleCachePerUser() {
	cache, err := core.New(core.Options{Classes: core.Classes{"cart": {TTL: time.Minute}}})
	if err != nil {
		panic(err)
	}
	defer cache.Close()

	items := make(map[string]int)
	show := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, _ := userOf(r)
		fmt.Fprintf(w, "the cart of %s: %d", user, items[user])
	})
	add := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, _ := userOf(r)
		items[user]++
		w.WriteHeader(http.StatusNoContent)
	})

	mux := http.NewServeMux()
	mux.Handle("GET /cart", authenticate(nethttp.CachePerUser(cache, "cart", userOf, "cart:{identity}")(show)))
	mux.Handle("POST /cart/items", authenticate(nethttp.InvalidatePerUser(cache, userOf, "cart:{identity}")(add)))
	for _, step := range []string{"GET ann", "GET bob", "POST ann", "GET ann", "GET bob"} {
		method, user, _ := strings.Cut(step, " ")
		path := "/cart"
		if method == "POST" {
			path = "/cart/items"
		}
		r := httptest.NewRequest(method, path, nil)
		r.SetBasicAuth(user, "secret")
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		fmt.Println(step, w.Code, "|", w.Header().Get("Cache-Status"), "|", w.Body.String()+".")
	}
	// Output:
	// GET ann 200 | Larder; fwd=uri-miss; stored | the cart of ann: 0.
	// GET bob 200 | Larder; fwd=uri-miss; stored | the cart of bob: 0.
	// POST ann 204 |  | .
	// GET ann 200 | Larder; fwd=uri-miss; stored | the cart of ann: 1.
	// GET bob 200 | Larder; hit; ttl=59 | the cart of bob: 0.
}
