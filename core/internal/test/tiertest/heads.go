package tiertest

import (
	"sync"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/internal/tier"
)

func headCases() []testCase {
	return []testCase{
		{name: "given nothing, every head is missing, and a new era makes one", run: func(s *store) {
			c := s.openWith(func(*tier.Layout) {})
			heads := c.heads()
			require.Len(s, heads, partitions)
			for p, h := range heads {
				require.True(s, h.Missing)
				require.Empty(s, h.Era)
				require.NoError(s, c.NewEra(s.ctx(), p, "whatever it was", false))
			}
			seen := map[string]bool{}
			for _, h := range c.heads() {
				require.False(s, h.Missing)
				require.Equal(s, h.Server, h.Confirmed)
				require.Positive(s, h.Now)
				require.False(s, seen[h.Era], "an era is one partition's")
				seen[h.Era] = true
			}
		}},

		{name: "asking changes nothing", run: func(s *store) {
			a, b := s.open(), s.open()
			before := a.heads()
			for p, h := range b.heads() {
				h.Now = before[p].Now
				require.Equal(s, before[p], h)
			}
		}},

		{name: "the server's clock is about one in every answer", run: func(s *store) {
			c := s.open()
			first := c.heads()[home("key")].Now
			c.put("key", "payload")
			e := c.entry("key")
			last := c.heads()[home("key")].Now
			require.LessOrEqual(s, first, last)
			require.InDelta(s, last, e.Now, 1000)
		}},

		{name: "a new era is made only while the head was confirmed as said", run: func(s *store) {
			a, b := s.open(), s.open()
			before := a.heads()
			require.NoError(s, b.NewEra(s.ctx(), 1, "another server", false))
			require.Equal(s, before[1].Era, a.heads()[1].Era, "somebody else was first")
			require.NoError(s, b.NewEra(s.ctx(), 1, before[1].Confirmed, false))
			after := a.heads()
			require.NotEqual(s, before[1].Era, after[1].Era)
			require.Equal(s, after[1].Server, after[1].Confirmed)
			for _, p := range []int{0, 2, 3} {
				require.Equal(s, before[p].Era, after[p].Era, "others keep theirs")
			}
		}},

		{name: "a new era is made always where that is asked", run: func(s *store) {
			c := s.open()
			seen := map[string]bool{c.heads()[0].Era: true}
			for range 5 {
				require.NoError(s, c.NewEra(s.ctx(), 0, "another server", true))
				h := c.heads()[0]
				require.False(s, seen[h.Era], "it is another")
				require.Equal(s, h.Server, h.Confirmed)
				seen[h.Era] = true
			}
		}},

		{name: "a later era began no earlier, and no head is before an earlier one", run: func(s *store) {
			c := s.open()
			before := c.heads()[0]
			require.Positive(s, before.Begun)
			for range 3 {
				for _, step := range []func(){
					func() { require.NoError(s, c.NewEra(s.ctx(), 0, "", true)) },
					func() { c.change(tier.Change{Items: []tier.Item{tag("a"), all()}}) },
					func() { c.change(tier.Change{Items: []tier.Item{tag("b")}}) },
				} {
					step()
					after := c.heads()[0]
					require.GreaterOrEqual(s, after.Begun, before.Begun)
					require.Equal(s, after.Era == before.Era, after.Begun == before.Begun)
					require.False(s, after.Position.Precedes(before.Position), "%v before %v", after.Position, before.Position)
					before = after
				}
			}
		}},

		{name: "a new era leaves the log as it is", run: func(s *store) {
			c := s.open()
			items := c.change(tier.Change{Items: []tier.Item{tag("a"), tag("b")}})
			require.NoError(s, c.NewEra(s.ctx(), 0, "", true))
			l := c.log(0, items[0].Position)
			require.True(s, l.Joined)
			require.Equal(s, items[1:], l.Items)
			at := c.heads()[0].Position
			more := c.change(tier.Change{Items: []tier.Item{tag("c")}})
			s.follows(at.Token, more)
			l = c.log(0, at)
			require.True(s, l.Joined)
			require.Equal(s, more, l.Items)
		}},

		{name: "a change of all begins an era, one by pattern a sweep, others neither", run: func(s *store) {
			c := s.open()
			changed := func(items ...tier.Item) (era, sweep bool) {
				before := c.heads()[0]
				c.change(tier.Change{Items: items})
				after := c.heads()[0]
				require.NotEqual(s, before.Position, after.Position)
				return before.Era != after.Era, before.Sweep != after.Sweep
			}
			era, sweep := changed(key(in(0, "key")), tag(in(0, "t")))
			require.False(s, era)
			require.False(s, sweep)
			era, sweep = changed(pattern("nothing matches this"))
			require.False(s, era)
			require.True(s, sweep)
			era, _ = changed(all())
			require.True(s, era)
		}},

		{name: "an entry keeps the era it was made under", run: func(s *store) {
			c := s.open()
			e := c.put("key", "payload")
			require.Equal(s, c.heads()[home("key")].Era, e.Eras[0].Era)
			c.invalidate(all())
			require.NotEqual(s, c.heads()[home("key")].Era, e.Eras[0].Era)
			if left := c.entry("key"); left.ID != "" {
				require.Equal(s, e.Eras, left.Eras, "who reads it compares")
			}
		}},

		{name: "given an evicted head, whatever comes next has another era", needs: needsEvict, run: func(s *store) {
			c := s.open()
			before := c.heads()[0]
			c.evictIn(Head, 0, "")
			require.True(s, c.heads()[0].Missing)
			// A change works without a head as well.
			name := in(0, "key")
			require.Len(s, c.change(tier.Change{Items: []tier.Item{key(name)}}), 1)
			require.NoError(s, c.NewEra(s.ctx(), 0, before.Confirmed, false))
			after := c.heads()[0]
			require.NotEqual(s, before.Era, after.Era)
			require.NotEqual(s, before.Sweep, after.Sweep)
			require.NotEqual(s, before.Position.Token, after.Position.Token)
		}},

		{name: "after a restart the head names another server, and one era begins",
			needs: needsRestart, alone: true, run: func(s *store) {
				a, b := s.open(), s.open()
				a.put("key", "payload", "t1")
				before := a.heads()
				s.h.Restart(s.TB)
				var after []tier.Head
				s.eventually(func() bool {
					var err error
					after, err = a.Heads(s.ctx())
					return err == nil && after[0].Err == nil
				}, "the server")
				after = a.heads()
				for p, h := range after {
					require.False(s, h.Missing)
					require.NotEqual(s, before[p].Server, h.Server)
					require.Equal(s, before[p].Confirmed, h.Confirmed)
					require.Equal(s, before[p].Era, h.Era)
					require.Equal(s, before[p].Position, h.Position)
				}
				s.eventually(func() bool { // whose connections may be broken still
					_, err := b.Heads(s.ctx())
					return err == nil
				}, "the other client")
				require.True(s, a.has("key"))

				var wg sync.WaitGroup
				eras := make([]string, 2)
				for i, c := range []*client{a, b} {
					wg.Add(1)
					go func() {
						defer wg.Done()
						if c.NewEra(s.ctx(), 0, before[0].Confirmed, false) != nil {
							return
						}
						if heads, err := c.Heads(s.ctx()); err == nil && len(heads) > 0 {
							eras[i] = heads[0].Era
						}
					}()
				}
				wg.Wait()
				require.NotEmpty(s, eras[0])
				require.Equal(s, eras[0], eras[1], "the second found it done")
				require.NotEqual(s, before[0].Era, eras[0])
				require.Equal(s, a.heads()[0].Server, a.heads()[0].Confirmed)
			}},

		{name: "given a flush, everything is missing and nothing comes back", needs: needsFlush, alone: true,
			run: func(s *store) {
				c := s.open()
				e := c.put("key", "payload", "t1")
				before := c.heads()
				items := c.change(tier.Change{Items: []tier.Item{tag("a"), tag("b")}})
				l := c.acquire("leased")
				s.h.Flush(s.TB)

				require.False(s, c.has("key"))
				require.Equal(s, []string{""}, c.generations("t1"))
				require.False(s, c.extend(l, minute))
				require.False(s, c.fill(l, value(l, "payload")))
				for p, h := range c.heads() {
					require.True(s, h.Missing)
					require.NoError(s, c.NewEra(s.ctx(), p, before[p].Confirmed, false))
				}
				for p, h := range c.heads() {
					require.False(s, h.Missing)
					require.NotEqual(s, before[p].Era, h.Era)
					require.NotEqual(s, before[p].Sweep, h.Sweep)
				}
				again := c.change(tier.Change{Items: []tier.Item{tag("a"), tag("b"), tag("c")}})
				for _, it := range items {
					require.False(s, c.log(0, it.Position).Joined, "another log, however alike")
					for _, other := range again {
						require.NotEqual(s, it.Token, other.Token)
					}
				}
				require.NotEqual(s, e.Tags[0].Token, c.capture("t1").Token)
				again2 := c.put("key", "payload", "t1")
				require.NotEqual(s, e.ID, again2.ID)
				agreed, err := c.Agree(s.ctx())
				require.NoError(s, err)
				require.Equal(s, partitions, agreed.Partitions)
			}},

		{name: "given a migration, changes are refused and a new era works", needs: needsMigrate, alone: true, run: func(s *store) {
			c := s.open()
			name := in(0, "key")
			c.put(name, "payload", in(0, "t"))
			c.h.Migrate(s.TB, c.layout, 0, true)
			before := c.heads()[0]
			for _, it := range []tier.Item{key(name), tag(in(0, "t")), pattern("*")} {
				_, err := c.Change(s.ctx(), tier.Change{Items: []tier.Item{it}})
				require.ErrorIs(s, err, tier.ErrMigrating)
			}
			after := c.heads()[0]
			require.Equal(s, before.Era, after.Era)
			require.Equal(s, before.Position, after.Position, "nothing was changed")
			require.NoError(s, c.NewEra(s.ctx(), 0, "", true))
			require.NotEqual(s, before.Era, c.heads()[0].Era)
			did, err := c.Scan(s.ctx(), tier.Scan{Globs: []string{"*"}})
			require.NoError(s, err)
			require.False(s, did.Sure)
			c.h.Migrate(s.TB, c.layout, 0, false)
			require.Len(s, c.change(tier.Change{Items: []tier.Item{key(name)}}), 1)
		}},
	}
}
