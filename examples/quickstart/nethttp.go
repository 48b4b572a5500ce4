package main

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/nethttp"
)

func newNetHTTP(shop *Shop, cache *core.Cache) Server {
	list := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		catalog, err := shop.Catalog(r.Context())
		answer(w, catalog, err)
	})
	show := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		product, err := shop.Product(r.Context(), r.PathValue("id"))
		answer(w, product, err)
	})
	update := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := shop.SetPrice(r.Context(), r.PathValue("id"), r.Body); err != nil {
			fail(w, err)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	stream := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		// An error means that the client has left.
		_ = shop.Stream(r.Context(), w, http.NewResponseController(w).Flush)
	})

	mux := http.NewServeMux()
	mux.Handle("GET /products", nethttp.Cache(cache, "list", "catalog")(list))
	mux.Handle("GET /products/{id}", nethttp.Cache(cache, "product", "product:{id}")(show))
	mux.Handle("PUT /products/{id}", nethttp.Invalidate(cache, "product:{id}", "catalog")(update))
	mux.Handle("GET /stream", nethttp.Cache(cache, "list", "catalog")(stream))
	return &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
}

func answer(w http.ResponseWriter, v any, err error) {
	if err != nil {
		fail(w, err)
		return
	}
	body, err := json.Marshal(v)
	if err != nil {
		fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(body) // an error means that the client has left
}

func fail(w http.ResponseWriter, err error) {
	status, text := failure(err)
	http.Error(w, text, status)
}
