package adaptertest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
)

// twins are two requests; same says whether one entry answers both.
type twins struct {
	name string
	a, b request
	same bool
}

func target(t string) request { return request{method: "GET", target: t} }

func differ(name, a, b string) twins { return twins{name, target(a), target(b), false} }
func alike(name, a, b string) twins  { return twins{name, target(a), target(b), true} }

// check demands that the second request is a hit of the first one's entry if they are the
// same, and otherwise that each has its own entry.
func (w twins) check(s *site) {
	first := s.ask(w.a)
	first.says("Larder; fwd=uri-miss; stored")
	second := s.ask(w.b)
	if w.same {
		second.is(first.body).isHit()
		return
	}
	second.says("Larder; fwd=uri-miss; stored")
	require.NotEqual(s, first.body, second.body)
	s.ask(w.a).is(first.body).isHit()
	s.ask(w.b).is(second.body).isHit()
}

// The promise "never another user's response": two different requests never share an entry.
func identityCases() []testCase {
	var cases []testCase
	pair := func(w twins, class string, unless ...flag) {
		verb := "are two"
		if w.same {
			verb = "are one"
		}
		cases = append(cases, over(w.name+" "+verb, func(s *site) {
			p := &page{body: func(c Ctx, run int64) string { return fmt.Sprintf("%s %s run %d", c.Host(), c.Target(), run) }}
			s.handle("GET /p/{id}", p.serve, s.cached(class))
			s.handle("GET /f/{rest...}", p.serve, s.cached(class))
			s.handle("GET /bare/{rest...}", p.serve)
			for _, r := range []request{w.a, w.b} {
				bare := r
				at := strings.Index(r.target, "/p/") // behind a scheme and host, if any
				if at < 0 {
					at = 0
				}
				bare.target = r.target[:at] + "/bare" + r.target[at:]
				if a := s.ask(bare); a.status != 200 {
					s.Skipf("%s answers %d to %s", s.f.Name, a.status, r.target)
				}
			}
			w.check(s)
		}, unless...))
	}
	// Elsewhere: the key left out the host, the query, the method or the body.
	pair(differ("queries with different values", "/p/1?id=1", "/p/1?id=2"), "hour")
	pair(differ("a query and none", "/p/1?id=1", "/p/1"), "hour")
	pair(differ("an empty query and none", "/p/1?", "/p/1"), "hour")
	pair(differ("a parameter without value and with an empty one", "/p/1?a", "/p/1?a="), "hour")
	pair(differ("queries with names in another case", "/p/1?a=1", "/p/1?A=1"), "hour")
	pair(differ("an empty pair more", "/p/1?a=1&", "/p/1?a=1"), "hour")
	pair(differ("equal names in another order", "/p/1?a=1&a=2", "/p/1?a=2&a=1"), "hour")
	pair(differ("equal names, escaped, in another order", "/p/1?a=1&%61=2", "/p/1?%61=2&a=1"), "hour")
	pair(differ("an escaped ampersand and a plain one", "/p/1?a=1%26b=2", "/p/1?a=1&b=2"), "hour")
	pair(differ("a semicolon and an ampersand", "/p/1?a=1;b=2", "/p/1?a=1&b=2"), "hour")
	pair(differ("pairs around a semicolon in another order", "/p/1?a=1;b=2&b=3", "/p/1?b=3&a=1;b=2"), "hour")
	pair(differ("a value escaped and not", "/p/1?a=%61", "/p/1?a=a"), "hour")
	pair(differ("a plus and an escaped space", "/p/1?a=+", "/p/1?a=%20"), "hour")
	pair(alike("different names in another order", "/p/1?a=1&b=2", "/p/1?b=2&a=1"), "hour")
	pair(alike("pairs in another order that keeps equal names in theirs", "/p/1?a=1&b=2&a=3", "/p/1?a=1&a=3&b=2"), "hour")
	pair(differ("different names in another order where the class counts it", "/p/1?a=1&b=2", "/p/1?b=2&a=1"), "query-order")
	pair(alike("queries in one order, but for what the class leaves out", "/p/1?utm=1&q=1&r=2", "/p/1?q=1&utm=2&r=2"), "query-q-r")
	pair(differ("what the class names in another order, where it counts it", "/p/1?q=1&r=2", "/p/1?r=2&q=1"), "query-q-r")
	pair(alike("queries that differ in what the class leaves out", "/p/1?q=1&utm=a", "/p/1?utm=b&q=1&x=2"), "query-q")
	pair(alike("queries that differ in what the class ignores", "/p/1?utm_source=a&q=1", "/p/1?q=1&gclid=x&utm_=b"), "ignore-query")
	pair(alike("a query that the class ignores and none", "/p/1?utm_source=a", "/p/1"), "ignore-query")
	pair(differ("queries that differ beside what the class ignores", "/p/1?q=1&utm_source=a", "/p/1?q=2&utm_source=a"), "ignore-query")
	pair(differ("a parameter that only resembles an ignored one", "/p/1?gclid2=1", "/p/1?gclid2=2"), "ignore-query")
	pair(alike("an ignored parameter, escaped, with another value", "/p/1?%75tm_x=1", "/p/1?%75tm_x=2"), "ignore-query")
	pair(differ("queries that differ in what the class names", "/p/1?q=1&utm=a", "/p/1?q=2&utm=a"), "query-q")
	pair(differ("the name that matters, escaped, with another value", "/p/1?%71=1", "/p/1?%71=2"), "query-q")
	pair(alike("queries where the class counts none", "/p/1?a=1", "/p/1?b=2"), "no-query")
	pair(alike("a query and none where the class counts none", "/p/1?a=1", "/p/1"), "no-query")
	// Elsewhere: the path was lower-cased or cleaned for the key.
	pair(differ("paths in another case", "/p/a", "/p/A"), "hour")
	pair(differ("a path escaped and not", "/p/%61", "/p/a"), "hour")
	pair(differ("an escaped slash and a plain one", "/f/a%2Fb", "/f/a/b"), "hour", noEscapedSlash)
	pair(differ("a path with a slash at its end and without", "/f/a/", "/f/a"), "hour")
	pair(differ("a doubled slash and one", "/f/a//b", "/f/a/b"), "hour")
	pair(differ("a dot segment and none", "/f/a/./b", "/f/a/b"), "hour")
	pair(differ("an escaped question mark and a query", "/p/a%3Fb=1", "/p/a?b=1"), "hour")
	// Elsewhere: the key left out the host, the query, the method or the body.
	pair(twins{"hosts", request{method: "GET", target: "/p/1", host: "a.example"}, request{method: "GET", target: "/p/1", host: "b.example"}, false}, "hour")
	pair(twins{"ports", request{method: "GET", target: "/p/1", host: "a.example:80"}, request{method: "GET", target: "/p/1", host: "a.example:81"}, false}, "hour")
	pair(twins{"a host and another one in the target", request{method: "GET", target: "/p/1", host: "a.example"}, request{method: "GET", target: "http://b.example/p/1", host: "a.example"}, false}, "hour")
	pair(twins{"hosts in another case", request{method: "GET", target: "/p/1", host: "a.example"}, request{method: "GET", target: "/p/1", host: "A.Example"}, true}, "hour")
	long := "/p/" + strings.Repeat("x", 4000)
	pair(differ("long URLs that differ in the last byte", long+"1", long+"2"), "hour")

	fields := func(name string, same bool, a, b []string) {
		pair(twins{name, request{method: "GET", target: "/p/1", fields: a}, request{method: "GET", target: "/p/1", fields: b}, same}, "headers")
	}
	fields("fields that the class names with different values", false, []string{"X-Tenant: a"}, []string{"X-Tenant: b"})
	fields("a field that the class names and none", false, []string{"X-Tenant: a"}, nil)
	fields("an empty field that the class names and none", false, []string{"X-Tenant:"}, nil)
	fields("fields with the same bytes, parted differently", false, []string{"X-Tenant: ab", "X-Region: c"}, []string{"X-Tenant: a", "X-Region: bc"})
	fields("the same value in another field", false, []string{"X-Tenant: a"}, []string{"X-Region: a"})
	fields("fields that the class does not name", true, []string{"X-Other: a"}, []string{"X-Other: b"})
	// Elsewhere: the key was cut short or a short hash, and nothing compared the identity on a hit.
	big := strings.Repeat("x", 1500)
	fields("long fields that differ in the last byte", false, []string{"X-Tenant: " + big + "1"}, []string{"X-Tenant: " + big + "2"})
	fields("long fields", true, []string{"X-Tenant: " + big}, []string{"X-Tenant: " + big})

	return slices.Concat(cases, []testCase{
		over("http and https have entries of their own", func(s *site) {
			p := &page{}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			secure := s.secured()
			s.get("/p/1").is("run 1").says("Larder; fwd=uri-miss; stored")
			secure.get("/p/1").is("run 2").says("Larder; fwd=uri-miss; stored")
			s.get("/p/1").is("run 1").isHit()
			secure.get("/p/1").is("run 2").isHit()
		}),

		over("the same URL in two classes has two entries", func(s *site) {
			p, q := &page{}, &page{}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			other := s.another()
			other.handle("GET /p/{id}", q.serve, other.cached("no-etag"))
			s.get("/p/1").is("run 1")
			other.get("/p/1").is("run 1").says("Larder; fwd=uri-miss; stored")
			require.Empty(s, other.get("/p/1").isHit().header.Get("ETag"))
			require.NotEmpty(s, s.get("/p/1").isHit().header.Get("ETag"))
		}),

		// A client can send any Host to a route of another host.
		over("the same URL of routes with other tags has two entries", func(s *site) {
			p, q := &page{}, &page{}
			s.handle("GET /p/{id}", p.serve, s.cached("hour", "p:{id}"))
			other := s.another()
			other.handle("GET /p/{id}", q.serve, other.cached("hour", "q:{id}"))
			s.get("/p/1").is("run 1")
			other.get("/p/1").is("run 1").says("Larder; fwd=uri-miss; stored")
			s.invalidate(core.Tag("q:1"))
			s.get("/p/1").is("run 1").isHit()
			other.get("/p/1").is("run 2").isNoHit()
		}),

		over("a request in absolute form is invalidated by its path", func(s *site) {
			p := &page{}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			s.get("http://" + origin + "/p/1").is("run 1").says("Larder; fwd=uri-miss; stored")
			s.get("http://" + origin + "/p/1").is("run 1").isHit()
			s.invalidate(core.Path("/p/1"))
			s.get("http://" + origin + "/p/1").is("run 2").isNoHit()
		}),

		over("a URL that is too long for a key is left alone", func(s *site) {
			p := &page{}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			for _, body := range []string{"run 1", "run 2"} {
				s.get("/p/" + strings.Repeat("x", 5000)).is(body).says("Larder; fwd=bypass; detail=url-too-long")
			}
		}),

		// Elsewhere: the key left out the host, the query, the method or the body.
		over("other methods are not answered from a stored GET", func(s *site) {
			p := &page{body: func(c Ctx, run int64) string { return fmt.Sprint(c.Method(), " run ", run) }}
			for _, method := range []string{"GET", "DELETE", "OPTIONS", "PATCH"} {
				s.handle(method+" /p/{id}", p.serve, s.cached("hour"))
			}
			s.get("/p/1").is("GET run 1")
			s.do("OPTIONS", "/p/1").is("OPTIONS run 2").says("Larder; fwd=method")
			s.get("/p/1").is("GET run 1").isHit()
			s.do("DELETE", "/p/1").is("DELETE run 3").says("Larder; fwd=method")
			s.do("PATCH", "/p/1").is("PATCH run 4").isNoHit()
		}),

		// Elsewhere: the key left out the host, the query, the method or the body.
		within("a DELETE and a GET of one URL do not wait for each other", func(s *site) {
			p := &page{hold: s.gate()}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			s.handle("DELETE /p/{id}", p.serve, s.cached("hour"))
			all := []*pending{s.start("GET", "/p/1")}
			s.settles(func() bool { return p.in.Load() == 1 }, "the GET is in the handler")
			all = append(all, s.start("DELETE", "/p/1"))
			s.settles(func() bool { return p.in.Load() == 2 }, "the DELETE is in the handler as well")
			p.hold.open()
			require.ElementsMatch(s, []string{"run 1", "run 2"}, []string{all[0].answer().body, all[1].answer().body})
		}),

		// Elsewhere: the key left out the host, the query, the method or the body.
		within("POSTs with different bodies run the handler each, at the same time", func(s *site) {
			p := &page{hold: s.gate(), body: func(c Ctx, _ int64) string { return "got " + c.Body() }}
			s.handle("POST /search", p.serve, s.cached("hour"))
			var all []*pending
			for i := range 3 {
				q := &pending{s, make(chan answer, 1)}
				go func() {
					q.done <- s.ask(request{method: "POST", target: "/search", body: fmt.Sprint("body ", i)})
				}()
				all = append(all, q)
			}
			s.settles(func() bool { return p.in.Load() == 3 }, "all are in the handler")
			p.hold.open()
			for i, q := range all {
				q.answer().is(fmt.Sprint("got body ", i)).isNoHit()
			}
		}),

		over("a GET with content is left alone", func(s *site) {
			p := &page{body: func(c Ctx, _ int64) string { return "got " + c.Body() }}
			s.handle("GET /search", p.serve, s.cached("hour"))
			for _, body := range []string{"a", "b"} {
				s.ask(request{method: "GET", target: "/search", body: body, fields: []string{"Content-Length: 1"}}).
					is("got " + body).says("Larder; fwd=bypass; detail=request-has-content")
			}
		}),

		// Elsewhere: a query that contained an administrative path gave access to its key.
		over("a path inside another URL's query is not that path", func(s *site) {
			p := &page{}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			s.get("/p/1?next=/p/admin").is("run 1")
			s.get("/p/admin").is("run 2").says("Larder; fwd=uri-miss; stored")
			s.invalidate(core.Path("/p/admin"))
			s.get("/p/1?next=/p/admin").is("run 1").isHit()
			s.get("/p/admin").is("run 3").isNoHit()
		}),

		// Elsewhere: the handler saw a changed URL, with sorted or dropped query pairs.
		over("the handler sees the URL as the client has sent it", func(s *site) {
			p := &page{body: func(c Ctx, _ int64) string { return c.Target() }}
			s.handle("GET /p/{id}", p.serve, s.cached("query-q"))
			for _, t := range []string{
				"/p/1?z=1&a=2&z=0", "/p/%61?utm=1", "/p/1?q=%71&q=a+b", "/p/1?&&q", "/p/A?Q=1",
			} {
				s.get(t).is(t).isNoHit()
			}
		}),
	})
}
