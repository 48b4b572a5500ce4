package tiertest

import (
	"fmt"
	"slices"
	"sync"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/internal/tier"
)

func logCases() []testCase {
	return []testCase{
		{name: "a change logs its items in order, each after the one before", run: func(s *store) {
			a, b := s.open(), s.open()
			before := a.heads()[0].Position
			items := []tier.Item{key(in(0, "a")), tag(in(0, "a")), pattern("x*"), tag(in(0, "b")), all()}
			logged := a.change(tier.Change{Items: items})
			require.Len(s, logged, len(items))
			for i, it := range logged {
				require.Equal(s, items[i], it.Item)
			}
			s.follows(before.Token, logged)
			more := b.change(tier.Change{Items: items[:1]})
			require.Len(s, more, 1)
			s.follows(logged[len(logged)-1].Token, more)
			require.Equal(s, more[0].Position, b.heads()[0].Position, "the head is at the last item")

			want := slices.Concat(logged, more)
			for _, c := range []*client{a, b} {
				l := c.log(0, before)
				require.True(s, l.Joined)
				require.Equal(s, want, l.Items)
				for i, it := range want {
					l := c.log(0, it.Position)
					require.True(s, l.Joined, "after item %d", i)
					require.Len(s, l.Items, len(want)-i-1)
					s.follows(it.Token, l.Items)
				}
			}
		}},

		{name: "partitions have logs of their own", run: func(s *store) {
			c := s.open()
			before := c.heads()
			c.change(tier.Change{Partition: 1, Items: []tier.Item{tag(in(1, "t"))}})
			for p, h := range c.heads() {
				l := c.log(p, before[p].Position)
				require.True(s, l.Joined)
				if p == 1 {
					require.Len(s, l.Items, 1)
					require.NotEqual(s, before[p].Position, h.Position)
				} else {
					require.Empty(s, l.Items)
					require.Equal(s, before[p].Position, h.Position)
				}
			}
		}},

		{name: "a change without items logs nothing", run: func(s *store) {
			c := s.open()
			before := c.heads()[0]
			require.Empty(s, c.change(tier.Change{}))
			require.Equal(s, before.Position, c.heads()[0].Position)
		}},

		{name: "items are any strings", run: func(s *store) {
			c := s.open()
			for _, name := range oddNames() {
				p := tier.Partition(name, partitions)
				before := c.heads()[p].Position
				item := c.change(tier.Change{Partition: p, Items: []tier.Item{tag(name)}})
				require.Equal(s, item, c.log(p, before).Items)
				require.Equal(s, tag(name), item[0].Item)
			}
		}},

		{name: "begin, end and abandon are logged", run: func(s *store) {
			c := s.open()
			name := in(0, "t")
			before := c.heads()[0]
			c.begin("intent", minute, tag(name))
			c.end("intent", tag(name))
			c.begin("other", minute, tag(name))
			c.abandon("other", tag(name))
			c.abandon("never begun", tag(name))
			l := c.log(0, before.Position)
			require.True(s, l.Joined)
			require.Len(s, l.Items, 5)
			for i, id := range map[int]string{0: "intent", 3: "other"} {
				in, ok := tier.IntentOf(l.Items[i].Item)
				require.True(s, ok)
				require.Equal(s, tag(name), in.Item)
				require.Equal(s, id, in.ID)
				require.GreaterOrEqual(s, in.Deadline, before.Now+minute.Milliseconds())
				require.LessOrEqual(s, in.Deadline, c.heads()[0].Now+minute.Milliseconds())
			}
			require.Equal(s, tag(name), l.Items[1].Item)
			require.Equal(s, tier.Item{Kind: tier.Closed, Value: "intent"}, l.Items[2].Item)
			require.Equal(s, tier.Item{Kind: tier.Closed, Value: "other"}, l.Items[4].Item)
			s.follows(before.Position.Token, l.Items)
		}},

		{name: "a head tells the latest deadline of all intents", run: func(s *store) {
			c := s.open()
			name := in(0, "t")
			require.Zero(s, c.heads()[0].Until)
			c.begin("long", minute, tag(name))
			long := c.heads()[0].Until
			require.Greater(s, long, c.heads()[0].Now)
			c.begin("short", short, tag(name))
			c.end("long", tag(name))
			require.Equal(s, long, c.heads()[0].Until)
			require.NoError(s, c.NewEra(c.ctx(), 0, "", true))
			require.Equal(s, long, c.heads()[0].Until)
			require.Zero(s, c.heads()[1].Until)
		}},

		{name: "a position that is not in the log does not join, whatever its id", run: func(s *store) {
			c := s.open()
			items := c.change(tier.Change{Items: []tier.Item{tag("a"), tag("b"), tag("c")}})
			for _, it := range items {
				l := c.log(0, tier.Position{ID: it.ID, Token: "a foreign token"})
				require.False(s, l.Joined)
				require.False(s, l.Trimmed)
			}
			for _, id := range []string{"", "0", "0-0", "no id", "99999999999999-1"} {
				require.False(s, c.log(0, tier.Position{ID: id, Token: "a foreign token"}).Joined, "id %q", id)
			}
			require.False(s, c.log(0, tier.Position{ID: "0-0", Token: "another"}).Joined)
		}},

		{name: "a position in another partition does not join", run: func(s *store) {
			c := s.open()
			items := c.change(tier.Change{Items: []tier.Item{tag("a")}})
			c.change(tier.Change{Partition: 1, Items: []tier.Item{tag("a")}})
			require.False(s, c.log(1, items[0].Position).Joined)
		}},

		{name: "given many that change a partition at once, the log is one chain", run: func(s *store) {
			const clients, each = 3, 10
			first := s.open()
			before := first.heads()[0].Position
			var mu sync.Mutex
			var tokens []string
			var wg sync.WaitGroup
			for i := range clients {
				c := first
				if i > 0 {
					c = s.open()
				}
				for j := range each {
					wg.Add(1)
					go func() {
						defer wg.Done()
						items := []tier.Item{tag(fmt.Sprint(i, "/", j)), tag(fmt.Sprint(i, "\\", j))}
						logged, err := c.Change(s.ctx(), tier.Change{Items: items})
						mu.Lock()
						defer mu.Unlock()
						if err == nil && len(logged) == 2 && logged[1].Before == logged[0].Token {
							tokens = append(tokens, logged[0].Token, logged[1].Token)
						}
					}()
				}
			}
			wg.Wait()
			l := first.log(0, before)
			require.True(s, l.Joined)
			require.Len(s, l.Items, 2*clients*each)
			s.follows(before.Token, l.Items)
			var logged []string
			for _, it := range l.Items {
				logged = append(logged, it.Token)
			}
			require.ElementsMatch(s, tokens, logged)
			slices.Sort(logged)
			require.Len(s, slices.Compact(logged), len(tokens), "tokens are unique")
		}},

		{name: "late returns the items of the tag's partition since a position", run: func(s *store) {
			c := s.open()
			name := in(2, "t")
			before := c.heads()[2].Position
			late, err := c.Late(s.ctx(), name, before)
			require.NoError(s, err)
			require.True(s, late.Joined)
			require.Empty(s, late.Items)
			logged := c.change(tier.Change{Partition: 2, Items: []tier.Item{tag(name), tag(in(2, "u"))}})
			late, err = c.Late(s.ctx(), name, before)
			require.NoError(s, err)
			require.True(s, late.Joined)
			require.Equal(s, logged, late.Items)
			late, err = c.Late(s.ctx(), name, logged[0].Position)
			require.NoError(s, err)
			require.True(s, late.Joined)
			require.Equal(s, logged[1:], late.Items)
			late, err = c.Late(s.ctx(), name, tier.Position{ID: logged[0].ID, Token: "a foreign token"})
			require.NoError(s, err)
			require.False(s, late.Joined)
			require.NotEmpty(s, late.Token)
		}},

		{name: "a log beyond its length trims old positions, and new ones join", needs: needsLogItems,
			run: func(s *store) {
				c := s.open()
				const batch = 50
				start := c.heads()[0].Position
				old := c.change(tier.Change{Items: []tier.Item{tag("a")}})[0].Position
				var last []tier.Logged
				l := c.log(0, old)
				for n := 0; l.Joined; n += batch {
					require.Less(s, n, 3*s.h.LogItems+1000, "a log does not grow for ever")
					s.follows(old.Token, l.Items)
					items := make([]tier.Item, batch)
					for i := range items {
						items[i] = tag(fmt.Sprint(n + i))
					}
					last = c.change(tier.Change{Items: items})
					l = c.log(0, old)
				}
				require.True(s, l.Trimmed)
				l = c.log(0, start)
				require.False(s, l.Joined)
				require.True(s, l.Trimmed)
				late, err := c.Late(s.ctx(), in(0, "t"), old)
				require.NoError(s, err)
				require.False(s, late.Joined)
				require.True(s, late.Trimmed)
				// A trimmed log still joins at its end.
				l = c.log(0, last[len(last)-2].Position)
				require.True(s, l.Joined)
				require.Equal(s, last[len(last)-1:], l.Items)
				l = c.log(0, last[len(last)-1].Position)
				require.True(s, l.Joined)
				require.Empty(s, l.Items)
			}},

		{name: "a change with more items than a log holds is done, and its end joins", needs: needsLogItems,
			run: func(s *store) {
				c := s.open()
				g := c.capture(in(0, "t"))
				items := []tier.Item{tag(g.Tag)}
				for i := range s.h.LogItems + 10 {
					items = append(items, tag(fmt.Sprint(i)))
				}
				logged := c.change(tier.Change{Items: items})
				require.Len(s, logged, len(items))
				require.Equal(s, []string{""}, c.generations(g.Tag))
				require.Equal(s, logged[len(logged)-1].Position, c.heads()[0].Position)
				require.True(s, c.log(0, logged[len(logged)-1].Position).Joined)
			}},

		{name: "given an evicted log, the head's position joins and older ones do not", needs: needsEvict,
			run: func(s *store) {
				c := s.open()
				items := c.change(tier.Change{Items: []tier.Item{tag("a"), tag("b")}})
				c.evictIn(Log, 0, "")
				require.False(s, c.log(0, items[0].Position).Joined, "missing is not empty")
				at := c.heads()[0].Position
				require.Equal(s, items[1].Position, at)
				require.True(s, c.log(0, at).Joined)
				more := c.change(tier.Change{Items: []tier.Item{tag("c")}})
				s.follows(at.Token, more)
				l := c.log(0, at)
				require.True(s, l.Joined, "it is the token before the first item")
				require.Equal(s, more, l.Items)
				require.False(s, c.log(0, items[0].Position).Joined)
			}},

		{name: "given an evicted head, the next one's position joins what follows", needs: needsEvict,
			run: func(s *store) {
				c := s.open()
				c.change(tier.Change{Items: []tier.Item{tag("a"), tag("b")}})
				c.evictIn(Head, 0, "")
				require.NoError(s, c.NewEra(s.ctx(), 0, "", false))
				at := c.heads()[0].Position
				require.True(s, c.log(0, at).Joined)
				more := c.change(tier.Change{Items: []tier.Item{tag("c"), tag("d")}})
				l := c.log(0, at)
				require.True(s, l.Joined)
				require.Equal(s, more, l.Items)
				s.follows(at.Token, l.Items)
			}},
	}
}
