package adaptertest

import (
	"fmt"
	"net/http"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
)

// Validation at each use and by HEAD, and its outcomes other than a renewal.
func revalidateCases() []testCase {
	return []testCase{
		within("an invalidation during a validation leaves nothing renewed", func(s *site) {
			o := &original{etag: `"v1"`}
			s.handle("GET /p/{id}", o.serve, s.cached("minute", "p:{id}"))
			s.get("/p/1").is("run 1")
			time.Sleep(time.Minute)
			o.hold = s.gate()
			before := s.start("GET", "/p/1")
			s.settles(func() bool { return o.in.Load() == 1 }, "the handler is asked")
			s.invalidate(core.Tag("p:1"))
			after := s.start("GET", "/p/1")
			s.settles(func() bool { return o.in.Load() == 2 }, "who comes later does not wait for it")
			require.Equal(s, []string{"", hasV1, ""}, o.asked.all())
			o.hold.open()
			if a := before.answer().is("run 1"); s.f.Shared { // where the lease has gone as well
				require.Regexp(s, "^Larder; fwd=stale; fwd-status=304; detail=", a.cacheStatus())
			} else {
				a.says("Larder; fwd=stale; fwd-status=304; detail=invalidated")
			}
			after.answer().is("run 3").says("Larder; fwd=uri-miss; stored")
			s.get("/p/1").is("run 3").isHit()
		}),

		within("a renewed response keeps the tags its handler added", func(s *site) {
			o := &original{etag: `"v1"`}
			names := []string{"first", "second", "third"} // of its answers, one each
			s.handle("GET /p/{id}", func(c Ctx) error {
				if err := core.AddTags(c.Context(), names[o.runs.Load()]); err != nil {
					return c.Text(500, err.Error())
				}
				return o.serve(c)
			}, s.cached("minute"))
			for _, name := range names {
				s.invalidate(core.All())
				o.runs.Store(0)
				s.get("/p/1").is("run 1").isNoHit()
				for range 2 {
					time.Sleep(time.Minute)
					s.get("/p/1").is("run 1").says(renewed)
				}
				s.invalidate(core.Tag("nobody's"))
				s.get("/p/1").is("run 1").isHit()
				o.runs.Store(0)
				s.invalidate(core.Tag(name))
				s.get("/p/1").is("run 1").says("Larder; fwd=uri-miss; stored")
			}
		}),

		within("a response that says no-cache is validated at each use", func(s *site) {
			for _, said := range []string{"Cache-Control: no-cache", "Cache-Control: max-age=60, no-cache", "Pragma: no-cache", "CDN-Cache-Control: no-cache"} {
				s := newSite(s.TB, s.f, s.by)
				o := &original{etag: `"v1"`}
				o.fields = []string{said}
				s.handle("GET /p/{id}", o.serve, s.cached("all-windows"))
				s.get("/p/1").is("run 1").says("Larder; fwd=uri-miss; stored")
				for run := 2; run < 5; run++ {
					a := s.get("/p/1").is("run 1").isNoHit()
					require.Contains(s, a.cacheStatus(), "fwd-status=304", said)
					require.EqualValues(s, run, o.runs.Load(), said)
					require.Equal(s, hasV1, o.last(), said)
				}
				require.Equal(s, 304, s.get("/p/1", hasV1).status)
				require.EqualValues(s, 5, o.runs.Load(), said)
				s.get("/p/1", "Cache-Control: max-stale").is("run 1").isNoHit()
			}
		}),

		within("requests for a no-cache response do not wait for a validation", func(s *site) {
			o := &original{etag: `"v1"`}
			o.fields = []string{"Cache-Control: no-cache"}
			s.handle("GET /p/{id}", o.serve, s.cached("minute"))
			s.get("/p/1").is("run 1")
			o.hold = s.gate()
			all := s.starts(5, "GET", "/p/1")
			s.settles(func() bool { return o.in.Load() == 5 }, "all are in the handler")
			o.hold.open()
			for _, a := range all {
				a.answer().is("run 1")
			}
			o.hold = s.gate()
			all = s.starts(5, "GET", "/p/2")
			s.settles(func() bool { return o.in.Load() == 1 }, "the first one is in the handler")
			o.hold.open()
			for _, a := range all {
				require.Equal(s, 200, a.answer().status)
			}
			require.EqualValues(s, 11, o.runs.Load(), "and each has run it or asked")
		}),

		within("a response expired on arrival is not shared, and is validated next", func(s *site) {
			o := &original{etag: `"v1"`}
			o.fields, o.hold = []string{"Cache-Control: max-age=0"}, s.gate()
			s.handle("GET /p/{id}", o.serve, s.cached("minute"))
			all := s.starts(5, "GET", "/p/1")
			s.waiting(4)
			o.hold.open()
			for _, a := range all {
				require.Equal(s, 200, a.answer().status)
			}
			require.EqualValues(s, 5, o.runs.Load())
			s.get("/p/1").isNoHit()
			require.Equal(s, hasV1, o.last())
		}),

		within("a response that says no-cache and has no validator is not stored", func(s *site) {
			o := &original{}
			o.fields = []string{"Cache-Control: max-age=60, no-cache"}
			s.handle("GET /p/{id}", o.serve, s.cached("all-windows"))
			for i := range 3 {
				s.get("/p/1").is(fmt.Sprint("run ", i+1)).says("Larder; fwd=uri-miss; detail=no-cache")
			}
		}),

		within("no-cache does not make a status storable by itself", func(s *site) {
			for _, status := range []int{302, 403, 500} {
				s := newSite(s.TB, s.f, s.by)
				o := &original{etag: `"v1"`}
				o.status, o.fields = status, []string{"Cache-Control: no-cache"}
				s.handle("GET /p/{id}", o.serve, s.cached("hour"))
				for range 2 {
					require.Equal(s, status, s.get("/p/1").says(fmt.Sprint("Larder; fwd=uri-miss; detail=status-", status)).status)
					require.Empty(s, o.last())
				}
			}
		}),

		within("a request with no-cache validates the entry", func(s *site) {
			o := &original{etag: `"v1"`}
			s.handle("GET /p/{id}", o.serve, s.cached("minute"))
			s.get("/p/1").is("run 1")
			for _, f := range []string{"Cache-Control: no-cache", "Pragma: no-cache", "Cache-Control: max-age=0"} {
				time.Sleep(10 * time.Second)
				s.get("/p/1", f).is("run 1").says("Larder; fwd=request; fwd-status=304; stored")
				require.Equal(s, hasV1, o.last())
				s.get("/p/1").is("run 1").says("Larder; hit; ttl=60")
			}
		}),

		within("a 304 with no-store removes the entry", func(s *site) {
			for _, c := range []struct{ field, detail string }{
				{"Set-Cookie: a=1", "set-cookie"},
				{"Cache-Control: no-store", "no-store"},
				{"Cache-Control: private", "private"},
				{"Vary: *", "vary-star"},
			} {
				s := newSite(s.TB, s.f, s.by)
				o := &original{etag: `"v1"`, renewal: []string{c.field}}
				s.handle("GET /p/{id}", o.serve, s.cached("minute"))
				s.get("/p/1").is("run 1")
				time.Sleep(time.Minute)
				a := s.get("/p/1").is("run 1").says("Larder; fwd=stale; fwd-status=304; detail=" + c.detail)
				require.Equal(s, c.field == "Set-Cookie: a=1", a.header.Get("Set-Cookie") != "")
				a = s.get("/p/1").is("run 3").says("Larder; fwd=uri-miss; stored")
				require.Empty(s, a.header.Get("Set-Cookie"))
				require.Empty(s, o.last())
			}
		}),

		within("an error in place of a 304 passes unless StaleIfError applies", func(s *site) {
			for _, c := range []struct {
				class, said string
				window      time.Duration
			}{
				{"minute", "X-A: 1", 0},
				{"spare", "X-A: 1", time.Minute},
				{"minute", "Cache-Control: max-age=60, stale-if-error=30", 30 * time.Second},
				{"spare", "Cache-Control: max-age=60, must-revalidate", 0},
				{"spare", "Cache-Control: max-age=60, proxy-revalidate", 0},
				{"spare", "Cache-Control: s-maxage=60", 0},
			} {
				s := newSite(s.TB, s.f, s.by)
				o := &original{etag: `"v1"`}
				o.fields = []string{c.said}
				s.handle("GET /p/{id}", o.serve, s.cached(c.class))
				s.get("/p/1").is("run 1")
				time.Sleep(time.Minute)
				o.failing = 503
				if c.window > 0 {
					s.get("/p/1").is("run 1").says("Larder; fwd=stale; fwd-status=503; detail=stale-if-error")
					time.Sleep(c.window - time.Nanosecond)
					s.get("/p/1").is("run 1")
					time.Sleep(time.Nanosecond)
				}
				require.Equal(s, 503, s.get("/p/1").isNoHit().status, c.said)
				require.Equal(s, hasV1, o.last())
				o.failing = 0
				s.get("/p/1").is("run 1").says(renewed) // it is still there to be validated
			}
		}),

		within("a 304 that the handler flushes renews as well", func(s *site) {
			o := &original{etag: `"v1"`}
			s.handle("GET /p/{id}", func(c Ctx) error {
				err := o.serve(c)
				if o.knows(c) {
					c.ResponseWriter().(http.Flusher).Flush()
				}
				return err
			}, s.cached("minute"))
			s.get("/p/1").is("run 1")
			time.Sleep(time.Minute)
			s.get("/p/1").is("run 1").says(renewed)
			s.get("/p/1").is("run 1").says("Larder; hit; ttl=60")
		}, noResponseWriter),

		within("outer middleware sees the client's conditions, before and after", func(s *site) {
			o := &original{etag: `"v1"`}
			var outside seen[string]
			look := func(c Ctx) {
				outside.add(fmt.Sprint(c.Values("If-None-Match"), c.Values("If-Modified-Since"), c.Values("Range"), c.Values("X-A")))
			}
			s.handle("GET /p/{id}", o.serve, Around(func(c Ctx, next func() error) error {
				look(c)
				defer look(c)
				return next()
			}), s.cached("minute"))
			fields := []string{`If-None-Match: "v0"`, "Range: bytes=0-2", "X-A: 1"}
			for range 2 {
				s.get("/p/1", "X-A: 1")
				time.Sleep(time.Minute)
			}
			s.get("/p/1", fields...).says(renewed)
			require.Equal(s, hasV1, o.last())
			all := outside.all()
			require.Len(s, all, 6)
			for i, got := range all {
				want := "[] [] [] [1]"
				if i >= 4 {
					want = `["v0"] [] [bytes=0-2] [1]`
				}
				require.Equal(s, want, got)
			}
		}),
	}
}
