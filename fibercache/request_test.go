package fibercache

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/gofiber/fiber/v2"
	"github.com/stretchr/testify/require"
	"github.com/valyala/fasthttp/fasthttputil"

	"github.com/larderhq/larder/core/httpcache"
	"github.com/larderhq/larder/fibercache/internal/fast"
)

// asked sends a request over the wire and returns what see makes of it.
func asked[T any](t *testing.T, config fiber.Config, route, request string, see func(x *exchange) T) (seen T) {
	t.Helper()
	app := fiber.New(config)
	app.Get("/rewritten/*", func(c *fiber.Ctx) error { c.Path("/to/" + c.Params("*")); return c.RestartRouting() })
	app.All(route, func(c *fiber.Ctx) error {
		x := exchanges.New().(*exchange)
		x.fiber.c = c
		x.Begin(c.Context(), new(fast.State), c.Route(), false)
		seen = see(x)
		return nil
	})
	app.Handler()
	pipe := fasthttputil.NewPipeConns()
	done := make(chan error, 1)
	go func() { done <- app.Server().ServeConn(pipe.Conn1()) }()
	conn := pipe.Conn2()
	_, err := io.WriteString(conn, strings.ReplaceAll(request, "\n", "\r\n"))
	require.NoError(t, err)
	_, err = bufio.NewReader(conn).ReadByte()
	require.NoError(t, err)
	require.NoError(t, conn.Close())
	<-done
	return seen
}

func TestLine(t *testing.T) {
	trusted := fiber.Config{EnableTrustedProxyCheck: true, TrustedProxies: []string{"0.0.0.0"}}
	stranger := fiber.Config{EnableTrustedProxyCheck: true}
	for name, c := range map[string]struct {
		config  fiber.Config
		request string
		want    httpcache.Line
	}{
		"plain": {
			request: "GET /a%2Fb/C?q=1&q=%20 HTTP/1.1\nHost: Shop.Example:8080\n\n",
			want:    httpcache.Line{Method: "GET", Scheme: "http", Host: "shop.example:8080", Path: "/a%2Fb/C", Query: "q=1&q=%20"},
		},
		"bare query": {
			request: "GET /a? HTTP/1.1\nHost: h\n\n",
			want:    httpcache.Line{Method: "GET", Scheme: "http", Host: "h", Path: "/a", BareQuery: true},
		},
		"double slash, dots": {
			request: "HEAD //a/../b/ HTTP/1.1\nHost: h\n\n",
			want:    httpcache.Line{Method: "HEAD", Scheme: "http", Host: "h", Path: "//a/../b/"},
		},
		"URL in the query": {
			request: "GET /a?u=http://b/c HTTP/1.1\nHost: h\n\n",
			want:    httpcache.Line{Method: "GET", Scheme: "http", Host: "h", Path: "/a", Query: "u=http://b/c"},
		},
		"absolute": {
			request: "GET http://H/a?q HTTP/1.1\nHost: h\n\n",
			want:    httpcache.Line{Method: "GET", Scheme: "http", Host: "h", Path: "/a", Query: "q", Original: "http://H/a?q"},
		},
		"absolute, of another host": {
			request: "GET http://other/a?q HTTP/1.1\nHost: h\n\n",
			want:    httpcache.Line{Method: "GET", Scheme: "http", Host: "other", Path: "/a", Query: "q", Original: "http://other/a?q h"},
		},
		"rewritten": {
			request: "GET /rewritten/a?q HTTP/1.1\nHost: h\n\n",
			want:    httpcache.Line{Method: "GET", Scheme: "http", Host: "h", Path: "/to/a", Query: "q", Original: "/rewritten/a?q"},
		},
		"rewritten, absolute": {
			request: "GET http://h/rewritten/a HTTP/1.1\nHost: h\n\n",
			want:    httpcache.Line{Method: "GET", Scheme: "http", Host: "h", Path: "/to/a", Original: "http://h/rewritten/a"},
		},
		"content": {
			request: "POST / HTTP/1.1\nHost: h\nContent-Length: 1\n\nx",
			want:    httpcache.Line{Method: "POST", Scheme: "http", Host: "h", Path: "/", HasBody: true},
		},
		"content in chunks": {
			request: "GET / HTTP/1.1\nHost: h\nTransfer-Encoding: chunked\n\n1\nx\n0\n\n",
			want:    httpcache.Line{Method: "GET", Scheme: "http", Host: "h", Path: "/", HasBody: true},
		},
		"no content": {
			request: "GET / HTTP/1.1\nHost: h\nContent-Length: 0\n\n",
			want:    httpcache.Line{Method: "GET", Scheme: "http", Host: "h", Path: "/"},
		},
		// Fiber shows the handler a host that it believes, and the handler may put it into links.
		"forwarded, by anybody": {
			request: "GET /a HTTP/1.1\nHost: h\nX-Forwarded-Host: evil, b\nX-Forwarded-Proto: https\n\n",
			want:    httpcache.Line{Method: "GET", Scheme: "https", Host: "evil", Path: "/a", Original: "http://h/a"},
		},
		"forwarded, as it is": {
			request: "GET /a HTTP/1.1\nHost: h\nX-Forwarded-Host: H\nX-Forwarded-Proto: http\n\n",
			want:    httpcache.Line{Method: "GET", Scheme: "http", Host: "H", Path: "/a"},
		},
		"forwarded, no scheme": {
			request: "GET /a HTTP/1.1\nHost: h\nX-Url-Scheme: https://h/b?\n\n",
			want:    httpcache.Line{Method: "GET", Scheme: "http", Host: "h", Path: "/a", Original: "https://h/b? http://h/a"},
		},
		"forwarded, empty": { // Fiber's base URL is "://h" then
			request: "GET /a HTTP/1.1\nHost: h\nX-Forwarded-Proto:\nX-Forwarded-Host:\n\n",
			want:    httpcache.Line{Method: "GET", Scheme: "http", Host: "h", Path: "/a", Original: " http://h/a"},
		},
		"forwarded, twice": {
			request: "GET /a HTTP/1.1\nHost: h\nX-Forwarded-Proto: http\nX-Forwarded-Proto: https, http\n\n",
			want:    httpcache.Line{Method: "GET", Scheme: "https", Host: "h", Path: "/a", Original: "http://h/a"},
		},
		"forwarded, by a proxy that is trusted": {
			config:  trusted,
			request: "GET /a HTTP/1.1\nHost: h\nX-Forwarded-Host: public\nX-Forwarded-Ssl: on\n\n",
			want:    httpcache.Line{Method: "GET", Scheme: "https", Host: "public", Path: "/a", Original: "http://h/a"},
		},
		"forwarded, by one that is not": {
			config:  stranger,
			request: "GET /a HTTP/1.1\nHost: h\nX-Forwarded-Host: evil\nX-Forwarded-Proto: https\n\n",
			want:    httpcache.Line{Method: "GET", Scheme: "http", Host: "h", Path: "/a"},
		},
		"host that is none": { // fasthttp then knows no path
			request: "GET /c HTTP/1.1\nHost: a/b\n\n",
			want:    httpcache.Line{Method: "GET", Scheme: "http", Host: "a/b", Path: "", Original: "/c"},
		},
		"decoded for routing": {
			config:  fiber.Config{UnescapePath: true},
			request: "GET /a%20b HTTP/1.1\nHost: h\n\n",
			want:    httpcache.Line{Method: "GET", Scheme: "http", Host: "h", Path: "/a%20b"},
		},
		"not strict, not case sensitive": {
			config:  fiber.Config{StrictRouting: false, CaseSensitive: false},
			request: "GET /A/ HTTP/1.1\nHost: h\n\n",
			want:    httpcache.Line{Method: "GET", Scheme: "http", Host: "h", Path: "/A/"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := asked(t, c.config, "/*", c.request, func(x *exchange) httpcache.Line { l := x.Line(); l.Lacks = 0; return l.Clone() })
			require.Equal(t, c.want, got)
		})
	}
}

func TestParam(t *testing.T) {
	for name, c := range map[string]struct {
		config              fiber.Config
		route, target, name string
		want                string
		missing             bool
	}{
		"as it is":            {route: "/p/:id", target: "/p/42", name: "id", want: "42"},
		"decoded":             {route: "/p/:id", target: "/p/a%2Fb%20c", name: "id", want: "a/b c"},
		"decoded once":        {route: "/p/:id", target: "/p/a%252Fb", name: "id", want: "a%2Fb"},
		"decoded by Fiber":    {config: fiber.Config{UnescapePath: true}, route: "/p/:id", target: "/p/a%252Fb", name: "id", want: "a%2Fb"},
		"plus is plus":        {route: "/p/:id", target: "/p/a+b", name: "id", want: "a+b"},
		"not an escape":       {route: "/p/:id", target: "/p/a%zz", name: "id", want: "a%zz"},
		"wildcard":            {route: "/f/*", target: "/f/a/b%20c", name: "*", want: "a/b c"},
		"wildcard, plus":      {route: "/f/+", target: "/f/a/b", name: "*", want: "a/b"},
		"second wildcard":     {route: "/f/*/g/*", target: "/f/a/g/b", name: "*2", want: "b"},
		"empty wildcard":      {route: "/f/*", target: "/f/", name: "*", missing: true},
		"optional, not there": {route: "/p/:id?", target: "/p", name: "id", missing: true},
		"not in the route":    {route: "/p/:id", target: "/p/42", name: "name", missing: true},
	} {
		t.Run(name, func(t *testing.T) {
			type param struct {
				value string
				ok    bool
			}
			got := asked(t, c.config, c.route, fmt.Sprintf("GET %s HTTP/1.1\nHost: h\n\n", c.target), func(x *exchange) param {
				v, ok := x.Param(c.name)
				x.fiber.c.Path("/" + strings.Repeat("z", len(c.target)-1)) // Fiber's buffer is used again
				return param{v, ok}
			})
			require.Equal(t, param{c.want, !c.missing}, got)
		})
	}
}

func TestValues(t *testing.T) {
	request := "GET / HTTP/1.1\nhost: h\nx-list: a, b\nX-LIST: c\nx-empty:\ncookie: a=1; b=2\nauthorization: Bearer x\naccept-language: de\n\n"
	for name, config := range map[string]fiber.Config{"normal": {}, "names as they come": {DisableHeaderNormalizing: true}} {
		t.Run(name, func(t *testing.T) {
			for field, want := range map[string][]string{
				"X-List":          {"a, b", "c"},
				"X-Empty":         {""},
				"Authorization":   {"Bearer x"},
				"Accept-Language": {"de"},
				"Cookie":          {"a=1; b=2"},
				"Host":            {"h"},
				"X-Other":         nil,
				"Content-Length":  nil,
				"Content-Type":    nil,
				"User-Agent":      nil,
				"Trailer":         nil,
				"Upgrade":         nil,
			} {
				for _, parsed := range []bool{false, true} {
					got := asked(t, config, "/", request, func(x *exchange) []string {
						if parsed {
							_ = x.fiber.c.Cookies("a") // fasthttp takes the field apart
						}
						var got []string
						for _, v := range x.Values(field) {
							got = append(got, strings.Clone(v))
						}
						return got
					})
					require.Equal(t, want, got, field)
				}
			}
		})
	}
	require.Empty(t, asked(t, fiber.Config{}, "/", "GET / HTTP/1.1\nHost: h\n\n", func(x *exchange) []string {
		_ = x.fiber.c.Cookies("a")
		return x.Values("Cookie")
	}))
}
