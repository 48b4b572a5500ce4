package adaptertest

import (
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"
)

// session is middleware in front of the cache. It begins a session for each request for
// which begin returns true, and sets the session's cookie as the header goes out.
func session(begin func(c Ctx) bool) (use Use, begun *atomic.Int64) {
	begun = new(atomic.Int64)
	return AsSent(func(c Ctx) {
		if begin(c) {
			c.Add("Set-Cookie", fmt.Sprint("session=", begun.Add(1)))
		}
	}), begun
}

func always(Ctx) bool { return true }

// The promise "never another user's response": a response that sets a cookie belongs to one client, also where the
// cookie appears only as the header goes out.
func asSentCases() []testCase {
	asks := func(name string) func(Ctx) bool { return func(c Ctx) bool { return len(c.Values(name)) > 0 } }
	return []testCase{
		over("a response with a cookie set as its header is sent is not stored", func(s *site) {
			for _, size := range []int{0, 1, 5_000, 500_000} {
				s := newSite(s.TB, s.f, s.by)
				use, _ := session(always)
				p := &page{body: func(_ Ctx, run int64) string { return fmt.Sprint("token ", run, strings.Repeat(" ", size)) }}
				s.handle("GET /p/{id}", p.serve, use, s.cached("hour"))
				for i := range 3 {
					a := s.get("/p/1").isNoHit()
					require.Equal(s, fmt.Sprint("token ", i+1, strings.Repeat(" ", size)), a.body)
					require.Equal(s, []string{fmt.Sprint("session=", i+1)}, a.header.Values("Set-Cookie"))
				}
			}
		}),

		over("a response without a session is stored behind session middleware", func(s *site) {
			use, _ := session(asks("X-Begin"))
			body := func(run int64) string { return fmt.Sprint(run, strings.Repeat(".", 100_000)) }
			p := &page{body: func(_ Ctx, run int64) string { return body(run) }}
			s.handle("GET /p/{id}", p.serve, use, s.cached("hour"))
			require.Equal(s, []string{"session=1"}, s.get("/p/1", "X-Begin: 1").is(body(1)).header.Values("Set-Cookie"))
			require.Empty(s, s.get("/p/2").is(body(2)).says("Larder; fwd=uri-miss; stored").header.Values("Set-Cookie"))
			require.Empty(s, s.get("/p/2").is(body(2)).isHit().header.Values("Set-Cookie"))
			a := s.get("/p/2", "X-Begin: 1").is(body(2)).isHit() // this client gets its own cookie
			require.Equal(s, []string{"session=2"}, a.header.Values("Set-Cookie"))
			require.Empty(s, s.get("/p/2").is(body(2)).isHit().header.Values("Set-Cookie"))
			require.EqualValues(s, 2, p.runs.Load())
		}),

		within("waiting requests do not get a response with a late cookie", func(s *site) {
			use, _ := session(asks("X-Begin"))
			p := &page{hold: s.gate()}
			s.handle("GET /p/{id}", p.serve, use, s.cached("hour"))
			leader := s.start("GET", "/p/1", "X-Begin: 1")
			s.settles(func() bool { return p.in.Load() == 1 }, "the leader is in the handler")
			others := s.starts(5, "GET", "/p/1")
			s.waiting(5)
			p.hold.open()
			require.Equal(s, []string{"session=1"}, leader.answer().is("run 1").header.Values("Set-Cookie"))
			for _, a := range others {
				a := a.answer()
				require.NotEqual(s, "run 1", a.body)
				require.Empty(s, a.header.Values("Set-Cookie"))
			}
			require.NotEqual(s, "run 1", s.get("/p/1").body)
		}),

		within("waiting requests get a response that sets no cookie after all", func(s *site) {
			use, _ := session(asks("X-Begin"))
			p := &page{hold: s.gate()}
			s.handle("GET /p/{id}", p.serve, use, s.cached("hour"))
			leader := s.start("GET", "/p/1")
			s.settles(func() bool { return p.in.Load() == 1 }, "the leader is in the handler")
			others := s.starts(5, "GET", "/p/1")
			s.waiting(5)
			p.hold.open()
			leader.answer().is("run 1").says("Larder; fwd=uri-miss; stored")
			for _, a := range others {
				a.answer().is("run 1").says("Larder; fwd=uri-miss; collapsed")
			}
			s.get("/p/1").is("run 1").isHit()
		}),

		within("a renewed response with a late cookie is not stored", func(s *site) {
			use, _ := session(asks("X-Begin"))
			o := &original{etag: `"v1"`}
			o.fields = []string{"Cache-Control: max-age=60"}
			s.handle("GET /p/{id}", o.serve, use, s.cached("hour"))
			s.get("/p/1")
			s.get("/p/1").isHit()
			time.Sleep(time.Minute)
			require.Equal(s, []string{"session=1"}, s.get("/p/1", "X-Begin: 1").isNoHit().header.Values("Set-Cookie"))
			s.get("/p/1").isNoHit()
		}),

		within("a background refresh with a late cookie is not stored", func(s *site) {
			use, _ := session(asks("X-Begin"))
			p := &page{}
			s.handle("GET /p/{id}", p.serve, use, s.cached("stale"))
			s.get("/p/1").is("run 1")
			time.Sleep(time.Minute)
			s.get("/p/1", "X-Begin: 1").is("run 1").isHit()
			s.settles(func() bool { return p.runs.Load() == 2 && p.in.Load() == 0 }, "it has been refreshed")
			require.NotEqual(s, "run 2", s.get("/p/1").body)
		}),

		over("AllowSetCookie stores a response with a late cookie", func(s *site) {
			use, _ := session(always)
			p := &page{}
			s.handle("GET /p/{id}", p.serve, use, s.cached("set-cookie"))
			s.get("/p/1").is("run 1")
			a := s.get("/p/1").is("run 1").isHit()
			require.Equal(s, []string{"session=2"}, a.header.Values("Set-Cookie"))
		}),

		over("a resource that is uncacheable by a late cookie is not collapsed", func(s *site) {
			use, _ := session(always)
			p := &page{}
			s.handle("GET /p/{id}", p.serve, use, s.cached("hour"))
			s.get("/p/1").is("run 1")
			p.hold = s.gate()
			all := s.starts(5, "GET", "/p/1")
			s.settles(func() bool { return p.in.Load() == 5 }, "all are in the handler at once")
			p.hold.open()
			for _, a := range all {
				a.answer().isNoHit()
			}
		}),

		// The Cache-Control of session libraries such as scs.
		over("no-cache for Set-Cookie permits no storing without a lifetime", func(s *site) {
			p := &page{}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			for i, c := range []struct {
				fields string
				stored bool
			}{
				{`Cache-Control: no-cache="Set-Cookie"|Vary: Cookie`, false},
				{`Cache-Control: private="Set-Cookie"`, true},
				{`Cache-Control: must-revalidate, no-cache="Set-Cookie"`, false},
				{`Cache-Control: public, no-cache="Set-Cookie"`, true},
				{`Cache-Control: max-age=60, no-cache="Set-Cookie"`, true},
				{`Cache-Control: s-maxage=60, private="Set-Cookie"`, true},
				{`Cache-Control: no-cache="Set-Cookie"|Expires: Thu, 01 Jan 2099 00:00:00 GMT`, true},
			} {
				p.fields = append(strings.Split(c.fields, "|"), "Set-Cookie: session=1")
				path := fmt.Sprint("/p/", i)
				if !c.stored {
					for range 2 {
						s.get(path).says("Larder; fwd=uri-miss; detail=set-cookie")
					}
					continue
				}
				require.Equal(s, []string{"session=1"}, s.get(path).says("Larder; fwd=uri-miss; stored").header.Values("Set-Cookie"))
				require.Empty(s, s.get(path).isHit().header.Values("Set-Cookie"), c.fields)
			}
		}),
	}
}
