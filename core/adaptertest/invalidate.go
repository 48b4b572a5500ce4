package adaptertest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
)

// The promise "never stale after an invalidation".
func invalidateCases() []testCase {
	const base = "http://" + origin
	// named lists the targets that cover /p/1, whose tags are "p:1" and "catalog".
	named := []struct {
		name    string
		target  core.Target
		others  bool // /p/2 as well
		queries bool // /p/1?page=2 as well
	}{
		{"a tag", core.Tag("p:1"), false, true},
		{"a tag of many", core.Tag("catalog"), true, true},
		{"a path", core.Path("/p/1"), false, true},
		// Elsewhere: a purge by an absolute URL reported success and removed nothing.
		{"the path of an absolute URL", core.Path("https://elsewhere.example/p/1"), false, true},
		{"a path spelled otherwise", core.Path("/p/%31"), false, true},
		{"a URL as a key", core.Key(base + "/p/1"), false, true},
		{"a pattern", core.Pattern(base + "/[op]/1"), false, false},
		{"a pattern of many", core.Pattern(base + "/p/*"), true, true},
		{"everything", core.All(), true, true},
	}
	var cases []testCase
	for _, n := range named {
		cases = append(cases,
			over("an invalidation by "+n.name+" removes the entry, and nothing else", func(s *site) {
				p := &page{body: func(c Ctx, run int64) string { return fmt.Sprint(c.Target(), " run ", run) }}
				s.handle("GET /p/{id}", p.serve, s.cached("hour", "p:{id}", "catalog"))
				s.handle("GET /other", p.serve, s.cached("hour", "other"))
				gone := map[string]bool{"/p/1": true, "/p/1?page=2": n.queries, "/p/2": n.others, "/other": n.name == "everything"}
				bodies := map[string]string{}
				for target := range gone {
					bodies[target] = s.get(target).says("Larder; fwd=uri-miss; stored").body
				}
				s.invalidate(n.target)
				for target, gone := range gone {
					a := s.get(target)
					require.Equal(s, !gone, a.hit(), "%s: %s", target, a.cacheStatus())
					require.Equal(s, !gone, a.body == bodies[target])
					s.get(target).is(a.body).isHit()
				}
			}),

			// Elsewhere: a load that began before an invalidation, of everything above all, stored its value after it.
			within("a load from before an invalidation by "+n.name+" is not stored", func(s *site) {
				p := &page{hold: s.gate()}
				s.handle("GET /p/{id}", p.serve, s.cached("hour", "p:{id}", "catalog"))
				a := s.start("GET", "/p/1")
				s.settles(func() bool { return p.in.Load() == 1 }, "the load is under way")
				s.invalidate(n.target)
				p.hold.open()
				a.answer().is("run 1").says("Larder; fwd=uri-miss; detail=invalidated")
				s.get("/p/1").is("run 2").says("Larder; fwd=uri-miss; stored")
				s.get("/p/1").is("run 2").isHit()
			}),
		)
	}
	return append(cases, append(targetCases(), templateCases()...)...)
}

func targetCases() []testCase {
	return []testCase{
		// Elsewhere: an invalidation of /items left /items?page=1.
		over("a path covers every query, variant, host, scheme, class and user", func(s *site) {
			p := &page{fields: []string{"Vary: Accept-Language", "Cache-Control: public"}}
			s.handle("GET /items", p.serve, s.cached("hour"))
			secure := s.secured()
			ask := func() (hits, all int) {
				for _, r := range []request{
					{target: "/items"},
					{target: "/items?"},
					{target: "/items?page=1"},
					{target: "/items?page=2&sort=a"},
					{target: "/items", host: "other.example"},
					{target: "/items", fields: []string{"Accept-Language: de"}},
					{target: "/items", fields: []string{"Accept-Language: fr"}},
				} {
					r.method = "GET"
					for _, at := range []*site{s, secure} {
						all++
						if at.ask(r).hit() {
							hits++
						}
					}
				}
				return hits, all
			}
			hits, all := ask()
			require.Zero(s, hits)
			hits, _ = ask()
			require.Equal(s, all, hits)
			s.invalidate(core.Path("/items"))
			hits, _ = ask()
			require.Zero(s, hits)
		}),

		over("a path covers the entries of every identity", func(s *site) {
			p := &page{fields: []string{"Cache-Control: private"}}
			s.handle("GET /cart", p.serve, CachedRoute{Cached: Cached{s.cache, "hour", nil}, IdentityField: "X-User"})
			for _, user := range []string{"ann", "bob"} {
				s.get("/cart", "X-User: "+user).isNoHit()
				s.get("/cart", "X-User: "+user).isHit()
			}
			s.invalidate(core.Path("/cart"))
			for _, user := range []string{"ann", "bob"} {
				s.get("/cart", "X-User: "+user).isNoHit()
			}
		}),

		over("a refused invalidation has no effect", func(s *site) {
			p := &page{}
			s.handle("GET /p/{id}", p.serve, s.cached("hour", "p:{id}"))
			s.get("/p/1").is("run 1")
			for _, targets := range [][]core.Target{
				{core.Tag("p:1"), core.Tag("")},
				{core.Path("/p/1"), core.Path("p/1")},
				{core.Path("/p/1?page=1")},
				{core.All(), core.Tag("a\nb")},
				{},
			} {
				var bad *core.ConfigError
				require.ErrorAs(s, s.cache.Invalidate(context.Background(), targets...), &bad)
			}
			s.get("/p/1").is("run 1").isHit()
		}),

		// Rule R10: a tag that becomes known only as the handler answers.
		within("a load is not stored if its late tag was invalidated meanwhile", func(s *site) {
			p := &page{hold: s.gate(), body: func(c Ctx, run int64) string {
				if err := core.AddTags(c.Context(), "late"); err != nil {
					return err.Error()
				}
				return fmt.Sprint("run ", run)
			}}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			a := s.start("GET", "/p/1")
			s.settles(func() bool { return p.in.Load() == 1 }, "the load is under way")
			s.invalidate(core.Tag("late"))
			after := s.start("GET", "/p/1") // joins: that the load carries the tag is not known yet
			s.waiting(1)
			p.hold.open()
			a.answer().is("run 1").says("Larder; fwd=uri-miss; detail=invalidated")
			after.answer().is("run 2").says("Larder; fwd=uri-miss; stored")
		}),
	}
}

func templateCases() []testCase {
	hashed := func(v string) string {
		sum := sha256.Sum256([]byte(v))
		return "sha256-" + hex.EncodeToString(sum[:])
	}
	long := strings.Repeat("x", 300)
	cases := []testCase{
		over("middleware outside routing learns parameters from the handler's run", func(s *site) {
			p := &page{}
			s.app.Outside = []Use{s.cached("hour", "p:{id}")}
			s.handle("GET /p/{id}", p.serve)
			s.get("/p/1").is("run 1").says("Larder; fwd=uri-miss; stored")
			s.get("/p/2").is("run 2").says("Larder; fwd=uri-miss; stored")
			s.get("/p/1").is("run 1").isHit()
			s.invalidate(core.Tag("p:1"))
			s.get("/p/1").is("run 3").isNoHit()
			s.get("/p/2").is("run 2").isHit()
		}),

		over("a write outside routing is refused if its tags are not known first", func(s *site) {
			p := &page{}
			s.app.Outside = []Use{s.invalidates("p:{id}")}
			s.handle("PUT /p/{id}", p.serve)
			a := s.do("PUT", "/p/1")
			require.NoError(s, a.err)
			require.Equal(s, 500, a.status)
			require.Contains(s, a.body, "p:{id}")
			require.Zero(s, p.runs.Load())
		}, paramsOutside),

		over("a route with an unknown parameter in a tag is not cached, logged once", func(s *site) {
			p := &page{}
			s.handle("GET /p/{id}", p.serve, s.cached("hour", "p:{id}", "x:{nope}"))
			for i := range 3 {
				s.get("/p/1").is(fmt.Sprint("run ", i+1)).says("Larder; fwd=uri-miss; detail=missing-parameter")
			}
			require.Equal(s, 1, s.log.count("names a path parameter"))
		}),

		over("a write with an unknown parameter in a tag is refused", func(s *site) {
			p := &page{}
			s.handle("PUT /p/{id}", p.serve, s.invalidates("p:{id}", "x:{nope}"))
			a := s.do("PUT", "/p/1")
			require.NoError(s, a.err)
			require.Equal(s, 500, a.status)
			require.Contains(s, a.body, "x:{nope}")
			require.Zero(s, p.runs.Load())
		}),

		over("a tag that is too long by its parameters is hashed", func(s *site) {
			p := &page{}
			head, id := strings.Repeat("t", 1000), strings.Repeat("x", 100)
			s.handle("GET /p/{id}", p.serve, s.cached("hour", head+"{id}"))
			s.handle("PUT /w/{id}", p.serve, s.invalidates(head+"{id}"))
			s.get("/p/" + id).is("run 1").says("Larder; fwd=uri-miss; stored")
			s.get("/p/" + id).isHit()
			s.invalidate(core.Tag(hashed(head + id)))
			s.get("/p/" + id).is("run 2").isNoHit()
			s.do("PUT", "/w/"+id).is("run 3")
			s.get("/p/" + id).is("run 4").isNoHit()
		}),

		over("a tag can have several parameters in any order", func(s *site) {
			p := &page{}
			s.handle("GET /m/{a}/{b}", p.serve, s.cached("hour", "m:{b}:{a}:{b}"))
			s.get("/m/1/2").is("run 1")
			s.invalidate(core.Tag("m:1:2:1"))
			s.get("/m/1/2").is("run 1").isHit()
			s.invalidate(core.Tag("m:2:1:2"))
			s.get("/m/1/2").is("run 2").isNoHit()
		}),

		over("a wrong route fails when it is built", func(s *site) {
			none := Cached{nil, "hour", nil}
			for name, u := range map[string]Use{
				"no cache":               none,
				"no such class":          s.cached("nope"),
				"an empty tag":           s.cached("hour", ""),
				"an empty parameter":     s.cached("hour", "a:{}"),
				"an open brace":          s.cached("hour", "a:{id"),
				"a closing brace":        s.cached("hour", "a:id}"),
				"a control character":    s.cached("hour", "a\nb"),
				"a tag that is too long": s.cached("hour", strings.Repeat("x", 1025)),
				"a router's parameter":   s.cached("hour", "p::id"),
				"a router's path":        s.cached("hour", "/p/:id"),
				"only a parameter":       s.invalidates(":id"),
				"a pattern's suffix":     s.cached("hour", "p:{path...}"),
				"a pattern's end":        s.cached("hour", "p:{$}"),
				"too many tags":          s.cached("hour", strings.Split(strings.Repeat("t,", 33), ",")...),
				"a route without cache":  CachedRoute{Cached: none},
				"a route without class":  CachedRoute{Cached: Cached{s.cache, "nope", nil}},
				"a write without cache":  Invalidates{Tags: []string{"a"}},
				"a write without tags":   s.invalidates(),
				"a write with a bad tag": s.invalidates("a:{"),
			} {
				var got any
				func() {
					defer func() { got = recover() }()
					app := App{Routes: []Route{{"GET", "/p/{id}", []Use{u}, (&page{}).serve}}}
					_ = s.f.New(s, app)
				}()
				err, _ := got.(error)
				var bad *core.ConfigError
				require.ErrorAs(s, err, &bad, name)
				require.NotEmpty(s, bad.Field)
				require.NotEmpty(s, bad.Allowed)
			}
		}),
	}
	for _, c := range []struct {
		name, path, tag string
		unless          []flag
	}{
		{"plain", "/p/42", "p:42", nil},
		{"with an escaped space", "/p/a%20b", "p:a b", nil},
		{"with a plus", "/p/a+b", "p:a+b", nil},
		{"with an escaped slash", "/p/a%2Fb", "p:a/b", []flag{noEscapedSlash}},
		{"escaped twice: it is decoded once", "/p/a%2520b", "p:a%20b", nil},
		{"with letters beyond ASCII", "/p/%C3%A4%E2%82%AC", "p:ä€", nil},
		{"with braces", "/p/%7Bid%7D", "p:{id}", nil},
		{"with a colon and a semicolon", "/p/a:b;c", "p:a:b;c", nil},
		{"that is long, hashed", "/p/" + long, "p:" + hashed(long), nil},
		{"with a control character, hashed", "/p/a%0Ab", "p:" + hashed("a\nb"), nil},
		{"of a wildcard", "/f/a/b/c.txt", "f:a/b/c.txt", nil},
		{"of a wildcard, escaped", "/f/a%20b/c", "f:a b/c", nil},
	} {
		cases = append(cases, over("a tag's parameter "+c.name, func(s *site) {
			p := &page{}
			s.handle("GET /p/{id}", p.serve, s.cached("hour", "p:{id}"))
			s.handle("GET /f/{rest...}", p.serve, s.cached("hour", "f:{*}"))
			s.handle("PUT /p/{id}", p.serve, s.invalidates("view:p:{id}"))
			s.handle("PUT /f/{rest...}", p.serve, s.invalidates("view:f:{*}"))
			s.handle("GET /view", func(ctx Ctx) error {
				if err := core.AddTags(ctx.Context(), "view:"+c.tag); err != nil {
					return ctx.Text(500, err.Error())
				}
				return p.serve(ctx)
			}, s.cached("hour"))

			s.get(c.path).is("run 1").says("Larder; fwd=uri-miss; stored")
			s.invalidate(core.Tag(c.tag + "x"))
			s.get(c.path).is("run 1").isHit()
			s.invalidate(core.Tag(c.tag))
			s.get(c.path).is("run 2").isNoHit()

			s.get("/view").is("run 3").says("Larder; fwd=uri-miss; stored")
			s.get("/view").is("run 3").isHit()
			s.do("PUT", c.path).is("run 4")
			s.get("/view").is("run 5").isNoHit()
		}, c.unless...))
	}
	return cases
}
