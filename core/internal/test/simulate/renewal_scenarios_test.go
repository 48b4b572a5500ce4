package simulate_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/naming"
	"github.com/larderhq/larder/core/internal/test/memtier"
	"github.com/larderhq/larder/core/internal/tier"
)

// elsewhere returns a tag that lies in another partition of four than the name.
func elsewhere(name string) string {
	for n := 0; ; n++ {
		tag := fmt.Sprint("elsewhere:", n)
		if tier.Partition(naming.Tag(tag), 4) != tier.Partition(name, 4) {
			return tag
		}
	}
}

// renew reads row 1. The load renews the value that it is offered, whatever the database's
// version is.
func (a *actor) renew(tags ...string) (version int64, renewed bool) {
	a.s.Helper()
	v, err := a.m.Get(context.Background(), 1, func(ctx context.Context, _ int) (value, error) {
		if _, _, ok := core.StaleValue[value](ctx); ok {
			renewed = true
			return value{}, core.ErrNotModified
		}
		if err := core.SetValidator(ctx, "coarse"); err != nil {
			return value{}, err
		}
		return value{version: a.s.data.Load()}, core.AddTags(ctx, tags...)
	})
	require.NoError(a.s, err)
	return v.version, renewed
}

// endEras invalidates a target while every slot migrates: eras end, and no log holds that.
func (s *scene) endEras(by *actor, target core.Target) {
	s.Helper()
	for p := range 4 {
		s.server.Migrating(p, true)
	}
	require.NoError(s, by.cache.Invalidate(s.Context(), target))
	for p := range 4 {
		s.server.Migrating(p, false)
	}
}

// An instance that has not seen the end of an era takes an entry of that era for valid. A
// coarse validator would renew the entry under the era that follows.
func TestScenarioAnEraEndedUnheardAllowsNoRenewal(t *testing.T) {
	late := elsewhere("row:1")
	for name, target := range map[string]core.Target{"the key": core.Key("row:1"), "a tag of another partition": core.Tag(late)} {
		for _, known := range []string{"in process", "from the tier"} {
			t.Run(name+" "+known, func(t *testing.T) {
				play(t, func(s *scene) {
					brief := class(func(c *core.Class) { c.TTL = 3 * time.Second })
					x, y := s.actor("x", brief), s.actor("y", brief)
					time.Sleep(time.Second)
					first := x
					if known == "from the tier" {
						first = y
					}
					version, _ := first.renew(late)
					require.EqualValues(s, 1, version)
					time.Sleep(3 * time.Second) // it is kept to be validated
					x.line.noHeads.Store(true)
					s.server.SetFaults(memtier.Faults{HintLost: 1})
					s.data.Store(2)
					s.endEras(y, target)
					x.renew(late) // x has not seen it: either version is allowed
					x.line.noHeads.Store(false)
					time.Sleep(time.Second + ms)
					x.must(2)
					y.must(2)
				})
			})
		}
	}
}

// The rule costs no renewal that is allowed.
func TestScenarioAnEraKnownToHaveEndedAllowsRenewalInTheNext(t *testing.T) {
	play(t, func(s *scene) {
		brief := class(func(c *core.Class) { c.TTL = 3 * time.Second })
		x, y := s.actor("x", brief), s.actor("y", brief)
		time.Sleep(time.Second)
		s.endEras(y, core.Key("row:1"))
		time.Sleep(time.Second)
		for n := range 3 {
			if _, renewed := x.renew(elsewhere("row:1")); renewed != (n > 0) {
				s.Fatalf("read %d: renewed %v", n, renewed)
			}
			time.Sleep(3 * time.Second)
		}
	})
}

// A value may be of an era whose end the instance has not seen. A value made of it is not
// stored under the era that follows.
func TestScenarioAnEraEndedUnheardKeepsNoValueMadeOfAnother(t *testing.T) {
	play(t, func(s *scene) {
		x, y := s.actor("x"), s.actor("y")
		pages, err := core.NewMap(x.cache, core.MapOptions[int, value]{Class: "c", Prefix: "page", Codec: codec{}})
		require.NoError(s, err)
		nested := func() int64 {
			v, err := pages.Get(s.Context(), 1, func(context.Context, int) (value, error) {
				version, err := x.get(0, "page:1")
				return value{version: version}, err
			})
			require.NoError(s, err)
			return v.version
		}
		time.Sleep(time.Second)
		x.must(1, "page:1")
		x.line.noHeads.Store(true)
		s.server.SetFaults(memtier.Faults{HintLost: 1})
		s.data.Store(2)
		s.endEras(y, core.Tag("page:1"))
		nested() // it may be either
		x.line.noHeads.Store(false)
		time.Sleep(time.Second + ms)
		if v := nested(); v != 2 {
			s.Fatalf("STALE: what was made of version %d is kept", v)
		}
	})
}

// The end of an era stands for an invalidation that came after a Put's own.
func TestScenarioAPutIsNotStoredWhenAnEraEndsBeforeItsLease(t *testing.T) {
	play(t, func(s *scene) {
		x, y := s.actor("x"), s.actor("y")
		time.Sleep(time.Second)
		x.line.noHeads.Store(true)
		s.server.SetFaults(memtier.Faults{HintLost: 1})
		fn := func() {
			s.data.Store(3)
			s.endEras(y, core.Key("row:1"))
		}
		x.line.changed.Store(&fn)
		s.data.Store(2)
		require.NoError(s, x.m.Put(s.Context(), 1, value{version: 2}))
		x.line.noHeads.Store(false)
		time.Sleep(time.Second + ms)
		x.must(3)
		y.must(3)
	})
}

// x hears of the invalidation of a tag of its Put after the Put has begun, and before the load
// that stores the value is registered: the log in memory has nothing since the registration.
func TestScenarioAPutIsNotStoredIfItsTagIsInvalidatedMeanwhile(t *testing.T) {
	play(t, func(s *scene) {
		x, y := s.actor("x"), s.actor("y")
		time.Sleep(time.Second)
		fn := func() {
			x.line.changed.Store(nil)
			s.data.Store(3)
			require.NoError(s, y.cache.Invalidate(s.Context(), core.Tag("late")))
			time.Sleep(10 * ms) // x has heard of it
		}
		x.line.changed.Store(&fn)
		s.data.Store(2)
		require.NoError(s, x.m.Put(s.Context(), 1, value{version: 2}, "late"))
		time.Sleep(100 * ms)
		x.must(3)
		y.must(3)
	})
}
