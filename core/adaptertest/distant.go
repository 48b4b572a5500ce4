package adaptertest

import (
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/test/memtier"
)

// away gives the site, before its first request, a shared tier at a round trip, and lets
// the cache measure that.
func (s *site) away(trip time.Duration) {
	s.Helper()
	server := memtier.New(memtier.Config{})
	s.Cleanup(server.Close)
	way := memtier.Delay{Min: trip / 2, Max: trip / 2}
	server.SetFaults(memtier.Faults{Request: way, Reply: way, HintDelay: way})
	s.open(core.Options{Classes: classes(), Remote: server.Tier("away")})
	time.Sleep(15 * time.Second)
}

// Over a shared tier whose round trip is as long as a request may wait, or longer.
func distantCases() []testCase {
	const settled = 5 * time.Second // the work after a response has ended
	cases := []testCase{
		within("a request joins a response that is on its way to a distant tier", func(s *site) {
			s.away(30 * time.Millisecond)
			p := &page{}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			s.get("/p/1").is("run 1").says("Larder; fwd=uri-miss; detail=storing")
			s.get("/p/1").is("run 1").says("Larder; fwd=uri-miss; collapsed")
			time.Sleep(time.Millisecond) // the fill reaches the tier before the next request does
			s.get("/p/1", "Cache-Control: no-cache").is("run 2")
			time.Sleep(settled)
			require.NotEqual(s, "run 1", s.get("/p/1").isHit().body)
		}),

		within("variants on their way to a distant tier stay apart", func(s *site) {
			s.away(30 * time.Millisecond)
			p := &page{fields: []string{"Vary: X-A"}, body: says("X-A")}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			s.get("/p/1", "X-A: 1").is(`X-A ["1"] run 1`)
			s.get("/p/1", "X-A: 2").is(`X-A ["2"] run 2`)
			time.Sleep(settled)
			s.get("/p/1", "X-A: 1").is(`X-A ["1"] run 1`).isHit()
			s.get("/p/1", "X-A: 2").is(`X-A ["2"] run 2`).isHit()
		}),

		within("an uncacheable response runs once per request at any distance", func(s *site) {
			s.away(400 * time.Millisecond)
			p := &page{fields: []string{"Cache-Control: no-store"}}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			s.get("/p/1").is("run 1")
			time.Sleep(settled)
			s.get("/p/1").is("run 2")
		}),
	}
	for _, trip := range []time.Duration{30 * time.Millisecond, 60 * time.Millisecond, 120 * time.Millisecond, 400 * time.Millisecond} {
		cases = append(cases, within("responses are stored, renewed and invalidated in a tier at "+trip.String(), func(s *site) {
			s.away(trip)
			o := &original{etag: `"v1"`}
			o.fields = []string{"Cache-Control: max-age=60"}
			s.handle("GET /p/{id}", func(c Ctx) error {
				if err := core.AddTags(c.Context(), "late"); err != nil {
					return err
				}
				return o.serve(c)
			}, s.cached("hour", "early"))
			get := func() answer {
				began := time.Now()
				a := s.get("/p/1")
				require.LessOrEqual(s, time.Since(began), 50*time.Millisecond, "the budget")
				return a
			}
			get().isNoHit()
			time.Sleep(settled)
			get().isHit()
			for _, tag := range []string{"late", "early"} {
				require.NoError(s, s.cache.Invalidate(s.Context(), core.Tag(tag)))
				get().isNoHit()
				time.Sleep(settled)
				get().isHit()
			}
			time.Sleep(time.Minute)
			get().isNoHit()
			time.Sleep(settled)
			get().isHit()
		}))
	}
	return cases
}
