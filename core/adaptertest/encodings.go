package adaptertest

import (
	"compress/gzip"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
)

// decoded is the content of an answer without its coding.
func (a answer) decoded() string {
	var r io.Reader = strings.NewReader(a.body)
	var err error
	switch coding := a.header.Get("Content-Encoding"); coding {
	case "gzip":
		r, err = gzip.NewReader(r)
	case "zstd":
		r, err = zstd.NewReader(r)
	default:
		require.Empty(a.t, coding)
	}
	require.NoError(a.t, err)
	body, err := io.ReadAll(r)
	require.NoError(a.t, err)
	return string(body)
}

// Content that the cache encodes, once, for clients that accept the encoding.
func encodingCases() []testCase {
	text := strings.Repeat("a text that gets smaller. ", 200)
	// prose is a site with one page of it, stored.
	prose := func(s *site, fields ...string) *page {
		s.Helper()
		p := &page{fields: fields, body: func(Ctx, int64) string { return text }}
		s.handle("GET /p/{id}", p.serve, s.cached("encodings"))
		s.get("/p/1").is(text).says("Larder; fwd=uri-miss; stored")
		return p
	}
	return []testCase{
		over("stored content is encoded for clients that accept it", func(s *site) {
			p := prose(s, `ETag: "v1"`, "X-A: 1")
			lengths := map[string]int{}
			for _, c := range []struct{ accepts, coding string }{
				{"X-B: 1", ""},
				{"Accept-Encoding: gzip", "gzip"},
				{"Accept-Encoding: zstd", "zstd"},
				{"Accept-Encoding: gzip, zstd", "zstd"},
				{"Accept-Encoding: gzip, deflate, br, zstd", "zstd"},
				{"Accept-Encoding: gzip;q=1, zstd;q=0.5", "gzip"},
				{"Accept-Encoding: gzip, zstd;q=0", "gzip"},
				{"Accept-Encoding: *", "zstd"},
				{"Accept-Encoding: GZIP", "gzip"},
				{"Accept-Encoding: br", ""},
				{"Accept-Encoding: identity", ""},
				{"Accept-Encoding: gzip;q=0", ""},
				{"Accept-Encoding: identity, gzip;q=0.5", ""},
				{"Accept-Encoding:", ""},
			} {
				a := s.get("/p/1", c.accepts).isHit()
				require.Equal(s, 200, a.status)
				require.Equal(s, c.coding, a.header.Get("Content-Encoding"), c.accepts)
				require.Equal(s, text, a.decoded(), c.accepts)
				if c.coding != "" || a.header.Get("Content-Length") != "" {
					require.Equal(s, fmt.Sprint(len(a.body)), a.header.Get("Content-Length"))
				}
				require.Equal(s, []string{"Accept-Encoding"}, a.header.Values("Vary"))
				require.Equal(s, "1", a.header.Get("X-A"))
				tag := `"v1"`
				if c.coding != "" {
					tag = `"v1-` + c.coding + `"`
					require.Less(s, len(a.body), len(text)/2)
				}
				require.Equal(s, []string{tag}, a.header.Values("ETag"), c.accepts)
				lengths[c.coding] = len(a.body)
			}
			require.Len(s, lengths, 3)
			require.EqualValues(s, 1, p.runs.Load())
			require.Equal(s, 1, s.cache.Stats().Entries)
		}),

		over("the first response says that it varies on Accept-Encoding", func(s *site) {
			p := &page{fields: []string{"Vary: Accept"}, body: func(Ctx, int64) string { return text }}
			s.handle("GET /p/{id}", p.serve, s.cached("encodings"))
			for range 2 {
				a := s.get("/p/1", "Accept-Encoding: gzip")
				require.Equal(s, "Accept, Accept-Encoding", strings.Join(a.header.Values("Vary"), ", "))
				require.Equal(s, text, a.decoded())
			}
			require.EqualValues(s, 1, p.runs.Load())
		}),

		over("each encoding has an ETag of its own, and a weak one stays weak", func(s *site) {
			weak := &page{fields: []string{`ETag: W/"v1"`}, body: func(Ctx, int64) string { return text }}
			s.handle("GET /weak", weak.serve, s.cached("encodings"))
			prose(s)
			plain := s.get("/p/1").header.Get("ETag")
			encoded := s.get("/p/1", "Accept-Encoding: gzip").header.Get("ETag")
			require.NotEmpty(s, plain)
			require.Equal(s, strings.TrimSuffix(plain, `"`)+`-gzip"`, encoded)
			require.Equal(s, `W/"v1"`, s.get("/weak").header.Get("ETag"))
			a := s.get("/weak", "Accept-Encoding: gzip", "Range: bytes=2-9", `If-Range: W/"v1"`).isHit()
			require.Equal(s, text, a.decoded())
		}),

		over("HEAD answers the encoded fields of GET", func(s *site) {
			prose(s, `ETag: "v1"`)
			get := s.get("/p/1", "Accept-Encoding: gzip").isHit()
			head := s.do("HEAD", "/p/1", "Accept-Encoding: gzip").isHit()
			require.Empty(s, head.body)
			for _, name := range []string{"Content-Length", "Content-Encoding", "ETag", "Vary", "Content-Type"} {
				require.Equal(s, get.header.Values(name), head.header.Values(name), name)
			}
		}),

		over("a client that has the encoded version gets 304", func(s *site) {
			p := prose(s, `ETag: "v1"`)
			for _, c := range []struct {
				accepts, tag string
				same         bool
			}{
				{"gzip", `"v1-gzip"`, true},
				{"gzip", `W/"v1-gzip"`, true},
				{"gzip", `"v1"`, false},
				{"gzip", `"v1-zstd"`, false},
				{"zstd", `"v1-zstd"`, true},
				{"br", `"v1"`, true},
				{"br", `"v1-gzip"`, false},
			} {
				a := s.get("/p/1", "Accept-Encoding: "+c.accepts, "If-None-Match: "+c.tag).isHit()
				require.Equal(s, c.same, a.status == 304, "%v", c)
				if c.same {
					require.Equal(s, strings.TrimPrefix(c.tag, "W/"), a.header.Get("ETag"))
					require.Equal(s, []string{"Accept-Encoding"}, a.header.Values("Vary"))
					require.Empty(s, a.header.Values("Content-Encoding"))
				}
			}
			require.EqualValues(s, 1, p.runs.Load())
		}),

		over("a range of an encoded response counts encoded bytes", func(s *site) {
			prose(s, `ETag: "v1"`)
			whole := s.get("/p/1", "Accept-Encoding: gzip").isHit()
			for _, f := range []string{"X-A: 1", `If-Range: "v1-gzip"`} {
				a := s.get("/p/1", "Accept-Encoding: gzip", "Range: bytes=2-9", f).isHit()
				require.Equal(s, 206, a.status)
				require.Equal(s, whole.body[2:10], a.body)
				require.Equal(s, fmt.Sprintf("bytes 2-9/%d", len(whole.body)), a.header.Get("Content-Range"))
				require.Equal(s, "gzip", a.header.Get("Content-Encoding"))
				require.Equal(s, `"v1-gzip"`, a.header.Get("ETag"))
				require.Equal(s, []string{"8"}, a.header.Values("Content-Length"))
			}
			a := s.get("/p/1", "Accept-Encoding: gzip", "Range: bytes=2-9", `If-Range: "v1"`).isHit()
			require.Equal(s, 200, a.status)
			require.Equal(s, text, a.decoded())
			a = s.get("/p/1", "Range: bytes=2-9", `If-Range: "v1"`).isHit()
			require.Equal(s, text[2:10], a.body)
			require.Equal(s, fmt.Sprintf("bytes 2-9/%d", len(text)), a.header.Get("Content-Range"))
		}),

		over("small, dense, encoded and no-transform content stays plain", func(s *site) {
			for _, c := range []struct {
				status int
				size   int
				field  string
			}{
				{200, 1023, "X-A: 1"},
				{200, 4000, "Content-Type: image/png"},
				{200, 4000, "Content-Type: application/octet-stream"},
				{200, 4000, "Content-Encoding: gzip"},
				{200, 4000, "Cache-Control: max-age=60, no-transform"},
				{404, 4000, "X-A: 1"},
			} {
				s := newSite(s.TB, s.f, s.by)
				s.handle("GET /p/{id}", func(ctx Ctx) error {
					if !strings.HasPrefix(c.field, "Content-Type") {
						ctx.Set("Content-Type", "text/html")
					}
					add(ctx, []string{c.field, "Cache-Control: max-age=60"})
					ctx.Status(c.status)
					_, err := ctx.Write([]byte(text[:c.size]))
					return err
				}, s.cached("encodings"))
				for i := range 2 {
					a := s.get("/p/1", "Accept-Encoding: gzip, zstd")
					require.Equal(s, i == 1, a.hit(), c.field)
					require.True(s, text[:c.size] == a.body, c.field)
					require.NotContains(s, strings.Join(a.header.Values("Vary"), ","), "Accept-Encoding", c.field)
				}
			}
		}),

		over("content types that compress well are encoded", func(s *site) {
			for _, kind := range []string{
				"text/html; charset=utf-8", "text/css", "application/json", "application/problem+json", "image/svg+xml", "application/javascript", "APPLICATION/JSON",
			} {
				s := newSite(s.TB, s.f, s.by)
				s.handle("GET /p/{id}", func(c Ctx) error {
					c.Set("Content-Type", kind)
					_, err := c.Write([]byte(text))
					return err
				}, s.cached("encodings"))
				s.get("/p/1").is(text)
				a := s.get("/p/1", "Accept-Encoding: gzip").isHit()
				require.Equal(s, "gzip", a.header.Get("Content-Encoding"), kind)
				require.Equal(s, text, a.decoded())
			}
		}),

		over("fields about the plain content are not on the encoded one", func(s *site) {
			prose(s, "Content-Md5: x", "Content-Digest: sha-256=:eA==:", "Repr-Digest: sha-256=:eA==:", fmt.Sprint("Content-Length: ", len(text)))
			for _, name := range []string{"Content-Md5", "Content-Digest", "Repr-Digest"} {
				require.NotEmpty(s, s.get("/p/1").is(text).isHit().header.Values(name), name)
				require.Empty(s, s.get("/p/1", "Accept-Encoding: gzip").isHit().header.Values(name), name)
			}
		}),

		within("waiting requests get the encoded response", func(s *site) {
			p := prose(s)
			p.hold = s.gate()
			leader := s.start("GET", "/p/2")
			s.settles(func() bool { return p.in.Load() == 1 }, "the handler runs")
			other := s.start("GET", "/p/2", "Accept-Encoding: gzip")
			s.waiting(1)
			p.hold.open()
			leader.answer().is(text)
			a := other.answer()
			require.Equal(s, "gzip", a.header.Get("Content-Encoding"))
			require.Equal(s, text, a.decoded())
		}),

		within("encoded content is validated by the handler's own ETag", func(s *site) {
			o := &original{etag: `"v1"`}
			o.fields, o.body = []string{"Cache-Control: max-age=60"}, func(Ctx, int64) string { return text }
			s.handle("GET /p/{id}", o.serve, s.cached("encodings"))
			s.get("/p/1").is(text)
			time.Sleep(time.Minute)
			a := s.get("/p/1", "Accept-Encoding: gzip", `If-None-Match: "v1-gzip"`).says(renewed)
			require.Equal(s, 304, a.status)
			require.Equal(s, hasV1, o.last())
			time.Sleep(time.Minute)
			a = s.get("/p/1", "Accept-Encoding: gzip").says(renewed)
			require.Equal(s, text, a.decoded())
			require.Equal(s, `"v1-gzip"`, a.header.Get("ETag"))
			require.Equal(s, []string{"Accept-Encoding"}, a.header.Values("Vary"))
		}),

		over("no-transform in CDN-Cache-Control forbids encoding", func(s *site) {
			prose(s, "CDN-Cache-Control: max-age=60, no-transform")
			require.True(s, s.get("/p/1", "Accept-Encoding: gzip").isHit().body == text)
		}),

		within("no-transform in a 304 ends encoding", func(s *site) {
			o := &original{etag: `"v1"`, renewal: []string{"Cache-Control: max-age=60, no-transform"}}
			o.fields, o.body = []string{"Cache-Control: max-age=60"}, func(Ctx, int64) string { return text }
			s.handle("GET /p/{id}", o.serve, s.cached("encodings"))
			s.get("/p/1").is(text)
			require.Equal(s, "gzip", s.get("/p/1", "Accept-Encoding: gzip").isHit().header.Get("Content-Encoding"))
			time.Sleep(time.Minute)
			for range 2 {
				require.True(s, s.get("/p/1", "Accept-Encoding: gzip").body == text)
			}
		}),
	}
}
