package adaptertest

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
)

// herd returns the number of concurrent requests: 50, or the value of LARDER_HERD.
func herd() int {
	if n, err := strconv.Atoi(os.Getenv("LARDER_HERD")); err == nil && n > 1 {
		return n
	}
	return 50
}

// The promise "one load".
func stampedeCases() []testCase {
	n := herd()
	return []testCase{
		within("concurrent misses of one URL run the handler once", func(s *site) {
			p := &page{hold: s.gate()}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			all := s.starts(n, "GET", "/p/1")
			s.waiting(int64(n) - 1)
			at := time.Now()
			p.hold.open()
			said := map[string]int{}
			for _, a := range all {
				said[a.answer().is("run 1").cacheStatus()]++
			}
			require.Equal(s, map[string]int{"Larder; fwd=uri-miss; stored": 1, "Larder; fwd=uri-miss; collapsed": n - 1}, said)
			require.EqualValues(s, 1, p.runs.Load())
			require.Zero(s, time.Since(at), "who waits is woken, and does not poll")
		}),

		within("waiting requests get the whole response: status, fields, body", func(s *site) {
			p := &page{hold: s.gate(), status: 301, fields: []string{"Location: /p/2", "Link: </a>", "Link: </b>"}}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			all := s.starts(3, "GET", "/p/1")
			s.waiting(2)
			p.hold.open()
			for _, a := range all {
				a := a.answer()
				require.Equal(s, 301, a.status)
				require.Equal(s, "run 1", a.body)
				require.Equal(s, []string{"/p/2"}, a.header.Values("Location"))
				require.Equal(s, []string{"</a>", "</b>"}, a.header.Values("Link"))
				if a.cacheStatus() == "Larder; fwd=uri-miss; collapsed" {
					require.Equal(s, []string{"0"}, a.header.Values("Age"))
				}
			}
		}),

		// Elsewhere: one lock for all keys was held during I/O.
		within("requests for one URL do not wait for another's", func(s *site) {
			slow := &page{hold: s.gate()}
			s.handle("GET /slow", slow.serve, s.cached("hour"))
			s.handle("GET /fast", (&page{}).serve, s.cached("hour"))
			a := s.start("GET", "/slow")
			s.settles(func() bool { return slow.in.Load() == 1 }, "the slow one is in its handler")
			start := time.Now()
			s.get("/fast").is("run 1")
			require.Zero(s, time.Since(start), "the fast one has waited")
			slow.hold.open()
			a.answer().is("run 1")
		}),

		// Elsewhere: a panic of the leader reached every waiting request, or ended the process.
		within("a leader that panics does not fail the waiting requests", func(s *site) {
			p := &page{hold: s.gate()}
			p.body = func(_ Ctx, run int64) string {
				if run == 1 {
					panic(http.ErrAbortHandler)
				}
				return fmt.Sprint("run ", run)
			}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			leader := s.start("GET", "/p/1")
			s.settles(func() bool { return p.in.Load() == 1 }, "the leader is in the handler")
			others := s.starts(n-1, "GET", "/p/1")
			s.waiting(int64(n) - 1)
			p.hold.open()
			for _, a := range others {
				a := a.answer()
				require.NoError(s, a.err)
				require.Equal(s, 200, a.status)
				require.NotEmpty(s, a.body)
			}
			a := leader.answer()
			require.False(s, a.err == nil && a.status == 200, "%d %q", a.status, a.body)
			require.LessOrEqual(s, p.runs.Load(), int64(1+maxLoads))
			s.get("/p/1").isHit()
		}),

		within("a panic does not block the URL", func(s *site) {
			p := &page{body: func(_ Ctx, run int64) string {
				if run == 1 {
					panic(http.ErrAbortHandler)
				}
				return fmt.Sprint("run ", run)
			}}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			s.get("/p/1")
			s.get("/p/1").is("run 2").says("Larder; fwd=uri-miss; stored")
		}),

		// Elsewhere: the leader's client left, and every waiting request got its cancellation.
		within("a leader whose client disconnects answers the waiting requests", func(s *site) {
			var ended atomic.Bool
			p := &page{hold: s.gate()}
			p.body = func(c Ctx, run int64) string {
				ended.Store(c.Context().Err() != nil)
				return fmt.Sprint("run ", run)
			}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			x, err := s.begin(target("/p/1"))
			require.NoError(s, err)
			s.settles(func() bool { return p.in.Load() == 1 }, "the leader is in the handler")
			others := s.starts(n-1, "GET", "/p/1")
			s.waiting(int64(n) - 1)
			x.leave()
			s.settles(func() bool { return true }, "the server has noticed")
			p.hold.open()
			for _, a := range others {
				a.answer().is("run 1").says("Larder; fwd=uri-miss; collapsed")
			}
			require.False(s, ended.Load(), "the handler's context ended with its client")
			s.get("/p/1").is("run 1").isHit()
		}),

		within("a handler without a waiting client is cancelled and not stored", func(s *site) {
			var ended atomic.Bool
			p := &page{}
			p.body = func(c Ctx, run int64) string {
				if run == 1 {
					<-c.Context().Done()
					ended.Store(true)
				}
				return fmt.Sprint("run ", run)
			}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			x, err := s.begin(target("/p/1"))
			require.NoError(s, err)
			s.settles(func() bool { return s.cache.Stats().Loads == 1 }, "the handler runs")
			x.leave()
			s.settles(ended.Load, "the handler's context has ended")
			s.get("/p/1").is("run 2").says("Larder; fwd=uri-miss; stored")
		}, noClientCancel),

		within("a handler is cancelled when its last waiting client disconnects", func(s *site) {
			var ended atomic.Bool
			s.handle("GET /p/{id}", func(c Ctx) error {
				<-c.Context().Done()
				ended.Store(true)
				return c.Text(200, "late")
			}, s.cached("hour"))
			var all []*exchange
			for i := range 3 {
				x, err := s.begin(target("/p/1"))
				require.NoError(s, err)
				all = append(all, x)
				s.settles(func() bool { return s.cache.Stats().Loads+s.cache.Stats().Coalesced == int64(i+1) }, "it runs, or waits")
			}
			for _, x := range all {
				require.False(s, ended.Load())
				x.leave()
				s.settles(func() bool { return true }, "the server has noticed")
			}
			require.True(s, ended.Load())
		}, noClientCancel),

		within("a handler's context has its client's deadline and end", func(s *site) {
			var left time.Duration
			var err error
			s.handle("GET /p/{id}", func(c Ctx) error {
				deadline, _ := c.Context().Deadline()
				left = time.Until(deadline)
				<-c.Context().Done()
				err = c.Context().Err()
				return c.Text(200, "late")
			}, Around(func(c Ctx, next func() error) error {
				ctx, cancel := context.WithTimeout(c.Context(), time.Second)
				defer cancel()
				c.SetContext(ctx)
				return next()
			}), s.cached("hour"))
			s.get("/p/1").isNoHit()
			require.Equal(s, time.Second, left)
			require.Equal(s, context.DeadlineExceeded, err)
		}),

		within("a handler without its client has LoadTimeout for waiting requests", func(s *site) {
			var ended atomic.Int64
			start := time.Now()
			s.handle("GET /p/{id}", func(c Ctx) error {
				if s.cache.Stats().Coalesced > 0 {
					time.Sleep(time.Second) // the others wait for it
					return c.Text(200, "second")
				}
				<-c.Context().Done()
				ended.Store(int64(time.Since(start)))
				return c.Text(503, "cancelled")
			}, s.cached("load-timeout"))
			x, err := s.begin(target("/p/1"))
			require.NoError(s, err)
			s.settles(func() bool { return s.cache.Stats().Loads == 1 }, "the handler runs")
			all := s.starts(n, "GET", "/p/1") // more than run after LoadTimeout
			s.waiting(int64(n))
			x.leave()
			for _, a := range all {
				a.answer().is("second")
			}
			require.EqualValues(s, 10*time.Second, ended.Load())
		}, noClientCancel),

		within("a 5xx that streams to no client ends at once", func(s *site) {
			g := s.gate()
			start := time.Now()
			s.handle("GET /p/{id}", func(c Ctx) error {
				if s.cache.Stats().LoadErrors > 0 {
					return c.Text(200, "second")
				}
				g.wait()
				c.Status(503)
				return c.Stream(func(w io.Writer, flush func()) {
					_, _ = io.WriteString(w, "broken\n")
					flush()
					<-c.Context().Done()
				})
			}, s.cached("load-timeout"))
			x, err := s.begin(target("/p/1"))
			require.NoError(s, err)
			s.settles(func() bool { return s.cache.Stats().Loads == 1 }, "the handler runs")
			a := s.start("GET", "/p/1")
			s.waiting(1)
			x.leave()
			s.settles(func() bool { return true }, "the server has noticed")
			g.open()
			a.answer().is("second")
			require.Zero(s, time.Since(start), "the request has waited for LoadTimeout")
		}, noClientCancel, noResponseWriter),

		within("a waiting client that disconnects affects no other", func(s *site) {
			p := &page{hold: s.gate()}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			leader := s.start("GET", "/p/1")
			s.settles(func() bool { return p.in.Load() == 1 }, "the leader is in the handler")
			x, err := s.begin(target("/p/1"))
			require.NoError(s, err)
			other := s.start("GET", "/p/1")
			s.waiting(2)
			x.leave()
			s.settles(func() bool { return true }, "the server has noticed")
			p.hold.open()
			leader.answer().is("run 1")
			other.answer().is("run 1").says("Larder; fwd=uri-miss; collapsed")
			require.EqualValues(s, 1, p.runs.Load())
		}),

		// Elsewhere: a waiting request got an empty response when its leader's run failed.
		within("after a 5xx at most MaxLoadsAfterError handlers run concurrently", func(s *site) {
			first, rest := s.gate(), s.gate()
			p := &page{status: 503}
			p.began = func(Ctx) {
				if p.runs.Load() == 1 {
					first.wait()
				} else {
					rest.wait()
				}
			}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			all := s.starts(n, "GET", "/p/1")
			s.waiting(int64(n) - 1)
			first.open()
			s.settles(func() bool { return p.in.Load() == maxLoads }, "as many as may are in the handler")
			rest.open()
			for _, a := range all {
				a := a.answer()
				require.NoError(s, a.err)
				require.Equal(s, 503, a.status)
				require.Contains(s, a.body, "run ")
			}
			require.EqualValues(s, maxLoads, p.most.Load())
			require.EqualValues(s, n, p.runs.Load())
		}),

		within("MaxLoadsAfterError holds after an uncacheable 5xx", func(s *site) {
			for _, c := range []struct {
				class string
				h     func(c Ctx) error
				std   bool
			}{
				{"hour", func(c Ctx) error { c.Set("Cache-Control", "no-store"); return c.Text(500, "broken") }, false},
				{"hour", func(c Ctx) error { c.Set("Set-Cookie", "a=1"); return c.Text(502, "broken") }, false},
				{"small", func(c Ctx) error {
					c.Set("Cache-Control", "max-age=60")
					return c.Text(503, strings.Repeat("broken", 1000))
				}, true},
			} {
				if c.std && s.f.NoResponseWriter {
					continue
				}
				s := newSite(s.TB, s.f, s.by)
				first, rest := s.gate(), s.gate()
				p := &page{}
				s.handle("GET /p/{id}", func(ctx Ctx) error {
					gate := rest
					if p.enter() == 1 {
						gate = first
					}
					gate.wait()
					defer p.in.Add(-1)
					return c.h(ctx)
				}, s.cached(c.class))
				all := s.starts(n, "GET", "/p/1")
				s.waiting(int64(n) - 1)
				first.open()
				s.settles(func() bool { return p.in.Load() == maxLoads }, "as many as may are in the handler")
				rest.open()
				for _, a := range all {
					require.GreaterOrEqual(s, a.answer().status, 500)
				}
			}
		}),

		within("a success after a 5xx is shared with all waiting requests", func(s *site) {
			p := &page{hold: s.gate()}
			s.handle("GET /p/{id}", func(c Ctx) error {
				if p.runs.Load() == 0 {
					p.hold.wait()
					p.runs.Add(1)
					return c.Text(500, "broken")
				}
				return p.serve(c)
			}, s.cached("hour"))
			all := s.starts(n, "GET", "/p/1")
			s.waiting(int64(n) - 1)
			p.hold.open()
			ok := 0
			for _, a := range all {
				if a.answer().status == 200 {
					ok++
				}
			}
			require.Equal(s, n-1, ok)
			require.LessOrEqual(s, p.runs.Load(), int64(1+maxLoads))
		}),

		within("waiting requests run an uncacheable response themselves", func(s *site) {
			for _, status := range []int{302, 404, 403} {
				s := newSite(s.TB, s.f, s.by)
				first, rest := s.gate(), s.gate()
				p := &page{status: status}
				p.began = func(Ctx) {
					if p.runs.Load() == 1 {
						first.wait()
					} else {
						rest.wait()
					}
				}
				s.handle("GET /p/{id}", p.serve, s.cached("hour"))
				all := s.starts(10, "GET", "/p/1")
				s.waiting(9)
				first.open()
				s.settles(func() bool { return p.in.Load() == 9 }, "all who waited are in the handler")
				rest.open()
				for _, a := range all {
					require.Equal(s, status, a.answer().status)
				}
			}
		}),

		within("waiting requests each get the framework's answer to an error", func(s *site) {
			var runs atomic.Int64
			g := s.gate()
			s.handle("GET /p/{id}", func(Ctx) error {
				runs.Add(1)
				g.wait()
				return s.f.Error(500)
			}, s.cached("hour"))
			all := s.starts(10, "GET", "/p/1")
			s.waiting(9)
			g.open()
			for _, a := range all {
				a := a.answer()
				require.NoError(s, a.err)
				require.Equal(s, 500, a.status)
				require.NotEmpty(s, a.body)
			}
			require.EqualValues(s, 10, runs.Load())
		}, noErrors),

		within("waiting requests run beside a load that exceeds LoadTimeout", func(s *site) {
			slow, rest := s.gate(), s.gate()
			p := &page{}
			p.began = func(Ctx) {
				if p.runs.Load() == 1 {
					slow.wait()
				} else {
					rest.wait()
				}
			}
			s.handle("GET /p/{id}", p.serve, s.cached("load-timeout"))
			all := s.starts(n, "GET", "/p/1")
			s.waiting(int64(n) - 1)
			time.Sleep(10*time.Second - time.Nanosecond)
			s.settles(func() bool { return p.in.Load() == 1 }, "only the leader is in the handler")
			time.Sleep(time.Second)
			s.settles(func() bool { return p.in.Load() == 1+maxLoads }, "MaxLoadsAfterError more are in the handler")
			rest.open()
			answered := func() (n int) {
				for _, a := range all {
					if a.ended() {
						n++
					}
				}
				return n
			}
			s.settles(func() bool { return answered() == n-1 }, "all but the leader are answered")
			slow.open()
			for _, a := range all {
				a.answer()
			}
		}),

		// Elsewhere: the wait for a lock had no limit.
		within("no request waits longer than twice LoadTimeout", func(s *site) {
			p := &page{hold: s.gate()}
			s.handle("GET /p/{id}", p.serve, s.cached("load-timeout"))
			all := s.starts(10, "GET", "/p/1")
			s.waiting(9)
			ended := func() (n int) {
				for _, a := range all {
					if a.ended() {
						n++
					}
				}
				return n
			}
			time.Sleep(20*time.Second - time.Nanosecond)
			s.settles(func() bool { return ended() == 0 }, "those who do not run wait")
			time.Sleep(time.Nanosecond)
			s.settles(func() bool { return ended() == 9-maxLoads }, "they have been answered")
			require.EqualValues(s, 1+maxLoads, p.runs.Load())
			p.hold.open()
			said := map[int]int{}
			for _, a := range all {
				said[a.answer().status]++
			}
			require.Equal(s, map[int]int{200: 1 + maxLoads, 503: 9 - maxLoads}, said)
			s.get("/p/1").isHit()
		}),

		within("a leader whose client reads slowly delays no other request", func(s *site) {
			body := strings.Repeat("0123456789", 20_000)
			p := &page{hold: s.gate(), body: func(Ctx, int64) string { return body }}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			x, err := s.begin(target("/p/1")) // the client reads nothing, and the pipe has no buffer
			require.NoError(s, err)
			defer x.leave()
			s.settles(func() bool { return p.in.Load() == 1 }, "the leader is in the handler")
			others := s.starts(5, "GET", "/p/1")
			s.waiting(5)
			p.hold.open()
			for _, a := range others {
				a.answer().is(body).says("Larder; fwd=uri-miss; collapsed")
			}
			s.get("/p/1").is(body).isHit()
			x.finish().is(body)
		}),

		within("a HEAD that misses does not collapse", func(s *site) {
			p := &page{hold: s.gate()}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			all := []*pending{s.start("HEAD", "/p/1")}
			s.settles(func() bool { return p.in.Load() == 1 }, "the HEAD is in the handler")
			all = append(all, s.start("GET", "/p/1"))
			s.settles(func() bool { return p.in.Load() == 2 }, "the GET is in the handler as well")
			all = append(all, s.start("HEAD", "/p/1"))
			s.settles(func() bool { return p.in.Load() == 3 }, "the second HEAD is in the handler as well")
			p.hold.open()
			for _, a := range all {
				require.Equal(s, 200, a.answer().status)
			}
		}),

		within("waiting requests that say no-cache share one run", func(s *site) {
			p := &page{}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			s.get("/p/1").is("run 1")
			p.hold = s.gate()
			all := s.starts(10, "GET", "/p/1", "Cache-Control: no-cache")
			s.waiting(9)
			s.get("/p/1").is("run 1").isHit() // the others are answered meanwhile
			p.hold.open()
			for _, a := range all {
				a.answer().is("run 2").isNoHit()
			}
			s.get("/p/1").is("run 2").isHit()
		}),

		// Elsewhere: a request that began after an invalidation waited for a load that had begun
		// before it, and got the old value.
		within("a request after an invalidation does not join an earlier load", func(s *site) {
			for _, named := range []struct {
				name   string
				target core.Target
			}{
				{"tag", core.Tag("p:1")}, {"path", core.Path("/p/1")}, {"all", core.All()},
				{"pattern", core.Pattern("http://" + origin + "/p/*")}, {"key", core.Key("http://" + origin + "/p/1")},
			} {
				s := newSite(s.TB, s.f, s.by)
				p := &page{hold: s.gate()}
				second := s.gate()
				p.began = func(Ctx) {
					if p.runs.Load() > 1 {
						second.wait()
					}
				}
				s.handle("GET /p/{id}", p.serve, s.cached("hour", "p:{id}"))
				before := s.starts(3, "GET", "/p/1")
				s.waiting(2)
				s.invalidate(named.target)
				after := s.starts(3, "GET", "/p/1")
				s.settles(func() bool { return p.in.Load() == 2 }, "one who came after "+named.name+" is in the handler")
				p.hold.open()
				for _, a := range before {
					a.answer().is("run 1")
				}
				second.open()
				for _, a := range after {
					a.answer().is("run 2")
				}
				s.get("/p/1").is("run 2").isHit()
			}
		}),

		within("a waiting request ends when its own context ends", func(s *site) {
			p := &page{hold: s.gate()}
			s.handle("GET /p/{id}", p.serve, Around(func(c Ctx, next func() error) error {
				if len(c.Values("X-Deadline")) == 0 {
					return next()
				}
				ctx, cancel := context.WithTimeout(c.Context(), time.Second)
				defer cancel()
				c.SetContext(ctx)
				return next()
			}), s.cached("hour"))
			leader := s.start("GET", "/p/1")
			s.settles(func() bool { return p.in.Load() == 1 }, "the leader is in the handler")
			impatient := s.start("GET", "/p/1", "X-Deadline: 1")
			s.waiting(1)
			time.Sleep(time.Second)
			s.settles(impatient.ended, "it has been answered")
			a := impatient.answer()
			require.Equal(s, 503, a.status)
			require.Equal(s, "Larder; detail=gave-up-waiting", a.cacheStatus())
			require.EqualValues(s, 1, p.runs.Load())
			p.hold.open()
			leader.answer().is("run 1")
		}),
	}
}
