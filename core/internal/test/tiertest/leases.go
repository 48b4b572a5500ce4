package tiertest

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/internal/tier"
)

func leaseCases() []testCase {
	cases := []testCase{
		{name: "a free key is leased, with what holds in its partition", run: func(s *store) {
			c := s.open()
			before := c.heads()[home("key")]
			l := c.acquire("key")
			after := c.heads()[home("key")]
			require.Equal(s, before.Era, l.Era)
			require.Equal(s, before.Sweep, l.Sweep)
			require.GreaterOrEqual(s, l.Now, before.Now)
			require.LessOrEqual(s, l.Now, after.Now)
			require.Zero(s, l.Open)
			require.False(s, l.Lagging)
			require.Zero(s, l.Busy)
			require.Empty(s, l.Generations)
		}},

		{name: "given a lease, other instances get busy", run: func(s *store) {
			a, b := s.open(), s.open()
			l := a.acquire("key")
			for _, c := range []*client{a, b, b} {
				other := c.ask("key", "", minute)
				require.Positive(s, other.Busy)
				require.LessOrEqual(s, other.Busy, minute)
			}
			require.True(s, a.fill(l, value(l, "payload")), "asking changed nothing")
		}},

		{name: "given many that ask at once, one gets the lease", run: func(s *store) {
			const clients, each = 3, 8
			var all []*client
			for range clients {
				all = append(all, s.open())
			}
			for round := range 5 {
				name := fmt.Sprint("key", round)
				var leases, busy atomic.Int64
				var wg sync.WaitGroup
				for _, c := range all {
					for range each {
						wg.Add(1)
						go func() {
							defer wg.Done()
							l, err := c.Acquire(s.ctx(), name, "", []string{"t1"}, minute)
							switch {
							case err != nil:
							case l.Token != "":
								leases.Add(1)
							case l.Busy > 0:
								busy.Add(1)
							}
						}()
					}
				}
				wg.Wait()
				require.EqualValues(s, 1, leases.Load())
				require.EqualValues(s, clients*each-1, busy.Load())
			}
		}},

		{name: "given an entry other than the one seen, it is found", run: func(s *store) {
			a, b := s.open(), s.open()
			e := a.put("key", "payload", "t1")
			for _, seen := range []string{"", "another"} {
				found := b.ask("key", seen, minute).Found
				found.Now = e.Now
				require.Equal(s, e, found)
			}
			l := b.ask("key", e.ID, minute)
			require.NotEmpty(s, l.Token, "the one seen is not in the way")
			require.Equal(s, "payload", string(a.entry("key").Payload), "and stays until it is replaced")
			require.Equal(s, e.ID, a.ask("key", "", minute).Found.ID, "an entry comes before a lease")
			require.Positive(s, a.ask("key", e.ID, minute).Busy)
			require.True(s, b.fill(l, value(l, "new")))
			require.Equal(s, "new", string(a.ask("key", e.ID, minute).Found.Payload))
		}},

		{name: "an expired lease frees its key, and can no longer fill", run: func(s *store) {
			c := s.open()
			old := c.ask("key", "", short)
			require.NotEmpty(s, old.Token)
			s.wait(beyond)
			require.False(s, c.extend(old, minute))
			require.Positive(s, c.ask("other", "", minute).Now)
			now := c.acquire("key")
			require.NotEqual(s, old.Token, now.Token)
			require.False(s, c.extend(old, minute))
			require.False(s, c.fill(old, value(old, "old")), "another instance holds the lease")
			require.NoError(s, c.Release(s.ctx(), old))
			require.Positive(s, c.ask("key", "", minute).Busy, "which nothing of this ended")
			require.True(s, c.fill(now, value(now, "new")))
			require.Equal(s, "new", string(c.entry("key").Payload))
		}},

		{name: "given a lease that ended and no other, a fill is refused", run: func(s *store) {
			c := s.open()
			l := c.ask("key", "", short)
			require.NotEmpty(s, l.Token)
			s.wait(beyond)
			require.False(s, c.fill(l, value(l, "late")))
			require.False(s, c.has("key"))
		}},

		{name: "extend makes a lease last from now", run: func(s *store) {
			a, b := s.open(), s.open()
			l := a.ask("key", "", 2*short)
			require.NotEmpty(s, l.Token)
			require.True(s, a.extend(l, minute))
			require.Greater(s, b.ask("key", "", minute).Busy, 2*short)
			s.wait(2*short + short/2)
			require.Positive(s, b.ask("key", "", minute).Busy)
			require.True(s, a.extend(l, short), "to less as well")
			s.wait(beyond)
			require.NotEmpty(s, b.ask("key", "", minute).Token)
		}},

		{name: "extend makes no lease", run: func(s *store) {
			c := s.open()
			l := c.acquire("key")
			require.NoError(s, c.Release(s.ctx(), l))
			require.False(s, c.extend(l, minute))
			require.NotEmpty(s, c.ask("key", "", minute).Token, "the key is free")
		}},

		{name: "release frees the key and stores nothing", run: func(s *store) {
			a, b := s.open(), s.open()
			l := a.acquire("key")
			require.NoError(s, a.Release(s.ctx(), l))
			require.NoError(s, a.Release(s.ctx(), l), "once more does no harm")
			require.False(s, b.has("key"))
			next := b.acquire("key")
			require.NoError(s, a.Release(s.ctx(), l), "nor to the next")
			require.True(s, b.fill(next, value(next, "payload")))
		}},

		{name: "a fill ends its lease", run: func(s *store) {
			c := s.open()
			l := c.acquire("key")
			require.True(s, c.fill(l, value(l, "one")))
			require.False(s, c.extend(l, minute))
			require.False(s, c.fill(l, value(l, "two")), "it was good for one")
			e := c.entry("key")
			require.Equal(s, "one", string(e.Payload))
			require.NotEmpty(s, c.ask("key", e.ID, minute).Token)
		}},

		{name: "a fill may store under another key of the name", run: func(s *store) {
			c := s.open()
			variant := "key" + string(tier.NameEnd) + "gzip"
			l := c.acquire("key")
			f := value(l, "payload")
			f.Key = variant
			require.True(s, c.fill(l, f))
			require.True(s, c.has(variant))
			require.False(s, c.has("key"))
			require.NotEmpty(s, c.ask("key", "", minute).Token, "the lease has ended")
		}},

		{name: "leases of two keys do not meet, of one name either", run: func(s *store) {
			c := s.open()
			l := c.acquire("key")
			other := c.acquire("key" + string(tier.NameEnd) + "gzip")
			require.NotEqual(s, l.Token, other.Token)
			require.True(s, c.fill(other, value(other, "other")))
			require.True(s, c.fill(l, value(l, "one")))
		}},

		{name: "given an evicted lease, nothing is stored under it", needs: needsEvict, run: func(s *store) {
			c := s.open()
			l := c.acquire("key")
			c.evict(Lease, "key")
			require.False(s, c.extend(l, minute))
			require.False(s, c.fill(l, value(l, "payload")))
			require.False(s, c.has("key"))
		}},

		{name: "given an evicted head, nothing is stored under its leases", needs: needsEvict, run: func(s *store) {
			c := s.open()
			lost := func() {
				c.evictIn(Head, home("key"), "")
			}
			found := func() {
				require.NoError(s, c.NewEra(s.ctx(), home("key"), "", false))
			}
			l := c.acquire("key")
			lost()
			require.False(s, c.fill(l, value(l, "payload")))
			found()
			l = c.acquire("key")
			lost()
			found()
			require.False(s, c.fill(l, value(l, "payload")), "under another")
			l = c.acquire("key")
			require.True(s, c.fill(l, value(l, "payload")))
		}},
	}
	for _, r := range refusals() {
		cases = append(cases, testCase{
			name: "given " + r.name + " meanwhile, a fill is refused and its lease ended",
			run: func(s *store) {
				a, b := s.open(), s.open()
				l := a.acquire("key")
				f := value(l, "payload")
				r.meanwhile(s, b, &f)
				require.False(s, a.fill(l, f))
				require.False(s, a.has("key"))
				require.False(s, a.extend(l, minute))
				l = b.acquire("key")
				require.True(s, b.fill(l, value(l, "new")), "the next is stored")
			},
		})
	}
	return cases
}

// refusal is something after which a lease's fill is refused.
type refusal struct {
	name      string
	meanwhile func(s *store, other *client, f *tier.Fill)
}

func refusals() []refusal {
	in := func(items ...tier.Item) func(*store, *client, *tier.Fill) {
		return func(_ *store, other *client, _ *tier.Fill) { other.invalidate(items...) }
	}
	return []refusal{
		{"an invalidation by key", in(key("key"))},
		{"an invalidation by key from another version", func(s *store, _ *client, _ *tier.Fill) {
			s.openVersion("v2").invalidate(key("key"))
		}},
		{"an invalidation by pattern", in(pattern("k*"))},
		{"an invalidation of all", in(all())},
		{"a new era", func(s *store, other *client, _ *tier.Fill) {
			require.NoError(s, other.NewEra(s.ctx(), home("key"), "", true))
		}},
		{"a writer's begin", func(_ *store, other *client, _ *tier.Fill) {
			other.begin("intent", minute, key("key"))
		}},
		{"a writer's end", func(_ *store, other *client, _ *tier.Fill) { other.end("intent", key("key")) }},
		{"the end of NotAfter", func(s *store, _ *client, f *tier.Fill) {
			f.NotAfter = f.Entry.Born + short.Milliseconds()
			s.wait(beyond)
		}},
		{"the end of KeepUntil", func(s *store, _ *client, f *tier.Fill) {
			f.Entry.FreshUntil = f.Entry.Born + short.Milliseconds()
			f.Entry.StaleUntil, f.Entry.KeepUntil = f.Entry.FreshUntil, f.Entry.FreshUntil
			s.wait(beyond)
		}},
	}
}
