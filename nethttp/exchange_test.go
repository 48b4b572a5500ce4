package nethttp

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/httpcache"
)

// A refresh begins when the exchange of the stale hit may serve another request already.
func TestARefreshRunsTheHandlerOfItsOwnRequest(t *testing.T) {
	var ran []string
	handler := func(name string) http.Handler {
		return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { ran = append(ran, name+r.URL.Path) })
	}
	begin := func(x *exchange, path, name string) {
		x.Begin(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, path, nil))
		x.next = handler(name)
	}
	// given: an exchange that is detached and answered
	x := new(exchange)
	begin(x, "/a", "first")
	refresh := x.Detach()
	x.Reply(httpcache.Answer{Status: http.StatusOK})
	require.True(t, x.End())
	// when: it serves another request, and then the refresh runs
	begin(x, "/b", "second")
	refresh(t.Context(), func(again httpcache.Exchange) {
		require.NoError(t, again.Run(context.Background(), nil))
	})
	// then
	require.Equal(t, []string{"first/a"}, ran)
}

func TestAnExchangeWhoseHandlerRanIsNotReused(t *testing.T) {
	for name, answer := range map[string]func(x *exchange){
		"not answered":   func(*exchange) {},
		"by the handler": func(x *exchange) { require.NoError(t, x.Run(t.Context(), nil)) },
		"by the handler, and anew": func(x *exchange) {
			require.NoError(t, x.Run(t.Context(), &httpcache.Capture{Limit: 1}))
			x.Reply(httpcache.Answer{Status: 200})
		},
	} {
		t.Run(name, func(t *testing.T) {
			x := &exchange{next: http.NotFoundHandler()}
			x.Begin(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil))
			answer(x)
			require.False(t, x.End())
		})
	}
}
