package adaptertest

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

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

		over("a field that outer middleware keeps or renames stays its own", func(s *site) {
			// given: middleware that renames a field of each hit, and keeps all values
			type kept struct{ values, copies []string }
			var mu sync.Mutex
			var all []kept
			p := &page{fields: []string{"X-Own: a", "X-Other: b"}, body: says("X-Page")}
			s.handle("GET /p/{id}", p.serve, AsSent(func(c Ctx) {
				if len(c.Values("X-Renames")) == 0 {
					return
				}
				h := c.ResponseWriter().Header()
				h["X-New"] = append(h["X-Own"], "more")
				delete(h, "X-Own")
				mu.Lock()
				defer mu.Unlock()
				for _, values := range h {
					all = append(all, kept{values, slices.Clone(values)})
				}
			}), s.cached("hour"))
			const pages = 3
			for i := range pages {
				s.get(fmt.Sprint("/p/", i)).isNoHit()
			}
			// when: hits with and without that middleware alternate
			for i := range 100 {
				a := s.get(fmt.Sprint("/p/", i%pages), "X-Renames: 1").isHit()
				require.Equal(s, []string{"a", "more"}, a.header.Values("X-New"))
				b := s.get(fmt.Sprint("/p/", (i+1)%pages)).isHit()
				require.Equal(s, []string{"a"}, b.header.Values("X-Own"))
				require.Equal(s, []string{"b"}, b.header.Values("X-Other"))
				require.NotContains(s, b.header, "X-New")
			}
			// then: what it has kept is as it was
			mu.Lock()
			defer mu.Unlock()
			require.NotEmpty(s, all)
			for _, k := range all {
				require.Equal(s, k.copies, k.values)
			}
		}, noResponseWriter),

		over("fields that outer middleware has set meet those of a hit", func(s *site) {
			p := &page{fields: []string{"X-Own: a", "Link: </a>; rel=preload"}}
			s.handle("GET /p/{id}", p.serve, Around(func(c Ctx, next func() error) error {
				if len(c.Values("X-Sets")) > 0 {
					for _, f := range []string{"Cache-Status: Outer; hit", "Accept-Ranges: none", "Link: </outer>; rel=preload", "X-Own: outer"} {
						name, value, _ := strings.Cut(f, ": ")
						c.Set(name, value)
					}
				}
				return next()
			}), s.cached("hour"))
			s.get("/p/1").isNoHit()
			for range 8 {
				h := s.get("/p/1", "X-Sets: 1").is("run 1").header
				require.Len(s, h.Values("Cache-Status"), 2)
				require.Equal(s, "Outer; hit", h.Values("Cache-Status")[0])
				require.Contains(s, h.Values("Cache-Status")[1], "Larder; hit; ttl=")
				require.Equal(s, []string{"none"}, h.Values("Accept-Ranges"))
				require.Equal(s, []string{"</outer>; rel=preload", "</a>; rel=preload"}, h.Values("Link"))
				require.Equal(s, []string{"a"}, h.Values("X-Own"))
				plain := s.get("/p/1").is("run 1").isHit().header
				require.Equal(s, []string{"bytes"}, plain.Values("Accept-Ranges"))
				require.Equal(s, []string{"</a>; rel=preload"}, plain.Values("Link"))
			}
		}),

		over("an encoded hit is the same after other hits", func(s *site) {
			p := &page{body: func(Ctx, int64) string { return strings.Repeat("a text that gets smaller. ", 200) }}
			s.handle("GET /p/{id}", p.serve, s.cached("encodings"))
			s.get("/p/1").isNoHit()
			first := map[string]answer{}
			for range 8 {
				for _, coding := range []string{"zstd", "gzip", "identity"} {
					for _, method := range []string{"GET", "HEAD"} {
						a := s.do(method, "/p/1", "Accept-Encoding: "+coding).isHit()
						a.header.Del("Age")
						a.header.Del("Cache-Status")
						want, ok := first[method+coding]
						if !ok {
							first[method+coding] = a
							continue
						}
						require.Equal(s, want.header, a.header)
						require.True(s, want.body == a.body, "the same content: %s %s", method, coding)
					}
				}
			}
			require.Len(s, first, 6)
			require.NotEqual(s, first["GETzstd"].header, first["GETgzip"].header)
		}),

		repeatedHits("a hit is the same after other hits of its second"),
		repeatedHits("a hit behind other middleware is the same after other hits", AsSent(func(c Ctx) {
			if len(c.Values("X-Adds")) > 0 {
				c.Add("X-Own", "more")
				c.Add("X-Outer", "1")
				c.Set("Content-Type", "text/changed")
			}
		})),
		repeatedHits("a hit behind middleware that sets a field is the same after other hits", Around(func(c Ctx, next func() error) error {
			if len(c.Values("X-Adds")) > 0 {
				c.Set("X-Outer", "1")
				c.Set("X-Own", "outer")
				c.Set("Content-Type", "text/outer")
			}
			return next()
		})),
	}
}

// repeatedHits asks for hits of several kinds, each more often than an adapter needs to
// prepare an answer. All of a kind are equal; in the next second only the Age and the
// remaining lifetime differ.
func repeatedHits(name string, outer ...Use) testCase {
	return within(name, func(s *site) {
		text := strings.Repeat("a text that gets smaller. ", 200)
		p := &page{
			fields: []string{"X-Own: a", "Vary: Accept-Language", "Link: </a>; rel=preload", "Cache-Control: max-age=3600"},
			body:   func(c Ctx, _ int64) string { return strings.Join(c.Values("Accept-Language"), "") + text },
		}
		s.handle("GET /p/{id}", p.serve, append(outer, s.cached("hour"))...)
		for _, path := range []string{"/p/1", "/p/2"} {
			for _, language := range []string{"en", "de"} {
				s.get(path, "Accept-Language: "+language).isNoHit()
			}
		}
		asks := [][]string{
			{}, {"Accept-Encoding: gzip"}, {"Accept-Encoding: br"}, {"Range: bytes=0-9"}, {"If-None-Match: *"}, {"If-Match: \"none\""}, {"X-Adds: 1"},
		}
		var first []answer
		for second := range int64(2) {
			for round := range 8 {
				i := 0
				for _, ask := range asks {
					for _, method := range []string{"GET", "HEAD"} {
						for _, language := range []string{"en", "de"} {
							for _, path := range []string{"/p/1", "/p/2"} {
								a := s.do(method, path, append([]string{"Accept-Language: " + language}, ask...)...)
								if a.status == 412 { // of the time at which it is sent
									a.header.Del("Date")
								} else {
									require.Equal(s, []string{fmt.Sprint(second)}, a.header.Values("Age"), ask)
								}
								require.Equal(s, fmt.Sprint("Larder; hit; ttl=", 3600-second), a.cacheStatus(), ask)
								a.header.Del("Age")
								a.header.Del("Cache-Status")
								if second == 0 && round == 0 {
									first = append(first, a)
								}
								require.Equal(s, first[i].status, a.status, ask)
								require.Equal(s, first[i].header, a.header, "%s %s", method, ask)
								require.True(s, first[i].body == a.body, "the same content: %s %s", method, ask)
								i++
							}
						}
					}
				}
			}
			time.Sleep(time.Second)
		}
		require.EqualValues(s, 4, p.runs.Load())
	})
}
