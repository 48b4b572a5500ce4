package adaptertest

import (
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
)

// query sends a QUERY with content of type text/plain, unless fields name another type.
func (s *site) query(target, content string, fields ...string) answer {
	if len(fields) == 0 || !strings.HasPrefix(fields[0], "Content-Type:") {
		fields = append([]string{"Content-Type: text/plain"}, fields...)
	}
	return s.ask(request{method: "QUERY", target: target, body: content, fields: fields})
}

// results answers a QUERY by its content.
func results() *page {
	return &page{body: func(c Ctx, run int64) string { return fmt.Sprintf("%s %q run %d", c.Method(), c.Body(), run) }}
}

// Safe methods by IANA's registry invalidate nothing, and QUERY (RFC 10008) is cached.
func questionCases() []testCase {
	cases := []testCase{
		over("the content of a QUERY and its type are part of its identity", func(s *site) {
			p := results()
			s.handle("QUERY /p", p.serve, s.cached("hour"))
			s.handle("GET /p", p.serve, s.cached("hour"))
			asked := [][]string{
				{"a=1"}, {"a=1 "}, {"a=2"}, {"A=1"}, {""}, {strings.Repeat("x", 100_000)}, {strings.Repeat("x", 100_001)},
				{"a=1", "Content-Type: text/plain; charset=utf-8"}, {"a=1", "Content-Type: application/json"},
				{"a=1", "Content-Type: text/plain", "Content-Encoding: x-own"}, {"a=1", "Content-Type: text/plain", "Content-Language: de"},
			}
			bodies := make([]string, len(asked))
			for i, q := range asked {
				bodies[i] = s.query("/p", q[0], q[1:]...).says("Larder; fwd=uri-miss; stored").body
				require.Contains(s, bodies[i], fmt.Sprintf("QUERY %q run %d", q[0], i+1))
			}
			for i, q := range asked {
				s.query("/p", q[0], q[1:]...).is(bodies[i]).isHit()
			}
			s.query("/p?x=1", "a=1").isNoHit()
			require.Contains(s, s.get("/p").isNoHit().body, "GET")
			require.Contains(s, s.get("/p").isHit().body, "GET")
			s.query("/p", "a=1").is(bodies[0]).isHit()
			require.Empty(s, s.do("HEAD", "/p").isHit().body)
		}),

		over("a chunked QUERY has the same identity as one with a length", func(s *site) {
			p := results()
			s.handle("QUERY /p", p.serve, s.cached("hour"))
			s.query("/p", "a=1").is(`QUERY "a=1" run 1`)
			s.ask(request{method: "QUERY", target: "/p", body: "1\r\na\r\n2\r\n=1\r\n0\r\n\r\n", fields: []string{"Content-Type: text/plain", "Transfer-Encoding: chunked"}}).
				is(`QUERY "a=1" run 1`).isHit()
		}),

		over("a QUERY without Content-Type or too large is a bypass", func(s *site) {
			p := &page{body: func(c Ctx, run int64) string { return fmt.Sprint(len(c.Body()), " run ", run) }}
			s.handle("QUERY /p", p.serve, s.cached("small"))
			for run := 1; run <= 2; run++ {
				s.ask(request{method: "QUERY", target: "/p", body: "a=1"}).is(fmt.Sprint("3 run ", run)).says("Larder; fwd=bypass; detail=no-content-type")
			}
			large := strings.Repeat("x", smallBytes+1)
			for run := 3; run <= 4; run++ {
				s.query("/p", large).is(fmt.Sprint(len(large), " run ", run)).says("Larder; fwd=bypass; detail=content-too-large")
			}
			chunked := fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(large), large)
			s.ask(request{method: "QUERY", target: "/p", body: chunked, fields: []string{"Content-Type: text/plain", "Transfer-Encoding: chunked"}}).
				is(fmt.Sprint(len(large), " run 5")).says("Larder; fwd=bypass; detail=content-too-large")
			s.query("/p", large[1:]).is(fmt.Sprint(smallBytes, " run 6")).says("Larder; fwd=uri-miss; stored")
			s.query("/p", large[1:]).isHit()
		}),

		within("only QUERY requests of the same content collapse", func(s *site) {
			p := results()
			p.hold = s.gate()
			s.handle("QUERY /p", p.serve, s.cached("hour"))
			ask := func(content string) *pending {
				x := &pending{s, make(chan answer, 1)}
				go func() { x.done <- s.query("/p", content) }()
				return x
			}
			same := []*pending{ask("a"), ask("a"), ask("a")}
			other := ask("b")
			s.waiting(2)
			p.hold.open()
			require.Contains(s, other.answer().body, `QUERY "b"`)
			for _, x := range same {
				require.Contains(s, x.answer().body, `QUERY "a"`)
			}
			require.EqualValues(s, 2, p.runs.Load())
		}),

		over("invalidating a URL invalidates its QUERY entries", func(s *site) {
			p := results()
			s.handle("QUERY /p/{id}", p.serve, s.cached("hour", "p:{id}"))
			s.handle("PUT /p/{id}", p.serve, s.invalidates("x"))
			s.handle("POST /p/{id}", p.serve, s.cached("hour", "p:{id}"))
			for name, gone := range map[string]func(){
				"tag":     func() { s.invalidate(core.Tag("p:1")) },
				"path":    func() { s.invalidate(core.Path("/p/1")) },
				"key":     func() { s.invalidate(core.Key("http://" + origin + "/p/1")) },
				"pattern": func() { s.invalidate(core.Pattern("http://*/p/1")) },
				"all":     func() { s.invalidate(core.All()) },
				"PUT":     func() { s.do("PUT", "/p/1") },
				"POST":    func() { s.do("POST", "/p/1") },
			} {
				for _, content := range []string{"a", "b"} {
					s.query("/p/1", content).isNoHit()
					s.query("/p/1", content).isHit()
				}
				gone()
				for _, content := range []string{"a", "b"} {
					require.False(s, s.query("/p/1", content).hit(), name)
				}
				s.invalidate(core.All())
			}
		}),

		within("a stale QUERY is refreshed with its content", func(s *site) {
			p := results()
			s.handle("QUERY /p", p.serve, s.cached("stale"))
			for round := range 3 {
				for _, content := range []string{"a", ""} {
					a := s.query("/p", content)
					require.NoError(s, a.err)
					require.Contains(s, a.body, fmt.Sprintf("QUERY %q", content))
					require.Equal(s, round > 0, a.hit())
				}
				s.settles(func() bool { return s.cache.Stats().Stored == int64(2*(round+1)) }, "both are stored, or refreshed")
				time.Sleep(time.Minute + time.Second)
			}
			require.EqualValues(s, 6, p.runs.Load())
		}),

		within("a QUERY is validated with its content", func(s *site) {
			var runs, asked atomic.Int64
			s.handle("QUERY /p", func(c Ctx) error {
				runs.Add(1)
				content := c.Body()
				c.Set("ETag", `"`+content+`"`)
				if len(c.Values("If-None-Match")) > 0 {
					asked.Add(1)
					c.Status(304)
					return nil
				}
				return c.Text(200, content)
			}, s.cached("minute"))
			s.query("/p", "a").is("a")
			require.Equal(s, 304, s.query("/p", "a", "Content-Type: text/plain", `If-None-Match: "a"`).isHit().status)
			s.query("/p", "a", "Content-Type: text/plain", `If-None-Match: "b"`).is("a").isHit()
			time.Sleep(time.Minute)
			s.query("/p", "a").is("a").isNoHit()
			require.EqualValues(s, 1, asked.Load())
			s.query("/p", "a").is("a").isHit()
			require.EqualValues(s, 2, runs.Load())
		}),

		over("a stored QUERY keeps its fields, has no ranges and no credentials", func(s *site) {
			p := results()
			p.fields = []string{"Content-Location: /results/7", "Location: /queries/7", `Accept-Query: "text/plain"`}
			s.handle("QUERY /p", p.serve, s.cached("hour"))
			s.handle("GET /results/7", (&page{}).serve, s.cached("hour"))
			s.get("/results/7").is("run 1").isNoHit()
			s.query("/p", "abc").isNoHit()
			a := s.query("/p", "abc", "Content-Type: text/plain", "Range: bytes=0-1").is(`QUERY "abc" run 1`).isHit()
			for _, f := range p.fields {
				name, value, _ := strings.Cut(f, ": ")
				require.Equal(s, value, a.header.Get(name))
			}
			s.get("/results/7").is("run 1").isHit()
			for range 2 {
				s.query("/p", "abc", "Content-Type: text/plain", "Authorization: Basic x").isNoHit()
			}
		}),
	}
	for _, method := range []string{"OPTIONS", "TRACE", "PROPFIND", "REPORT", "SEARCH", "QUERY"} {
		cases = append(cases, over("a safe method invalidates nothing: "+method, func(s *site) {
			db := &row{}
			named := func(c Ctx) error {
				c.Set("Location", "/p/1")
				return db.write(c)
			}
			for _, m := range []string{"GET", method} {
				h := db.read
				if m == method {
					h = named
				}
				s.handle(m+" /p/{id}", h, s.cached("hour", "p:{id}"))
			}
			s.handle(method+" /w/{id}", named, s.invalidates("p:{id}"))
			s.handle(method+" /missing", named, s.invalidates("p:{id}"))
			s.handle(method+" /own", func(c Ctx) error {
				if err := core.Invalidate(c.Context(), core.Tag("p:1")); err != nil {
					return c.Text(500, err.Error())
				}
				return db.write(c)
			}, s.invalidates("other"))
			s.get("/p/1").is("value 0")
			for i, target := range []string{"/p/1", "/w/1", "/missing"} {
				s.do(method, target).is(fmt.Sprint("wrote ", i+1))
				s.get("/p/1").is("value 0").isHit()
			}
			s.do(method, "/own").is("wrote 4") // the handler's own invalidation takes effect
			s.get("/p/1").is("value 4").isNoHit()
		}))
	}
	return cases
}
