package tiertest

import (
	"fmt"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/internal/tier"
)

func patternCases() []testCase {
	return []testCase{
		{name: "scan removes the entries whose names match, and tells how many", run: func(s *store) {
			end := string(tier.NameEnd)
			names := []string{
				"GET /a", "GET /a/b", "GET /b", "user:1", "user:2", "user:10", "user:x", "a*b", "axb", "a[b", "a\\b",
				"{1}", "ä", "日本", "page" + end + "gzip", "page" + end + "br", "pages",
				"tail\\" + end + "br",
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
				{"p*e", []string{"page" + end + "gzip", "page" + end + "br"}},
				{"*p*a*g*e", []string{"page" + end + "gzip", "page" + end + "br"}},
				{"*a*e*s*", []string{"pages"}},
				// A class without an end lasts to the end of the pattern, not of the key.
				{"pag[e", []string{"page" + end + "gzip", "page" + end + "br"}},
				{"pag[a-", nil},
				{"tail\\", []string{"tail\\" + end + "br"}},
				{"tai[^x][\\", []string{"tail\\" + end + "br"}},
				{"[\xe0-\xf0]*", []string{"日本"}},
				{"[^\x01-\x7f]", nil},
				{"*", names},
			} {
				c := newStore(s.TB, s.h).open()
				for _, name := range names {
					c.put(name, "payload")
				}
				require.EqualValues(s, len(pattern.want), c.scan(pattern.glob).Removed, "%q", pattern.glob)
				var gone []string
				for _, name := range names {
					if !c.has(name) {
						gone = append(gone, name)
					}
				}
				require.ElementsMatch(s, pattern.want, gone, "%q", pattern.glob)
			}
		}},

		{name: "scan for several globs removes what any of them matches", run: func(s *store) {
			names := []string{"user:1", "user:2", "users", "item:1", "item:2", "x"}
			for _, test := range []struct{ globs, want []string }{
				{[]string{"user:1", "item:*"}, []string{"user:1", "item:1", "item:2"}},
				{[]string{"user:*", "users"}, []string{"user:1", "user:2", "users"}},
				{[]string{"*1", "user:?", "nothing"}, []string{"user:1", "user:2", "item:1"}},
				{nil, nil},
			} {
				c := newStore(s.TB, s.h).open()
				for _, name := range names {
					c.put(name, "payload")
				}
				require.EqualValues(s, len(test.want), c.scan(test.globs...).Removed, "%q", test.globs)
				var gone []string
				for _, name := range names {
					if !c.has(name) {
						gone = append(gone, name)
					}
				}
				require.ElementsMatch(s, test.want, gone, "%q", test.globs)
			}
		}},

		{name: "scan tells what it has looked at, and does the same when it rests", run: func(s *store) {
			c := s.open()
			const entries = 30
			for i := range entries {
				c.put(fmt.Sprint("key", i), "payload")
			}
			did, err := c.Scan(s.ctx(), tier.Scan{Globs: []string{"key*"}, Rest: true})
			require.NoError(s, err)
			require.True(s, did.Sure)
			require.EqualValues(s, entries, did.Removed)
			require.GreaterOrEqual(s, did.Keys, did.Removed, "others may be there")
			require.Positive(s, did.Servers)
			require.LessOrEqual(s, did.Servers, c.layout.Partitions)
		}},

		{name: "scan removes entries and notes of every version of its namespace", run: func(s *store) {
			c := s.open()
			v2 := s.openVersion("v2")
			other := newStore(s.TB, s.h).open()
			for _, client := range []*client{c, v2, other} {
				client.put("key", "payload")
				require.NoError(s, client.Note(s.ctx(), "note", []byte("note"), minute))
			}
			require.EqualValues(s, 4, c.scan("*").Removed)
			require.False(s, c.has("key") || v2.has("key") || c.has("note") || v2.has("note"))
			require.True(s, other.has("key") && other.has("note"))
		}},

		{name: "scan removes entries only", run: func(s *store) {
			c := s.open()
			c.begin("intent", minute, tag("t1"))
			g := c.capture("t1")
			l := c.acquire("key", "t1")
			before := c.heads()
			c.scan("*")
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
			require.EqualValues(s, entries, c.scan("key*").Removed)
			require.Zero(s, c.scan("key*").Removed)
		}},

		{name: "a namespace that looks like a glob is none", run: func(s *store) {
			near := newStore(s.TB, s.h)
			glob := newStore(s.TB, s.h)
			glob.layout.Namespace = near.layout.Namespace + "*[a]?\\"
			near.layout.Namespace += "xa?"
			a, b := near.open(), glob.open()
			a.put("key", "payload")
			b.put("key", "payload")
			require.EqualValues(s, 1, b.scan("*").Removed)
			require.True(s, a.has("key"))
			require.False(s, b.has("key"))
		}},
	}
}
