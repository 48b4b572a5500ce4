package adaptertest

import (
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/test/memtier"
)

// freeFields is how many bytes of header fields do not count against Class.MaxEntryBytes.
const freeFields = 4 << 10

// grows is a page of 500 bytes whose header fields grow.
type grows struct {
	original
	bytes atomic.Int64 // of the added field
	lines int64        // over which they are spread
}

func (g *grows) serve(c Ctx) error {
	if n := g.bytes.Load(); n > 0 {
		for range g.lines {
			c.Add("X-Large", strings.Repeat("f", int(n/g.lines)))
		}
	}
	return g.original.serve(c)
}

// growing adds a route with such a page. A field of tooWide bytes exceeds the bound of its
// class, and one of wide bytes does not.
func (s *site) growing(class string) *grows {
	s.Helper()
	s.changes(class, func(c *core.Class) { c.MaxEntryBytes = smallBytes })
	g := &grows{lines: 1}
	g.body = func(Ctx, int64) string { return strings.Repeat("x", smallBytes/2) }
	s.handle("GET /p/{id}", g.serve, s.cached(class))
	return g
}

const (
	wide    = freeFields
	tooWide = freeFields + smallBytes/2
)

// whole fails unless an answer has all of a page's body and fields.
func (g *grows) whole(a answer) answer {
	require.NoError(a.t, a.err)
	require.EqualValues(a.t, g.bytes.Load(), len(strings.Join(a.header["X-Large"], "")))
	require.Equal(a.t, strings.Repeat("x", smallBytes/2), a.body)
	return a
}

// Header fields count against Class.MaxEntryBytes.
func fieldBoundCases() []testCase {
	const tooLarge = "Larder; fwd=uri-miss; detail=too-large"
	return []testCase{
		over("header fields count against MaxEntryBytes but for the first 4 KiB", func(s *site) {
			g := s.growing("hour")
			g.bytes.Store(wide)
			g.whole(s.get("/p/1")).says("Larder; fwd=uri-miss; stored")
			g.whole(s.get("/p/1")).isHit()
			g.bytes.Store(tooWide)
			for range 2 {
				g.whole(s.get("/p/2")).says(tooLarge)
			}
			require.EqualValues(s, 3, g.runs.Load())
		}),

		over("header fields count in any number of lines", func(s *site) {
			g := s.growing("hour")
			g.lines = 128
			g.bytes.Store(wide) // together with the names it exceeds the bound
			for range 2 {
				g.whole(s.get("/p/1")).says(tooLarge)
			}
		}),

		over("a response with 4 MiB of header fields is not stored", func(s *site) {
			g := s.growing("hour")
			s.changes("hour", func(c *core.Class) { c.MaxEntryBytes = core.DefaultMaxEntryBytes })
			g.bytes.Store(4 << 20)
			g.whole(s.get("/p/1")).says(tooLarge)
			require.Less(s, s.cache.Stats().Bytes, uint64(1<<20))
		}),

		over("header fields of an error count against MaxEntryBytes", func(s *site) {
			g := s.growing("negative")
			g.bytes.Store(tooWide)
			g.status = 404
			for range 2 {
				g.whole(s.get("/p/1")).says(tooLarge)
			}
		}),

		within("waiting requests each run a response with too large a header", func(s *site) {
			g := s.growing("hour")
			g.bytes.Store(tooWide)
			g.hold = s.gate()
			all := s.starts(10, "GET", "/p/1")
			s.waiting(9)
			g.hold.open()
			for _, a := range all {
				g.whole(a.answer()).says(tooLarge)
			}
			require.EqualValues(s, 10, g.runs.Load())
		}),

		within("a renewal whose fields make a response too large does not store it", func(s *site) {
			g := s.growing("minute")
			g.etag = `"v1"`
			g.whole(s.get("/p/1")).says("Larder; fwd=uri-miss; stored")
			time.Sleep(2 * time.Minute)
			g.bytes.Store(tooWide)
			g.whole(s.get("/p/1")).says("Larder; fwd=stale; fwd-status=304; detail=too-large")
			g.whole(s.get("/p/1")).says(tooLarge)
		}),

		within("a HEAD whose fields make a response too large removes it", func(s *site) {
			g := s.growing("hour")
			g.etag = `"v1"`
			g.whole(s.get("/p/1")).says("Larder; fwd=uri-miss; stored")
			g.bytes.Store(tooWide)
			require.Equal(s, 200, s.do("HEAD", "/p/1", "Cache-Control: no-cache").status)
			g.whole(s.get("/p/1")).says(tooLarge)
		}),

		within("a refresh whose fields are too large stores nothing", func(s *site) {
			g := s.growing("stale")
			g.whole(s.get("/p/1")).says("Larder; fwd=uri-miss; stored")
			time.Sleep(90 * time.Second)
			g.bytes.Store(tooWide)
			require.Empty(s, s.get("/p/1").isHit().header["X-Large"])
			s.settles(func() bool { return g.runs.Load() == 2 }, "the refresh has run")
			require.Empty(s, s.get("/p/1").isHit().header["X-Large"])
			time.Sleep(time.Minute)
			g.whole(s.get("/p/1")).says(tooLarge)
		}),

		over("warming stores no response with too large a header", func(s *site) {
			g := s.growing("only-if-cached")
			g.bytes.Store(tooWide)
			s.get("/p/2") // the app is there
			_, err := s.srv.(Warmer).Warm(s.Context(), slices.Values([]string{"http://" + origin + "/p/1"}), core.WarmOptions{})
			require.NoError(s, err)
			s.get("/p/1", "Cache-Control: only-if-cached").says("Larder; detail=only-if-cached")
		}, noWarmer),

		within("a response with too large a header is not sent to the tier", func(s *site) {
			server := memtier.New(memtier.Config{})
			s.Cleanup(server.Close)
			s.open(core.Options{Classes: classes(), Remote: server.Tier("a")})
			g := s.growing("only-if-cached")
			g.bytes.Store(tooWide)
			g.whole(s.get("/p/1")).says(tooLarge)
			s.get("/p/1", "Cache-Control: only-if-cached").says("Larder; detail=only-if-cached")
			g.bytes.Store(wide)
			g.whole(s.get("/p/2")).says("Larder; fwd=uri-miss; stored")
		}),
	}
}
