package adaptertest

import (
	"fmt"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
)

// parts is a handler that answers a single range of the alphabet itself.
type parts struct {
	page
	fields []string
	size   string // default 26
	extra  string // content beyond the requested range
}

func (p *parts) serve(c Ctx) error {
	p.enter()
	defer p.in.Add(-1)
	if len(c.Values("If-None-Match")) > 0 {
		return c.Text(400, "a part cannot be validated")
	}
	add(c, p.fields)
	var first, last int
	switch want := strings.Join(c.Values("Range"), ""); want {
	case "":
		return c.Text(200, alphabet)
	case "bytes=-3":
		first, last = 23, 25
	default:
		if _, err := fmt.Sscanf(want, "bytes=%d-%d", &first, &last); err != nil {
			return c.Text(200, alphabet)
		}
	}
	size := p.size
	if size == "" {
		size = "26"
	}
	c.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%s", first, last, size))
	return c.Text(206, alphabet[first:last+1]+p.extra)
}

// Parts that handlers answer themselves (RFC 9111 section 3.3).
func partCases() []testCase {
	return []testCase{
		over("a stored part answers ranges within it, never the whole", func(s *site) {
			p := &parts{fields: []string{"Cache-Control: max-age=60", `ETag: "v1"`}}
			s.handle("GET /p/{id}", p.serve, s.cached("hour", "p:{id}"))
			s.get("/p/1", "Range: bytes=3-9").isPart("defghij").says("Larder; fwd=uri-miss; stored")
			for _, c := range []struct{ want, body string }{
				{"bytes=3-9", "defghij"}, {"bytes=3-3", "d"}, {"bytes=4-5", "ef"}, {"bytes=9-9", "j"},
			} {
				a := s.get("/p/1", "Range: "+c.want).isPart(c.body).isHit()
				require.Equal(s, `"v1"`, a.header.Get("ETag"))
			}
			require.EqualValues(s, 1, p.runs.Load())
			s.get("/p/1", "Range: bytes=3-9", `If-Range: "v1"`).isNoHit()
			s.get("/p/1").is(alphabet).says("Larder; fwd=uri-miss; stored")
			s.get("/p/1").is(alphabet).isHit()
			s.get("/p/1", "Range: bytes=0-2").isPart("abc").isHit()
			s.invalidate(core.Tag("p:1"))
			s.get("/p/1", "Range: bytes=3-9").isPart("defghij").isNoHit()
		}),

		over("a range outside a stored part runs the handler and replaces it", func(s *site) {
			p := &parts{fields: []string{"Cache-Control: max-age=60"}}
			s.handle("GET /p/{id}", p.serve, s.cached("hour", "p:{id}"))
			for range 2 {
				for _, c := range []struct{ want, body string }{
					{"bytes=3-9", "defghij"}, {"bytes=2-9", "cdefghij"}, {"bytes=3-10", "defghijk"}, {"bytes=-3", "xyz"}, {"bytes=0-2", "abc"},
				} {
					s.get("/p/1", "Range: "+c.want).isPart(c.body).says("Larder; fwd=uri-miss; stored")
					s.get("/p/1", "Range: "+c.want).isPart(c.body).isHit()
				}
			}
			s.settles(func() bool { return s.cache.Stats().Entries <= 2 }, "one part is kept, and that there are parts")
			s.invalidate(core.Tag("p:1"))
			s.get("/p/1", "Range: bytes=0-2").isPart("abc").isNoHit()
		}),

		over("a part whose whole is of unknown length answers its own range only", func(s *site) {
			p := &parts{fields: []string{"Cache-Control: max-age=60"}, size: "*"}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			for i := range 2 {
				a := s.get("/p/1", "Range: bytes=3-9")
				require.Equal(s, "defghij", a.body)
				require.Equal(s, "bytes 3-9/*", a.header.Get("Content-Range"))
				require.Equal(s, i == 1, a.hit())
			}
			require.Equal(s, "ef", s.get("/p/1", "Range: bytes=4-5").isNoHit().body)
		}),

		over("a part without a lifetime, with Vary or malformed is not stored", func(s *site) {
			for _, c := range []struct {
				fields []string
				extra  string
				detail string
			}{
				{nil, "", "partial-or-conditional"},
				{[]string{"Cache-Control: public"}, "", "partial-or-conditional"},
				{[]string{"Cache-Control: max-age=60", "Vary: Accept"}, "", "partial-or-conditional"},
				{[]string{"Cache-Control: max-age=60"}, "more", "incomplete"},
				{[]string{"Cache-Control: no-store"}, "", "no-store"},
			} {
				s := newSite(s.TB, s.f, s.by)
				p := &parts{fields: c.fields, extra: c.extra}
				s.handle("GET /p/{id}", p.serve, s.cached("hour"))
				for range 2 {
					a := s.get("/p/1", "Range: bytes=3-9").says("Larder; fwd=uri-miss; detail=" + c.detail)
					require.Equal(s, 206, a.status)
					require.Equal(s, "defghij"+c.extra, a.body)
				}
			}
		}),

		within("an expired part is not validated", func(s *site) {
			p := &parts{fields: []string{"Cache-Control: max-age=60, stale-while-revalidate=60", `ETag: "v1"`}}
			s.handle("GET /p/{id}", p.serve, s.cached("all-windows"))
			s.get("/p/1", "Range: bytes=3-9").isPart("defghij").isNoHit()
			time.Sleep(3 * time.Minute)
			s.get("/p/1", "Range: bytes=3-9").isPart("defghij").isNoHit()
		}),
	}
}
