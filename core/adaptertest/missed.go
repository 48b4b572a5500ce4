package adaptertest

import (
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
)

// Rules without which, at first, no case failed.
func missedCases() []testCase {
	return []testCase{
		within("a renewed response still varies on outer middleware's Vary", func(s *site) {
			o := &original{etag: `"v1"`}
			o.fields, o.body = []string{"Vary: X-A", "Cache-Control: max-age=60"}, says("X-B")
			outer := Around(func(c Ctx, next func() error) error {
				c.Add("Vary", "X-B")
				return next()
			})
			s.handle("GET /p/{id}", o.serve, outer, s.cached("hour"))
			s.get("/p/1", "X-A: 1", "X-B: 1").is(`X-B ["1"] run 1`)
			time.Sleep(time.Minute)
			s.get("/p/1", "X-A: 1", "X-B: 1").is(`X-B ["1"] run 1`).says(renewed)
			s.get("/p/1", "X-A: 1", "X-B: 1").is(`X-B ["1"] run 1`).isHit()
			s.get("/p/1", "X-A: 1", "X-B: 2").is(`X-B ["2"] run 3`).isNoHit()
		}),

		within("a 304 does not restore the Age of the first response", func(s *site) {
			o := &original{etag: `"v1"`}
			o.fields = []string{"Cache-Control: max-age=60", "Age: 30"}
			s.handle("GET /p/{id}", o.serve, s.cached("hour"))
			s.get("/p/1").is("run 1")
			time.Sleep(30 * time.Second)
			s.get("/p/1").is("run 1").says(renewed)
			time.Sleep(time.Minute - time.Nanosecond)
			s.get("/p/1").is("run 1").isHit()
			time.Sleep(time.Nanosecond)
			s.get("/p/1").is("run 1").says(renewed)
		}),

		// Each of these resembles another one once its lines are joined.
		over("a named field split into other lines is another variant", func(s *site) {
			p := &page{body: says("X-Tenant")}
			s.handle("GET /p/{id}", p.serve, s.cached("headers"))
			lists := [][]string{{"ab", "c"}, {"a", "bc"}, {"a", "b,c"}, {"a,b", "c"}, {"a,b,c"}, {"a", "b", "c"}}
			bodies := make([]string, len(lists))
			for round := range 2 {
				for i, lines := range lists {
					var fields []string
					for _, line := range lines {
						fields = append(fields, "X-Tenant: "+line)
					}
					a := s.get("/p/1", fields...)
					if round == 0 {
						bodies[i] = a.isNoHit().body
						continue
					}
					a.is(bodies[i]).isHit()
				}
			}
		}),

		over("spaces in a named field's list do not count", func(s *site) {
			p := &page{}
			s.handle("GET /p/{id}", p.serve, s.cached("headers"))
			s.get("/p/1", "X-Tenant: a, b").is("run 1").isNoHit()
			s.get("/p/1", "X-Tenant: a,b").is("run 1").isHit()
			s.get("/p/1", "X-Tenant:   a ,  b  ").is("run 1").isHit()
			s.get("/p/1", "X-Tenant: a b").is("run 2").isNoHit()
		}),

		over("NoStore counts after the response has begun", func(s *site) {
			p := &page{}
			s.handle("GET /p/{id}", func(c Ctx) error {
				if err := p.serve(c); err != nil {
					return err
				}
				return core.NoStore(c.Context())
			}, s.cached("hour"))
			s.get("/p/1").is("run 1").isNoHit()
			s.get("/p/1").is("run 2").isNoHit()
		}),

		// RFC 9111 section 5.2.2.6 binds all caches on the way, also beside CDN-Cache-Control.
		over("no-transform counts beside a CDN-Cache-Control without it", func(s *site) {
			text := strings.Repeat("a text that gets smaller. ", 200)
			p := &page{body: func(Ctx, int64) string { return text }, fields: []string{"CDN-Cache-Control: max-age=60", "Cache-Control: no-transform"}}
			s.handle("GET /p/{id}", p.serve, s.cached("encodings"))
			s.get("/p/1").is(text)
			a := s.get("/p/1", "Accept-Encoding: gzip").isHit()
			require.Empty(s, a.header.Values("Content-Encoding"))
			require.True(s, a.body == text)
		}),
	}
}
