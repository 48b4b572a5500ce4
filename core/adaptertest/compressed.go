package adaptertest

import (
	"strings"

	"github.com/stretchr/testify/require"
)

// Middleware in front that encodes content: the cache cuts no range of such an answer, does
// not encode it itself, and adds no strong ETag.
func compressedCases() []testCase {
	const gzipped, made = "Accept-Encoding: gzip", "Larder; fwd=uri-miss; stored"
	text := strings.Repeat("a text that gets smaller. ", 200)
	// behind is a page behind a compressor, stored.
	behind := func(s *site, class string, fields ...string) *page {
		s.Helper()
		p := &page{fields: fields, body: func(Ctx, int64) string { return text }}
		s.handle("GET /p/{id}", p.serve, Compresses{}, s.cached(class))
		s.get("/p/1").is(text).says(made)
		return p
	}
	// once demands the whole text, encoded once.
	once := func(s *site, a answer) {
		s.Helper()
		require.NoError(s, a.err)
		require.Equal(s, 200, a.status)
		require.Equal(s, []string{"gzip"}, a.header.Values("Content-Encoding"))
		require.True(s, text == a.decoded(), "the content, once decoded")
		require.Empty(s, a.header.Values("Content-Range"))
	}
	// whole demands that the compressor has encoded it.
	whole := func(s *site, a answer) {
		s.Helper()
		once(s, a)
		require.Empty(s, a.header.Values("Accept-Ranges"))
	}
	// weak demands the weak form of an ETag.
	weak := func(s *site, strong string, a answer) {
		s.Helper()
		require.Equal(s, []string{"W/" + strong}, a.header.Values("ETag"))
	}
	return []testCase{
		over("a range behind a compressor is answered by the whole", func(s *site) {
			p := behind(s, "hour")
			for _, want := range []string{"bytes=0-9", "bytes=-5", "bytes=0-1,4-5", "bytes=999999-", "bytes=x"} {
				whole(s, s.get("/p/1", gzipped, "Range: "+want).isHit())
			}
			whole(s, s.get("/p/2", gzipped, "Range: bytes=0-9").says(made))
			require.EqualValues(s, 2, p.runs.Load())
		}),

		over("a range behind a compressor is cut if no encoding is accepted", func(s *site) {
			p := behind(s, "hour")
			for _, accepts := range []string{"X-A: 1", "Accept-Encoding: identity", "Accept-Encoding: identity;q=1, *;q=0", "Accept-Encoding:"} {
				a := s.get("/p/1", accepts, "Range: bytes=2-9").isHit()
				require.Equal(s, 206, a.status, accepts)
				require.Equal(s, text[2:10], a.body, accepts)
				require.Equal(s, "bytes 2-9/5200", a.header.Get("Content-Range"))
				require.Empty(s, a.header.Values("Content-Encoding"))
			}
			require.EqualValues(s, 1, p.runs.Load())
		}),

		over("content is encoded once, by the cache or by a compressor", func(s *site) {
			p := behind(s, "encodings")
			for range 2 {
				once(s, s.get("/p/1", gzipped).isHit())
			}
			whole(s, s.get("/p/2", gzipped).says(made))
			all := s.get("/p/2", gzipped).isHit()
			once(s, all)
			part := s.get("/p/2", gzipped, "Range: bytes=2-9").isHit()
			if part.status == 206 { // the cache has encoded it, and the compressor leaves that alone
				require.Equal(s, all.body[2:10], part.body)
				require.Equal(s, all.header.Values("ETag"), part.header.Values("ETag"))
			} else {
				whole(s, part)
			}
			require.EqualValues(s, 2, p.runs.Load())
		}),

		over("an added ETag is weak where a compressor may encode", func(s *site) {
			p := behind(s, "hour")
			strong := s.get("/p/1").is(text).isHit().header.Get("ETag")
			require.True(s, strings.HasPrefix(strong, `"`), strong)
			miss := s.get("/p/2", gzipped).says(made)
			whole(s, miss)
			weak(s, strong, miss)
			hit := s.get("/p/1", gzipped).isHit()
			whole(s, hit)
			weak(s, strong, hit)
			for _, tag := range []string{"W/" + strong, strong} {
				a := s.get("/p/1", gzipped, "If-None-Match: "+tag).isHit()
				require.Equal(s, 304, a.status)
				require.Empty(s, a.body)
				weak(s, strong, a)
				a = s.get("/p/1", "If-None-Match: "+tag).isHit()
				require.Equal(s, 304, a.status)
				require.Equal(s, []string{strong}, a.header.Values("ETag"))
			}
			require.EqualValues(s, 2, p.runs.Load())
		}),

		over("a reloaded response behind a compressor is a 304 by its weak ETag", func(s *site) {
			p := behind(s, "hour")
			tag := s.get("/p/1", gzipped).isHit().header.Get("ETag")
			a := s.get("/p/2", gzipped, "If-None-Match: "+tag).says(made)
			require.Equal(s, 304, a.status)
			require.Equal(s, []string{tag}, a.header.Values("ETag"))
			require.EqualValues(s, 2, p.runs.Load())
		}),

		over("waiting requests behind a compressor get one encoding, a weak ETag", func(s *site) {
			p := behind(s, "hour")
			strong := s.get("/p/1").header.Get("ETag")
			p.hold = s.gate()
			leader := s.start("GET", "/p/2")
			s.settles(func() bool { return p.in.Load() == 1 }, "the handler runs")
			other := s.start("GET", "/p/2", gzipped, "Range: bytes=0-9")
			s.waiting(1)
			p.hold.open()
			leader.answer().is(text)
			a := other.answer()
			whole(s, a)
			weak(s, strong, a)
		}),

		over("If-Range behind a compressor never gives a part", func(s *site) {
			behind(s, "hour")
			strong := s.get("/p/1").header.Get("ETag")
			for _, tag := range []string{"W/" + strong, strong} {
				whole(s, s.get("/p/1", gzipped, "Range: bytes=0-9", "If-Range: "+tag).isHit())
			}
			a := s.get("/p/1", "Range: bytes=0-9", "If-Range: W/"+strong).is(text).isHit()
			require.Equal(s, []string{strong}, a.header.Values("ETag"))
			require.Equal(s, 206, s.get("/p/1", "Range: bytes=0-9", "If-Range: "+strong).isHit().status)
		}),

		over("a handler's ETag stays behind a compressor, and no part is cut", func(s *site) {
			p := behind(s, "hour", `ETag: "v1"`)
			for _, f := range []string{"X-A: 1", `If-Range: "v1"`} {
				a := s.get("/p/1", gzipped, "Range: bytes=0-9", f).isHit()
				whole(s, a)
				require.Equal(s, `"v1"`, strings.TrimPrefix(a.header.Get("ETag"), "W/"))
			}
			require.Equal(s, 304, s.get("/p/1", gzipped, hasV1).isHit().status)
			require.EqualValues(s, 1, p.runs.Load())
		}),

		over("middleware in front that may encode leaves ranges to identity clients", func(s *site) {
			p := &page{body: func(Ctx, int64) string { return text }}
			s.handle("GET /p/{id}", p.serve, AsSent(func(c Ctx) { c.Set("X-Sent", "1") }), s.cached("hour"))
			strong := s.get("/p/1").is(text).header.Get("ETag")
			require.True(s, strings.HasPrefix(strong, `"`), strong)
			a := s.get("/p/1", "Range: bytes=2-9").isHit()
			require.Equal(s, 206, a.status)
			require.Equal(s, text[2:10], a.body)
			require.Equal(s, []string{strong}, a.header.Values("ETag"))
			a = s.get("/p/1", gzipped, "Range: bytes=2-9").is(text).isHit() // the cache must assume that it encodes
			require.Equal(s, []string{"W/" + strong}, a.header.Values("ETag"))
		}),

		over("without a compressor ranges are cut and ETags are strong", func(s *site) {
			p := &page{body: func(Ctx, int64) string { return text }}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			strong := s.get("/p/1", gzipped).is(text).header.Get("ETag")
			require.True(s, strings.HasPrefix(strong, `"`), strong)
			a := s.get("/p/1", gzipped, "Range: bytes=2-9", "If-Range: "+strong).isHit()
			require.Equal(s, 206, a.status)
			require.Equal(s, text[2:10], a.body)
			require.Equal(s, []string{strong}, a.header.Values("ETag"))
			require.Equal(s, []string{"bytes"}, a.header.Values("Accept-Ranges"))
		}),

		over("a handler's part is not cut smaller behind a compressor", func(s *site) {
			p := &page{status: 206, fields: []string{"Cache-Control: max-age=60", "Content-Range: bytes 0-9/26"}, body: func(Ctx, int64) string { return alphabet[:10] }}
			s.handle("GET /p/{id}", p.serve, Compresses{}, s.cached("hour"))
			s.get("/p/1", "Range: bytes=0-9")
			s.get("/p/1", "Range: bytes=2-3").isPart("cd").isHit()
			s.get("/p/1", gzipped, "Range: bytes=2-3").isNoHit()
			require.EqualValues(s, 2, p.runs.Load())
		}),
	}
}
