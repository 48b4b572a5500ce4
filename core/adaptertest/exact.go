package adaptertest

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
)

// shape is an answer of a handler that must reach the client unchanged.
type shape struct {
	name   string
	kept   bool // it is stored, in the class "negative"
	serve  func(c Ctx) error
	unless []flag
}

const lastModified = "Fri, 31 Dec 1999 00:00:00 GMT"

func shapes() []shape {
	answer := func(status int, body string, fields ...string) func(Ctx) error {
		return func(c Ctx) error {
			add(c, fields)
			c.Status(status)
			if body != "" {
				_, err := c.Write([]byte(body))
				return err
			}
			return nil
		}
	}
	binary := strings.Repeat("\x00\xff\r\n\x1f\x8b", 100)
	return []shape{
		{"a plain text", true, func(c Ctx) error { return c.Text(200, "hello") }, nil},
		{"a handler that does nothing", true, func(Ctx) error { return nil }, []flag{noImplicitAnswer}},
		{"an empty 200", true, answer(200, ""), nil},
		{"content without a type", true, answer(200, "<html><body>hello"), nil},
		{"content without a type, in pieces", true, func(c Ctx) error {
			for _, piece := range []string{"<ht", "ml>", "<body>hello"} {
				if _, err := c.Write([]byte(piece)); err != nil {
					return err
				}
			}
			return nil
		}, nil},
		{"content without a type after a status", true, func(c Ctx) error {
			c.Status(203)
			_, err := c.Write([]byte("%PDF-1.4"))
			return err
		}, nil},
		{"content of another type", true, answer(200, `{"a":1}`, "Content-Type: application/json"), nil},
		{"binary content", true, answer(200, binary, "Content-Type: application/octet-stream"), nil},
		{"content of 2047 bytes", true, answer(200, strings.Repeat("x", 2047)), nil},
		{"content of 2049 bytes", true, answer(200, strings.Repeat("x", 2049)), nil},
		{"content of 100000 bytes", true, answer(200, strings.Repeat("0123456789", 10000)), nil},
		{"a stated length", true, answer(200, "hello", "Content-Length: 5"), nil},
		{"203", true, answer(203, "transformed"), nil},
		{"204", true, answer(204, "", "X-A: 1"), nil},
		{"300 with a list", true, answer(300, "a or b", "Link: </a>; rel=alternate", "Link: </b>; rel=alternate"), nil},
		// Elsewhere: the status was lost, or Location with it.
		{"301 with Location", true, answer(301, "moved", "Location: /p/2?a=b"), nil},
		{"308 with Location and no content", true, answer(308, "", "Location: https://other.example/"), nil},
		{"404", true, answer(404, "none"), nil},
		{"410 without content", true, answer(410, ""), nil},
		{"201 that states its lifetime", true, answer(201, "made", "Location: /p/3", "Cache-Control: max-age=60"), nil},
		{"302 that states its lifetime", true, answer(302, "", "Location: /p/3", "Cache-Control: max-age=60"), nil},
		{"201", false, answer(201, "made", "Location: /p/3"), nil},
		{"302", false, answer(302, "found", "Location: /p/3"), nil},
		{"400", false, answer(400, "bad"), nil},
		{"403", false, answer(403, "no"), nil},
		{"418", false, answer(418, "a teapot"), nil},
		{"500", false, answer(500, "broken", "Retry-After: 1"), nil},
		{"503", false, answer(503, "later", "Retry-After: 1"), nil},
		// Elsewhere: a repeated field was cut to one value, or joined by commas.
		{"repeated fields", true, answer(200, "x",
			"Link: </c>; rel=preload", "Link: </a>; rel=preload, </b>", "X-Many: b", "X-Many: a", "X-Many: b", "X-Many:",
			"Vary: Accept", "Vary: Origin", "Content-Language: de", "Content-Language: en",
			"Warning: 199 - \"a, b\"", "Warning: 299 - \"c\""), nil},
		{"repeated cookies", false, answer(200, "x", "Set-Cookie: a=1; Path=/", "Set-Cookie: b=\"2,3\"", "Set-Cookie: a=1; Path=/"), nil},
		{"many fields", true, answer(200, "x",
			"X-01: 1", "X-02: 2", "X-03: 3", "X-04: 4", "X-05: 5", "X-06: 6", "X-07: 7", "X-08: 8", "X-09: 9", "X-10: "+strings.Repeat("y", 900)), nil},
		{"validators of its own", true, answer(200, "x", `ETag: W/"v1"`, "Last-Modified: "+lastModified), nil},
		{"Cache-Control and Expires of its own", true, answer(200, "x", "Cache-Control: public, max-age=60", "Cache-Control: stale-if-error=5", "Expires: 0"), nil},
		{"an encoding", true, answer(200, "not really gzip", "Content-Encoding: gzip", "Content-Type: text/plain"), nil},
		{"fields with unusual bytes", true, answer(200, "x", "X-Latin: caf\xe9", "X-Tab: a\tb", "X-Quoted: \"a\\\"b\"", "X-Empty:"), nil},
		{"a date of its own", true, answer(200, "x", "Date: "+lastModified), []flag{noDateOverride}},
	}
}

// onWire is an answer as a client sees it, without the fields that the cache adds and the
// ones that only frame the content.
func onWire(s *site, a answer, bare answer) (int, http.Header, string) {
	require.NoError(s, a.err)
	h := a.header.Clone()
	if n := h.Get("Content-Length"); n != "" && a.status != 204 {
		require.Equal(s, fmt.Sprint(len(a.body)), n)
	}
	for _, name := range []string{"Content-Length", "Transfer-Encoding", "Cache-Status"} {
		h.Del(name)
	}
	for _, name := range []string{"Etag", "Cache-Control", "Accept-Ranges", "Age"} {
		if _, own := bare.header[name]; !own {
			h.Del(name)
		}
	}
	if bare.header.Get("Date") != lastModified {
		h.Del("Date")
	}
	return a.status, h, a.body
}

// The promise "the handler's response, exactly".
func exactCases() []testCase {
	var cases []testCase
	for _, sh := range shapes() {
		cases = append(cases, over("the handler's response, exactly: "+sh.name, func(s *site) {
			var runs atomic.Int64
			h := func(c Ctx) error { runs.Add(1); return sh.serve(c) }
			s.handle("GET /bare", h)
			s.handle("GET /kept", h, s.cached("negative"))
			fields := []string{"Accept-Encoding: gzip", "Accept: text/plain"}
			bare := s.get("/bare", fields...)
			status, header, body := onWire(s, bare, bare)
			for i := range 3 {
				a := s.get("/kept", fields...)
				require.Equal(s, sh.kept && i > 0, a.hit(), "Cache-Status %q", a.cacheStatus())
				st, h, b := onWire(s, a, bare)
				require.Equal(s, status, st)
				require.Equal(s, header, h)
				require.Equal(s, body, b)
			}
			if sh.kept {
				require.EqualValues(s, 2, runs.Load())
			} else {
				require.EqualValues(s, 4, runs.Load())
			}
		}, sh.unless...))
	}
	return slices.Concat(cases, headerCases(), validatorCases(), captureCases(), outerCases())
}

func headerCases() []testCase {
	return []testCase{
		// Elsewhere: the max-age sent downstream kept copies alive that no invalidation could reach.
		over("no-cache is added only where the handler sets no Cache-Control", func(s *site) {
			p := &page{}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			for i, c := range []struct{ said, want []string }{
				{nil, []string{"no-cache"}},
				{[]string{"Cache-Control: max-age=60"}, []string{"max-age=60"}},
				{[]string{"Cache-Control: public", "Cache-Control: s-maxage=60"}, []string{"public", "s-maxage=60"}},
				{[]string{"Expires: " + time.Now().Add(time.Hour).UTC().Format(http.TimeFormat)}, nil},
			} {
				p.fields = c.said
				for range 2 {
					a := s.get(fmt.Sprint("/p/", i))
					require.Equal(s, c.want, a.header.Values("Cache-Control"))
				}
				s.get(fmt.Sprint("/p/", i)).isHit()
			}
		}),

		over("a response that is not stored gets nothing but Cache-Status", func(s *site) {
			p := &page{fields: []string{"Vary: *", "Cache-Control: max-age=60"}}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			s.handle("GET /bare", p.serve)
			bare, a := s.get("/bare"), s.get("/p/1")
			a.header.Del("Cache-Status")
			bare.header.Del("Date")
			a.header.Del("Date")
			require.Equal(s, bare.header, a.header)
		}),

		over("Cache-Status is appended to an existing one", func(s *site) {
			p := &page{fields: []string{"Cache-Status: Database; hit"}}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			want := []string{"Database; hit", "Larder; fwd=uri-miss; stored"}
			require.Equal(s, want, s.get("/p/1").header.Values("Cache-Status"))
			got := s.get("/p/1").header.Values("Cache-Status")
			require.Len(s, got, 2)
			require.Equal(s, "Database; hit", got[0])
			require.Contains(s, got[1], "Larder; hit; ttl=")
		}),

		over("fields of one connection are not stored", func(s *site) {
			p := &page{fields: []string{"Keep-Alive: timeout=5", "Proxy-Authenticate: Basic", "X-Kept: 1"}}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			s.get("/p/1").is("run 1")
			h := s.get("/p/1").isHit().header
			require.Equal(s, "1", h.Get("X-Kept"))
			require.NotContains(s, h, "Keep-Alive")
			require.NotContains(s, h, "Proxy-Authenticate")
		}),

		over("a field counts in every spelling of its name", func(s *site) {
			for i, c := range []struct{ name, value, detail string }{
				{"cache-control", "no-store", "no-store"},
				{"set-cookie", "a=1", "set-cookie"},
				{"VARY", "*", "vary-star"},
			} {
				path := fmt.Sprint("/p", i)
				s.handle("GET "+path, func(ctx Ctx) error {
					ctx.ResponseWriter().Header()[c.name] = []string{c.value}
					return ctx.Text(200, "hello")
				}, s.cached("hour"))
			}
			for i, detail := range []string{"no-store", "set-cookie", "vary-star"} {
				for range 2 {
					s.get(fmt.Sprint("/p", i)).is("hello").says("Larder; fwd=uri-miss; detail=" + detail)
				}
			}
		}, noResponseWriter),

		over("fields that Connection names are not stored", func(s *site) {
			p := &page{fields: []string{"Connection: x-hop, X-Hop-Too", "X-Hop: 1", "X-Hop-Too: 1", "X-Kept: 1"}}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			s.get("/p/1").is("run 1")
			h := s.get("/p/1").isHit().header
			require.Equal(s, "1", h.Get("X-Kept"))
			require.NotContains(s, h, "X-Hop")
			require.NotContains(s, h, "X-Hop-Too")
		}),

		over("a response with trailers passes through and is not stored", func(s *site) {
			h := func(c Ctx) error {
				c.Set("Trailer", "X-Sum")
				c.Status(200)
				_, err := io.WriteString(c.ResponseWriter(), "hello")
				c.Set("X-Sum", "42")
				return err
			}
			s.handle("GET /p/{id}", h, s.cached("hour"))
			for range 2 {
				x, err := s.begin(target("/p/1"))
				require.NoError(s, err)
				resp, a := x.head()
				require.NoError(s, a.err)
				body, err := io.ReadAll(resp.Body)
				require.NoError(s, err)
				require.Equal(s, "hello", string(body))
				require.Equal(s, "42", resp.Trailer.Get("X-Sum"))
				a.says("Larder; fwd=uri-miss; detail=trailer-or-transfer-coding")
				x.leave()
			}
		}, noResponseWriter),

		over("early hints pass and are not stored", func(s *site) {
			h := func(c Ctx) error {
				c.EarlyHints("</style.css>; rel=preload")
				return c.Text(200, "hello")
			}
			s.handle("GET /p/{id}", h, s.cached("hour"))
			a := s.get("/p/1").is("hello").says("Larder; fwd=uri-miss; stored")
			require.Len(s, a.early, 1)
			require.Equal(s, "</style.css>; rel=preload", a.early[0].Get("Link"))
			require.Empty(s, a.header.Values("Link"))
			require.Empty(s, s.get("/p/1").is("hello").isHit().header.Values("Link"))
		}, noEarlyHints),

		over("a response with unannounced trailers passes and is not stored", func(s *site) {
			body := strings.Repeat("x", 5000) // long enough to be sent in chunks
			s.handle("GET /p/{id}", func(c Ctx) error {
				_, err := io.WriteString(c.ResponseWriter(), body)
				c.Set(http.TrailerPrefix+"X-Sum", "42")
				return err
			}, s.cached("hour"))
			for range 2 {
				x, err := s.begin(target("/p/1"))
				require.NoError(s, err)
				resp, a := x.head()
				a.says("Larder; fwd=uri-miss; detail=streamed")
				got, err := io.ReadAll(resp.Body)
				require.NoError(s, err)
				require.Equal(s, body, string(got))
				require.Equal(s, "42", resp.Trailer.Get("X-Sum"))
				x.leave()
			}
		}, noResponseWriter),

		over("a response with Content-Range and status 200 is not stored", func(s *site) {
			p := &page{fields: []string{"Content-Range: bytes 0-4/10"}}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			for range 2 {
				s.get("/p/1").says("Larder; fwd=uri-miss; detail=content-range")
			}
		}),

		over("a response shorter than its Content-Length is not stored", func(s *site) {
			h := func(c Ctx) error {
				c.Set("Content-Length", "10")
				_, err := c.Write([]byte("hello"))
				return err
			}
			s.handle("GET /p/{id}", h, s.cached("hour"))
			for range 2 {
				a := s.get("/p/1")
				require.ErrorIs(s, a.err, io.ErrUnexpectedEOF)
				require.Equal(s, "hello", a.body)
				require.Equal(s, "Larder; fwd=uri-miss; detail=incomplete", a.cacheStatus())
			}
		}, noResponseWriter),

		over("Age starts with the response's own and then counts", func(s *site) {
			p := &page{fields: []string{"Age: 7", "Cache-Control: max-age=3600"}}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			require.Equal(s, []string{"7"}, s.get("/p/1").header.Values("Age"))
			require.Equal(s, []string{"7"}, s.get("/p/1").isHit().header.Values("Age"))
		}),
	}
}

func validatorCases() []testCase {
	strong := func(tag string) bool {
		return len(tag) > 10 && strings.HasPrefix(tag, `"`) && strings.HasSuffix(tag, `"`)
	}
	return []testCase{
		over("a stored response without a validator gets a strong ETag", func(s *site) {
			p := &page{body: func(c Ctx, _ int64) string { return "content of " + strings.ToLower(c.Param("id")) }}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			tag := s.get("/p/a").says("Larder; fwd=uri-miss; stored").header.Get("ETag")
			require.True(s, strong(tag), tag)
			require.Equal(s, tag, s.get("/p/a").isHit().header.Get("ETag"))
			require.Equal(s, tag, s.get("/p/A").isNoHit().header.Get("ETag"), "equal content")
			require.NotEqual(s, tag, s.get("/p/b").header.Get("ETag"), "other content")
		}),

		over("no ETag is added beside a validator, without 200, or with NoETag", func(s *site) {
			p := &page{}
			s.handle("GET /p/{id}", p.serve, s.cached("negative"))
			s.handle("GET /n/{id}", p.serve, s.cached("no-etag"))
			for i, c := range []struct {
				path, field string
				status      int
				want        []string
			}{
				{"/p/", `ETag: "v1"`, 200, []string{`"v1"`}},
				{"/p/", `ETag: W/"v1"`, 200, []string{`W/"v1"`}},
				{"/p/", "Last-Modified: " + lastModified, 200, nil},
				{"/p/", "X-A: 1", 404, nil},
				{"/n/", "X-A: 1", 200, nil},
			} {
				p.fields, p.status = []string{c.field}, c.status
				path := fmt.Sprint(c.path, i)
				require.Equal(s, c.want, s.get(path).says("Larder; fwd=uri-miss; stored").header.Values("ETag"), path)
				require.Equal(s, c.want, s.get(path).isHit().header.Values("ETag"), path)
			}
		}),

		over("a client that has the stored response gets 304", func(s *site) {
			p := &page{fields: []string{`ETag: "v1"`, "Vary: Accept", "Content-Language: de", "X-A: 1", "Cache-Control: max-age=60"}}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			s.get("/p/1").is("run 1")
			for _, c := range []struct {
				field string
				same  bool
			}{
				{`If-None-Match: "v1"`, true},
				{`If-None-Match: W/"v1"`, true},
				{`If-None-Match: "v0", "v1"`, true},
				{`If-None-Match: *`, true},
				{`If-None-Match: "v2"`, false},
				{`If-None-Match: v1`, false},
				{`If-Modified-Since: ` + lastModified, false},
			} {
				a := s.get("/p/1", c.field).isHit()
				if !c.same {
					a.is("run 1")
					continue
				}
				require.Equal(s, 304, a.status, c.field)
				require.Empty(s, a.body)
				require.Equal(s, []string{`"v1"`}, a.header.Values("ETag"))
				require.Equal(s, []string{"Accept"}, a.header.Values("Vary"))
				require.Equal(s, []string{"max-age=60"}, a.header.Values("Cache-Control"))
				require.Equal(s, []string{"1"}, a.header.Values("X-A"))
				for _, of := range []string{"Content-Type", "Content-Language", "Content-Length"} {
					require.NotContains(s, a.header, of, "it speaks of content that is not sent")
				}
			}
			require.EqualValues(s, 1, p.runs.Load())
		}),

		over("a client that has the added ETag gets 304", func(s *site) {
			p := &page{}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			tag := s.get("/p/1").header.Get("ETag")
			require.Equal(s, 304, s.get("/p/1", "If-None-Match: "+tag).isHit().status)
			require.Equal(s, 304, s.do("HEAD", "/p/1", "If-None-Match: "+tag).isHit().status)
		}),

		over("If-Modified-Since is evaluated, and If-None-Match wins over it", func(s *site) {
			p := &page{fields: []string{"Last-Modified: " + lastModified, `ETag: "v1"`}}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			s.get("/p/1")
			for _, c := range []struct {
				status int
				fields []string
			}{
				{304, []string{"If-Modified-Since: " + lastModified}},
				{304, []string{"If-Modified-Since: Sun, 02 Jan 2000 00:00:00 GMT"}},
				{200, []string{"If-Modified-Since: Thu, 30 Dec 1999 23:59:59 GMT"}},
				{200, []string{"If-Modified-Since: yesterday"}},
				{200, []string{"If-Modified-Since: " + lastModified, `If-None-Match: "v2"`}},
				{304, []string{"If-Modified-Since: Thu, 30 Dec 1999 23:59:59 GMT", `If-None-Match: "v1"`}},
			} {
				require.Equal(s, c.status, s.get("/p/1", c.fields...).isHit().status, "%q", c.fields)
			}
		}),

		over("a stored redirect is not turned into a 304", func(s *site) {
			p := &page{status: 301, fields: []string{`ETag: "v1"`, "Location: /p/2"}}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			s.get("/p/1")
			a := s.get("/p/1", `If-None-Match: "v1"`).isHit()
			require.Equal(s, 301, a.status)
			require.Equal(s, "/p/2", a.header.Get("Location"))
		}),

		// Elsewhere: a 206 or a 304 was stored as the response.
		over("an answer to a condition or a range is not stored as the response", func(s *site) {
			h := func(c Ctx) error {
				c.Set("ETag", `"v1"`)
				c.Set("Cache-Control", "max-age=60")
				switch {
				case len(c.Values("Range")) > 0 && c.Values("Range")[0] == "bytes=9-":
					c.Set("Content-Range", "bytes */5")
					return c.Text(416, "no")
				case len(c.Values("Range")) > 0:
					c.Set("Content-Range", "bytes 0-1/5")
					return c.Text(206, "he")
				case len(c.Values("If-None-Match")) > 0:
					c.Status(304)
					return nil
				case len(c.Values("If-Match")) > 0:
					return c.Text(412, "no")
				}
				return c.Text(200, "hello")
			}
			s.handle("GET /p/{id}", h, s.cached("hour"))
			for i, c := range []struct {
				field  string
				status int
				body   string
			}{
				{"Range: bytes=0-1", 206, "he"},
				{"Range: bytes=9-", 416, "no"},
				{`If-None-Match: "v1"`, 304, ""},
				{`If-Match: "v0"`, 412, "no"},
			} {
				path := fmt.Sprint("/p/", i)
				said := "detail=partial-or-conditional"
				if c.status == 206 {
					said = "stored" // as a part or a redirect
				}
				a := s.get(path, c.field).says("Larder; fwd=uri-miss; " + said)
				require.Equal(s, c.status, a.status)
				require.Equal(s, c.body, a.body)
				s.get(path).is("hello").says("Larder; fwd=uri-miss; stored")
				s.get(path).is("hello").isHit()
			}
		}),

		// Elsewhere: a 304 was stored, and the waiting requests got it.
		within("a 304 to the leader is not shared, and waiting requests do not rush", func(s *site) {
			const n = 50
			first, rest := s.gate(), s.gate()
			p := &page{}
			s.handle("GET /p/{id}", func(c Ctx) error {
				defer p.in.Add(-1)
				if p.enter() == 1 {
					first.wait()
				} else {
					rest.wait()
				}
				if len(c.Values("If-None-Match")) > 0 {
					c.Status(304)
					return nil
				}
				return c.Text(200, "hello")
			}, s.cached("hour"))
			leader := s.start("GET", "/p/1", `If-None-Match: "v1"`)
			s.settles(func() bool { return p.in.Load() == 1 }, "the leader is in the handler")
			others := s.starts(n-1, "GET", "/p/1")
			s.waiting(n - 1)
			first.open()
			s.settles(func() bool { return p.in.Load() <= maxLoads }, "no more than MaxLoadsAfterError are in the handler")
			rest.open()
			require.Contains(s, []int{200, 304}, leader.answer().status)
			for _, a := range others {
				a.answer().is("hello")
			}
		}),

		over("a sniffed Content-Type is on the HEAD response as well", func(s *site) {
			s.handle("GET /p/{id}", func(c Ctx) error {
				_, err := c.Write([]byte("<html><body>hello"))
				return err
			}, s.cached("hour"))
			s.get("/p/1").is("<html><body>hello")
			want := s.get("/p/1").isHit().header.Values("Content-Type")
			require.NotEmpty(s, want)
			require.Equal(s, want, s.do("HEAD", "/p/1").isHit().header.Values("Content-Type"))
		}),

		over("HEAD is answered from a stored GET and stores nothing", func(s *site) {
			for _, size := range []int{0, 5, 5000} {
				p := &page{fields: []string{"X-A: 1"}, body: func(Ctx, int64) string { return strings.Repeat("x", size) }}
				path := fmt.Sprint("/p", size)
				s.handle("GET "+path, p.serve, s.cached("hour"))
			}
			for _, size := range []int{0, 5, 5000} {
				path := fmt.Sprint("/p", size)
				a := s.do("HEAD", path).says("Larder; fwd=uri-miss")
				require.Equal(s, 200, a.status)
				require.Empty(s, a.body)
				s.get(path).says("Larder; fwd=uri-miss; stored")
				get := s.get(path).isHit()
				head := s.do("HEAD", path).isHit()
				require.Equal(s, 200, head.status)
				require.Empty(s, head.body)
				require.Equal(s, fmt.Sprint(size), head.header.Get("Content-Length"))
				for _, h := range []http.Header{get.header, head.header} {
					h.Del("Date")
					h.Del("Content-Length")
					h.Del("Transfer-Encoding")
					h.Del("Cache-Status")
					h.Del("Age")
				}
				require.Equal(s, get.header, head.header)
			}
		}),
	}
}

func captureCases() []testCase {
	return []testCase{
		// Elsewhere: the body was stored without a copy, and a pooled buffer overwrote it.
		over("a stored response shares no buffer with handler or framework", func(s *site) {
			buf := make([]byte, 64)
			var mu sync.Mutex // handlers share the buffer
			s.handle("GET /p/{id}", func(c Ctx) error {
				mu.Lock()
				defer mu.Unlock()
				c.Set("X-Id", c.Param("id"))
				for i := range buf {
					buf[i] = c.Param("id")[0]
				}
				_, err := c.Write(buf)
				for i := range buf {
					buf[i] = '!'
				}
				return err
			}, s.cached("hour", "p:{id}"))
			s.handle("GET /other/{id}", func(c Ctx) error { return c.Text(200, strings.Repeat(c.Param("id"), 64)) })
			for _, id := range []string{"a", "b"} {
				s.get("/p/" + id).is(strings.Repeat(id, 64))
			}
			for range 20 {
				s.get("/other/z")
			}
			for _, id := range []string{"a", "b"} {
				require.Equal(s, id, s.get("/p/"+id).is(strings.Repeat(id, 64)).isHit().header.Get("X-Id"))
			}
			s.invalidate(core.Tag("p:a"))
			s.get("/p/a").isNoHit()
			s.get("/p/b").isHit()
		}),

		// Elsewhere: each chunk was appended to the entry, and concurrent misses stored a doubled body.
		within("a response written in pieces is stored once, whole", func(s *site) {
			g := s.gate()
			h := func(c Ctx) error {
				for _, piece := range []string{"one ", "", "two ", "three"} {
					if _, err := c.Write([]byte(piece)); err != nil {
						return err
					}
				}
				g.wait()
				_, err := c.Write([]byte(" four"))
				return err
			}
			s.handle("GET /p/{id}", h, s.cached("hour"))
			all := s.starts(8, "GET", "/p/1")
			s.waiting(7)
			g.open()
			for _, a := range all {
				a.answer().is("one two three four")
			}
			s.get("/p/1").is("one two three four").isHit()
		}),

		// Elsewhere: a body cut off by a panic was stored as complete.
		over("a response cut off by a panic is not stored", func(s *site) {
			var runs atomic.Int64
			s.handle("GET /p/{id}", func(c Ctx) error {
				add(c, []string{"X-A: 1"})
				if _, err := c.Write([]byte("hel")); err != nil {
					return err
				}
				if runs.Add(1) == 1 {
					panic(http.ErrAbortHandler)
				}
				_, err := c.Write([]byte("lo"))
				return err
			}, s.cached("hour"))
			a := s.get("/p/1")
			require.False(s, a.err == nil && a.status == 200, "%d %q", a.status, a.body)
			s.get("/p/1").is("hello").says("Larder; fwd=uri-miss; stored")
			s.get("/p/1").is("hello").isHit()
		}),

		// Elsewhere: a hit did not stop the handler chain.
		over("a hit runs nothing inside the middleware", func(s *site) {
			var inner atomic.Int64
			p := &page{}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"), Around(func(c Ctx, next func() error) error {
				inner.Add(1)
				return next()
			}))
			for range 5 {
				s.get("/p/1").is("run 1")
			}
			require.EqualValues(s, 1, inner.Load())
			require.EqualValues(s, 1, p.runs.Load())
		}),

		// Elsewhere: an optional method of the writer, such as WriteString, bypassed the capture.
		over("every way to write a response is captured", func(s *site) {
			ways := map[string]func(w http.ResponseWriter) error{
				"Write":       func(w http.ResponseWriter) error { _, err := w.Write([]byte("hello world")); return err },
				"WriteString": func(w http.ResponseWriter) error { _, err := io.WriteString(w, "hello world"); return err },
				"Fprintf":     func(w http.ResponseWriter) error { _, err := fmt.Fprintf(w, "hello %s", "world"); return err },
				"Copy":        func(w http.ResponseWriter) error { _, err := io.Copy(w, reader("hello world")); return err },
				"Copy-pieces": func(w http.ResponseWriter) error {
					_, err := io.Copy(w, io.MultiReader(strings.NewReader("hello "), strings.NewReader("world")))
					return err
				},
				"ServeContent": func(w http.ResponseWriter) error {
					http.ServeContent(w, &http.Request{Method: http.MethodGet}, "a.txt", time.Time{}, strings.NewReader("hello world"))
					return nil
				},
				"mixed": func(w http.ResponseWriter) error {
					w.WriteHeader(http.StatusOK)
					_, _ = io.WriteString(w, "hel")
					_, _ = w.Write([]byte("lo "))
					_, err := io.Copy(w, reader("world"))
					return err
				},
			}
			var runs atomic.Int64
			s.handle("GET /w/{id}", func(c Ctx) error {
				runs.Add(1)
				return ways[c.Param("id")](c.ResponseWriter())
			}, s.cached("hour"))
			for way := range ways {
				first := s.get("/w/" + way).is("hello world").says("Larder; fwd=uri-miss; stored")
				again := s.get("/w/" + way).is("hello world").isHit()
				require.Equal(s, first.header.Get("Content-Type"), again.header.Get("Content-Type"), way)
			}
			require.EqualValues(s, len(ways), runs.Load())
		}, noResponseWriter),

		over("a handler's writer can do the same as without the cache", func(s *site) {
			can := func(c Ctx) error {
				w := c.ResponseWriter()
				_, flusher := w.(http.Flusher)
				_, hijacker := w.(http.Hijacker)
				_, readerFrom := w.(io.ReaderFrom)
				_, stringWriter := w.(io.StringWriter)
				return c.Text(200, fmt.Sprint(flusher, hijacker, readerFrom, stringWriter))
			}
			s.handle("GET /bare", can)
			s.handle("GET /p", can, s.cached("hour"))
			s.handle("PUT /p", can, s.invalidates("p"))
			want := s.get("/bare").body
			s.get("/p").is(want)
			s.do("PUT", "/p").is(want)
		}, noResponseWriter),

		over("an answer that outer middleware writes is not stored", func(s *site) {
			p := &page{}
			s.handle("GET /p/{id}", func(Ctx) error { p.enter(); return nil }, Around(func(c Ctx, next func() error) error {
				if err := next(); err != nil {
					return err
				}
				return c.Text(404, "answered outside")
			}), s.cached("negative"))
			for i := range 3 {
				a := s.get("/p/1")
				require.NoError(s, a.err)
				require.Equal(s, 404, a.status)
				require.Equal(s, "answered outside", a.body)
				require.EqualValues(s, i+1, p.runs.Load())
			}
		}, implicitAnswer),

		// Elsewhere: an error that a handler returned was stored as an empty 200.
		over("an error that a handler returns is answered and not stored", func(s *site) {
			var runs atomic.Int64
			fail := func(c Ctx) error { runs.Add(1); return s.f.Error(404) }
			s.handle("GET /bare", fail)
			s.handle("GET /p/{id}", fail, s.cached("hour"))
			bare := s.get("/bare")
			require.Equal(s, 404, bare.status)
			for range 2 {
				a := s.get("/p/1").isNoHit().says("Larder; fwd=uri-miss; detail=handler-error")
				require.Equal(s, 404, a.status)
				require.Equal(s, bare.body, a.body)
				require.Equal(s, bare.header.Get("Content-Type"), a.header.Get("Content-Type"))
			}
			require.EqualValues(s, 3, runs.Load())
		}, noErrors),

		over("a body written before a returned error is not stored", func(s *site) {
			var runs atomic.Int64
			h := func(c Ctx) error {
				run := runs.Add(1)
				if err := c.Text(200, fmt.Sprint("run ", run)); err != nil || run > 2 {
					return err
				}
				return s.f.Error(500)
			}
			s.handle("GET /bare", h)
			s.handle("GET /p/{id}", h, s.cached("hour"))
			bare := s.get("/bare")
			a := s.get("/p/1").isNoHit()
			require.Equal(s, bare.status, a.status)
			require.Equal(s, strings.Replace(bare.body, "1", "2", 1), a.body)
			s.get("/p/1").is("run 3").says("Larder; fwd=uri-miss; stored")
		}, noErrors),
	}
}

func outerCases() []testCase {
	return []testCase{
		// Elsewhere: a field that outer middleware had set for one request was stored and sent to others.
		over("fields of outer middleware are neither stored nor overwritten", func(s *site) {
			p := &page{fields: []string{"X-Own: handler", "Vary: Accept", "Server-Timing: db;dur=1"}}
			var n atomic.Int64
			outer := Around(func(c Ctx, next func() error) error {
				id := fmt.Sprint(n.Add(1))
				c.Set("X-Request-Id", id)
				if v := c.Values("Origin"); len(v) > 0 {
					c.Set("Access-Control-Allow-Origin", v[0])
				}
				c.Add("Vary", "Accept-Encoding")
				c.Add("Server-Timing", "outer;dur="+id)
				return next()
			})
			s.handle("GET /p/{id}", p.serve, outer, s.cached("hour"))
			for i, origin := range []string{"https://a.example", "https://b.example", ""} {
				var fields []string
				if origin != "" {
					fields = []string{"Origin: " + origin}
				}
				a := s.get("/p/1", fields...).is("run 1")
				require.Equal(s, i > 0, a.hit())
				id := fmt.Sprint(i + 1)
				require.Equal(s, []string{id}, a.header.Values("X-Request-Id"))
				require.Equal(s, origin, a.header.Get("Access-Control-Allow-Origin"))
				require.Equal(s, []string{"handler"}, a.header.Values("X-Own"))
				require.Equal(s, []string{"Accept-Encoding", "Accept"}, a.header.Values("Vary"))
				require.Equal(s, []string{"outer;dur=" + id, "db;dur=1"}, a.header.Values("Server-Timing"))
			}
		}),

		over("a field that the handler sets over outer middleware's is its own", func(s *site) {
			var n atomic.Int64
			outer := Around(func(c Ctx, next func() error) error {
				c.Set("X-Frame-Options", fmt.Sprint("outer ", n.Add(1)))
				c.Set("Content-Type", "application/outer")
				return next()
			})
			s.handle("GET /p/{id}", func(c Ctx) error {
				c.Set("X-Frame-Options", "handler")
				c.Set("Content-Type", "text/handler")
				_, err := c.Write([]byte("hello"))
				return err
			}, outer, s.cached("hour"))
			for range 3 {
				a := s.get("/p/1").is("hello")
				require.Equal(s, []string{"handler"}, a.header.Values("X-Frame-Options"))
				require.Equal(s, []string{"text/handler"}, a.header.Values("Content-Type"))
			}
		}),

		over("an outer field that the handler deletes is deleted on a hit", func(s *site) {
			var can bool
			s.handle("GET /p/{id}", func(c Ctx) error {
				r, ok := c.(Remover)
				if can = ok; ok {
					r.Remove("X-Frame-Options")
				}
				return c.Text(200, "hello")
			}, Around(func(c Ctx, next func() error) error {
				c.Set("X-Frame-Options", "DENY")
				c.Set("X-Outer", "1")
				return next()
			}), s.cached("hour"))
			s.get("/p/1").is("hello")
			if !can {
				s.Skip("its Ctx is no Remover")
			}
			a := s.get("/p/1").is("hello").isHit()
			require.Equal(s, []string{"1"}, a.header.Values("X-Outer"))
			require.Empty(s, a.header.Values("X-Frame-Options"))
		}),

		over("outer middleware's Cache-Control stays and has no effect", func(s *site) {
			p := &page{}
			s.handle("GET /p/{id}", p.serve, Around(func(c Ctx, next func() error) error {
				c.Set("Cache-Control", "max-age=5")
				return next()
			}), s.cached("hour"))
			for range 2 {
				require.Equal(s, []string{"max-age=5"}, s.get("/p/1").is("run 1").header.Values("Cache-Control"))
			}
		}),

		// A response is stored with the no-cache that Larder adds. A hit has that of outer middleware.
		over("outer middleware's Cache-Control of a hit stays", func(s *site) {
			p := &page{}
			s.handle("GET /p/{id}", p.serve, Around(func(c Ctx, next func() error) error {
				if lifetime := c.Values("X-Lifetime"); len(lifetime) > 0 {
					c.Set("Cache-Control", lifetime[0])
				}
				return next()
			}), s.cached("hour"))
			require.Equal(s, []string{"no-cache"}, s.get("/p/1").is("run 1").header.Values("Cache-Control"))
			hit := s.get("/p/1", "X-Lifetime: max-age=5").is("run 1").isHit()
			require.Equal(s, []string{"max-age=5"}, hit.header.Values("Cache-Control"))
		}),

		over("outer middleware after the handler works as without a cache", func(s *site) {
			p := &page{}
			late := Around(func(c Ctx, next func() error) error {
				err := next()
				c.Set("X-Late", "1")
				return err
			})
			s.handle("GET /bare", p.serve, late)
			s.handle("GET /p/{id}", p.serve, late, s.cached("hour"))
			want := s.get("/bare").header.Values("X-Late")
			require.Equal(s, want, s.get("/p/1").isNoHit().header.Values("X-Late"))
			require.Equal(s, want, s.get("/p/1").isHit().header.Values("X-Late"))
		}),

		// Elsewhere: the stored header map was shared with requests.
		over("outer middleware that changes a header value changes no entry", func(s *site) {
			p := &page{fields: []string{"X-Own: a", "X-Own: b"}}
			s.handle("GET /p/{id}", p.serve, Around(func(c Ctx, next func() error) error {
				err := next()
				if len(c.Values("X-Tamper")) == 0 {
					return err
				}
				if w := c.ResponseWriter(); w != nil {
					for _, values := range w.Header() {
						for i := range values {
							values[i] = "tampered"
						}
					}
				}
				c.Set("X-Own", "tampered")
				c.Add("X-New", "tampered")
				return err
			}), s.cached("hour"))
			const n = 20
			s.get("/p/1", "X-Tamper: 1") // this request stores the response
			tampering := s.starts(n, "GET", "/p/1", "X-Tamper: 1")
			others := s.starts(n, "GET", "/p/1")
			for i := range n {
				tampering[i].answer().is("run 1").isHit()
				a := others[i].answer().is("run 1").isHit()
				require.Equal(s, []string{"a", "b"}, a.header.Values("X-Own"))
				require.Empty(s, a.header.Values("X-New"))
			}
			require.Equal(s, []string{"a", "b"}, s.get("/p/1").isHit().header.Values("X-Own"))
		}),
	}
}
