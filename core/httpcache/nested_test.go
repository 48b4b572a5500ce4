package httpcache_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/test/memtier"
	"github.com/larderhq/larder/nethttp"
)

// A page is made of a value of a Map that is legal yet, for this instance has not heard
// of its invalidation: the page must not outlive that.
func TestAPageMadeOfAMapValueThatIsInvalidatedUnheardIsNotKept(t *testing.T) {
	for _, late := range []bool{false, true} {
		t.Run(fmt.Sprint("named late: ", late), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := memtier.New(memtier.Config{})
				defer server.Close()
				version := int64(1)
				load := func(context.Context, int64) (int64, error) { return version, nil }
				open := func(name string) (*core.Map[int64, int64], func() string) {
					c, err := core.New(core.Options{
						Remote: server.Tier(name), Classes: core.Classes{"c": {TTL: time.Hour}}, Logger: slog.New(slog.DiscardHandler),
					})
					require.NoError(t, err)
					t.Cleanup(func() { require.NoError(t, c.Close()) })
					users, err := core.NewMap(c, core.MapOptions[int64, int64]{Class: "c", Prefix: "user"})
					require.NoError(t, err)
					tags := []string{"user:{id}"}
					if late {
						tags = nil
					}
					mux := http.NewServeMux()
					mux.Handle("GET /users/{id}", nethttp.Cache(c, "c", tags...)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						if late {
							require.NoError(t, core.AddTags(r.Context(), "user:1"))
						}
						v, err := users.Get(r.Context(), 1, load)
						require.NoError(t, err)
						fmt.Fprint(w, v)
					})))
					synctest.Wait()
					return users, func() string {
						w := httptest.NewRecorder()
						mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/users/1", nil))
						return w.Body.String()
					}
				}
				atA, pageA := open("a")
				atB, pageB := open("b")
				_, err := atB.Get(t.Context(), 1, load)
				require.NoError(t, err)
				server.SetFaults(memtier.Faults{HintLost: 1})
				version = 2
				require.NoError(t, atA.Invalidate(t.Context(), 1))
				pageB() // within MaxStaleness it may be either
				time.Sleep(time.Second + time.Millisecond)
				require.Equal(t, "2", pageB())
				require.Equal(t, "2", pageA())
			})
		})
	}
}
