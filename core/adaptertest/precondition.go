package adaptertest

import (
	"fmt"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
)

// Preconditions that an origin evaluates (RFC 9110 section 13), and a request's no-store.
func preconditionCases() []testCase {
	const before, after = "Thu, 30 Dec 1999 23:59:59 GMT", "Fri, 31 Dec 1999 00:00:01 GMT"
	cases := []testCase{
		over("a hit whose preconditions fail is 412, in RFC order", func(s *site) {
			p := s.letters(hasETag, "Last-Modified: "+lastModified, "Cache-Control: max-age=60", "Cdn-Cache-Control: max-age=90",
				"Expires: Sun, 02 Jan 2100 00:00:00 GMT", "X-A: 1")
			for _, c := range []struct {
				status int
				fields []string
			}{
				{200, []string{`If-Match: "v1"`}},
				{200, []string{`If-Match: "v0", "v1"`}},
				{200, []string{`If-Match: "v0"`, `If-Match: "v1"`}},
				{200, []string{"If-Match: *"}},
				{412, []string{`If-Match: "v0"`}},
				{412, []string{`If-Match: W/"v1"`}},
				{412, []string{"If-Match: v1"}},
				{412, []string{`If-Match: "v0"`, "Range: bytes=4-7"}},
				{206, []string{`If-Match: "v1"`, "Range: bytes=4-7"}},
				{416, []string{`If-Match: "v1"`, "Range: bytes=99-"}},
				{412, []string{`If-Match: "v0"`, hasV1}},
				{304, []string{`If-Match: "v1"`, hasV1}},
				{200, []string{"If-Unmodified-Since: " + lastModified}},
				{200, []string{"If-Unmodified-Since: " + after}},
				{412, []string{"If-Unmodified-Since: " + before}},
				{412, []string{"If-Unmodified-Since: " + before, "Range: bytes=4-7"}},
				{206, []string{"If-Unmodified-Since: " + lastModified, "Range: bytes=4-7"}},
				{412, []string{"If-Unmodified-Since: " + before, hasV1}},
				{304, []string{"If-Unmodified-Since: " + after, hasV1}},
				{304, []string{"If-Unmodified-Since: " + after, "If-Modified-Since: " + lastModified}},
				{200, []string{"If-Unmodified-Since: yesterday"}},
				{200, []string{"If-Unmodified-Since: " + before, "If-Unmodified-Since: " + before}},
				{200, []string{`If-Match: "v1"`, "If-Unmodified-Since: " + before}},
				{412, []string{`If-Match: "v0"`, "If-Unmodified-Since: " + after}},
			} {
				a := s.get("/p/1", c.fields...).isHit()
				require.Equal(s, c.status, a.status, "%q", c.fields)
				require.Equal(s, "1", a.header.Get("X-A"))
				if c.status == 412 || c.status == 416 {
					require.Empty(s, a.body)
					require.Equal(s, []string{"0"}, a.header.Values("Content-Length"))
					a.keptByNobody()
				}
				if !strings.Contains(fmt.Sprint(c.fields), "Range") {
					require.Equal(s, c.status, s.do("HEAD", "/p/1", c.fields...).isHit().status, "HEAD %q", c.fields)
				}
			}
			require.EqualValues(s, 1, p.runs.Load())
		}),

		over("a precondition on an added ETag is evaluated on a miss as well", func(s *site) {
			p := &page{body: func(Ctx, int64) string { return alphabet }}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			made := s.get("/p/1").is(alphabet).header.Get("ETag")
			s.get("/p/1", "If-Match: "+made, "Range: bytes=0-2").isPart("abc").isHit()
			require.Equal(s, 412, s.get("/p/1", `If-Match: "v0"`).isHit().status)
			s.get("/p/2", "If-Match: "+made, "Range: bytes=0-2").isPart("abc").says("Larder; fwd=uri-miss; stored")
			a := s.get("/p/3", `If-Match: "v0"`, "Range: bytes=0-2").says("Larder; fwd=uri-miss; stored")
			require.Equal(s, 412, a.status)
			s.get("/p/3").is(alphabet).isHit()
		}),

		over("If-Unmodified-Since without a Last-Modified is ignored", func(s *site) {
			s.letters(hasETag)
			s.get("/p/1", "If-Unmodified-Since: "+before).is(alphabet).isHit()
		}),

		over("a precondition on a not found or a redirect is ignored", func(s *site) {
			for _, status := range []int{404, 301} {
				s := newSite(s.TB, s.f, s.by)
				p := &page{status: status, fields: []string{hasETag, "Last-Modified: " + lastModified, "Cache-Control: max-age=60"}}
				s.handle("GET /p/{id}", p.serve, s.cached("hour"))
				s.get("/p/1")
				for _, f := range []string{`If-Match: "v0"`, "If-Unmodified-Since: " + before} {
					require.Equal(s, status, s.get("/p/1", f).isHit().status, f)
				}
			}
		}),

		within("each waiting request is answered by its own preconditions", func(s *site) {
			o := &original{etag: `"v2"`}
			o.hold = s.gate()
			s.handle("GET /p/{id}", o.serve, s.cached("hour"))
			leader := s.start("GET", "/p/1")
			s.settles(func() bool { return o.in.Load() == 1 }, "the handler runs")
			resumed := s.start("GET", "/p/1", `If-Match: "v1"`, "Range: bytes=0-1")
			right := s.start("GET", "/p/1", `If-Match: "v2"`)
			s.waiting(2)
			o.hold.open()
			leader.answer().is("run 1")
			require.Equal(s, 412, resumed.answer().status)
			right.answer().is("run 1")
		}),

		within("If-Range with a file's date continues a download", func(s *site) {
			// As http.ServeContent answers: without a Date and without an ETag.
			p := s.letters("Last-Modified: " + lastModified)
			time.Sleep(time.Second)
			s.get("/p/1", "Range: bytes=3-", "If-Range: "+lastModified).isPart(alphabet[3:]).isHit()
			s.get("/p/1", "Range: bytes=3-", "If-Range: "+before).is(alphabet).isHit()
			s.get("/p/1", "Range: bytes=3-", "If-Range: "+after).is(alphabet).isHit()
			require.EqualValues(s, 1, p.runs.Load())
		}),

		over("a 416 carries no lifetime and no validators", func(s *site) {
			s.letters(hasETag, "Last-Modified: "+lastModified, "Cache-Control: public, max-age=60", "CDN-Cache-Control: max-age=60",
				"Surrogate-Control: max-age=60", "Expires: Sun, 02 Jan 2100 00:00:00 GMT", "Access-Control-Allow-Origin: *")
			a := s.get("/p/1", "Range: bytes=99-").isHit()
			require.Equal(s, 416, a.status)
			require.Equal(s, "bytes */26", a.header.Get("Content-Range"))
			require.Equal(s, "*", a.header.Get("Access-Control-Allow-Origin"), "who asks from a page may read it")
			a.keptByNobody()
		}),

		over("the cache's own answers are no-store, whatever is set in front", func(s *site) {
			outer := Around(func(c Ctx, next func() error) error {
				add(c, []string{"Cache-Control: public, max-age=60", "CDN-Cache-Control: max-age=60", "Surrogate-Control: max-age=60", "Expires: Sun, 02 Jan 2100 00:00:00 GMT"})
				return next()
			})
			p := &page{body: func(Ctx, int64) string { return alphabet }}
			s.handle("GET /p/{id}", p.serve, outer, s.cached("only-if-cached"))
			s.handle("PUT /p/{id}", p.serve, outer, s.invalidates("p:{id}", "x:{nope}"))
			for _, method := range []string{"GET", "HEAD"} {
				a := s.do(method, "/p/1", "Cache-Control: only-if-cached")
				require.Equal(s, 504, a.status)
				a.keptByNobody()
			}
			a := s.do("PUT", "/p/1")
			require.Equal(s, 500, a.status)
			a.keptByNobody()
			s.get("/p/1").is(alphabet)
			a = s.get("/p/1", "Range: bytes=99-").isHit()
			require.Equal(s, 416, a.status)
			a.keptByNobody()
		}),

		within("a request that has waited too long gets 503 with no-store", func(s *site) {
			p := &page{hold: s.gate()}
			s.handle("GET /p/{id}", p.serve, s.cached("load-timeout"))
			all := s.starts(7, "GET", "/p/1")
			s.settles(func() bool { return p.in.Load() > 0 }, "the handler runs")
			time.Sleep(21 * time.Second)
			gone := 0
			for _, a := range all {
				if a.ended() {
					a := a.answer()
					require.Equal(s, 503, a.status)
					require.Contains(s, a.cacheStatus(), "detail=gave-up-waiting")
					a.keptByNobody()
					gone++
				}
			}
			require.Positive(s, gone)
		}),

		within("only-if-cached counts only in a class that names it", func(s *site) {
			p := &page{}
			s.handle("GET /p/{id}", p.serve, s.cached("minute"))
			s.get("/p/1", "Cache-Control: only-if-cached").is("run 1").says("Larder; fwd=uri-miss; stored")
			s.get("/p/1", "Cache-Control: only-if-cached").is("run 1").isHit()
			s.do("HEAD", "/p/2", "Cache-Control: only-if-cached, max-stale=5").isNoHit()
			require.EqualValues(s, 2, p.runs.Load())
		}),
	}
	return append(cases, noStoreCases()...)
}

// A request's no-store (RFC 9111 section 5.2.1.5).
func noStoreCases() []testCase {
	const noStore = "Cache-Control: no-store"
	return []testCase{
		over("a request with no-store can be a hit", func(s *site) {
			p := &page{}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			s.get("/p/1").is("run 1")
			for range 50 {
				s.get("/p/1", noStore).is("run 1").isHit()
			}
			s.do("HEAD", "/p/1", noStore).isHit()
			require.EqualValues(s, 1, p.runs.Load())
		}),

		over("the response to a request with no-store is not stored", func(s *site) {
			o := &original{etag: `"v1"`}
			s.handle("GET /p/{id}", o.serve, s.cached("hour"))
			for i := range 3 {
				s.get("/p/1", noStore).is(fmt.Sprint("run ", i+1)).says("Larder; fwd=uri-miss; detail=no-store")
			}
			s.settles(func() bool { return s.cache.Stats().Entries == 0 }, "nothing is stored")
			s.get("/p/1").is("run 4").says("Larder; fwd=uri-miss; stored") // and the resource does not count as uncacheable
			s.get("/p/1").is("run 4").isHit()
		}),

		within("requests with no-store collapse with all others", func(s *site) {
			p := &page{hold: s.gate()}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			for run, leads := range []string{noStore, "X-A: 1"} {
				s.invalidate(core.All())
				p.hold = s.gate()
				leader := s.start("GET", "/p/1", leads)
				s.settles(func() bool { return p.in.Load() == 1 }, "the handler runs")
				others := append(s.starts(5, "GET", "/p/1", noStore), s.starts(5, "GET", "/p/1")...)
				s.waiting(int64(10 * (run + 1)))
				p.hold.open()
				body := fmt.Sprint("run ", run+1)
				leader.answer().is(body)
				for _, a := range others {
					a.answer().is(body).says("Larder; fwd=uri-miss; collapsed")
				}
				stored := 0
				if leads != noStore {
					stored = 1
				}
				s.settles(func() bool { return s.cache.Stats().Entries == stored }, "what is stored")
			}
			s.get("/p/1").is("run 2").isHit()
		}),

		within("a request with no-store renews nothing", func(s *site) {
			o := &original{etag: `"v1"`}
			s.handle("GET /p/{id}", o.serve, s.cached("minute"))
			s.get("/p/1").is("run 1")
			time.Sleep(61 * time.Second)
			for range 2 {
				s.get("/p/1", noStore).is("run 1").says("Larder; fwd=stale; fwd-status=304; detail=no-store")
				s.do("HEAD", "/p/1", noStore).says("Larder; fwd=stale")
			}
			s.get("/p/1").is("run 1").says(renewed)
			s.get("/p/1").is("run 1").isHit()
			s.get("/p/1", "Cache-Control: no-store, no-cache").is("run 1").says("Larder; fwd=request; fwd-status=304; detail=no-store")
		}),

		within("a stale response is refreshed for a request with no-store", func(s *site) {
			p := &page{}
			s.handle("GET /p/{id}", p.serve, s.cached("stale"))
			s.get("/p/1").is("run 1")
			time.Sleep(61 * time.Second)
			s.get("/p/1", noStore).is("run 1").isHit()
			s.settles(func() bool { return s.cache.Stats().Stored == 2 }, "it has been refreshed")
			s.get("/p/1", noStore).is("run 2").isHit()
		}),

		over("a variant and a part for a request with no-store are not stored", func(s *site) {
			p := &page{fields: []string{"Vary: Accept"}, body: says("Accept")}
			part := &page{status: 206, fields: []string{"Content-Range: bytes 0-2/26", "Cache-Control: max-age=60"}, body: func(Ctx, int64) string { return "abc" }}
			s.handle("GET /v/{id}", p.serve, s.cached("hour"))
			s.handle("GET /f/{id}", part.serve, s.cached("hour"))
			s.get("/v/1", "Accept: a").isNoHit()
			s.get("/v/1", "Accept: b", noStore).says("Larder; fwd=vary-miss; detail=no-store")
			s.get("/v/1", "Accept: b").isNoHit()
			s.get("/v/1", "Accept: a", noStore).isHit()
			for range 2 {
				s.get("/f/1", "Range: bytes=0-2", noStore).isPart("abc").isNoHit()
			}
			s.get("/f/1", "Range: bytes=0-2").isPart("abc").says("Larder; fwd=uri-miss; stored")
			s.get("/f/1", "Range: bytes=0-2", noStore).isPart("abc").isHit()
		}),
	}
}
