package adaptertest

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
)

// Lifetimes beyond the plain cases of freshCases: guessed, targeted at shared caches,
// reduced by age, and stale.
func lifetimeCases() []testCase {
	var cases []testCase
	day := 24 * time.Hour
	for _, c := range []struct {
		name, class string
		status      int
		field       string
		changed     time.Duration // so long ago
		fresh       time.Duration // 0: it is not stored
	}{
		{"a tenth of the time since the last change", "", 200, "X-A: 1", 100 * time.Second, 10 * time.Second},
		// Most of the day has passed at another cache, since a bubble that waits a whole day is slow.
		{"but no more than a day", "", 200, fmt.Sprintf("Age: %d", (day-20*time.Second)/time.Second), 1000 * day, 20 * time.Second},
		{"also of what is not found", "", 404, "X-A: 1", 100 * time.Second, 10 * time.Second},
		{"also of what says that it is public", "", 302, "Cache-Control: public", 100 * time.Second, 10 * time.Second},
		{"not of other statuses", "", 302, "X-A: 1", 100 * time.Second, 0},
		{"not in the future", "", 200, "X-A: 1", -100 * time.Second, 0},
		{"not where the response states its lifetime", "", 200, "Cache-Control: max-age=20", 100 * time.Second, 20 * time.Second},
		{"not in a class with a TTL", "minute", 200, "X-A: 1", 100 * time.Second, time.Minute},
		{"not of what is not found in a class with a TTL", "minute", 404, "X-A: 1", 100 * time.Second, 0},
		{"not in a class that wants none", "no-heuristic", 200, "X-A: 1", 100 * time.Second, 0},
	} {
		cases = append(cases, within("a lifetime is guessed by Last-Modified: "+c.name, func(s *site) {
			p := &page{status: c.status, fields: []string{c.field, "Last-Modified: " + time.Now().Add(-c.changed).UTC().Format(http.TimeFormat)}}
			s.handle("GET /p/{id}", p.serve, s.cached(c.class))
			if c.fresh == 0 {
				s.get("/p/1")
				s.get("/p/1").isNoHit()
				require.EqualValues(s, 2, p.runs.Load())
				return
			}
			s.get("/p/1").says("Larder; fwd=uri-miss; stored")
			time.Sleep(c.fresh - time.Nanosecond)
			s.get("/p/1").isHit()
			time.Sleep(time.Nanosecond)
			s.get("/p/1").isNoHit()
		}))
	}
	for _, c := range []struct {
		fields string
		fresh  time.Duration // 0: it is not stored
	}{
		{"CDN-Cache-Control: max-age=20|Cache-Control: max-age=10", 20 * time.Second},
		{"CDN-Cache-Control: max-age=20|Cache-Control: no-store", 20 * time.Second},
		{"CDN-Cache-Control: max-age=20|Cache-Control: s-maxage=10, private", 20 * time.Second},
		{"CDN-Cache-Control: max-age=20|Expires: 0", 20 * time.Second},
		{"CDN-Cache-Control: public|Expires: 0", time.Minute},
		{"CDN-Cache-Control: public|CDN-Cache-Control: max-age=20", 20 * time.Second},
		{"CDN-Cache-Control: no-store|Cache-Control: max-age=10", 0},
		{"CDN-Cache-Control: max-age=0|Cache-Control: max-age=10", 0},
		{"CDN-Cache-Control: private|Cache-Control: max-age=10", 0},
		{"CDN-Cache-Control: max-age=20,,|Cache-Control: max-age=10", 10 * time.Second}, // malformed
		{"CDN-Cache-Control: MAX-AGE=20|Cache-Control: max-age=10", 10 * time.Second},
		{"CDN-Cache-Control: |Cache-Control: max-age=10", 10 * time.Second},
		{"CDN-Cache-Control: max-age=20|Pragma: no-cache", 20 * time.Second},
		{"Cache-Control: max-age=10|Pragma: no-cache", 10 * time.Second},
		{"Cache-Control: max-age=10, no-store, must-understand", 10 * time.Second},
		{"Cache-Control: max-age=10, must-understand", 10 * time.Second},
		{"Cache-Control: max-age=10|Age: old", 0},
		{"Cache-Control: max-age=10|Age: -1", 0},
		{"Cache-Control: max-age=10|Age: 1|Age: 2", 0},
		{"Cache-Control: max-age=10|Age: 9", time.Second},
	} {
		cases = append(cases, within("a lifetime that the response states: "+c.fields, func(s *site) {
			p := &page{fields: strings.Split(c.fields, "|")}
			s.handle("GET /p/{id}", p.serve, s.cached("minute"))
			a := s.get("/p/1").is("run 1")
			for _, f := range p.fields { // they are the client's as well
				name, _, _ := strings.Cut(f, ":")
				require.NotEmpty(s, a.header.Values(name), name)
			}
			if c.fresh == 0 {
				s.get("/p/1").is("run 2").isNoHit()
				return
			}
			time.Sleep(c.fresh - time.Nanosecond)
			s.get("/p/1").is("run 1").isHit()
			time.Sleep(time.Nanosecond)
			s.get("/p/1").is("run 2").isNoHit()
		}))
	}
	for _, c := range []struct {
		class, said  string
		stale, spare time.Duration // after a minute
	}{
		{"", "max-age=60", 0, 0},
		{"", "max-age=60, stale-while-revalidate=20", 20 * time.Second, 20 * time.Second},
		{"", "max-age=60, stale-if-error=20", 0, 20 * time.Second},
		{"", "max-age=60, stale-while-revalidate=20, stale-if-error=40", 20 * time.Second, 40 * time.Second},
		{"all-windows", "max-age=60", time.Minute, time.Minute},
		{"all-windows", "max-age=60, stale-while-revalidate=0, stale-if-error=0", 0, 0},
		{"all-windows", "max-age=60, stale-while-revalidate=20, stale-if-error=0", 20 * time.Second, 20 * time.Second},
		{"all-windows", "max-age=60, must-revalidate", 0, 0},
		{"all-windows", "max-age=60, proxy-revalidate", 0, 0},
		{"all-windows", "s-maxage=60", 0, 0},
		{"all-windows", "s-maxage=60, stale-while-revalidate=20, stale-if-error=40", 0, 0},
	} {
		cases = append(cases, within(fmt.Sprintf("how long a response is used after its lifetime, in the class %q: %s", c.class, c.said), func(s *site) {
			p := &original{}
			p.fields = []string{"Cache-Control: " + c.said}
			s.handle("GET /p/{id}", p.serve, s.cached(c.class))
			for _, at := range []struct {
				window  time.Duration
				failing int
			}{{c.stale, 0}, {c.spare, 503}} {
				s.invalidate(core.All())
				p.failing = 0
				s.get("/p/1").says("Larder; fwd=uri-miss; stored")
				s.get("/p/2").says("Larder; fwd=uri-miss; stored")
				time.Sleep(time.Minute + at.window - time.Nanosecond)
				p.failing = at.failing
				require.Equal(s, 200, s.get("/p/1").status)
				s.settles(func() bool { return true }, "a refresh has ended")
				time.Sleep(time.Nanosecond)
				a := s.get("/p/2").isNoHit()
				require.Equal(s, max(200, at.failing), a.status)
			}
		}))
	}
	return append(cases, []testCase{
		within("a status without the class's TTL is stored by a stated lifetime", func(s *site) {
			for i, status := range []int{201, 302, 307, 400, 403, 404, 429, 451, 500, 503} {
				for _, said := range []string{"Cache-Control: max-age=10", "Expires: " + time.Now().Add(10*time.Second).UTC().Format(http.TimeFormat)} {
					s := newSite(s.TB, s.f, s.by)
					p := &page{status: status, fields: []string{said}}
					path := fmt.Sprint("/p", i)
					s.handle("GET "+path, p.serve, s.cached("hour"))
					s.get(path).says("Larder; fwd=uri-miss; stored")
					a := s.get(path).says("Larder; hit; ttl=10")
					require.Equal(s, status, a.status)
					require.Equal(s, "run 1", a.body)
				}
			}
		}),

		within("must-understand overrides no-store for known statuses only", func(s *site) {
			for _, c := range []struct {
				status       int
				said, detail string
			}{
				{200, "max-age=60, must-understand, no-store", ""},
				{404, "max-age=60, must-understand, no-store", ""},
				{299, "max-age=60, must-understand, no-store", "no-store"},
				{299, "max-age=60, must-understand", "must-understand"},
				{299, "max-age=60", ""},
				{200, "max-age=60, no-store", "no-store"},
			} {
				s := newSite(s.TB, s.f, s.by)
				p := &page{status: c.status, fields: []string{"Cache-Control: " + c.said}}
				s.handle("GET /p/{id}", p.serve, s.cached("hour"))
				if c.detail == "" {
					s.get("/p/1").says("Larder; fwd=uri-miss; stored")
					require.Equal(s, c.status, s.get("/p/1").isHit().status)
					continue
				}
				for range 2 {
					s.get("/p/1").says("Larder; fwd=uri-miss; detail=" + c.detail)
				}
			}
		}),

		within("a field for one client is kept from the others", func(s *site) {
			var fields []string
			s.handle("GET /p/{id}", func(c Ctx) error {
				add(c, fields)
				return c.Text(200, "page")
			}, s.cached("hour"))
			for i, c := range []struct{ said, name string }{
				{`private="X-Mine"`, "X-Mine"},
				{`private="x-mine, X-Too"`, "X-Mine"},
				{`no-cache="X-Mine"`, "X-Mine"},
				{`no-cache="Set-Cookie"`, "Set-Cookie"},
				{`private="set-cookie"`, "Set-Cookie"},
			} {
				fields = []string{"Cache-Control: max-age=60, " + c.said, c.name + ": a=1", "X-All: 1"}
				path := fmt.Sprint("/p/", i)
				require.Equal(s, "a=1", s.get(path).is("page").says("Larder; fwd=uri-miss; stored").header.Get(c.name), c.said)
				a := s.get(path).is("page").isHit()
				require.Empty(s, a.header.Values(c.name), c.said)
				require.Equal(s, "1", a.header.Get("X-All"))
			}
		}),

		within("a field for one client is kept from waiting requests", func(s *site) {
			p := &page{fields: []string{`Cache-Control: private="X-Mine"`, "X-Mine: 1"}, hold: s.gate()}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			all := s.starts(5, "GET", "/p/1")
			s.waiting(4)
			p.hold.open()
			n := 0
			for _, a := range all {
				n += len(a.answer().is("run 1").header.Values("X-Mine"))
			}
			require.Equal(s, 1, n)
		}),

		within("a field for one client is kept in an entry of an identity", func(s *site) {
			p := &page{fields: []string{`Cache-Control: max-age=60, private="X-Mine"`, "X-Mine: 1"}}
			s.handle("GET /p/{id}", p.serve, CachedRoute{Cached: Cached{s.cache, "hour", nil}, IdentityField: "X-User"})
			s.get("/p/1", "X-User: a").is("run 1")
			require.Equal(s, "1", s.get("/p/1", "X-User: a").is("run 1").isHit().header.Get("X-Mine"))
		}),

		within("a response's age is the larger of Age and the time since Date", func(s *site) {
			for _, c := range []struct {
				ago  time.Duration
				age  string
				left time.Duration
			}{
				{20 * time.Second, "", 40 * time.Second},
				{20 * time.Second, "30", 30 * time.Second},
				{20 * time.Second, "10", 40 * time.Second},
				{-20 * time.Second, "", time.Minute},
				{60 * time.Second, "", 0},
			} {
				s := newSite(s.TB, s.f, s.by)
				p := &page{fields: []string{"Cache-Control: max-age=60", "Date: " + time.Now().Add(-c.ago).UTC().Format(http.TimeFormat)}}
				if c.age != "" {
					p.fields = append(p.fields, "Age: "+c.age)
				}
				s.handle("GET /p/{id}", p.serve, s.cached("hour"))
				if c.left == 0 {
					for range 2 {
						s.get("/p/1").says("Larder; fwd=uri-miss; detail=expired")
					}
					continue
				}
				s.get("/p/1").says("Larder; fwd=uri-miss; stored")
				a := s.get("/p/1").says(fmt.Sprint("Larder; hit; ttl=", int(c.left/time.Second)))
				require.Equal(s, fmt.Sprint(60-int(c.left/time.Second)), a.header.Get("Age"))
				time.Sleep(c.left)
				s.get("/p/1").isNoHit()
			}
		}, noDateOverride),

		within("a guessed lifetime counts from the response's Date as well", func(s *site) {
			date := time.Now().Add(-time.Minute)
			p := &page{fields: []string{
				"Date: " + date.UTC().Format(http.TimeFormat), "Last-Modified: " + date.Add(-20*time.Minute).UTC().Format(http.TimeFormat),
			}}
			s.handle("GET /p/{id}", p.serve, s.cached(""))
			s.get("/p/1").is("run 1").says("Larder; fwd=uri-miss; stored")
			s.get("/p/1").says("Larder; hit; ttl=60")
		}, noDateOverride),

		within("AllowSetCookie stores cookies and sends them to all clients", func(s *site) {
			p := &page{fields: []string{"Set-Cookie: a=1", "Set-Cookie: b=2"}}
			s.handle("GET /p/{id}", p.serve, s.cached("set-cookie"))
			s.get("/p/1").is("run 1").says("Larder; fwd=uri-miss; stored")
			require.Equal(s, []string{"a=1", "b=2"}, s.get("/p/1").is("run 1").isHit().header.Values("Set-Cookie"))
		}),
	}...)
}
