package adaptertest

import (
	"fmt"
	"strings"
	"time"

	"github.com/stretchr/testify/require"
)

// The promise "never another user's response".
func whoseCases() []testCase {
	return []testCase{
		// Elsewhere: concurrent requests with different Authorization shared one run, and one user got another's body.
		within("concurrent requests with different Authorization get a response each", func(s *site) {
			const users = 10
			p := &page{hold: s.gate(), body: says("Authorization")}
			s.handle("GET /me", p.serve, s.cached("hour"))

			var all []*pending
			for i := range users {
				all = append(all, s.start("GET", "/me", fmt.Sprint("Authorization: Bearer ", i)))
			}
			s.waiting(users - 1)
			p.hold.open()

			for i, a := range all {
				a := a.answer().says("Larder; fwd=uri-miss; detail=authorization")
				require.Contains(s, a.body, fmt.Sprintf("[%q]", fmt.Sprint("Bearer ", i)))
			}
			require.EqualValues(s, users, p.runs.Load())
		}),

		// Elsewhere: concurrent requests with different Authorization shared one run, and one user got another's body.
		over("anonymous and authorized requests do not share a response", func(s *site) {
			p := &page{}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))

			s.get("/p/1", "Authorization: Bearer a").is("run 1").says("Larder; fwd=uri-miss; detail=authorization")
			s.get("/p/1").is("run 2").says("Larder; fwd=uri-miss; stored")
			s.get("/p/1", "Authorization: Bearer a").is("run 3").isNoHit()
			s.get("/p/1").is("run 2").isHit()
		}),

		over("a response to Authorization is stored if it is marked public", func(s *site) {
			p := &page{}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			for i, cc := range []string{"public", "s-maxage=60", "must-revalidate"} {
				path := fmt.Sprint("/p/", i)
				p.fields = []string{"Cache-Control: " + cc}
				a := s.get(path, "Authorization: Bearer a").says("Larder; fwd=uri-miss; stored")
				s.get(path, "Authorization: Bearer b").is(a.body).isHit()
				s.get(path).is(a.body).isHit()
			}
			for i, cc := range []string{"max-age=60", "proxy-revalidate", "immutable"} {
				path := fmt.Sprint("/p/not-", i)
				p.fields = []string{"Cache-Control: " + cc}
				s.get(path, "Authorization: Bearer a").says("Larder; fwd=uri-miss; detail=authorization")
				s.get(path, "Authorization: Bearer b").says("Larder; fwd=uri-miss; detail=authorization")
			}
		}),

		// Elsewhere: a response with Set-Cookie was stored and sent to other users.
		over("a response that sets a cookie is not stored", func(s *site) {
			p := &page{fields: []string{"Cache-Control: public, max-age=60", "Set-Cookie: a=1", "Set-Cookie: b=2; Path=/"}}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			for _, body := range []string{"run 1", "run 2"} {
				a := s.get("/p/1").is(body).says("Larder; fwd=uri-miss; detail=set-cookie")
				require.Equal(s, []string{"a=1", "b=2; Path=/"}, a.header.Values("Set-Cookie"))
			}
		}),

		// Elsewhere: private, no-store and no-cache in the response were ignored.
		over("a response with private or no-store is not stored", func(s *site) {
			p := &page{}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			for i, c := range []struct{ lines, reason string }{
				{"private", "private"},
				{"no-store", "no-store"},
				{"no-cache", "no-cache"},
				{"max-age=60, private", "private"},
				{"public, max-age=60|no-store", "no-store"}, // two lines
				{"NO-STORE", "no-store"},
				{`ext="a, b", Private`, "private"},
				{"private; max-age=60", "private"}, // malformed, and meant
			} {
				path := fmt.Sprint("/p/", i)
				p.fields = nil
				for line := range strings.SplitSeq(c.lines, "|") {
					p.fields = append(p.fields, "Cache-Control: "+line)
				}
				s.get(path).says("Larder; fwd=uri-miss; detail=" + c.reason)
				s.get(path).says("Larder; fwd=uri-miss; detail=" + c.reason)
			}
		}),

		over("a quoted argument is not a directive", func(s *site) {
			p := &page{fields: []string{`Cache-Control: ext="no-store, private", max-age=60`}}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			s.get("/p/1").says("Larder; fwd=uri-miss; stored")
			s.get("/p/1").is("run 1").isHit()
		}),

		over("a response to a request with cookies is stored only if public", func(s *site) {
			p := &page{}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))

			s.get("/p/1", "Cookie: session=a").is("run 1").says("Larder; fwd=uri-miss; detail=cookie")
			s.get("/p/1").is("run 2").says("Larder; fwd=uri-miss; stored")
			s.get("/p/1", "Cookie: session=a").is("run 3").isNoHit()

			p.fields = []string{"Cache-Control: public"}
			s.get("/p/2", "Cookie: session=a").is("run 4").says("Larder; fwd=uri-miss; stored")
			s.get("/p/2", "Cookie: session=b").is("run 4").isHit()
			s.get("/p/2").is("run 4").isHit()

			p.fields = []string{"Cache-Control: s-maxage=60"} // lets Authorization in, not cookies
			s.get("/p/3", "Cookie: session=a").is("run 5").says("Larder; fwd=uri-miss; detail=cookie")
		}),

		over("only the cookies that the class names are part of the identity", func(s *site) {
			p := &page{body: says("Cookie")}
			s.handle("GET /p/{id}", p.serve, s.cached("theme-cookie"))

			dark := s.get("/p/1", "Cookie: theme=dark; session=a").says("Larder; fwd=uri-miss; stored")
			s.get("/p/1", "Cookie: session=b; theme=dark").is(dark.body).isHit()
			light := s.get("/p/1", "Cookie: theme=light; session=a").says("Larder; fwd=uri-miss; stored")
			none := s.get("/p/1", "Cookie: session=a").says("Larder; fwd=uri-miss; stored")
			empty := s.get("/p/1", "Cookie: theme=").says("Larder; fwd=uri-miss; stored")
			s.get("/p/1", "Cookie: theme=light").is(light.body).isHit()
			s.get("/p/1").is(none.body).isHit()
			s.get("/p/1", "Cookie: mytheme=dark").is(none.body).isHit()
			s.get("/p/1", "Cookie: theme=").is(empty.body).isHit()
			s.get("/p/1", "Cookie: theme=dark; theme=light").isNoHit()
			s.get("/p/1", "Cookie: theme=light; theme=dark").isNoHit()
			s.get("/p/1", "Cookie: theme=light", "Cookie: theme=dark").isHit() // the same to every parser
		}),

		over("a class without relevant cookies answers all requests alike", func(s *site) {
			p := &page{}
			s.handle("GET /p/{id}", p.serve, s.cached("no-cookie"))
			s.get("/p/1", "Cookie: session=a").is("run 1").says("Larder; fwd=uri-miss; stored")
			s.get("/p/1", "Cookie: session=b").is("run 1").isHit()
			s.get("/p/1").is("run 1").isHit()
		}),

		over("an identity gives each user entries, private ones too", func(s *site) {
			p := &page{body: says("X-User"), fields: []string{"Cache-Control: private, max-age=60"}}
			s.handle("GET /cart", p.serve, CachedRoute{Cached: Cached{s.cache, "hour", nil}, IdentityField: "X-User"})

			ann := s.get("/cart", "X-User: ann", "Authorization: a", "Cookie: s=a").says("Larder; fwd=uri-miss; stored")
			bob := s.get("/cart", "X-User: bob", "Authorization: b", "Cookie: s=b").says("Larder; fwd=uri-miss; stored")
			require.NotEqual(s, ann.body, bob.body)
			s.get("/cart", "X-User: ann", "Authorization: a2").is(ann.body).isHit()
			s.get("/cart", "X-User: bob").is(bob.body).isHit()
			s.get("/cart").is(`X-User [] run 3`).says("Larder; fwd=bypass; detail=no-identity")
			s.get("/cart").is(`X-User [] run 4`).says("Larder; fwd=bypass; detail=no-identity")
		}),

		over("a request that Skip selects is a bypass", func(s *site) {
			p := &page{}
			s.handle("GET /p/{id}", p.serve, CachedRoute{Cached: Cached{s.cache, "hour", nil}, SkipField: "X-Preview"})
			s.get("/p/1", "X-Preview: 1").is("run 1").says("Larder; fwd=bypass; detail=skipped")
			s.get("/p/1").is("run 2").says("Larder; fwd=uri-miss; stored")
			s.get("/p/1", "X-Preview: 1").is("run 3").says("Larder; fwd=bypass; detail=skipped")
			s.get("/p/1").is("run 2").isHit()
		}),

		// The promise "one load": requests do not wait for a response that may not be shared.
		within("waiting requests for a private response all run concurrently", func(s *site) {
			n := herd()
			leader, rest := s.gate(), s.gate()
			p := &page{body: says("X-User"), fields: []string{"Cache-Control: private"}}
			p.began = func(Ctx) {
				if p.runs.Load() == 1 {
					leader.wait()
				} else {
					rest.wait()
				}
			}
			s.handle("GET /me", p.serve, s.cached("hour"))

			var all []*pending
			for i := range n {
				all = append(all, s.start("GET", "/me", fmt.Sprint("X-User: ", i)))
			}
			s.waiting(int64(n) - 1)
			leader.open()
			s.settles(func() bool { return p.in.Load() == int64(n)-1 }, "all who waited are in the handler at once")
			rest.open()
			for i, a := range all {
				require.Contains(s, a.answer().says("Larder; fwd=uri-miss; detail=private").body, fmt.Sprintf(`["%d"]`, i))
			}
		}),

		// Elsewhere: one key that could not be stored made all its requests wait for each other.
		within("requests for an uncacheable response do not collapse", func(s *site) {
			p := &page{fields: []string{"Cache-Control: no-store"}}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			s.get("/p/1").is("run 1")

			p.hold = s.gate()
			all := s.starts(10, "GET", "/p/1")
			s.settles(func() bool { return p.in.Load() == 10 }, "all are in the handler at once")
			s.waiting(0)
			p.hold.open()
			for _, a := range all {
				a.answer()
			}

			p.fields = nil
			if s.f.Shared { // a request that does not wait takes no lease until the resource is no longer uncacheable
				time.Sleep(time.Minute)
			}
			s.get("/p/1").is("run 12").says("Larder; fwd=uri-miss; stored") // it is no longer so
			s.get("/p/1").is("run 12").isHit()
		}),

		// Elsewhere: one key that could not be stored made all its requests wait for each other.
		within("a response uncacheable with credentials collapses without them", func(s *site) {
			p := &page{}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			s.get("/p/1", "Authorization: a").says("Larder; fwd=uri-miss; detail=authorization")

			p.hold = s.gate()
			with := s.starts(5, "GET", "/p/1", "Authorization: a")
			s.settles(func() bool { return p.in.Load() == 5 }, "all with credentials are in the handler at once")
			without := s.starts(5, "GET", "/p/1")
			s.waiting(4)
			p.hold.open()
			for _, a := range append(with, without...) {
				a.answer()
			}
			require.EqualValues(s, 1+5+1, p.runs.Load())
		}),

		within("a request without credentials does not join one with them", func(s *site) {
			p := &page{hold: s.gate()}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			a := s.start("GET", "/p/1", "Authorization: a")
			s.settles(func() bool { return p.in.Load() == 1 }, "the one with credentials is in the handler")
			b := s.start("GET", "/p/1")
			s.settles(func() bool { return p.in.Load() == 2 }, "the one without is in the handler as well")
			p.hold.open()
			a.answer().says("Larder; fwd=uri-miss; detail=authorization")
			b.answer().says("Larder; fwd=uri-miss; stored")
		}),
	}
}
