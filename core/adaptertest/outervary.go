package adaptertest

import (
	"fmt"
	"strings"

	"github.com/stretchr/testify/require"
)

// The Vary of outer middleware concerns the fields that it sets itself.
func outerVaryCases() []testCase {
	cors := func(always bool) Use {
		return Around(func(c Ctx, next func() error) error {
			o := c.Values("Origin")
			if always || len(o) > 0 {
				c.Add("Vary", "Origin")
			}
			if len(o) > 0 {
				c.Set("Access-Control-Allow-Origin", o[0])
			}
			return next()
		})
	}
	varies := func(names string) Use {
		return Around(func(c Ctx, next func() error) error {
			c.Add("Vary", names)
			return next()
		})
	}
	return []testCase{
		over("origins share a response behind CORS middleware", func(s *site) {
			for _, always := range []bool{true, false} {
				s := newSite(s.TB, s.f, s.by)
				p := &page{fields: []string{"Vary: Accept"}}
				s.handle("GET /p/{id}", p.serve, cors(always), s.cached("hour"))
				for i := range 80 {
					origin := fmt.Sprint("https://", i%40, ".example")
					a := s.get("/p/1", "Origin: "+origin).is("run 1")
					require.Equal(s, i > 0, a.hit())
					require.Equal(s, origin, a.header.Get("Access-Control-Allow-Origin"))
					require.Equal(s, "Origin, Accept", strings.Join(a.header.Values("Vary"), ", "))
				}
				a := s.get("/p/1").is("run 1").isHit()
				require.Equal(s, always, strings.Contains(strings.Join(a.header.Values("Vary"), ","), "Origin"))
				s.get("/p/1", "Accept: text/html").is("run 2").isNoHit()
			}
		}),

		over("lists of outer middleware and handler are merged on a hit", func(s *site) {
			for name, handlers := range map[string]string{
				"Vary": "Accept", "Link": "</a.css>; rel=preload", "Server-Timing": "db;dur=1", "Access-Control-Expose-Headers": "X-Total", "Via": "1.1 a",
			} {
				s := newSite(s.TB, s.f, s.by)
				p := &page{fields: []string{name + ": " + handlers}}
				s.handle("GET /p/{id}", p.serve, Around(func(c Ctx, next func() error) error {
					if v := c.Values("X-Outer"); len(v) > 0 {
						c.Add(name, v[0])
					}
					return next()
				}), s.cached("hour"))
				s.get("/p/1").is("run 1")
				for _, c := range []struct{ outer, want string }{
					{"Origin", "Origin|" + handlers}, {"Other", "Other|" + handlers}, {"", handlers}, {handlers, handlers},
				} {
					var fields []string
					if c.outer != "" {
						fields = []string{"X-Outer: " + c.outer}
					}
					a := s.get("/p/1", fields...).is("run 1").isHit()
					require.Equal(s, c.want, strings.Join(a.header.Values(name), "|"), name)
				}
			}
		}),

		over("a handler that appends to an outer Vary keeps its own names", func(s *site) {
			p := &page{body: func(c Ctx, run int64) string {
				joined := "Accept"
				if len(c.Values("Origin")) > 0 {
					joined = "Origin, Accept"
				}
				c.Set("Vary", joined)
				return fmt.Sprint("run ", run)
			}}
			s.handle("GET /p/{id}", p.serve, cors(false), s.cached("hour"))
			s.get("/p/1", "Origin: https://a.example").is("run 1")
			a := s.get("/p/1", "Origin: https://b.example").is("run 1").isHit()
			require.Equal(s, "Origin, Accept", strings.Join(a.header.Values("Vary"), ", "))
		}),

		over("cookies that do not matter share a response behind a session", func(s *site) {
			p := &page{}
			s.handle("GET /p/{id}", p.serve, varies("Cookie"), s.cached("no-cookie"))
			for i := range 60 {
				a := s.get("/p/1", fmt.Sprint("Cookie: _ga=", i)).is("run 1")
				require.Equal(s, []string{"Cookie"}, a.header.Values("Vary"))
			}
		}),

		over("spellings of Accept-Encoding share a response behind a compressor", func(s *site) {
			p := &page{}
			s.handle("GET /p/{id}", p.serve, varies("Accept-Encoding"), s.cached("hour"))
			for _, v := range []string{"gzip", "gzip, br", "br", "deflate, gzip", "*", "identity"} {
				s.get("/p/1", "Accept-Encoding: "+v).is("run 1")
			}
		}),

		over("a handler's Vary counts where outer middleware sets it as well", func(s *site) {
			p := &page{fields: []string{"Vary: Origin"}, body: says("Origin")}
			s.handle("GET /p/{id}", p.serve, cors(true), s.cached("hour"))
			a := s.get("/p/1", "Origin: https://a.example").is(`Origin ["https://a.example"] run 1`)
			require.Equal(s, "Origin, Origin", strings.Join(a.header.Values("Vary"), ", "))
			s.get("/p/1", "Origin: https://b.example").is(`Origin ["https://b.example"] run 2`)
			s.get("/p/1", "Origin: https://a.example").is(`Origin ["https://a.example"] run 1`).isHit()
		}),

		// The handler's content depends on the field, and the handler leaves the Vary to the
		// middleware.
		over("a field that outer middleware chooses content by is a variant", func(s *site) {
			p := &page{body: says("Accept-Language")}
			s.handle("GET /p/{id}", p.serve, varies("Accept-Language, Origin"), s.cached("hour"))
			s.get("/p/1", "Accept-Language: en").is(`Accept-Language ["en"] run 1`)
			s.get("/p/1", "Accept-Language: de", "Origin: https://a.example").is(`Accept-Language ["de"] run 2`)
			a := s.get("/p/1", "Accept-Language: en", "Origin: https://a.example").is(`Accept-Language ["en"] run 1`).isHit()
			require.Equal(s, []string{"Accept-Language, Origin"}, a.header.Values("Vary"))
		}),

		over("nothing is stored behind middleware that sets Vary: *", func(s *site) {
			s.handle("GET /p/{id}", (&page{}).serve, varies("*"), s.cached("hour"))
			s.get("/p/1").says("Larder; fwd=uri-miss; detail=vary-star")
		}),
	}
}
