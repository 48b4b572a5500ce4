package adaptertest

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
)

// Attacks on caches, as published research describes them. ATTACKS.md in httpcache lists
// each with its case. A case takes the victim's point of view: a request after the
// attacker's gets the answer that it would get without a cache.

// twice is one app with the cache, and the same app without it.
type twice struct {
	*site
	plain   *site
	paths   int // that have been made
	harmful int // attacks that would have got through to a cache that mixes them up
}

func (s *site) twice(class string, h Handler, routes ...string) *twice {
	w := &twice{site: s, plain: s.another()}
	for _, route := range routes {
		s.handle(route, h, s.cached(class))
		w.plain.handle(route, h)
	}
	return w
}

// right demands that an answer is the one without the cache.
func (w *twice) right(r request) answer {
	w.Helper()
	want, got := w.plain.ask(r), w.ask(r)
	if want.err != nil {
		require.Error(w, got.err, "%s %s %q", r.method, r.target, r.fields)
		return got
	}
	require.NoError(w, got.err, "%s %s %q", r.method, r.target, r.fields)
	require.Equal(w, essence(w.site, want, want), essence(w.site, got, want), "%s %s, host %q, %q; Cache-Status %q", r.method, r.target, r.host, r.fields, got.cacheStatus())
	return got
}

// insists requests a new page with the attacker's fields several times: a request without
// them gets the right answer, and in the end a stored one.
func (w *twice) insists(fields ...string) {
	w.Helper()
	w.paths++
	r := target(fmt.Sprint("/p/", w.paths))
	for range 2 {
		for range 2 {
			w.ask(with(r, fields...))
		}
		w.right(r)
	}
	w.right(r).isHit()
}

// essence is the part of an answer that a client uses.
func essence(s *site, a, bare answer) string {
	status, h, body := onWire(s, a, bare)
	return fmt.Sprintf("%d\n%v\n%s", status, h, body)
}

// survives sends attacks, and demands that the victims' answers are right, from the
// handler and from the store. "{n}" in a target stands for a path without earlier
// requests, so that the attacker comes first.
func (w *twice) survives(attack request, victims ...request) {
	w.Helper()
	w.paths++
	fresh := func(r request) request {
		r.target = strings.ReplaceAll(r.target, "{n}", fmt.Sprint(w.paths))
		return r
	}
	attack = fresh(attack)
	for range 2 {
		w.ask(attack)
	}
	for _, v := range victims {
		v = fresh(v)
		w.right(v)
		if again := w.right(v); !w.f.Shared { // over a tier, an uncacheable resource is not stored for a while
			again.isHit()
		}
		if a, b := w.plain.ask(attack), w.plain.ask(v); a.err == nil && (a.body != b.body || essence(w.plain, a, b) != essence(w.plain, b, b)) {
			w.harmful++
		}
	}
}

// done demands that the attacks were effective.
func (w *twice) done() {
	w.Helper()
	require.Positive(w, w.harmful, "attacks that the server lets through and that change the answer")
}

func with(r request, fields ...string) request {
	r.fields = append(slices.Clone(r.fields), fields...)
	return r
}

func at(host string, r request) request { r.host = host; return r }

// echo answers what a handler sees of the URL.
func echo(c Ctx) error { return c.Text(200, fmt.Sprintf("%s %s", c.Host(), c.Target())) }

// reflect answers the values of fields, and varies on them where vary is true.
func reflect(names []string, vary bool) Handler {
	return func(c Ctx) error {
		var b strings.Builder
		for _, name := range names {
			if v := c.Values(name); len(v) > 0 {
				fmt.Fprintf(&b, "%s %q\n", name, v)
			}
			if vary {
				c.Add("Vary", name)
			}
		}
		return c.Text(200, b.String())
	}
}

// unkeyed lists fields that applications and frameworks trust, and that no key contains.
func unkeyed() []string {
	return []string{
		"X-Forwarded-Host", "X-Host", "X-Forwarded-Server", "X-Forwarded-Scheme", "X-Forwarded-Proto", "X-Forwarded-Port",
		"X-Forwarded-For", "X-Forwarded-Prefix", "Forwarded", "X-Original-Url", "X-Rewrite-Url", "X-Http-Method-Override",
		"Accept", "Accept-Language", "Origin", "Referer", "User-Agent", "X-Wap-Profile", "Max-Forwards", "Te",
	}
}

func attackCases() []testCase {
	return slices.Concat(unkeyedCases(), urlCases(), parameterCases(), deceptionCases(), outageCases(), collisionCases(), bodyCases(), boundedCases())
}

func unkeyedCases() []testCase {
	everyField := func(w *twice) {
		for _, name := range unkeyed() {
			w.survives(with(target("/p/{n}"), name+": evil.example"), target("/p/{n}"), with(target("/p/{n}"), name+": shop.example"))
			w.survives(with(target("/p/{n}"), name+": a", name+": evil.example"), with(target("/p/{n}"), name+": a"))
		}
		w.done()
	}
	return []testCase{
		over("attack: an echoed field that the response varies on is not shared", func(s *site) {
			everyField(s.twice("hour", reflect(unkeyed(), true), "GET /p/{id}"))
		}),

		over("attack: an echoed field that the class names is not shared", func(s *site) {
			o := core.Options{Classes: classes()}
			o.Classes["all"] = core.Class{TTL: time.Hour, HTTP: core.HTTPPolicy{Headers: unkeyed()}}
			s.open(o)
			everyField(s.twice("all", reflect(unkeyed(), false), "GET /p/{id}"))
		}),

		over("attack: a forwarded host is in no other client's links", func(s *site) {
			w := s.twice("hour", func(c Ctx) error {
				return c.Text(200, "https://"+c.Host()+"/login")
			}, "GET /p/{id}")
			for _, believed := range unkeyed() {
				for _, value := range []string{"evil.example", "evil.example, shop.example", origin + ":1337", origin + "/p", "https", ""} {
					w.survives(with(target("/p/{n}"), believed+": "+value), target("/p/{n}"))
				}
			}
			w.survives(at("evil.example", target("/p/{n}")), target("/p/{n}"))
			w.done()
		}),

		over("attack: a redirect to the request's host is not shared", func(s *site) {
			w := s.twice("hour", func(c Ctx) error {
				scheme := "https"
				if v := c.Values("X-Forwarded-Scheme"); len(v) > 0 {
					scheme = v[0]
				}
				c.Set("Vary", "X-Forwarded-Scheme")
				c.Set("Location", scheme+"://"+c.Host()+c.Target())
				return c.Text(301, "moved")
			}, "GET /p/{id}")
			w.survives(at("evil.example", target("/p/{n}")), target("/p/{n}"))
			w.survives(at(origin+":1337", target("/p/{n}")), target("/p/{n}"))
			w.survives(with(target("/p/{n}"), "X-Forwarded-Host: evil.example"), target("/p/{n}"))
			w.survives(with(target("/p/{n}"), "X-Forwarded-Scheme: javascript"), target("/p/{n}"))
			w.survives(target("http://evil.example/p/{n}"), target("/p/{n}"))
			w.done()
		}),

		over("attack: request fields that imitate a cache's have no effect", func(s *site) {
			w := s.twice("minute", echo, "GET /p/{id}")
			for _, f := range []string{
				"Cache-Status: Larder; hit; ttl=99999", "Age: 59", "Expires: 0", "Set-Cookie: a=1", "Vary: *", "ETag: \"evil\"",
				"Cache-Control: public, max-age=99999, s-maxage=99999", "Surrogate-Control: max-age=99999", "X-Cache: HIT",
				"Date: " + lastModified, "Last-Modified: " + lastModified, "Content-Length: 0", "Content-Encoding: gzip", "Content-Range: bytes 0-1/2",
			} {
				w.survives(with(target("/p/{n}"), f), target("/p/{n}"))
				a := w.right(target(fmt.Sprint("/p/", w.paths)))
				if !a.hit() {
					continue
				}
				var ttl int
				_, err := fmt.Sscanf(a.cacheStatus(), "Larder; hit; ttl=%d", &ttl)
				require.NoError(s, err)
				require.True(s, 50 < ttl && ttl <= 60, "%s: %d", f, ttl)
			}
		}),

		within("attack: a request that waits for an attacker's run gets its own page", func(s *site) {
			p := &page{hold: s.gate(), fields: []string{"Vary: X-Forwarded-Host"}, body: func(c Ctx, _ int64) string {
				return fmt.Sprintf("%q", c.Values("X-Forwarded-Host"))
			}}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			evil := s.start("GET", "/p/1", "X-Forwarded-Host: evil.example")
			s.settles(func() bool { return p.in.Load() == 1 }, "the attacker is in the handler")
			others := s.starts(8, "GET", "/p/1")
			s.settles(func() bool { return true }, "the others are there")
			p.hold.open()
			evil.answer().is(`["evil.example"]`)
			for _, a := range others {
				a.answer().is(`[]`)
			}
		}),
	}
}

func urlCases() []testCase {
	hosts := []string{
		"evil.example", origin + ":1337", origin + ":", origin + ":80", "evil." + origin, origin + ".", "evil@" + origin, origin + "@evil.example", origin + "#",
		origin + "?", origin + "?a=1", origin + "/", origin + "/p", origin + "/f/a", origin + "\\evil", "%73hop.example", "shop.example%00", " " + origin,
		"[::1]", origin + " evil.example", origin + ", evil.example", origin + "\tevil", "http://" + origin, origin + ";evil",
	}
	return []testCase{
		over("attack: a Host of the attacker's choice is in no other client's page", func(s *site) {
			w := s.twice("hour", echo, "GET /p/{id}", "GET /f/{rest...}")
			for _, host := range hosts {
				w.survives(at(host, target("/f/{n}")), target("/f/{n}"))
				w.survives(with(target("/f/{n}"), "Host: "+host), target("/f/{n}"))
				w.survives(target("http://"+host+"/f/{n}"), target("/f/{n}"))
				w.survives(target("//"+host+"/f/{n}"), target("/f/{n}"))
			}
			w.done()
		}),

		over("attack: a Host that contains a path is not another host's path", func(s *site) {
			w := s.twice("hour", echo, "GET /f/{rest...}")
			w.survives(at(origin+"/f", target("/f/{n}")), target("/f/f/{n}"))
			w.survives(at(origin+"/f/x", target("/f/{n}")), target("/f/x/f/{n}"))
			w.survives(at(origin+"/f/x?y=", target("/f/{n}")), target("/f/x?y=/f/{n}"))
			w.survives(target("http://"+origin+"/f@evil.example/f/{n}"), target("/f/{n}"))
			w.survives(with(target("/f/{n}"), "X-Forwarded-Host: "+origin+"/f"), target("/f/f/{n}"))
			w.survives(at("evil.example/", target("/f/{n}")), at("evil.example", target("/f/{n}")))
			w.done()
		}),

		over("attack: a Host in another case has the same entry", func(s *site) {
			w := s.twice("hour", echo, "GET /p/{id}")
			w.ask(at("SHOP.Example", target("/p/1")))
			got, want := w.ask(target("/p/1")), w.plain.ask(target("/p/1"))
			require.True(s, strings.EqualFold(want.body, got.body), "%q %q", want.body, got.body)
		}),

		// Paths that two parsers may confuse: delimiters, escapes, normalization.
		over("attack: a path that resembles another has its own entry", func(s *site) {
			w := s.twice("hour", echo, "GET /f/{rest...}", "GET /p/{id}")
			for _, path := range confusing("/f/{n}/profile") {
				w.survives(target(path), target("/f/{n}/profile"))
			}
			for _, path := range confusing("/p/{n}") {
				w.survives(target(path), target("/p/{n}"))
			}
			w.survives(target("/f/{n}/x"), target("/f/{n}/x/"), target("/f/{n}/X"))
			w.done()
		}),

		over("attack: a router's redirect or error belongs to its own path", func(s *site) {
			s.app.Outside = []Use{s.cached("negative")}
			w := &twice{site: s, plain: s.another()}
			s.handle("GET /f/{rest...}", echo)
			w.plain.handle("GET /f/{rest...}", echo)
			for _, path := range confusing("/f/{n}/profile") {
				w.survives(target(path), target("/f/{n}/profile"))
			}
			w.survives(target("//evil.example/%2e%2e/f/{n}"), target("/f/{n}"))
			w.survives(target("/\\evil.example/f/{n}"), target("/f/{n}"))
			w.done()
		}),
	}
}

// confusing returns spellings that some parser takes for path, or path for them.
func confusing(path string) []string {
	list := make([]string, 0, 64)
	for _, d := range []string{
		"/", "//", "/.", "/..", "/x.css", "/../x.css", ";", ";x.css", ";/x.css", ";a=1", "%3b", "%3Bx.css", "%2f", "%2fx.css", "%2Fx.css", "%5cx.css", "\\x.css",
		"%00", "%00.css", "%0a", "%0ax.css", "%0d%0a", "%09", "%20", "%23", "%23x.css", "#x.css", "%3f", "%3fx.css", "%3Fx=1", "?", "?x.css", "?/../x.css",
		".css", "$", "~", "!", ",x.css", "%252fx.css", "%c0%af", "%e2%80%a8", "%ff", "\xff", "%", "%zz", "%2e%2e%2fx.css", "&x=1", ":x", "+", "*", "%2a",
	} {
		list = append(list, path+d)
	}
	root, rest, _ := strings.Cut(path[1:], "/")
	return append(list,
		"/"+root+"//"+rest, "//"+root+"/"+rest, "/"+root+"/./"+rest, "/./"+root+"/"+rest, "/x/../"+root+"/"+rest, "/"+root+"/x/../"+rest,
		"/"+root+"/x%2f..%2f"+rest, "/"+root+"/x/%2e%2e/"+rest, "/"+root+"/%2e/"+rest, "/"+root+"\\"+rest, "/%"+fmt.Sprintf("%x", root[0])+root[1:]+"/"+rest,
		"/"+strings.ToUpper(root)+"/"+rest, "/"+root+"/"+strings.ToUpper(rest), "/"+root+"%2f"+rest, "/"+root+"/"+rest+"/../"+rest,
		"/"+root+"/..%5c"+root+"/"+rest, "/"+root+"/..;/"+root+"/"+rest)
}

func parameterCases() []testCase {
	// values returns the values of q for handlers of different habits: one splits at
	// ampersands, one splits at semicolons as well, one does not decode.
	values := func(query string, semicolons bool) (list []string) {
		query = strings.ReplaceAll(query, "?", "&")
		if semicolons {
			query = strings.ReplaceAll(query, ";", "&")
		}
		for pair := range strings.SplitSeq(query, "&") {
			name, value, _ := strings.Cut(pair, "=")
			if n, err := url.QueryUnescape(name); err == nil {
				name = n
			}
			if v, err := url.QueryUnescape(value); err == nil {
				value = v
			}
			if name == "q" {
				list = append(list, value)
			}
		}
		return list
	}
	handler := func(c Ctx) error {
		_, query, _ := strings.Cut(c.Target(), "?")
		return c.Text(200, fmt.Sprintf("%q %q", values(query, false), values(query, true)))
	}
	return []testCase{
		over("attack: a parameter cloaked in another counts as itself", func(s *site) {
			w := s.twice("query-q", handler, "GET /p/{id}")
			for _, hidden := range []string{
				"q=1&utm_content=x;q=evil", "utm_content=x;q=evil&q=1", "q=1;q=evil", "q=1&q=evil", "q=evil&q=1", "q=1&%71=evil", "%71=evil&q=1",
				"q=1&utm_content=x%26q=evil", "q=1&utm_content=x%3bq=evil", "q=1&;q=evil", "q=1&utm;q=evil;x", "q=1;utm&q=evil", "utm;q=evil", ";q=evil;q=1",
				"q=1%26q=evil", "q=1&utm=;%71=evil", "q=evil%00", "q=1&q", "q", "q=", "q=+1", "q=%201", "q=1+", "q=1%20",
			} {
				for _, honest := range []string{"q=1", "q=1&utm_content=x", "utm_content=x&q=1"} {
					w.survives(target("/p/{n}?"+hidden), target("/p/{n}?"+honest))
				}
			}
			w.done()
		}),

		over("attack: queries that a parser may confuse have entries of their own", func(s *site) {
			all := []string{
				"", "?", "?a=1", "?a=1&", "?a=1&&", "?a=1;b=2", "?a=1&b=2", "?a=1%26b=2", "?a=1&amp;b=2", "?a=1?b=2", "?a=1%3bb=2",
				"?a=1&a=2", "?a=2&a=1", "?a=1&%61=2", "?a[]=1", "?a%5b%5d=1", "?A=1", "?a=1+2", "?a=1%202", "?a=1%2b2", "?a=1%2B2",
				"?a", "?a=", "?a==1", "?=a", "?a=%31", "?a=1%00", "?a=1/../", "?_method=DELETE", "?a=1&b", "?a=%", "?a=%zz",
			}
			w := s.twice("hour", echo, "GET /p/{id}")
			for _, q := range all {
				w.ask(target("/p/1" + q))
			}
			for range 2 {
				for _, q := range all {
					w.right(target("/p/1" + q))
				}
			}
		}),

		over("attack: the order of parameters counts unless the class ignores it", func(s *site) {
			first := func(c Ctx) error { // a handler that reads the first pair of each name, and one that reads the last
				_, query, _ := strings.Cut(c.Target(), "?")
				v, _ := url.ParseQuery(query)
				last := map[string]string{}
				for name, list := range v {
					last[name] = list[len(list)-1]
				}
				return c.Text(200, fmt.Sprint(v, last))
			}
			w := s.twice("hour", first, "GET /p/{id}")
			for _, pair := range [][2]string{
				{"b=2&a=1", "a=1&b=2"}, {"a=2&b=1&a=1", "a=1&b=1&a=2"}, {"b=1&a=1&a=2", "a=2&a=1&b=1"}, {"%61=2&b=1&a=1", "a=1&b=1&%61=2"}, {"a=1;b=2&b=3", "b=3&a=1;b=2"},
			} {
				w.survives(target("/p/{n}?"+pair[0]), target("/p/{n}?"+pair[1]))
			}
		}),

		over("attack: the content of a GET changes no other client's page", func(s *site) {
			w := s.twice("hour", func(c Ctx) error { return c.Text(200, c.Target()+" "+c.Body()) }, "GET /p/{id}")
			fat := func(body string, fields ...string) request {
				return request{method: "GET", target: "/p/{n}", body: body, fields: fields}
			}
			for _, r := range []request{
				fat("q=evil", "Content-Length: 6", "Content-Type: application/x-www-form-urlencoded"),
				fat("6\r\nq=evil\r\n0\r\n\r\n", "Transfer-Encoding: chunked"),
				fat("6\r\nq=evil\r\n0\r\n\r\n", "Transfer-Encoding: Chunked", "Content-Length: 16"),
				fat("0\r\n\r\nGET /p/{n}?evil HTTP/1.1\r\nHost: evil.example\r\n\r\n", "Content-Length: 5", "Transfer-Encoding: chunked"),
				fat("q=evil", "Content-Length: 6", "Content-Length: 0"),
				fat("q=evil", "Content-Length: 0", "Content-Length: 6"),
				fat("q=evil", "Content-Length: +6"),
				fat("6\r\nq=evil\r\n0\r\n\r\n", "Transfer-Encoding: xchunked"),
				fat("q=evil", "Transfer-Encoding: identity", "Content-Length: 6"),
				fat("", "Content-Length: 0"),
				fat("q=evil", "Content-Length: 6", "X-Http-Method-Override: GET"),
				fat("q=evil", "Content-Length: 6", "Connection: Content-Length"),
				fat("q=evil", "Content-Length: 6", "Expect: 200-ok"),
			} {
				w.survives(r, target("/p/{n}"))
			}
			w.done()
		}),
	}
}

// Deception: the victim is lured to an address that looks like a public page, and the
// attacker requests the same address afterwards.
func deceptionCases() []testCase {
	// private answers a user's own data for any rest of the path, without Cache-Control, as
	// careless handlers do.
	private := func(c Ctx) error {
		c.Set("Content-Type", "text/css")
		return c.Text(200, fmt.Sprintf("%s %q %q", c.Target(), c.Values("Cookie"), c.Values("Authorization")))
	}
	credentials := []string{
		"Cookie: session=ann", "cookie: session=ann", "Authorization: Bearer ann", "AUTHORIZATION: Basic YW5uOmE=", "Cookie: a=1; session=ann",
		"Cookie: session", "Cookie: =ann",
	}
	return []testCase{
		over("attack: a lured victim's response is not stored, whatever its path", func(s *site) {
			w := s.twice("hour", private, "GET /f/{rest...}")
			for _, path := range confusing("/f/{n}/profile") {
				w.survives(with(target(path), credentials[0]), target("/f/{n}/profile"))
				path = strings.ReplaceAll(path, "{n}", fmt.Sprint(w.paths))
				for range 2 {
					w.right(target(path))
				}
			}
			for _, c := range credentials {
				for _, path := range []string{"/f/{n}/profile/x.css", "/f/{n}/profile;x.js", "/f/{n}/static/..%2fprofile", "/f/{n}/robots.txt", "/f/{n}/profile%00.png"} {
					w.paths++
					path = strings.ReplaceAll(path, "{n}", fmt.Sprint(w.paths))
					if w.right(with(target(path), c)).status != 200 {
						continue
					}
					require.NotContains(s, w.right(target(path)).body, "ann", "%s, %s", path, c)
					require.NotContains(s, w.right(with(target(path), "Cookie: session=bob")).body, "ann", "%s, %s", path, c)
				}
			}
			w.done()
		}),

		over("attack: naming credentials in Connection does not share the page", func(s *site) {
			w := s.twice("hour", private, "GET /p/{id}")
			for _, c := range credentials {
				for _, hop := range []string{"Cookie", "cookie, authorization", "close, Authorization", "Keep-Alive, Cookie", "Cache-Control"} {
					w.survives(with(target("/p/{n}"), "Connection: "+hop, c), target("/p/{n}"))
				}
			}
			w.done()
		}),

		over("attack: a field that Connection names still counts", func(s *site) {
			w := s.twice("headers", reflect([]string{"X-Tenant", "X-Region"}, false), "GET /p/{id}")
			for _, hop := range []string{"X-Tenant", "close, x-tenant", "X-Region, X-Tenant"} {
				w.survives(with(target("/p/{n}"), "Connection: "+hop, "X-Tenant: evil"), target("/p/{n}"), with(target("/p/{n}"), "X-Tenant: mine"))
			}
			w.done()
		}),

		over("attack: a response is judged by the fields its Connection names, too", func(s *site) {
			p, q := &page{}, &page{fields: []string{"Connection: close, X-User, Vary", "Vary: X-User"}, body: says("X-User")}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			s.handle("GET /q/{id}", q.serve, s.cached("hour"))
			for i, f := range []string{"Set-Cookie: session=ann", "Cache-Control: private", "Cache-Control: no-store", "Vary: *"} {
				name, _, _ := strings.Cut(f, ":")
				p.fields = []string{"Connection: close, " + name, f}
				for range 2 {
					s.get(fmt.Sprint("/p/", i)).isNoHit()
				}
			}
			require.EqualValues(s, 8, p.runs.Load())
			s.get("/q/1", "X-User: ann")
			s.get("/q/1").is("X-User [] run 2")
		}),

		// Parsers of cookies differ about spaces, quotes, and two cookies of one name.
		over("attack: a cookie that matters counts in every spelling", func(s *site) {
			w := s.twice("theme-cookie", func(c Ctx) error {
				r := http.Request{Header: http.Header{"Cookie": c.Values("Cookie")}}
				var first string
				if k, err := r.Cookie("theme"); err == nil {
					first = k.Value
				}
				last := ""
				for _, k := range r.Cookies() {
					if k.Name == "theme" {
						last = k.Value
					}
				}
				return c.Text(200, fmt.Sprintf("%q %q", first, last))
			}, "GET /p/{id}")
			for _, evil := range []string{
				"theme=evil", "theme=dark; theme=evil", "theme=evil; theme=dark", " theme=evil", "theme =evil", "\ttheme=evil", "theme\t=evil", `theme="evil"`, `"theme"=evil`,
				"$Version=1; theme=evil", "a=1;theme=evil", "a=1,theme=evil", "a=1; theme=evil;", "; theme=evil", "theme=dark=evil", "Theme=evil", "th%65me=evil",
				"a=\"; theme=evil; b=\"", "theme", "theme=", "theme=\"dark\"", "=theme=evil", "theme==evil",
			} {
				w.survives(with(target("/p/{n}"), "Cookie: "+evil), target("/p/{n}"), with(target("/p/{n}"), "Cookie: theme=dark"), with(target("/p/{n}"), "Cookie: a=1; theme=dark"))
				w.survives(with(target("/p/{n}"), "Cookie: theme=dark", "Cookie: "+evil), with(target("/p/{n}"), "Cookie: theme=dark"))
			}
			w.done()
		}),
	}
}

// Denial of service: an error that the attacker provokes takes the place of the page.
func outageCases() []testCase {
	// touchy answers errors to malformed requests.
	touchy := func(status int, dislikes func(c Ctx) bool) Handler {
		return func(c Ctx) error {
			if dislikes(c) {
				return c.Text(status, "an error")
			}
			return c.Text(200, "the page at "+c.Target())
		}
	}
	has := func(names ...string) func(Ctx) bool {
		return func(c Ctx) bool {
			return slices.ContainsFunc(names, func(name string) bool { return strings.Join(c.Values(name), "") != "" }) // fasthttp always reports a Trailer
		}
	}
	return []testCase{
		over("attack: a provoked error is not stored without NegativeTTL", func(s *site) {
			for _, status := range []int{
				400, 401, 402, 403, 404, 405, 406, 408, 409, 410, 411, 413, 414, 415, 416, 417, 421, 422, 426, 428, 429, 431, 451, 500, 501, 502, 503, 504, 505, 511,
			} {
				route := fmt.Sprint("/", status, "/{id}")
				h := touchy(status, has("X-Bad"))
				w := &twice{site: s.another(), plain: s.another()}
				w.handle("GET "+route, h, s.cached("hour"))
				w.plain.handle("GET "+route, h)
				w.survives(with(target(fmt.Sprint("/", status, "/{n}")), "X-Bad: 1"), target(fmt.Sprint("/", status, "/{n}")))
				w.done()
			}
		}),

		over("attack: NegativeTTL stores only not found of the provoked errors", func(s *site) {
			for _, status := range []int{400, 401, 403, 406, 408, 411, 412, 413, 415, 416, 417, 421, 422, 428, 429, 431, 500, 502, 503, 504} {
				h := touchy(status, has("X-Bad"))
				w := &twice{site: s.another(), plain: s.another()}
				w.handle("GET /p/{id}", h, s.cached("negative", fmt.Sprint("status:", status)))
				w.plain.handle("GET /p/{id}", h)
				w.survives(with(target("/p/{n}"), "X-Bad: 1"), target("/p/{n}"))
				w.done()
			}
		}),

		over("attack: an oversized request harms no other client", func(s *site) {
			w := s.twice("hour", touchy(400, func(c Ctx) bool {
				v := c.Values("X-Big")
				return len(v) > 0 && len(strings.Join(v, "")) > 4000 || len(v) > 50
			}), "GET /p/{id}")
			many := make([]string, 100)
			for i := range many {
				many[i] = "X-Big: x"
			}
			for _, r := range []request{
				with(target("/p/{n}"), "X-Big: "+strings.Repeat("x", 8<<10)),
				with(target("/p/{n}"), "X-Big: "+strings.Repeat("x", 12<<10)),
				with(target("/p/{n}"), many...),
				with(target("/p/{n}"), "Cookie: a="+strings.Repeat("x", 8<<10)),
				target("/p/{n}?" + strings.Repeat("x", 8<<10)),
				with(target("/p/{n}"), "X-"+strings.Repeat("x", 8<<10)+": 1"),
			} {
				w.survives(r, target("/p/{n}"))
			}
			w.done()
		}),

		over("attack: a character that no field may have harms no other client", func(s *site) {
			w := s.twice("hour", touchy(400, func(c Ctx) bool {
				v := c.Values("X-Meta")
				return len(v) > 0 && v[0] != "plain"
			}), "GET /p/{id}")
			for _, f := range []string{
				"X-Meta: a\x00b", "X-Meta: a\x01b", "X-Meta: a\ab", "X-Meta: a\x7fb", "X-Meta: a\rb", "X-Meta: a\nX-B: b", "X-Meta: a\x1fb", "X-Meta: \xff\xfe", "X-Meta: a\u2028b",
				"X-Meta : a", "X-Meta\t: a", "X-Meta: a\r\n b", " X-Meta: a", ": a", "X-M\x00eta: a", "X_Meta: a", "X-Meta: ()a{};", "X-Meta: a\vb",
			} {
				w.survives(with(target("/p/{n}"), f), target("/p/{n}"))
			}
			w.done()
		}),

		over("attack: a method override in a field or parameter harms no GET", func(s *site) {
			names := []string{"X-Http-Method-Override", "X-Http-Method", "X-Method-Override"}
			w := s.twice("hour", touchy(405, func(c Ctx) bool { return has(names...)(c) || strings.Contains(c.Target(), "_method") }), "GET /p/{id}")
			for _, method := range []string{"POST", "PUT", "DELETE", "HEAD", "OPTIONS", "TRACE", "PURGE", "BAN", "evil"} {
				for _, name := range names {
					w.survives(with(target("/p/{n}"), name+": "+method), target("/p/{n}"))
				}
				w.survives(target("/p/{n}?_method="+method), target("/p/{n}"))
				w.survives(request{method: method, target: "/p/{n}"}, target("/p/{n}"))
			}
			w.done()
		}),

		over("attack: connection options of a request harm no other client", func(s *site) {
			w := s.twice("hour", touchy(400, has("Expect", "Upgrade", "Te", "Trailer", "Http2-Settings", "Proxy-Authorization", "Sec-Websocket-Key")), "GET /p/{id}")
			for _, fields := range [][]string{
				{"Expect: 100-continue"}, {"Expect: evil"}, {"Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"}, {"Upgrade: websocket"},
				{"TE: trailers"}, {"TE: gzip", "Connection: TE"}, {"Trailer: Cache-Control"}, {"Proxy-Authorization: a"}, {"Connection: close"}, {"Connection: \x00"},
				{"Sec-WebSocket-Key: a", "Connection: Upgrade", "Upgrade: websocket"},
			} {
				w.survives(with(target("/p/{n}"), fields...), target("/p/{n}"))
			}
			w.done()
		}),

		over("attack: HEAD leaves no empty page behind", func(s *site) {
			w := s.twice("hour", func(c Ctx) error {
				if c.Method() == http.MethodHead {
					c.Set("X-Head", "1")
					c.Status(200)
					return nil
				}
				return c.Text(200, "the page")
			}, "GET /p/{id}")
			for _, fields := range [][]string{nil, {"Cache-Control: no-cache"}, {"Range: bytes=0-1"}, {`If-None-Match: *`}} {
				w.survives(with(request{method: "HEAD", target: "/p/{n}"}, fields...), target("/p/{n}"))
			}
			w.done()
		}),

		over("attack: request directives take the page from no other client", func(s *site) {
			w := s.twice("hour", echo, "GET /p/{id}")
			for _, directive := range []string{
				"Cache-Control: no-store", "Cache-Control: no-cache", "Pragma: no-cache", "Cache-Control: max-age=0", "Cache-Control: only-if-cached", "Cache-Control: min-fresh=99999999",
				"Cache-Control: max-stale", "Cache-Control: no-transform", "Cache-Control: only-if-cached, no-cache, max-age=0", "Cache-Control: ,,=", "Cache-Control: max-age=\x00",
				"Cache-Control: max-age=99999999999999999999999", "Cache-Control: max-age=-1", "Cache-Control: private", "Cache-Control: max-age=\"0\"",
			} {
				w.paths++
				r := target(fmt.Sprint("/p/", w.paths))
				for range 3 { // before and after the page is stored
					for range 2 {
						w.ask(with(r, directive))
					}
					w.right(r)
				}
				w.right(r).isHit()
			}
		}),

		within("attack: a herd that insists on a handler run shares one", func(s *site) {
			for _, directive := range []string{"Cache-Control: no-cache", "Pragma: no-cache", "Cache-Control: max-age=0"} {
				s := newSite(s.TB, s.f, s.by)
				p := &page{body: func(Ctx, int64) string { return "the page" }}
				s.handle("GET /p/{id}", p.serve, s.cached("hour"))
				s.get("/p/1").is("the page")
				p.hold = s.gate()
				herd := s.starts(20, "GET", "/p/1", directive)
				s.settles(func() bool { return p.in.Load() <= 1 }, "no more than one is in the handler")
				s.get("/p/1").is("the page").isHit()
				p.hold.open()
				for _, a := range herd {
					a.answer().is("the page")
				}
				require.LessOrEqual(s, p.runs.Load(), int64(2), directive)
			}
		}),
	}
}

func collisionCases() []testCase {
	// An imposter is a value that contains the bytes that separate the parts of a key.
	imposters := func() []string {
		long := ""
		sum := [sha256.Size]byte{}
		for n := 0; n == 0 || slices.ContainsFunc(sum[:], func(c byte) bool { return c <= ' ' || c == 0x7f }); n++ {
			long = strings.Repeat("x", 1500) + fmt.Sprint(n) // such that its sum can stand in a field
			sum = sha256.Sum256([]byte(long))
		}
		return []string{
			"", "a", "A", "a,b", "b,a", "a b", "a  b", "a;b", "a:b", "a=b", "a&b", "a%b", "a|b", "a/b", "-", "=", "=1a", "#", "n", "n1", "i", "o", "v", "m", "c", "nil", "null", "0", "*",
			"a\tb", "a\u2028b", "\u241f", "\u241f=a", "é", "e\u0301", "\xff", "\xfe", "\"a\"", "'a'", "\\", "a\\u001fb", "%1f", "%00", "{id}", "{*}", "hour", "X-Region",
			long, "#" + string(sum[:]), string(sum[:]), fmt.Sprintf("%x", sum), fmt.Sprintf("sha256-%x", sum), long + "x", long[:1499], long[:1024], long[:1025],
			"\x1f", "\x1f-", "\x1f=\x01a", "\x00", "a\x00", "a\x1fb", "a\x1f\x3d\x01b",
		}
	}
	// apart demands that each request gets its own answer, in any order.
	apart := func(w *twice, all []request) {
		for round := range 2 {
			for i := range all {
				if round == 1 {
					i = len(all) - 1 - i
				}
				w.right(all[i])
			}
		}
	}
	return []testCase{
		over("attack: values that imitate parts of a key share no entry", func(s *site) {
			names := []string{"X-Tenant", "X-Region"}
			w := s.twice("headers", reflect(names, false), "GET /p/{id}")
			var all []request
			for i, v := range imposters() {
				all = append(all, with(target("/p/1"), "X-Tenant: "+v), with(target("/p/1"), "X-Region: "+v), with(target("/p/1"), "X-Tenant: "+v, "X-Tenant: a"))
				if i < 20 {
					all = append(all, with(target("/p/1"), "X-Tenant: a", "X-Region: "+v), with(target("/p/1"), "X-Tenant: "+v, "X-Region: a"), with(target("/p/1"), "X-Tenant: a"+v))
				}
			}
			apart(w, append(all, target("/p/1")))
		}),

		over("attack: values that imitate parts of a variant share no entry", func(s *site) {
			s.open(core.Options{Classes: core.Classes{"many": {TTL: time.Hour, HTTP: core.HTTPPolicy{MaxVariants: 1024}}}})
			w := s.twice("many", reflect([]string{"X-Tenant", "X-Region"}, true), "GET /p/{id}")
			var all []request
			for _, v := range imposters() {
				all = append(all, with(target("/p/1"), "X-Tenant: "+v), with(target("/p/1"), "X-Region: "+v))
			}
			apart(w, all)
		}),

		over("attack: an identity that imitates another shares no entry", func(s *site) {
			// An app without a cache gives the right answers.
			w := &twice{site: s, plain: s.another()}
			h := reflect([]string{"X-User", "X-Tenant"}, false)
			s.handle("GET /p/{id}", h, CachedRoute{Cached: Cached{s.cache, "headers", nil}, IdentityField: "X-User"})
			w.plain.handle("GET /p/{id}", h)
			var all []request
			for _, v := range imposters() {
				all = append(all, with(target("/p/1"), "X-User: "+v), with(target("/p/1"), "X-User: "+v, "X-Tenant: a"), with(target("/p/1"), "X-User: a", "X-Tenant: "+v))
			}
			apart(w, all)
		}),

		over("attack: cookies that imitate parts of a key share no entry", func(s *site) {
			w := s.twice("theme-cookie", func(c Ctx) error {
				var values []string
				for _, line := range c.Values("Cookie") {
					for pair := range strings.SplitSeq(line, ";") {
						if v, ok := strings.CutPrefix(strings.TrimSpace(pair), "theme="); ok {
							values = append(values, v)
						}
					}
				}
				return c.Text(200, fmt.Sprintf("%q", values))
			}, "GET /p/{id}")
			var all []request
			for _, v := range imposters() {
				if v == strings.TrimSpace(v) {
					all = append(all, with(target("/p/1"), "Cookie: theme="+v), with(target("/p/1"), "Cookie: theme=a; theme="+v))
				}
			}
			apart(w, all)
		}),

		over("attack: paths and queries that imitate parts of a key share no entry", func(s *site) {
			w := s.twice("headers", func(c Ctx) error {
				return c.Text(200, fmt.Sprintf("%s %q", c.Target(), c.Values("X-Tenant")))
			}, "GET /f/{rest...}")
			var all []request
			for _, v := range imposters() {
				if strings.ContainsAny(v, " \t") || len(v) > 1000 {
					continue
				}
				all = append(all, target("/f/1"+v), target("/f/1?"+v), target("/f/1?a="+v), with(target("/f/1?a="), "X-Tenant: "+v), target("/f/"+url.PathEscape(v)))
			}
			apart(w, all)
		}),

		over("attack: a parameter that imitates a tag invalidates only its own page", func(s *site) {
			db := &row{}
			s.handle("GET /p/{id}", db.read, s.cached("hour", "p:{id}"))
			s.handle("PUT /p/{id}", db.write, s.invalidates("p:{id}"))
			for _, id := range []string{
				"1", "1:2", "%7Bid%7D", "%7B*%7D", "*", "%2A", "p:1", "1%0d%0aX-Evil:1", "%00", "%1f", "%E2%90%9F", "sha256-00", "%3F", "%25", "a%20b", "a+b", strings.Repeat("x", 129), strings.Repeat("%41", 400),
			} {
				before := s.get("/p/" + id)
				if before.status != 200 {
					continue // a router's own answer
				}
				other := s.get("/p/other").body
				a := s.get("/p/" + id).is(before.body).isHit()
				for name := range a.header {
					require.NotContains(s, name, "Evil")
				}
				wrote := s.do("PUT", "/p/"+id)
				require.Equal(s, 200, wrote.status, "%s: %s", id, wrote.body)
				require.NotEqual(s, before.body, s.get("/p/"+id).body, id)
				s.get("/p/other").is(other).isHit()
			}
		}),
	}
}

// Answers: parts, encodings, conditions, fields.
func bodyCases() []testCase {
	const whole = "0123456789"
	return []testCase{
		over("attack: a part is never served as the whole", func(s *site) {
			w := s.twice("hour", func(c Ctx) error {
				if v := c.Values("Range"); len(v) > 0 {
					c.Set("Content-Range", "bytes 0-1/10")
					return c.Text(206, whole[:2])
				}
				return c.Text(200, whole)
			}, "GET /p/{id}")
			for _, fields := range [][]string{
				{"Range: bytes=0-1"}, {"Range: bytes=-1"}, {"Range: bytes=0-0,5-"}, {"Range: evil=0-1"}, {"Range: bytes=0-1", "If-Range: \"evil\""}, {"Range: bytes=0-1", "Cache-Control: no-cache"},
				{"Range: bytes=0-18446744073709551616"}, {"Range: bytes=1-0"}, {"Range: bytes=0-1", "Range: bytes=2-3"}, {"Range: bytes=" + strings.Repeat("0-,", 2000) + "0-"},
			} {
				w.insists(fields...)
			}
		}),

		over("attack: a part with status 200 goes only to the client that asked", func(s *site) {
			w := s.twice("hour", func(c Ctx) error {
				if v := c.Values("Range"); len(v) > 0 {
					c.Set("Content-Range", "bytes 0-1/10")
					return c.Text(200, whole[:2])
				}
				return c.Text(200, whole)
			}, "GET /p/{id}")
			w.survives(with(target("/p/{n}"), "Range: bytes=0-1"), target("/p/{n}"))
		}),

		over("attack: a long list of ranges makes no large answer of a small page", func(s *site) {
			page := strings.Repeat(whole, 1000)
			s.handle("GET /p/{id}", func(c Ctx) error { return c.Text(200, page) }, s.cached("hour"))
			s.get("/p/1").is(page)
			for _, list := range []string{strings.Repeat("0-,", 1000) + "0-", strings.Repeat("0-0,", 2000) + "0-0", strings.Repeat("-9999,", 1000) + "-9999", strings.Repeat("5-9,0-4,", 900) + "0-"} {
				a := s.get("/p/1", "Range: bytes="+list)
				require.NoError(s, a.err)
				require.Less(s, len(a.body), 2*len(page), "%.20s: status %d", list, a.status)
			}
			s.get("/p/1").is(page).isHit()
		}),

		over("attack: an encoding that an attacker chose goes to no other client", func(s *site) {
			w := s.twice("hour", func(c Ctx) error {
				if v := c.Values("Accept-Encoding"); len(v) > 0 {
					coding, _, _ := strings.Cut(v[0], ",")
					coding, _, _ = strings.Cut(coding, ";")
					if coding = strings.TrimSpace(coding); coding != "" && coding != "identity" {
						c.Set("Content-Encoding", coding)
						return c.Text(200, "encoded as "+coding)
					}
				}
				return c.Text(200, "plain")
			}, "GET /p/{id}")
			for _, coding := range []string{"gzip", "x-gzip", "GZIP", "br", "evil", "gzip, evil", "zstd;q=1", "*", "gzip;q=0", "compress", "aws-chunked", "dcb"} {
				w.survives(with(target("/p/{n}"), "Accept-Encoding: "+coding), target("/p/{n}"), with(target("/p/{n}"), "Accept-Encoding: identity"))
			}
			w.done()
		}),

		over("attack: a condition leaves no empty page behind", func(s *site) {
			w := s.twice("hour", func(c Ctx) error {
				for _, name := range []string{"If-None-Match", "If-Modified-Since"} {
					if len(c.Values(name)) > 0 {
						c.Set("X-Evil", "1")
						c.Status(304)
						return nil
					}
				}
				for _, name := range []string{"If-Match", "If-Unmodified-Since"} {
					if len(c.Values(name)) > 0 {
						return c.Text(412, "no")
					}
				}
				return c.Text(200, "the page")
			}, "GET /p/{id}")
			for _, fields := range [][]string{
				{"If-None-Match: *"}, {`If-None-Match: "evil"`}, {"If-Modified-Since: " + lastModified}, {"If-Match: *"}, {`If-Match: "evil"`}, {"If-Unmodified-Since: " + lastModified},
				{"If-None-Match: *", "Cache-Control: no-cache"}, {"If-None-Match:"}, {"If-None-Match: *", "If-None-Match: \"a\""},
			} {
				w.insists(fields...)
			}
		}),

		// A stored response must not be renewed by a 304 about another one.
		within("attack: the 304 to an attacker's condition changes no entry", func(s *site) {
			p := &page{}
			s.handle("GET /p/{id}", func(c Ctx) error {
				p.runs.Add(1)
				c.Set("ETag", `"v1"`)
				if v := c.Values("If-None-Match"); len(v) > 0 { // the handler confirms any validator
					if v[0] != `"v1"` {
						c.Set("ETag", v[0])
						c.Set("X-Evil", "1")
					}
					c.Status(304)
					return nil
				}
				return c.Text(200, "the page")
			}, s.cached("minute"))
			s.get("/p/1").is("the page")
			for _, evil := range []string{`"evil"`, `W/"v1"`, "*", `"v1", "evil"`} {
				for _, more := range []string{"X-A: 1", "Cache-Control: no-cache", "Cache-Control: max-age=0"} {
					s.get("/p/1", "If-None-Match: "+evil, more)
					require.Empty(s, s.get("/p/1").is("the page").header.Get("X-Evil"))
					time.Sleep(time.Minute + time.Second)
					s.get("/p/1", "If-None-Match: "+evil, more)
					a := s.get("/p/1").is("the page")
					require.Empty(s, a.header.Get("X-Evil"))
					require.Equal(s, `"v1"`, a.header.Get("ETag"))
				}
			}
		}),

		// net/http and fasthttp remove line breaks from values; a stored value must go the same
		// way.
		over("attack: a line break in a value begins no field and no second response", func(s *site) {
			w := s.twice("hour", func(c Ctx) error {
				_, query, _ := strings.Cut(c.Target(), "?")
				v, err := url.QueryUnescape(query)
				if err != nil {
					v = err.Error()
				}
				c.Set("X-Reflected", v)
				c.Set("Location", "/"+v)
				return c.Text(200, c.Param("id"))
			}, "GET /p/{id}")
			for _, evil := range []string{
				"a%0d%0aSet-Cookie:%20a=1", "a%0aSet-Cookie:%20a=1", "a%0dSet-Cookie:%20a=1", "%0d%0a%0d%0a%3Chtml%3E", "a%0d%0aContent-Length:%200%0d%0a%0d%0aHTTP/1.1%20200%20OK%0d%0a",
				"a%0d%0aCache-Control:%20public", "a%00b", "a%0d%0a%20b", "%e5%98%8d%e5%98%8aSet-Cookie:%20a=1", "a%E2%80%A8Set-Cookie:a",
			} {
				for range 2 {
					a := w.right(target("/p/1?" + evil))
					if a.err == nil {
						require.Empty(s, a.header.Values("Set-Cookie"), evil)
					}
				}
				for _, path := range []string{"/p/a" + evil, "/p/" + evil} {
					for range 2 {
						if a := w.right(target(path)); a.err == nil {
							require.Empty(s, a.header.Values("Set-Cookie"), evil)
							require.NotContains(s, a.cacheStatus(), "a=1")
						}
					}
				}
			}
		}),

		over("attack: no request makes a response with a cookie shared", func(s *site) {
			w := s.twice("hour", func(c Ctx) error {
				if v := c.Values("X-Session"); len(v) > 0 {
					c.Add("Set-Cookie", "session="+v[0])
				}
				c.Set("Cache-Control", "public, max-age=600")
				return c.Text(200, "the page")
			}, "GET /p/{id}")
			for _, more := range []string{"X-A: 1", "Cache-Control: public", "Connection: Set-Cookie", "Cache-Control: no-cache"} {
				w.survives(with(target("/p/{n}"), "X-Session: evil", more), target("/p/{n}"))
			}
			w.done()
		}),
	}
}

// Memory that an attacker can fill.
func boundedCases() []testCase {
	return []testCase{
		over("attack: a flood of variants is bounded, and the page stays right", func(s *site) {
			w := s.twice("two-variants", reflect([]string{"X-A"}, true), "GET /p/{id}")
			for i := range 200 {
				w.ask(with(target("/p/1"), fmt.Sprint("X-A: ", i)))
			}
			s.settles(func() bool { return s.cache.Stats().Entries <= 3 }, "two variants and their index are kept")
			w.right(target("/p/1"))
			w.right(target("/p/1")).isHit()
		}),

		over("attack: a Vary that repeats the request stays within MaxVariants", func(s *site) {
			w := s.twice("two-variants", func(c Ctx) error {
				if v := c.Values("X-List"); len(v) > 0 {
					c.Set("Vary", v[0])
				}
				return c.Text(200, fmt.Sprintf("%q", c.Values("X-List")))
			}, "GET /p/{id}")
			for i := range 100 {
				w.ask(with(target("/p/1"), fmt.Sprintf("X-List: X-List, X-%d", i)))
				w.ask(with(target("/p/1"), "X-List: X-List"+strings.Repeat(fmt.Sprintf(", X-%d", i), i)))
			}
			s.settles(func() bool { return s.cache.Stats().Entries <= 4 }, "two variants and their index are kept")
		}),

		over("attack: a flood of addresses stays within the bound", func(s *site) {
			const limit = 256 << 10
			s.open(core.Options{Classes: classes(), MaxBytes: limit})
			w := s.twice("hour", echo, "GET /p/{id}")
			pad := strings.Repeat("x", 3000)
			for i := range 400 {
				w.ask(at(fmt.Sprintf("h%d.example", i), target(fmt.Sprintf("/p/1?%d=%s", i, pad))))
				w.ask(target(fmt.Sprintf("/p/%d%s", i, pad)))
			}
			s.settles(func() bool { return s.cache.Stats().Bytes <= limit }, "the store is within its bound")
			// A full store prefers entries that were asked for often to those of the flood.
			for range 5 {
				w.right(target("/p/1"))
			}
			w.right(target("/p/1")).isHit()
		}),

		over("attack: a request too long for a key is answered and not stored", func(s *site) {
			w := s.twice("headers", func(c Ctx) error {
				return c.Text(200, fmt.Sprint(len(c.Target()), len(c.Values("X-Tenant"))))
			}, "GET /p/{id}")
			for _, r := range []request{
				target("/p/1?" + strings.Repeat("a&", 3000)), target("/p/1?" + strings.Repeat("&", 5000)), target("/p/1?" + strings.Repeat(";", 5000)),
				at(strings.Repeat("a", 5000), target("/p/1")), with(target("/p/1"), slices.Repeat([]string{"X-Tenant: " + strings.Repeat("x", 1000)}, 20)...),
			} {
				for range 2 {
					w.right(r).isNoHit()
				}
			}
		}),

		over("attack: a write that is refused drops nothing", func(s *site) {
			p, q := &page{}, &page{}
			s.handle("GET /p/{id}", p.serve, s.cached("hour", "p:{id}"))
			for _, method := range []string{"POST", "PUT", "PATCH", "DELETE"} {
				s.handle(method+" /p/{id}", func(c Ctx) error {
					q.runs.Add(1)
					c.Set("Location", "/p/1")
					c.Set("Content-Location", "/p/1")
					return c.Text(403, "no")
				}, s.cached("hour", "p:{id}"))
			}
			s.get("/p/1").is("run 1")
			for _, method := range []string{"POST", "PUT", "PATCH", "DELETE"} {
				require.Equal(s, 403, s.do(method, "/p/1").status)
				require.Equal(s, 403, s.do(method, "/p/2").status)
			}
			require.EqualValues(s, 8, q.runs.Load())
			s.get("/p/1").is("run 1").isHit()
		}),
	}
}
