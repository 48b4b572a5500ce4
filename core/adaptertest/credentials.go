package adaptertest

import (
	"fmt"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
)

// Request fields and certificates that count as Authorization does (RFC 9111 section 3.5).
func credentialCases() []testCase {
	return []testCase{
		over("a response to a well-known credential is neither stored nor shared", func(s *site) {
			p := &page{}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			for i, name := range core.CredentialFields() {
				if name == core.ClientCertificate {
					continue
				}
				path := fmt.Sprint("/p/", i)
				one := s.get(path, name+": a")
				require.Contains(s, one.cacheStatus(), "; detail=", name)
				two := s.get(path, name+": b").isNoHit()
				none := s.get(path).says("Larder; fwd=uri-miss; stored")
				three := s.get(path, name+": b").isNoHit()
				require.Len(s, map[string]bool{one.body: true, two.body: true, none.body: true, three.body: true}, 4, name)
				s.get(path).is(none.body).isHit()
			}
			s.get("/p/x", "X-Api-Key: a").says("Larder; fwd=uri-miss; detail=x-api-key")
			s.get("/p/y", "x-api-key: a").says("Larder; fwd=uri-miss; detail=x-api-key")
			s.get("/p/z", "X-Api-Key: a", "Authorization: b").says("Larder; fwd=uri-miss; detail=authorization")
		}),

		within("requests with different API keys get a response each", func(s *site) {
			const users = 6
			p := &page{hold: s.gate(), body: says("X-Api-Key")}
			s.handle("GET /me", p.serve, s.cached("hour"))
			var all []*pending
			for i := range users {
				all = append(all, s.start("GET", "/me", fmt.Sprint("X-Api-Key: ", i)))
			}
			s.waiting(users - 1)
			p.hold.open()
			for i, a := range all {
				require.Contains(s, a.answer().says("Larder; fwd=uri-miss; detail=x-api-key").body, fmt.Sprintf("[%q]", fmt.Sprint(i)))
			}
		}),

		over("a response to an API key is stored if it is marked public", func(s *site) {
			p := &page{}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			for i, cc := range []string{"public", "s-maxage=60", "must-revalidate"} {
				path := fmt.Sprint("/p/", i)
				p.fields = []string{"Cache-Control: " + cc}
				a := s.get(path, "X-Api-Key: a").says("Larder; fwd=uri-miss; stored")
				s.get(path, "X-Api-Key: b").is(a.body).isHit()
				s.get(path).is(a.body).isHit()
			}
			p.fields = []string{"Cache-Control: max-age=60"}
			s.get("/p/4", "X-Api-Key: a").says("Larder; fwd=uri-miss; detail=x-api-key")
		}),

		over("an API key that the class names is part of the identity", func(s *site) {
			p := &page{body: says("X-Api-Key")}
			s.handle("GET /p/{id}", p.serve, s.cached("by-key"))
			a := s.get("/p/1", "X-Api-Key: a").says("Larder; fwd=uri-miss; stored")
			b := s.get("/p/1", "X-Api-Key: b").says("Larder; fwd=uri-miss; stored")
			require.NotEqual(s, a.body, b.body)
			s.get("/p/1", "X-Api-Key: a").is(a.body).isHit()
			s.get("/p/1", "X-Api-Key: a", "Private-Token: t").says("Larder; fwd=uri-miss; detail=private-token")
		}),

		over("a class says which fields are credentials", func(s *site) {
			p := &page{}
			s.handle("GET /own/{id}", p.serve, s.cached("own-credential"))
			s.handle("GET /none/{id}", p.serve, s.cached("no-credentials"))
			s.get("/own/1", "X-Tenant-Token: a").says("Larder; fwd=uri-miss; detail=x-tenant-token")
			s.get("/own/1", "X-Api-Key: a").says("Larder; fwd=uri-miss; stored")
			s.get("/own/1", "X-Api-Key: b").isHit()
			s.get("/none/1", "X-Api-Key: a", "Dpop: b").says("Larder; fwd=uri-miss; stored")
			s.get("/none/1").isHit()
			s.get("/none/2", "Authorization: a").says("Larder; fwd=uri-miss; detail=authorization")
		}),

		over("an identity function takes the place of API keys", func(s *site) {
			p := &page{body: says("X-User")}
			s.handle("GET /cart", p.serve, CachedRoute{Cached: Cached{s.cache, "hour", nil}, IdentityField: "X-User"})
			a := s.get("/cart", "X-User: ann", "X-Api-Key: a").says("Larder; fwd=uri-miss; stored")
			s.get("/cart", "X-User: ann", "X-Api-Key: b").is(a.body).isHit()
		}),

		over("a response to a client certificate is neither stored nor shared", func(s *site) {
			p := &page{}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			s.handle("GET /public/{id}", (&page{fields: []string{"Cache-Control: public"}}).serve, s.cached("hour"))
			s.handle("GET /any/{id}", (&page{}).serve, s.cached("no-credentials"))
			ann, bob, nobody := s.certified(), s.certified(), s.secured()
			ann.get("/p/1").is("run 1").says("Larder; fwd=uri-miss; detail=client-certificate")
			bob.get("/p/1").is("run 2").says("Larder; fwd=uri-miss; detail=client-certificate")
			nobody.get("/p/1").is("run 3").says("Larder; fwd=uri-miss; stored")
			ann.get("/p/1").is("run 4").isNoHit()
			nobody.get("/p/1").is("run 3").isHit()
			ann.get("/public/1").says("Larder; fwd=uri-miss; stored")
			bob.get("/public/1").isHit()
			ann.get("/any/1").says("Larder; fwd=uri-miss; stored")
			bob.get("/any/1").isHit()
		}),
	}
}
