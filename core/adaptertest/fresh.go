package adaptertest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
)

// Freshness, staleness and refreshes. Time in a bubble passes only in time.Sleep, so that
// each edge is met to the nanosecond.
func freshCases() []testCase {
	var cases []testCase
	for _, c := range []struct {
		fields   string // one line each
		expires  time.Duration
		lifetime time.Duration
	}{
		{"Cache-Control: max-age=10", 0, 10 * time.Second},
		{"Cache-Control: max-age=120", 0, 2 * time.Minute},
		{"Cache-Control: s-maxage=20, max-age=10", 0, 20 * time.Second},
		{"Cache-Control: max-age=10|Cache-Control: s-maxage=20", 0, 20 * time.Second},
		{"Cache-Control: max-age=20, max-age=10", 0, 10 * time.Second},
		{`Cache-Control: MAX-AGE="10"`, 0, 10 * time.Second},
		{"Cache-Control: max-age=10", time.Hour, 10 * time.Second},
		{"X-A: 1", 30 * time.Second, 30 * time.Second},
		{"Cache-Control: public", 30 * time.Second, 30 * time.Second},
		{"Cache-Control: max-age=10|Age: 4", 0, 6 * time.Second},
		{"Cache-Control: max-age=10|Age: 4,9", 0, 6 * time.Second},
		{"Cache-Control: public", 0, time.Minute},
		{"Age: 20", 0, 40 * time.Second},
	} {
		name := "a lifetime that the response states: " + c.fields
		if c.expires > 0 {
			name += "|Expires: in " + c.expires.String()
		}
		cases = append(cases, within(name, func(s *site) {
			p := &page{fields: strings.Split(c.fields, "|")}
			if c.expires > 0 { // the bubble's time is whole seconds here, as dates are
				p.fields = append(p.fields, "Expires: "+time.Now().Add(c.expires).UTC().Format(http.TimeFormat))
			}
			s.handle("GET /p/{id}", p.serve, s.cached("minute"))
			s.get("/p/1").is("run 1").says("Larder; fwd=uri-miss; stored")
			time.Sleep(c.lifetime - time.Nanosecond)
			s.get("/p/1").is("run 1").isHit()
			time.Sleep(time.Nanosecond)
			s.get("/p/1").is("run 2").isNoHit()
		}))
	}
	return append(cases, []testCase{
		within("a response is fresh for its class's TTL, to the end and no longer", func(s *site) {
			p := &page{}
			s.handle("GET /p/{id}", p.serve, s.cached("minute"))
			s.get("/p/1").is("run 1")
			a := s.get("/p/1").is("run 1").says("Larder; hit; ttl=60")
			require.Equal(s, []string{"0"}, a.header.Values("Age"))
			time.Sleep(30 * time.Second)
			a = s.get("/p/1").is("run 1").says("Larder; hit; ttl=30")
			require.Equal(s, []string{"30"}, a.header.Values("Age"))
			time.Sleep(30*time.Second - time.Nanosecond)
			s.get("/p/1").is("run 1").says("Larder; hit; ttl=0")
			time.Sleep(time.Nanosecond)
			s.get("/p/1").is("run 2").says("Larder; fwd=stale; stored")
		}),

		within("the Age of a response is exact throughout a long lifetime", func(s *site) {
			p := &page{fields: []string{"Cache-Control: max-age=5000"}}
			s.handle("GET /p/{id}", p.serve, s.cached("minute"))
			s.get("/p/1").is("run 1")
			const step = 4096 // seconds: hits share what they add with others of about as many ages
			for age := 0; age < 5000; age += step {
				a := s.get("/p/1").is("run 1").says(fmt.Sprint("Larder; hit; ttl=", 5000-age))
				require.Equal(s, []string{fmt.Sprint(age)}, a.header.Values("Age"))
				time.Sleep(step * time.Second)
			}
		}),

		// Elsewhere: a TTL below one second became 0.
		within("a TTL below a second is exact to the millisecond", func(s *site) {
			p := &page{}
			s.handle("GET /p/{id}", p.serve, s.cached("half-second"))
			s.get("/p/1").is("run 1")
			time.Sleep(499 * time.Millisecond)
			s.get("/p/1").is("run 1").isHit()
			time.Sleep(time.Millisecond)
			s.get("/p/1").is("run 2").isNoHit()
		}),

		within("Expires and age are measured from the response's own Date", func(s *site) {
			date := time.Now().Add(-10 * time.Second).UTC()
			p := &page{fields: []string{"Date: " + date.Format(http.TimeFormat), "Expires: " + date.Add(40*time.Second).Format(http.TimeFormat)}}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			s.get("/p/1").is("run 1").says("Larder; fwd=uri-miss; stored")
			time.Sleep(30*time.Second - time.Nanosecond)
			s.get("/p/1").is("run 1").isHit()
			time.Sleep(time.Nanosecond)
			s.get("/p/1").is("run 2").isNoHit()
		}, noDateOverride),

		// RFC 9111 section 4.2.3: a stated lifetime counts from the request, the class's TTL from
		// the response.
		within("the load's time counts against a stated lifetime, not the class's", func(s *site) {
			for _, c := range []struct {
				field string
				fresh time.Duration
			}{{"Cache-Control: max-age=10", 6 * time.Second}, {"X-A: 1", time.Minute}} {
				p := &page{fields: []string{c.field}, began: func(Ctx) { time.Sleep(4 * time.Second) }}
				s := newSite(s.TB, s.f, s.by)
				s.handle("GET /p/{id}", p.serve, s.cached("minute"))
				s.get("/p/1").says("Larder; fwd=uri-miss; stored")
				time.Sleep(c.fresh - time.Nanosecond)
				s.get("/p/1").is("run 1").says("Larder; hit; ttl=0") // it may set off an early refresh
				s.get("/p/2").says("Larder; fwd=uri-miss; stored")
				time.Sleep(c.fresh)
				s.get("/p/2").says("Larder; fwd=stale; stored")
			}
		}),

		within("a changed class applies to responses stored afterwards", func(s *site) {
			p := &page{}
			s.handle("GET /p/{id}", p.serve, s.cached("minute", "p:{id}"))
			s.get("/p/1").says("Larder; fwd=uri-miss; stored")
			s.get("/p/2").says("Larder; fwd=uri-miss; stored")
			s.changes("minute", func(c *core.Class) { c.TTL, c.NegativeTTL = time.Hour, time.Minute })
			s.get("/p/1").is("run 1").says("Larder; hit; ttl=60")
			s.invalidate(core.Tag("p:2"))
			s.get("/p/2").is("run 3").says("Larder; fwd=uri-miss; stored")
			s.get("/p/2").is("run 3").says("Larder; hit; ttl=3600")
			time.Sleep(time.Minute)
			s.get("/p/1").is("run 4").says("Larder; fwd=stale; stored")
			s.get("/p/1").is("run 4").says("Larder; hit; ttl=3600")
			p.status = 404
			s.get("/p/3").says("Larder; fwd=uri-miss; stored")
			s.changes("minute", func(c *core.Class) { c.TTL, c.NegativeTTL, c.MaxEntryBytes = time.Second, 0, 10 })
			s.get("/p/2").is("run 3").says("Larder; hit; ttl=3540")
			s.get("/p/3").says("Larder; hit; ttl=60")
			s.get("/p/4").says("Larder; fwd=uri-miss; detail=no-lifetime")
			p.status, p.body = 0, func(Ctx, int64) string { return strings.Repeat("x", 11) }
			s.get("/p/5").says("Larder; fwd=uri-miss; detail=too-large")
		}),

		within("a load uses the class as of its request", func(s *site) {
			p := &page{}
			s.handle("GET /p/{id}", p.serve, s.cached("stale"))
			s.get("/p/1").is("run 1")
			time.Sleep(time.Minute)
			p.hold = s.gate()
			s.get("/p/1").is("run 1").says("Larder; hit; ttl=0") // and set off a refresh
			first, second := s.start("GET", "/p/2"), s.start("GET", "/p/2")
			s.settles(func() bool { return p.in.Load() == 2 }, "a refresh and a miss run")
			s.changes("stale", func(c *core.Class) { *c = core.Class{TTL: time.Second, MaxEntryBytes: 1} })
			p.hold.open()
			first.answer().isNoHit()
			second.answer().isNoHit()
			s.settles(func() bool { return s.cache.Stats().Stored == 3 }, "both are stored")
			require.EqualValues(s, 3, p.runs.Load())
			for _, target := range []string{"/p/1", "/p/2"} {
				s.get(target).says("Larder; hit; ttl=60")
			}
			time.Sleep(2*time.Minute - time.Nanosecond)
			p.hold = nil
			for _, target := range []string{"/p/1", "/p/2"} {
				s.get(target).says("Larder; hit; ttl=-60")
			}
			s.settles(func() bool { return p.runs.Load() == 5 && p.in.Load() == 0 }, "both are refreshed, under the class that they have now")
		}),

		within("a response that states an expired lifetime is not stored", func(s *site) {
			for i, fields := range [][]string{
				{"Cache-Control: max-age=0"},
				{"Cache-Control: s-maxage=0, max-age=10"},
				{"Cache-Control: max-age=ten"},
				{"Expires: 0"},
				{"Expires: Fri, 31 Dec 1999 00:00:00 GMT"},
				{"Cache-Control: max-age=10", "Age: 10"},
			} {
				p := &page{fields: fields}
				s := newSite(s.TB, s.f, s.by)
				s.handle("GET /p/{id}", p.serve, s.cached("hour"))
				for range 2 {
					s.get(fmt.Sprint("/p/", i)).says("Larder; fwd=uri-miss; detail=expired")
				}
			}
		}),

		within("a class without a TTL stores only responses with a lifetime", func(s *site) {
			p := &page{}
			s.handle("GET /p/{id}", p.serve, s.cached(""))
			for range 2 {
				s.get("/p/1").says("Larder; fwd=uri-miss; detail=no-lifetime")
			}
			p.fields = []string{"Cache-Control: max-age=10"}
			s.get("/p/2").is("run 3").says("Larder; fwd=uri-miss; stored")
			s.get("/p/2").is("run 3").isHit()
		}),

		within("not found is stored for NegativeTTL, and never without it", func(s *site) {
			for _, status := range []int{404, 410} {
				s := newSite(s.TB, s.f, s.by)
				p := &page{status: status}
				s.handle("GET /p/{id}", p.serve, s.cached("negative"))
				s.handle("GET /n/{id}", p.serve, s.cached("hour"))
				require.Equal(s, status, s.get("/p/1").says("Larder; fwd=uri-miss; stored").status)
				time.Sleep(time.Minute - time.Nanosecond)
				a := s.get("/p/1").isHit()
				require.Equal(s, status, a.status)
				require.Equal(s, "run 1", a.body)
				time.Sleep(time.Nanosecond)
				s.get("/p/1").isNoHit()
				for range 2 {
					s.get("/n/1").says("Larder; fwd=uri-miss; detail=no-lifetime")
				}
			}
		}),

		within("not found is not answered stale", func(s *site) {
			p := &page{status: 404}
			s.handle("GET /p/{id}", p.serve, s.cached("all-windows"))
			s.get("/p/1").says("Larder; fwd=uri-miss; stored")
			time.Sleep(10*time.Second - time.Nanosecond)
			s.get("/p/1").isHit()
			time.Sleep(time.Nanosecond)
			s.get("/p/1").says("Larder; fwd=stale; stored")
			time.Sleep(11 * time.Second)
			p.status = 503
			require.Equal(s, 503, s.get("/p/1").isNoHit().status)
		}),

		within("jitter shortens the class's TTL by up to its share", func(s *site) {
			p := &page{}
			s.handle("GET /p/{id}", p.serve, s.cached("jitter"))
			const n = 30
			hits := func() (hits int) {
				for i := range n {
					if s.do("HEAD", fmt.Sprint("/p/", i)).hit() {
						hits++
					}
				}
				return hits
			}
			for i := range n {
				s.get(fmt.Sprint("/p/", i)).isNoHit()
			}
			time.Sleep(30*time.Second - time.Nanosecond)
			require.Equal(s, n, hits())
			time.Sleep(15 * time.Second) // all are on one side with a probability of 2^-29
			some := hits()
			require.Positive(s, some)
			require.Less(s, some, n)
			time.Sleep(15 * time.Second)
			require.Zero(s, hits())
		}),

		within("the class's TTL applies to no error and no temporary redirect", func(s *site) {
			for _, status := range []int{302, 307, 400, 401, 403, 429, 500, 502, 503} {
				p := &page{status: status}
				s.handle(fmt.Sprint("GET /p", status), p.serve, s.cached("negative"))
			}
			for _, status := range []int{302, 307, 400, 401, 403, 429, 500, 502, 503} {
				for range 2 {
					s.get(fmt.Sprint("/p", status)).says(fmt.Sprint("Larder; fwd=uri-miss; detail=status-", status))
				}
			}
		}),

		within("no-cache runs the handler and renews the entry", func(s *site) {
			p := &page{}
			s.handle("GET /p/{id}", p.serve, s.cached("minute"))
			s.get("/p/1").is("run 1")
			time.Sleep(50 * time.Second)
			s.get("/p/1", "Cache-Control: no-cache").is("run 2").says("Larder; fwd=request; stored")
			time.Sleep(50 * time.Second)
			s.get("/p/1").is("run 2").says("Larder; hit; ttl=10")
			s.get("/p/1", "Pragma: no-cache").is("run 3").says("Larder; fwd=request; stored")
			s.get("/p/1", "Pragma: no-cache", "Cache-Control: max-age=9").is("run 3").isHit()
			s.get("/p/1", "Cache-Control: no-store").is("run 3").isHit()
			s.get("/p/1", "Cache-Control: no-store, no-cache").is("run 4").says("Larder; fwd=request; detail=no-store")
			s.get("/p/1").is("run 3").isHit()
		}),

		within("a class can ignore request directives", func(s *site) {
			p := &page{}
			s.handle("GET /p/{id}", p.serve, s.cached("no-directives"))
			s.get("/p/1").is("run 1")
			for _, f := range []string{"Cache-Control: no-cache", "Cache-Control: no-store", "Pragma: no-cache"} {
				s.get("/p/1", f).is("run 1").isHit()
			}
		}),

		// Elsewhere: the key had expired at its TTL, or only the first stale hit was refreshed.
		within("a stale response is a hit and is refreshed in the background", func(s *site) {
			p := &page{}
			s.handle("GET /p/{id}", p.serve, s.cached("stale"))
			s.get("/p/1").is("run 1")
			for round := 1; round <= 4; round++ {
				time.Sleep(time.Minute + time.Second)
				p.hold = s.gate()
				old := fmt.Sprint("run ", round)
				s.get("/p/1").is(old).says("Larder; hit; ttl=-1") // although the refresh has not ended
				s.get("/p/1").is(old).isHit()
				p.hold.open()
				s.settles(func() bool { return s.cache.Stats().Stored == int64(round+1) }, "it has been refreshed")
				s.get("/p/1").is(fmt.Sprint("run ", round+1)).says("Larder; hit; ttl=60")
			}
			require.EqualValues(s, 5, p.runs.Load())
			require.EqualValues(s, 1, p.most.Load(), "refreshes at a time")
		}),

		within("a stale response is not answered after its window", func(s *site) {
			p := &page{}
			s.handle("GET /p/{id}", p.serve, s.cached("stale"))
			s.get("/p/1").is("run 1")
			time.Sleep(2 * time.Minute)
			s.get("/p/1").is("run 2").isNoHit()
		}),

		within("concurrent requests for a stale response start one refresh", func(s *site) {
			p := &page{}
			s.handle("GET /p/{id}", p.serve, s.cached("stale"))
			s.get("/p/1").is("run 1")
			time.Sleep(time.Minute + time.Second)
			p.hold = s.gate()
			for range 10 {
				s.get("/p/1").is("run 1").isHit()
			}
			s.settles(func() bool { return p.in.Load() == 1 }, "one refresh runs")
			require.EqualValues(s, 1, s.cache.Stats().Refreshes)
			p.hold.open()
		}),

		within("a refresh has its request's values, not its end, and a limit", func(s *site) {
			type key struct{}
			var first atomic.Bool
			var ended atomic.Int64
			g := s.gate()
			contexts := make(chan context.Context, 1)
			s.handle("GET /p/{id}", func(c Ctx) error {
				if first.CompareAndSwap(false, true) {
					return c.Text(200, "first")
				}
				ctx := c.Context()
				contexts <- ctx
				g.wait()
				began := time.Now()
				<-ctx.Done()
				ended.Store(int64(time.Since(began)))
				return c.Text(200, "second")
			}, Around(func(c Ctx, next func() error) error {
				ctx, cancel := context.WithCancel(context.WithValue(c.Context(), key{}, "value"))
				defer cancel() // as a server does when the request has ended
				c.SetContext(ctx)
				return next()
			}), s.cached("load-timeout"))
			s.get("/p/1").is("first")
			time.Sleep(time.Minute + time.Second)
			s.get("/p/1").is("first").isHit() // and the connection is closed
			ctx := <-contexts
			s.settles(func() bool { return true }, "the request has ended")
			require.NoError(s, ctx.Err())
			require.Equal(s, "value", ctx.Value(key{}))
			deadline, ok := ctx.Deadline()
			require.True(s, ok)
			require.Equal(s, 10*time.Second, time.Until(deadline))
			g.open()
			time.Sleep(11 * time.Second)
			require.ErrorIs(s, ctx.Err(), context.DeadlineExceeded)
			require.EqualValues(s, 10*time.Second, ended.Load())
		}),

		within("a refresh is cancelled when the cache is closed", func(s *site) {
			p := &page{}
			var cause atomic.Value
			p.body = func(c Ctx, run int64) string {
				if run > 1 {
					<-c.Context().Done()
					cause.Store(c.Context().Err())
				}
				return fmt.Sprint("run ", run)
			}
			s.handle("GET /p/{id}", p.serve, s.cached("stale"))
			s.get("/p/1").is("run 1")
			time.Sleep(time.Minute + time.Second)
			s.get("/p/1").is("run 1").isHit()
			s.settles(func() bool { return p.in.Load() == 1 }, "the refresh runs")
			require.NoError(s, s.cache.Close())
			require.Equal(s, context.Canceled, cause.Load())
		}),

		within("a refresh has its request's URL and fields, but no conditions", func(s *site) {
			p := &page{fields: []string{`ETag: "v1"`, "Vary: Accept-Language"}}
			seen := &seen[string]{}
			p.began = func(c Ctx) {
				seen.add(fmt.Sprintf("%s %s %s id=%s lang=%q inm=%q range=%q", c.Method(), c.Host(), c.Target(), c.Param("id"),
					c.Values("Accept-Language"), c.Values("If-None-Match"), c.Values("Range")))
			}
			s.handle("GET /p/{id}", p.serve, s.cached("stale", "p:{id}"))
			s.get("/p/a%20b?z=1&a=2", "Accept-Language: de").is("run 1")
			time.Sleep(time.Minute + time.Second)
			a := s.get("/p/a%20b?z=1&a=2", "Accept-Language: de", `If-None-Match: "v1"`).isHit()
			require.Equal(s, 304, a.status)
			s.settles(func() bool { return s.cache.Stats().Stored == 2 }, "it has been refreshed")
			all := seen.all()
			require.Len(s, all, 2)
			// The handler gets the validator of the stored response, not the client's.
			require.Equal(s, strings.Replace(all[0], "inm=[]", `inm=["\"v1\""]`, 1), all[1])
			s.get("/p/a%20b?z=1&a=2", "Accept-Language: de").is("run 2").says("Larder; hit; ttl=60")
			s.invalidate(core.Tag("p:a b"))
			s.get("/p/a%20b?z=1&a=2", "Accept-Language: de").is("run 3").isNoHit()
		}),

		within("a refresh of a response without a validator is unconditional", func(s *site) {
			p, seen := &page{}, &seen[string]{}
			p.began = func(c Ctx) { seen.add(fmt.Sprintf("%q %q", c.Values("If-None-Match"), c.Values("Range"))) }
			s.handle("GET /p/{id}", p.serve, s.cached("stale"))
			s.get("/p/1").is("run 1")
			time.Sleep(time.Minute + time.Second)
			s.get("/p/1", `If-None-Match: "other"`).is("run 1").isHit()
			s.settles(func() bool { return s.cache.Stats().Stored == 2 }, "it has been refreshed")
			require.Equal(s, []string{"[] []", "[] []"}, seen.all())
		}),

		within("a HEAD for a stale response starts a refresh by GET", func(s *site) {
			p := &page{body: func(c Ctx, run int64) string { return fmt.Sprint(c.Method(), " run ", run) }}
			s.handle("GET /p/{id}", p.serve, s.cached("stale"))
			s.get("/p/1").is("GET run 1")
			time.Sleep(time.Minute + time.Second)
			s.do("HEAD", "/p/1").isHit()
			s.settles(func() bool { return s.cache.Stats().Stored == 2 }, "it has been refreshed")
			s.get("/p/1").is("GET run 2").says("Larder; hit; ttl=60")
		}, noHeadOnGet),

		within("an identity's stale response is refreshed for that identity", func(s *site) {
			p := &page{body: says("X-User"), fields: []string{"Cache-Control: private"}}
			s.handle("GET /cart", p.serve, CachedRoute{Cached: Cached{s.cache, "stale", nil}, IdentityField: "X-User"})
			s.get("/cart", "X-User: ann").is(`X-User ["ann"] run 1`)
			s.get("/cart", "X-User: bob").is(`X-User ["bob"] run 2`)
			time.Sleep(time.Minute + time.Second)
			s.get("/cart", "X-User: ann").is(`X-User ["ann"] run 1`).isHit()
			s.settles(func() bool { return s.cache.Stats().Stored == 3 }, "it has been refreshed")
			s.get("/cart", "X-User: ann").is(`X-User ["ann"] run 3`).says("Larder; hit; ttl=60")
			s.get("/cart", "X-User: bob").is(`X-User ["bob"] run 2`).says("Larder; hit; ttl=-1")
		}),

		// Elsewhere: a panic of the leader reached every waiting request, or ended the process.
		within("a refresh that panics ends only itself", func(s *site) {
			p := &page{body: func(_ Ctx, run int64) string {
				if run == 2 {
					panic(errors.New("in a refresh"))
				}
				return fmt.Sprint("run ", run)
			}}
			s.handle("GET /p/{id}", p.serve, s.cached("stale"))
			s.get("/p/1").is("run 1")
			time.Sleep(time.Minute + time.Second)
			s.get("/p/1").is("run 1").isHit()
			s.settles(func() bool { return p.runs.Load() == 2 && p.in.Load() == 0 }, "the refresh has panicked")
			s.get("/p/1").is("run 1").isHit()
			s.settles(func() bool { return s.cache.Stats().Stored == 2 }, "the next one has stored")
			s.get("/p/1").is("run 3").says("Larder; hit; ttl=60")
		}),

		within("a refresh that fails leaves the stale response for its window", func(s *site) {
			p := &page{}
			s.handle("GET /p/{id}", func(c Ctx) error {
				if p.runs.Load() == 1 {
					p.runs.Add(1)
					if s.f.Error != nil {
						return s.f.Error(500)
					}
					return c.Text(500, "broken")
				}
				return p.serve(c)
			}, s.cached("stale"))
			s.get("/p/1").is("run 1")
			time.Sleep(time.Minute + time.Second)
			s.get("/p/1").is("run 1").isHit()
			s.settles(func() bool { return p.runs.Load() == 2 }, "the refresh has failed")
			s.get("/p/1").is("run 1").isHit()
			s.settles(func() bool { return s.cache.Stats().Stored == 2 }, "the next one has stored")
			s.get("/p/1").is("run 3").says("Larder; hit; ttl=60")
		}),

		within("a stale response whose refresh is uncacheable is dropped", func(s *site) {
			p := &page{}
			s.handle("GET /p/{id}", p.serve, s.cached("stale"))
			s.get("/p/1").is("run 1")
			time.Sleep(time.Minute + time.Second)
			p.fields = []string{"Cache-Control: private"}
			s.get("/p/1").is("run 1").isHit()
			s.settles(func() bool { return p.runs.Load() == 2 && p.in.Load() == 0 }, "the refresh has ended")
			s.get("/p/1").is("run 3").isNoHit()
		}),

		// Elsewhere: a load that began before an invalidation stored its value after it, refreshes above all.
		within("a refresh that began before an invalidation does not store", func(s *site) {
			for _, target := range []core.Target{core.Tag("p:1"), core.Path("/p/1"), core.Pattern("http://*/p/1"), core.All()} {
				s := newSite(s.TB, s.f, s.by)
				p := &page{}
				s.handle("GET /p/{id}", p.serve, s.cached("stale", "p:{id}"))
				s.get("/p/1").is("run 1")
				time.Sleep(time.Minute + time.Second)
				p.hold = s.gate()
				s.get("/p/1").is("run 1").isHit()
				s.settles(func() bool { return p.in.Load() == 1 }, "the refresh runs")
				s.invalidate(target)
				p.hold.open()
				s.settles(func() bool { return p.in.Load() == 0 }, "the refresh has ended")
				s.get("/p/1").is("run 3").says("Larder; fwd=uri-miss; stored")
				s.get("/p/1").is("run 3").isHit()
			}
		}),

		within("an invalidated response is not answered stale", func(s *site) {
			p := &page{}
			s.handle("GET /p/{id}", p.serve, s.cached("stale", "p:{id}"))
			s.handle("GET /s/{id}", p.serve, s.cached("spare", "p:{id}"))
			s.get("/p/1").is("run 1")
			s.get("/s/1").is("run 2")
			time.Sleep(time.Minute + time.Second)
			s.invalidate(core.Tag("p:1"))
			p.status = 503
			require.Equal(s, 503, s.get("/p/1").isNoHit().status)
			require.Equal(s, 503, s.get("/s/1").isNoHit().status)
		}),

		within("a stale response replaces an error within StaleIfError", func(s *site) {
			p := &page{}
			s.handle("GET /p/{id}", p.serve, s.cached("spare"))
			s.get("/p/1").is("run 1")
			p.status = 503
			time.Sleep(time.Minute)
			s.get("/p/1").is("run 1").standsInFor(503)
			s.get("/p/1").is("run 1").standsInFor(503)
			require.EqualValues(s, 3, p.runs.Load(), "the handler is asked each time")
			time.Sleep(time.Minute - time.Nanosecond)
			s.get("/p/1").is("run 1").standsInFor(503)
			p.status = 0
			s.get("/p/1").is("run 5").says("Larder; fwd=stale; stored")
			s.get("/p/1").is("run 5").says("Larder; hit; ttl=60")
			p.status = 503
			time.Sleep(2 * time.Minute)
			require.Equal(s, 503, s.get("/p/1").isNoHit().status)
		}),

		within("StaleIfError applies to 5xx only", func(s *site) {
			p := &page{}
			s.handle("GET /p/{id}", p.serve, s.cached("spare"))
			s.handle("GET /n/{id}", p.serve, s.cached("minute"))
			s.get("/p/1").is("run 1")
			s.get("/n/1").is("run 2")
			time.Sleep(time.Minute + time.Second)
			p.status = 404
			require.Equal(s, 404, s.get("/p/1").isNoHit().status)
			p.status = 503
			require.Equal(s, 503, s.get("/n/1").isNoHit().status)
		}),

		within("a stale response replaces an error that the handler returns", func(s *site) {
			fail := 0
			s.handle("GET /p/{id}", func(c Ctx) error {
				if fail != 0 {
					return s.f.Error(fail)
				}
				return c.Text(200, "hello")
			}, s.cached("spare"))
			s.get("/p/1").is("hello")
			time.Sleep(time.Minute + time.Second)
			fail = 500
			s.get("/p/1").is("hello").standsInFor(500)
			fail = 404
			require.Equal(s, 404, s.get("/p/1").isNoHit().status)
		}, noErrors),

		within("waiting requests get the stale response when the load fails", func(s *site) {
			p := &page{}
			s.handle("GET /p/{id}", p.serve, s.cached("spare"))
			s.get("/p/1").is("run 1")
			time.Sleep(time.Minute + time.Second)
			p.status, p.hold = 503, s.gate()
			all := s.starts(10, "GET", "/p/1")
			s.waiting(9)
			p.hold.open()
			for _, a := range all {
				a.answer().is("run 1")
			}
			require.EqualValues(s, 2, p.runs.Load())
		}),

		within("a response with must-revalidate is not answered stale", func(s *site) {
			for i, cc := range []string{"max-age=60, must-revalidate", "max-age=60, proxy-revalidate", "s-maxage=60"} {
				s := newSite(s.TB, s.f, s.by)
				p := &page{fields: []string{"Cache-Control: " + cc}}
				s.handle("GET /p/{id}", p.serve, s.cached("stale"))
				path := fmt.Sprint("/p/", i)
				s.get(path).is("run 1")
				time.Sleep(time.Minute - time.Nanosecond)
				s.get(path).is("run 1").isHit()
				time.Sleep(time.Second)
				s.get(path).is("run 2").isNoHit()
			}
		}),

		within("a response's stale windows win over the class's", func(s *site) {
			p := &page{fields: []string{"Cache-Control: max-age=60, stale-while-revalidate=10"}}
			s.handle("GET /p/{id}", p.serve, s.cached("minute"))
			s.get("/p/1").is("run 1")
			time.Sleep(70*time.Second - time.Nanosecond)
			s.get("/p/1").is("run 1").says("Larder; hit; ttl=-10")
			s.settles(func() bool { return s.cache.Stats().Stored == 2 }, "it has been refreshed")
			time.Sleep(70 * time.Second)
			s.get("/p/1").is("run 3").isNoHit()

			p = &page{fields: []string{"Cache-Control: max-age=60, stale-while-revalidate=0, stale-if-error=10"}}
			s = newSite(s.TB, s.f, s.by)
			s.handle("GET /p/{id}", p.serve, s.cached("stale"))
			s.get("/p/1").is("run 1")
			time.Sleep(65 * time.Second)
			p.status, p.fields = 503, nil
			s.get("/p/1").is("run 1").standsInFor(503)
			require.EqualValues(s, 2, p.runs.Load())
			time.Sleep(5 * time.Second)
			require.Equal(s, 503, s.get("/p/1").isNoHit().status)
		}),

		within("a load within ReplicaLag after an invalidation is not stored", func(s *site) {
			p := &page{}
			s.handle("GET /p/{id}", p.serve, s.cached("replica-lag", "p:{id}"))
			if s.f.Shared { // a new tier does not know its losses
				time.Sleep(time.Minute + time.Second)
			}
			s.get("/p/1").is("run 1").says("Larder; fwd=uri-miss; stored")
			s.invalidate(core.Tag("p:1"))
			time.Sleep(time.Minute - time.Nanosecond)
			s.get("/p/1").is("run 2").says("Larder; fwd=uri-miss; detail=replica-lag")
			time.Sleep(2 * time.Nanosecond)
			s.get("/p/1").is("run 3").says("Larder; fwd=uri-miss; stored")
			s.get("/p/1").is("run 3").isHit()
		}),

		within("a request after ReplicaLag does not join a load within it", func(s *site) {
			for name, tags := range map[string][]string{"early": {"{id}"}, "late": nil} {
				s = newSite(s.TB, s.f, s.by)
				p := &page{hold: s.gate(), body: func(c Ctx, run int64) string {
					if err := core.AddTags(c.Context(), name); err != nil {
						return err.Error()
					}
					return fmt.Sprint("run ", run)
				}}
				s.handle("GET /p/{id}", p.serve, s.cached("replica-lag", tags...))
				path := "/p/" + name
				time.Sleep(time.Minute + time.Second) // a new tier does not know its losses
				s.invalidate(core.Tag(name))
				time.Sleep(time.Minute - 2*time.Second)
				leader := s.start("GET", path)
				s.settles(func() bool { return p.in.Load() == 1 }, "the load is under way")
				before := s.start("GET", path)
				s.waiting(1)
				time.Sleep(2*time.Second + time.Nanosecond)
				after := s.start("GET", path)
				s.settles(func() bool { return p.in.Load() == 2 || tags == nil }, "it loads, where the tag is known before")
				p.hold.open()
				leader.answer().is("run 1").isNoHit()
				before.answer().is("run 1").says("Larder; fwd=uri-miss; collapsed")
				after.answer().is("run 2").says("Larder; fwd=uri-miss; stored")
				s.get(path).is("run 2").isHit()
			}
		}),

		within("a page made of a value loaded within ReplicaLag is not stored", func(s *site) {
			ways := map[string]func(ctx context.Context, users *core.Map[string, string], load core.Loader[string, string]) (string, error){
				"get": func(ctx context.Context, users *core.Map[string, string], load core.Loader[string, string]) (string, error) {
					return users.Get(ctx, "1", load)
				},
				"many": func(ctx context.Context, users *core.Map[string, string], load core.Loader[string, string]) (string, error) {
					all, err := users.GetMany(ctx, []string{"1"}, func(ctx context.Context, _ []string) (map[string]string, error) {
						v, err := load(ctx, "1")
						return map[string]string{"1": v}, err
					})
					return all["1"], err
				},
			}
			for name, get := range ways {
				s = newSite(s.TB, s.f, s.by)
				users, err := core.NewMap(s.cache, core.MapOptions[string, string]{Class: "replica-lag", Prefix: "user"})
				require.NoError(s, err)
				names, err := core.NewMap(s.cache, core.MapOptions[string, string]{Class: "hour", Prefix: "name"})
				require.NoError(s, err)
				replica := "old"
				row := func(context.Context, string) (string, error) { return replica, nil }
				body := func(c Ctx, _ int64) string {
					v, err := get(c.Context(), users, row)
					if err != nil {
						return err.Error()
					}
					return v
				}
				nested := func(c Ctx, _ int64) string {
					v, err := names.Get(c.Context(), "1", func(ctx context.Context, _ string) (string, error) {
						if err := core.AddTags(ctx, "user:1"); err != nil {
							return "", err
						}
						return get(ctx, users, row)
					})
					if err != nil {
						return err.Error()
					}
					return v
				}
				s.handle("GET /direct/{id}", (&page{body: body}).serve, s.cached("hour", "user:{id}"))
				s.handle("GET /nested/{id}", (&page{body: nested}).serve, s.cached("hour", "user:{id}"))
				for _, path := range []string{"/direct/1", "/nested/1"} {
					replica = "old"
					require.NoError(s, users.Invalidate(s.Context(), "1"), name)
					time.Sleep(time.Minute + time.Second)
					s.get(path).is("old").says("Larder; fwd=uri-miss; stored")
					require.NoError(s, users.Invalidate(s.Context(), "1"), name)
					time.Sleep(time.Minute - time.Nanosecond)
					s.get(path).is("old").says("Larder; fwd=uri-miss; detail=replica-lag")
					replica = "new"
					time.Sleep(2 * time.Nanosecond)
					s.get(path).is("new").says("Larder; fwd=uri-miss; stored")
					s.get(path).is("new").isHit()
				}
			}
		}),

		within("Age continues from the response's own Age", func(s *site) {
			p := &page{fields: []string{"Age: 7", "Cache-Control: max-age=100"}}
			s.handle("GET /p/{id}", p.serve, s.cached("hour"))
			s.get("/p/1").is("run 1")
			time.Sleep(30 * time.Second)
			require.Equal(s, []string{"37"}, s.get("/p/1").says("Larder; hit; ttl=63").header.Values("Age"))
		}),
	}...)
}
