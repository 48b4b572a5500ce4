package nethttp_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/redis/go-redis/v9" //nolint:depguard // a tier that cannot be reached is made of a client
	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/redisstore"
	"github.com/larderhq/larder/nethttp"
)

// away returns a shared tier that cannot be reached.
func away(t *testing.T) core.Remote {
	t.Helper()
	client := redis.NewClient(&redis.Options{
		Addr:       "127.0.0.1:6379",
		Dialer:     func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("connection refused") },
		MaxRetries: -1,
	})
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	return redisstore.New(client)
}

func TestConfirmWritesDecidesAboutAWriteWithoutTheSharedTier(t *testing.T) {
	cache, err := core.New(core.Options{
		Remote:  away(t),
		Classes: core.Classes{"strict": {ConfirmWrites: true}},
		Logger:  slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	defer func() { require.NoError(t, cache.Close()) }()
	runs := 0
	update := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		runs++
		w.WriteHeader(http.StatusNoContent)
	})
	put := func(wrap func(http.Handler) http.Handler) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		wrap(update).ServeHTTP(w, httptest.NewRequest(http.MethodPut, "/p/1", http.NoBody))
		return w
	}

	require.Equal(t, http.StatusNoContent, put(nethttp.Invalidate(cache, "p")).Code)
	require.Equal(t, 1, runs)
	require.Positive(t, cache.Stats().Pending, "it is tried until it succeeds")

	strict, err := nethttp.WriteRoute{Cache: cache, Class: "strict", Tags: []string{"p"}}.Middleware()
	require.NoError(t, err)
	w := put(strict)
	require.Equal(t, http.StatusServiceUnavailable, w.Code)
	require.Equal(t, "1", w.Header().Get("Retry-After"))
	require.Equal(t, 1, runs, "the handler has not run")

	require.NoError(t, cache.SetClasses(core.Classes{"strict": {}}))
	require.Equal(t, http.StatusNoContent, put(strict).Code)
	require.Equal(t, 2, runs)
}

func TestAMalformedWriteRouteReturnsAConfigError(t *testing.T) {
	cache, err := core.New(core.Options{})
	require.NoError(t, err)
	defer func() { require.NoError(t, cache.Close()) }()
	for field, w := range map[string]nethttp.WriteRoute{
		"cache": {Tags: []string{"p"}},
		"class": {Cache: cache, Class: "no such class", Tags: []string{"p"}},
		"tags":  {Cache: cache},
	} {
		_, err := w.Middleware()
		var wrong *core.ConfigError
		require.ErrorAs(t, err, &wrong)
		require.Equal(t, field, wrong.Field)
	}
}
