package simulate_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
)

// A load that began within ReplicaLag may have read a replica's old version. It is not
// stored. A reader after the lag does not join it, since a value that the reader makes of it
// would be stored.
func TestScenarioAReaderAfterTheReplicaLagDoesNotJoinALoadWithinIt(t *testing.T) {
	one := func(ctx context.Context, x *actor) (int64, error) { return x.get(0, "page:1") }
	many := func(ctx context.Context, x *actor) (int64, error) {
		values, err := x.m.GetMany(ctx, []int{1, 2}, func(ctx context.Context, ids []int) (map[int]value, error) {
			values := map[int]value{}
			for _, id := range ids {
				values[id] = value{version: x.s.data.Load()}
			}
			return values, core.AddTags(ctx, "page:1")
		})
		return values[1].version, err
	}
	for name, read := range map[string]func(context.Context, *actor) (int64, error){"alone": one, "in a batch": many} {
		for _, by := range []string{"itself", "another", "nobody: it is new"} {
			for _, late := range []time.Duration{0, 300 * ms} { // into the lag
				t.Run(name+" invalidated by "+by, func(t *testing.T) {
					play(t, func(s *scene) {
						lag := class(func(c *core.Class) { c.ReplicaLag = 500 * ms })
						x, y := s.actor("x", lag), s.actor("y", lag)
						time.Sleep(time.Second)
						writer := y
						if by == "itself" {
							writer = x
						}
						require.NoError(s, writer.cache.Invalidate(s.Context(), core.Tag("page:1")))
						time.Sleep(late + ms)
						if by == "nobody: it is new" {
							x = s.actor("new", lag)
							time.Sleep(50 * ms)
						}
						pages, err := core.NewMap(x.cache, core.MapOptions[int, value]{Class: "c", Prefix: "page", Codec: codec{}})
						require.NoError(s, err)
						page := func() int64 {
							v, err := pages.Get(s.Context(), 1, func(ctx context.Context, _ int) (value, error) {
								version, err := read(ctx, x)
								if err != nil {
									return value{}, err
								}
								return value{version: version}, core.AddTags(ctx, "page:1")
							})
							require.NoError(s, err)
							return v.version
						}
						go func() { _, _ = x.get(3*time.Second, "page:1") }() // reads what the replica has
						time.Sleep(560*ms - late)
						s.data.Store(2) // the replica has caught up
						page()
						time.Sleep(5 * time.Second)
						if v := page(); v != 2 {
							s.Fatalf("STALE: a page of version %d is kept, which a replica had", v)
						}
						x.must(2, "page:1")
					})
				})
			}
		}
	}
}

// Within the lag loads are shared as at other times.
func TestScenarioAReaderWithinTheReplicaLagJoinsALoadWithinIt(t *testing.T) {
	play(t, func(s *scene) {
		lag := class(func(c *core.Class) { c.ReplicaLag = 500 * ms })
		x := s.actor("x", lag)
		time.Sleep(time.Second)
		require.NoError(s, x.cache.Invalidate(s.Context(), core.Key("row:1")))
		for range 20 {
			go func() { _, _ = x.get(100 * ms) }()
			time.Sleep(4 * ms)
		}
		time.Sleep(time.Second)
		if n := s.loads.Load(); n != 1 {
			s.Fatalf("LOADS: %d", n)
		}
	})
}
