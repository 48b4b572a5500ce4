package adaptertest

import (
	"crypto/sha256"
	"fmt"
	"net/url"
	"strings"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
)

// personal is a route that answers each user of the field X-User differently.
func (s *site) personal(class string, tags ...string) Use {
	return CachedPerUser{Cached: Cached{s.cache, class, tags}, IdentityField: "X-User"}
}

// writesFor invalidates the tags of the user of the field X-User.
func (s *site) writesFor(tags ...string) Use {
	return Invalidates{Cache: s.cache, Tags: tags, IdentityField: "X-User"}
}

// Per-user routes, and the identity in tags.
func perUserCases() []testCase {
	cases := []testCase{
		over("a write for one user invalidates that user's responses", func(s *site) {
			p := &page{body: says("X-User"), fields: []string{"Cache-Control: private, max-age=60"}}
			s.handle("GET /cart", p.serve, s.personal("hour", "cart:{identity}"))
			s.handle("POST /cart/items", p.serve, s.writesFor("cart:{identity}"))
			ann := s.get("/cart", "X-User: ann", "Authorization: a", "Cookie: s=a").says("Larder; fwd=uri-miss; stored")
			bob := s.get("/cart", "X-User: bob", "Authorization: b").says("Larder; fwd=uri-miss; stored")

			s.do("POST", "/cart/items", "X-User: ann", "Authorization: a")

			s.get("/cart", "X-User: bob", "Authorization: b").is(bob.body).isHit()
			require.NotEqual(s, ann.body, s.get("/cart", "X-User: ann", "Authorization: a").says("Larder; fwd=uri-miss; stored").body)
			require.NoError(s, s.cache.Invalidate(s.Context(), core.Tag("cart:bob")))
			require.NotEqual(s, bob.body, s.get("/cart", "X-User: bob").isNoHit().body)
		}),

		over("an unsafe request on a per-user route invalidates that user's tags", func(s *site) {
			p := &page{body: says("X-User")}
			for _, method := range []string{"GET", "DELETE"} {
				s.handle(method+" /cart/{id}", p.serve, s.personal("hour", "cart:{identity}"))
			}
			for _, user := range []string{"ann", "bob"} {
				s.get("/cart/1", "X-User: "+user).says("Larder; fwd=uri-miss; stored")
			}
			s.do("DELETE", "/cart/2", "X-User: ann")
			s.get("/cart/1", "X-User: bob").isHit()
			s.get("/cart/1", "X-User: ann").isNoHit()
		}),

		over("clients without a login share one identity", func(s *site) {
			p := &page{body: says("X-User")}
			s.handle("GET /start", p.serve, s.personal("hour", "start:{identity}"))
			s.get("/start").is("X-User [] run 1").says("Larder; fwd=uri-miss; stored")
			s.get("/start").is("X-User [] run 1").isHit()
			s.get("/start", "X-User: ann", "Authorization: a").says("Larder; fwd=uri-miss; stored")
			s.invalidate(core.Tag("start:"))
			s.get("/start").is("X-User [] run 3").isNoHit()
		}),

		over("credentials with an empty identity are a bypass, logged once", func(s *site) {
			p := &page{body: says("X-User")}
			s.handle("GET /cart", p.serve, s.personal("hour", "cart:{identity}"))
			s.get("/cart").is("X-User [] run 1").says("Larder; fwd=uri-miss; stored")
			for _, credential := range []string{"Authorization: a", "Cookie: session=a", "X-Api-Key: a"} {
				for _, fields := range [][]string{{credential}, {credential, "X-User: 0"}, {credential, "X-User: <nil>"}} {
					s.get("/cart", fields...).says("Larder; fwd=bypass; detail=empty-identity")
				}
			}
			require.EqualValues(s, 10, p.runs.Load())
			s.get("/cart").is("X-User [] run 1").isHit()
			require.Equal(s, 1, s.log.count("Identity returned no user"))
		}),

		over("credentials without an identity are logged once", func(s *site) {
			p := &page{}
			s.handle("GET /cart", p.serve, CachedRoute{Cached: Cached{s.cache, "hour", nil}, IdentityField: "X-User"})
			s.get("/cart").says("Larder; fwd=bypass; detail=no-identity")
			require.Zero(s, s.log.count("Identity returned no user"))
			for range 2 {
				s.get("/cart", "Authorization: a").says("Larder; fwd=bypass; detail=no-identity")
			}
			require.Equal(s, 1, s.log.count("Identity returned no user"))
		}),

		over("cookies that the class names leave an empty identity shared", func(s *site) {
			p := &page{body: says("X-User")}
			s.handle("GET /start", p.serve, s.personal("theme-cookie"))
			s.get("/start", "Cookie: theme=dark; analytics=1").says("Larder; fwd=uri-miss; stored")
			s.get("/start", "Cookie: theme=dark; analytics=2").isHit()
		}),

		over("a write without a user runs and invalidates the other tags", func(s *site) {
			p := &page{}
			s.handle("GET /cart", p.serve, s.personal("hour", "cart:{identity}", "carts"))
			s.handle("POST /cart/items", p.serve, s.writesFor("cart:{identity}", "carts"))
			s.handle("GET /unsubscribe", p.serve, s.writesFor("cart:{identity}"))
			s.get("/cart", "X-User: ann").is("run 1")

			require.Equal(s, 200, s.get("/unsubscribe").status)
			s.get("/cart", "X-User: ann").is("run 1").isHit()
			require.Equal(s, 200, s.do("POST", "/cart/items").status)

			s.get("/cart", "X-User: ann").is("run 4").isNoHit()
			require.Equal(s, 1, s.log.count("a write has succeeded for which Identity returned no user"))
		}),

		over("a write learns its user from authentication behind the cache", func(s *site) {
			p := &page{}
			can := true
			authentication := Around(func(c Ctx, next func() error) error {
				r, ok := c.(RequestSetter)
				if can = ok; ok {
					r.SetRequest("X-User", "ann")
				}
				return next()
			})
			s.handle("GET /cart", p.serve, s.personal("hour", "cart:{identity}"))
			s.handle("POST /cart/items", p.serve, s.writesFor("cart:{identity}"), authentication)
			s.get("/cart", "X-User: ann").is("run 1")
			s.do("POST", "/cart/items", "Authorization: a").is("run 2")
			if !can {
				s.Skip("its Ctx is no RequestSetter")
			}
			s.get("/cart", "X-User: ann").is("run 3").isNoHit()
		}),

		over("a user in braces that the route lacks is refused with the remedy", func(s *site) {
			p := &page{}
			s.handle("GET /cart", p.serve, s.personal("hour", "cart:{user}"))
			s.handle("POST /cart/items", p.serve, s.writesFor("cart:{identity}", "cart:{user}"))
			s.get("/cart", "X-User: ann").says("Larder; fwd=uri-miss; detail=missing-parameter")
			a := s.do("POST", "/cart/items", "X-User: ann")
			require.Equal(s, 500, a.status)
			require.Contains(s, a.body, "{identity}")
			require.Equal(s, 1, s.log.count("a route is not cached: its tag names a path parameter"))
			require.Equal(s, 1, s.log.count("a write is refused: a tag of its route names a path parameter"))
		}),

		over("a wrong per-user route fails when it is built", func(s *site) {
			for name, u := range map[string]Use{
				"an identity in a shared route":            s.cached("hour", "cart:{identity}"),
				"an identity in a write of all users":      s.invalidates("cart:{identity}"),
				"an identity in a route with a path":       CachedRoute{Cached: Cached{s.cache, "hour", []string{"cart:{identity}"}}},
				"a write whose identity no tag names":      s.writesFor("cart:{user}"),
				"an identity beside another parameter":     s.personal("hour", "cart:{identity}{id}"),
				"an identity behind another parameter":     s.personal("hour", "cart:{id}-{identity}"),
				"an identity with a letter as a separator": s.personal("hour", "{identity}x{id}"),
			} {
				var got any
				func() {
					defer func() { got = recover() }()
					_ = s.f.New(s, App{Routes: []Route{{"GET", "/p/{id}", []Use{u}, (&page{}).serve}}})
				}()
				err, _ := got.(error)
				var bad *core.ConfigError
				require.ErrorAs(s, err, &bad, name)
				require.Contains(s, bad.Allowed, "{identity}", name)
			}
		}),
	}
	return append(cases, identityInTagCases()...)
}

// No identity forms the tag of another one.
func identityInTagCases() (cases []testCase) {
	long := strings.Repeat("x", 200)
	sum := fmt.Sprintf("%x", sha256.Sum256([]byte(long)))
	for _, c := range []struct{ name, identity, tag string }{
		{"plain", "ann-1_2.3~4", "u:ann-1_2.3~4:42"},
		{"with a separator", "ann:42", "u:ann%3A42:42"},
		{"with an address", "ann@example.com", "u:" + url.QueryEscape("ann@example.com") + ":42"},
		{"with an escape", "ann%3A42", "u:ann%253A42:42"},
		{"with a space and a slash", "a b/c", "u:a+b%2Fc:42"},
		{"that is long, hashed", long, "u:sha256=" + sum + ":42"},
		{"as a hash is written", "sha256=" + sum, "u:sha256%3D" + sum + ":42"},
	} {
		cases = append(cases, over("an identity in a tag "+c.name, func(s *site) {
			p := &page{}
			s.handle("GET /p/{id}", p.serve, s.personal("hour", "u:{identity}:{id}"))
			s.handle("PUT /w/{id}", p.serve, s.writesFor("u:{identity}:{id}"))
			s.get("/p/42", "X-User: "+c.identity).is("run 1").says("Larder; fwd=uri-miss; stored")
			s.do("PUT", "/w/42", "X-User: another").is("run 2")
			s.get("/p/42", "X-User: "+c.identity).is("run 1").isHit()
			s.invalidate(core.Tag(c.tag))
			s.get("/p/42", "X-User: "+c.identity).is("run 3").isNoHit()
			s.do("PUT", "/w/42", "X-User: "+c.identity).is("run 4")
			s.get("/p/42", "X-User: "+c.identity).is("run 5").isNoHit()
		}))
	}
	return cases
}
