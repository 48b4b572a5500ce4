package echo5_test

import (
	"bufio"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/labstack/echo/v5"
	"github.com/labstack/echo/v5/middleware"
	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/echocache/echo5"
)

func TestHooksFromOutsideRunForEachAnswerAndAreNotStored(t *testing.T) {
	e := newEcho()
	served := 0
	e.Use(func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c *echo.Context) error {
			served++
			n := strconv.Itoa(served)
			response(c).Before(func() {
				c.Response().Header().Set("X-Served", n)
				c.Response().Header().Set("X-Status", strconv.Itoa(response(c).Status))
				c.Response().Header().Add("Vary", "X-Outside")
			})
			return next(c)
		}
	})
	e.GET("/", func(c *echo.Context) error {
		response(c).Before(func() { c.Response().Header().Set("X-Handler", "hook") })
		c.Response().Header().Set("Vary", "X-Inside")
		return c.String(http.StatusOK, "hello")
	}, echo5.Cache(newCache(t), "hour"))
	for i := 1; i <= 3; i++ {
		w := get(e, "/")
		require.Equal(t, i > 1, isHit(w))
		require.Equal(t, []string{strconv.Itoa(i)}, w.Header()["X-Served"])
		require.Equal(t, []string{"200"}, w.Header()["X-Status"])
		require.Equal(t, []string{"X-Inside", "X-Outside"}, w.Header()["Vary"])
		require.Equal(t, []string{"hook"}, w.Header()["X-Handler"])
	}
}

func TestHooksFromOutsideRunWhenAnAnswerPassesThrough(t *testing.T) {
	e := newEcho()
	e.Use(func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c *echo.Context) error {
			response(c).Before(func() { c.Response().Header().Set("X-Hook", strconv.Itoa(response(c).Status)) })
			return next(c)
		}
	})
	e.GET("/", func(c *echo.Context) error {
		_, err := c.Response().Write([]byte("a"))
		response(c).Flush()
		return err
	}, echo5.Cache(newCache(t), "hour"))
	w := get(e, "/")
	require.Equal(t, "200", w.Header().Get("X-Hook"))
	require.True(t, w.Flushed)
}

func TestAResponseHeldFromBeforeIsCaptured(t *testing.T) {
	e, n := newEcho(), &runs{}
	e.GET("/", func(c *echo.Context) error {
		_, err := io.WriteString(c.Get("response").(http.ResponseWriter), n.text())
		return err
	}, holds, echo5.Cache(newCache(t), "hour"))
	require.Equal(t, "run 1", get(e, "/").Body.String())
	require.Equal(t, "run 1", get(e, "/").Body.String())
}

// holds keeps the writer that the context has here.
func holds(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c *echo.Context) error {
		c.Set("response", c.Response())
		return next(c)
	}
}

// swaps puts a writer of its own before the Response, as Echo's BodyDump does.
func swaps(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c *echo.Context) error {
		was := c.Response()
		defer c.SetResponse(was)
		c.SetResponse(&swapped{was})
		return next(c)
	}
}

type swapped struct{ http.ResponseWriter }

func (w *swapped) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// wraps puts a writer before the Response and a Response before that, as Echo's WrapMiddleware does.
func wraps(next echo.HandlerFunc) echo.HandlerFunc {
	return echo.WrapMiddleware(func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(&swapped{w}, r) })
	})(next)
}

func TestAnAnswerThatGoesPastTheCacheIsNotStored(t *testing.T) {
	held := func(c *echo.Context) http.ResponseWriter { return c.Get("response").(http.ResponseWriter) }
	for _, c := range []struct {
		name    string
		swap    echo.MiddlewareFunc
		handler func(c *echo.Context, run string) error
	}{
		{"all of it, past a writer", swaps, func(c *echo.Context, run string) error {
			_, err := io.WriteString(held(c), run)
			return err
		}},
		{"all of it, past a Response", wraps, func(c *echo.Context, run string) error {
			_, err := io.WriteString(held(c), run)
			return err
		}},
		{"its beginning", swaps, func(c *echo.Context, run string) error {
			_, _ = io.WriteString(held(c), run)
			return c.String(http.StatusOK, ", and more")
		}},
		{"its status", wraps, func(c *echo.Context, run string) error {
			held(c).WriteHeader(http.StatusAccepted)
			_, err := io.WriteString(c.Response(), run)
			return err
		}},
		{"an error besides", swaps, func(c *echo.Context, run string) error {
			_, _ = io.WriteString(held(c), run)
			return echo.ErrNotFound
		}},
		{"a server's error besides", wraps, func(c *echo.Context, run string) error {
			_, _ = io.WriteString(held(c), run)
			return echo.ErrBadGateway
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			// given
			n, m, e := &runs{}, &runs{}, newEcho()
			serve := func(n *runs) echo.HandlerFunc {
				return func(ec *echo.Context) error { return c.handler(ec, n.text()) }
			}
			e.GET("/bare", serve(m), holds, c.swap)
			e.GET("/cached", serve(n), holds, c.swap, echo5.Cache(newCache(t), "hour"))
			for range 3 {
				// when
				want, got := get(e, "/bare"), get(e, "/cached")
				// then: as without a cache, each time
				require.Equal(t, want.Code, got.Code)
				require.Equal(t, want.Body.String(), got.Body.String())
			}
			require.EqualValues(t, 3, n.Load())
		})
	}
}

func TestAnswersBehindSwappedWritersAreStored(t *testing.T) {
	for name, swap := range map[string]echo.MiddlewareFunc{"swaps": swaps, "wraps": wraps, "gzip": middleware.Gzip()} {
		for _, place := range []string{"outside", "inside"} {
			t.Run(name+" "+place, func(t *testing.T) {
				n, e, o := &runs{}, newEcho(), &outside{}
				cached := echo5.Cache(newCache(t), "hour")
				uses := []echo.MiddlewareFunc{o.middleware, swap, cached}
				if place == "inside" {
					uses = []echo.MiddlewareFunc{o.middleware, cached, swap}
				}
				e.GET("/", n.handler, uses...)
				for i := range 3 {
					w := get(e, "/")
					require.Equal(t, i > 0, isHit(w))
					require.Equal(t, "run 1", w.Body.String())
					require.Equal(t, outside{committed: true, status: http.StatusOK, size: 5, sameRequest: true}, *o)
				}
			})
		}
	}
}

func TestHeadOfAnAutomaticRouteIsAnsweredFromTheStore(t *testing.T) {
	for _, place := range []string{"route", "Use", "Pre"} {
		t.Run(place, func(t *testing.T) {
			e := echo.NewWithConfig(echo.Config{Router: echo.NewRouter(echo.RouterConfig{AutoHandleHEAD: true})})
			e.Logger = slog.New(slog.DiscardHandler)
			n, cached := &runs{}, echo5.Cache(newCache(t), "hour")
			page := func(c *echo.Context) error { return c.String(http.StatusOK, n.text()+strings.Repeat("x", 5_000)) }
			switch place {
			case "Use":
				e.Use(cached)
				e.GET("/", page)
			case "Pre":
				e.Pre(cached)
				e.GET("/", page)
			default:
				e.GET("/", page, cached)
			}
			srv := httptest.NewServer(e)
			defer srv.Close()
			defer http.DefaultClient.CloseIdleConnections()
			ask := func(method string, fields ...string) *http.Response {
				r, err := http.NewRequestWithContext(t.Context(), method, srv.URL, nil)
				require.NoError(t, err)
				for i := 0; i < len(fields); i += 2 {
					r.Header.Set(fields[i], fields[i+1])
				}
				resp, err := http.DefaultClient.Do(r)
				require.NoError(t, err)
				_, err = io.Copy(io.Discard, resp.Body)
				require.NoError(t, err)
				require.NoError(t, resp.Body.Close())
				return resp
			}
			// when: a HEAD misses
			miss := ask(http.MethodHead)
			// then: it runs the handler, and is not stored
			require.EqualValues(t, 5_005, miss.ContentLength)
			require.EqualValues(t, 1, n.Load())
			// when: the response to GET is stored
			got := ask(http.MethodGet)
			require.EqualValues(t, 2, n.Load())
			// then: HEAD has its fields
			hit := ask(http.MethodHead)
			require.Contains(t, hit.Header.Get("Cache-Status"), "; hit")
			require.Equal(t, got.ContentLength, hit.ContentLength)
			require.Equal(t, got.Header["Etag"], hit.Header["Etag"])
			not := ask(http.MethodHead, "If-None-Match", got.Header.Get("Etag"))
			require.Equal(t, http.StatusNotModified, not.StatusCode)
			require.EqualValues(t, 2, n.Load())
		})
	}
}

func TestBehindARealServer(t *testing.T) {
	e := newEcho()
	cached := echo5.Cache(newCache(t), "hour")
	e.GET("/hints", func(c *echo.Context) error {
		h := c.Response().Header()
		h.Set("Link", "</style.css>; rel=preload")
		response(c).ResponseWriter.WriteHeader(http.StatusEarlyHints)
		h.Del("Link")
		if response(c).Committed {
			return errors.New("committed by a 103")
		}
		return c.String(http.StatusCreated, "made")
	}, cached)
	release := make(chan struct{})
	e.GET("/stream", func(c *echo.Context) error {
		rc := http.NewResponseController(c.Response())
		if err := rc.SetWriteDeadline(time.Now().Add(time.Minute)); err != nil {
			return err
		}
		_, _ = io.WriteString(c.Response(), "first\n")
		if err := rc.Flush(); err != nil {
			return err
		}
		<-release
		_, err := io.WriteString(c.Response(), "second\n")
		return err
	}, cached)
	e.GET("/hijack", func(c *echo.Context) error {
		conn, rw, err := response(c).Hijack()
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		_, _ = rw.WriteString("HTTP/1.1 299 Mine\r\nContent-Length: 0\r\n\r\n")
		return rw.Flush()
	}, cached)
	srv := httptest.NewServer(e)
	defer srv.Close()
	defer http.DefaultClient.CloseIdleConnections()

	ask := func(path string) (*http.Response, *[]int) {
		var early []int
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(code int, _ textproto.MIMEHeader) error { early = append(early, code); return nil },
		})
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, srv.URL+path, nil)
		require.NoError(t, err)
		resp, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		t.Cleanup(func() { _ = resp.Body.Close() })
		return resp, &early
	}

	resp, early := ask("/hints")
	require.Equal(t, http.StatusCreated, resp.StatusCode)
	require.Equal(t, []int{http.StatusEarlyHints}, *early)
	require.Empty(t, resp.Header["Link"])

	resp, _ = ask("/stream")
	lines := bufio.NewReader(resp.Body)
	line, err := lines.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "first\n", line)
	close(release)
	line, err = lines.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "second\n", line)
	require.Contains(t, resp.Header.Get("Cache-Status"), "streamed")

	resp, _ = ask("/hijack")
	require.Equal(t, 299, resp.StatusCode)
}

// pusher is a server's writer of HTTP/2.
type pusher struct {
	*httptest.ResponseRecorder
	pushed []string
}

func (p *pusher) Push(target string, _ *http.PushOptions) error {
	p.pushed = append(p.pushed, target)
	return nil
}

func TestPush(t *testing.T) {
	e := newEcho()
	e.GET("/", func(c *echo.Context) error {
		if err := response(c).ResponseWriter.(http.Pusher).Push("/style.css", nil); err != nil {
			return err
		}
		return c.String(http.StatusOK, "pushed")
	}, echo5.Cache(newCache(t), "hour"))
	w := &pusher{ResponseRecorder: httptest.NewRecorder()}
	e.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	require.Equal(t, "pushed", w.Body.String())
	require.Equal(t, []string{"/style.css"}, w.pushed)
}
