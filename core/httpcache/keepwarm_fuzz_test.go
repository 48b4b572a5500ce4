package httpcache

import (
	"net/http"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/internal/naming"
)

// A request that a note describes is made as a client would make it, or not at all.
func FuzzHotRequest(f *testing.F) {
	f.Add("http://example.com/p/1?q=a\nAccept: */*\nAccept-Language: de")
	f.Add("https://example.com/\nCookie: a=b")
	f.Add("/p/1")
	f.Fuzz(func(t *testing.T, name string) {
		r, err := hotRequest(t.Context(), name)
		if err != nil {
			return
		}
		require.Equal(t, http.MethodGet, r.Method)
		require.NotEmpty(t, r.Host)
		for field, values := range r.Header {
			require.True(t, slices.Contains(negotiated, field))
			require.False(t, slices.ContainsFunc(values, naming.HasControl))
		}
	})
}
