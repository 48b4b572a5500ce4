package adaptertest

import (
	"fmt"
	"strings"

	"github.com/stretchr/testify/require"
)

// A hit reads its request's fields once, and is answered by fields that are made once for
// all hits. Changes by middleware in front affect only its own request.
func hitCases() []testCase {
	const old, future = "Sun, 06 Nov 1994 08:49:37 GMT", "Fri, 31 Dec 2399 23:59:59 GMT"
	return []testCase{
		over("changes to the request by outer middleware count on a hit", func(s *site) {
			can := true
			p := &page{fields: []string{`Etag: "v"`, "Last-Modified: " + old, "Cache-Control: max-age=60"}}
			s.handle("GET /p/{id}", p.serve, Around(func(c Ctx, next func() error) error {
				r, ok := c.(RequestSetter)
				can = can && ok
				if name, value, is := strings.Cut(strings.Join(c.Values("X-Make"), ""), "="); ok && is {
					r.SetRequest(name, value)
				}
				return next()
			}), s.cached("hour"))
			for i, c := range []struct {
				makes  string
				status int
				hit    bool
			}{
				{`If-None-Match="v"`, 304, true},
				{"If-Modified-Since=" + future, 304, true},
				{`If-Match="w"`, 412, true},
				{"If-Unmodified-Since=" + "Sat, 05 Nov 1994 08:49:37 GMT", 412, true},
				{"Range=bytes=0-1", 206, true},
				{"Authorization=a", 200, false},
				{"X-Api-Key=a", 200, false},
				{"Tailscale-User-Login=a", 200, false},
				{"Cookie=a=b", 200, false},
				{"Origin=https://a.example", 200, false},
				{"Cache-Control=no-cache", 200, false},
				{"Pragma=no-cache", 200, false},
				{"Upgrade=h2c", 200, false},
				{"X-Other=a", 200, true},
			} {
				path := fmt.Sprint("/p/", i)
				stored := s.get(path).says("Larder; fwd=uri-miss; stored")
				if !can {
					s.Skip("its Ctx is no RequestSetter")
				}
				a := s.get(path, "X-Make: "+c.makes)
				require.Equal(s, c.status, a.status, c.makes)
				require.Equal(s, c.hit, a.hit(), "%s: %s", c.makes, a.cacheStatus())
				require.Equal(s, c.hit, a.body == stored.body || c.status != 200, c.makes)
			}
		}),

		over("outer middleware can add to a field of a hit", func(s *site) {
			for _, size := range []int{1, 5_000} { // the cache states the length of the longer one
				s := newSite(s.TB, s.f, s.by)
				body := strings.Repeat("x", size)
				p := &page{fields: []string{"X-One: a", "X-Two: b", "X-Three: c"}, body: func(Ctx, int64) string { return body }}
				s.handle("GET /p/{id}", p.serve, AsSent(func(c Ctx) {
					if len(c.Values("X-Adds")) > 0 {
						c.Add("X-One", "more")
						c.Add("X-Two", "more")
						c.Add("Accept-Ranges", "none")
						c.Add("Cache-Status", "Outer; hit")
					}
				}), s.cached("hour"))
				s.get("/p/1").is(body)
				for _, accepts := range [][]string{nil, {"Accept-Encoding: gzip"}} {
					plain := s.get("/p/1", accepts...).is(body).isHit()
					for range 3 {
						a := s.get("/p/1", append([]string{"X-Adds: 1"}, accepts...)...).is(body)
						require.Equal(s, []string{"a", "more"}, a.header.Values("X-One"))
						require.Equal(s, []string{"b", "more"}, a.header.Values("X-Two"))
						require.Equal(s, []string{"c"}, a.header.Values("X-Three"))
						require.Equal(s, plain.header.Values("Etag"), a.header.Values("Etag"))
						require.Equal(s, "Outer; hit", a.header.Values("Cache-Status")[1])
						b := s.get("/p/1", accepts...).is(body).isHit()
						for _, h := range []answer{plain, b} {
							h.header.Del("Age")
							h.header.Del("Cache-Status")
						}
						require.Equal(s, plain.header, b.header)
					}
				}
			}
		}),

		over("outer middleware's changes to a hit reach no other hit", func(s *site) {
			body := strings.Repeat("x", 5_000)
			p := &page{fields: []string{"X-Own: a"}, body: func(Ctx, int64) string { return body }}
			s.handle("GET /p/{id}", p.serve, AsSent(func(c Ctx) {
				w := c.ResponseWriter()
				if w == nil || len(c.Values("X-Tamper")) == 0 {
					return
				}
				for name, values := range w.Header() {
					if name == "X-Own" || name == "Etag" || name == "Accept-Ranges" || name == "Cache-Status" {
						values[0] = "tampered"
					}
				}
			}), s.cached("hour"))
			s.get("/p/1").is(body)
			for _, accepts := range [][]string{nil, {"Accept-Encoding: gzip"}} {
				want := s.get("/p/1", accepts...).is(body).isHit()
				const n = 10
				tampering := s.starts(n, "GET", "/p/1", append([]string{"X-Tamper: 1"}, accepts...)...)
				others := s.starts(n, "GET", "/p/1", accepts...)
				for i := range n {
					tampering[i].answer().is(body)
					a := others[i].answer().is(body).isHit()
					for _, name := range []string{"X-Own", "Etag", "Accept-Ranges", "Content-Length"} {
						require.Equal(s, want.header.Values(name), a.header.Values(name), name)
					}
				}
			}
			require.EqualValues(s, 1, p.runs.Load())
		}),
	}
}
