package fibercache_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/gofiber/fiber/v2"
	"github.com/gofiber/fiber/v2/middleware/compress"
	"github.com/gofiber/fiber/v2/middleware/etag"
	"github.com/gofiber/fiber/v2/middleware/helmet"
	"github.com/gofiber/fiber/v2/middleware/logger"
	"github.com/gofiber/fiber/v2/middleware/recover"
	"github.com/gofiber/fiber/v2/middleware/requestid"
	"github.com/stretchr/testify/require"
	"github.com/valyala/fasthttp"

	"github.com/larderhq/larder/fibercache"
)

// longText is content that an answer need not copy.
var longText = strings.Repeat("a text that gets smaller. ", 4_000)

// edits are changes of a body that fasthttp allows.
var edits = map[string]func(*fasthttp.Response){
	"in place": func(r *fasthttp.Response) {
		for i, b := 0, r.Body(); i < len(b); i++ {
			b[i] = 'z'
		}
	},
	"AppendBody":      func(r *fasthttp.Response) { r.AppendBodyString("more") },
	"BodyWriter":      func(r *fasthttp.Response) { _, _ = fmt.Fprint(r.BodyWriter(), "more") },
	"append of bytes": func(r *fasthttp.Response) { r.SetBodyRaw(append(r.Body(), "more"...)) },
	"CopyTo": func(r *fasthttp.Response) {
		var other fasthttp.Response
		other.SetBodyRaw([]byte("other"))
		other.CopyTo(r)
	},
	"SwapBody": func(r *fasthttp.Response) {
		b := r.SwapBody(nil)
		r.SetBody(append(b, "more"...))
	},
}

func TestEditsOfABodyReachNoOtherHit(t *testing.T) {
	for name, edit := range edits {
		t.Run(name, func(t *testing.T) {
			// given: middleware, a handler around that of the app, and a server whose handler is
			// another one, each of which edits the answer
			var editing bool
			cached := fibercache.Cache(newCache(t), "hour")
			page := func(c *fiber.Ctx) error { return c.SendString(longText) }
			after := func(h fasthttp.RequestHandler) fasthttp.RequestHandler {
				return func(c *fasthttp.RequestCtx) {
					if h(c); editing {
						edit(&c.Response)
					}
				}
			}
			inside := newSite(t)
			inside.Use(func(c *fiber.Ctx) error {
				err := c.Next()
				if editing {
					edit(c.Response())
				}
				return err
			})
			around, replaced := newSite(t), newSite(t)
			for _, s := range []*site{inside, around, replaced} {
				s.Get("/p", cached, page)
			}
			wrapped := after(around.Handler())
			replaced.Server().Handler = after(replaced.Server().Handler)
			asks := map[string]func() string{
				"inside": func() string { return inside.get("/p").body },
				"around": func() string {
					var request fasthttp.Request
					request.SetRequestURI("/p")
					request.Header.SetHost("shop.example")
					var c fasthttp.RequestCtx
					c.Init(&request, nil, nil)
					wrapped(&c)
					return string(c.Response.Body())
				},
				"replaced": func() string { return replaced.get("/p").body },
			}
			for where, ask := range asks {
				// when
				editing = false
				require.True(t, ask() == longText)
				editing = true
				var plain fasthttp.Response
				plain.SetBodyString(longText)
				edit(&plain)
				edited := ask()
				editing = false
				// then
				require.True(t, edited == string(plain.Body()), "as of a handler's own answer, %s", where)
				require.True(t, ask() == longText, "another answer, %s", where)
			}
		})
	}
}

func TestNoMiddlewareThatMayShareABodyChangesIt(t *testing.T) {
	// given: middleware of Fiber that reads bodies, and one that encodes them
	cached := fibercache.Cache(newCache(t), "hour")
	s := newSite(t)
	var log bytes.Buffer
	s.Use(logger.New(logger.Config{Output: &log, Format: "${resBody}\n"}), recover.New(), requestid.New(), helmet.New(), etag.New())
	s.Use("/compressed", compress.New())
	for _, path := range []string{"/p", "/compressed"} {
		s.Get(path, cached, func(c *fiber.Ctx) error { return c.SendString(longText) })
	}
	s.get("/p")
	s.get("/compressed")
	for range 10 {
		// when
		for _, accepts := range []string{"gzip", "br", "deflate", "identity"} {
			s.get("/compressed", "Accept-Encoding: "+accepts)
			s.get("/p", "Accept-Encoding: "+accepts, "If-None-Match: *")
			s.get("/p", "Range: bytes=1-3000", "Accept-Encoding: "+accepts)
		}
		// then
		for _, path := range []string{"/p", "/compressed"} {
			a := s.get(path)
			require.True(t, a.hit())
			require.True(t, a.body == longText)
		}
	}
	require.Contains(t, log.String(), longText)
}

func TestALongBodyIsSharedOnlyWithTheServerOfTheApp(t *testing.T) {
	s := newSite(t)
	s.Get("/p", fibercache.Cache(newCache(t), "hour"), func(c *fiber.Ctx) error { return c.SendString(longText) })
	s.get("/p")
	hit := func(server *fasthttp.Server) []byte {
		var c fasthttp.RequestCtx
		fibercache.SetServer(&c, server)
		c.Request.SetRequestURI("/p")
		c.Request.Header.SetHost("shop.example")
		s.Handler()(&c)
		require.True(t, string(c.Response.Body()) == longText)
		return c.Response.Body()
	}
	// when: two hits that the server of the app sends
	first, second := hit(s.Server()), hit(s.Server())
	// then: both have the same bytes, without room behind them
	require.Same(t, &first[0], &second[0])
	require.Equal(t, len(first), cap(first))
	// and: another caller of the handler gets a copy
	for name, server := range map[string]*fasthttp.Server{"none": nil, "another": {}} {
		require.NotSame(t, &first[0], &hit(server)[0], name)
	}
}
