package tiertest

import (
	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/internal/tier"
)

func layoutCases() []testCase {
	return []testCase{
		{name: "the first client's layout holds", run: func(s *store) {
			l := s.open().agree()
			require.Equal(s, s.layout, l)
		}},

		{name: "the partitions that are there win", run: func(s *store) {
			a := s.open()
			b := s.openWith(func(l *tier.Layout) { l.Partitions = 16 })
			require.Equal(s, partitions, b.agree().Partitions)
			require.Equal(s, partitions, a.agree().Partitions)
			require.Len(s, b.heads(), partitions)
			a.put("key", "payload", "t1", "t2", "t3")
			e := b.entry("key")
			require.Equal(s, "payload", string(e.Payload), "keys lie where they did")
			for i, token := range b.generations("t1", "t2", "t3") {
				require.Equal(s, e.Tags[i].Token, token)
			}
		}},

		{name: "one partition is enough, and as many as may be", run: func(s *store) {
			for _, n := range []int{1, tier.MaxPartitions} {
				other := newStore(s.TB, s.h)
				other.layout.Partitions = n
				c := other.openWith(func(*tier.Layout) {})
				require.Len(s, c.heads(), n)
				for p := range n {
					require.NoError(s, c.NewEra(s.ctx(), p, "", false))
				}
				for p, h := range c.heads() {
					require.False(s, h.Missing, "head %d of %d", p, n)
					require.Equal(s, n, h.Partitions)
				}
				c.put("key", "payload", "t1", "t2")
				p := tier.Partition("key", n)
				require.Len(s, c.change(tier.Change{Partition: p, Items: []tier.Item{key("key")}}), 1)
				require.False(s, c.has("key"))
			}
		}},

		{name: "the largest staleness and lag of any client hold for all", run: func(s *store) {
			a := s.open()
			b := s.openWith(func(l *tier.Layout) { l.MaxStaleness, l.ReplicaLag = 5*second, minute })
			c := s.openWith(func(l *tier.Layout) { l.MaxStaleness, l.ReplicaLag = 10*second, second })
			for _, client := range []*client{a, b, c} {
				l := client.agree()
				require.Equal(s, 10*second, l.MaxStaleness)
				require.Equal(s, minute, l.ReplicaLag)
			}
		}},

		{name: "a client's part of the layout lapses unless it is renewed", needs: needsLapse, run: func(s *store) {
			lapse := s.h.LayoutLapse
			a := s.open()
			b := s.openWith(func(l *tier.Layout) { l.MaxStaleness, l.ReplicaLag = minute, minute })
			for range 8 { // twice as long as it takes
				s.wait(lapse / 4)
				b.agree()
				require.Equal(s, minute, a.agree().MaxStaleness)
			}
			for range 8 {
				s.wait(lapse / 4)
				a.agree()
			}
			l := a.agree()
			require.Equal(s, second, l.MaxStaleness)
			require.Zero(s, l.ReplicaLag)
			require.Equal(s, partitions, l.Partitions)
			require.Equal(s, minute, b.agree().MaxStaleness, "it may come back")
			require.Equal(s, minute, a.agree().MaxStaleness)
		}},

		{name: "a version keeps its own name", run: func(s *store) {
			a, b := s.open(), s.openVersion("v2")
			require.Equal(s, "v1", a.agree().Version)
			require.Equal(s, "v2", b.agree().Version)
			require.Equal(s, s.layout.Namespace, b.agree().Namespace)
		}},

		{name: "an invalidation by key removes the entry under every version",
			run: func(s *store) {
				first := s.open()
				clients := []*client{first}
				for _, version := range []string{"v2", "", "v 3 {x} %"} {
					clients = append(clients, s.openVersion(version))
				}
				for _, by := range clients {
					for _, c := range clients {
						c.put("key", c.layout.Version)
					}
					by.invalidate(key("key"))
					for _, c := range clients {
						require.False(s, c.has("key"), "version %q, by %q", c.layout.Version, by.layout.Version)
					}
				}
				// The first has not renewed its part since this one came.
				late := s.openVersion("late")
				late.put("key", "payload")
				l := late.acquire("leased")
				first.invalidate(key("key"), key("leased"))
				require.False(s, late.has("key"))
				require.False(s, late.fill(l, value(l, "payload")))
			}},

		{name: "given an evicted layout, the partitions stay as they are", needs: needsEvict, run: func(s *store) {
			c := s.open()
			c.put("key", "payload")
			c.evictIn(Layout, 0, "")
			require.Equal(s, s.layout, c.agree())
			other := s.openWith(func(l *tier.Layout) { l.Partitions = 16 })
			require.Equal(s, partitions, other.agree().Partitions)
			require.True(s, other.has("key"))
		}},
	}
}

func (c *client) agree() tier.Layout {
	c.Helper()
	l, err := c.Agree(c.ctx())
	require.NoError(c, err)
	return l
}
