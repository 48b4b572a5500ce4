package adaptertest

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
)

// The lifetime that caches downstream and clients may derive from a response.
func downstreamCases() []testCase {
	var cases []testCase
	for _, c := range []struct{ said, want string }{
		{"Cache-Control: public", "public, no-cache"},
		{"Cache-Control: must-revalidate", "must-revalidate, no-cache"},
		{"Cache-Control: proxy-revalidate", "proxy-revalidate, no-cache"},
		{"Cache-Control: no-transform", "no-transform, no-cache"},
		{"Cache-Control: immutable", "immutable, no-cache"},
		{"Cache-Control: stale-while-revalidate=60, stale-if-error=60", "stale-while-revalidate=60, stale-if-error=60, no-cache"},
		{`Cache-Control: no-cache="X-Mine"`, `no-cache="X-Mine", no-cache`},
		{`Cache-Control: private="X-Mine"`, `private="X-Mine", no-cache`},
		{"Cache-Control: public|Cache-Control: no-transform", "public|no-transform, no-cache"},
		{"Cache-Control: public|Last-Modified: " + lastModified, "public, no-cache"},
		{"Cache-Control: ", "no-cache"},
		{"Pragma: x", "no-cache"},
		{"CDN-Cache-Control: max-age=60", "no-cache"},
		{"Cache-Control: public, max-age=60", "public, max-age=60"},
		{"Cache-Control: s-maxage=60|Cache-Control: public", "s-maxage=60|public"},
		{"Cache-Control: MAX-AGE=60", "MAX-AGE=60"},
		{"Cache-Control: public|Expires: Sun, 02 Jan 2000 00:00:00 GMT", "public"},
		{"Cache-Control: no-cache, public", "no-cache, public"},
	} {
		cases = append(cases, within("a cache downstream may not guess a lifetime: "+c.said, func(s *site) {
			for _, where := range []string{"handler", "outer middleware"} {
				s := newSite(s.TB, s.f, s.by)
				p := &page{}
				outer := Around(func(ctx Ctx, next func() error) error {
					if where != "handler" {
						add(ctx, strings.Split(c.said, "|"))
					}
					return next()
				})
				if where == "handler" {
					p.fields = strings.Split(c.said, "|")
				}
				s.handle("GET /p/{id}", p.serve, outer, s.cached("hour"))
				for range 3 {
					a := s.get("/p/1")
					require.Equal(s, c.want, strings.Join(a.header.Values("Cache-Control"), "|"), "%s, Cache-Status %q", where, a.cacheStatus())
				}
				a := s.do("HEAD", "/p/1")
				require.Equal(s, c.want, strings.Join(a.header.Values("Cache-Control"), "|"), where)
			}
		}))
	}
	for _, c := range []struct {
		what, class string
		fields      []string // of the handler
		status      int
		request     string
		asked       []string // of the request
		want        string
	}{
		{"a cold HEAD", "hour", nil, 200, "HEAD", nil, "no-cache"},
		{"a cold HEAD of what says public", "hour", []string{"Cache-Control: public"}, 200, "HEAD", nil, "public, no-cache"},
		{"not found", "hour", nil, 404, "GET", nil, "no-cache"},
		{"not found, public", "hour", []string{"Cache-Control: public", "Last-Modified: " + lastModified}, 404, "GET", nil, "public, no-cache"},
		{"gone", "hour", nil, 410, "GET", nil, "no-cache"},
		{"a failure", "hour", nil, 500, "GET", nil, "no-cache"},
		{"a redirect", "hour", []string{"Location: /p/2"}, 302, "GET", nil, "no-cache"},
		{"a cookie", "hour", []string{"Set-Cookie: a=1"}, 200, "GET", nil, "no-cache"},
		{"Vary: *", "hour", []string{"Vary: *", "Cache-Control: no-transform"}, 200, "GET", nil, "no-transform, no-cache"},
		{"credentials", "hour", nil, 200, "GET", []string{"Authorization: Basic eDp5"}, "no-cache"},
		{"a cookie of the request", "hour", nil, 200, "GET", []string{"Cookie: a=1"}, "no-cache"},
		{"what is too large", "small", nil, 200, "GET", nil, "no-cache"},
		{"a request that is left alone", "skip", nil, 200, "GET", []string{"X-Skip: 1"}, "no-cache"},
		{"a HEAD that is left alone", "skip", nil, 200, "HEAD", []string{"X-Skip: 1"}, "no-cache"},
		{"an upgrade that is none", "hour", nil, 200, "GET", []string{"Connection: upgrade", "Upgrade: x"}, "no-cache"},
		{"no-store of the request", "hour", nil, 200, "GET", []string{"Cache-Control: no-store"}, "no-cache"},
		{"a class without a lifetime", "", nil, 200, "GET", nil, "no-cache"},
		{"a lifetime of its own", "hour", []string{"Set-Cookie: a=1", "Cache-Control: max-age=60"}, 200, "GET", nil, "max-age=60"},
		{"an end of its own", "hour", []string{"Vary: *", "Expires: 0"}, 200, "GET", nil, ""},
		{"private", "hour", []string{"Cache-Control: private"}, 200, "GET", nil, "private"},
		{"no-store", "hour", []string{"Cache-Control: no-store"}, 200, "GET", nil, "no-store"},
		{"not modified", "hour", []string{`ETag: "v1"`}, 304, "GET", []string{hasV1}, ""},
	} {
		cases = append(cases, over("a response that is not stored allows no guess: "+c.what, func(s *site) {
			p := &page{fields: c.fields, status: c.status, body: func(Ctx, int64) string { return strings.Repeat("x", smallBytes+1) }}
			serve := p.serve
			if c.status == 304 {
				serve = func(ctx Ctx) error { add(ctx, c.fields); ctx.Status(304); return nil }
			}
			use := s.cached(c.class)
			if c.class == "skip" {
				use = CachedRoute{Cached: Cached{s.cache, "hour", nil}, SkipField: "X-Skip"}
			}
			s.handle("GET /p/{id}", serve, use)
			for range 2 {
				a := s.do(c.request, "/p/1", c.asked...).isNoHit()
				require.Equal(s, c.status, a.status)
				require.Equal(s, c.want, strings.Join(a.header.Values("Cache-Control"), "|"))
			}
		}))
	}
	return append(append(cases, dateCases()...), lengthCases()...)
}

// date is the Date of an answer.
func (s *site) date(a answer) time.Time {
	s.Helper()
	require.Len(s, a.header.Values("Date"), 1)
	t, err := http.ParseTime(a.header.Get("Date"))
	require.NoError(s, err)
	return t
}

func dateCases() []testCase {
	return []testCase{
		over("a guess that the handler asks for is left to caches downstream", func(s *site) {
			// A lifetime of a 302 is guessed only if it is public, and the class has none.
			changed := time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat)
			p := &page{status: 302, fields: []string{"Cache-Control: public", "Last-Modified: " + changed}}
			s.handle("GET /p/{id}", p.serve, s.cached(""))
			for range 2 {
				require.Equal(s, []string{"public"}, s.get("/p/1").header.Values("Cache-Control"))
			}
			s.get("/p/1").isHit()
			p.status = 0
			for range 2 {
				require.Equal(s, []string{"public, no-cache"}, s.get("/p/2").header.Values("Cache-Control"))
			}
		}),

		over("an outer Cache-Control is completed only if it decides nothing", func(s *site) {
			s.handle("GET /p/{id}", (&page{}).serve, Around(func(c Ctx, next func() error) error {
				for _, v := range c.Values("X-Outer") {
					c.Set("Cache-Control", v)
				}
				return next()
			}), s.cached("hour"))
			require.Equal(s, []string{"no-cache"}, s.get("/p/1").header.Values("Cache-Control"))
			for outer, want := range map[string]string{"public": "public, no-cache", "max-age=60": "max-age=60", "no-store": "no-store", "private": "private"} {
				require.Equal(s, []string{want}, s.get("/p/1", "X-Outer: "+outer).isHit().header.Values("Cache-Control"))
			}
			require.Equal(s, []string{"no-cache"}, s.get("/p/1").isHit().header.Values("Cache-Control"))
		}),

		over("a stream allows no guess if its header has not been sent", func(s *site) {
			s.handle("GET /p/{id}", func(c Ctx) error {
				c.Set("Cache-Control", "public")
				return c.Stream(func(w io.Writer, flush func()) {
					_, _ = w.Write([]byte("event"))
					flush()
				})
			}, s.cached("hour"))
			a := s.get("/p/1").is("event").says("Larder; fwd=uri-miss; detail=streamed")
			require.Equal(s, "public, no-cache", a.header.Get("Cache-Control"))
		}),

		within("the Date of a hit is that of its load, and Age counts from it", func(s *site) {
			made := time.Now().Truncate(time.Second)
			p := &page{fields: []string{"Expires: " + made.Add(time.Minute).UTC().Format(http.TimeFormat)}}
			s.handle("GET /p/{id}", p.serve, s.cached(""))
			require.Equal(s, made.UTC(), s.date(s.get("/p/1").is("run 1").isNoHit()).UTC())
			time.Sleep(13*time.Second + 400*time.Millisecond)
			for _, a := range []answer{
				s.get("/p/1").isHit(), s.do("HEAD", "/p/1").isHit(), s.get("/p/1", "Range: bytes=0-2").isHit(), s.get("/p/1", "If-None-Match: *").isHit(),
			} {
				require.Equal(s, made.UTC(), s.date(a).UTC(), a.status)
				require.Equal(s, "13", a.header.Get("Age"), a.status)
				// A cache downstream counts by RFC 9111 section 4.2: its remaining lifetime is that of
				// the response here.
				ends, err := http.ParseTime(a.header.Get("Expires"))
				require.NoError(s, err)
				require.Equal(s, 47*time.Second, ends.Sub(s.date(a))-13*time.Second, a.status)
			}
		}),

		within("the Date of a collapsed response is that of the load", func(s *site) {
			made := time.Now().Truncate(time.Second)
			p := &page{hold: s.gate()}
			s.handle("GET /p/{id}", p.serve, s.cached("minute"))
			all := s.starts(3, "GET", "/p/1")
			s.waiting(2)
			time.Sleep(5 * time.Second)
			p.hold.open()
			for _, a := range all {
				require.Equal(s, made.UTC(), s.date(a.answer().is("run 1")).UTC())
			}
			a := s.get("/p/1").isHit()
			require.Equal(s, made.UTC(), s.date(a).UTC())
			require.Equal(s, "5", a.header.Get("Age"))
		}),

		within("a renewed response has the Date of its renewal", func(s *site) {
			o := &original{etag: `"v1"`}
			s.handle("GET /p/{id}", o.serve, s.cached("stale"))
			first := s.date(s.get("/p/1").is("run 1"))
			time.Sleep(2*time.Minute + time.Second)
			require.Equal(s, first.Add(2*time.Minute+time.Second), s.date(s.get("/p/1").is("run 1").says(renewed)))
			time.Sleep(61 * time.Second) // stale: answered, and refreshed in the background
			require.Equal(s, first.Add(2*time.Minute+time.Second), s.date(s.get("/p/1").is("run 1").isHit()))
			s.settles(func() bool { return s.cache.Stats().Stored == 3 }, "it has been renewed")
			require.Equal(s, first.Add(3*time.Minute+2*time.Second), s.date(s.get("/p/1").is("run 1").isHit()))
			time.Sleep(2*time.Minute + time.Second)
			s.do("HEAD", "/p/1").says("Larder; fwd=stale; stored")
			require.Equal(s, first.Add(5*time.Minute+3*time.Second), s.date(s.get("/p/1").is("run 1").isHit()))
		}),

		within("a stale response in place of an error has the Date of its load", func(s *site) {
			o := &original{}
			s.handle("GET /p/{id}", o.serve, s.cached("spare"))
			first := s.date(s.get("/p/1").is("run 1"))
			time.Sleep(61 * time.Second)
			o.failing = 503
			a := s.get("/p/1").is("run 1").standsInFor(503)
			require.Equal(s, first, s.date(a))
			require.Equal(s, "61", a.header.Get("Age"))
		}),

		within("a date does not validate a response of the same second", func(s *site) {
			for _, class := range []string{"hour", "no-etag"} {
				s := newSite(s.TB, s.f, s.by)
				db := &row{}
				s.handle("GET /p/{id}", db.read, s.cached(class, "p:{id}"))
				s.handle("PUT /p/{id}", db.write, s.invalidates("p:{id}"))
				old := s.get("/p/1").is("value 0").header.Get("Date")
				s.do("PUT", "/p/1").is("wrote 1")
				s.get("/p/1", "If-Modified-Since: "+old).is("value 1").isNoHit()
				for range 2 {
					s.get("/p/1", "If-Modified-Since: "+old).is("value 1").isHit()
					time.Sleep(10 * time.Second)
				}
				later := time.Now().UTC().Format(http.TimeFormat)
				require.Equal(s, 304, s.get("/p/1", "If-Modified-Since: "+later).isHit().status)
			}
		}),

		within("a late response has no later Date than the change it missed", func(s *site) {
			var value, reads = "old", 0
			hold := s.gate()
			s.handle("GET /p/{id}", func(c Ctx) error {
				v := value
				if reads++; reads == 1 {
					hold.wait()
				}
				return c.Text(200, v)
			}, s.cached("no-etag", "p:{id}"))
			late := s.start("GET", "/p/1")
			s.settles(func() bool { return reads == 1 }, "the old value has been read")
			value = "new"
			s.invalidate(core.Tag("p:1"))
			s.get("/p/1").is("new")
			time.Sleep(3 * time.Second)
			hold.open()
			date := late.answer().is("old").header.Get("Date")
			s.get("/p/1", "If-Modified-Since: "+date).is("new").isHit()
		}),

		within("Last-Modified does not validate a load of the same second", func(s *site) {
			// Modified twice in one second, and read in between.
			o := &original{modified: time.Now().UTC().Format(http.TimeFormat)}
			s.handle("GET /p/{id}", o.serve, s.cached("minute"))
			s.get("/p/1").is("run 1")
			s.get("/p/1", "If-Modified-Since: "+o.modified).is("run 1").isHit()
			s.get("/p/1", "Range: bytes=0-2", "If-Range: "+o.modified).is("run 1").isHit()
			require.Equal(s, 412, s.get("/p/1", "If-Unmodified-Since: "+o.modified).isHit().status)
			later := time.Now().Add(time.Second).UTC().Format(http.TimeFormat)
			require.Equal(s, 304, s.get("/p/1", "If-Modified-Since: "+later).isHit().status)
			s.get("/p/1", "If-Unmodified-Since: "+later).is("run 1").isHit()
			time.Sleep(time.Minute)
			s.get("/p/1").is("run 2").says("Larder; fwd=stale; stored")
			require.Empty(s, o.last(), "what it would answer 304 to may be the other version")

			// Read again when that second is over.
			require.Equal(s, 304, s.get("/p/1", "If-Modified-Since: "+o.modified).isHit().status)
			s.get("/p/1", "If-Unmodified-Since: "+o.modified).is("run 2").isHit()
			require.Equal(s, 206, s.get("/p/1", "Range: bytes=0-2", "If-Range: "+o.modified).isHit().status)
			time.Sleep(time.Minute)
			s.get("/p/1").is("run 2").says(renewed)
			require.Equal(s, "If-Modified-Since: "+o.modified, o.last())
		}),

		within("a HEAD with the Last-Modified of the same second renews nothing", func(s *site) {
			o := &original{etag: `"v1"`, modified: time.Now().UTC().Format(http.TimeFormat)}
			s.handle("GET /p/{id}", o.serve, s.cached("minute"))
			s.get("/p/1").is("run 1")
			time.Sleep(time.Minute)
			o.etag = "" // the date alone does not prove that it is the same version
			s.do("HEAD", "/p/1").says("Larder; fwd=stale")
			s.get("/p/1").is("run 3").says("Larder; fwd=stale; stored")
		}),

		within("only the ETag is sent if Last-Modified is of the same second", func(s *site) {
			o := &original{etag: `"v1"`, modified: time.Now().UTC().Format(http.TimeFormat)}
			s.handle("GET /p/{id}", o.serve, s.cached("minute"))
			s.get("/p/1").is("run 1")
			time.Sleep(time.Minute)
			s.get("/p/1").is("run 1").says(renewed)
			require.Equal(s, hasV1, o.last())
		}),
	}
}

func lengthCases() []testCase {
	var cases []testCase
	for _, size := range []int{1, 2047, 2048, 2049, 5000, 100000} {
		cases = append(cases, within(fmt.Sprintf("stored content of %d bytes states its length, and that it has ranges", size), func(s *site) {
			text := strings.Repeat("x", size)
			p := &page{body: func(Ctx, int64) string { return text }}
			s.handle("GET /p/{id}", p.serve, s.cached("stale"))
			right := func(a answer) {
				require.Equal(s, 200, a.status)
				require.Equal(s, []string{fmt.Sprint(size)}, a.header.Values("Content-Length"), a.cacheStatus())
				require.Equal(s, []string{"bytes"}, a.header.Values("Accept-Ranges"), a.cacheStatus())
				require.NotContains(s, a.header, "Transfer-Encoding")
			}
			p.hold = s.gate()
			all := s.starts(2, "GET", "/p/1")
			s.waiting(1)
			p.hold.open()
			for _, a := range all { // the leader's and the waiting requests' answers
				right(a.answer().is(text).isNoHit())
			}
			right(s.get("/p/1").is(text).isHit())
			right(s.do("HEAD", "/p/1").isHit())
			time.Sleep(61 * time.Second)
			right(s.get("/p/1").is(text).says("Larder; hit; ttl=-1"))
		}))
	}
	return append(cases, []testCase{
		over("Accept-Ranges: none of the handler is kept, and no range is cut", func(s *site) {
			for _, said := range []string{"none", "None", "items"} {
				s := newSite(s.TB, s.f, s.by)
				s.letters("Accept-Ranges: " + said)
				for _, want := range []string{"bytes=0-2", "bytes=99-", "bytes=0-2,5-6"} {
					a := s.get("/p/1", "Range: "+want).is(alphabet).isHit()
					require.Equal(s, []string{said}, a.header.Values("Accept-Ranges"))
				}
				s.get("/p/2", "Range: bytes=0-2").is(alphabet)
			}
			s.letters("Accept-Ranges: items, bytes")
			s.get("/p/1", "Range: bytes=0-2").isPart("abc").isHit()
		}),

		over("only a response with content has ranges", func(s *site) {
			for _, c := range []struct {
				status int
				body   string
			}{{404, alphabet}, {301, alphabet}, {200, ""}} {
				s := newSite(s.TB, s.f, s.by)
				p := &page{status: c.status, body: func(Ctx, int64) string { return c.body }}
				s.handle("GET /p/{id}", p.serve, s.cached("negative"))
				for range 2 {
					require.NotContains(s, s.get("/p/1").header, "Accept-Ranges", c)
				}
				s.get("/p/1").isHit()
			}
			s.letters(hasETag)
			require.NotContains(s, s.get("/p/1", hasV1).isHit().header, "Accept-Ranges", "304")
		}),
	}...)
}

const hasETag = `ETag: "v1"`
