package storetest

import (
	"fmt"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/internal/remote"
)

func patternCases() []testCase {
	return []testCase{
		{name: "scan removes the entries whose names match, and tells how many", run: func(s *store) {
			end := string(remote.NameEnd)
			names := []string{
				"GET /a", "GET /a/b", "GET /b", "user:1", "user:2", "user:10", "user:x", "a*b", "axb", "a[b", "a\\b",
				"{1}", "ä", "日本", "page" + end + "gzip", "page" + end + "br", "pages",
			}
			for _, pattern := range []struct {
				glob string
				want []string
			}{
				{"nothing", nil},
				{"user:1", []string{"user:1"}},
				{"user:?", []string{"user:1", "user:2", "user:x"}},
				{"user:*", []string{"user:1", "user:2", "user:10", "user:x"}},
				{"user:[0-9]", []string{"user:1", "user:2"}},
				{"user:[^0-9]", []string{"user:x"}},
				{"GET /a*", []string{"GET /a", "GET /a/b"}},
				{"*b", []string{"GET /a/b", "GET /b", "a*b", "axb", "a[b", "a\\b"}},
				{"a\\*b", []string{"a*b"}},
				{"a\\[b", []string{"a[b"}},
				{"a\\\\b", []string{"a\\b"}},
				{"a[b", []string{}},
				{"{*}", []string{"{1}"}},
				{"日*", []string{"日本"}},
				{"??", []string{"ä"}},
				// Only names are seen, so that a variant goes with its page.
				{"page", []string{"page" + end + "gzip", "page" + end + "br"}},
				{"*gzip", nil},
				{"*", names},
			} {
				c := newStore(s.TB, s.h).open()
				for _, name := range names {
					c.put(name, "payload")
				}
				removed, sure, err := c.Scan(s.ctx(), pattern.glob)
				require.NoError(s, err)
				require.True(s, sure)
				require.Equal(s, len(pattern.want), removed, "%q", pattern.glob)
				var gone []string
				for _, name := range names {
					if !c.has(name) {
						gone = append(gone, name)
					}
				}
				require.ElementsMatch(s, pattern.want, gone, "%q", pattern.glob)
			}
		}},

		{name: "scan removes entries of every version, notes as well, and of no other namespace", run: func(s *store) {
			c := s.open()
			v2 := s.openVersion("v2")
			other := newStore(s.TB, s.h).open()
			for _, client := range []*client{c, v2, other} {
				client.put("key", "payload")
				require.NoError(s, client.Note(s.ctx(), "note", []byte("note"), minute))
			}
			removed, sure, err := c.Scan(s.ctx(), "*")
			require.NoError(s, err)
			require.True(s, sure)
			require.Equal(s, 4, removed)
			require.False(s, c.has("key") || v2.has("key") || c.has("note") || v2.has("note"))
			require.True(s, other.has("key") && other.has("note"))
		}},

		{name: "scan removes entries only", run: func(s *store) {
			c := s.open()
			c.begin("intent", minute, tag("t1"))
			g := c.capture("t1")
			l := c.acquire("key", "t1")
			before := c.heads()
			_, _, err := c.Scan(s.ctx(), "*")
			require.NoError(s, err)
			require.True(s, c.extend(l, minute))
			require.Equal(s, g.Token, c.generations("t1")[0])
			require.Positive(s, c.openTag("t1"))
			for p, h := range c.heads() {
				h.Now = before[p].Now
				require.Equal(s, before[p], h)
			}
		}},

		{name: "scan goes to the end of many", run: func(s *store) {
			c := s.open()
			const entries = 1500
			for i := range entries {
				require.NoError(s, c.Note(s.ctx(), fmt.Sprint("key", i), []byte("payload"), minute))
			}
			removed, sure, err := c.Scan(s.ctx(), "key*")
			require.NoError(s, err)
			require.True(s, sure)
			require.Equal(s, entries, removed)
			removed, sure, err = c.Scan(s.ctx(), "key*")
			require.NoError(s, err)
			require.True(s, sure)
			require.Zero(s, removed)
		}},

		{name: "a namespace that looks like a glob is none", run: func(s *store) {
			near := newStore(s.TB, s.h)
			glob := newStore(s.TB, s.h)
			glob.layout.Namespace = near.layout.Namespace + "*[a]?\\"
			near.layout.Namespace += "xa?"
			a, b := near.open(), glob.open()
			a.put("key", "payload")
			b.put("key", "payload")
			removed, _, err := b.Scan(s.ctx(), "*")
			require.NoError(s, err)
			require.Equal(s, 1, removed)
			require.True(s, a.has("key"))
			require.False(s, b.has("key"))
		}},
	}
}
