package main

import (
	"net/http"
	"time"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/nethttp"
)

// newNetHTTP has no mux: it would redirect paths that it finds unclean.
func newNetHTTP(o *origin, cache *core.Cache) Server {
	return &http.Server{
		Handler:           nethttp.Cache(cache, className)(o.handler()),
		ReadHeaderTimeout: 5 * time.Second,
	}
}
