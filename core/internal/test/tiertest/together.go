package tiertest

import (
	"fmt"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/internal/tier"
)

// batch is a batch of keys, each with the tag of its name, before its fill.
type batch struct {
	*client
	keys      []tier.TaggedKey
	vacancies []tier.Vacancy
	places    []tier.Place
}

func ownTag(name string) string { return tier.TagPrefix + name }

// survey notes the places of all partitions, and asks which keys are vacant.
func (c *client) survey(names ...string) *batch {
	c.Helper()
	b := &batch{client: c}
	for _, h := range c.heads() {
		b.places = append(b.places, tier.Place{Position: h.Position, Era: h.Era})
	}
	for _, name := range names {
		b.keys = append(b.keys, tier.TaggedKey{Key: name, Tag: ownTag(name)})
	}
	var err error
	b.vacancies, err = c.Vacancies(c.ctx(), b.keys)
	require.NoError(c, err)
	require.Len(c, b.vacancies, len(names))
	return b
}

// fill fills all keys, and returns which were stored.
func (b *batch) fill() []bool {
	b.Helper()
	f := tier.BatchFill{Places: b.places}
	for i, k := range b.keys {
		v := b.vacancies[i]
		f.Items = append(f.Items, tier.BatchItem{TaggedKey: k, Generation: v.Generation, Entry: tier.Entry{
			ID: v.ID, Payload: []byte("of " + k.Key), Born: v.Now,
			FreshUntil: v.Now + 20_000, StaleUntil: v.Now + 40_000, KeepUntil: v.Now + 60_000,
			Tags: []tier.TagGeneration{{Tag: k.Tag, Token: v.Generation}},
			Eras: []tier.PartitionEra{{Partition: home(k.Key), Era: b.places[home(k.Key)].Era}},
		}})
	}
	stored, err := b.FillTogether(b.ctx(), f)
	require.NoError(b, err)
	require.Len(b, stored, len(b.keys))
	return stored
}

func togetherCases() []testCase {
	cases := []testCase{
		{name: "vacant keys are filled together, with generations of their tags", run: func(s *store) {
			a, b := s.open(), s.open()
			var names []string
			for i := range 500 {
				names = append(names, fmt.Sprint("key", i))
			}
			batch := a.survey(names...)
			ids, generations := map[string]bool{}, map[string]bool{}
			for _, v := range batch.vacancies {
				require.True(s, v.Vacant)
				require.NotZero(s, v.Now)
				ids[v.ID], generations[v.Generation] = true, true
			}
			require.Len(s, ids, len(names))
			require.Len(s, generations, len(names))
			for i, stored := range batch.fill() {
				require.True(s, stored, names[i])
			}
			for i, name := range names[:20] {
				e := b.entry(name)
				require.Equal(s, "of "+name, string(e.Payload))
				require.Equal(s, batch.vacancies[i].ID, e.ID)
				require.Equal(s, []string{batch.vacancies[i].Generation}, b.generations(ownTag(name)))
				require.Equal(s, batch.vacancies[i].Generation, b.capture(ownTag(name)).Token, "a load captures it")
			}
			b.invalidate(key("key1"), tag(ownTag("key2")))
			require.False(s, b.has("key1"))
			require.Equal(s, []string{""}, b.generations(ownTag("key2")))
		}},

		{name: "an empty batch changes nothing", run: func(s *store) {
			require.Empty(s, s.open().survey().fill())
		}},

		{name: "a key with an entry, a lease or a change is not vacant", run: func(s *store) {
			a, b := s.open(), s.open()
			a.put("entry", "payload")
			l := a.acquire("lease")
			a.enqueue("queued", "change")
			batch := b.survey("entry", "lease", "queued", "free", in(home("queued"), "beside"))
			for i, vacant := range []bool{false, false, false, true, true} {
				require.Equal(s, vacant, batch.vacancies[i].Vacant, batch.keys[i].Key)
			}
			require.True(s, a.fill(l, value(l, "payload")), "to ask changed nothing")
		}},

		{name: "a generation that is there is kept", run: func(s *store) {
			c := s.open()
			was := c.capture(ownTag("key")).Token
			batch := c.survey("key")
			require.Equal(s, was, batch.vacancies[0].Generation)
			require.Equal(s, []bool{true}, batch.fill())
			require.Equal(s, []string{was}, c.generations(ownTag("key")))
		}},

		{name: "a fill together that is executed twice revives nothing", run: func(s *store) {
			c := s.open()
			batch := c.survey("key")
			require.Equal(s, []bool{true}, batch.fill())
			require.Equal(s, []bool{false}, batch.fill())
			c.invalidate(tag(ownTag("key")), key("key"))
			require.Equal(s, []bool{false}, batch.fill())
			require.Equal(s, []string{""}, c.generations(ownTag("key")))
		}},

		{name: "a load whose lease has lapsed does not replace an entry of a batch", run: func(s *store) {
			a, b := s.open(), s.open()
			l := a.ask("key", "", short)
			s.wait(beyond)
			require.Equal(s, []bool{true}, b.survey("key").fill())
			require.False(s, a.fill(l, value(l, "payload")))
			require.Equal(s, "of key", string(b.entry("key").Payload))
		}},

		{name: "a missing head, and a head of another state, refuse a batch", needs: needsEvict, run: func(s *store) {
			c := s.open()
			batch := c.survey("key")
			c.evictIn(Head, home("key"), "")
			require.Equal(s, []bool{false}, batch.fill())
			require.NoError(s, c.NewEra(s.ctx(), home("key"), "", false))
			require.Equal(s, []bool{false}, batch.fill())
		}},

		{name: "a log that does not join refuses a batch", needs: needsEvict, run: func(s *store) {
			c := s.open()
			other := in(home("key"), "other")
			c.invalidate(key(other))
			batch := c.survey("key")
			c.invalidate(key(other))
			c.evictIn(Log, home("key"), "")
			c.invalidate(key(other))
			require.Equal(s, []bool{false}, batch.fill())
		}},

		{name: "a trimmed log refuses a batch", needs: needsLogItems, run: func(s *store) {
			c := s.open()
			batch := c.survey("key")
			items := make([]tier.Item, 0, 100)
			for range 2*s.h.LogItems/100 + 2 {
				items = items[:0]
				for range 100 {
					items = append(items, key(in(home("key"), "other")))
				}
				c.invalidate(items...)
			}
			require.Equal(s, []bool{false}, batch.fill())
		}},

		{name: "given a migration, a batch is refused", needs: needsMigrate, alone: true, run: func(s *store) {
			c := s.open()
			batch := c.survey("key")
			s.h.Migrate(s, s.layout, home("key"), true)
			stored, err := c.FillTogether(s.ctx(), tier.BatchFill{Places: batch.places, Items: []tier.BatchItem{{
				TaggedKey: batch.keys[0], Generation: batch.vacancies[0].Generation,
				Entry: tier.Entry{ID: batch.vacancies[0].ID, KeepUntil: batch.vacancies[0].Now + 60_000},
			}}})
			s.h.Migrate(s, s.layout, home("key"), false)
			require.Error(s, err)
			require.Equal(s, []bool{false}, stored)
		}},
	}
	return append(cases, meanwhileCases()...)
}

// meanwhileCases has what happens between the places of a batch and its fill.
func meanwhileCases() (cases []testCase) {
	for _, event := range []struct {
		name string
		do   func(c *client)
		rest bool // the other key of the partition is stored all the same
	}{
		{"the key is invalidated", func(c *client) { c.invalidate(key("key")) }, true},
		{"the tag is invalidated", func(c *client) { c.invalidate(tag(ownTag("key"))) }, true},
		{"an invalidation among others", func(c *client) {
			c.invalidate(key(in(home("key"), "x")), key("key"), tag(in(home("key"), "x")))
		}, true},
		{"an intent on the key", func(c *client) { c.begin("intent", minute, key("key")) }, true},
		{"an intent on the tag", func(c *client) { c.begin("intent", minute, tag(ownTag("key"))) }, true},
		{"an intent that is over", func(c *client) {
			c.begin("intent", minute, key("key"))
			c.abandon("intent", key("key"))
		}, true},
		{"an intent that has ended", func(c *client) {
			c.begin("intent", minute, key("key"))
			c.end("intent", key("key"))
		}, true},
		{"a lease of another load", func(c *client) { c.acquire("key") }, true},
		{"an entry of another load", func(c *client) { c.put("key", "payload") }, true},
		{"a queued change", func(c *client) { c.enqueue("key", "change") }, true},
		{"a pattern", func(c *client) { c.invalidate(pattern("k*")) }, false},
		{"all", func(c *client) { c.invalidate(all()) }, false},
		{"a new era", func(c *client) { require.NoError(c, c.NewEra(c.ctx(), home("key"), "", true)) }, false},
	} {
		cases = append(cases, testCase{name: "a batch leaves out what may be old: " + event.name, run: func(s *store) {
			a, b := s.open(), s.open()
			batch := a.survey("key", in(home("key"), "rest"), in((home("key")+1)%partitions, "far"))
			event.do(b)
			stored := batch.fill()
			require.False(s, stored[0])
			require.Equal(s, event.rest, stored[1])
			require.Equal(s, event.rest || event.name == "a new era", stored[2], "in another partition")
		}})
	}
	for name, open := range map[string]func(c *client){
		"an intent on the key": func(c *client) { c.begin("intent", minute, key("key")) },
		"an intent on the tag": func(c *client) { c.begin("intent", minute, tag(ownTag("key"))) },
		"a queued change":      func(c *client) { c.enqueue("key", "change") },
		"a lag of the key": func(c *client) {
			c.mode(tier.Change{Lag: minute}, key("key"))
		},
		"a lag of the partition": func(c *client) { c.mode(tier.Change{Lag: minute}, pattern("x")) },
	} {
		cases = append(cases, testCase{name: "a batch leaves out what was there before: " + name, run: func(s *store) {
			c := s.open()
			open(c)
			batch := c.survey("key")
			require.Equal(s, []bool{false}, batch.fill())
			require.False(s, c.has("key"))
		}})
	}
	cases = append(cases, testCase{name: "given items of others only, a batch is stored", run: func(s *store) {
		a, b := s.open(), s.open()
		batch := a.survey("key")
		other := in(home("key"), "other")
		b.invalidate(key(other), tag(ownTag(other)))
		b.begin("intent", minute, tag(ownTag(other)))
		b.end("intent", tag(ownTag(other)))
		require.Equal(s, []bool{true}, batch.fill())
	}})
	return cases
}
