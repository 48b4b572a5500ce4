package adaptertest

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/memtier"
	"github.com/larderhq/larder/core/internal/remote"
)

// noted counts what a tier is told beside entries.
type noted struct {
	remote.Tier
	calls, bytes atomic.Int64
}

func (n *noted) Open(ctx context.Context, want remote.Layout) (remote.Session, error) {
	ses, err := n.Tier.Open(ctx, want)
	return notedSession{ses, n}, err
}

type notedSession struct {
	remote.Session
	of *noted
}

func (s notedSession) Note(ctx context.Context, key string, payload []byte, keep time.Duration) error {
	s.of.count(payload)
	return s.Session.Note(ctx, key, payload, keep)
}

func (n *noted) count(payload []byte) {
	n.calls.Add(1)
	n.bytes.Add(int64(len(payload)))
}

// What several instances know of what a resource varies on.
func instanceVaryCases() []testCase {
	const lang = "Accept-Language"
	many := core.Classes{"many": {TTL: time.Hour, HTTP: core.HTTPPolicy{MaxVariants: 1024}}}
	return []testCase{
		within("what a new variant costs the shared tier does not grow with their number", func(s *site) {
			server := memtier.New(memtier.Config{})
			s.Cleanup(server.Close)
			tier := &noted{Tier: server.Tier("noted")}
			s.open(core.Options{Classes: many, Remote: tier})
			p := &page{fields: []string{"Vary: " + lang}, body: says(lang)}
			s.handle("GET /p/{id}", p.serve, s.cached("many"))

			cost := func(from, to int) int64 {
				before := tier.bytes.Load()
				for i := from; i < to; i++ {
					s.get("/p/1", fmt.Sprintf("%s: x%d", lang, i)).says("Larder; fwd=" + map[bool]string{true: "uri-miss", false: "vary-miss"}[i == 0] + "; stored")
					time.Sleep(time.Second)
				}
				s.settles(func() bool { return true }, "the tier has been told")
				return tier.bytes.Load() - before
			}
			require.Less(s, cost(0, 10), int64(100), "the first ten variants")
			cost(10, 990)
			require.Less(s, cost(990, 1000), int64(100), "the last ten of a thousand")
			require.LessOrEqual(s, tier.calls.Load(), int64(3), "in a thousand seconds, for an hour each")
			s.get("/p/1", lang+": x999").isHit()
			s.get("/p/1", lang+": x0").isHit()
		}),
	}
}
