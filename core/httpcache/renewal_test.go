package httpcache_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/test/memtier"
	"github.com/larderhq/larder/core/internal/tier"
	"github.com/larderhq/larder/nethttp"
)

// Renewals by a 304 that the suite of the adapters does not show: over several instances,
// behind middleware, by handlers that compare validators themselves.

func cacheOf(t *testing.T, c core.Class, shared core.Remote) *core.Cache {
	t.Helper()
	cache, err := core.New(core.Options{Classes: core.Classes{"c": c}, Remote: shared, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, cache.Close()) })
	return cache
}

func askFor(h http.Handler, target string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, target, nil))
	return w
}

func ask(h http.Handler, method string, fields ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "/x", nil)
	for i := 0; i+1 < len(fields); i += 2 {
		r.Header.Set(fields[i], fields[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func said(w *httptest.ResponseRecorder) string { return w.Header().Get("Cache-Status") }

// page answers by its ETag, and has 304 for a client that has it.
func page(etag func(*http.Request) string, body func(*http.Request) string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Etag", etag(r))
		if r.Header.Get("If-None-Match") == etag(r) {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		fmt.Fprint(w, body(r))
	}
}

func always(s string) func(*http.Request) string { return func(*http.Request) string { return s } }

// A validator may be too coarse to tell what an invalidation has told another
// instance, and this one has not heard of. While a slot is on its way to another server
// an invalidation ends an era instead, which is in no log.
func TestAResponseInvalidatedByAnotherInstanceIsNotFreshened(t *testing.T) {
	for name, target := range map[string]core.Target{
		"tag": core.Tag("t"), "path": core.Path("/x"), "pattern": core.Pattern("http://example.com/*"), "all": core.All(),
	} {
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			for _, migrating := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s %s migrating %v", name, method, migrating), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { renewUnheard(t, target, method, migrating) })
				})
			}
		}
	}
}

func renewUnheard(t *testing.T, target core.Target, method string, migrating bool) {
	server := memtier.New(memtier.Config{})
	defer server.Close()
	var data atomic.Int64
	changed := time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat)
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Last-Modified", changed)
		w.Header().Set("Cache-Control", "max-age=3600")
		if r.Header.Get("If-Modified-Since") == changed {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		fmt.Fprint(w, data.Load())
	})
	class := core.Class{TTL: time.Hour}
	ca, cb := cacheOf(t, class, server.Tier("a")), cacheOf(t, class, server.Tier("b"))
	a, b := nethttp.Cache(ca, "c", "t")(h), nethttp.Cache(cb, "c", "t")(h)
	synctest.Wait()
	server.SetFaults(memtier.Faults{HintLost: 1})
	require.Equal(t, "0", ask(a, http.MethodGet).Body.String())
	require.Equal(t, "0", ask(b, http.MethodGet).Body.String())
	data.Store(1)
	for p := range tier.DefaultPartitions {
		server.Migrating(p, migrating)
	}
	require.NoError(t, cb.Invalidate(t.Context(), target))
	for p := range tier.DefaultPartitions {
		server.Migrating(p, false)
	}
	ask(a, method, "Cache-Control", "no-cache") // a has not heard of it
	time.Sleep(2 * time.Second)
	require.Equal(t, "1", ask(a, http.MethodGet).Body.String())
	require.Equal(t, "1", ask(b, http.MethodGet).Body.String())
}

func TestFieldsOfOuterMiddlewareHoldAfterA304(t *testing.T) {
	language := func(r *http.Request) string { return r.Header.Get("Accept-Language") }
	synctest.Test(t, func(t *testing.T) {
		inner := nethttp.Cache(cacheOf(t, core.Class{TTL: time.Minute}, nil), "c")(page(func(r *http.Request) string { return `"` + language(r) + `"` }, language))
		h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Vary", "Accept-Language")
			w.Header().Set("Cache-Control", "max-age=5")
			inner.ServeHTTP(w, r)
		})
		require.Equal(t, "de", ask(h, http.MethodGet, "Accept-Language", "de").Body.String())
		for range 2 {
			time.Sleep(6 * time.Second)
			w := ask(h, http.MethodGet, "Accept-Language", "de")
			require.Equal(t, "de", w.Body.String())
			require.Equal(t, "Larder; fwd=stale; fwd-status=304; stored", said(w))
			require.Equal(t, "Larder; hit; ttl=5", said(ask(h, http.MethodGet, "Accept-Language", "de")))
		}
		require.Equal(t, "en", ask(h, http.MethodGet, "Accept-Language", "en").Body.String())
		require.Equal(t, "de", ask(h, http.MethodGet, "Accept-Language", "de").Body.String())
	})
}

func TestA304ThatIsFlushedIsTheCachesAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		plain := page(always(`"a"`), always("page"))
		h := nethttp.Cache(cacheOf(t, core.Class{TTL: time.Minute}, nil), "c")(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			plain(w, r)
			if r.Header.Get("If-None-Match") != "" {
				_ = http.NewResponseController(w).Flush()
			}
		}))
		ask(h, http.MethodGet)
		time.Sleep(61 * time.Second)
		w := ask(h, http.MethodGet)
		require.Equal(t, http.StatusOK, w.Code)
		require.Equal(t, "page", w.Body.String())
	})
}

func TestFieldsThatAreWrittenInAnotherCaseAreTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runs := 0
		h := nethttp.Cache(cacheOf(t, core.Class{TTL: time.Minute}, nil), "c")(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			runs++
			w.Header().Set("Cache-Control", `private="set-cookie"`)
			w.Header()["ETag"] = []string{`"a"`}
			w.Header()["set-cookie"] = []string{fmt.Sprint("session=", runs)}
			if r.Header.Get("If-None-Match") == `"a"` {
				w.WriteHeader(http.StatusNotModified)
				return
			}
			fmt.Fprint(w, "page")
		}))
		ask(h, http.MethodGet)
		require.Empty(t, ask(h, http.MethodGet).Result().Cookies(), "another client's")
		time.Sleep(61 * time.Second)
		w := ask(h, http.MethodGet)
		require.Equal(t, "Larder; fwd=stale; fwd-status=304; stored", said(w))
		require.Equal(t, "session=2", w.Header().Get("Set-Cookie"), "this client's own")
		require.Equal(t, http.StatusNotModified, ask(h, http.MethodGet, "If-None-Match", `"a"`).Code)
		require.Empty(t, ask(h, http.MethodGet).Result().Cookies())
	})
}

func TestTagsThatARenewalNamesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cache, n := cacheOf(t, core.Class{TTL: time.Minute}, nil), 0
		plain := page(always(`"a"`), always("page"))
		h := nethttp.Cache(cache, "c")(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			for range 40 {
				n++
				require.NoError(t, core.AddTags(r.Context(), fmt.Sprint("tag", n)))
			}
			plain(w, r)
		}))
		ask(h, http.MethodGet)
		time.Sleep(61 * time.Second)
		w := ask(h, http.MethodGet)
		require.Equal(t, "page", w.Body.String())
		require.Equal(t, "Larder; fwd=stale; fwd-status=304; detail=too-many-tags", said(w))
	})
}

func TestARequestWithNoCacheGetsNoOlderResponse(t *testing.T) {
	t.Run("in place of an error", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			status := http.StatusOK
			h := nethttp.Cache(cacheOf(t, core.Class{TTL: time.Hour, StaleIfError: time.Hour}, nil), "c")(http.HandlerFunc(
				func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
			ask(h, http.MethodGet)
			status = http.StatusServiceUnavailable
			time.Sleep(61 * time.Minute)
			require.Equal(t, status, ask(h, http.MethodGet, "Cache-Control", "no-cache").Code)
			require.Equal(t, http.StatusOK, ask(h, http.MethodGet).Code)
		})
	})
	t.Run("that another one finds in the shared tier", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			server := memtier.New(memtier.Config{})
			defer server.Close()
			var runs atomic.Int64
			h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, runs.Add(1)) })
			class := core.Class{TTL: time.Hour}
			a := nethttp.Cache(cacheOf(t, class, server.Tier("a")), "c")(h)
			b := nethttp.Cache(cacheOf(t, class, server.Tier("b")), "c")(h)
			synctest.Wait()
			require.Equal(t, "1", ask(a, http.MethodGet).Body.String())
			time.Sleep(3 * time.Second) // b does not rest yet: after a rest its requests wait together, and any of them may lead
			server.SetFaults(memtier.Faults{Request: memtier.Delay{Min: 5 * time.Millisecond, Max: 5 * time.Millisecond}})
			var all sync.WaitGroup
			all.Go(func() { require.Equal(t, "1", ask(b, http.MethodGet).Body.String()) })
			time.Sleep(time.Millisecond)
			for _, directive := range []string{"no-cache", "max-age=1"} {
				all.Go(func() {
					require.NotEqual(t, "1", ask(b, http.MethodGet, "Cache-Control", directive).Body.String(), directive)
				})
			}
			all.Wait()
		})
	})
}

func TestAFailureIsNotStoredForItsValidator(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int64
		h := nethttp.Cache(cacheOf(t, core.Class{TTL: time.Minute}, nil), "c")(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if n := now.Add(1); n > most.Load() {
				most.Store(n)
			}
			defer now.Add(-1)
			time.Sleep(time.Second)
			w.Header().Set("Cache-Control", "no-cache")
			w.Header().Set("Etag", `"failed"`)
			w.WriteHeader(http.StatusInternalServerError)
		}))
		var all sync.WaitGroup
		for range 30 {
			all.Go(func() { require.Equal(t, http.StatusInternalServerError, ask(h, http.MethodGet).Code) })
		}
		all.Wait()
		require.LessOrEqual(t, most.Load(), int64(core.DefaultMaxLoadsAfterError))
	})
}

// panicking is a tier that panics.
type panicking struct {
	core.Remote
	on *atomic.Bool
}

func (p panicking) Open(ctx context.Context, l tier.Layout) (tier.Session, error) {
	s, err := p.Remote.Open(ctx, l)
	return panickingSession{s, p.on}, err
}

type panickingSession struct {
	tier.Session
	on *atomic.Bool
}

func (p panickingSession) Get(ctx context.Context, key string, tags []string) (tier.Entry, []string, error) {
	if p.on.Load() {
		panic("oops")
	}
	return p.Session.Get(ctx, key, tags)
}

func TestATierThatPanicsBlocksNoRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := memtier.New(memtier.Config{})
		defer server.Close()
		var on atomic.Bool
		h := nethttp.Cache(cacheOf(t, core.Class{TTL: time.Hour}, panicking{server.Tier("a"), &on}), "c")(page(always(`"a"`), always("page")))
		synctest.Wait()
		on.Store(true)
		require.PanicsWithValue(t, "oops", func() { ask(h, http.MethodGet) })
		on.Store(false)
		start := time.Now()
		require.Equal(t, http.StatusOK, ask(h, http.MethodGet).Code)
		require.Zero(t, time.Since(start))
	})
}
