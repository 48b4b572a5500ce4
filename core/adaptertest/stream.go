package adaptertest

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/stretchr/testify/require"
)

// Elsewhere: event streams were buffered whole, and Flush, Hijack and http.ResponseController
// stopped working. A stream passes through unchanged.
func streamCases() []testCase {
	return []testCase{
		within("events pass one by one and are not stored", func(s *site) {
			p := &page{}
			var gates []*gate
			for range 3 {
				gates = append(gates, s.gate())
			}
			s.handle("GET /events", func(c Ctx) error {
				p.enter()
				c.Set("Content-Type", "text/event-stream")
				return c.Stream(func(w io.Writer, flush func()) {
					for i, g := range gates {
						_, _ = fmt.Fprintf(w, "data: %d\n\n", i)
						flush()
						g.wait()
					}
				})
			}, s.cached("hour"))
			x, err := s.begin(target("/events"))
			require.NoError(s, err)
			defer x.leave()
			resp, a := x.head()
			a.says("Larder; fwd=uri-miss; detail=streamed")
			require.Equal(s, []string{"text/event-stream"}, a.header.Values("Content-Type"))
			r := bufio.NewReader(resp.Body)
			for i, g := range gates {
				line, err := r.ReadString('\n')
				require.NoError(s, err)
				require.Equal(s, fmt.Sprintf("data: %d\n", i), line)
				_, err = r.ReadString('\n')
				require.NoError(s, err)
				g.open()
			}
			_, err = r.ReadByte()
			require.ErrorIs(s, err, io.EOF)
			s.get("/events").is("data: 0\n\ndata: 1\n\ndata: 2\n\n").isNoHit()
			require.EqualValues(s, 2, p.runs.Load())
		}),

		within("waiting requests are not delayed by a stream", func(s *site) {
			p := &page{}
			start, end := s.gate(), s.gate()
			s.handle("GET /events", func(c Ctx) error {
				p.enter()
				start.wait()
				return c.Stream(func(w io.Writer, flush func()) {
					_, _ = io.WriteString(w, "first ")
					flush()
					end.wait()
					_, _ = io.WriteString(w, "last")
				})
			}, s.cached("hour"))
			all := s.starts(4, "GET", "/events")
			s.waiting(3)
			start.open()
			s.settles(func() bool { return p.runs.Load() == 4 }, "all are in the handler")
			end.open()
			for _, a := range all {
				a.answer().is("first last")
			}
			s.get("/events").is("first last").isNoHit()
		}),

		within("a stream ends when its client disconnects", func(s *site) {
			ended := make(chan struct{})
			s.handle("GET /events", func(c Ctx) error {
				ctx := c.Context()
				return c.Stream(func(w io.Writer, flush func()) {
					_, _ = io.WriteString(w, "first ")
					flush()
					<-ctx.Done()
					close(ended)
				})
			}, s.cached("hour"))
			x, err := s.begin(target("/events"))
			require.NoError(s, err)
			_, a := x.head()
			require.NoError(s, a.err)
			x.leave()
			s.settles(func() bool {
				select {
				case <-ended:
					return true
				default:
					return false
				}
			}, "the handler's context has ended")
		}, noClientCancel),

		within("a stream with waiting requests ends when its client disconnects", func(s *site) {
			p := &page{hold: s.gate()}
			var ended, left int
			s.handle("GET /events", func(c Ctx) error {
				if p.enter() > 1 {
					return c.Text(200, "second")
				}
				p.hold.wait()
				ctx := c.Context()
				return c.Stream(func(w io.Writer, flush func()) {
					_, _ = io.WriteString(w, "first ")
					flush()
					<-ctx.Done()
					ended++
				})
			}, s.cached("hour"))
			x, err := s.begin(target("/events"))
			require.NoError(s, err)
			s.settles(func() bool { return p.in.Load() == 1 }, "the leader is in the handler")
			other := s.start("GET", "/events")
			s.waiting(1)
			x.leave() // while the other client still waits
			left++
			s.settles(func() bool { return true }, "the server has noticed")
			p.hold.open()
			other.answer().is("second")
			s.settles(func() bool { return ended == left }, "the stream has ended")
		}, noClientCancel),

		within("an oversized response passes as it is written", func(s *site) {
			g := s.gate()
			part := strings.Repeat("x", 100_000)
			s.handle("GET /p/{id}", func(c Ctx) error {
				if _, err := c.Write([]byte(part)); err != nil {
					return err
				}
				g.wait()
				_, err := c.Write([]byte(part))
				return err
			}, s.cached("small"))
			x, err := s.begin(target("/p/1"))
			require.NoError(s, err)
			defer x.leave()
			resp, a := x.head()
			a.says("Larder; fwd=uri-miss; detail=too-large")
			_, err = io.CopyN(io.Discard, resp.Body, 90_000) // while the handler runs
			require.NoError(s, err)
			g.open()
			n, err := io.Copy(io.Discard, resp.Body)
			require.NoError(s, err)
			require.EqualValues(s, 2*len(part)-90_000, n)
		}, noResponseWriter),

		within("a response known to be uncacheable passes as it is written", func(s *site) {
			g := s.gate()
			part := strings.Repeat("x", 100_000)
			s.handle("GET /p/{id}", func(c Ctx) error {
				c.Set("Cache-Control", "no-store")
				if _, err := c.Write([]byte(part)); err != nil {
					return err
				}
				g.wait()
				_, err := io.WriteString(c.ResponseWriter(), "end")
				return err
			}, s.cached("hour"))
			x, err := s.begin(target("/p/1"))
			require.NoError(s, err)
			defer x.leave()
			resp, a := x.head()
			a.says("Larder; fwd=uri-miss; detail=no-store")
			_, err = io.CopyN(io.Discard, resp.Body, 90_000)
			require.NoError(s, err)
			g.open()
			rest, err := io.ReadAll(resp.Body)
			require.NoError(s, err)
			require.True(s, strings.HasSuffix(string(rest), "xend"))
		}, noResponseWriter),

		over("http.Flusher and a ResponseController's Flush and deadlines work", func(s *site) {
			ways := map[string]func(w http.ResponseWriter) error{
				"flusher": func(w http.ResponseWriter) error { w.(http.Flusher).Flush(); return nil },
				"controller": func(w http.ResponseWriter) error {
					return http.NewResponseController(w).Flush()
				},
				"deadlines": func(w http.ResponseWriter) error {
					c := http.NewResponseController(w)
					if err := c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
						return err
					}
					if err := c.SetWriteDeadline(time.Now().Add(time.Minute)); err != nil {
						return err
					}
					return c.Flush()
				},
			}
			s.handle("GET /p/{id}", func(c Ctx) error {
				if _, err := c.Write([]byte("hello ")); err != nil {
					return err
				}
				if err := ways[c.Param("id")](c.ResponseWriter()); err != nil {
					return c.Text(500, err.Error())
				}
				_, err := c.Write([]byte("world"))
				return err
			}, s.cached("hour"))
			for way := range ways {
				s.get("/p/" + way).is("hello world").says("Larder; fwd=uri-miss; detail=streamed")
			}
		}, noResponseWriter),

		over("an empty flush sends the header", func(s *site) {
			g := s.gate()
			s.handle("GET /p/{id}", func(c Ctx) error {
				c.Set("X-A", "1")
				c.ResponseWriter().(http.Flusher).Flush()
				g.wait()
				_, err := c.Write([]byte("hello"))
				return err
			}, s.cached("hour"))
			x, err := s.begin(target("/p/1"))
			require.NoError(s, err)
			defer x.leave()
			resp, a := x.head()
			require.NoError(s, a.err)
			require.Equal(s, "1", a.header.Get("X-A"))
			g.open()
			body, err := io.ReadAll(resp.Body)
			require.NoError(s, err)
			require.Equal(s, "hello", string(body))
		}, noResponseWriter),

		over("a handler can hijack the connection", func(s *site) {
			hijack := func(c Ctx) error {
				conn, rw, err := http.NewResponseController(c.ResponseWriter()).Hijack()
				if err != nil {
					return c.Text(500, err.Error())
				}
				defer conn.Close()
				_, _ = rw.WriteString("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhijacked")
				return rw.Flush()
			}
			s.handle("GET /p/{id}", hijack, s.cached("hour"))
			s.handle("POST /p/{id}", hijack, s.invalidates("p:{id}"))
			for range 2 {
				s.get("/p/1").is("hijacked").isNoHit()
			}
			s.do("POST", "/p/1").is("hijacked")
			s.get("/p/1").is("hijacked").isNoHit()
		}, noResponseWriter),

		over("http.Hijacker works as well", func(s *site) {
			s.handle("GET /p/{id}", func(c Ctx) error {
				conn, _, err := c.ResponseWriter().(http.Hijacker).Hijack()
				if err != nil {
					return c.Text(500, err.Error())
				}
				defer conn.Close()
				_, err = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhijacked")
				return err
			}, s.cached("hour"))
			s.get("/p/1").is("hijacked").isNoHit()
		}, noResponseWriter),

		over("a declined Upgrade request is a bypass", func(s *site) {
			p := &page{}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			s.get("/p/1").is("run 1")
			s.get("/p/1", "Connection: Upgrade", "Upgrade: echo").is("run 2").says("Larder; fwd=bypass; detail=upgrade")
			s.get("/p/1").is("run 1").isHit()
		}),

		over("an Upgrade request is a bypass", func(s *site) {
			s.handle("GET /ws", func(c Ctx) error {
				conn, _, err := http.NewResponseController(c.ResponseWriter()).Hijack()
				if err != nil {
					return c.Text(500, err.Error())
				}
				defer conn.Close()
				_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n")
				line, err := bufio.NewReader(conn).ReadString('\n')
				_, _ = io.WriteString(conn, "echo "+line)
				return err
			}, s.cached("hour"))
			for range 2 {
				x, err := s.begin(request{method: "GET", target: "/ws", fields: []string{"Connection: Upgrade", "Upgrade: echo"}})
				require.NoError(s, err)
				_, a := x.head()
				require.NoError(s, a.err)
				require.Equal(s, 101, a.status)
				_, err = io.WriteString(x.conn, "hello\n")
				require.NoError(s, err)
				line, err := x.r.ReadString('\n')
				require.NoError(s, err)
				require.Equal(s, "echo hello\n", line)
				x.leave()
			}
		}, noResponseWriter),

		over("io.ReaderFrom works on captured and passing responses", func(s *site) {
			small, large := strings.Repeat("x", 900), strings.Repeat("y", 100_000)
			s.handle("GET /p/{id}", func(c Ctx) error {
				// io.Copy uses io.ReaderFrom where the writer has it.
				if c.Param("id") == "large" {
					if _, err := io.Copy(c.ResponseWriter(), reader(large)); err != nil {
						return err
					}
				}
				n, err := io.Copy(c.ResponseWriter(), reader(small))
				if err == nil && n != int64(len(small)) {
					panic(fmt.Sprint("short: ", n))
				}
				return err
			}, s.cached("small"))
			s.get("/p/small").is(small).says("Larder; fwd=uri-miss; stored")
			s.get("/p/small").is(small).isHit()
			s.get("/p/large").is(large + small).says("Larder; fwd=uri-miss; detail=too-large")
			s.get("/p/large").is(large + small).isNoHit()
		}, noResponseWriter),
	}
}
