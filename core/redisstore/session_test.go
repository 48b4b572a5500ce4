package redisstore

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/internal/test/redisserver"
	"github.com/larderhq/larder/core/internal/tier"
)

func TestAnEntryIsReadAsItWasFilled(t *testing.T) {
	_, client := single(t)
	s := open(t, client, layout("v1"))
	l := fill(t, s, "user:42", "hello", "t:user")

	e, generations, err := s.Get(within(t, time.Second), "user:42", []string{"t:user", "t:none"})
	require.NoError(t, err)
	require.Equal(t, l.Token, e.ID)
	require.Equal(t, "hello", string(e.Payload))
	require.Equal(t, []string{l.Generations[0].Token, ""}, generations)
	require.Len(t, e.Eras, 2)
	require.InDelta(t, l.Now, e.Now, 5000)

	again, err := s.Acquire(within(t, time.Second), "user:42", "", nil, time.Second)
	require.NoError(t, err)
	require.Equal(t, l.Token, again.Found.ID)
	require.Empty(t, again.Token)
	again, err = s.Acquire(within(t, time.Second), "user:42", l.Token, nil, time.Second)
	require.NoError(t, err)
	require.NotEmpty(t, again.Token)
	require.NotEqual(t, l.Token, again.Token)
}

func TestAFillThatIsExecutedTwiceIsStoredBothTimes(t *testing.T) {
	_, client := single(t)
	s := open(t, client, layout("v1"))
	ctx := within(t, 5*time.Second)
	l, err := s.Acquire(ctx, "k", "", nil, time.Second)
	require.NoError(t, err)
	for range 2 {
		stored, err := s.Fill(ctx, l, fillOf(s, l, "x"))
		require.NoError(t, err)
		require.True(t, stored)
	}
	invalidate(t, s, tier.Key, "k")
	stored, err := s.Fill(ctx, l, fillOf(s, l, "x"))
	require.NoError(t, err)
	require.False(t, stored)
}

func TestACallThatIsExecutedTwiceMakesTwoTokens(t *testing.T) {
	_, client := single(t)
	s := open(t, client, layout("v1"))
	ctx := within(t, 5*time.Second)
	resent := func(c call) [2][]any {
		var replies [2][]any
		for i := range replies {
			values, err := s.run(ctx, c)
			require.NoError(t, err)
			replies[i] = values[0].([]any)
		}
		return replies
	}

	t.Run("change", func(t *testing.T) {
		r := resent(s.changeCall(tier.Change{Items: []tier.Item{{Kind: tier.Key, Value: "k"}}}))
		require.NotEqual(t, r[0][3], r[1][3])
		require.Equal(t, r[0][3], r[1][4], "the second follows the first")
	})
	t.Run("generation", func(t *testing.T) {
		c := s.captureCall(&s.grouped(s.partitionOf("t:x"), []string{"t:x"})[0])
		first := resent(c)[0][8]
		invalidate(t, s, tier.Tag, "t:x")
		require.NotEqual(t, first, resent(c)[0][8], "it does not come back to life")
	})
	t.Run("era", func(t *testing.T) {
		c := call{script: eraScript, keys: []string{s.names.head(0)}, args: []any{nonce(), "c", 0, "", "1", 4, 1, 5}}
		var eras [2]string
		for i := range eras {
			_, err := s.run(ctx, c)
			require.NoError(t, err)
			eras[i] = heads(t, s)[0].Era
		}
		require.NotEqual(t, eras[0], eras[1])
	})
}

func TestAnInvalidationReachesVersionsThatCameIntoUseLater(t *testing.T) {
	_, client := single(t)
	old := open(t, client, layout("v1"))
	newer := open(t, client, layout("v2"))
	fill(t, newer, "k", "x")
	require.Equal(t, []string{"v1"}, old.knownVersions())

	invalidate(t, old, tier.Key, "k")

	e, _, err := newer.Get(within(t, time.Second), "k", nil)
	require.NoError(t, err)
	require.Empty(t, e.ID)
	require.Equal(t, []string{"v1", "v2"}, old.knownVersions())
}

func TestAVersionThatComesAfterTheVersionsWereCountedIsInvalidated(t *testing.T) {
	_, client := single(t)
	old := open(t, client, layout("v1"))
	fill(t, old, "k", "x")
	invalidate(t, old, tier.Key, "k") // counts the versions of the head
	newer, newest := open(t, client, layout("v2")), open(t, client, layout("v3"))
	fill(t, newer, "k", "x")
	fill(t, newest, "k", "x")
	invalidate(t, old, tier.Key, "k")

	for _, s := range []*session{newer, newest} {
		e, _, err := s.Get(within(t, time.Second), "k", nil)
		require.NoError(t, err)
		require.Empty(t, e.ID)
	}
}

func TestALogIsJoinedByToken(t *testing.T) {
	_, client := single(t)
	s := open(t, client, layout("v1"))
	ctx := within(t, 5*time.Second)
	start := heads(t, s)[0].Position
	change := func(value string) tier.Logged {
		logged, err := s.Change(ctx, tier.Change{Items: []tier.Item{{Kind: tier.Pattern, Value: value}}})
		require.NoError(t, err)
		return logged[0]
	}
	a, b := change("a"), change("b")

	read := func(after tier.Position) tier.Log {
		l, err := s.Log(ctx, 0, after)
		require.NoError(t, err)
		return l
	}
	require.Equal(t, tier.Log{Joined: true, Items: []tier.Logged{a, b}}, read(start))
	require.Equal(t, tier.Log{Joined: true, Items: []tier.Logged{b}}, read(a.Position))
	require.Equal(t, tier.Log{Joined: true}, read(b.Position))
	require.Equal(t, b.Position, heads(t, s)[0].Position)

	require.Equal(t, tier.Log{Joined: true, Items: []tier.Logged{b}}, read(tier.Position{ID: "0-0", Token: a.Token}),
		"the id is a hint only")
	require.Equal(t, tier.Log{}, read(tier.Position{ID: a.ID, Token: "of another server"}))
	require.Equal(t, tier.Log{Trimmed: true}, read(tier.Position{ID: "1-0", Token: "long ago"}))
	require.Equal(t, tier.Log{}, read(tier.Position{ID: "99999999999999-0", Token: "of a flushed server"}))

	require.NoError(t, s.NewEra(ctx, 0, "", true))
	c := change("c")
	require.Equal(t, tier.Log{Joined: true, Items: []tier.Logged{b, c}}, read(a.Position))
	require.Equal(t, tier.Log{Joined: true, Items: []tier.Logged{c}},
		read(tier.Position{ID: b.ID, Token: c.Before}), "from the position of the new era")
}

func TestIntents(t *testing.T) {
	_, client := single(t)
	s := open(t, client, layout("v1"))
	ctx := within(t, 10*time.Second)
	item := tier.Item{Kind: tier.Tag, Value: "t:x"}
	p := s.partitionOf("t:x")
	change := func(c tier.Change) {
		c.Partition, c.Items = p, []tier.Item{item}
		_, err := s.Change(ctx, c)
		require.NoError(t, err)
	}
	capture := func() tier.Late {
		l, err := s.Late(ctx, "t:x", tier.Position{})
		require.NoError(t, err)
		return l
	}

	change(tier.Change{Intent: "a", Mode: tier.Begin, Lasts: time.Minute, Remain: time.Minute})
	g := capture()
	require.InDelta(t, time.Minute, g.Open, float64(5*time.Second))
	ttl := client.PTTL(ctx, s.names.generation(p, "t:x")).Val()
	require.InDelta(t, time.Minute, ttl, float64(5*time.Second))
	require.Equal(t, g.Token, capture().Token)

	change(tier.Change{Intent: "a", Mode: tier.Abandon})
	later := capture()
	require.Zero(t, later.Open)
	require.Equal(t, g.Token, later.Token)
	require.Greater(t, client.PTTL(ctx, s.names.generation(p, "t:x")).Val(), maxKeep, "no other intent caps it")

	change(tier.Change{Intent: "b", Mode: tier.Begin, Lasts: time.Millisecond, Remain: time.Minute})
	// In the millisecond of the deadline the generation of the open intent is still there.
	require.Eventually(t, func() bool { g = capture(); return g.Open == 0 && g.Token[0] == 'g' }, time.Second, time.Millisecond)
	require.Positive(t, g.Lapsed)
	require.Greater(t, client.PTTL(ctx, s.names.generation(p, "t:x")).Val(), maxKeep)
	change(tier.Change{Intent: "b", Mode: tier.End})
	require.Zero(t, capture().Lapsed)
	require.NotEqual(t, g.Token, capture().Token)

	change(tier.Change{Lag: time.Minute})
	require.True(t, capture().Lagging)
}

func TestHintsWakeWaitingCallers(t *testing.T) {
	_, client := single(t)
	s := open(t, client, layout("v1"))
	ctx, cancel := context.WithCancel(t.Context())
	ready, hints, ended := make(chan struct{}), make(chan tier.Hint, 100), make(chan error, 1)
	go func() { ended <- s.Hints(ctx, func() { close(ready) }, func(h tier.Hint) { hints <- h }) }()
	<-ready

	step := within(t, 5*time.Second)
	l, err := s.Acquire(step, "k\x1fvariant", "", nil, time.Minute)
	require.NoError(t, err)
	busy, err := s.Acquire(step, "k\x1fvariant", "", nil, time.Minute)
	require.NoError(t, err)
	require.Positive(t, busy.Busy)
	require.NoError(t, s.Release(step, l))
	require.Equal(t, tier.Hint{Partition: s.partitionOf("k"), Wake: "k\x1fvariant"}, <-hints)

	logged := invalidate(t, s, tier.Tag, "t:\xff")
	require.Equal(t, tier.Hint{Partition: s.partitionOf("t:\xff"), Item: logged}, <-hints)

	require.NoError(t, client.Publish(step, "app:hints", "nonsense").Err())
	require.NoError(t, client.Publish(step, "app:invalidate", "tag:product:42").Err())
	require.Equal(t, tier.Item{Kind: tier.Tag, Value: "t:product:42"}, (<-hints).Item.Item)

	cancel()
	select {
	case err := <-ended:
		require.ErrorIs(t, err, context.Canceled)
	case <-time.After(500 * time.Millisecond):
		t.Fatal("it goes on listening")
	}
}

func TestAScanReachesEveryVersionAndNoOtherNamespace(t *testing.T) {
	_, client := single(t)
	s := open(t, client, layout("v1"))
	other := layout("v1")
	other.Namespace = "ap?"
	foreign := open(t, client, other)
	v2 := open(t, client, layout("v2"))
	for _, who := range []*session{s, v2, foreign} {
		fill(t, who, "user:1", "x")
		fill(t, who, "user:2\x1fvariant", "x")
		fill(t, who, "item:1", "x")
	}
	did, err := s.Scan(within(t, 5*time.Second), scanOf("user:*"))
	require.NoError(t, err)
	require.True(t, did.Sure)
	require.EqualValues(t, 4, did.Removed)
	did, err = foreign.Scan(within(t, 5*time.Second), scanOf("*"))
	require.NoError(t, err)
	require.EqualValues(t, 3, did.Removed)
}

func TestAMasterThatWasAReplicaMeanwhileIsNotTakenForOneThatStayed(t *testing.T) {
	server, client := single(t)
	s := open(t, client, layout("v1"))
	ctx := within(t, 10*time.Second)
	before, err := s.topology(ctx)
	require.NoError(t, err)
	again, err := s.topology(ctx)
	require.NoError(t, err)
	require.Equal(t, before.of, again.of)
	for _, of := range [][]string{{"127.0.0.1", "1"}, {"NO", "ONE"}} {
		_, err := server.Do(ctx, "REPLICAOF", of[0], of[1])
		require.NoError(t, err)
	}
	after, err := s.topology(ctx)
	require.NoError(t, err)
	require.NotEqual(t, before.of, after.of)
}

// Keys that do not match are not sent over the network.
func TestAScanIsToldOfLittleButWhatMatches(t *testing.T) {
	_, client := single(t)
	s := open(t, client, layout("v1"))
	ctx := within(t, 10*time.Second)
	const entries = 2000
	for i := range entries {
		require.NoError(t, s.Note(ctx, fmt.Sprint("a-name-that-is-rather-long:", i), []byte("x"), time.Minute))
	}
	sent := func(globs ...string) int {
		out := func() int {
			text, err := client.Info(ctx, "stats").Result()
			require.NoError(t, err)
			n, err := strconv.Atoi(infoField(text, "total_net_output_bytes"))
			require.NoError(t, err)
			return n
		}
		before := out()
		did, err := s.Scan(ctx, scanOf(globs...))
		require.NoError(t, err)
		require.Zero(t, did.Removed)
		require.GreaterOrEqual(t, did.Keys, int64(entries))
		return out() - before
	}
	require.Less(t, sent("user:*"), 30_000, "INFO twice, and empty replies")
	require.Less(t, sent("*:x"), 30_000)
	require.Less(t, sent("nothing", "not*"), 30_000, "of several it sees what all begin with")
}

func TestWhatOtherProgramsPublishIsAHint(t *testing.T) {
	s := &session{}
	s.partitions.Store(4)
	items := func(payload string) map[tier.Item]int {
		got := make(map[tier.Item]int)
		for _, h := range s.foreign(payload) {
			require.Equal(t, tier.Position{}, h.Item.Position)
			got[h.Item.Item]++
		}
		return got
	}
	require.Equal(t, map[tier.Item]int{{Kind: tier.Key, Value: "a:b"}: 1}, items("key:a:b"))
	require.Equal(t, map[tier.Item]int{{Kind: tier.Tag, Value: "t:a"}: 1}, items("tag:a"))
	require.Equal(t, map[tier.Item]int{{Kind: tier.Tag, Value: "p:/a"}: 1}, items("path:/a"))
	require.Equal(t, map[tier.Item]int{{Kind: tier.Tag, Value: "p:/a b"}: 1}, items("path:/a%20b"))
	require.Equal(t, map[tier.Item]int{{Kind: tier.Pattern, Value: "a*"}: 4}, items("pattern:a*"))
	require.Equal(t, map[tier.Item]int{{Kind: tier.All}: 4}, items("all"))
	for _, nonsense := range []string{"", ":", "key", "key:", "all:", "all:x", "x:y"} {
		require.Empty(t, items(nonsense), nonsense)
	}
}

func TestAMasterThatMayNotWriteProvesNothing(t *testing.T) {
	_, client := single(t)
	s := open(t, client, layout("v1"))
	ctx := within(t, 5*time.Second)
	require.NoError(t, client.ConfigSet(ctx, "min-replicas-to-write", "1").Err())
	all, err := s.Heads(ctx)
	require.NoError(t, err)
	for _, h := range all {
		require.ErrorContains(t, h.Err, "NOREPLICAS")
	}
	_, err = s.Change(ctx, tier.Change{Items: []tier.Item{{Kind: tier.All}}})
	require.ErrorContains(t, err, "NOREPLICAS")
	require.ErrorContains(t, s.NewEra(ctx, 0, "", true), "NOREPLICAS")
	_, err = s.Agree(ctx)
	require.ErrorContains(t, err, "NOREPLICAS")
	require.NotErrorIs(t, err, tier.ErrUnusable)
}

func TestPartsOfTheLayoutLapse(t *testing.T) {
	_, client := single(t)
	s := open(t, client, layout("v1"))
	ctx := within(t, 5*time.Second)
	past, future := time.Now().Add(-time.Second).UnixMilli(), time.Now().Add(time.Minute).UnixMilli()
	require.NoError(t, client.HSet(ctx, "app:layout",
		"stale:60000", past, "lag:60000", past, "ver:old", past, "stale:3000", future, "lag:2000", future, "ver:new", future,
	).Err())
	l, err := s.Agree(ctx)
	require.NoError(t, err)
	require.Equal(t, 3*time.Second, l.MaxStaleness)
	require.Equal(t, 2*time.Second, l.ReplicaLag)
	require.ElementsMatch(t, []string{"v1", "new"}, s.knownVersions())
	require.Zero(t, client.HExists(ctx, "app:layout", "stale:60000").Val())

	old := time.Now().Add(-versionKnown).UnixMilli()
	require.NoError(t, client.HSet(ctx, s.names.head(0), "v:ancient", old).Err())
	_, err = s.Change(ctx, tier.Change{Items: []tier.Item{{Kind: tier.All}}})
	require.NoError(t, err)
	require.NotContains(t, s.knownVersions(), "ancient")
	require.Zero(t, client.HExists(ctx, s.names.head(0), "v:ancient").Val())
}

func BenchmarkHit(b *testing.B) {
	server := redisserver.Single(b)
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	defer client.Close()
	ctx := context.Background()
	opened, err := New(client).Open(ctx, layout("v1"))
	require.NoError(b, err)
	defer opened.Close()
	s := opened.(*session)
	for p := range 4 {
		require.NoError(b, s.NewEra(ctx, p, "", false))
	}
	l, err := s.Acquire(ctx, "k", "", []string{"t:x"}, time.Minute)
	require.NoError(b, err)
	stored, err := s.Fill(ctx, l, fillOf(s, l, strings.Repeat("0123456789abcdef", 64)))
	require.NoError(b, err)
	require.True(b, stored)
	b.Run("raw", func(b *testing.B) {
		key := s.names.entry(s.partitionOf("k"), "v1", "k")
		for b.Loop() {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			if _, err := s.nodes.single.Get(ctx, key).Bytes(); err != nil {
				b.Fatal(err)
			}
			cancel()
		}
	})
	b.Run("entry", func(b *testing.B) {
		for b.Loop() {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			if e, _, err := s.Get(ctx, "k", nil); err != nil || e.ID == "" {
				b.Fatal(err)
			}
			cancel()
		}
	})
}

func TestASilentSubscriptionIsKeptAndOneThatHangsIsCut(t *testing.T) {
	t.Parallel()
	server, client := single(t)
	s := open(t, client, layout("v1"))
	ctx := within(t, 30*time.Second)
	ready, hints, ended := make(chan struct{}), make(chan tier.Hint, 9), make(chan error, 1)
	go func() { ended <- s.Hints(ctx, func() { close(ready) }, func(h tier.Hint) { hints <- h }) }()
	<-ready
	select {
	case err := <-ended:
		t.Fatal(err)
	case <-time.After(3 * pingAfter):
	}
	item := invalidate(t, s, tier.Key, "k")
	require.Equal(t, item, (<-hints).Item)

	require.NoError(t, server.Stop())
	defer func() { require.NoError(t, server.Continue()) }()
	select {
	case err := <-ended:
		require.ErrorContains(t, err, "has sent nothing")
	case <-time.After(5 * pingAfter):
		t.Fatal("it takes silence for an answer")
	}
}
