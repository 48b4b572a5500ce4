package adaptertest

import (
	"fmt"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/httpcache"
)

// post sends a POST with content of type application/json, and more fields.
func (s *site) post(target, content string, fields ...string) answer {
	return s.ask(request{method: "POST", target: target, body: content, fields: append([]string{"Content-Type: application/json"}, fields...)})
}

// readsQuestions selects the POSTs whose content begins with a question mark.
func (s *site) readsQuestions(class string, tags ...string) CachedRoute {
	return CachedRoute{Cached: Cached{s.cache, class, tags}, Reads: func(content []byte) bool {
		return strings.HasPrefix(string(content), "?")
	}}
}

// POSTs that Route.Reads selects are cached as QUERY is.
func postedReadCases() []testCase {
	return []testCase{
		over("a POST that reads is cached under its content", func(s *site) {
			p := results()
			s.handle("POST /p/{id}", p.serve, s.readsQuestions("hour", "p:{id}"))
			s.handle("QUERY /p/{id}", p.serve, s.readsQuestions("hour", "p:{id}"))
			s.handle("GET /p/{id}", p.serve, s.readsQuestions("hour", "p:{id}"))
			asked := []string{"?a", "?b", "?a ", "?" + strings.Repeat("x", 100_000)}
			for i, content := range asked {
				s.post("/p/1", content).says("Larder; fwd=uri-miss; stored").is(fmt.Sprintf("POST %q run %d", content, i+1))
			}
			for i, content := range asked {
				s.post("/p/1", content).isHit().is(fmt.Sprintf("POST %q run %d", content, i+1))
			}
			s.post("/p/2", "?a").isNoHit()
			require.Contains(s, s.query("/p/1", "?a", "Content-Type: application/json").isNoHit().body, "QUERY")
			require.Contains(s, s.get("/p/1").isNoHit().body, "GET")
			s.post("/p/1", "?a").isHit().is(`POST "?a" run 1`)
		}),

		over("a POST that writes invalidates the POSTs that read", func(s *site) {
			p := results()
			s.handle("POST /p/{id}", p.serve, s.readsQuestions("hour", "p:{id}"))
			s.post("/p/1", "?a").isNoHit()
			s.post("/p/2", "?a").isNoHit()
			for _, write := range []string{"!", "", "?" + strings.Repeat("x", 2<<20)} { // the last is too long to be looked at
				s.post("/p/1", "?a")
				s.post("/p/1", "?a").isHit()
				s.post("/p/1", write).says("Larder; fwd=method")
				s.post("/p/1", "?a").isNoHit()
			}
			s.post("/p/2", "?a").isHit()
		}),

		over("a POST that reads invalidates nothing", func(s *site) {
			db := &row{}
			s.handle("GET /p/{id}", db.read, s.readsQuestions("hour", "p:{id}"))
			s.handle("POST /p/{id}", (&page{}).serve, s.readsQuestions("hour", "p:{id}"))
			s.get("/p/1").isNoHit()
			s.post("/p/1", "?a").isNoHit()
			s.get("/p/1").isHit()
		}),

		over("a POST that reads is not evaluated for conditions", func(s *site) {
			p := results()
			p.fields = []string{`ETag: "v1"`}
			s.handle("POST /p", p.serve, s.readsQuestions("hour"))
			s.post("/p", "?a").isNoHit()
			for _, field := range []string{`If-None-Match: "v1"`, `If-Match: "v2"`, "Range: bytes=0-1"} {
				a := s.post("/p", "?a", field).says("Larder; fwd=bypass; detail=conditional-post")
				require.Equal(s, 200, a.status)
			}
			s.post("/p", "?a").isHit()
			s.ask(request{method: "POST", target: "/p", body: "?a"}).says("Larder; fwd=bypass; detail=no-content-type")
		}),

		over("a POST that reads is shared only as a GET would be", func(s *site) {
			p := results()
			s.handle("POST /p", p.serve, s.readsQuestions("hour"))
			for range 2 {
				s.post("/p", "?a", "Authorization: Basic x").isNoHit()
				s.post("/p", "?a", "Cookie: a=b").isNoHit()
			}
			s.post("/p", "?a").isNoHit()
			s.post("/p", "?a").isHit()
		}),

		within("POSTs of the same content that read collapse", func(s *site) {
			p := results()
			p.hold = s.gate()
			s.handle("POST /p", p.serve, s.readsQuestions("hour"))
			ask := func(content string) *pending {
				x := &pending{s, make(chan answer, 1)}
				go func() { x.done <- s.post("/p", content) }()
				return x
			}
			all := []*pending{ask("?a"), ask("?a"), ask("?a"), ask("?b")}
			s.waiting(2)
			p.hold.open()
			for i, x := range all {
				require.Contains(s, x.answer().body, map[bool]string{true: `"?a"`, false: `"?b"`}[i < 3])
			}
			require.EqualValues(s, 2, p.runs.Load())
		}),

		within("a stale POST that reads is refreshed with its content", func(s *site) {
			p := results()
			p.fields = []string{`ETag: "v1"`}
			s.handle("POST /p", p.serve, s.readsQuestions("stale"))
			for round := range 3 {
				a := s.post("/p", "?a")
				require.NoError(s, a.err)
				require.Contains(s, a.body, `POST "?a"`)
				require.Equal(s, round > 0, a.hit())
				s.settles(func() bool { return s.cache.Stats().Stored == int64(round+1) }, "it is stored, or refreshed")
				time.Sleep(time.Minute + time.Second)
			}
			require.EqualValues(s, 3, p.runs.Load())
		}),

		within("an expired POST that reads is loaded without conditions", func(s *site) {
			p := &page{fields: []string{`ETag: "v1"`}, body: func(c Ctx, run int64) string {
				return fmt.Sprint("run ", run, " conditions ", len(c.Values("If-None-Match")))
			}}
			s.handle("POST /p", p.serve, s.readsQuestions("minute"))
			s.post("/p", "?a").is("run 1 conditions 0")
			time.Sleep(time.Minute)
			s.post("/p", "?a").is("run 2 conditions 0")
		}),

		over("GraphQL queries are cached, and mutations invalidate them", func(s *site) {
			p := results()
			route := CachedRoute{Cached: Cached{s.cache, "hour", nil}, Reads: httpcache.GraphQLQuery}
			s.handle("POST /graphql", p.serve, route)
			query := `{"query":"query Item($id: ID!) { item(id: $id) { name } }","operationName":"Item","variables":{"id":"%d"}}`
			s.post("/graphql", fmt.Sprintf(query, 1)).isNoHit()
			s.post("/graphql", fmt.Sprintf(query, 2)).isNoHit()
			s.post("/graphql", fmt.Sprintf(query, 1)).isHit()
			s.post("/graphql", `{"query":"mutation { rename(id: 1) { name } }"}`).says("Larder; fwd=method")
			s.post("/graphql", fmt.Sprintf(query, 1)).isNoHit()
		}),
	}
}
