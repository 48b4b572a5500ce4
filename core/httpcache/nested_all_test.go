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
	"github.com/larderhq/larder/core/internal/tier"
	"github.com/larderhq/larder/nethttp"
)

// overMany is a page made of values of a Map, none of which it names, over a tier of
// several partitions.
type overMany struct {
	t       *testing.T
	server  *memtier.Server
	version int64
	a, b    *manyAt
}

type manyAt struct {
	w     *overMany
	cache *core.Cache
	users *core.Map[int64, int64]
	mux   *http.ServeMux
}

func (w *overMany) open(name string) *manyAt {
	c, err := core.New(core.Options{
		Remote: w.server.Tier(name), Classes: core.Classes{"c": {TTL: time.Hour}}, Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(w.t, err)
	w.t.Cleanup(func() { require.NoError(w.t, c.Close()) })
	at := &manyAt{w: w, cache: c, mux: http.NewServeMux()}
	at.users, err = core.NewMap(c, core.MapOptions[int64, int64]{Class: "c", Prefix: "user"})
	require.NoError(w.t, err)
	at.mux.Handle("GET /page", nethttp.Cache(c, "c")(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		for id := range w.ids() {
			fmt.Fprint(rw, at.get(r.Context(), id), " ")
		}
	})))
	synctest.Wait()
	return at
}

// ids yields one id of each partition.
func (w *overMany) ids() func(func(int64) bool) {
	return func(yield func(int64) bool) {
		for p := range tier.DefaultPartitions {
			for id := int64(0); ; id++ {
				if tier.Partition(fmt.Sprint("user:", id), tier.DefaultPartitions) == p {
					if !yield(id) {
						return
					}
					break
				}
			}
		}
	}
}

func (at *manyAt) get(ctx context.Context, id int64) int64 {
	v, err := at.users.Get(ctx, id, func(context.Context, int64) (int64, error) { return at.w.version, nil })
	require.NoError(at.w.t, err)
	return v
}

func (at *manyAt) page() string {
	w := httptest.NewRecorder()
	at.mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/page", nil))
	require.Equal(at.w.t, http.StatusOK, w.Code)
	return w.Body.String()
}

func overManyPartitions(t *testing.T, test func(w *overMany, want string)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &overMany{t: t, server: memtier.New(memtier.Config{}), version: 1}
		defer w.server.Close()
		w.a, w.b = w.open("a"), w.open("b")
		want := ""
		for id := range w.ids() { // each has copies in its memory
			require.EqualValues(t, 1, w.a.get(t.Context(), id))
			require.EqualValues(t, 1, w.b.get(t.Context(), id))
			want += "2 "
		}
		test(w, want)
	})
}

func TestAPageLoadedBeforeAnUnheardInvalidationOfAllIsNotKept(t *testing.T) {
	overManyPartitions(t, func(w *overMany, want string) {
		w.server.SetFaults(memtier.Faults{HintLost: 1})
		w.version = 2
		done := make(chan error)
		go func() { done <- w.a.cache.Invalidate(w.t.Context(), core.All()) }()
		synctest.Wait() // it has been done, and no time has passed
		w.b.page()      // within MaxStaleness it may be either
		require.NoError(w.t, <-done)
		time.Sleep(time.Second + time.Millisecond)
		require.Equal(w.t, want, w.b.page())
		require.Equal(w.t, want, w.a.page())
	})
}

func TestAPageLoadedDuringAnInvalidationOfAllIsNotKept(t *testing.T) {
	for slow := range tier.DefaultPartitions {
		overManyPartitions(t, func(w *overMany, want string) {
			w.version = 2
			w.server.Freeze(true, slow)
			done := make(chan error)
			go func() { done <- w.a.cache.Invalidate(w.t.Context(), core.All()) }()
			synctest.Wait() // in the other partitions it has been done
			w.b.page()
			w.server.Freeze(false, slow)
			require.NoError(w.t, <-done)
			time.Sleep(time.Second + time.Millisecond)
			require.Equal(w.t, want, w.b.page(), "partition %d", slow)
			require.Equal(w.t, want, w.a.page())
		})
	}
}
