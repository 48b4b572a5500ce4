package adaptertest

import (
	"fmt"
	"io"
	"strings"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
)

// Every answer of a cached route has a Cache-Status.
func cacheStatusCases() []testCase {
	return []testCase{
		over("an answer to a write on a cached route says that its method is not cached", func(s *site) {
			for path, h := range map[string]Handler{
				"/short": func(c Ctx) error { return c.Text(200, "short") },
				"/empty": func(c Ctx) error { c.Status(204); return nil },
				"/long":  func(c Ctx) error { return c.Text(200, strings.Repeat("x", 20_000)) },
				"/stream": func(c Ctx) error {
					return c.Stream(func(w io.Writer, flush func()) {
						_, _ = io.WriteString(w, "piece")
						flush()
						_, _ = io.WriteString(w, "piece")
					})
				},
				"/refused": func(c Ctx) error { return c.Text(422, "no") },
			} {
				s.handle("POST "+path, h, s.cached("hour"))
			}
			for _, path := range []string{"/short", "/empty", "/long", "/stream", "/refused"} {
				a := s.do("POST", path)
				require.NoError(s, a.err)
				require.Equal(s, "Larder; fwd=method", a.cacheStatus(), path)
			}
		}),

		over("an error of a write on a cached route has a Cache-Status", func(s *site) {
			s.handle("POST /p", func(Ctx) error { return s.f.Error(422) }, s.cached("hour"))
			a := s.do("POST", "/p")
			require.Equal(s, 422, a.status)
			require.Equal(s, "Larder; fwd=method", a.cacheStatus())
		}, noErrors),

		over("a handler that adds too many tags is told so", func(s *site) {
			p := &page{}
			s.handle("GET /p/{id}", func(c Ctx) error {
				for i := range core.MaxTagsPerEntry + 1 {
					if err := core.AddTags(c.Context(), fmt.Sprint("tag:", i)); err != nil {
						return c.Text(500, err.Error())
					}
				}
				return p.serve(c)
			}, s.cached("hour"))
			for _, body := range []string{"run 1", "run 2"} {
				s.get("/p/1").is(body).says("Larder; fwd=uri-miss; detail=too-many-tags")
			}
		}),
	}
}
