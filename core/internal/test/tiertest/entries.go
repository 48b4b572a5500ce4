package tiertest

import (
	"bytes"
	"slices"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/internal/tier"
)

func entryCases() []testCase {
	return []testCase{
		{name: "where nothing is, reading finds nothing and makes nothing", run: func(s *store) {
			c := s.open()
			for range 2 {
				e, tokens, err := c.Get(s.ctx(), "none", []string{"t1", "t2", "t3"})
				require.NoError(s, err)
				require.Equal(s, tier.Entry{}, e)
				require.Equal(s, []string{"", "", ""}, tokens)
				require.Equal(s, []string{"", ""}, c.generations("t1", "t2"))
			}
			require.Empty(s, c.generations())
		}},

		{name: "an entry comes back as it was filled, to every client", run: func(s *store) {
			c := s.open()
			l := c.acquire("key", "t1", "t2")
			f := value(l, "payload")
			f.Entry.ID, f.Entry.Now = "the caller's", 1 // are not the tier's business
			f.Entry.Provisional = true
			f.Entry.LoadTime = 7 * time.Millisecond
			f.Entry.Eras = append(f.Entry.Eras, tier.PartitionEra{Partition: 63, Era: "era of another"})
			require.True(s, c.fill(l, f))

			for _, other := range []*client{c, s.open()} {
				e, tokens, err := other.Get(s.ctx(), "key", []string{"t2", "none", "t1"})
				require.NoError(s, err)
				require.Equal(s, []string{l.Generations[1].Token, "", l.Generations[0].Token}, tokens)
				require.Equal(s, l.Token, e.ID, "the id is the lease's token")
				require.GreaterOrEqual(s, e.Now, l.Now-1000)
				require.Less(s, e.Now, l.Now+patience.Milliseconds())
				want := f.Entry
				want.ID, want.Now = e.ID, e.Now
				require.Equal(s, want, e)
			}
		}},

		{name: "an entry that is not provisional stays so, with or without tags", run: func(s *store) {
			c := s.open()
			e := c.put("key", "payload")
			require.False(s, e.Provisional)
			require.Empty(s, e.Tags)
			require.Zero(s, e.LoadTime)
		}},

		{name: "every fill makes an id of its own, of the same payload too", run: func(s *store) {
			c := s.open()
			seen := map[string]bool{}
			id := ""
			for range 5 {
				l := c.ask("key", id, minute)
				require.NotEmpty(s, l.Token)
				require.True(s, c.fill(l, value(l, "same")))
				id = c.entry("key").ID
				require.Equal(s, l.Token, id)
				require.False(s, seen[id], "the id is new")
				seen[id] = true
			}
		}},

		{name: "an entry is gone after KeepUntil", run: func(s *store) {
			c := s.open()
			l := c.acquire("key")
			f := value(l, "payload")
			f.Entry.KeepUntil = l.Now + 3*short.Milliseconds()
			require.True(s, c.fill(l, f))
			require.True(s, c.has("key"))
			s.wait(3 * short)
			s.eventually(func() bool { return !c.has("key") }, "the entry's end")
		}},

		{name: "payloads are any bytes", run: func(s *store) {
			c := s.open()
			binary := make([]byte, 256)
			for i := range binary {
				binary[i] = byte(i)
			}
			for name, payload := range map[string][]byte{
				"empty": {}, "binary": binary, "newlines": []byte("\r\n$-1\r\n"), "not utf-8": {0xff, 0xfe, 0},
				"a mebibyte": bytes.Repeat(binary, 4096),
			} {
				l := c.acquire(name)
				f := value(l, string(payload))
				require.True(s, c.fill(l, f))
				e := c.entry(name)
				require.NotEmpty(s, e.ID, name)
				require.True(s, bytes.Equal(payload, e.Payload), name)
				found := c.ask(name, "another", minute).Found
				require.True(s, bytes.Equal(payload, found.Payload), name)

				require.NoError(s, c.Note(s.ctx(), "note of "+name, payload, minute))
				e = c.entry("note of " + name)
				require.NotEmpty(s, e.ID, name)
				require.True(s, bytes.Equal(payload, e.Payload), name)
			}
		}},

		{name: "bytes are the caller's after a call, and so are results", run: func(s *store) {
			c := s.open()
			tags := []string{"t1"}
			l, err := c.Acquire(s.ctx(), "key", "", tags, minute)
			require.NoError(s, err)
			tags[0] = "scribbled"
			f := value(l, "payload")
			require.True(s, c.fill(l, f))
			f.Entry.Payload[0], f.Entry.Tags[0].Tag = 'X', "scribbled"
			e := c.entry("key")
			require.Equal(s, "payload", string(e.Payload))
			require.Equal(s, "t1", e.Tags[0].Tag)
			e.Payload[0], e.Tags[0].Tag, e.Eras[0].Era = 'X', "scribbled", "scribbled"
			e = c.entry("key")
			require.Equal(s, "payload", string(e.Payload))
			require.Equal(s, "t1", e.Tags[0].Tag)
			require.Equal(s, l.Era, e.Eras[0].Era)

			note := []byte("note")
			require.NoError(s, c.Note(s.ctx(), "note", note, minute))
			note[0] = 'X'
			require.Equal(s, "note", string(c.entry("note").Payload))
		}},

		{name: "keys and tags are any strings, and no two of them meet", run: func(s *store) {
			c := s.open()
			names := oddNames()
			for _, name := range names {
				c.put(name, "of "+name, name, "tag of "+name)
			}
			for _, name := range names {
				e, tokens, err := c.Get(s.ctx(), name, []string{name, "tag of " + name})
				require.NoError(s, err)
				require.Equal(s, "of "+name, string(e.Payload))
				require.Len(s, e.Tags, 2)
				require.Equal(s, []string{e.Tags[0].Token, e.Tags[1].Token}, tokens)
				require.Equal(s, name, e.Tags[0].Tag)
			}
			// Each is invalidated by itself. (Items are of names, which have no NameEnd.)
			names = slices.DeleteFunc(names, func(n string) bool { return strings.ContainsRune(n, tier.NameEnd) })
			for i, name := range names {
				c.invalidate(key(name), tag(name))
				require.False(s, c.has(name), "%q", name)
				for j, token := range c.generations(names...) {
					require.Equal(s, j > i, token != "", "the tag %q after %q", names[j], name)
				}
				for _, other := range names[i+1:] {
					require.True(s, c.has(other), "%q after %q", other, name)
				}
			}
		}},

		{name: "a key and a tag of one name do not meet", run: func(s *store) {
			c := s.open()
			c.put("name", "payload", "name")
			c.invalidate(tag("name"))
			require.True(s, c.has("name"))
			g := c.capture("name")
			c.invalidate(key("name"))
			require.Equal(s, g.Token, c.generations("name")[0])
			require.False(s, c.has("name"))
		}},

		{name: "namespaces do not meet", run: func(s *store) {
			c := s.open()
			other := newStore(s.TB, s.h).open()
			c.put("key", "payload", "t1")
			require.False(s, other.has("key"))
			require.Equal(s, []string{""}, other.generations("t1"))
			other.invalidate(key("key"), tag("t1"), all())
			require.True(s, c.has("key"))
			require.NotEmpty(s, c.generations("t1")[0])
			require.Equal(s, c.entry("key").Eras[0].Era, c.heads()[home("key")].Era)
		}},

		{name: "versions do not see each other's entries and leases", run: func(s *store) {
			v1, v2 := s.open(), s.openVersion("v2")
			v1.put("key", "one", "t1")
			require.False(s, v2.has("key"))
			e := v2.put("key", "two", "t1")
			require.Equal(s, "one", string(v1.entry("key").Payload))
			require.Equal(s, e.Tags, v1.entry("key").Tags, "generations are of every version")
			v1.acquire("other")
			v2.acquire("other")
		}},

		{name: "a note is an entry of its own, and replaces what is there", run: func(s *store) {
			c := s.open()
			require.NoError(s, c.Note(s.ctx(), "note", []byte("one"), minute))
			one := c.entry("note")
			require.NotEmpty(s, one.ID)
			require.Equal(s, "one", string(one.Payload))
			require.Empty(s, one.Tags)
			require.Empty(s, one.Eras)
			require.NoError(s, c.Note(s.ctx(), "note", []byte("two"), minute))
			two := c.entry("note")
			require.Equal(s, "two", string(two.Payload))
			require.NotEqual(s, one.ID, two.ID)
			c.put("key", "payload")
			require.NoError(s, c.Note(s.ctx(), "key", []byte("noted"), minute))
			require.Equal(s, "noted", string(s.open().entry("key").Payload))
		}},

		{name: "a note replaces an earlier one, and the reply has the replaced one", run: func(s *store) {
			c := s.open()
			was, err := c.Learn(s.ctx(), "key", []byte("one"), minute)
			require.NoError(s, err)
			require.Empty(s, was.ID)
			require.NoError(s, c.Note(s.ctx(), "key", []byte("note"), minute))
			one := c.entry("key")
			require.True(s, tier.Learnt(one.ID))
			require.Equal(s, "one", string(one.Payload))
			require.Empty(s, one.Eras)
			was, err = c.Learn(s.ctx(), "key", []byte("two"), short)
			require.NoError(s, err)
			require.Equal(s, "one", string(was.Payload))
			require.Equal(s, one.ID, was.ID)
			require.InDelta(s, minute.Milliseconds(), was.KeepUntil-was.Now, 1000)
			s.wait(beyond)
			require.False(s, c.has("key"))
			c.put("key", "payload")
			was, err = c.Learn(s.ctx(), "key", []byte("three"), minute)
			require.NoError(s, err)
			require.Equal(s, "payload", string(was.Payload))
			require.False(s, tier.Learnt(was.ID))
			c.invalidate(key("key"))
			require.False(s, c.has("key"))
		}},

		{name: "a fill whose lease has not seen what was learnt stores nothing", run: func(s *store) {
			c := s.open()
			l := c.acquire("key")
			_, err := c.Learn(s.ctx(), "key", []byte("learnt"), minute)
			require.NoError(s, err)
			require.False(s, c.fill(l, value(l, "payload")))
			learnt := c.entry("key")
			require.Equal(s, "learnt", string(learnt.Payload))

			l, err = c.Acquire(s.ctx(), "key", learnt.ID, nil, minute)
			require.NoError(s, err)
			require.Equal(s, learnt.ID, l.Seen)
			require.True(s, c.fill(l, value(l, "payload")))
			require.Equal(s, "payload", string(c.entry("key").Payload))
		}},

		{name: "a note is gone when its time is over", run: func(s *store) {
			c := s.open()
			require.NoError(s, c.Note(s.ctx(), "note", []byte("one"), minute))
			require.NoError(s, c.Note(s.ctx(), "note", []byte("two"), short))
			s.wait(beyond)
			require.False(s, c.has("note"))
		}},

		{name: "a note goes with its key", run: func(s *store) {
			c := s.open()
			require.NoError(s, c.Note(s.ctx(), "note", []byte("one"), minute))
			c.invalidate(key("note"))
			require.False(s, c.has("note"))
		}},

		{name: "given an evicted entry, it is no entry", needs: needsEvict, run: func(s *store) {
			c := s.open()
			e := c.put("key", "payload")
			c.evict(Entry, "key")
			require.Equal(s, tier.Entry{}, c.entry("key"))
			require.NotEmpty(s, c.ask("key", e.ID, minute).Token)
		}},
	}
}

// oddNames are names of keys and tags that a tier might trip over.
func oddNames() []string {
	end := string(tier.NameEnd)
	return []string{
		"{", "}", "{}", "{a}b", "{a}{b}", "}{", "a{b", "{07}", "a:b", ":", "::", " ", "  ", " a", "a ", "a b",
		"%", "%s", "%d%n", "%00", "*", "?", "[a]", "\\", "\"", "'", "`", "$1", "-1", "0", "NaN", "nil", "null",
		"\u00e4", "a\u0308", "日本語", "🥫", "\u202e", "a/b?c=d&e=f", "a" + end, "a" + end + "b", "a" + end + "b" + end + "c",
		"a", "A", "head", "log", "layout", "e:a", "l:a", "g:a", "i:a", "tag of a", "v1", "v1" + end + "a",
		strings.Repeat("k", 8<<10), strings.Repeat("k", 8<<10) + "2",
	}
}
