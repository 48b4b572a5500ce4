package histories_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/bridge"
	"github.com/larderhq/larder/core/internal/coherence"
	"github.com/larderhq/larder/core/internal/local"
	"github.com/larderhq/larder/core/internal/naming"
	"github.com/larderhq/larder/core/internal/tier"
)

// The engine as package httpcache uses it: the load runs in the request, values have
// variants, some values are private, and some tags are known before the load.
func TestHistoryOfTheEngineHasNoAnswerOlderThanTheLastAnnouncement(t *testing.T) {
	h := newHistory(t, 2, nil)
	e := bridge.Of(h.cache).Engine
	gate := local.Gate{MaxLoadsAfterError: 2, Wait: 2 * time.Millisecond}

	name := func(r int) string { return fmt.Sprint("page:", r) }
	path := func(r int) string { return fmt.Sprint("/pages/", r) }
	// Every other row has variants; those are not named by key.
	keyOf := func(r int) string {
		if r%2 == 0 {
			return name(r)
		}
		return fmt.Sprintf("%s%cvariant %d", name(r), tier.NameEnd, rand.IntN(2))
	}
	early := make([][]string, historyRows)
	for r := range early {
		early[r] = []string{naming.Tag(name(r)), naming.Path(path(r))}
	}

	load := func(turn *coherence.Turn, key string, r int) (out local.Outcome, version int64, err error) {
		e.Count.Loads.Add(1)
		fill := local.Fill{Key: key, Size: 8, Tags: []string{naming.Tag(groupTag(r)), naming.Tag("pages")}}
		out = local.Outcome{Verdict: local.Shared, Tags: fill.Tags}
		defer func() { turn.Finish(out) }()
		pause(3)
		version = h.rows[r].version.Load()
		pause(3)
		switch rand.IntN(100) {
		case 0:
			out = local.Outcome{Verdict: local.Failed}
			return out, 0, errHistory
		case 1, 2:
			out = local.Outcome{Verdict: local.Unshareable}
			return out, version, nil
		case 3:
			out.Entry = local.Unstored(version)
			return out, version, nil
		case 4:
			if en, state := e.Lookup(key); state != local.Gone { // in place of an error
				out = local.Outcome{Verdict: local.Shared, Entry: en}
				return out, 0, errHistory
			}
		}
		fill.Value = version
		fill.Lifetime = local.Lifetime{Fresh: time.Duration(1+rand.IntN(8)) * time.Millisecond, Stale: 4 * time.Millisecond, Fallback: 10 * time.Millisecond}
		out.Entry, _ = turn.Fill(context.Background(), fill)
		return out, version, nil
	}

	read := func(ctx context.Context, r int) (int64, error) {
		key := keyOf(r)
		en, state := e.Lookup(key)
		if state >= local.Stale {
			if state == local.Stale {
				e.Count.StaleHits.Add(1)
			} else {
				e.Count.Hits.Add(1)
			}
			if state == local.Stale || en.Early(e.Now()) {
				if turn, ok := e.TryLead(key, early[r], gate); ok {
					ok := e.Background(ctx, time.Minute, func(context.Context) {
						e.Count.Refreshes.Add(1)
						_, _, _ = load(turn, key, r)
					})
					if !ok {
						turn.Finish(local.Outcome{Verdict: local.Failed})
					}
				}
			}
			return en.Value.(int64), nil
		}
		e.Count.Misses.Add(1)
		if rand.IntN(100) == 0 {
			_, version, err := load(e.Alone(key, early[r]), key, r)
			return version, err
		}
		turn, out, err := e.Enter(ctx, key, early[r], gate)
		switch {
		case err != nil:
			return 0, err
		case turn == nil && out.Err != nil:
			return 0, out.Err
		case turn == nil:
			return out.Entry.Value.(int64), nil
		}
		if en, state := e.Lookup(key); state == local.Fresh {
			turn.Finish(local.Outcome{Verdict: local.Shared, Entry: en})
			return en.Value.(int64), nil
		}
		_, version, err := load(turn, key, r)
		return version, err
	}

	write := func(r int) string {
		switch n := rand.IntN(400); {
		case n == 0:
			return h.announce(r, core.All())
		case n == 1:
			return h.announce(r, core.Pattern("page:*"))
		case n == 2:
			return h.announce(r, core.Tag("pages"))
		case n < 100 && r%2 == 0:
			return h.announce(r, core.Key(name(r)))
		case n < 170:
			return h.announce(r, core.Tag(name(r)))
		case n < 240:
			return h.announce(r, core.Tag(groupTag(r)))
		case n < 320:
			return h.announce(r, core.Path("https://shop.example"+path(r)))
		default:
			return h.announce(r, core.Pattern(name(r)))
		}
	}
	h.run(t, read, write)
}
