package adaptertest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
)

// Loads that wait for others, and loads under way when the cache is closed.
func underWayCases() []testCase {
	return []testCase{
		within("requests under way are answered when the cache is closed", func(s *site) {
			p := &page{hold: s.gate()}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			all := s.starts(3, "GET", "/p/1")
			s.waiting(2)
			closed := s.closes()
			p.hold.open()
			for _, a := range all {
				a.answer().is("run 1")
			}
			closed()
			s.get("/p/1").is("run 2").says("")
			s.get("/p/1").is("run 3").says("")
		}),

		within("data of requests under way is loaded when the cache is closed", func(s *site) {
			db := newQuery(s)
			s.handle("GET /p/{id}", db.page, s.cached("hour"))
			s.handle("GET /q/{id}", db.page, s.cached("hour"))
			one, two := s.start("GET", "/p/1"), s.start("GET", "/q/1")
			s.settles(func() bool { return s.cache.Stats().Coalesced == 1 }, "both pages wait for one row")
			closed := s.closes()
			db.hold.open()
			one.answer().is("row 1")
			two.answer().is("row 1")
			closed()
			s.get("/p/1").is("row 1").says("")
		}),

		within("a request that waits for a refresh is answered after Close", func(s *site) {
			p := &page{}
			s.handle("GET /p/{id}", p.serve, s.cached("stale"))
			s.get("/p/1").is("run 1")
			time.Sleep(2*time.Minute - time.Second)
			p.hold = s.gate()
			s.get("/p/1").is("run 1") // stale for another second: refreshed in the background
			time.Sleep(2 * time.Second)
			waits := s.start("GET", "/p/1")
			s.waiting(1)
			closed := s.closes()
			p.hold.open()
			waits.answer().is("run 2")
			closed()
		}),

		within("pages whose data load each other do not deadlock", func(s *site) {
			users, err := core.NewMap(s.cache, core.MapOptions[string, string]{Class: "hour", Prefix: "user"})
			require.NoError(s, err)
			other := map[string]string{"1": "2", "2": "1"}
			leaf := func(_ context.Context, id string) (string, error) { return id, nil }
			s.handle("GET /p/{id}", func(c Ctx) error {
				v, err := users.Get(c.Context(), c.Param("id"), func(ctx context.Context, id string) (string, error) {
					time.Sleep(time.Second)
					_, err := users.Get(ctx, other[id], leaf)
					return id, err
				})
				if err != nil {
					v = err.Error()
				}
				return c.Text(http.StatusOK, v)
			}, s.cached("hour"))
			began := time.Now()
			one, two := s.start("GET", "/p/1"), s.start("GET", "/p/2")
			one.answer().is("1")
			two.answer().is("2")
			require.Equal(s, time.Second, time.Since(began))
		}),

		within("ids and patterns made of parameters survive their request", func(s *site) {
			users, err := core.NewMap(s.cache, core.MapOptions[string, string]{Class: "stale", Prefix: "user"})
			require.NoError(s, err)
			row := func(_ context.Context, id string) (string, error) {
				time.Sleep(time.Millisecond)
				return "row " + id, nil
			}
			s.handle("GET /u/{id}", func(c Ctx) error {
				v, err := users.Get(c.Context(), c.Param("id"), row)
				if err != nil {
					return c.Text(http.StatusInternalServerError, err.Error())
				}
				return c.Text(http.StatusOK, v)
			})
			s.handle("DELETE /c/{glob}", func(c Ctx) error {
				if err := s.cache.Invalidate(c.Context(), core.Pattern(c.Param("glob"))); err != nil {
					return c.Text(http.StatusInternalServerError, err.Error())
				}
				return c.Text(http.StatusOK, "done")
			})
			s.get("/u/ann").is("row ann")
			time.Sleep(90 * time.Second)
			s.get("/u/ann").is("row ann") // stale: refreshed in the background
			s.get("/u/bob").is("row bob")
			time.Sleep(time.Second)
			s.get("/u/ann").is("row ann")
			s.do("DELETE", "/c/user:a*").is("done")
			s.do("DELETE", "/c/other:*").is("done")
			loads := s.cache.Stats().Loads
			s.get("/u/ann").is("row ann")
			require.Equal(s, loads+1, s.cache.Stats().Loads, "the pattern in the log is another one")
		}),

		within("pages that ask for one row load it once", func(s *site) {
			db := newQuery(s)
			s.handle("GET /p/{id}", db.page, s.cached("hour"))
			all := []*pending{s.start("GET", "/p/1?a"), s.start("GET", "/p/1?b"), s.start("GET", "/p/1?c")}
			s.waiting(2)
			db.hold.open()
			for _, a := range all {
				a.answer().is("row 1")
			}
			require.Equal(s, 1, db.runs)
		}),
	}
}

// closes closes the cache in a goroutine, and returns a function that waits for it.
func (s *site) closes() (closed func()) {
	s.Helper()
	done := make(chan error, 1)
	go func() { done <- s.cache.Close() }()
	s.settles(func() bool { return !s.cache.Enabled() }, "the cache is closed")
	return func() { require.NoError(s, <-done) }
}

// query is a map whose loader is held, and notices the end of its context.
type query struct {
	*core.Map[string, string]
	hold *gate

	mu   sync.Mutex
	runs int
}

func newQuery(s *site) *query {
	s.Helper()
	m, err := core.NewMap(s.cache, core.MapOptions[string, string]{Class: "hour", Prefix: "row"})
	require.NoError(s, err)
	return &query{Map: m, hold: s.gate()}
}

// page answers the row of its parameter.
func (q *query) page(c Ctx) error {
	v, err := q.Get(c.Context(), c.Param("id"), func(ctx context.Context, id string) (string, error) {
		q.mu.Lock()
		q.runs++
		q.mu.Unlock()
		select {
		case <-q.hold.c:
			return "row " + id, nil
		case <-ctx.Done():
			return "", errors.New("the query was cancelled")
		}
	})
	if err != nil {
		v = fmt.Sprint("error: ", err)
	}
	return c.Text(http.StatusOK, v)
}
