package httpcache_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/httpcache"
	"github.com/larderhq/larder/nethttp"
)

// keptWarm is a server whose responses are kept warm.
type keptWarm struct {
	t     *testing.T
	cache *core.Cache
	mux   *http.ServeMux

	mu     sync.Mutex
	ran    []string // what the handler was asked for
	asked  []http.Header
	rounds []core.KeepWarmRound
}

func keepWarm(t *testing.T, policy core.HTTPPolicy, test func(k *keptWarm)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		k := newKeptWarm(t, policy)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		defer cancel()
		go func() {
			ended <- httpcache.KeepWarm(ctx, k.cache, k.mux, core.KeepWarmOptions{Progress: func(r core.KeepWarmRound) {
				k.mu.Lock()
				defer k.mu.Unlock()
				k.rounds = append(k.rounds, r)
			}})
		}()
		synctest.Wait()
		test(k)
		cancel()
		require.ErrorIs(t, <-ended, context.Canceled)
	})
}

func newKeptWarm(t *testing.T, policy core.HTTPPolicy) *keptWarm {
	cache, err := core.New(core.Options{Classes: core.Classes{"c": {TTL: time.Minute, HTTP: policy}}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, cache.Close()) })
	k := &keptWarm{t: t, cache: cache, mux: http.NewServeMux()}
	page := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		k.mu.Lock()
		k.ran = append(k.ran, r.URL.RequestURI())
		k.asked = append(k.asked, r.Header.Clone())
		k.mu.Unlock()
		switch r.PathValue("id") {
		case "varied":
			w.Header().Set("Vary", "Accept-Language")
		case "agent":
			w.Header().Set("Vary", "User-Agent")
		case "cookies":
			w.Header().Set("Cache-Control", "public")
		}
		fmt.Fprint(w, r.URL.Query(), r.Header.Get("Accept-Language"))
	})
	k.mux.Handle("GET /p/{id}", nethttp.Cache(cache, "c", "p:{id}")(page))
	own, err := nethttp.Route{Cache: cache, Class: "c", Identity: func(*http.Request) (string, bool) { return "me", true }}.Middleware()
	require.NoError(t, err)
	k.mux.Handle("GET /own", own(page))
	return k
}

// get asks three times: the first of them is no hit.
func (k *keptWarm) get(target string, fields ...string) {
	k.t.Helper()
	for range 4 {
		r := httptest.NewRequestWithContext(k.t.Context(), http.MethodGet, target, http.NoBody)
		for i := 0; i < len(fields); i += 2 {
			r.Header.Set(fields[i], fields[i+1])
		}
		w := httptest.NewRecorder()
		k.mux.ServeHTTP(w, r)
		require.Equal(k.t, http.StatusOK, w.Code)
	}
}

// loaded returns what the handler was asked for since the last time.
func (k *keptWarm) loaded() []string {
	synctest.Wait()
	k.mu.Lock()
	defer k.mu.Unlock()
	ran := k.ran
	k.ran, k.asked = nil, nil
	return ran
}

func TestKeepWarmReloadsAHotPageBeforeItExpires(t *testing.T) {
	keepWarm(t, core.HTTPPolicy{}, func(k *keptWarm) {
		t := k.t
		k.get("/p/1?b=2&a=1", "Accept-Language", "de", "User-Agent", "me")
		require.Equal(t, []string{"/p/1?b=2&a=1"}, k.loaded())
		time.Sleep(58 * time.Second)
		synctest.Wait()
		require.Len(t, k.asked, 1)
		require.Empty(t, k.asked[0], "nothing of who asked")
		require.Equal(t, []string{"/p/1?b=2&a=1"}, k.loaded())
		time.Sleep(5 * time.Second)
		k.get("/p/1?b=2&a=1")
		require.Empty(t, k.loaded())
	})
}

func TestKeepWarmLoadsAnInvalidatedHotPageInTheNextRound(t *testing.T) {
	keepWarm(t, core.HTTPPolicy{}, func(k *keptWarm) {
		t := k.t
		k.get("/p/1")
		require.NoError(t, k.cache.Invalidate(t.Context(), core.Tag("p:1")))
		k.loaded()
		time.Sleep(10 * time.Second)
		require.Equal(t, []string{"/p/1"}, k.loaded())
		k.get("/p/1")
		require.Empty(t, k.loaded())
		synctest.Wait()
		last := k.rounds[len(k.rounds)-1]
		require.Equal(t, 1, last.Filled)
	})
}

func TestKeepWarmKeepsBothVariantsOfAHotPage(t *testing.T) {
	keepWarm(t, core.HTTPPolicy{}, func(k *keptWarm) {
		t := k.t
		k.get("/p/varied", "Accept-Language", "de")
		k.get("/p/varied", "Accept-Language", "fr")
		k.loaded()
		time.Sleep(58 * time.Second)
		require.Len(t, k.loaded(), 2)
		time.Sleep(5 * time.Second)
		k.get("/p/varied", "Accept-Language", "de")
		k.get("/p/varied", "Accept-Language", "fr")
		require.Empty(t, k.loaded())
	})
}

func TestHitsOfPersonalPagesAreNotRecordedForKeepWarm(t *testing.T) {
	keepWarm(t, core.HTTPPolicy{}, func(k *keptWarm) {
		t := k.t
		k.get("/own")
		k.get("/p/agent", "User-Agent", "x")
		k.get("/p/cookies", "Cookie", "session=1")
		k.get("/p/cookies", "Authorization", "Bearer x")
		k.loaded()
		time.Sleep(3 * time.Minute)
		require.Empty(t, k.loaded())
		for _, r := range k.rounds {
			require.Zero(t, r.Hot)
		}
	})
}

func TestKeepWarmRefusesASecondCallForOneCache(t *testing.T) {
	keepWarm(t, core.HTTPPolicy{}, func(k *keptWarm) {
		t := k.t
		var ce *core.ConfigError
		require.ErrorAs(t, httpcache.KeepWarm(t.Context(), k.cache, k.mux, core.KeepWarmOptions{}), &ce)
		require.ErrorAs(t, httpcache.KeepWarm(t.Context(), k.cache, k.mux, core.KeepWarmOptions{Top: -1}), &ce)
		require.ErrorAs(t, httpcache.KeepWarm(t.Context(), nil, k.mux, core.KeepWarmOptions{}), &ce)
		require.ErrorAs(t, httpcache.KeepWarm(t.Context(), k.cache, nil, core.KeepWarmOptions{}), &ce)
		require.ErrorAs(t, httpcache.KeepWarmFunc(t.Context(), k.cache, core.KeepWarmOptions{}, nil), &ce)
	})
}
