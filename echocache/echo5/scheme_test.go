package echo5_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/labstack/echo/v5"
	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/echocache/echo5"
)

// from asks as a client or proxy at an address.
func from(h http.Handler, addr string, fields ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.RemoteAddr = addr
	for i := 0; i < len(fields); i += 2 {
		r.Header.Add(fields[i], fields[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func showScheme(c *echo.Context) error {
	return c.String(http.StatusOK, c.Scheme()+"://"+c.Request().Host)
}

func TestASchemeOfAPrivateProxyIsPartOfTheKey(t *testing.T) {
	const proxy, client = "10.0.0.7:1234", "203.0.113.9:1234"
	e := newEcho()
	e.GET("/", showScheme, echo5.Cache(newCache(t), "hour"))
	require.Equal(t, "http://example.com", from(e, client).Body.String())
	for _, field := range []string{"X-Forwarded-Proto", "X-Forwarded-Protocol", "X-Url-Scheme"} {
		for _, scheme := range []string{"https", "wss", "http"} {
			// when: a proxy says it
			require.Equal(t, scheme+"://example.com", from(e, proxy, field, scheme).Body.String(), field)
			// then: nobody else has it
			require.Equal(t, "http://example.com", from(e, client).Body.String())
			require.Equal(t, "http://example.com", from(e, client, field, scheme).Body.String(), "a client is not believed")
		}
	}
	require.Equal(t, "https://example.com", from(e, proxy, "X-Forwarded-Ssl", "on").Body.String())
	require.True(t, isHit(from(e, proxy, "X-Forwarded-Proto", "https")), "one that is believed is kept like any other")
	require.True(t, isHit(from(e, client, "X-Forwarded-Proto", "https")), "one that is not, as none")
}

func TestASchemeOfAnExtractorIsPartOfTheKey(t *testing.T) {
	e := newEcho()
	e.SchemeExtractor = func(r *http.Request) string {
		if s := r.Header.Get("CloudFront-Forwarded-Proto"); s != "" {
			return s
		}
		return "http"
	}
	e.GET("/", showScheme, echo5.Cache(newCache(t), "hour"))
	for range 2 {
		for _, scheme := range []string{"javascript", "https", "http"} {
			w := from(e, "203.0.113.9:1234", "CloudFront-Forwarded-Proto", scheme)
			require.Equal(t, scheme+"://example.com", w.Body.String())
		}
		require.Equal(t, "http://example.com", from(e, "203.0.113.9:1234").Body.String())
	}
}
