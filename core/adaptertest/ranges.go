package adaptertest

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"strings"

	"github.com/stretchr/testify/require"
)

const alphabet = "abcdefghijklmnopqrstuvwxyz"

// letters is a page of 26 bytes, stored whole.
func (s *site) letters(fields ...string) *page {
	s.Helper()
	p := &page{fields: fields, body: func(Ctx, int64) string { return alphabet }}
	s.handle("GET /p/{id}", p.serve, s.cached("hour", "p:{id}"))
	s.get("/p/1").is(alphabet).says("Larder; fwd=uri-miss; stored")
	return p
}

// isPart demands a 206 with these bytes at this place, of 26.
func (a answer) isPart(body string) answer {
	if h, ok := a.t.(interface{ Helper() }); ok {
		h.Helper()
	}
	require.NoError(a.t, a.err)
	require.Equal(a.t, 206, a.status, "status; body %.100q", a.body)
	require.Equal(a.t, body, a.body)
	first := strings.Index(alphabet, body)
	require.Equal(a.t, []string{fmt.Sprintf("bytes %d-%d/26", first, first+len(body)-1)}, a.header.Values("Content-Range"))
	require.Equal(a.t, fmt.Sprint(len(body)), a.header.Get("Content-Length"))
	return a
}

// Ranges of stored responses (RFC 9110 section 14, RFC 9111 section 3.3).
func rangeCases() []testCase {
	return []testCase{
		over("a range of a stored response is answered from it", func(s *site) {
			p := s.letters(`ETag: "v1"`, "X-A: 1")
			for _, c := range []struct{ want, body string }{
				{"bytes=0-2", "abc"},
				{"bytes=3-3", "d"},
				{"bytes=23-", "xyz"},
				{"bytes=-3", "xyz"},
				{"bytes=24-99", "yz"},
				{"bytes=0-", alphabet},
				{"bytes=-99", alphabet},
				{"Bytes=0-2", "abc"},
				{"bytes=, 0-2 ,", "abc"},
				{"bytes=30-31,0-2", "abc"},
			} {
				a := s.get("/p/1", "Range: "+c.want).isPart(c.body).isHit()
				require.Equal(s, `"v1"`, a.header.Get("ETag"), c.want)
				require.Equal(s, "1", a.header.Get("X-A"), c.want)
				require.Equal(s, "text/plain; charset=utf-8", strings.ToLower(a.header.Get("Content-Type")), c.want)
			}
			require.EqualValues(s, 1, p.runs.Load())
		}),

		over("several ranges are answered in several parts, in their order", func(s *site) {
			p := s.letters()
			for _, c := range []struct {
				want  string
				parts []string
			}{
				{"bytes=0-2,23-", []string{"abc", "xyz"}},
				{"bytes=-3, 3-4,0-0", []string{"xyz", "de", "a"}},
				{"bytes=0-4,3-5", []string{"abcde", "def"}},
			} {
				a := s.get("/p/1", "Range: "+c.want).isHit()
				require.Equal(s, 206, a.status)
				require.Empty(s, a.header.Values("Content-Range"), "each part has its own")
				require.Equal(s, fmt.Sprint(len(a.body)), a.header.Get("Content-Length"))
				kind, params, err := mime.ParseMediaType(a.header.Get("Content-Type"))
				require.NoError(s, err)
				require.Equal(s, "multipart/byteranges", kind)
				r := multipart.NewReader(strings.NewReader(a.body), params["boundary"])
				for _, want := range c.parts {
					part, err := r.NextPart()
					require.NoError(s, err)
					body, err := io.ReadAll(part)
					require.NoError(s, err)
					require.Equal(s, want, string(body))
					first := strings.Index(alphabet, want)
					require.Equal(s, fmt.Sprintf("bytes %d-%d/26", first, first+len(want)-1), part.Header.Get("Content-Range"))
					require.Equal(s, "text/plain; charset=utf-8", strings.ToLower(part.Header.Get("Content-Type")))
				}
				_, err = r.NextPart()
				require.True(s, errors.Is(err, io.EOF))
			}
			require.EqualValues(s, 1, p.runs.Load())
		}),

		over("a range beyond the content is answered 416", func(s *site) {
			p := s.letters(`ETag: "v1"`)
			for _, want := range []string{"bytes=26-", "bytes=99-100", "bytes=-0", "bytes=26-,30-31"} {
				a := s.get("/p/1", "Range: "+want).isHit()
				require.Equal(s, 416, a.status, want)
				require.Empty(s, a.body)
				require.Equal(s, []string{"bytes */26"}, a.header.Values("Content-Range"))
				require.Equal(s, []string{"0"}, a.header.Values("Content-Length"))
				a.keptByNobody()
			}
			require.EqualValues(s, 1, p.runs.Load())
		}),

		over("a malformed range is ignored", func(s *site) {
			p := s.letters()
			for _, want := range []string{
				"bytes=", "bytes=2-1", "bytes=a-b", "bytes=1", "bytes 0-1", "items=0-1", "bytes=0-1;2-3", "bytes=--1", "bytes=0x0-1", "bytes=+0-1",
				"bytes=0-1,x", "bytes=0-20,0-20", "bytes=0-1,0-1,1-2",
			} {
				a := s.get("/p/1", "Range: "+want).is(alphabet).isHit()
				require.Empty(s, a.header.Values("Content-Range"), want)
			}
			s.get("/p/1", "Range: bytes=0-1", "Range: bytes=3-4").is(alphabet).isHit()
			require.EqualValues(s, 1, p.runs.Load())
		}),

		over("If-Range gives a range only of the version it names", func(s *site) {
			body := func(Ctx, int64) string { return alphabet }
			weak := &page{fields: []string{`ETag: W/"v1"`}, body: body}
			none := &page{body: body}
			s.handle("GET /weak", weak.serve, s.cached("hour"))
			s.handle("GET /none", none.serve, s.cached("hour"))
			s.letters(`ETag: "v1"`)
			s.get("/weak").is(alphabet)
			made := s.get("/none").is(alphabet).header.Get("ETag")
			for _, c := range []struct {
				path, condition string
				part            bool
			}{
				{"/p/1", `"v1"`, true},
				{"/p/1", `"v0"`, false},
				{"/p/1", `W/"v1"`, false},
				{"/p/1", `"v0", "v1"`, false},
				{"/p/1", "v1", false},
				{"/p/1", lastModified, false},
				{"/weak", `W/"v1"`, false},
				{"/weak", `"v1"`, false},
				{"/none", made, true},
			} {
				a := s.get(c.path, "Range: bytes=0-2", "If-Range: "+c.condition).isHit()
				if c.part {
					a.isPart("abc")
				} else {
					a.is(alphabet)
				}
			}
			s.get("/p/1", "Range: bytes=99-", `If-Range: "v0"`).is(alphabet).isHit()
		}),

		within("If-Range accepts a Last-Modified that is a second old", func(s *site) {
			p := s.letters("Last-Modified: "+lastModified, "Date: Fri, 31 Dec 1999 00:00:01 GMT")
			s.get("/p/1", "Range: bytes=0-2", "If-Range: "+lastModified).isPart("abc").isHit()
			s.get("/p/1", "Range: bytes=0-2", "If-Range: Sun, 02 Jan 2000 00:00:00 GMT").is(alphabet).isHit()
			p.fields[1] = "Date: " + lastModified
			s.get("/p/2").is(alphabet).says("Larder; fwd=uri-miss; stored")
			s.get("/p/2", "Range: bytes=0-2", "If-Range: "+lastModified).is(alphabet).isHit()
		}, noDateOverride),

		over("HEAD has no ranges", func(s *site) {
			s.letters()
			a := s.do("HEAD", "/p/1", "Range: bytes=0-2").isHit()
			require.Equal(s, 200, a.status)
			require.Equal(s, "26", a.header.Get("Content-Length"))
			require.Empty(s, a.header.Values("Content-Range"))
		}),

		over("a condition is evaluated before the range", func(s *site) {
			s.letters(`ETag: "v1"`, "Last-Modified: "+lastModified)
			for _, f := range []string{hasV1, "If-Modified-Since: " + lastModified} {
				a := s.get("/p/1", "Range: bytes=0-2", f).isHit()
				require.Equal(s, 304, a.status)
				require.Empty(s, a.header.Values("Content-Range"))
			}
			s.get("/p/1", "Range: bytes=0-2", `If-None-Match: "v0"`).isPart("abc").isHit()
		}),

		over("only a 200 with content has ranges", func(s *site) {
			for _, c := range []struct {
				status int
				body   string
			}{{404, alphabet}, {301, alphabet}, {200, ""}} {
				s := newSite(s.TB, s.f, s.by)
				p := &page{status: c.status, body: func(Ctx, int64) string { return c.body }}
				s.handle("GET /p/{id}", p.serve, s.cached("negative"))
				s.get("/p/1")
				a := s.get("/p/1", "Range: bytes=0-2").isHit()
				require.Equal(s, c.status, a.status)
				require.Equal(s, c.body, a.body)
			}
		}),

		within("a waiting request gets the range it asked for", func(s *site) {
			p := s.letters()
			p.hold = s.gate()
			whole := s.start("GET", "/p/2", "Range: bytes=0-2") // which the handler does not know
			s.settles(func() bool { return p.in.Load() == 1 }, "the handler runs")
			part := s.start("GET", "/p/2", "Range: bytes=0-2")
			s.waiting(1)
			p.hold.open()
			whole.answer().isPart("abc").says("Larder; fwd=uri-miss; stored")
			part.answer().isPart("abc").says("Larder; fwd=uri-miss; collapsed")
			require.EqualValues(s, 2, p.runs.Load())
		}),
	}
}
