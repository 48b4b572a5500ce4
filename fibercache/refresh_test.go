package fibercache_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/fibercache"
)

// seen is what a handler saw of its request, copied.
func seen(c *fiber.Ctx) map[string]string {
	_, deadline := c.UserContext().Deadline()
	m := map[string]string{
		"method": c.Method(), "url": c.OriginalURL(), "path": c.Path(), "id": c.Params("id"), "base": c.BaseURL(),
		"remote": c.Context().RemoteAddr().String(), "tls": fmt.Sprint(c.Context().IsTLS()), "body": string(c.Body()),
		"deadline": fmt.Sprint(deadline), "value": fmt.Sprint(c.UserContext().Value(ctxKey{})), "local": fmt.Sprint(c.Locals("n")),
	}
	for name, values := range c.GetReqHeaders() {
		m["field "+name] = fmt.Sprintf("%q", values)
	}
	for k, v := range m {
		m[k] = string([]byte(v))
	}
	return m
}

type ctxKey struct{}

// A background refresh comes to the handler as the request did, whichever asked
// for it, and finds what outer middleware has made of it.
func TestRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cache := newCache(t)
		s := newSite(t)
		var outer, runs atomic.Int64
		last := make(chan map[string]string, 1)
		s.Use(func(c *fiber.Ctx) error {
			n := outer.Add(1)
			c.Locals("n", n)
			// On purpose what must not be done with a RequestCtx, and is done.
			c.SetUserContext(context.WithValue(c.Context(), ctxKey{}, n))
			if c.Locals("rewritten") == nil {
				c.Locals("rewritten", true)
				c.Path("/p" + c.Path())
				return c.RestartRouting()
			}
			return c.Next()
		})
		s.Get("/p/:id", fibercache.Cache(cache, "stale", "p:{id}"), func(c *fiber.Ctx) error {
			last <- seen(c)
			return c.SendString(fmt.Sprint("run ", runs.Add(1)))
		})

		require.Equal(t, "run 1", s.get("/1?q", "X-Mine: 1").body)
		first := <-last
		require.Equal(t, "/1?q", first["url"])
		require.Equal(t, "/p/1", first["path"])
		require.Equal(t, "false", first["deadline"])

		time.Sleep(90 * time.Second)
		stale := s.do("HEAD", "/1?q", "X-Mine: 1", `If-None-Match: "a"`, "Range: bytes=0-1")
		require.Equal(t, 200, stale.StatusCode)
		require.True(t, stale.hit())
		synctest.Wait()
		again := <-last
		require.Equal(t, "true", again["deadline"], "a refresh has a time limit")
		require.Equal(t, again["local"], again["value"])
		for _, m := range []map[string]string{first, again} {
			for _, name := range []string{"deadline", "local", "value"} {
				delete(m, name)
			}
		}
		require.Equal(t, first, again)
		fresh := s.get("/1?q")
		require.True(t, fresh.hit(), fresh.status())
		require.Equal(t, "run 2", fresh.body)
		require.NoError(t, cache.Invalidate(context.Background(), core.Tag("p:1")))
		require.Equal(t, "run 3", s.get("/1?q").body)
		<-last
	})
}

// The identity of a request that came over TLS is that of its refresh.
func TestRefreshOverTLS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cache := newCache(t)
		s := newSite(t)
		var runs atomic.Int64
		last := make(chan map[string]string, 1)
		s.Get("/p/:id", fibercache.Cache(cache, "stale", "p:{id}"), func(c *fiber.Ctx) error {
			last <- seen(c)
			return c.SendString(fmt.Sprint("run ", runs.Add(1)))
		})
		s.Handler()
		get := func() answer {
			server, client := net.Pipe()
			done := make(chan error, 1)
			go func() {
				done <- s.Server().ServeConn(tls.Server(server, &tls.Config{Certificates: []tls.Certificate{certificate(t)}}))
			}()
			conn := tls.Client(client, &tls.Config{InsecureSkipVerify: true})
			a := s.read(s.send(conn, "GET", "/p/1", "Connection: close"), "GET")
			_ = conn.Close()
			<-done
			return a
		}
		require.Equal(t, "run 1", get().body)
		first := <-last
		require.Equal(t, "true", first["tls"])
		require.Equal(t, "https://shop.example", first["base"])
		time.Sleep(90 * time.Second)
		require.Equal(t, "run 1", get().body)
		synctest.Wait()
		again := <-last
		delete(first, "deadline")
		delete(again, "deadline")
		require.Equal(t, first, again)
		fresh := get()
		require.True(t, fresh.hit())
		require.Equal(t, "run 2", fresh.body)
	})
}

func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1)}, &x509.Certificate{}, &key.PublicKey, key)
	require.NoError(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// A refresh that fails has no client: no answer of it is sent, and none is stored.
func TestRefreshThatFails(t *testing.T) {
	for name, fail := range map[string]func(c *fiber.Ctx) error{
		"error":  func(*fiber.Ctx) error { return fiber.NewError(500) },
		"panic":  func(*fiber.Ctx) error { panic("no") },
		"stream": nil,
		"reader": nil,
		"hijack": func(c *fiber.Ctx) error { c.Context().Hijack(func(net.Conn) {}); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cache := newCache(t)
				s := newSite(t)
				var runs atomic.Int64
				lines, ended := make(chan string), make(chan error, 2)
				var closed closer
				s.Get("/", fibercache.Cache(cache, "stale"), func(c *fiber.Ctx) error {
					switch n := runs.Add(1); {
					case n == 1:
						return c.SendString("good")
					case name == "stream":
						c.Locals("closed", &closed)
						return streaming(lines, ended)(c)
					case name == "reader":
						return c.SendStream(&closed)
					default:
						return fail(c)
					}
				})
				require.Equal(t, "good", s.get("/").body)
				time.Sleep(90 * time.Second)
				require.Equal(t, "good", s.get("/").body)
				synctest.Wait()
				switch name {
				case "stream":
					require.Len(t, ended, 1, "nobody reads it")
					close(lines)
					fallthrough
				case "reader":
					require.Positive(t, closed.n.Load(), "what the server closes behind a response")
				}
				again := s.get("/")
				require.Equal(t, "good", again.body)
				require.True(t, again.hit())
				synctest.Wait()
			})
		})
	}
}

// closer is a body, or a user value, that wants to be closed.
type closer struct{ n atomic.Int64 }

func (c *closer) Read([]byte) (int, error) { return 0, io.EOF }
func (c *closer) Close() error             { c.n.Add(1); return nil }

// An app without default types has none in the background either.
func TestRefreshWithoutDefaultType(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cache := newCache(t)
		s := newSite(t, fiber.Config{DisableDefaultContentType: true})
		s.Get("/", fibercache.Cache(cache, "stale"), counted())
		require.Empty(t, s.get("/").Header.Values("Content-Type"))
		time.Sleep(90 * time.Second)
		s.get("/")
		synctest.Wait()
		a := s.get("/")
		require.Equal(t, "run 2", a.body)
		require.Empty(t, a.Header.Values("Content-Type"))
	})
}

// Where names of fields stay as they came, conditions are known all the same.
func TestRefreshIsUnconditional(t *testing.T) {
	for _, config := range []fiber.Config{{}, {DisableHeaderNormalizing: true}} {
		synctest.Test(t, func(t *testing.T) {
			cache := newCache(t)
			s := newSite(t, config)
			var last map[string]string
			s.Get("/", fibercache.Cache(cache, "stale"), func(c *fiber.Ctx) error { last = seen(c); return nil })
			s.get("/", "x-mine: 1")
			want := last
			time.Sleep(90 * time.Second)
			s.get("/", "x-mine: 1", "range: bytes=0-1", `if-none-match: "x"`, "IF-RANGE: x", "If-modified-Since: x", "if-match: x", "if-Unmodified-since: x")
			synctest.Wait()
			delete(want, "deadline")
			delete(last, "deadline")
			require.Equal(t, want, last)
		})
	}
}

// If outer middleware answers the copy, there is no refresh.
func TestRefreshThatDoesNotComeThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cache := newCache(t)
		s := newSite(t)
		n := 0
		s.Use(func(c *fiber.Ctx) error {
			if n++; n == 3 {
				return c.SendString("limited")
			}
			return c.Next()
		})
		s.Get("/", fibercache.Cache(cache, "stale"), counted())
		require.Equal(t, "run 1", s.get("/").body)
		time.Sleep(90 * time.Second)
		require.Equal(t, "run 1", s.get("/").body)
		synctest.Wait()
		require.Equal(t, 3, n)
		require.Equal(t, "run 1", s.get("/").body)
		synctest.Wait()
		require.Equal(t, "run 2", s.get("/").body)
	})
}

// The refresh runs while the request's context serves others: what is read of it
// then is a data race.
func TestRefreshTouchesNoReusedContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cache := newCache(t)
		s := newSite(t)
		var asked, runs atomic.Int64
		start := make(chan struct{})
		s.Use(func(c *fiber.Ctx) error {
			c.Locals("target", string([]byte(c.OriginalURL())))
			c.SetUserContext(context.WithValue(c.Context(), ctxKey{}, "outer"))
			if c.Path() == "/p/1" && asked.Add(1) == 3 {
				<-start // the refresh
			}
			return c.Next()
		})
		skipped, err := fibercache.Route{Cache: cache, Class: "hour", Skip: func(*fiber.Ctx) bool { return true }}.Middleware()
		require.NoError(t, err)
		s.Use(skipped)
		s.Get("/other/:n", func(c *fiber.Ctx) error { return c.SendString(c.Params("n")) })
		s.Get("/p/:id", fibercache.Cache(cache, "stale", "p:{id}"), func(c *fiber.Ctx) error {
			n := runs.Add(1)
			if n > 1 {
				for range 100 {
					_ = c.UserContext().Value("target")
					_ = c.UserContext().Value("nothing")
					_ = core.AddTags(c.UserContext(), "tag")
				}
			}
			ctx, cancel := context.WithTimeout(c.UserContext(), time.Second)
			defer cancel()
			return c.SendString(fmt.Sprint(n, c.Params("id"), ctx.Value(ctxKey{}), c.Locals("target"), c.UserContext().Value("target")))
		})
		conn := s.dial()
		r := bufio.NewReader(conn)
		ask := func(target string) string {
			_, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: h\r\n\r\n", target)
			require.NoError(t, err)
			return s.read(r, "GET").body
		}
		require.Equal(t, "11outer/p/1/p/1", ask("/p/1"))
		time.Sleep(90 * time.Second)
		require.Equal(t, "11outer/p/1/p/1", ask("/p/1"))
		synctest.Wait()
		close(start)
		for i := range 200 {
			require.Equal(t, fmt.Sprint(i), ask(fmt.Sprint("/other/", i)))
		}
		synctest.Wait()
		require.Equal(t, "21outer/p/1/p/1", ask("/p/1"))
		require.NoError(t, conn.Close())
	})
}

// Many refreshes run concurrently, over connections that are used again, with everything that a hit
// and a miss can be: for the race detector.
func TestManyAtATime(t *testing.T) {
	cache := newCache(t)
	s := newSite(t)
	s.Use(func(c *fiber.Ctx) error { c.Set("X-Outer", c.Query("q")); return c.Next() })
	s.Get("/p/:id", fibercache.Cache(cache, "hour", "p:{id}", "q:{id}"), func(c *fiber.Ctx) error {
		_ = core.AddTags(c.Context(), "late:"+c.Params("id"))
		c.Set("X-Own", c.Params("id"))
		c.Vary("Accept-Language")
		return c.SendString(c.Params("id") + c.Get("Accept-Language"))
	})
	s.Put("/p/:id", fibercache.Invalidate(cache, "p:{id}"), func(c *fiber.Ctx) error { return c.SendStatus(204) })
	var all sync.WaitGroup
	for g := range 8 {
		conn := s.dial()
		all.Go(func() {
			defer conn.Close()
			r := bufio.NewReader(conn)
			for i := range 300 {
				id, lang, method := fmt.Sprint((g+i)%5), []string{"de", "en", "fr"}[i%3], "GET"
				switch i % 10 {
				case 7:
					method = "HEAD"
				case 9:
					method = "PUT"
				}
				_, err := fmt.Fprintf(conn, "%s /p/%s?q=%d HTTP/1.1\r\nHost: h\r\nAccept-Language: %s\r\nContent-Length: 0\r\n\r\n", method, id, g, lang)
				if err != nil {
					t.Error(err)
					return
				}
				a := s.read(r, method)
				if method == "GET" && (a.body != id+lang || a.Header.Get("X-Own") != id || a.Header.Get("X-Outer") != fmt.Sprint(g)) {
					t.Errorf("%s %s: %q %v", id, lang, a.body, a.Header)
				}
			}
		})
	}
	all.Wait()
	require.NotZero(t, cache.Stats().Hits)
}
