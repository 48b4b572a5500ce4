package adaptertest

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/test/memtier"
	"github.com/larderhq/larder/core/internal/tier"
)

// noted counts the writes to a tier other than entries.
type noted struct {
	tier.Tier
	calls, bytes atomic.Int64
}

func (n *noted) Open(ctx context.Context, want tier.Layout) (tier.Session, error) {
	ses, err := n.Tier.Open(ctx, want)
	return notedSession{ses, n}, err
}

type notedSession struct {
	tier.Session
	of *noted
}

func (s notedSession) Note(ctx context.Context, key string, payload []byte, keep time.Duration) error {
	s.of.count(payload)
	return s.Session.Note(ctx, key, payload, keep)
}

func (s notedSession) Learn(ctx context.Context, key string, payload []byte, keep time.Duration) (tier.Entry, error) {
	s.of.count(payload)
	return s.Session.Learn(ctx, key, payload, keep)
}

func (n *noted) count(payload []byte) {
	n.calls.Add(1)
	n.bytes.Add(int64(len(payload)))
}

// twoInstances returns two instances of an app over one shared tier.
func (s *site) twoInstances() (a, b *site) {
	server := memtier.New(memtier.Config{})
	s.Cleanup(server.Close)
	b = s.another()
	b.log = &logged{}
	b.cache = nil // the second instance makes its own
	for _, it := range []*site{s, b} {
		it.open(core.Options{Classes: classes(), Remote: server.Tier("fleet")})
	}
	return s, b
}

// heard waits until every instance has seen the others' changes.
func (s *site) heard() {
	s.Helper()
	s.settles(func() bool { return true }, "nothing is under way")
	time.Sleep(time.Second) // the default MaxStaleness, in the time of the bubble
}

// Instances join the request fields that they have seen a resource vary on.
func instanceVaryCases() []testCase {
	const lang, x, noCache = "Accept-Language", "X-Kind", "Cache-Control: no-cache"
	many := core.Classes{"many": {TTL: time.Hour, HTTP: core.HTTPPolicy{MaxVariants: 1024}}}
	return []testCase{
		within("the cost of a new variant does not grow with their number", func(s *site) {
			server := memtier.New(memtier.Config{})
			s.Cleanup(server.Close)
			shared := &noted{Tier: server.Tier("noted")}
			s.open(core.Options{Classes: many, Remote: shared})
			p := &page{fields: []string{"Vary: " + lang}, body: says(lang)}
			s.handle("GET /p/{id}", p.serve, s.cached("many"))

			cost := func(from, to int) int64 {
				before := shared.bytes.Load()
				for i := from; i < to; i++ {
					s.get("/p/1", fmt.Sprintf("%s: x%d", lang, i)).says("Larder; fwd=" + map[bool]string{true: "uri-miss", false: "vary-miss"}[i == 0] + "; stored")
					time.Sleep(time.Second)
				}
				s.settles(func() bool { return true }, "the tier has been told")
				return shared.bytes.Load() - before
			}
			require.Less(s, cost(0, 10), int64(100), "the first ten variants")
			cost(10, 990)
			require.Less(s, cost(990, 1000), int64(100), "the last ten of a thousand")
			require.LessOrEqual(s, shared.calls.Load(), int64(3), "in a thousand seconds, for an hour each")
			s.get("/p/1", lang+": x999").isHit()
			s.get("/p/1", lang+": x0").isHit()
		}),

		within("Vary seen by one instance ends another's response without it", func(s *site) {
			a, b := s.twoInstances()
			p := sometimes(x)
			for _, it := range []*site{a, b} {
				it.handle("GET /p/{id}", p.serve, it.cached("hour"))
			}
			b.get("/p/1").is(`X-Kind "" run 1`).isNoHit()
			b.get("/p/1", x+": foreign").is(`X-Kind "" run 1`).isHit()
			a.get("/p/1", x+": a", noCache).is(`X-Kind "a" run 2`)
			s.heard()
			b.get("/p/1", x+": foreign").is(`X-Kind "foreign" run 3`).isNoHit()
			b.get("/p/1", x+": a").is(`X-Kind "a" run 2`).isHit()
			a.get("/p/1", x+": foreign").is(`X-Kind "foreign" run 3`).isHit()
		}),

		within("instances join what they know a resource varies on", func(s *site) {
			a, b := s.twoInstances()
			p := sometimes("X-A", "X-B")
			for _, it := range []*site{a, b} {
				it.handle("GET /p/{id}", p.serve, it.cached("hour"))
			}
			a.get("/p/1", "X-A: 1").is(`X-A "1" X-B "" run 1`)
			s.heard()
			b.get("/p/1", "X-B: 1").is(`X-A "" X-B "1" run 2`).isNoHit()
			s.heard()
			a.get("/p/1", "X-A: 1", "X-B: foreign").is(`X-A "1" X-B "foreign" run 3`).isNoHit()
			b.get("/p/1", "X-A: foreign", "X-B: 1").is(`X-A "foreign" X-B "1" run 4`).isNoHit()
			a.get("/p/1", "X-B: 1").is(`X-A "" X-B "1" run 2`).isHit()
			a.get("/p/1", "X-A: 1").is(`X-A "1" X-B "" run 1`).isHit()
		}),

		within("a load without Vary does not replace what another instance learnt", func(s *site) {
			a, b := s.twoInstances()
			slow := s.gate()
			for _, it := range []*site{a, b} {
				it.handle("GET /p/{id}", func(c Ctx) error {
					c.Set("Cache-Control", "public, max-age=3600")
					if v := c.Values(x); len(v) > 0 {
						c.Set("Vary", x)
						return c.Text(200, "for "+v[0])
					}
					slow.wait()
					return c.Text(200, "for all")
				}, it.cached("hour"))
			}
			under := b.start("GET", "/p/1")
			s.settles(func() bool { return true }, "it is in the handler")
			a.get("/p/1", x+": a", "Authorization: Basic eDp5").is("for a").isNoHit()
			s.heard()
			slow.open()
			under.answer().is("for all").isNoHit()
			s.heard()
			b.get("/p/1", x+": b").is("for b").isNoHit()
			a.get("/p/1", x+": c").is("for c").isNoHit()
			b.get("/p/1", x+": a").is("for a").isHit()
		}),

		within("no-cache does not replace what another instance learnt", func(s *site) {
			a, b := s.twoInstances()
			p := sometimes(x)
			for _, it := range []*site{a, b} {
				it.handle("GET /p/{id}", p.serve, it.cached("hour"))
			}
			a.get("/p/1", x+": a").is(`X-Kind "a" run 1`)
			s.heard()
			b.get("/p/1", noCache).is(`X-Kind "" run 2`)
			s.heard()
			b.get("/p/1", x+": b").is(`X-Kind "b" run 3`).isNoHit()
			b.get("/p/1", x+": a").is(`X-Kind "a" run 1`).isHit()
			a.get("/p/1").is(`X-Kind "" run 2`).isHit()
		}),

		within("after half an hour without a request a copy is a hit", func(s *site) {
			const idle = 30 * time.Minute
			a, b := s.twoInstances()
			p := &page{}
			for _, it := range []*site{a, b} {
				it.handle("GET /p/{id}", p.serve, it.cached("hour", "item"))
			}
			a.get("/p/1").is("run 1")
			b.get("/p/1").isHit()
			time.Sleep(idle)
			s.do("HEAD", "/p/1").isHit()
			require.Zero(s, a.cache.Stats().RemoteHits, "the copy in memory was not used")
			a.invalidate(core.Tag("item"))
			b.get("/p/1").is("run 2")
		}),

		within("MaxVariants bounds variants that other instances stored", func(s *site) {
			a, b := s.twoInstances()
			p := &page{fields: []string{"Vary: " + lang}}
			for _, it := range []*site{a, b} {
				it.handle("GET /p/{id}", p.serve, it.cached("two-variants"))
			}
			for i := range 20 {
				l := fmt.Sprintf("%s: x%d", lang, i)
				body := a.get("/p/1", l).isNoHit().body
				s.heard()
				b.get("/p/1", l).is(body).isHit()
			}
			require.LessOrEqual(s, b.cache.Stats().Entries, 3, "two variants and their index")
		}),
	}
}
