package adaptertest

import (
	"fmt"
	"slices"
	"time"

	"github.com/stretchr/testify/require"
)

// The effect of a HEAD's answer on the stored response (RFC 9111 section 4.3.5), and other
// ways in which a handler answers a validation.
func headValidateCases() []testCase {
	return []testCase{
		within("a HEAD with the same version renews the entry", func(s *site) {
			for _, o := range []*original{{etag: `"v1"`}, {modified: lastModified}} {
				s := newSite(s.TB, s.f, s.by)
				s.handle("GET /p/{id}", o.serve, s.cached("minute"))
				s.get("/p/1").is("run 1")
				time.Sleep(time.Minute)
				a := s.do("HEAD", "/p/1").says("Larder; fwd=stale; stored")
				require.Equal(s, 200, a.status)
				require.Empty(s, a.body)
				require.Empty(s, o.last(), "its own request goes to the handler")
				s.get("/p/1").is("run 1").says("Larder; hit; ttl=60")
			}
		}),

		within("a HEAD with another version removes the entry", func(s *site) {
			for _, c := range []struct{ o, then *original }{
				{&original{etag: `"v1"`}, &original{etag: `"v2"`}},
				{&original{modified: lastModified}, &original{modified: "Sun, 02 Jan 2000 00:00:00 GMT"}},
			} {
				s := newSite(s.TB, s.f, s.by)
				s.handle("GET /p/{id}", c.o.serve, s.cached("minute"))
				s.get("/p/1").is("run 1")
				time.Sleep(time.Minute)
				etag, modified := c.o.etag, c.o.modified
				c.o.etag, c.o.modified = c.then.etag, c.then.modified
				s.do("HEAD", "/p/1").says("Larder; fwd=stale")
				c.o.etag, c.o.modified = etag, modified
				s.get("/p/1").is("run 3").says("Larder; fwd=uri-miss; stored")
				require.Empty(s, c.o.last())
			}
		}),

		within("a HEAD without a version leaves the entry to be validated", func(s *site) {
			o := &original{etag: `"v1"`}
			s.handle("GET /p/{id}", o.serve, s.cached("minute"))
			s.get("/p/1").is("run 1")
			time.Sleep(time.Minute)
			o.failing = 503
			s.do("HEAD", "/p/1").says("Larder; fwd=stale")
			o.failing, o.etag = 0, ""
			s.do("HEAD", "/p/1").says("Larder; fwd=stale")
			o.etag = `"v1"`
			s.get("/p/1").is("run 1").says(renewed)
		}),

		within("a 304 that the handler returns as an error renews as well", func(s *site) {
			o := &original{etag: `"v1"`}
			s.handle("GET /p/{id}", func(c Ctx) error {
				if o.knows(c) {
					o.runs.Add(1)
					return s.f.Error(304)
				}
				return o.serve(c)
			}, s.cached("minute"))
			s.get("/p/1").is("run 1")
			for range 2 {
				time.Sleep(time.Minute)
				s.get("/p/1").is("run 1").says(renewed)
				s.get("/p/1").is("run 1").says("Larder; hit; ttl=60")
			}
		}, noErrors),

		within("a condition that only the handler can evaluate is left to it", func(s *site) {
			for _, f := range []string{`If-Match: "v0"`, "If-Unmodified-Since: " + lastModified} {
				s := newSite(s.TB, s.f, s.by)
				o := &original{etag: `"v1"`}
				s.handle("GET /p/{id}", o.serve, s.cached("minute"))
				s.get("/p/1").is("run 1")
				time.Sleep(time.Minute)
				s.get("/p/1", f, hasV1).isNoHit()
				require.Contains(s, o.last(), f)
			}
		}),

		within("a 304 without an entry to renew is not shared", func(s *site) {
			o := &original{etag: `"v1"`}
			s.handle("GET /p/{id}", o.serve, s.cached("minute"))
			a := s.get("/p/1", hasV1).says("Larder; fwd=uri-miss; detail=partial-or-conditional")
			require.Equal(s, 304, a.status)
			s.get("/p/1").is("run 2").says("Larder; fwd=uri-miss; stored")
			require.True(s, slices.Equal([]string{hasV1, ""}, o.asked.all()), fmt.Sprint(o.asked.all()))
		}),
	}
}
