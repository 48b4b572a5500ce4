package simulate_test

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/test/memtier"
	"github.com/larderhq/larder/core/internal/tier"
)

func (s *lined) Vacancies(ctx context.Context, keys []tier.TaggedKey) ([]tier.Vacancy, error) {
	return over(ctx, s.l, func() ([]tier.Vacancy, error) { return s.Session.Vacancies(ctx, keys) })
}

func (s *lined) FillTogether(ctx context.Context, b tier.BatchFill) ([]bool, error) {
	return over(ctx, s.l, func() ([]bool, error) { return s.Session.FillTogether(ctx, b) })
}

func (s *traced) FillTogether(ctx context.Context, b tier.BatchFill) ([]bool, error) {
	stored, err := s.Session.FillTogether(ctx, b)
	for i, it := range b.Items {
		s.say(it.Key, "FillTogether(%+v, %s) = %v, %v", b.Places[tier.Partition(it.Key, len(b.Places))], show(it.Entry), stored[i], err)
	}
	return stored, err
}

// unmoved compares a batch with no log.
type unmoved struct{ *breaker }

func (s unmoved) FillTogether(ctx context.Context, b tier.BatchFill) ([]bool, error) {
	heads, err := s.Heads(ctx)
	if err != nil {
		return nil, err
	}
	b.Places = slices.Clone(b.Places)
	for p := range b.Places {
		if b.Places[p].Token != "" {
			b.Places[p] = tier.Place{Position: heads[p].Position, Era: heads[p].Era}
		}
	}
	return s.Session.FillTogether(ctx, b)
}

// warm warms a few rows.
func (h *history) warm(in *instance, rng *rand.Rand, load *loaders) {
	ids := map[int]bool{}
	for range 1 + rng.IntN(8) {
		ids[h.pick(rng)] = true
	}
	ctx, cancel := context.Background(), context.CancelFunc(func() {})
	if rng.IntN(20) == 0 {
		ctx, cancel = context.WithTimeout(ctx, between(rng, 0, 50*time.Millisecond))
	}
	defer cancel()
	many := func(ctx context.Context, ids []int) (map[int]value, error) {
		values, failed := map[int]value{}, core.BatchError[int]{}
		for _, k := range ids {
			v, err := load[plain](ctx, k)
			switch {
			case err == nil:
				values[k] = v
			case !errors.Is(err, core.ErrNotFound):
				failed[k] = err
			}
		}
		return values, failed
	}
	done, _ := in.m.Warm(ctx, maps.Keys(ids), many, core.WarmOptions{Batch: 1 + rng.IntN(4)})
	h.totals.warmed.Add(int64(done.Filled))
}

// warm warms rows 1 to 20. The load reads the database, and then does something.
func (a *actor) warm(during func(), tags ...string) core.WarmResult {
	a.s.Helper()
	ids := func(yield func(int) bool) {
		for id := 1; id <= 20 && yield(id); id++ {
		}
	}
	r, err := a.m.Warm(a.s.Context(), ids, func(ctx context.Context, ids []int) (map[int]value, error) {
		a.s.loads.Add(1)
		v := value{version: a.s.data.Load()}
		if during != nil {
			f := during
			during = nil
			f()
		}
		values := map[int]value{}
		for _, id := range ids {
			values[id] = v
		}
		return values, core.AddTags(ctx, tags...)
	}, core.WarmOptions{Batch: 20, Parallel: 1})
	require.NoError(a.s, err)
	return r
}

func TestScenarioAWarmedValueIsNotStoredIfItIsInvalidatedMeanwhile(t *testing.T) {
	invalidate := func(ctx context.Context, a *actor, target core.Target) error { return a.cache.Invalidate(ctx, target) }
	for name, change := range map[string]func(ctx context.Context, a *actor) error{
		"its id":     func(ctx context.Context, a *actor) error { return a.m.Invalidate(ctx, 1) },
		"its key":    func(ctx context.Context, a *actor) error { return invalidate(ctx, a, core.Key("row:1")) },
		"its tag":    func(ctx context.Context, a *actor) error { return invalidate(ctx, a, core.Tag("row:1")) },
		"late tag":   func(ctx context.Context, a *actor) error { return invalidate(ctx, a, core.Tag("late")) },
		"pattern":    func(ctx context.Context, a *actor) error { return invalidate(ctx, a, core.Pattern("row:*")) },
		"everything": func(ctx context.Context, a *actor) error { return invalidate(ctx, a, core.All()) },
	} {
		for hints, lost := range map[string]float64{"heard": 0, "unheard": 1} {
			t.Run(name+", "+hints, func(t *testing.T) {
				play(t, func(s *scene) {
					s.server.SetFaults(memtier.Faults{HintLost: lost})
					a, b := s.actor("a"), s.actor("b")
					var tags []string
					if name == "late tag" {
						tags = append(tags, "late")
					}
					r := a.warm(func() {
						s.data.Store(2)
						require.NoError(s, change(s.Context(), b))
						time.Sleep(ms)
					}, tags...)
					b.must(2)
					s.actor("c").must(2)
					if name == "its id" {
						require.GreaterOrEqual(s, r.Filled, 19, "the other values are stored")
					}
				})
			})
		}
	}
}

func TestScenarioADeadlineRemovesAWarmedValue(t *testing.T) {
	for name, before := range map[string]bool{"begun before the load": true, "begun during the load": false} {
		t.Run(name, func(t *testing.T) {
			play(t, func(s *scene) {
				a, b := s.actor("a"), s.actor("b", func(o *core.Options) { o.WriteTimeout = time.Second })
				begin := func() {
					_, err := b.cache.Begin(s.Context(), core.Key("row:1"), core.Tag("row:1"))
					require.NoError(s, err)
				}
				if before {
					begin()
				}
				a.warm(func() {
					if !before {
						begin()
					}
					s.data.Store(2)
					b.tier.Kill() // its intent stays
				})
				time.Sleep(1100 * ms)
				a.must(2)
				s.actor("c").must(2)
			})
		})
	}
}

func TestScenarioAWarmedValueLeavesTheLeaseOfAnother(t *testing.T) {
	play(t, func(s *scene) {
		a, b := s.actor("a"), s.actor("b")
		a.warm(func() {
			s.reads.Go(func() { _, _ = b.get(100 * ms) })
			time.Sleep(50 * ms)
		})
		if n := s.loads.Load(); n != 2 {
			s.Fatalf("LOADS: %d", n)
		}
		s.actor("c").must(1)
		require.EqualValues(s, 2, s.loads.Load())
	})
}

func TestScenarioAWarmedValueIsStoredThoughOthersAreInvalidated(t *testing.T) {
	play(t, func(s *scene) {
		s.server.SetFaults(memtier.Faults{HintLost: 1})
		a, b := s.actor("a"), s.actor("b")
		r := a.warm(func() {
			for id := 100; id < 140; id++ {
				require.NoError(s, b.m.Invalidate(s.Context(), id))
			}
		}, "late")
		require.Equal(s, 20, r.Filled)
		require.EqualValues(s, 1, s.loads.Load(), "no value is loaded again")
		s.actor("c").must(1)
		require.EqualValues(s, 1, s.loads.Load())
	})
}
