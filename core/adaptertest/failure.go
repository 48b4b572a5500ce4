package adaptertest

import (
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"
)

// fail fails with a status in the framework's way: by an error that the handler returns, or
// by Framework.Fail.
func (s *site) fail(c Ctx, status int) error {
	switch {
	case s.f.Error != nil:
		return s.f.Error(status)
	case s.f.Fail != nil:
		return s.f.Fail(c, status)
	default:
		return c.Text(status, http.StatusText(status))
	}
}

// failing answers by failing with a status, until that is 0.
type failing struct {
	s      *site
	status int
	runs   atomic.Int64
}

func (f *failing) serve(c Ctx) error {
	run := f.runs.Add(1)
	if f.status == 0 {
		return c.Text(200, fmt.Sprint("run ", run))
	}
	c.Set("X-Run", fmt.Sprint(run))
	return f.s.fail(c, f.status)
}

// sameBut compares two answers without the fields that the cache adds and the count of
// runs.
func (s *site) sameBut(want, got answer) {
	s.Helper()
	require.NoError(s, got.err)
	require.Equal(s, want.status, got.status)
	require.Equal(s, want.body, got.body)
	require.Equal(s, want.header.Values("Content-Type"), got.header.Values("Content-Type"))
}

// An error is answered as without a cache, by the same rules in every framework.
func errorCases() []testCase {
	cases := []testCase{
		within("a failure without NegativeTTL has the same status in each framework", func(s *site) {
			f := &failing{s: s}
			s.handle("GET /bare", f.serve)
			s.handle("GET /p/{id}", f.serve, s.cached("hour"))
			s.handle("GET /n/{id}", f.serve, s.cached("negative"))
			for _, f.status = range []int{400, 403, 409, 500, 503} {
				bare := s.get("/bare")
				for _, target := range []string{"/p/1", "/n/1"} {
					for range 2 {
						a := s.get(target).isNoHit()
						s.sameBut(bare, a)
						require.Contains(s, a.cacheStatus(), "Larder; fwd=uri-miss; detail=", "%s %d", target, f.status)
						require.Equal(s, "no-cache", a.header.Get("Cache-Control"), "%s %d", target, f.status)
					}
				}
			}
			f.status = 404
			require.Contains(s, s.get("/p/1").isNoHit().cacheStatus(), "Larder; fwd=uri-miss; detail=")
		}),

		over("a failure says that the cache is disabled or bypassed", func(s *site) {
			f := &failing{s: s, status: 404}
			s.handle("GET /n/{id}", f.serve, CachedRoute{Cached: Cached{s.cache, "negative", nil}, SkipField: "X-Skip"})
			s.get("/n/1", "X-Skip: 1").says("Larder; fwd=bypass; detail=skipped")
			s.do("HEAD", "/n/1").says("Larder; fwd=uri-miss")
			s.cache.SetEnabled(false)
			require.Equal(s, 404, s.get("/n/1").says("Larder; fwd=bypass; detail=disabled").status)
			s.cache.SetEnabled(true)
			require.Equal(s, 404, s.get("/n/1").says("Larder; fwd=uri-miss; stored").status)
		}),

		within("a stale response replaces a failed load", func(s *site) {
			f := &failing{s: s}
			s.handle("GET /p/{id}", f.serve, s.cached("spare"))
			s.get("/p/1").is("run 1")
			time.Sleep(time.Minute)
			for _, f.status = range []int{500, 502, 503} {
				s.get("/p/1").is("run 1").standsInFor(f.status)
			}
			for _, f.status = range []int{404, 409} {
				require.Equal(s, f.status, s.get("/p/1").isNoHit().status)
			}
		}),

		within("NegativeTTL stores an app's own error that means not found", func(s *site) {
			var runs atomic.Int64
			missing := func(Ctx) error { runs.Add(1); return fmt.Errorf("row 7: %w", s.f.OwnError) }
			s.handle("GET /bare", missing)
			s.handle("GET /p/{id}", missing, s.cached("negative"))
			bare := s.get("/bare")
			require.Equal(s, 404, bare.status)
			s.sameBut(bare, s.get("/p/1").says("Larder; fwd=uri-miss; stored"))
			s.sameBut(bare, s.get("/p/1").isHit())
			require.EqualValues(s, 2, runs.Load())
		}, noOwnError),

		within("an app's own error is answered by the framework", func(s *site) {
			broken := func(c Ctx) error {
				c.Set("X-A", "1")
				return errors.New("broken")
			}
			s.handle("GET /bare", broken)
			var outside error
			s.handle("GET /p/{id}", broken, Around(func(_ Ctx, next func() error) error {
				outside = next()
				return outside
			}), s.cached("negative"))
			bare := s.get("/bare")
			for range 2 {
				outside = nil
				a := s.get("/p/1").says("Larder; fwd=uri-miss; detail=handler-error")
				s.sameBut(bare, a)
				require.Equal(s, "1", a.header.Get("X-A"))
				require.EqualError(s, outside, "broken")
			}
		}, noErrors),

		within("waiting requests share a not found", func(s *site) {
			f := &failing{s: s, status: 404}
			g := s.gate()
			s.handle("GET /p/{id}", func(c Ctx) error {
				g.wait()
				return f.serve(c)
			}, s.cached("negative"))
			all := s.starts(4, "GET", "/p/1")
			s.waiting(3)
			g.open()
			for _, p := range all {
				require.Equal(s, 404, p.answer().status)
			}
			require.EqualValues(s, 1, f.runs.Load())
		}),
	}
	for _, status := range []int{404, 410} {
		cases = append(cases, within(fmt.Sprint("a failure with ", status, " is remembered for NegativeTTL"), func(s *site) {
			f := &failing{s: s, status: status}
			s.handle("GET /bare", f.serve)
			s.handle("GET /p/{id}", f.serve, s.cached("negative"))
			bare := s.get("/bare")
			require.Equal(s, status, bare.status)
			first := s.get("/p/1").says("Larder; fwd=uri-miss; stored")
			s.sameBut(bare, first)
			require.Equal(s, "2", first.header.Get("X-Run"), "fields that the handler had set")
			time.Sleep(time.Minute - time.Nanosecond)
			again := s.get("/p/1").isHit()
			s.sameBut(bare, again)
			require.Equal(s, "2", again.header.Get("X-Run"))
			time.Sleep(time.Nanosecond)
			s.sameBut(bare, s.get("/p/1").isNoHit())
			f.status = 0
			time.Sleep(time.Minute)
			s.get("/p/1").is("run 4").isNoHit()
		}))
	}
	return cases
}
