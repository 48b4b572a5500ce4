package adaptertest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
)

// original is a page with a version. It answers 304 to a client that has that version.
type original struct {
	page
	etag, modified string // its validators; "": none
	renewal        []string
	failing        int          // status in place of all others
	asked          seen[string] // the conditions that each run has seen
}

func (o *original) serve(c Ctx) error {
	var asked []string
	for _, name := range []string{"If-Match", "If-Modified-Since", "If-None-Match", "If-Range", "If-Unmodified-Since", "Range"} {
		for _, v := range c.Values(name) {
			asked = append(asked, name+": "+v)
		}
	}
	o.asked.add(strings.Join(asked, "|"))
	if o.etag != "" {
		c.Set("ETag", o.etag)
	}
	if o.modified != "" {
		c.Set("Last-Modified", o.modified)
	}
	if o.failing > 0 {
		o.runs.Add(1)
		return c.Text(o.failing, "failed")
	}
	if !o.knows(c) {
		return o.page.serve(c)
	}
	o.enter()
	defer o.in.Add(-1)
	if o.hold != nil {
		o.hold.wait()
	}
	add(c, o.renewal)
	c.Status(304)
	return nil
}

func (o *original) knows(c Ctx) bool {
	if tags := c.Values("If-None-Match"); len(tags) > 0 {
		return o.etag != "" && slices.Contains(tags, o.etag)
	}
	return o.modified != "" && slices.Contains(c.Values("If-Modified-Since"), o.modified)
}

// last returns the conditions of the latest run.
func (o *original) last() string {
	all := o.asked.all()
	return all[len(all)-1]
}

const (
	renewed = "Larder; fwd=stale; fwd-status=304; stored"
	hasV1   = `If-None-Match: "v1"`
)

// Validation (RFC 9111 section 4.3).
func validateCases() []testCase {
	var cases []testCase
	for _, c := range []struct{ by, etag, modified, asked string }{
		{"a strong ETag", `"v1"`, "", hasV1},
		{"a weak ETag", `W/"v1"`, "", `If-None-Match: W/"v1"`},
		{"Last-Modified", "", lastModified, "If-Modified-Since: " + lastModified},
		{"both", `"v1"`, lastModified, "If-Modified-Since: " + lastModified + "|" + hasV1},
	} {
		cases = append(cases, within("an expired response is validated by "+c.by+", and a 304 renews it", func(s *site) {
			o := &original{etag: c.etag, modified: c.modified}
			s.handle("GET /p/{id}", o.serve, s.cached("minute"))
			s.get("/p/1").is("run 1").says("Larder; fwd=uri-miss; stored")
			for range 2 {
				time.Sleep(time.Minute - time.Nanosecond)
				s.get("/p/1").is("run 1").isHit()
				time.Sleep(time.Nanosecond)
				s.get("/p/1").is("run 1").says(renewed)
				require.Equal(s, c.asked, o.last())
				s.get("/p/1").is("run 1").says("Larder; hit; ttl=60")
			}
			require.EqualValues(s, 3, o.runs.Load())
		}))
	}
	return append(cases, []testCase{
		within("a validation uses the cache's validators, the answer the client's", func(s *site) {
			o := &original{etag: `"v1"`}
			s.handle("GET /p/{id}", o.serve, s.cached("minute"))
			s.get("/p/1").is("run 1")
			for _, c := range []struct {
				fields []string
				status int
				body   string
			}{
				{[]string{hasV1}, 304, ""},
				{[]string{`If-None-Match: "v0"`}, 200, "run 1"},
				{[]string{"If-Modified-Since: " + lastModified}, 200, "run 1"},
				{[]string{"Range: bytes=0-2"}, 206, "run"},
				{[]string{"Range: bytes=0-2", `If-Range: "v1"`}, 206, "run"},
				{[]string{"Range: bytes=0-2", `If-Range: "v0"`}, 200, "run 1"},
				{[]string{"Range: bytes=0-2", `If-None-Match: "v0"`}, 206, "run"},
				{[]string{"Range: bytes=0-2", hasV1}, 304, ""},
				{[]string{"Range: bytes=9-"}, 416, ""},
			} {
				time.Sleep(time.Minute)
				a := s.get("/p/1", c.fields...).says(renewed)
				require.Equal(s, c.status, a.status, c.fields)
				require.Equal(s, c.body, a.body, c.fields)
				require.Equal(s, hasV1, o.last(), c.fields)
			}
		}),

		within("a new version in place of a 304 replaces the old one", func(s *site) {
			o := &original{etag: `"v1"`}
			s.handle("GET /p/{id}", o.serve, s.cached("minute"))
			s.get("/p/1").is("run 1")
			for i, c := range []struct {
				field  string
				status int
				body   string
			}{
				{"X-A: 1", 200, "run 2"},
				{hasV1, 200, "run 3"},
				{`If-None-Match: "v5"`, 304, ""},
				{"Range: bytes=0-2", 206, "run"},
			} {
				o.etag = fmt.Sprintf(`"v%d"`, i+3)
				time.Sleep(time.Minute)
				a := s.get("/p/1", c.field).says("Larder; fwd=stale; stored")
				require.Equal(s, c.status, a.status)
				require.Equal(s, c.body, a.body)
				require.NotContains(s, o.last(), o.etag)
				require.Equal(s, o.etag, s.get("/p/1").is(fmt.Sprint("run ", i+2)).isHit().header.Get("ETag"))
			}
		}),

		within("a 304's fields replace stored ones except those of the content", func(s *site) {
			o := &original{etag: `"v1"`, renewal: []string{
				"Cache-Control: max-age=120", "X-A: 2", "X-New: 1", "Content-Md5: other", "Content-Range: bytes 0-1/9", "Content-Encoding: br",
			}}
			o.fields = []string{"Cache-Control: max-age=30", "X-A: 1", "X-A: one", "X-B: 1", "Content-Md5: own"}
			s.handle("GET /p/{id}", o.serve, s.cached("hour"))
			s.get("/p/1").is("run 1")
			time.Sleep(30 * time.Second)
			for _, a := range []answer{s.get("/p/1").is("run 1").says(renewed), s.get("/p/1").is("run 1").says("Larder; hit; ttl=120")} {
				for name, want := range map[string][]string{
					"Etag": {`"v1"`}, "X-A": {"2"}, "X-B": {"1"}, "X-New": {"1"}, "Cache-Control": {"max-age=120"},
					"Content-Md5": {"own"}, "Content-Range": nil, "Content-Encoding": nil,
				} {
					require.Equal(s, want, a.header.Values(name), name)
				}
			}
		}),

		within("a 304 without fields renews by the stored lifetime", func(s *site) {
			o := &original{etag: `"v1"`}
			o.fields = []string{"Cache-Control: max-age=30"}
			s.handle("GET /p/{id}", o.serve, s.cached("hour"))
			s.get("/p/1").is("run 1")
			time.Sleep(30 * time.Second)
			s.get("/p/1").is("run 1").says(renewed)
			s.get("/p/1").is("run 1").says("Larder; hit; ttl=30")
		}),

		within("a not found is validated and renewed", func(s *site) {
			o := &original{etag: `"v1"`}
			o.status = 404
			s.handle("GET /p/{id}", o.serve, s.cached("negative"))
			s.get("/p/1")
			time.Sleep(time.Minute)
			a := s.get("/p/1").says(renewed)
			require.Equal(s, 404, a.status)
			require.Equal(s, "run 1", a.body)
			require.Equal(s, 404, s.get("/p/1").isHit().status)
		}),

		within("waiting requests share a validation", func(s *site) {
			o := &original{etag: `"v1"`}
			s.handle("GET /p/{id}", o.serve, s.cached("minute"))
			s.get("/p/1").is("run 1")
			time.Sleep(time.Minute)
			o.hold = s.gate()
			all := s.starts(5, "GET", "/p/1")
			conditional := s.start("GET", "/p/1", hasV1)
			s.waiting(5)
			o.hold.open()
			for _, a := range all {
				a.answer().is("run 1")
			}
			require.Equal(s, 304, conditional.answer().status)
			require.EqualValues(s, 2, o.runs.Load())
		}),

		within("each variant is validated by its own validator", func(s *site) {
			var asked seen[string]
			s.handle("GET /p/{id}", func(c Ctx) error {
				v := `"` + c.Values("Accept")[0] + `"`
				asked.add(v + strings.Join(c.Values("If-None-Match"), ""))
				c.Set("Vary", "Accept")
				c.Set("ETag", v)
				if slices.Contains(c.Values("If-None-Match"), v) {
					c.Status(304)
					return nil
				}
				return c.Text(200, v)
			}, s.cached("minute"))
			for _, v := range []string{"a", "b"} {
				s.get("/p/1", "Accept: "+v).is(`"` + v + `"`)
			}
			time.Sleep(time.Minute)
			for _, v := range []string{"a", "b"} {
				s.get("/p/1", "Accept: "+v).is(`"` + v + `"`).says(renewed)
				s.get("/p/1", "Accept: "+v).is(`"` + v + `"`).says("Larder; hit; ttl=60")
			}
			require.Equal(s, []string{`"a"`, `"b"`, `"a""a"`, `"b""b"`}, asked.all())
		}),

		within("a stale response is validated in the background", func(s *site) {
			o := &original{etag: `"v1"`}
			s.handle("GET /p/{id}", o.serve, s.cached("stale"))
			s.get("/p/1").is("run 1")
			time.Sleep(time.Minute + time.Second)
			s.get("/p/1", "Range: bytes=0-2", `If-None-Match: "v0"`).says("Larder; hit; ttl=-1")
			s.settles(func() bool { return s.cache.Stats().Stored == 2 }, "it has been renewed")
			require.Equal(s, hasV1, o.last())
			s.get("/p/1").is("run 1").says("Larder; hit; ttl=60")
			require.EqualValues(s, 2, o.runs.Load())
		}),

		within("an added ETag is not sent to the handler", func(s *site) {
			o := &original{}
			s.handle("GET /p/{id}", o.serve, s.cached("minute"))
			require.NotEmpty(s, s.get("/p/1").is("run 1").header.Get("ETag"))
			time.Sleep(time.Minute)
			s.get("/p/1").is("run 2").isNoHit()
			s.get("/p/1", "Cache-Control: no-cache").is("run 3").says("Larder; fwd=request; stored")
			require.Equal(s, []string{"", "", ""}, o.asked.all())
		}),

		within("a class with NoValidation reloads instead of validating", func(s *site) {
			o := &original{etag: `"v1"`}
			s.handle("GET /p/{id}", o.serve, s.cached("no-validation"))
			s.get("/p/1").is("run 1")
			time.Sleep(time.Minute)
			s.get("/p/1").is("run 2").isNoHit()
			o.fields = []string{"Cache-Control: no-cache"}
			for range 2 {
				s.get("/p/2").says("Larder; fwd=uri-miss; detail=no-cache")
			}
			require.Equal(s, []string{"", "", "", ""}, o.asked.all())
		}),

		within("an expired response is kept for validation for a limited time", func(s *site) {
			o := &original{etag: `"v1"`}
			s.handle("GET /p/{id}", o.serve, s.cached("minute"))
			s.get("/p/1").is("run 1")
			time.Sleep(time.Minute + time.Hour - time.Nanosecond)
			s.get("/p/1").is("run 1").says(renewed)
			time.Sleep(time.Minute + time.Hour)
			s.get("/p/1").is("run 3").says("Larder; fwd=uri-miss; stored")
			s.settles(func() bool { return s.cache.Stats().Entries == 1 }, "one entry is kept")
		}),

		within("an invalidated response is never renewed", func(s *site) {
			o := &original{etag: `"v1"`, modified: lastModified}
			s.handle("GET /p/{id}", o.serve, s.cached("minute", "p:{id}"))
			for i, t := range []core.Target{core.Tag("p:1"), core.Path("/p/1"), core.Pattern("*/p/1*"), core.All()} {
				s.get("/p/1").is(fmt.Sprint("run ", 2*i+1))
				if i%2 == 0 {
					time.Sleep(time.Minute + time.Second) // the same for an entry that has expired before
				}
				s.invalidate(t)
				s.get("/p/1", "Cache-Control: no-cache").is(fmt.Sprint("run ", 2*i+2)).isNoHit()
				s.invalidate(core.All())
			}
			for _, asked := range o.asked.all() {
				require.Empty(s, asked)
			}
		}),
	}...)
}
