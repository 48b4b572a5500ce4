package adaptertest

import (
	"fmt"
	"runtime"
	"strings"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
)

// The promise "bounded".
func boundsCases() []testCase {
	return []testCase{
		over("a body up to MaxEntryBytes is stored, a larger one passes through", func(s *site) {
			p := &page{body: func(c Ctx, _ int64) string {
				var n int
				_, _ = fmt.Sscan(c.Param("id"), &n)
				return strings.Repeat("x", n)
			}}
			s.handle("GET /p/{id}", p.serve, s.cached("small"))
			body := strings.Repeat("x", smallBytes)
			s.get("/p/1000").is(body).says("Larder; fwd=uri-miss; stored")
			s.get("/p/1000").is(body).isHit()
			for range 2 {
				s.get("/p/1001").is(body + "x").says("Larder; fwd=uri-miss; detail=too-large")
			}
		}),

		over("the bound holds however the body is written", func(s *site) {
			s.handle("GET /p/{id}", func(c Ctx) error {
				for range smallBytes + 1 {
					if _, err := c.Write([]byte("x")); err != nil {
						return err
					}
				}
				return nil
			}, s.cached("small"))
			for range 2 {
				s.get("/p/1").is(strings.Repeat("x", smallBytes+1)).says("Larder; fwd=uri-miss; detail=too-large")
			}
		}),

		// Elsewhere: a response over the limit reached the waiting requests empty.
		within("waiting requests each run an oversized response themselves", func(s *site) {
			body := strings.Repeat("x", 10*smallBytes)
			p := &page{hold: s.gate(), body: func(_ Ctx, run int64) string { return fmt.Sprint(body, run) }}
			s.handle("GET /p/{id}", p.serve, s.cached("small"))
			all := s.starts(10, "GET", "/p/1")
			s.waiting(9)
			p.hold.open()
			bodies := map[string]bool{}
			for _, a := range all {
				a := a.answer().says("Larder; fwd=uri-miss; detail=too-large")
				require.True(s, strings.HasPrefix(a.body, body))
				bodies[a.body] = true
			}
			require.Len(s, bodies, 10)
		}),

		// Elsewhere: the bound counted bodies only, or metadata and body were two keys of which
		// one was evicted.
		over("MaxBytes bounds all that is stored; an entry is evicted whole", func(s *site) {
			const limit = 256 << 10
			s.open(core.Options{Classes: classes(), MaxBytes: limit})
			field := strings.Repeat("f", 2000)
			p := &page{fields: []string{"X-Large: " + field}, body: func(c Ctx, _ int64) string { return "body of " + c.Param("id") }}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			const pages = 400
			for round := range 2 {
				for i := range pages {
					id := fmt.Sprint(round, "-", i%(pages/(round+1)))
					require.Equal(s, field, s.get("/p/"+id).is("body of "+id).header.Get("X-Large"))
				}
			}
			s.settles(func() bool { return s.cache.Stats().Bytes <= limit }, "the store is within its bound")
			stats := s.cache.Stats()
			require.Less(s, stats.Entries, limit/len(field))
			require.Positive(s, stats.Evicted)
		}),

		// Elsewhere: eviction was linear under a lock, and an unlocked iteration ended the process.
		over("evictions and invalidations leave concurrent responses whole", func(s *site) {
			s.open(core.Options{Classes: classes(), MaxBytes: 64 << 10})
			filler := strings.Repeat("f", 2000)
			s.handle("GET /p/{id}", func(c Ctx) error { return c.Text(200, "body of "+c.Param("id")+filler) }, s.cached("hour", "p:{id}"))
			bad := make(chan answer, 8)
			for worker := range cap(bad) {
				go func() {
					for i := range 60 {
						id := fmt.Sprint((worker*7 + i) % 50)
						if a := s.get("/p/" + id); a.err != nil || a.status != 200 || a.body != "body of "+id+filler {
							bad <- a
							return
						}
						switch i % 20 {
						case 5:
							_ = s.cache.Invalidate(s.Context(), core.Tag("p:"+id))
						case 10:
							_ = s.cache.Invalidate(s.Context(), core.Pattern("*/p/1*"))
						case 15:
							_ = s.cache.Invalidate(s.Context(), core.All())
						}
					}
					bad <- answer{}
				}()
			}
			for range cap(bad) {
				require.Equal(s, answer{}, <-bad)
			}
			s.settles(func() bool { return s.cache.Stats().Bytes <= 64<<10 }, "the store is within its bound")
		}),

		// Elsewhere: requests with no-cache left bookkeeping behind until live entries were evicted.
		over("requests that say no-cache leave nothing behind", func(s *site) {
			p := &page{}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			s.get("/p/1").is("run 1")
			for range 100 {
				s.get("/p/1", "Cache-Control: no-cache").says("Larder; fwd=request; stored")
				s.get("/p/1", "Cache-Control: no-store, no-cache").says("Larder; fwd=request; detail=no-store")
			}
			require.EqualValues(s, 201, p.runs.Load())
			s.settles(func() bool { st := s.cache.Stats(); return st.Entries == 1 && st.Bytes < 4000 }, "one entry is kept")
			s.get("/p/1").isHit()
		}),

		// Elsewhere: a client filled the cache with one resource by varying a header or the query.
		over("a client cannot fill the store with parameters that do not matter", func(s *site) {
			p := &page{}
			s.handle("GET /p/{id}", p.serve, s.cached("query-q"))
			for i := range 100 {
				s.get(fmt.Sprintf("/p/1?q=1&x%d=%d", i, i)).is("run 1")
			}
			s.settles(func() bool { return s.cache.Stats().Entries == 1 }, "one entry is kept")
		}),

		// Elsewhere: each middleware leaked two goroutines.
		within("making middleware starts no goroutines", func(s *site) {
			s.get("/none")
			s.settles(func() bool { return true }, "the server runs")
			before := runtime.NumGoroutine()
			for i := range 100 {
				s.handle(fmt.Sprintf("GET /r%d/{id}", i), (&page{}).serve, s.cached("hour", "a", "b:{id}"))
				s.handle(fmt.Sprintf("PUT /r%d/{id}", i), (&page{}).serve, s.invalidates("a", "b:{id}"))
			}
			_ = s.f.New(s, s.app)
			require.LessOrEqual(s, runtime.NumGoroutine(), before)
		}),
	}
}
