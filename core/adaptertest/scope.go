package adaptertest

import (
	"context"
	"fmt"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
)

// The context functions in handlers, with the request's context and with the framework's.
func scopeCases() []testCase {
	var cases []testCase
	for _, by := range []struct {
		name   string
		of     func(c Ctx) context.Context
		unless []flag
	}{
		{"the request's context", func(c Ctx) context.Context { return c.Context() }, nil},
		{"the framework's own context", func(c Ctx) context.Context { return c.Native() }, nil},
	} {
		// handler calls say once per run and answers its error.
		handler := func(s *site, p *page, say func(ctx context.Context) error) Handler {
			return func(c Ctx) error {
				ctx := by.of(c)
				if ctx == nil {
					return c.Text(200, "no such context")
				}
				if err := say(ctx); err != nil {
					return c.Text(500, err.Error())
				}
				return p.serve(c)
			}
		}
		absent := func(s *site, a answer) answer {
			if a.body == "no such context" {
				s.Skip(s.f.Name + " has no context of its own")
			}
			return a
		}
		cases = append(cases,
			over("AddTags by "+by.name, func(s *site) {
				p := &page{}
				s.handle("GET /p/{id}", handler(s, p, func(ctx context.Context) error {
					return core.AddTags(ctx, fmt.Sprint("run:", p.runs.Load()+1), "added")
				}), s.cached("hour"))
				absent(s, s.get("/p/1")).is("run 1").says("Larder; fwd=uri-miss; stored")
				s.invalidate(core.Tag("run:2"))
				s.get("/p/1").is("run 1").isHit()
				s.invalidate(core.Tag("run:1"))
				s.get("/p/1").is("run 2").isNoHit()
				s.invalidate(core.Tag("added"))
				s.get("/p/1").is("run 3").isNoHit()
			}),
			within("SetTTL by "+by.name, func(s *site) {
				p := &page{fields: []string{"Cache-Control: max-age=100"}}
				ttl := 5 * time.Second
				s.handle("GET /p/{id}", handler(s, p, func(ctx context.Context) error { return core.SetTTL(ctx, ttl) }), s.cached("hour"))
				absent(s, s.get("/p/1")).is("run 1").says("Larder; fwd=uri-miss; stored")
				time.Sleep(5*time.Second - time.Nanosecond)
				s.get("/p/1").is("run 1").isHit()
				time.Sleep(time.Nanosecond)
				s.get("/p/1").is("run 2").isNoHit()
				ttl = 0
				s.get("/p/2").is("run 3").says("Larder; fwd=uri-miss; detail=handler-said-no-store")
				s.get("/p/2").is("run 4").isNoHit()
			}),
			over("NoStore by "+by.name, func(s *site) {
				p := &page{}
				s.handle("GET /p/{id}", handler(s, p, core.NoStore), s.cached("hour"))
				absent(s, s.get("/p/1")).is("run 1").says("Larder; fwd=uri-miss; detail=handler-said-no-store")
				s.get("/p/1").is("run 2").says("Larder; fwd=uri-miss; detail=handler-said-no-store")
			}),
			over("Invalidate by "+by.name+", in a write", func(s *site) {
				db := &row{}
				p := &page{}
				s.handle("GET /p/{id}", db.read, s.cached("hour", "p:{id}"))
				s.handle("POST /p", handler(s, p, func(ctx context.Context) error {
					s.get("/p/1").is("value 0").isHit()
					if err := core.Invalidate(ctx, core.Tag("p:1")); err != nil {
						return err
					}
					s.get("/p/1").is("value 0").isNoHit() // at once,
					db.value.Add(1)
					return nil
				}), s.invalidates("list"))
				s.get("/p/1").is("value 0")
				absent(s, s.do("POST", "/p")).is("run 1")
				s.get("/p/1").is("value 1").isNoHit() // and again at the end
			}),
			over("Invalidate by "+by.name+", in a cached handler", func(s *site) {
				db, p := &row{}, &page{}
				s.handle("GET /p/{id}", db.read, s.cached("hour", "p:{id}"))
				s.handle("GET /other", handler(s, p, func(ctx context.Context) error { return core.Invalidate(ctx, core.Tag("p:1")) }), s.cached("hour"))
				s.get("/p/1").is("value 0")
				s.get("/p/1").isHit()
				absent(s, s.get("/other")).is("run 1").says("Larder; fwd=uri-miss; stored")
				s.get("/p/1").isNoHit()
			}),
		)
	}
	return append(cases,
		over("SetTTL wins over the class and the response", func(s *site) {
			p := &page{began: func(c Ctx) { require.NoError(s, core.SetTTL(c.Context(), time.Minute)) }}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			s.handle("GET /none/{id}", p.serve, s.cached(""))
			for i, c := range []struct{ path, field string }{
				{"/p/", "X-A: 1"},
				{"/p/", "Cache-Control: max-age=10"},
				{"/p/", "Cache-Control: max-age=0"},
				{"/p/", "Expires: 0"},
				{"/none/", "X-A: 1"},
			} {
				p.fields = []string{c.field}
				path := fmt.Sprint(c.path, i)
				s.get(path).says("Larder; fwd=uri-miss; stored")
				require.Contains(s, []string{"Larder; hit; ttl=59", "Larder; hit; ttl=60"}, s.get(path).cacheStatus())
			}
		}),

		over("a response with more tags than an entry can carry is not stored", func(s *site) {
			p := &page{began: func(c Ctx) {
				for i := range core.MaxTagsPerEntry + 1 {
					if err := core.AddTags(c.Context(), fmt.Sprint("t", i)); err != nil {
						panic(err)
					}
				}
			}}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			for range 2 {
				s.get("/p/1").says("Larder; fwd=uri-miss; detail=too-many-tags")
			}
		}),

		over("a response whose tag is refused is not stored", func(s *site) {
			p := &page{began: func(c Ctx) {
				var bad *core.ConfigError
				require.ErrorAs(s, core.AddTags(c.Context(), "a\nb"), &bad)
			}}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			for range 2 {
				s.get("/p/1").is(fmt.Sprint("run ", p.runs.Load())).says("Larder; fwd=uri-miss; detail=handler-said-no-store")
			}
		}),

		over("outside cached and invalidating routes the calls do nothing", func(s *site) {
			s.handle("GET /bare", func(c Ctx) error {
				for _, err := range []error{
					core.AddTags(c.Context(), "a"), core.SetTTL(c.Context(), time.Second), core.NoStore(c.Context()),
					core.Invalidate(c.Context(), core.All()),
				} {
					if err != core.ErrNoScope { //nolint:errorlint // the very one
						return c.Text(500, fmt.Sprint(err))
					}
				}
				return c.Text(200, "nothing")
			})
			s.get("/bare").is("nothing")
		}),

		over("a handler has the values of outer middleware's context", func(s *site) {
			type key struct{}
			s.handle("GET /p/{id}", func(c Ctx) error { return c.Text(200, fmt.Sprint(c.Context().Value(key{}))) },
				Around(func(c Ctx, next func() error) error {
					c.SetContext(context.WithValue(c.Context(), key{}, "value"))
					return next()
				}), s.cached("hour"))
			s.get("/p/1").is("value")
		}),
	)
}

// A disabled cache, and a closed one.
func switchCases() []testCase {
	return []testCase{
		over("a disabled cache passes requests and stores nothing", func(s *site) {
			p := &page{}
			s.handle("GET /p/{id}", p.serve, s.cached("hour", "p:{id}"))
			s.get("/p/1").is("run 1")
			s.cache.SetEnabled(false)
			a := s.get("/p/1").is("run 2").says("Larder; fwd=bypass; detail=disabled")
			require.Empty(s, a.header.Values("Age"))
			s.get("/p/2").is("run 3").says("Larder; fwd=bypass; detail=disabled")
			s.cache.SetEnabled(true)
			s.get("/p/1").is("run 1").isHit()
			s.get("/p/2").is("run 4").says("Larder; fwd=uri-miss; stored")
		}),

		over("a disabled cache still invalidates", func(s *site) {
			db := &row{}
			s.handle("GET /p/{id}", db.read, s.cached("hour", "p:{id}"))
			s.handle("PUT /p/{id}", db.write, s.invalidates("p:{id}"))
			s.get("/p/1").is("value 0")
			s.cache.SetEnabled(false)
			s.do("PUT", "/p/1").is("wrote 1")
			s.cache.SetEnabled(true)
			s.get("/p/1").is("value 1").isNoHit()
		}),

		over("a write through a cached route of a disabled cache invalidates", func(s *site) {
			db := &row{}
			s.handle("GET /p/{id}", db.read, s.cached("hour", "p:{id}"))
			s.handle("PUT /p/{id}", db.write, s.cached("hour", "p:{id}"))
			s.get("/p/1").is("value 0")
			s.cache.SetEnabled(false)
			s.do("PUT", "/p/1").is("wrote 1")
			s.cache.SetEnabled(true)
			s.get("/p/1").is("value 1").isNoHit()
		}),

		within("a load under way when the cache is disabled is not stored", func(s *site) {
			p := &page{hold: s.gate()}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			all := s.starts(3, "GET", "/p/1")
			s.waiting(2)
			s.cache.SetEnabled(false)
			p.hold.open()
			for _, a := range all {
				a.answer().is("run 1")
			}
		}),

		over("with a closed cache handlers answer as without a cache", func(s *site) {
			db := &row{}
			s.handle("GET /p/{id}", db.read, s.cached("hour", "p:{id}"))
			s.handle("PUT /p/{id}", db.write, s.invalidates("p:{id}"))
			s.handle("POST /p/{id}", db.write, s.cached("hour"))
			s.get("/p/1").is("value 0")
			require.NoError(s, s.cache.Close())
			s.do("PUT", "/p/1").is("wrote 1")
			s.get("/p/1").is("value 1").says("")
			s.do("POST", "/p/1").is("wrote 2")
			s.get("/p/1").is("value 2").says("")
		}),

		within("a cache that is closed while requests wait lets them end", func(s *site) {
			p := &page{hold: s.gate()}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			all := s.starts(3, "GET", "/p/1")
			s.waiting(2)
			require.NoError(s, s.cache.Close())
			p.hold.open()
			for _, a := range all {
				a.answer().is("run 1")
			}
			require.Zero(s, s.cache.Stats().Stored, "a closed cache has stored")
			s.get("/p/1").is("run 2").says("")
		}),
	}
}
