package main

import (
	"crypto/rand"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/alexedwards/scs/v2"
	chimw "github.com/go-chi/chi/v5/middleware"
	"github.com/go-chi/httprate"
	"github.com/gorilla/handlers"
	"github.com/gorilla/sessions"
	"github.com/justinas/nosurf"
	"github.com/klauspost/compress/gzhttp"
	"github.com/rs/cors"
	"github.com/unrolled/secure"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/nethttp"
)

type httpMiddleware = func(http.Handler) http.Handler

// httpSite is the shop in net/http.
func httpSite(front, behind []httpMiddleware) build {
	return func(s *shop, cache *core.Cache) (string, func(), error) {
		show := wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			content, ok := s.show(r.PathValue("id"), r.Header.Get(greetingField))
			w.Header().Set("Content-Type", "application/json")
			if !ok {
				w.WriteHeader(http.StatusNotFound)
			}
			_, _ = io.WriteString(w, content)
		}), behind)
		update := wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			s.update()
			w.WriteHeader(http.StatusNoContent)
		}), behind)
		if cache != nil {
			show = nethttp.Cache(cache, "page", "product:{id}")(show)
			update = nethttp.Invalidate(cache, "product:{id}")(update)
		}
		mux := http.NewServeMux()
		mux.Handle("GET /p/{id}", show)
		mux.Handle("PUT /p/{id}", update)
		return serve(wrap(mux, front))
	}
}

func wrap(h http.Handler, all []httpMiddleware) http.Handler {
	for i := len(all) - 1; i >= 0; i-- {
		h = all[i](h)
	}
	return h
}

func ofHTTP(m httpMiddleware) func() httpMiddleware { return func() httpMiddleware { return m } }

func httpNeighbours() []neighbour[httpMiddleware] {
	origins := []string{originA, originB}
	return []neighbour[httpMiddleware]{
		{name: "klauspost gzhttp", use: ofHTTP(func(h http.Handler) http.Handler { return gzhttp.GzipHandler(h) })},
		{name: "chi Compress", use: ofHTTP(chimw.Compress(5)), front: differing("Vary lost", varyOfAnswer)},
		{name: "gorilla CompressHandler", use: ofHTTP(handlers.CompressHandler)},
		{name: "rs/cors", use: ofHTTP(cors.New(cors.Options{AllowedOrigins: origins}).Handler)},
		{name: "gorilla CORS", use: ofHTTP(handlers.CORS(handlers.AllowedOrigins(origins)))},
		{name: "scs LoadAndSave", use: sessionsOfSCS, front: differing("Cache-Control changed", noLifetime), behind: differing("Cache-Control changed", noLifetime)},
		{name: "gorilla/sessions", use: ofHTTP(sessionsOfGorilla)},
		{name: "nosurf", use: ofHTTP(func(h http.Handler) http.Handler { return nosurf.New(h) }), front: uncachedBy("set-cookie"), behind: uncachedBy("set-cookie")},
		{name: "http.CrossOriginProtection", use: ofHTTP(http.NewCrossOriginProtection().Handler)},
		{name: "unrolled/secure", use: ofHTTP(secure.New(secure.Options{FrameDeny: true, ContentTypeNosniff: true, ContentSecurityPolicy: "default-src 'self'"}).Handler)},
		{name: "chi RequestID, Recoverer", use: ofHTTP(func(h http.Handler) http.Handler { return chimw.RequestID(chimw.Recoverer(h)) })},
		{name: "chi Timeout", use: ofHTTP(chimw.Timeout(time.Minute))},
		{name: "chi NoCache", use: ofHTTP(chimw.NoCache), front: uncachedBy("no-store"), behind: uncachedBy("no-store")},
		{name: "chi SetHeader", use: ofHTTP(chimw.SetHeader("X-Powered-By", "chi"))},
		{name: "chi StripSlashes", use: ofHTTP(chimw.StripSlashes), only: front},
		{name: "chi Throttle", use: ofHTTP(chimw.Throttle(10))},
		{name: "gorilla LoggingHandler", use: ofHTTP(func(h http.Handler) http.Handler { return handlers.LoggingHandler(io.Discard, h) })},
		{name: "gorilla RecoveryHandler", use: ofHTTP(handlers.RecoveryHandler())},
		{name: "gorilla ProxyHeaders", use: ofHTTP(handlers.ProxyHeaders), only: front},
		{name: "gorilla MethodOverride", use: ofHTTP(handlers.HTTPMethodOverrideHandler), only: front},
		{name: "http.TimeoutHandler", use: ofHTTP(func(h http.Handler) http.Handler { return http.TimeoutHandler(h, time.Minute, "slow") })},
		{name: "http.MaxBytesHandler", use: ofHTTP(func(h http.Handler) http.Handler { return http.MaxBytesHandler(h, 1<<20) })},
		{name: "otelhttp", use: ofHTTP(otelhttp.NewMiddleware("shop"))},
		{name: "httprate", use: func() httpMiddleware { return httprate.LimitAll(1000, time.Hour) }, behind: differing("X-Ratelimit-Remaining of another visitor", frozen)},
		{name: "a logger with log/slog", use: ofHTTP(logging)},
	}
}

// sessionsOfSCS keeps a greeting for each visitor. scs writes its cookie as the
// header goes out.
func sessionsOfSCS() httpMiddleware {
	sm := scs.New()
	return func(next http.Handler) http.Handler {
		return sm.LoadAndSave(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.RawQuery == "v" {
				if !sm.Exists(r.Context(), "greeting") {
					sm.Put(r.Context(), "greeting", rand.Text())
				}
				r.Header.Set(greetingField, sm.GetString(r.Context(), "greeting"))
			}
			next.ServeHTTP(w, r)
		}))
	}
}

func sessionsOfGorilla(next http.Handler) http.Handler {
	store := sessions.NewCookieStore([]byte("a key of thirty-two bytes, or so"))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RawQuery == "v" {
			sess, _ := store.Get(r, "shop")
			if sess.IsNew {
				sess.Values["greeting"] = rand.Text()
				if err := sess.Save(r, w); err != nil {
					http.Error(w, err.Error(), http.StatusInternalServerError)
					return
				}
			}
			r.Header.Set(greetingField, sess.Values["greeting"].(string))
		}
		next.ServeHTTP(w, r)
	})
}

// statusWriter is the wrapper that every logging middleware writes for itself.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(code int) {
	w.status = code
	w.ResponseWriter.WriteHeader(code)
}

func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func logging(next http.Handler) http.Handler {
	log := slog.New(slog.DiscardHandler)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sw := &statusWriter{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(sw, r)
		log.Info("request", "path", r.URL.Path, "status", sw.status)
	})
}
