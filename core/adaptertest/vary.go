package adaptertest

import (
	"fmt"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
)

// The promise "never another user's response": the fields on which a response varies are
// part of its identity. Elsewhere: Vary was ignored, or a new variant hid the older ones.
func varyCases() []testCase {
	const lang = "Accept-Language"
	return []testCase{
		over("each variant answers its own requests, older ones included", func(s *site) {
			p := &page{fields: []string{"Vary: accept-language"}, body: says(lang)}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))

			bodies := map[string]string{}
			for i, l := range []string{"en", "de", "fr"} {
				fwd := "vary-miss"
				if i == 0 {
					fwd = "uri-miss"
				}
				bodies[l] = s.get("/p/1", lang+": "+l).says("Larder; fwd=" + fwd + "; stored").body
			}
			for l, body := range bodies {
				s.get("/p/1", lang+": "+l).is(body).isHit()
			}
			s.get("/p/1").is(`Accept-Language [] run 4`).says("Larder; fwd=vary-miss; stored")
			s.get("/p/1").is(`Accept-Language [] run 4`).isHit()
		}),

		over("variants are compared as lists: only spaces are ignored", func(s *site) {
			p := &page{fields: []string{"Vary: X-List"}, body: says("X-List")}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))

			first := s.get("/p/1", "X-List: a, b").body
			s.get("/p/1", "X-List: a,b").is(first).isHit()
			s.get("/p/1", "X-List:   a ,  b  ").is(first).isHit()
			for _, other := range [][]string{{"X-List: b, a"}, {"X-List: A, b"}, {"X-List: a, b,"}, {"X-List: ab"}, {"X-List:"}, nil, {"X-List: b", "X-List: c"}} {
				s.get("/p/1", other...).says("Larder; fwd=vary-miss; stored")
			}
		}),

		// RFC 9111 section 4.1. In fields that the class names, order and spaces count.
		over("a field that varies is the same in one line and in several", func(s *site) {
			p := &page{fields: []string{"Vary: X-List"}, body: says("X-List")}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			s.get("/p/1", "X-List: a", "X-List: b, c").says("Larder; fwd=uri-miss; stored")
			s.get("/p/1", "X-List: a, b", "X-List: c").isHit()
			s.get("/p/1", "X-List: a, b,c").isHit()
			s.get("/p/1", "X-List: b", "X-List: a, c").says("Larder; fwd=vary-miss; stored")
		}),

		over("a handler's changes to its request do not change the variant", func(s *site) {
			p := &page{fields: []string{"Vary: Accept-Language"}, body: says(lang)}
			can := true
			s.handle("GET /p/{id}", p.serve, s.cached("hour"), Around(func(c Ctx, next func() error) error {
				r, ok := c.(RequestSetter)
				if can = ok; ok {
					r.SetRequest(lang, "xx")
				}
				return next()
			}))
			s.get("/p/1", lang+": en").says("Larder; fwd=uri-miss; stored")
			if !can {
				s.Skip("its Ctx is no RequestSetter")
			}
			s.get("/p/1", lang+": en").is(`Accept-Language ["xx"] run 1`).isHit()
			s.get("/p/1", lang+": xx").is(`Accept-Language ["xx"] run 2`).isNoHit()
		}),

		over("a response that varies on more hides no older variant", func(s *site) {
			p := &page{body: func(c Ctx, run int64) string {
				if len(c.Values("X-B")) > 0 {
					c.Set("Vary", "X-A, X-B")
				} else {
					c.Set("Vary", "X-A")
				}
				return fmt.Sprintf("%q %q run %d", c.Values("X-A"), c.Values("X-B"), run)
			}}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))

			one := s.get("/p/1", "X-A: 1").body
			two := s.get("/p/1", "X-A: 2", "X-B: 1").says("Larder; fwd=vary-miss; stored").body
			three := s.get("/p/1", "X-A: 2", "X-B: 2").says("Larder; fwd=vary-miss; stored").body
			s.get("/p/1", "X-A: 1").is(one).isHit()
			s.get("/p/1", "X-A: 2", "X-B: 1").is(two).isHit()
			s.get("/p/1", "X-A: 2", "X-B: 2").is(three).isHit()
		}),

		over("each of several lines and names of Vary counts", func(s *site) {
			p := &page{fields: []string{"Vary: X-A", "Vary: X-B, X-C"}}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			s.get("/p/1", "X-A: 1", "X-B: 1", "X-C: 1").is("run 1")
			s.get("/p/1", "X-A: 2", "X-B: 1", "X-C: 1").is("run 2")
			s.get("/p/1", "X-A: 1", "X-B: 2", "X-C: 1").is("run 3")
			s.get("/p/1", "X-A: 1", "X-B: 1", "X-C: 2").is("run 4")
			s.get("/p/1", "X-A: 1", "X-B: 1", "X-C: 1", "X-D: 2").is("run 1").isHit()
		}),

		over("a response with Vary: * is not stored", func(s *site) {
			p := &page{fields: []string{"Vary: Accept, *"}}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			s.get("/p/1").is("run 1").says("Larder; fwd=uri-miss; detail=vary-star")
			s.get("/p/1").is("run 2").says("Larder; fwd=uri-miss; detail=vary-star")
		}),

		// Elsewhere: a gzip body went to a client that had not asked for it. The handler says nothing of Vary.
		over("an encoded response goes only to clients that accept it", func(s *site) {
			p := &page{body: func(c Ctx, run int64) string {
				if v := c.Values("Accept-Encoding"); len(v) > 0 && strings.HasPrefix(v[0], "gzip") {
					c.Set("Content-Encoding", "gzip")
					return fmt.Sprint("gzipped ", run)
				}
				return fmt.Sprint("plain ", run)
			}}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))

			s.get("/p/1", "Accept-Encoding: gzip").is("gzipped 1").says("Larder; fwd=uri-miss; stored")
			s.get("/p/1", "Accept-Encoding: gzip").is("gzipped 1").isHit()
			s.get("/p/1").is("plain 2").isNoHit()
			s.get("/p/1").is("plain 2").isHit()
			s.get("/p/1", "Accept-Encoding: br").isHit().is("plain 2")
		}),

		// A handler that encodes whatever the request accepts; a stored answer must not.
		over("an encoded response without Vary is kept from clients that refuse it", func(s *site) {
			p := &page{fields: []string{"Content-Encoding: gzip", "Vary: X-Unrelated"}}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			s.get("/p/1", "Accept-Encoding: gzip").is("run 1").says("Larder; fwd=uri-miss; stored")
			for i, accept := range []string{"gzip;q=0", "identity", "br", "*;q=0", ""} {
				s.get("/p/1", "Accept-Encoding: "+accept).is(fmt.Sprint("run ", i+2)).isNoHit()
			}
			s.get("/p/1").is("run 7").isNoHit()
			for i, accept := range []string{"gzip;q=0", "identity", "br", "*;q=0", ""} { // as stored for them before
				s.get("/p/1", "Accept-Encoding: "+accept).is(fmt.Sprint("run ", i+8)).isNoHit()
			}
			s.get("/p/1").is("run 13").isNoHit()
			s.get("/p/1", "Accept-Encoding: gzip").is("run 1").isHit()
		}),

		// The promise "one load".
		within("waiting requests share only a run of their own variant", func(s *site) {
			p := &page{hold: s.gate(), fields: []string{"Vary: Accept-Language"}, body: says(lang)}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))

			en := s.starts(1, "GET", "/p/1", lang+": en")
			s.settles(func() bool { return p.in.Load() == 1 }, "the leader is in the handler")
			en = append(en, s.starts(4, "GET", "/p/1", lang+": en")...)
			de := s.starts(4, "GET", "/p/1", lang+": de")
			s.waiting(8)
			p.hold.open()

			for i, a := range en {
				a := a.answer().is(`Accept-Language ["en"] run 1`)
				if i > 0 {
					a.says("Larder; fwd=uri-miss; collapsed")
				}
			}
			for _, a := range de {
				a.answer().is(`Accept-Language ["de"] run 2`)
			}
			require.EqualValues(s, 2, p.runs.Load())
		}),

		within("known variants of a resource do not wait for each other", func(s *site) {
			p := &page{fields: []string{"Vary: Accept-Language"}}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			s.get("/p/1", lang+": en").is("run 1")
			p.hold = s.gate()
			all := []*pending{s.start("GET", "/p/1", lang+": de"), s.start("GET", "/p/1", lang+": fr")}
			s.settles(func() bool { return p.in.Load() == 2 }, "both are in the handler")
			p.hold.open()
			for _, a := range all {
				a.answer().says("Larder; fwd=vary-miss; stored")
			}
		}),

		within("waiting requests do not share an encoding they do not accept", func(s *site) {
			p := &page{hold: s.gate(), body: func(c Ctx, run int64) string {
				if len(c.Values("Accept-Encoding")) > 0 {
					c.Set("Content-Encoding", "gzip")
				}
				return fmt.Sprint("run ", run)
			}}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			a := s.start("GET", "/p/1", "Accept-Encoding: gzip")
			s.settles(func() bool { return p.in.Load() == 1 }, "the leader is in the handler")
			b := s.start("GET", "/p/1")
			s.waiting(1)
			p.hold.open()
			require.Equal(s, "gzip", a.answer().is("run 1").header.Get("Content-Encoding"))
			require.Empty(s, b.answer().is("run 2").header.Get("Content-Encoding"))
		}),

		// Elsewhere: a client filled the cache with one resource by varying a header or the query.
		within("a resource keeps no more variants than its class allows", func(s *site) {
			p := &page{fields: []string{"Vary: Accept-Language"}}
			s.handle("GET /p/{id}", p.serve, s.cached("two-variants"))
			for i, l := range []string{"en", "de", "fr"} {
				s.get("/p/1", lang+": "+l).is(fmt.Sprint("run ", i+1)).isNoHit()
			}
			s.get("/p/1", lang+": fr").is("run 3").isHit()
			s.get("/p/1", lang+": de").is("run 2").isHit()
			s.settles(func() bool { return true }, "the first variant is gone from the shared tier as well")
			s.get("/p/1", lang+": en").is("run 4").isNoHit()
			for i := range 100 {
				s.get("/p/1", fmt.Sprintf("%s: x%d", lang, i)).isNoHit()
			}
			s.settles(func() bool { return s.cache.Stats().Entries <= 3 }, "two variants and their index are kept")
		}),
	}
}

// sometimes is a page that varies on each of the fields that the request has, as CORS
// middleware does that sends Vary to cross-origin requests only. Values "foreign" are
// answered without Vary as well.
func sometimes(names ...string) *page {
	return &page{body: func(c Ctx, run int64) string {
		body := ""
		for _, name := range names {
			v := strings.Join(c.Values(name), ",")
			if v != "" && v != "foreign" {
				c.Add("Vary", name)
			}
			body += fmt.Sprintf("%s %q ", name, v)
		}
		return body + fmt.Sprint("run ", run)
	}}
}

// RFC 9111 section 4.1: a resource whose responses do not all vary alike.
func sometimesVaryCases() []testCase {
	const x = "X-Kind"
	return []testCase{
		over("a newer response without Vary answers no request with the field", func(s *site) {
			s.handle("GET /p/{id}", sometimes(x).serve, s.cached("hour"))
			s.get("/p/1", x+": a").is(`X-Kind "a" run 1`).says("Larder; fwd=uri-miss; stored")
			s.get("/p/1").is(`X-Kind "" run 2`).says("Larder; fwd=vary-miss; stored")
			s.get("/p/1", x+": a").is(`X-Kind "a" run 1`).isHit()
			s.get("/p/1", x+": b").is(`X-Kind "b" run 3`).says("Larder; fwd=vary-miss; stored")
			s.get("/p/1", x+": foreign").is(`X-Kind "foreign" run 4`).says("Larder; fwd=vary-miss; stored")
			s.get("/p/1").is(`X-Kind "" run 2`).isHit()
			s.get("/p/1", x+": a").is(`X-Kind "a" run 1`).isHit()
			s.get("/p/1", x+": b").is(`X-Kind "b" run 3`).isHit()
			s.get("/p/1", x+": foreign").is(`X-Kind "foreign" run 4`).isHit()
			s.get("/p/1", x+": c").is(`X-Kind "c" run 5`).isNoHit()
		}),

		over("an older response without Vary answers no later variant", func(s *site) {
			s.handle("GET /p/{id}", sometimes(x).serve, s.cached("hour"))
			s.get("/p/1").is(`X-Kind "" run 1`).isNoHit()
			s.get("/p/1", x+": a", "Cache-Control: no-cache").is(`X-Kind "a" run 2`)
			s.get("/p/1", x+": b").is(`X-Kind "b" run 3`).isNoHit()
			s.get("/p/1", x+": a").is(`X-Kind "a" run 2`).isHit()
			body := s.get("/p/1").body
			require.Contains(s, body, `X-Kind "" run `)
			s.get("/p/1").is(body).isHit()
		}),

		over("responses with different Vary answer no request with both fields", func(s *site) {
			s.handle("GET /p/{id}", sometimes("X-A", "X-B").serve, s.cached("hour"))
			s.get("/p/1", "X-A: 1").is(`X-A "1" X-B "" run 1`)
			s.get("/p/1", "X-B: 1").is(`X-A "" X-B "1" run 2`).isNoHit()
			s.get("/p/1", "X-A: 1", "X-B: 1").is(`X-A "1" X-B "1" run 3`).isNoHit()
			s.get("/p/1", "X-A: 1", "X-B: foreign").is(`X-A "1" X-B "foreign" run 4`).isNoHit()
			s.get("/p/1").is(`X-A "" X-B "" run 5`).isNoHit()
			s.get("/p/1", "X-A: 1").is(`X-A "1" X-B "" run 1`).isHit()
			s.get("/p/1", "X-B: 1").is(`X-A "" X-B "1" run 2`).isHit()
			s.get("/p/1", "X-A: 1", "X-B: 1").is(`X-A "1" X-B "1" run 3`).isHit()
			s.get("/p/1", "X-B: 1", "X-A: 1", "X-B: 2").isNoHit()
		}),

		over("a HEAD with the field is no hit of a response without Vary", func(s *site) {
			s.handle("GET /p/{id}", sometimes(x).serve, s.cached("hour"))
			s.get("/p/1", x+": a")
			s.get("/p/1")
			s.do("HEAD", "/p/1", x+": a").isHit()
			s.do("HEAD", "/p/1").isHit()
			s.do("HEAD", "/p/1", x+": b").isNoHit()
		}),

		over("a range with the field is no hit of a response without Vary", func(s *site) {
			s.handle("GET /p/{id}", func(c Ctx) error {
				if v := strings.Join(c.Values(x), ""); v != "" {
					c.Set("Vary", x)
					return c.Text(200, "of "+v)
				}
				if len(c.Values("Range")) > 0 {
					c.Set("Cache-Control", "max-age=60")
					c.Set("Content-Range", "bytes 0-3/26")
					return c.Text(206, alphabet[:4])
				}
				return c.Text(200, alphabet)
			}, s.cached("hour"))
			s.get("/p/1", x+": a").is("of a")
			s.get("/p/1", "Range: bytes=0-3").isPart("abcd")
			s.get("/p/1", "Range: bytes=0-3").isPart("abcd").isHit()
			s.get("/p/1", "Range: bytes=0-3", x+": b").isNoHit()
			s.get("/p/1", x+": b").is("of b").isHit()
		}),

		over("a not found varies as its resource does", func(s *site) {
			s.handle("GET /p/{id}", func(c Ctx) error {
				if v := strings.Join(c.Values(x), ""); v != "" {
					c.Set("Vary", x)
					return c.Text(200, "for "+v)
				}
				return c.Text(404, "for nobody")
			}, s.cached("negative"))
			s.get("/p/1", x+": a").is("for a")
			require.Equal(s, 404, s.get("/p/1").status)
			s.get("/p/1", x+": a").is("for a").isHit()
			s.get("/p/1", x+": b").is("for b").isNoHit()
			require.Equal(s, 404, s.get("/p/1").isHit().status)
		}),

		over("an invalidation removes all variants, those without Vary as well", func(s *site) {
			s.handle("GET /p/{id}", sometimes(x).serve, s.cached("hour", "p:{id}"))
			s.handle("POST /p/{id}", func(c Ctx) error { return c.Text(200, "") }, s.invalidates("p:{id}"))
			for i, change := range []func(){
				func() { s.invalidate(core.Tag("p:1")) },
				func() { s.do("POST", "/p/1") },
			} {
				s.get("/p/1", x+": a").is(fmt.Sprintf(`X-Kind "a" run %d`, 4*i+1)).isNoHit()
				s.get("/p/1").is(fmt.Sprintf(`X-Kind "" run %d`, 4*i+2)).isNoHit()
				s.get("/p/1", x+": foreign").is(fmt.Sprintf(`X-Kind "foreign" run %d`, 4*i+3)).isNoHit()
				change()
				s.get("/p/1").is(fmt.Sprintf(`X-Kind "" run %d`, 4*i+4)).isNoHit()
				s.invalidate(core.Tag("p:1"))
			}
		}),

		within("a short-lived response without Vary does not replace the index", func(s *site) {
			s.handle("GET /p/{id}", func(c Ctx) error {
				if v := strings.Join(c.Values(x), ""); v != "" {
					c.Set("Vary", x)
					c.Set("Cache-Control", "max-age=3600")
					return c.Text(200, "for "+v)
				}
				c.Set("Cache-Control", "max-age=1")
				return c.Text(200, "for all")
			}, s.cached(""))
			s.get("/p/1", x+": a").is("for a")
			s.get("/p/1").is("for all").isNoHit()
			time.Sleep(5 * time.Minute)
			s.get("/p/1").is("for all").isNoHit()
			s.get("/p/1", x+": b").is("for b").isNoHit()
			s.get("/p/1", x+": a").is("for a").isHit()
		}),

		within("a renewed response without Vary stays its request's own", func(s *site) {
			runs := 0
			s.handle("GET /p/{id}", func(c Ctx) error {
				runs++
				v := strings.Join(c.Values(x), "")
				if v != "" && v != "foreign" {
					c.Set("Vary", x)
				}
				c.Set("ETag", `"of `+v+`"`)
				if len(c.Values("If-None-Match")) > 0 {
					return c.Text(304, "")
				}
				return c.Text(200, "for "+v)
			}, s.cached("minute"))
			for range 3 {
				for _, v := range []string{"a", "foreign", "b"} {
					s.get("/p/1", x+": "+v).is("for " + v).isNoHit()
				}
				s.get("/p/1").is("for ").isNoHit()
				for _, v := range []string{"a", "foreign", "b"} {
					s.get("/p/1", x+": "+v).is("for " + v).isHit()
				}
				s.get("/p/1").is("for ").isHit()
				time.Sleep(61 * time.Second)
			}
			require.Equal(s, 12, runs)
		}),

		within("responses without Vary are bounded like variants", func(s *site) {
			s.handle("GET /p/{id}", sometimes(x).serve, s.cached("two-variants"))
			s.get("/p/1", x+": a")
			for i := range 50 {
				s.get("/p/1", x+": foreign", fmt.Sprintf("%s: %d", x, i)).isNoHit()
			}
			s.settles(func() bool { return s.cache.Stats().Entries <= 3 }, "two variants and their index are kept")
		}),

		over("a resource that varies on ever more fields ends up not stored", func(s *site) {
			p := &page{body: func(c Ctx, run int64) string {
				c.Set("Vary", fmt.Sprint("X-", run))
				return fmt.Sprint("run ", run)
			}}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			for i := 1; i <= 64; i++ {
				s.get("/p/1", "Cache-Control: no-cache").is(fmt.Sprint("run ", i))
			}
			require.Contains(s, s.get("/p/1", "Cache-Control: no-cache").is("run 65").cacheStatus(), "detail=varies-on-too-much")
			s.get("/p/1").is("run 64").isHit()
		}),

		// CORS middleware that sends no Vary to requests without Origin.
		over("a response without Origin answers no first request with Origin", func(s *site) {
			p := &page{body: func(c Ctx, run int64) string {
				if v := strings.Join(c.Values("Origin"), ""); v != "" {
					c.Set("Vary", "Origin")
					c.Set("Access-Control-Allow-Origin", v)
				}
				return fmt.Sprint("run ", run)
			}}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			s.get("/p/1").is("run 1").isNoHit()
			s.get("/p/1").is("run 1").isHit()
			for range 2 {
				a := s.get("/p/1", "Origin: https://a.example").is("run 2")
				require.Equal(s, "https://a.example", a.header.Get("Access-Control-Allow-Origin"))
				require.Equal(s, []string{"Origin"}, a.header.Values("Vary"))
			}
			s.get("/p/1", "Origin: https://a.example").is("run 2").isHit()
			s.get("/p/1", "Origin: https://b.example").is("run 3").isNoHit()
			s.get("/p/1").is("run 4").isNoHit()
			s.get("/p/1").is("run 4").isHit()
		}),

		over("a resource that does not vary runs once more for the first Origin only", func(s *site) {
			p := &page{}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			s.get("/p/1").is("run 1").isNoHit()
			s.get("/p/1", "Origin: https://a.example").is("run 2").isNoHit()
			s.get("/p/1", "Origin: https://b.example").is("run 2").isHit()
			s.get("/p/1").is("run 2").isHit()

			p.fields = []string{"Access-Control-Allow-Origin: *"}
			s.get("/p/2").is("run 3").isNoHit()
			s.get("/p/2", "Origin: https://a.example").is("run 3").isHit()
		}),
	}
}
