package tiertest

import (
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/internal/tier"
)

func intentCases() []testCase {
	return []testCase{
		{name: "given no intent, nothing is open and nothing lapsed", run: func(s *store) {
			c := s.open()
			require.Zero(s, c.openKey("key"))
			require.Zero(s, c.openTag("t1"))
			require.Zero(s, c.lapsed("t1"))
		}},

		{name: "begin invalidates nothing, and is open until its deadline", run: func(s *store) {
			a, b := s.open(), s.open()
			e := a.put("key", "payload", "t1")
			l := a.acquire("leased")
			b.begin("intent", minute, key("key"), key("leased"), tag("t1"))
			require.Equal(s, e.ID, a.entry("key").ID)
			require.Equal(s, e.Tags[0].Token, a.generations("t1")[0])
			require.False(s, a.fill(l, value(l, "payload")), "it was loaded without knowing of the intent")
			for _, open := range []time.Duration{a.openKey("leased"), a.openTag("t1"), b.openTag("t1")} {
				require.Positive(s, open)
				require.LessOrEqual(s, open, minute)
			}
			require.Zero(s, a.openKey("t1"), "a key is not the tag of its name")
			require.Zero(s, a.openTag("key"))
		}},

		{name: "loads are shared and stored while a writer is at work", run: func(s *store) {
			a, b := s.open(), s.open()
			b.begin("intent", minute, key("key"), tag("t1"))
			l := a.acquire("key", "t1")
			require.Positive(s, l.Open)
			require.Positive(s, l.Generations[0].Open)
			f := value(l, "payload")
			f.Entry.Provisional = true
			f.NotAfter = l.Now + l.Open.Milliseconds()
			require.True(s, a.fill(l, f))
			e := b.entry("key")
			require.True(s, e.Provisional)
			require.Equal(s, e.Tags[0].Token, b.capture("t1").Token)
			b.end("intent", key("key"), tag("t1"))
			require.False(s, a.has("key"), "what was stored in between is gone")
			require.Equal(s, []string{""}, a.generations("t1"))
		}},

		{name: "NotAfter cuts an entry's life", run: func(s *store) {
			c := s.open()
			l := c.acquire("key")
			f := value(l, "payload")
			f.NotAfter = l.Now + 3*short.Milliseconds()
			require.True(s, c.fill(l, f))
			e := c.entry("key")
			require.NotEmpty(s, e.ID)
			require.LessOrEqual(s, e.KeepUntil, f.NotAfter)
			s.wait(3 * short)
			s.eventually(func() bool { return !c.has("key") }, "the entry's end")
			require.NotEmpty(s, c.ask("key", "", minute).Token)
		}},

		{name: "an intent on a name is open for every key of the name", run: func(s *store) {
			c := s.open()
			c.begin("intent", minute, key("key"))
			require.Positive(s, c.openKey("key"+string(tier.NameEnd)+"gzip"))
			require.Zero(s, c.openKey("key2"))
		}},

		{name: "an intent is seen by every version", run: func(s *store) {
			c, v2 := s.open(), s.openVersion("v2")
			v2.begin("intent", minute, key("key"), tag("t1"))
			require.Positive(s, c.openKey("key"))
			require.Positive(s, c.openTag("t1"))
			c.end("intent", key("key"), tag("t1"))
			require.Zero(s, v2.openKey("key"))
			require.Zero(s, v2.openTag("t1"))
		}},

		{name: "end invalidates and takes the intent out", run: func(s *store) {
			a, b := s.open(), s.open()
			a.begin("intent", minute, key("key"), tag("t1"))
			b.put("key", "payload", "t1")
			a.end("intent", key("key"), tag("t1"))
			require.False(s, b.has("key"))
			require.Equal(s, []string{""}, b.generations("t1"))
			require.Zero(s, b.openKey("key"))
			require.Zero(s, b.openTag("t1"))
			require.Zero(s, b.lapsed("t1"))
			a.end("intent", key("key"), tag("t1")) // once more does no harm
		}},

		{name: "an end may name more than the begin did", run: func(s *store) {
			c := s.open()
			c.begin("intent", minute, key("key"))
			c.put("more", "payload", "t1")
			c.end("intent", key("key"), key("more"), tag("t1"))
			require.False(s, c.has("more"))
			require.Equal(s, []string{""}, c.generations("t1"))
			require.Zero(s, c.openKey("key"))
		}},

		{name: "given a writer that dies, what it covers is gone at the deadline", run: func(s *store) {
			a, b := s.open(), s.open()
			a.put("key", "payload", "t1")
			b.begin("intent", 3*short, key("key"), tag("t1"))
			token := a.capture("t1").Token
			require.NotEmpty(s, token)
			s.wait(3*short + beyond)
			require.False(s, a.has("key"))
			require.Equal(s, []string{""}, a.generations("t1"))
			require.NotEqual(s, token, a.capture("t1").Token)
		}},

		{name: "given a begin that is executed twice, its deadline comes all the same", run: func(s *store) {
			c := s.open()
			c.put("key", "payload", "t1")
			c.begin("intent", 3*short, key("key"), tag("t1"))
			c.begin("intent", 3*short, key("key"), tag("t1"))
			s.wait(3*short + beyond)
			require.False(s, c.has("key"))
			require.Equal(s, []string{""}, c.generations("t1"))
		}},

		{name: "given an abandon, what was there outlives the deadline", run: func(s *store) {
			a, b := s.open(), s.open()
			e := a.put("key", "payload", "t1")
			v2 := s.openVersion("v2").put("key", "payload", "t2")
			b.begin("intent", 3*short, key("key"), tag("t1"), tag("t2"), tag("t3"))
			made := a.capture("t3")
			require.Positive(s, made.Open)
			b.abandon("intent", key("key"), tag("t1"), tag("t2"), tag("t3"))
			s.wait(3*short + beyond)
			require.Equal(s, e.ID, a.entry("key").ID)
			require.Equal(s, v2.ID, s.openVersion("v2").entry("key").ID)
			require.Equal(s, []string{e.Tags[0].Token, v2.Tags[0].Token, made.Token}, a.generations("t1", "t2", "t3"))
			require.Equal(s, made.Token, a.capture("t3").Token)
		}},

		{name: "given an abandon, nothing lives longer than it would have", run: func(s *store) {
			c := s.open()
			l := c.acquire("key")
			f := value(l, "payload")
			f.NotAfter = l.Now + 4*short.Milliseconds()
			require.True(s, c.fill(l, f))
			c.begin("intent", 2*short, key("key"))
			c.abandon("intent", key("key"))
			s.wait(4*short + beyond)
			require.False(s, c.has("key"))
		}},

		{name: "an abandon leaves the deadlines of overlapping writers", run: func(s *store) {
			c := s.open()
			c.put("key", "payload", "t1")
			c.begin("dead", 4*short, key("key"), tag("t1"))
			c.begin("later", minute, key("key"), tag("t1"), tag("t2"))
			made := c.capture("t2")
			c.abandon("later", key("key"), tag("t1"), tag("t2"))
			require.Equal(s, []string{made.Token}, c.generations("t2"))
			require.True(s, c.has("key"))
			s.wait(4*short + beyond)
			require.False(s, c.has("key"))
			require.Equal(s, []string{""}, c.generations("t1"))
		}},

		{name: "given writers that overlap, the last to abandon gives all back", run: func(s *store) {
			c := s.open()
			e := c.put("key", "payload", "t1")
			for _, first := range []string{"short", "long"} {
				c.begin("short", 10*short, key("key"), tag("t1"))
				c.begin("long", 15*short, key("key"), tag("t1"))
				c.abandon(first, key("key"), tag("t1"))
				c.abandon("short", key("key"), tag("t1"))
				c.abandon("long", key("key"), tag("t1"))
			}
			s.wait(15*short + beyond)
			require.Equal(s, e.ID, c.entry("key").ID)
			require.Equal(s, e.Tags[0].Token, c.generations("t1")[0])
		}},

		{name: "given an abandon after the deadline, nothing comes back", run: func(s *store) {
			c := s.open()
			c.put("key", "payload", "t1")
			c.begin("intent", short, key("key"), tag("t1"))
			s.wait(beyond)
			made := c.capture("t1")
			c.abandon("intent", key("key"), tag("t1"))
			require.False(s, c.has("key"))
			require.Equal(s, made.Token, c.capture("t1").Token)
			require.Zero(s, c.lapsed("t1"), "nothing was written")
		}},

		{name: "given an abandon of what was invalidated meanwhile, it is not back", run: func(s *store) {
			c := s.open()
			c.put("key", "payload", "t1")
			c.begin("intent", minute, key("key"), tag("t1"))
			c.invalidate(key("key"), tag("t1"))
			c.abandon("intent", key("key"), tag("t1"))
			require.False(s, c.has("key"))
			require.Equal(s, []string{""}, c.generations("t1"))
		}},

		{name: "given evicted intents, what an intent covers is gone at its deadline", needs: needsEvict, run: func(s *store) {
			c := s.open()
			c.put("key", "payload", "t1")
			c.begin("lost", 4*short, key("key"), tag("t1"))
			c.evict(Intents, "t1")
			require.NotEmpty(s, c.capture("t1").Token, "it is not lengthened")
			c.abandon("lost", tag("t1"))
			s.wait(4*short + beyond)
			require.Equal(s, []string{""}, c.generations("t1"))
		}},

		{name: "after an eviction of intents a later writer lifts no cap of theirs", needs: needsEvict, run: func(s *store) {
			c := s.open()
			c.put("key", "payload", "t1")
			c.begin("lost", 4*short, key("key"), tag("t1"))
			c.evict(Intents, "t1")
			c.begin("refused", minute, tag("t1"))
			c.abandon("refused", tag("t1"))
			s.wait(4*short + beyond)
			require.Equal(s, []string{""}, c.generations("t1"))
		}},

		{name: "after an eviction of intents a shorter cap is lifted to the one before", needs: needsEvict, run: func(s *store) {
			c := s.open()
			e := c.put("key", "payload", "t1")
			c.begin("lost", 4*short, key("key"), tag("t1"))
			c.evict(Intents, "t1")
			c.begin("refused", 2*short, tag("t1"))
			c.abandon("refused", tag("t1"))
			require.Equal(s, []string{e.Tags[0].Token}, c.generations("t1"))
			s.wait(4*short + beyond)
			require.Equal(s, []string{""}, c.generations("t1"))
		}},

		{name: "given nothing evicted, the last to abandon lifts what was capped", run: func(s *store) {
			c := s.open()
			e := c.put("key", "payload", "t1")
			c.begin("first", 4*short, tag("t1"), tag("t2"))
			c.begin("first", 4*short, tag("t1"), tag("t2")) // executed twice
			made := c.capture("t2")
			c.begin("second", 3*short, tag("t1"), tag("t2"))
			c.abandon("first", tag("t1"), tag("t2"))
			c.abandon("second", tag("t1"), tag("t2"))
			require.Equal(s, made.Token, c.capture("t2").Token)
			s.wait(4*short + beyond)
			require.Equal(s, []string{e.Tags[0].Token, made.Token}, c.generations("t1", "t2"))
		}},

		{name: "an abandon lifts a generation that was replaced under the intent", run: func(s *store) {
			c := s.open()
			c.put("key", "payload", "t1")
			c.begin("intent", 3*short, tag("t1"))
			c.invalidate(tag("t1"))
			made := c.capture("t1")
			c.abandon("intent", tag("t1"))
			s.wait(3*short + beyond)
			require.Equal(s, []string{made.Token}, c.generations("t1"))
		}},

		{name: "abandon takes the intent out and invalidates nothing", run: func(s *store) {
			c := s.open()
			c.begin("intent", minute, key("key"), tag("t1"))
			e := c.put("key", "payload", "t1")
			c.abandon("intent", key("key"), tag("t1"))
			require.Zero(s, c.openTag("t1"))
			require.Zero(s, c.lapsed("t1"))
			require.Equal(s, e.ID, c.entry("key").ID)
			require.Equal(s, e.Tags[0].Token, c.generations("t1")[0])
			require.Zero(s, c.ask("key", e.ID, minute).Open)
			before := c.heads()
			c.abandon("never begun", key("key"), tag("t1"))
			for p, h := range c.heads() {
				require.Equal(s, before[p].Position, h.Position)
			}
		}},

		{name: "given writers that overlap, the shortest counts", run: func(s *store) {
			a, b := s.open(), s.open()
			a.begin("long", minute, key("key"), tag("t1"))
			b.begin("short", 10*second, key("key"), tag("t1"))
			for _, open := range []time.Duration{a.openKey("key"), a.openTag("t1")} {
				require.Positive(s, open)
				require.LessOrEqual(s, open, 10*second)
			}
			a.end("short", key("key"), tag("t1"))
			for _, open := range []time.Duration{a.openKey("key"), a.openTag("t1")} {
				require.Greater(s, open, 10*second, "the other is still open")
			}
			b.abandon("long", key("key"), tag("t1"))
			require.Zero(s, a.openKey("key"))
			require.Zero(s, a.openTag("t1"))
		}},

		{name: "given a begin that is executed twice, one end is enough", run: func(s *store) {
			c := s.open()
			c.begin("intent", minute, key("key"), tag("t1"))
			c.begin("intent", minute, key("key"), tag("t1"))
			c.end("intent", key("key"), tag("t1"))
			require.Zero(s, c.openKey("key"))
			require.Zero(s, c.openTag("t1"))
		}},

		{name: "given a deadline that passes, nothing is open", run: func(s *store) {
			c := s.open()
			c.begin("intent", short, key("key"), tag("t1"))
			s.wait(beyond)
			require.Zero(s, c.openKey("key"))
			require.Zero(s, c.openTag("t1"))
		}},

		{name: "a generation created under an intent ends with it, however often read", run: func(s *store) {
			c := s.open()
			const lasts = 3 * short
			c.begin("intent", lasts, tag("t1"), tag("t2"))
			g := c.capture("t1")
			token := c.acquire("key", "t2").Generations[0].Token
			require.Positive(s, g.Open)
			s.wait(lasts / 2)
			again := c.capture("t1")
			if again.Open == 0 { // the machine was so busy that the intent has ended
				require.NotEqual(s, g.Token, again.Token)
				return
			}
			require.Equal(s, g.Token, again.Token)
			require.Equal(s, token, c.acquire("other", "t2").Generations[0].Token)
			s.wait(lasts)
			require.Equal(s, []string{"", ""}, c.generations("t1", "t2"))
			next := c.capture("t1")
			require.NotEqual(s, g.Token, next.Token)
			require.Zero(s, next.Open)
		}},

		{name: "a generation made under intents lasts as long as the shortest", run: func(s *store) {
			c := s.open()
			c.begin("long", minute, tag("t1"))
			c.begin("short", short, tag("t1"))
			g := c.capture("t1")
			s.wait(beyond)
			require.Equal(s, []string{""}, c.generations("t1"))
			require.NotEqual(s, g.Token, c.capture("t1").Token)
		}},

		{name: "a generation made after the end lasts on", run: func(s *store) {
			c := s.open()
			c.begin("intent", short, tag("t1"))
			c.capture("t1")
			c.end("intent", tag("t1"))
			g := c.capture("t1")
			s.wait(beyond)
			require.Equal(s, g.Token, c.generations("t1")[0])
		}},

		{name: "a lapse is remembered", run: func(s *store) {
			c := s.open()
			const remain = 4 * short
			c.mode(tier.Change{Intent: "intent", Mode: tier.Begin, Lasts: short, Remain: remain}, tag("t1"))
			s.wait(beyond)
			first := c.lapsed("t1")
			require.Positive(s, first)
			s.wait(50 * time.Millisecond)
			require.Greater(s, c.lapsed("t1"), first, "it is how long ago it was")
			require.Zero(s, c.lapsed("t2"))
			c.invalidate(tag("t1"))
			require.Positive(s, c.lapsed("t1"), "an invalidation is not its end")
			s.wait(remain)
			require.Zero(s, c.lapsed("t1"), "and forgotten in the end")
		}},

		{name: "an intent that is open, has ended or was given up has not lapsed", run: func(s *store) {
			c := s.open()
			c.begin("open", minute, tag("t1"))
			require.Zero(s, c.lapsed("t1"))
			c.begin("ended", short, tag("t2"))
			c.begin("given up", short, tag("t3"))
			c.end("ended", tag("t2"))
			c.abandon("given up", tag("t3"))
			s.wait(beyond)
			require.Zero(s, c.lapsed("t2"))
			require.Zero(s, c.lapsed("t3"))
		}},

		{name: "a late end takes a lapse out", run: func(s *store) {
			c := s.open()
			c.begin("intent", short, tag("t1"))
			s.wait(beyond)
			require.Positive(s, c.lapsed("t1"))
			c.end("intent", tag("t1"))
			require.Zero(s, c.lapsed("t1"))
		}},

		{name: "given several lapses, the latest counts", run: func(s *store) {
			c := s.open()
			now := func() int64 { return c.heads()[home("t1")].Now }
			c.begin("open", minute, tag("t1"))
			c.begin("first", short, tag("t1"))
			s.wait(beyond)
			first := c.lapsed("t1")
			require.Positive(s, first)
			at := now() - first.Milliseconds()
			c.begin("second", short, tag("t1"))
			s.wait(beyond)
			before := now()
			second := c.lapsed("t1")
			require.Positive(s, second)
			require.Greater(s, before-second.Milliseconds(), at, "it was later than the first")
			require.Positive(s, c.openTag("t1"))
		}},

		{name: "an invalidation marks a replica's lag", run: func(s *store) {
			c := s.open()
			c.mode(tier.Change{Lag: minute}, key("key"), tag("t1"))
			require.True(s, c.lagsKey("key"))
			require.True(s, c.lagsKey("key"+string(tier.NameEnd)+"gzip"))
			require.True(s, c.lagsTag("t1"))
			require.True(s, s.openVersion("v2").lagsTag("t1"))
			require.False(s, c.lagsKey("key2"))
			require.False(s, c.lagsTag("t2"))
			require.False(s, c.lagsKey("t1"))
			require.False(s, c.lagsTag("key"))
		}},

		{name: "without a lag there is no mark", run: func(s *store) {
			c := s.open()
			c.invalidate(key("key"), tag("t1"), pattern("*"), all())
			require.False(s, c.lagsKey("key"))
			require.False(s, c.lagsTag("t1"))
		}},

		{name: "an invalidation of all marks a replica's lag for everything", run: func(s *store) {
			c := s.open()
			c.mode(tier.Change{Lag: minute}, all())
			require.True(s, c.lagsKey("key"))
			require.True(s, c.lagsTag("t1"))
		}},

		{name: "an invalidation by pattern marks a replica's lag for what matches", run: func(s *store) {
			c := s.open()
			c.mode(tier.Change{Lag: minute}, pattern("k*"))
			require.True(s, c.lagsKey("key"))
		}},

		{name: "end marks a replica's lag, begin and abandon do not", run: func(s *store) {
			c := s.open()
			ch := tier.Change{Intent: "intent", Mode: tier.Begin, Lasts: minute, Remain: minute, Lag: minute}
			c.mode(ch, tag("t1"), tag("t2"))
			require.False(s, c.lagsTag("t1"))
			ch.Mode = tier.Abandon
			c.mode(ch, tag("t1"))
			require.False(s, c.lagsTag("t1"))
			ch.Mode = tier.End
			c.mode(ch, tag("t2"))
			require.True(s, c.lagsTag("t2"))
			c.end("other", tag("t2"))
			require.True(s, c.lagsTag("t2"), "an end without a lag leaves the mark")
		}},

		{name: "the mark of a lag ends, and a shorter one does not end a longer one", run: func(s *store) {
			c := s.open()
			c.mode(tier.Change{Lag: short}, key("key"), tag("t1"))
			c.mode(tier.Change{Lag: minute}, tag("t2"))
			c.mode(tier.Change{Lag: short}, tag("t2"))
			s.wait(beyond)
			require.False(s, c.lagsKey("key"))
			require.False(s, c.lagsTag("t1"))
			require.True(s, c.lagsTag("t2"))
		}},

		{name: "given evicted intents, writers end as ever", needs: needsEvict, run: func(s *store) {
			c := s.open()
			c.begin("intent", minute, tag("t1"))
			g := c.capture("t1")
			c.evict(Intents, "t1")
			require.Zero(s, c.openTag("t1"))
			c.end("intent", tag("t1"))
			require.NotEqual(s, g.Token, c.capture("t1").Token)
		}},
	}
}

// openKey returns how long intents on a free key last, and leaves it free.
func (c *client) openKey(name string) time.Duration {
	c.Helper()
	l := c.acquire(name)
	require.NoError(c, c.Release(c.ctx(), l))
	return l.Open
}

func (c *client) openTag(name string) time.Duration {
	c.Helper()
	return c.capture(name).Open
}

func (c *client) lagsKey(name string) bool {
	c.Helper()
	l := c.acquire(name)
	require.NoError(c, c.Release(c.ctx(), l))
	return l.Lagging
}

// lagsTag returns what both ways to capture a tag say.
func (c *client) lagsTag(name string) bool {
	c.Helper()
	g := c.capture(name)
	probe := in((home(name)+1)%partitions, "probe of ")
	l := c.acquire(probe, name)
	require.NoError(c, c.Release(c.ctx(), l))
	require.Equal(c, g.Lagging, l.Generations[0].Lagging)
	return g.Lagging
}

func (c *client) lapsed(name string) time.Duration {
	c.Helper()
	late, err := c.Late(c.ctx(), name, tier.Position{})
	require.NoError(c, err)
	return late.Lapsed
}
