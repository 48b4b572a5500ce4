package adaptertest

import (
	"fmt"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
)

// Groups of responses (RFC 9875).
func groupCases() []testCase {
	// grouped is a site whose pages are in the groups named in their paths.
	grouped := func(s *site, answers ...string) {
		s.handle("GET /p/{groups}", func(c Ctx) error {
			add(c, map[string][]string{
				"a": {`Cache-Groups: "a"`}, "b": {`Cache-Groups: "b"`}, "ab": {`Cache-Groups: "a", "b";x=1`}, "a+b": {`Cache-Groups: "a"`, `Cache-Groups: "b"`},
				"upper": {`Cache-Groups: "A"`}, "token": {`Cache-Groups: a`}, "none": nil,
			}[c.Param("groups")])
			return c.Text(200, "page")
		}, s.cached("hour"))
		w := &page{fields: answers}
		s.handle("POST /cached/{id}", w.serve, s.cached("hour"))
		s.handle("POST /declared/{id}", w.serve, s.invalidates("x"))
		s.handle("GET /cached/{id}", w.serve, s.cached("hour"))
		s.handle("GET /declared/{id}", w.serve, s.invalidates("x"))
		failing := &page{status: 500, fields: answers}
		s.handle("POST /failing/{id}", failing.serve, s.cached("hour"))
		refusing := &page{status: 403, fields: answers}
		s.handle("POST /refusing/{id}", refusing.serve, s.invalidates("x"))
	}
	all := []string{"a", "b", "ab", "a+b", "upper", "token", "none"}
	// store stores every page. gone demands that the given pages are gone and no others.
	store := func(s *site) {
		for _, g := range all {
			s.get("/p/" + g).is("page")
			s.get("/p/" + g).isHit()
		}
	}
	gone := func(s *site, groups ...string) {
		s.Helper()
		var got []string
		for _, g := range all {
			if !s.get("/p/" + g).is("page").hit() {
				got = append(got, g)
			}
		}
		require.Equal(s, groups, got)
	}
	return []testCase{
		over("the answer to a write invalidates the groups it names", func(s *site) {
			grouped(s, `Cache-Group-Invalidation: "a"`)
			for _, path := range []string{"/cached/1", "/declared/1"} {
				store(s)
				s.do("POST", path)
				gone(s, "a", "ab", "a+b")
			}
		}),

		over("a write can invalidate several groups", func(s *site) {
			grouped(s, `Cache-Group-Invalidation: "b", "nobody's"`, `Cache-Group-Invalidation: "A"`)
			store(s)
			s.do("POST", "/cached/1")
			gone(s, "b", "ab", "a+b", "upper")
		}),

		over("a write that names no group invalidates none", func(s *site) {
			for _, said := range []string{"a", `"a`, `"a", a`, `("a")`, "X-A: 1"} {
				s := newSite(s.TB, s.f, s.by)
				grouped(s, "Cache-Group-Invalidation: "+said)
				store(s)
				s.do("POST", "/cached/1")
				s.do("POST", "/declared/1")
				gone(s)
			}
		}),

		over("a write that fails or is refused invalidates no group", func(s *site) {
			grouped(s, `Cache-Group-Invalidation: "a"`)
			store(s)
			require.Equal(s, 500, s.do("POST", "/failing/1").status)
			require.Equal(s, 403, s.do("POST", "/refusing/1").status)
			gone(s)
		}),

		over("the answer to a safe request invalidates no group", func(s *site) {
			grouped(s, `Cache-Group-Invalidation: "a"`)
			store(s)
			s.get("/cached/1").isNoHit()
			s.get("/cached/1").isHit()
			gone(s)
			s.get("/declared/1")
			gone(s)
		}),

		over("a group is of one origin", func(s *site) {
			grouped(s, `Cache-Group-Invalidation: "a"`)
			secured := s.secured()
			other := func() answer { return s.ask(request{method: "GET", target: "/p/a", host: "other.example"}).is("page") }
			store(s)
			other()
			secured.get("/p/a")
			s.do("POST", "/cached/1")
			other().isHit()
			secured.get("/p/a").isHit()
			gone(s, "a", "ab", "a+b")
			s.ask(request{method: "POST", target: "/declared/1", host: "other.example"})
			gone(s)
			other().isNoHit()
			s.ask(request{method: "POST", target: "/cached/1", host: "SHOP.example"})
			gone(s, "a", "ab", "a+b")
			secured.do("POST", "/cached/1")
			gone(s)
			secured.get("/p/a").isNoHit()
		}),

		over("core.Group invalidates a group of one origin", func(s *site) {
			grouped(s)
			store(s)
			s.invalidate(core.Group("https://"+origin, "a"), core.Group("http://other.example", "a"), core.Group("http://"+origin, "c"))
			gone(s)
			s.invalidate(core.Group("http://"+origin, "a"))
			gone(s, "a", "ab", "a+b")
			require.Error(s, s.cache.Invalidate(s.Context(), core.Group("http://"+origin, "")))
			require.Error(s, s.cache.Invalidate(s.Context(), core.Group("", "a")))
		}),

		within("a response stays in its groups when it is renewed", func(s *site) {
			o := &original{etag: `"v1"`}
			s.handle("GET /p/{id}", func(c Ctx) error {
				switch {
				case len(c.Values("If-None-Match")) == 0:
					c.Set("Cache-Groups", `"a"`)
				case o.runs.Load() == 2:
					c.Set("Cache-Groups", `"b"`)
				}
				return o.serve(c)
			}, s.cached("minute"))
			for i, group := range []string{"a", "b", "a"} {
				s.invalidate(core.All())
				o.runs.Store(0)
				s.get("/p/1").is("run 1")
				for range i + 1 {
					time.Sleep(time.Minute)
					s.get("/p/1").is("run 1").says(renewed)
				}
				s.invalidate(core.Group("http://"+origin, "c"))
				s.get("/p/1").isHit()
				s.invalidate(core.Group("http://"+origin, group))
				s.get("/p/1").is(fmt.Sprint("run ", i+3)).isNoHit()
			}
		}),

		within("a load that began before its group's invalidation is not stored", func(s *site) {
			p := &page{fields: []string{`Cache-Groups: "a"`}, hold: s.gate()}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			first := s.start("GET", "/p/1")
			s.settles(func() bool { return p.in.Load() == 1 }, "the handler runs")
			s.invalidate(core.Group("http://"+origin, "a"))
			p.hold.open()
			first.answer().is("run 1").says("Larder; fwd=uri-miss; detail=invalidated")
			s.get("/p/1").is("run 2").isNoHit()
		}),
	}
}
