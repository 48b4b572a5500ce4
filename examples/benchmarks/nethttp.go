package main

import (
	"net/http"

	"github.com/go-chi/stampede"
	httpcache "github.com/victorspringer/http-cache"
	"github.com/victorspringer/http-cache/adapter/memory"

	"github.com/larderhq/larder/nethttp"
)

func netHTTP() framework {
	return framework{
		name: "net/http",
		larder: func(s *site) (app, error) {
			return netMux(s, nethttp.Cache(s.cache, "product", "product:{id}", "catalog")), nil
		},
		bare: func(s *site) (app, error) {
			return netMux(s, func(h http.Handler) http.Handler { return h }), nil
		},
		peers: []peer{
			{"go-chi/stampede", "github.com/go-chi/stampede", "", func(s *site) (app, error) {
				return netMux(s, stampede.Handler(512, ttl)), nil
			}},
			{"victorspringer/http-cache", "github.com/victorspringer/http-cache", "", func(s *site) (app, error) {
				store, err := memory.NewAdapter(memory.AdapterWithAlgorithm(memory.LRU), memory.AdapterWithCapacity(10_000))
				if err != nil {
					return nil, err
				}
				client, err := httpcache.NewClient(httpcache.ClientWithAdapter(store), httpcache.ClientWithTTL(ttl))
				if err != nil {
					return nil, err
				}
				return netMux(s, client.Middleware), nil
			}},
		},
	}
}

func netMux(s *site, cached func(http.Handler) http.Handler) app {
	mux := http.NewServeMux()
	mux.Handle("GET /p/{id}", cached(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s.runs.Add(1)
		h := w.Header()
		for _, f := range s.fields {
			h.Set(f[0], f[1])
		}
		_, _ = w.Write(s.body)
	})))
	mux.Handle("GET /probe/{id}", cached(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := s.probed(r.PathValue("id"), r.URL.RawQuery, r.Header.Get("Accept-Language"))
		for _, f := range c.fields {
			w.Header().Add(f[0], f[1])
		}
		w.WriteHeader(c.status)
		_, _ = w.Write([]byte(c.body))
	})))
	return netApp{mux}
}
