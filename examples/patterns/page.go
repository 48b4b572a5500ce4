package patterns

import (
	"net/http"
	"net/http/httptest"

	"github.com/redis/go-redis/v9"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/nethttp"
)

// CacheByURL is a middleware that caches an answer by its URL.
//
// guide: page, naive
func CacheByURL(rdb *redis.Client) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			key := "page:" + r.URL.String()
			if body, err := rdb.Get(r.Context(), key).Bytes(); err == nil {
				_, _ = w.Write(body)
				return
			}
			rec := httptest.NewRecorder()
			next.ServeHTTP(rec, r)
			rdb.SetEx(r.Context(), key, rec.Body.Bytes(), ttl)
			w.WriteHeader(rec.Code)
			_, _ = w.Write(rec.Body.Bytes())
		})
	}
}

// guide: end

// CachedPage is a handler behind Larder.
func CachedPage(cache *core.Cache, show http.Handler) http.Handler {
	mux := http.NewServeMux()
	// guide: page
	mux.Handle("GET /products/{id}", nethttp.Cache(cache, "product", "product:{id}")(show))
	// guide: end
	return mux
}

// CachedAccount is a handler behind Larder that answers each user differently.
func CachedAccount(cache *core.Cache, show http.Handler) (http.Handler, error) {
	// guide: account
	account, err := nethttp.Route{
		Cache: cache, Class: "product",
		Identity: func(r *http.Request) (string, bool) {
			user, _, ok := r.BasicAuth() // checked by the middleware in front
			return user, ok
		},
	}.Middleware()
	// guide: end
	if err != nil {
		return nil, err
	}
	return account(show), nil
}
