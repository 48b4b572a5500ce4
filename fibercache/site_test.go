package fibercache_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/stretchr/testify/require"
	"github.com/valyala/fasthttp/fasthttputil"
	"go.uber.org/goleak"

	"github.com/larderhq/larder/core"
)

func TestMain(m *testing.M) {
	// fasthttp renders the Date once a second for the whole process, and never
	// stops doing so. It must not start in a bubble.
	_, _ = fiber.New().Test(httptest.NewRequest("GET", "/", nil))
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"),
		// The workers that encode content stay for the whole process.
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp/stackless.funcWorker"),
		// The janitor of a server's pool of workers sleeps for ten seconds before it
		// sees that the server has stopped.
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"))
}

func newCache(t testing.TB) *core.Cache {
	t.Helper()
	cache, err := core.New(core.Options{Classes: core.Classes{
		"hour":     {TTL: time.Hour},
		"stale":    {TTL: time.Minute, StaleWhileRevalidate: time.Minute},
		"fallback": {TTL: time.Minute, StaleIfError: time.Hour},
		"small":    {TTL: time.Hour, MaxEntryBytes: 100},
	}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, cache.Close()) })
	return cache
}

// site is an app that is served over connections in memory.
type site struct {
	testing.TB
	*fiber.App
	ln *fasthttputil.InmemoryListener
}

func newSite(t testing.TB, config ...fiber.Config) *site {
	var c fiber.Config
	if len(config) > 0 {
		c = config[0]
	}
	c.DisableStartupMessage = true
	return &site{TB: t, App: fiber.New(c)}
}

// answer is what came back; Header has the names as they were sent.
type answer struct {
	*http.Response
	body string
}

func (a answer) status() string { return strings.Join(a.Header.Values("Cache-Status"), ", ") }

func (a answer) hit() bool { return strings.HasPrefix(a.status(), "Larder; hit") }

// dial connects to the app, which it starts if need be.
func (s *site) dial() net.Conn {
	s.Helper()
	if s.ln == nil {
		s.ln = fasthttputil.NewInmemoryListener()
		s.Handler() // makes the routes ready
		var all sync.WaitGroup
		all.Go(func() {
			for {
				conn, err := s.ln.Accept()
				if err != nil {
					return
				}
				// Without fasthttp's pool of workers: its janitor sleeps for ten
				// seconds before it sees that it is to stop.
				all.Go(func() { _ = s.Server().ServeConn(conn) })
			}
		})
		s.Cleanup(func() { _ = s.ln.Close(); all.Wait() })
	}
	conn, err := s.ln.Dial()
	require.NoError(s, err)
	return conn
}

// send writes a request and returns the connection and a reader of it.
func (s *site) send(conn net.Conn, method, target string, fields ...string) *bufio.Reader {
	s.Helper()
	host := "Host: shop.example\r\n"
	for _, f := range fields {
		if strings.HasPrefix(f, "Host:") {
			host = ""
		}
	}
	if method != "GET" && method != "HEAD" {
		fields = append(fields, "Content-Length: 0")
	}
	_, err := fmt.Fprintf(conn, "%s %s HTTP/1.1\r\n%s%s\r\n", method, target, host, strings.Join(append(fields, ""), "\r\n"))
	require.NoError(s, err)
	return bufio.NewReader(conn)
}

// do sends a request on a connection of its own and reads the whole answer.
func (s *site) do(method, target string, fields ...string) answer {
	s.Helper()
	conn := s.dial()
	defer conn.Close()
	return s.read(s.send(conn, method, target, fields...), method)
}

func (s *site) read(r *bufio.Reader, method string) answer {
	s.Helper()
	resp, err := http.ReadResponse(r, &http.Request{Method: method})
	require.NoError(s, err)
	body, err := io.ReadAll(resp.Body)
	require.NoError(s, err)
	require.NoError(s, resp.Body.Close())
	return answer{resp, string(body)}
}

func (s *site) get(target string, fields ...string) answer {
	s.Helper()
	return s.do("GET", target, fields...)
}

// counted makes a handler that counts its runs in what it answers.
func counted() fiber.Handler {
	n := 0
	return func(c *fiber.Ctx) error {
		n++
		return c.SendString(fmt.Sprint("run ", n))
	}
}

// past and never are deadlines of a connection.
var past, never = time.Unix(1, 0), time.Time{}

// head reads an answer's header.
func (s *site) head(r *bufio.Reader, status string) *http.Response {
	s.Helper()
	resp, err := http.ReadResponse(r, nil)
	require.NoError(s, err)
	require.Equal(s, status, resp.Header.Get("Cache-Status"))
	return resp
}
