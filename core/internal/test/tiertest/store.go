package tiertest

import (
	"context"
	"crypto/rand"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/internal/tier"
)

const (
	second = time.Second
	minute = time.Minute

	// short is how long things last whose end a case waits for; it must be enough
	// for the few calls in between.
	short = 200 * time.Millisecond
	// beyond is how long to wait so that a short one has surely ended.
	beyond = short + 100*time.Millisecond

	// patience limits each wait and each call.
	patience = 10 * second

	partitions = 4
)

// store is a case with a namespace of its own.
type store struct {
	testing.TB
	h      Harness
	layout tier.Layout
}

func newStore(t testing.TB, h Harness) *store {
	return &store{TB: t, h: h, layout: tier.Layout{
		Namespace: "tiertest-" + rand.Text(), Version: "v1",
		Partitions: partitions, MaxStaleness: second,
	}}
}

// client is a session of the case.
type client struct {
	tier.Session
	*store
	layout tier.Layout
}

// open opens a client of the case's layout, and sees to it that there are heads.
func (s *store) open() *client {
	s.Helper()
	c := s.openWith(func(*tier.Layout) {})
	for p, h := range c.heads() {
		if h.Missing {
			require.NoError(s, c.NewEra(s.ctx(), p, "", false))
		}
	}
	return c
}

func (s *store) openVersion(version string) *client {
	s.Helper()
	return s.openWith(func(l *tier.Layout) { l.Version = version })
}

// openWith opens a client of another layout, and makes no heads.
func (s *store) openWith(change func(*tier.Layout)) *client {
	s.Helper()
	l := s.layout
	change(&l)
	c := &client{Session: s.h.Open(s.TB, l), store: s, layout: l}
	s.Cleanup(func() { _ = c.Close() })
	return c
}

// ctx returns a context for one call.
func (s *store) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	s.Cleanup(cancel)
	return ctx
}

func (s *store) wait(d time.Duration) {
	if s.h.Wait != nil {
		s.h.Wait(d)
		return
	}
	time.Sleep(d)
}

// eventually waits until something is so.
func (s *store) eventually(is func() bool, what string) {
	s.Helper()
	const pause = 5 * time.Millisecond
	for range patience / pause {
		if is() {
			return
		}
		s.wait(pause)
	}
	require.Fail(s, "in vain waited for: "+what)
}

// evict evicts something in the partition where the name lies.
func (c *client) evict(kind StoredKind, name string) {
	c.Helper()
	c.evictIn(kind, home(name), name)
}

func (c *client) evictIn(kind StoredKind, partition int, name string) {
	c.Helper()
	c.h.Evict(c.TB, Stored{Kind: kind, Layout: c.layout, Partition: partition, Name: name})
}

// in returns a name that lies in a partition.
func in(partition int, name string) string {
	for i := 0; ; i++ {
		if n := fmt.Sprint(name, i); tier.Partition(n, partitions) == partition {
			return n
		}
	}
}

// home returns the partition of a key.
func home(name string) int { return tier.Partition(tier.Name(name), partitions) }

func key(name string) tier.Item     { return tier.Item{Kind: tier.Key, Value: name} }
func tag(name string) tier.Item     { return tier.Item{Kind: tier.Tag, Value: name} }
func pattern(glob string) tier.Item { return tier.Item{Kind: tier.Pattern, Value: glob} }
func all() tier.Item                { return tier.Item{Kind: tier.All} }

func (c *client) entry(name string) tier.Entry {
	c.Helper()
	e, tokens, err := c.Get(c.ctx(), name, nil)
	require.NoError(c, err)
	require.Empty(c, tokens)
	return e
}

func (c *client) has(name string) bool {
	c.Helper()
	return c.entry(name).ID != ""
}

func (c *client) generations(tags ...string) []string {
	c.Helper()
	tokens, err := c.Generations(c.ctx(), tags)
	require.NoError(c, err)
	require.Len(c, tokens, len(tags))
	return tokens
}

// ask acquires, whatever comes of it.
func (c *client) ask(name, seen string, d time.Duration, tags ...string) tier.Lease {
	c.Helper()
	l, err := c.Acquire(c.ctx(), name, seen, tags, d)
	require.NoError(c, err)
	ways := 0
	for _, is := range []bool{l.Token != "", l.Found.ID != "", l.Busy > 0} {
		if is {
			ways++
		}
	}
	require.Equal(c, 1, ways, "a lease, an entry, or busy: %+v", l)
	return l
}

// acquire acquires a lease that must be free.
func (c *client) acquire(name string, tags ...string) tier.Lease {
	c.Helper()
	l := c.ask(name, "", minute, tags...)
	require.NotEmpty(c, l.Token, "it is free")
	require.Equal(c, name, l.Key)
	require.Len(c, l.Generations, len(tags))
	return l
}

// capture returns the generation of a tag, made if there was none.
func (c *client) capture(name string) tier.Generation {
	c.Helper()
	late, err := c.Late(c.ctx(), name, tier.Position{})
	require.NoError(c, err)
	require.NotEmpty(c, late.Token)
	require.Equal(c, name, late.Tag)
	return late.Generation
}

// value is an entry that lasts for a minute, made under a lease.
func value(l tier.Lease, payload string) tier.Fill {
	f := tier.Fill{Key: l.Key, Entry: tier.Entry{
		Payload: []byte(payload), Born: l.Now,
		FreshUntil: l.Now + 20_000, StaleUntil: l.Now + 40_000, KeepUntil: l.Now + 60_000,
		Eras: []tier.PartitionEra{{Partition: home(l.Key), Era: l.Era}},
	}}
	for _, g := range l.Generations {
		f.Entry.Tags = append(f.Entry.Tags, tier.TagGeneration{Tag: g.Tag, Token: g.Token})
	}
	return f
}

func (c *client) fill(l tier.Lease, f tier.Fill) bool {
	c.Helper()
	stored, err := c.Fill(c.ctx(), l, f)
	require.NoError(c, err)
	return stored
}

// put stores an entry under a free key.
func (c *client) put(name, payload string, tags ...string) tier.Entry {
	c.Helper()
	l := c.acquire(name, tags...)
	require.True(c, c.fill(l, value(l, payload)), "it is stored")
	e := c.entry(name)
	require.Equal(c, payload, string(e.Payload))
	return e
}

// scan removes what matches one of the globs.
func (c *client) scan(globs ...string) tier.Scanned {
	c.Helper()
	did, err := c.Scan(c.ctx(), tier.Scan{Globs: globs})
	require.NoError(c, err)
	require.True(c, did.Sure)
	return did
}

func (c *client) extend(l tier.Lease, d time.Duration) bool {
	c.Helper()
	ok, err := c.Extend(c.ctx(), l, d)
	require.NoError(c, err)
	return ok
}

func (c *client) change(ch tier.Change) []tier.Logged {
	c.Helper()
	logged, err := c.Change(c.ctx(), ch)
	require.NoError(c, err)
	return logged
}

// split returns the changes that invalidate items, one per partition.
func split(items []tier.Item) map[int][]tier.Item {
	by := map[int][]tier.Item{}
	for _, it := range items {
		switch it.Kind {
		case tier.Key:
			by[home(it.Value)] = append(by[home(it.Value)], it)
		case tier.Tag:
			p := tier.Partition(it.Value, partitions)
			by[p] = append(by[p], it)
		default:
			for p := range partitions {
				by[p] = append(by[p], it)
			}
		}
	}
	return by
}

func (c *client) invalidate(items ...tier.Item) {
	c.Helper()
	c.mode(tier.Change{}, items...)
}

// mode executes a change in each partition of its items.
func (c *client) mode(ch tier.Change, items ...tier.Item) {
	c.Helper()
	for p, items := range split(items) {
		ch.Partition, ch.Items = p, items
		c.change(ch)
	}
}

// begin enters an intent.
func (c *client) begin(id string, lasts time.Duration, items ...tier.Item) {
	c.Helper()
	c.mode(tier.Change{Intent: id, Mode: tier.Begin, Lasts: lasts, Remain: minute}, items...)
}

func (c *client) end(id string, items ...tier.Item) {
	c.Helper()
	c.mode(tier.Change{Intent: id, Mode: tier.End}, items...)
}

func (c *client) abandon(id string, items ...tier.Item) {
	c.Helper()
	c.mode(tier.Change{Intent: id, Mode: tier.Abandon}, items...)
}

func (c *client) heads() []tier.Head {
	c.Helper()
	heads, err := c.Heads(c.ctx())
	require.NoError(c, err)
	for p, h := range heads {
		require.NoError(c, h.Err, "head %d", p)
		require.NotEmpty(c, h.Server)
		if !h.Missing {
			require.NotEmpty(c, h.Era)
			require.NotEmpty(c, h.Sweep)
			require.Equal(c, tier.Protocol, h.Protocol)
			require.Equal(c, len(heads), h.Partitions)
		}
	}
	return heads
}

func (c *client) log(partition int, after tier.Position) tier.Log {
	c.Helper()
	l, err := c.Log(c.ctx(), partition, after)
	require.NoError(c, err)
	require.False(c, l.Joined && l.Trimmed, "it is one or the other")
	return l
}

// values returns what items name.
func values(items []tier.Logged) []string {
	var got []string
	for _, it := range items {
		got = append(got, it.Value)
	}
	return got
}

// follows demands that items are a chain after a token.
func (s *store) follows(before string, items []tier.Logged) {
	s.Helper()
	for _, it := range items {
		require.Equal(s, before, it.Before, "the predecessor of %q", it.Value)
		require.NotEmpty(s, it.Token)
		before = it.Token
	}
}
