package tiertest

import (
	"fmt"
	"sync"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/internal/tier"
)

func tagCases() []testCase {
	return []testCase{
		{name: "acquire makes the generations that are missing and finds the others", run: func(s *store) {
			a, b := s.open(), s.open()
			heads := a.heads()
			tags := []string{in(0, "t"), in(1, "t"), in(2, "t"), in(3, "t"), in(0, "u")}
			l := a.acquire("key", tags[:3]...)
			again := b.acquire("other", tags...)
			for i, g := range again.Generations {
				require.Equal(s, tags[i], g.Tag, "in the order of the tags")
				require.NotEmpty(s, g.Token)
				require.Equal(s, heads[home(g.Tag)].Era, g.Era)
				require.Zero(s, g.Open)
				require.False(s, g.Lagging)
				if i < 3 {
					require.Equal(s, l.Generations[i], g)
				}
				for _, other := range again.Generations[:i] {
					require.NotEqual(s, other.Token, g.Token)
				}
			}
			for i, token := range a.generations(tags...) {
				require.Equal(s, again.Generations[i].Token, token)
			}
		}},

		{name: "late makes and finds generations as acquire does", run: func(s *store) {
			a, b := s.open(), s.open()
			g := a.capture("t1")
			require.Equal(s, g, b.acquire("key", "t1").Generations[0])
			require.Equal(s, g, b.capture("t1"))
			require.Equal(s, a.heads()[home("t1")].Era, g.Era)
		}},

		{name: "given many that capture a tag at once, all get one generation", run: func(s *store) {
			a, b := s.open(), s.open()
			const each = 10
			tokens := make([]string, 2*each)
			var wg sync.WaitGroup
			for i := range tokens {
				wg.Add(1)
				go func() {
					defer wg.Done()
					c := a
					if i%2 == 0 {
						c = b
					}
					if l, err := c.Acquire(s.ctx(), fmt.Sprint("key", i), "", []string{"t1"}, minute); err == nil {
						tokens[i] = l.Generations[0].Token
					}
				}()
			}
			wg.Wait()
			require.NotEmpty(s, tokens[0])
			for _, token := range tokens {
				require.Equal(s, tokens[0], token)
			}
		}},

		{name: "given a change of a tag, its generation is gone and never comes back", run: func(s *store) {
			a, b := s.open(), s.open()
			seen := map[string]bool{}
			for range 20 {
				g := a.capture("t1")
				require.False(s, seen[g.Token], "it is another")
				seen[g.Token] = true
				b.invalidate(tag("t1"))
				require.Equal(s, []string{""}, a.generations("t1"))
				_, tokens, err := a.Get(s.ctx(), "none", []string{"t1"})
				require.NoError(s, err)
				require.Equal(s, []string{""}, tokens)
			}
		}},

		{name: "a change of a tag touches neither entries nor other tags", run: func(s *store) {
			c := s.open()
			e := c.put("key", "payload", "t1", "t2", "t10")
			c.invalidate(tag("t1"))
			e.Now = 0
			left := c.entry("key")
			left.Now = 0
			require.Equal(s, e, left, "an entry is judged by who reads it")
			tokens := c.generations("t1", "t2", "t10")
			require.Equal(s, []string{"", e.Tags[1].Token, e.Tags[2].Token}, tokens)
		}},

		{name: "other changes leave generations alone", run: func(s *store) {
			c := s.open()
			g := c.capture("t1")
			c.invalidate(key("t1"), key("key"), pattern("*"), all())
			require.NoError(s, c.NewEra(s.ctx(), home("t1"), "", true))
			// All and eras may do more: that a generation is missing is always right.
			if token := c.generations("t1")[0]; token != "" {
				require.Equal(s, g.Token, token)
			}
			later := c.capture("t1")
			require.Equal(s, c.heads()[home("t1")].Era, later.Era)
			require.NotEqual(s, g.Era, later.Era)
		}},

		{name: "a tag is changed by a client of any version", run: func(s *store) {
			c, v2 := s.open(), s.openVersion("v2")
			g := c.capture("t1")
			require.Equal(s, g.Token, v2.capture("t1").Token)
			v2.invalidate(tag("t1"))
			require.Equal(s, []string{""}, c.generations("t1"))
		}},

		{name: "many tags at once, and one twice", run: func(s *store) {
			c := s.open()
			tags := []string{"twice"}
			for i := range 200 {
				tags = append(tags, fmt.Sprint("t", i))
			}
			tags = append(tags, "twice")
			e := c.put("key", "payload", tags...)
			require.Len(s, e.Tags, len(tags))
			got, tokens, err := c.Get(s.ctx(), "key", tags)
			require.NoError(s, err)
			for i, g := range got.Tags {
				require.Equal(s, tier.TagGeneration{Tag: tags[i], Token: tokens[i]}, g)
			}
			require.Equal(s, tokens[0], tokens[len(tokens)-1])
		}},

		{name: "given an evicted generation, it is missing and the next is another", needs: needsEvict, run: func(s *store) {
			c := s.open()
			g := c.capture("t1")
			c.evict(Generation, "t1")
			require.Equal(s, []string{""}, c.generations("t1"))
			require.NotEqual(s, g.Token, c.capture("t1").Token)
		}},
	}
}
