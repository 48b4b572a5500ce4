package main

import (
	"io"
	"net/http"
	"time"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/nethttp"
)

func newNetHTTP(cache *core.Cache, routes []route) server {
	mux := http.NewServeMux()
	for _, rt := range routes {
		var h http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			a := rt.handle(r.Context(), r.PathValue("id"), r.Header.Get(fieldPause))
			for name, value := range a.fields() {
				w.Header().Set(name, value)
			}
			w.WriteHeader(a.status)
			_, _ = io.WriteString(w, a.body) // an error means that the client has left
		})
		if rt.cached != nil {
			h = nethttp.Cache(cache, class, rt.cached...)(h)
		} else if rt.invalidated != nil {
			h = nethttp.Invalidate(cache, rt.invalidated...)(h)
		}
		mux.Handle(rt.method+" "+rt.pattern, h)
	}
	return &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
}
