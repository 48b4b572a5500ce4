package adaptertest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
)

// A response is stored only if it is complete. A handler that the cache runs in the
// background finds the same writer as in the foreground.
func wholeCases() []testCase {
	return slices.Concat(brokenCases(), proxyCases(), uploadCases(), controllerCases())
}

const incomplete = "Larder; fwd=uri-miss; detail=incomplete"

// torn answers the first half of a page and then another status, in each of the ways that
// handlers use.
func torn() map[string]func(c Ctx) error {
	half := func(c Ctx) error {
		c.Set("Content-Type", "text/html; charset=utf-8")
		_, err := io.WriteString(c, "<p>")
		return err
	}
	return map[string]func(c Ctx) error{
		"a status and a text": func(c Ctx) error {
			if err := half(c); err != nil {
				return err
			}
			c.Status(500)
			_, err := c.Write([]byte("sorry"))
			return err
		},
		"the framework's own answer": func(c Ctx) error {
			if err := half(c); err != nil {
				return err
			}
			return c.Text(500, "sorry")
		},
		"a status alone": func(c Ctx) error {
			if err := half(c); err != nil {
				return err
			}
			c.Status(503)
			return nil
		},
	}
}

func brokenCases() []testCase {
	var cases []testCase
	for name, tear := range torn() {
		cases = append(cases,
			over("an incomplete page is not stored after "+name, func(s *site) {
				var runs atomic.Int64
				s.handle("GET /p/{id}", func(c Ctx) error {
					if runs.Add(1) <= 2 {
						return tear(c)
					}
					return c.Text(200, "whole")
				}, s.cached("hour"))
				for range 2 {
					a := s.get("/p/1").isNoHit()
					require.NotContains(s, a.cacheStatus(), "stored")
				}
				s.get("/p/1").is("whole").says("Larder; fwd=uri-miss; stored")
				s.get("/p/1").is("whole").isHit()
			}),

			within("a stale response replaces an incomplete page after "+name, func(s *site) {
				var runs atomic.Int64
				s.handle("GET /p/{id}", func(c Ctx) error {
					if runs.Add(1) > 1 {
						return tear(c)
					}
					return c.Text(200, "whole")
				}, s.cached("spare"))
				s.get("/p/1").is("whole")
				time.Sleep(time.Minute)
				a := s.get("/p/1").is("whole")
				require.Contains(s, a.cacheStatus(), "detail=stale-if-error")
				require.Equal(s, "text/plain; charset=utf-8", strings.ToLower(a.header.Get("Content-Type")))
			}),

			within("a refresh to an incomplete page keeps the old one after "+name, func(s *site) {
				var runs atomic.Int64
				s.handle("GET /p/{id}", func(c Ctx) error {
					if runs.Add(1) == 2 {
						return tear(c)
					}
					return c.Text(200, fmt.Sprint("whole ", runs.Load()))
				}, s.cached("stale"))
				s.get("/p/1").is("whole 1")
				time.Sleep(time.Minute + time.Second)
				s.get("/p/1").is("whole 1")
				s.settles(func() bool { return runs.Load() == 2 && s.cache.Stats().LoadErrors == 1 }, "the refresh has failed")
				s.get("/p/1").is("whole 1")
				s.settles(func() bool { return runs.Load() == 3 && s.cache.Stats().Stored == 2 }, "the next one has not")
				s.get("/p/1").is("whole 3").isHit()
			}),
		)
	}
	return append(cases,
		within("waiting requests do not get an incomplete page", func(s *site) {
			p := &page{hold: s.gate()}
			s.handle("GET /p/{id}", func(c Ctx) error {
				if p.enter() == 1 {
					p.hold.wait()
					return torn()["a status and a text"](c)
				}
				return c.Text(200, "whole")
			}, s.cached("hour"))
			first := s.start("GET", "/p/1")
			s.settles(func() bool { return p.runs.Load() == 1 }, "the first is in the handler")
			others := []*pending{s.start("GET", "/p/1"), s.start("GET", "/p/1")}
			s.waiting(2)
			p.hold.open()
			require.NotEqual(s, "whole", first.answer().body)
			for _, other := range others {
				other.answer().is("whole")
			}
		}),

		over("a second WriteHeader with the same status has no effect", func(s *site) {
			s.handle("GET /p/{id}", func(c Ctx) error {
				c.Status(203)
				if _, err := c.Write([]byte("whole")); err != nil {
					return err
				}
				if w := c.ResponseWriter(); w != nil && !s.f.NoRepeatedStatus {
					w.WriteHeader(http.StatusNonAuthoritativeInfo)
				}
				return nil
			}, s.cached("hour"))
			require.Equal(s, 203, s.get("/p/1").says("Larder; fwd=uri-miss; stored").status)
			require.Equal(s, "whole", s.get("/p/1").isHit().body)
		}),

		over("a response of another length than stated is not stored", func(s *site) {
			var stated string
			s.handle("GET /p/{id}", func(c Ctx) error {
				c.Set("Content-Length", stated)
				for _, piece := range []string{"hel", "lo"} {
					_, _ = c.Write([]byte(piece)) // as io.Copy's error is often dropped
				}
				return nil
			}, s.cached("hour"))
			for _, stated = range []string{"10", "4", "3", "1"} {
				for range 2 {
					a := s.get("/p/1")
					require.Equal(s, incomplete, a.cacheStatus(), "stated %s", stated)
				}
			}
			stated = "5"
			s.get("/p/1").is("hello").says("Larder; fwd=uri-miss; stored")
			s.get("/p/1").is("hello").isHit()
		}),
	)
}

// upstream answers connections with a text, and closes them.
func (s *site) upstream(answer func() string) *url.URL {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(s, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
				_, _ = io.WriteString(conn, answer())
			}
			_ = conn.Close()
		}
	}()
	s.Cleanup(func() { _ = l.Close(); <-done })
	return &url.URL{Scheme: "http", Host: l.Addr().String()}
}

// proxied answers through a httputil.ReverseProxy. Its writer cannot flush, so that answers
// of any length are captured.
func (s *site) proxied(to *url.URL) Handler {
	transport := &http.Transport{DisableKeepAlives: true, DisableCompression: true}
	s.Cleanup(transport.CloseIdleConnections)
	proxy := httputil.NewSingleHostReverseProxy(to)
	proxy.Transport, proxy.ErrorLog = transport, slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	return func(c Ctx) error {
		return c.(HandlerRunner).RunHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if s.f.NoResponseWriter { // fasthttp reuses the memory of its context, and a Transport reads it later
				r = r.WithContext(context.Background())
			}
			proxy.ServeHTTP(struct{ http.ResponseWriter }{w}, r)
		}))
	}
}

const (
	deadChunked = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\nc\r\nhalf a page \r\n"
	deadStated  = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 100\r\n\r\nhalf a page "
	alive       = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nwhole"
)

func proxyCases() []testCase {
	var cases []testCase
	for name, dead := range map[string]string{"in the middle of its chunks": deadChunked, "before its stated length": deadStated} {
		unless := []flag{noHandlerRunner}
		if dead == deadChunked {
			unless = append(unless, noResponseWriter) // Fiber's handlers of net/http cannot break off
		}
		asks := map[string]func(s *site){
			"a request": func(s *site) { s.get("/p/1") },
			"Warm": func(s *site) {
				result, err := s.srv.(Warmer).Warm(context.Background(), slices.Values([]string{"http://" + origin + "/p/1"}), core.WarmOptions{})
				require.NoError(s, err)
				require.Equal(s, 1, result.Failed)
				require.Zero(s, result.Filled)
			},
		}
		for by, ask := range asks {
			more := unless
			if by == "Warm" {
				more = append(unless[:len(unless):len(unless)], noWarmer)
			}
			cases = append(cases, over("a page whose upstream dies "+name+" is not stored by "+by, func(s *site) {
				says := atomic.Pointer[string]{}
				text := dead
				says.Store(&text)
				s.handle("GET /p/{id}", s.proxied(s.upstream(func() string { return *says.Load() })), s.cached("hour"))
				s.connectOnce()
				ask(s)
				whole := alive
				says.Store(&whole)
				s.get("/p/1").is("whole").says("Larder; fwd=uri-miss; stored")
				s.get("/p/1").is("whole").isHit()
			}, more...))
		}
		cases = append(cases, over("a refresh whose upstream dies "+name+" keeps the old page", func(s *site) {
			var asked atomic.Int64
			s.open(core.Options{Classes: core.Classes{"brief": {TTL: 50 * time.Millisecond, StaleWhileRevalidate: time.Hour}}})
			s.handle("GET /p/{id}", s.proxied(s.upstream(func() string {
				if asked.Add(1) == 2 {
					return dead
				}
				return alive
			})), s.cached("brief"))
			s.get("/p/1").is("whole")
			// The request that begins the second refresh comes after the end of the first.
			s.settles(func() bool { return s.get("/p/1").is("whole").status == 200 && asked.Load() > 2 }, "a second refresh has asked")
		}, unless...))
	}
	return append(cases, over("a warmed request has the same properties as a client's", func(s *site) {
		var found []string
		s.handle("GET /p/{id}", func(c Ctx) error {
			return c.(HandlerRunner).RunHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _, err := net.SplitHostPort(r.RemoteAddr)
				_, local := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
				_, server := r.Context().Value(http.ServerContextKey).(*http.Server)
				found = append(found, fmt.Sprint(
					r.Method, r.Host, r.RequestURI, r.URL, r.Proto, r.ProtoMajor, r.ProtoMinor, err, local, server, r.TLS != nil,
					r.ContentLength, r.Body == http.NoBody, len(r.TransferEncoding), r.Form == nil, r.Trailer == nil, r.Context().Err()))
				_, _ = io.WriteString(w, "page")
			}))
		}, s.cached("hour"))
		s.connectOnce()
		result, err := s.srv.(Warmer).Warm(context.Background(), slices.Values([]string{"http://" + origin + "/p/1?q=a%20b"}), core.WarmOptions{})
		require.NoError(s, err)
		require.Equal(s, 1, result.Filled)
		s.get("/p/1?q=a%20b").is("page").isHit()
		s.invalidate(core.All())
		s.get("/p/1?q=a%20b").is("page").isNoHit()
		require.Equal(s, found[1], found[0])
	}, noResponseWriter, noHandlerRunner, noWarmer))
}

// Known of net/http: a server removes the files of an upload of its own request only.
func uploadCases() []testCase {
	var cases []testCase
	for name, use := range map[string]func(s *site) Use{
		"an invalidating route": func(s *site) Use { return s.invalidates("files") },
		"a cached route":        func(s *site) Use { return s.cached("hour") },
	} {
		cases = append(cases, over("the files of an upload to "+name+" are removed after it", func(s *site) {
			const size = 1 << 18
			dir := s.TempDir()
			s.Setenv("TMPDIR", dir)
			files := func() []string {
				list, err := filepath.Glob(filepath.Join(dir, "*"))
				require.NoError(s, err)
				return list
			}
			during := 0
			s.handle("POST /files", func(c Ctx) error {
				size, err := c.(Uploader).Upload("f")
				during = len(files())
				return c.Text(200, fmt.Sprint(size, err))
			}, use(s))
			var body bytes.Buffer
			form := multipart.NewWriter(&body)
			part, err := form.CreateFormFile("f", "a.bin")
			require.NoError(s, err)
			_, err = part.Write(make([]byte, size))
			require.NoError(s, err)
			require.NoError(s, form.Close())
			s.ask(request{method: "POST", target: "/files", fields: []string{"Content-Type: " + form.FormDataContentType()}, body: body.String()}).
				is(fmt.Sprint(size, nil))
			require.Equal(s, !s.f.NoResponseWriter, during > 0, "the upload is in a file")
			s.settles(func() bool { return len(files()) == 0 }, "no file is left")
		}, noUploader))
	}
	return append(cases, over("outer middleware has the form that a handler parsed", func(s *site) {
		var found url.Values
		outer := Around(func(c Ctx, next func() error) error {
			err := next()
			_ = c.(HandlerRunner).RunHandler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { found = r.Form }))
			return err
		})
		parse := func(c Ctx) error {
			return c.(HandlerRunner).RunHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.WriteString(w, r.FormValue("q"))
			}))
		}
		s.handle("GET /p/{id}", parse, outer, s.cached("hour"))
		s.handle("POST /p/{id}", parse, outer, s.invalidates("p"))
		for _, method := range []string{"GET", "POST"} {
			found = nil
			s.do(method, "/p/1?q=a").is("a")
			require.Equal(s, url.Values{"q": {"a"}}, found, method)
		}
	}, noResponseWriter, noHandlerRunner))
}

func controllerCases() []testCase {
	later := func() time.Time { return time.Now().Add(time.Hour) }
	type way struct {
		name string
		try  func(w http.ResponseWriter) error
	}
	var cases []testCase
	for _, way := range []way{
		{"a write deadline", func(w http.ResponseWriter) error { return http.NewResponseController(w).SetWriteDeadline(later()) }},
		{"a read deadline", func(w http.ResponseWriter) error { return http.NewResponseController(w).SetReadDeadline(later()) }},
		{"full duplex", func(w http.ResponseWriter) error { return http.NewResponseController(w).EnableFullDuplex() }},
		{"no connection of its own", func(w http.ResponseWriter) error {
			if _, ok := w.(http.Hijacker); !ok {
				return errors.New("no Hijacker")
			}
			return nil
		}},
		{"an io.ReaderFrom", func(w http.ResponseWriter) error {
			_, err := io.Copy(w, reader(""))
			return err
		}},
		{"a CloseNotifier", func(w http.ResponseWriter) error {
			for {
				if n, ok := w.(interface{ CloseNotify() <-chan bool }); ok {
					n.CloseNotify()
					return nil
				}
				u, ok := w.(interface{ Unwrap() http.ResponseWriter })
				if !ok {
					return errors.New("no CloseNotifier")
				}
				w = u.Unwrap()
			}
		}},
	} {
		cases = append(cases, within("a refresh succeeds if its handler uses "+way.name+"", func(s *site) {
			p := &page{}
			ask := func(c Ctx, next func() error) error {
				if err := way.try(c.ResponseWriter()); err != nil {
					return c.Text(500, err.Error())
				}
				return next()
			}
			s.app.Outside = []Use{Around(ask)} // by the writer that the refresh has
			s.handle("GET /p/{id}", p.serve, s.cached("stale"), Around(ask))
			s.get("/p/1").is("run 1").isNoHit()
			time.Sleep(time.Minute + time.Second)
			s.get("/p/1").is("run 1").isHit()
			s.settles(func() bool { return s.cache.Stats().Stored == 2 }, "it has been refreshed")
			s.get("/p/1").is("run 2").isHit()
		}, noResponseWriter))
	}
	return append(cases, within("a refresh has no connection to hijack", func(s *site) {
		p := &page{}
		var refused error
		s.handle("GET /p/{id}", func(c Ctx) error {
			if p.enter() == 2 {
				_, _, refused = http.NewResponseController(c.ResponseWriter()).Hijack()
			}
			return c.Text(200, "page")
		}, s.cached("stale"))
		s.get("/p/1").is("page").isNoHit()
		time.Sleep(time.Minute + time.Second)
		s.get("/p/1").is("page").isHit()
		s.settles(func() bool { return s.cache.Stats().Stored == 2 }, "it has been refreshed")
		require.ErrorIs(s, refused, http.ErrNotSupported)
	}, noResponseWriter))
}

// connectOnce has the site served.
func (s *site) connectOnce() {
	conn, err := s.connect()
	require.NoError(s, err)
	require.NoError(s, conn.Close())
}
