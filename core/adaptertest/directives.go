package adaptertest

import (
	"fmt"
	"strings"
	"time"

	"github.com/stretchr/testify/require"
)

// Cache-Control of requests (RFC 9111 section 5.2.1).
func directiveCases() []testCase {
	var cases []testCase
	for _, c := range []struct {
		said, asks string
		at         time.Duration // after it has been stored for a minute
		hit        bool
	}{
		{"", "max-age=30", 30 * time.Second, true},
		{"", "max-age=29", 30 * time.Second, false},
		{"", "max-age=29", 29*time.Second + time.Nanosecond, false},
		{"Age: 10", "max-age=30", 20 * time.Second, true},
		{"Age: 10", "max-age=29", 20 * time.Second, false},
		{"", "max-age=30, max-age=20", 30 * time.Second, false},
		{"", "max-age=ten", time.Second, false},
		{"", "max-age=0", time.Nanosecond, false},
		{"", "max-age=100", time.Minute, false},
		{"", "min-fresh=30", 30 * time.Second, true},
		{"", "min-fresh=31", 30 * time.Second, false},
		{"", "min-fresh=0", 59 * time.Second, true},
		{"", "max-age=30, min-fresh=30", 30 * time.Second, true},
		{"", "max-age=30, min-fresh=31", 30 * time.Second, false},
		{"", "max-stale", time.Minute, true},
		{"", "max-stale", 2*time.Minute - time.Nanosecond, true},
		{"", "max-stale", 2 * time.Minute, false}, // no longer kept
		{"", "max-stale=10", 70 * time.Second, true},
		{"", "max-stale=10", 71 * time.Second, false},
		{"", "max-stale, max-stale=10", 71 * time.Second, false},
		{"", "max-stale=0", 61 * time.Second, false},
		{"", "max-age=30, max-stale=10", 40 * time.Second, true},
		{"", "max-age=30, max-stale=10", 41 * time.Second, false},
		{"", "max-age=30, max-stale", 61 * time.Second, true},
		{"", "max-age=0, max-stale=10", 10 * time.Second, true},
		{"", "min-fresh=1, max-stale=10", 61 * time.Second, false},
		{"", "no-cache, max-stale", time.Second, false},
		{"Cache-Control: max-age=60, must-revalidate", "max-stale", 61 * time.Second, false},
		{"Cache-Control: max-age=60, proxy-revalidate", "max-stale=10", 61 * time.Second, false},
		{"Cache-Control: s-maxage=60", "max-stale", 61 * time.Second, false},
		{`Cache-Control: max-age=60, must-revalidate|ETag: "v1"`, "max-stale", 61 * time.Second, false},
		{`ETag: "v1"`, "max-stale", 30 * time.Minute, true}, // kept for validation
		{"", "unheard-of=1", 30 * time.Second, true},
		{"", "MAX-AGE=\"29\"", 30 * time.Second, false},
	} {
		name := fmt.Sprintf("a request that says %s after %v of a minute", c.asks, c.at)
		if c.said != "" {
			name += ": " + c.said
		}
		cases = append(cases, within(name, func(s *site) {
			p := &page{}
			if c.said != "" {
				p.fields = strings.Split(c.said, "|")
			}
			s.handle("GET /p/{id}", p.serve, s.cached("minute"))
			s.get("/p/1").is("run 1").says("Larder; fwd=uri-miss; stored")
			time.Sleep(c.at)
			if c.hit {
				s.get("/p/1", "Cache-Control: "+c.asks).is("run 1").isHit()
				require.EqualValues(s, 1, p.runs.Load())
				return
			}
			s.get("/p/1", "Cache-Control: "+c.asks).is("run 2").isNoHit()
			s.get("/p/1").is("run 2").isHit()
		}))
	}
	return append(cases, []testCase{
		within("a stale response under max-stale says so", func(s *site) {
			p := &page{}
			s.handle("GET /p/{id}", p.serve, s.cached("minute"))
			s.get("/p/1").is("run 1")
			time.Sleep(70 * time.Second)
			a := s.get("/p/1", "Cache-Control: max-stale=10").is("run 1").says("Larder; hit; ttl=-10")
			require.Equal(s, "70", a.header.Get("Age"))
			require.EqualValues(s, 1, s.cache.Stats().StaleHits)
			s.get("/p/1").is("run 2").isNoHit()
		}),

		within("max-age and min-fresh rule out StaleWhileRevalidate", func(s *site) {
			p := &page{}
			s.handle("GET /p/{id}", p.serve, s.cached("stale"))
			s.get("/p/1").is("run 1")
			time.Sleep(61 * time.Second)
			s.get("/p/1", "Cache-Control: max-age=100").is("run 2").isNoHit()
			time.Sleep(61 * time.Second)
			s.get("/p/1", "Cache-Control: max-stale=0").is("run 2").isHit()
		}),

		within("only-if-cached is answered from the store, or by 504", func(s *site) {
			const only = "Cache-Control: only-if-cached"
			p := &page{}
			s.handle("GET /p/{id}", p.serve, s.cached("only-if-cached"))
			refused := func(method string, fields ...string) {
				a := s.do(method, "/p/1", append(fields, "X-A: 1")...)
				require.Equal(s, 504, a.status)
				require.Contains(s, a.cacheStatus(), "detail=only-if-cached")
				a.keptByNobody()
			}
			refused("GET", only)
			refused("HEAD", only)
			require.Zero(s, p.runs.Load())
			s.get("/p/1").is("run 1").says("Larder; fwd=uri-miss; stored")
			s.get("/p/1", only).is("run 1").isHit()
			require.Equal(s, 200, s.do("HEAD", "/p/1", only).isHit().status)
			time.Sleep(30 * time.Second)
			refused("GET", only+", max-age=29")
			refused("GET", only+", no-cache")
			time.Sleep(31 * time.Second)
			refused("GET", only)
			refused("HEAD", only)
			s.get("/p/1", only+", max-stale").is("run 1").isHit()
			require.EqualValues(s, 1, p.runs.Load())
			s.get("/p/1").is("run 2").isNoHit()
		}),

		within("only-if-cached does not validate", func(s *site) {
			o := &original{etag: `"v1"`}
			o.fields = []string{"Cache-Control: no-cache"}
			s.handle("GET /p/{id}", o.serve, s.cached("only-if-cached"))
			s.get("/p/1").is("run 1")
			require.Equal(s, 504, s.get("/p/1", "Cache-Control: only-if-cached").status)
			require.EqualValues(s, 1, o.runs.Load())
		}),

		within("a class says which directives requests may use", func(s *site) {
			p := &page{}
			s.handle("GET /p/{id}", p.serve, s.cached("max-age-only"))
			s.handle("GET /n/{id}", p.serve, s.cached("no-directives"))
			s.get("/p/1").is("run 1")
			s.get("/n/1").is("run 2")
			time.Sleep(30 * time.Second)
			for _, f := range []string{"no-cache", "no-store", "min-fresh=3600", "no-cache, max-age=30"} {
				s.get("/p/1", "Cache-Control: "+f).is("run 1").isHit()
			}
			s.get("/p/1", "Pragma: no-cache").is("run 1").isHit()
			for _, f := range []string{"no-cache", "no-store", "max-age=0", "min-fresh=3600"} {
				s.get("/n/1", "Cache-Control: "+f).is("run 2").isHit()
			}
			s.get("/p/1", "Cache-Control: max-age=29").is("run 3").isNoHit()
			s.get("/p/2", "Cache-Control: only-if-cached").is("run 4").isNoHit()
			s.get("/n/2", "Cache-Control: only-if-cached").is("run 5").isNoHit()
			time.Sleep(time.Hour)
			s.get("/p/1", "Cache-Control: max-stale").is("run 6").isNoHit()
			s.get("/n/1", "Cache-Control: max-stale").is("run 7").isNoHit()
		}),

		within("concurrent requests that say no-cache share one run", func(s *site) {
			for _, asks := range []string{"max-age=0", "no-cache", "max-age=9", "min-fresh=3600"} {
				s := newSite(s.TB, s.f, s.by)
				p := &page{}
				s.handle("GET /p/{id}", p.serve, s.cached("minute"))
				s.get("/p/1").is("run 1")
				time.Sleep(10 * time.Second)
				p.hold = s.gate()
				all := s.starts(10, "GET", "/p/1", "Cache-Control: "+asks)
				s.waiting(9)
				s.get("/p/1").is("run 1").isHit() // the others have their answer
				p.hold.open()
				for _, a := range all {
					a.answer().is("run 2")
				}
				require.EqualValues(s, 2, p.runs.Load(), asks)
			}
		}),
	}...)
}
