package redisstore

import (
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/internal/tier"
)

func TestAFullServerStillInvalidates(t *testing.T) {
	_, client := single(t, "--maxmemory-policy", "noeviction")
	s := open(t, client, layout("v1"))
	ctx := within(t, 10*time.Second)
	l := fill(t, s, "k", "x", "t:x")
	leased, err := s.Acquire(ctx, "leased", "", nil, time.Minute)
	require.NoError(t, err)
	require.NoError(t, client.ConfigSet(ctx, "maxmemory", "1").Err())
	require.ErrorContains(t, client.Set(ctx, "foreign", "x", 0).Err(), "OOM")

	at := heads(t, s)[s.partitionOf("k")].Position
	key := invalidate(t, s, tier.Key, "k")
	require.Equal(t, at.Token, key.Before)
	require.NotEmpty(t, key.ID)
	invalidate(t, s, tier.Tag, "t:x")
	invalidate(t, s, tier.Pattern, "x*")
	e, generations, err := s.Get(ctx, "k", []string{"t:x"})
	require.NoError(t, err)
	require.Empty(t, e.ID)
	require.Equal(t, []string{""}, generations)
	require.NoError(t, s.NewEra(ctx, 0, "", true))
	_, err = s.Agree(ctx)
	require.NoError(t, err)

	_, err = s.Acquire(ctx, "k", l.Token, nil, time.Minute)
	require.ErrorContains(t, err, "OOM")
	stored, err := s.Fill(ctx, leased, fillOf(s, leased, "x"))
	require.ErrorContains(t, err, "OOM")
	require.False(t, stored)
	extended, err := s.Extend(ctx, leased, time.Minute)
	require.NoError(t, err)
	require.False(t, extended, "the lease has ended")

	opened, err := New(client).Open(ctx, layout("v2"))
	require.NoError(t, err)
	require.NoError(t, opened.Close())
}

func TestKeysOfTheWrongTypeAreReplaced(t *testing.T) {
	for _, wrong := range []string{"string", "list"} {
		t.Run(wrong, func(t *testing.T) {
			_, client := single(t)
			want := layout("v1")
			want.Partitions = 1
			s := open(t, client, want)
			ctx := within(t, 10*time.Second)
			spoil := func(key string) {
				require.NoError(t, client.Del(ctx, key).Err())
				if wrong == "list" {
					require.NoError(t, client.RPush(ctx, key, "nonsense").Err())
				} else {
					require.NoError(t, client.Set(ctx, key, "nonsense", 0).Err())
				}
			}

			at := heads(t, s)[0].Position
			spoil(s.names.log(0))
			l, err := s.Log(ctx, 0, tier.Position{ID: "1-1", Token: "x"})
			require.NoError(t, err)
			require.Equal(t, tier.Log{}, l)
			item := invalidate(t, s, tier.Key, "k")
			l, err = s.Log(ctx, 0, at)
			require.NoError(t, err)
			require.Equal(t, tier.Log{Joined: true, Items: []tier.Logged{item}}, l)

			spoil(s.names.entry(0, "v1", "k"))
			e, _, err := s.Get(ctx, "k", nil)
			require.NoError(t, err)
			require.Empty(t, e.ID)
			spoil(s.names.lease(0, "v1", "k"))
			spoil(s.names.keyIntents(0, "k"))
			spoil(s.names.tagIntents(0, "t:x"))
			spoil(s.names.generation(0, "t:x"))
			fill(t, s, "k", "x", "t:x")
			e, _, err = s.Get(ctx, "k", nil)
			require.NoError(t, err)
			require.NotEmpty(t, e.ID)
			_, err = s.Change(ctx, tier.Change{
				Intent: "w", Mode: tier.Begin, Lasts: time.Minute, Remain: time.Minute,
				Items: []tier.Item{{Kind: tier.Key, Value: "k"}, {Kind: tier.Tag, Value: "t:x"}},
			})
			require.NoError(t, err)
			late, err := s.Late(ctx, "t:x", at)
			require.NoError(t, err)
			require.Positive(t, late.Open)

			spoil(s.names.head(0))
			all, err := s.Heads(ctx)
			require.NoError(t, err)
			require.NoError(t, all[0].Err)
			require.True(t, all[0].Missing)
			invalidate(t, s, tier.Key, "k")
			require.NoError(t, s.NewEra(ctx, 0, "x", false))
			heads(t, s)
			spoil(s.names.head(0))
			require.NoError(t, s.NewEra(ctx, 0, "x", false))
			heads(t, s)
		})
	}
}

func TestMalformedKeysCountAsMissing(t *testing.T) {
	_, client := single(t)
	want := layout("v1")
	want.Partitions = 1
	s := open(t, client, want)
	ctx := within(t, 20*time.Second)
	for _, nonsense := range []string{"", "x", "nan", "inf", "-1", "\xe7\x01\x00", "\xe7\x01\xff", "\xe7\x01\x02ab", "1e400", "!", "::"} {
		require.NoError(t, client.Set(ctx, s.names.entry(0, "v1", "k"), nonsense, 0).Err())
		require.NoError(t, client.Set(ctx, s.names.lease(0, "v1", "k"), nonsense, 0).Err())
		for _, key := range []string{s.names.keyIntents(0, "k"), s.names.tagIntents(0, "t:x")} {
			require.NoError(t, client.HSet(ctx, key, "w:a", nonsense, "lag", nonsense, nonsense, nonsense).Err())
		}
		require.NoError(t, client.HSet(ctx, s.names.head(0), "n", nonsense, "lag", nonsense, "pid", nonsense, "parts", nonsense).Err())
		require.NoError(t, client.XAdd(ctx, &redis.XAddArgs{Stream: s.names.log(0), Values: []string{nonsense, nonsense}}).Err())

		all, err := s.Heads(ctx)
		require.NoError(t, err)
		require.NoError(t, all[0].Err)
		_, err = s.Log(ctx, 0, tier.Position{ID: nonsense, Token: nonsense})
		require.NoError(t, err)
		fill(t, s, "k", "x", "t:x")
		e, _, err := s.Get(ctx, "k", nil)
		require.NoError(t, err)
		require.NotEmpty(t, e.ID)
		_, err = s.Late(ctx, "t:x", tier.Position{ID: nonsense, Token: nonsense})
		require.NoError(t, err)
		for i, mode := range []tier.IntentMode{tier.Begin, tier.End, tier.Abandon} {
			_, err = s.Change(ctx, tier.Change{
				Intent: strconv.Itoa(i), Mode: mode, Lasts: time.Second, Remain: time.Second, Lag: time.Second,
				Items: []tier.Item{{Kind: tier.Key, Value: "k"}, {Kind: tier.Tag, Value: "t:x"}, {Kind: tier.All}},
			})
			require.NoError(t, err)
		}
		require.NoError(t, s.NewEra(ctx, 0, "x", true))
	}
}

func TestAnEntryThatDoesNotDecodeIsReplaced(t *testing.T) {
	_, client := single(t)
	s := open(t, client, layout("v1"))
	ctx := within(t, 5*time.Second)
	l := fill(t, s, "k", "x")
	key := s.names.entry(s.partitionOf("k"), "v1", "k")
	value := client.Get(ctx, key).Val()
	require.NoError(t, client.Set(ctx, key, value[:len(value)-1]+"?", 0).Err())

	e, _, err := s.Get(ctx, "k", nil)
	require.NoError(t, err)
	require.Empty(t, e.ID)
	again, err := s.Acquire(ctx, "k", "", nil, time.Second)
	require.NoError(t, err)
	require.NotEmpty(t, again.Token)
	require.NotEqual(t, l.Token, again.Token)
}

func TestALogThatTakesNoMoreBecomesAnEra(t *testing.T) {
	_, client := single(t)
	want := layout("v1")
	want.Partitions = 1
	s := open(t, client, want)
	ctx := within(t, 5*time.Second)
	last := redis.XAddArgs{Stream: s.names.log(0), ID: "18446744073709551615-18446744073709551615", Values: []string{"a", "b"}}
	require.NoError(t, client.XAdd(ctx, &last).Err())
	at := heads(t, s)[0].Position
	item := invalidate(t, s, tier.Key, "k")
	l, err := s.Log(ctx, 0, at)
	require.NoError(t, err)
	require.Equal(t, tier.Log{Joined: true, Items: []tier.Logged{item}}, l, "the log is another")
}

func TestScriptsAreLoadedWhereTheyAreNotKnown(t *testing.T) {
	_, client := single(t)
	s := open(t, client, layout("v1"))
	ctx := within(t, 5*time.Second)
	require.NoError(t, client.ScriptFlush(ctx).Err())
	l, err := s.Acquire(ctx, "k", "", []string{"a", "b", "c"}, time.Minute)
	require.NoError(t, err)
	require.NotEmpty(t, l.Token)
	require.Len(t, l.Generations, 3)
	require.NoError(t, client.ScriptFlush(ctx).Err())
	s.clocks[s.partitionOf("k")].last.Store(nil)
	_, _, err = s.Get(ctx, "k", []string{"a"})
	require.NoError(t, err)
}

// Redis 6.2 has to know every command that is used, in scripts and outside.
func TestNoCommandIsNewerThanRedis62(t *testing.T) {
	_, client := single(t)
	ctx := within(t, 10*time.Second)
	called := regexp.MustCompile(`redis\.p?call\('([A-Z]+)'`)
	used := map[string]bool{
		"evalsha": true, "eval": true, "get": true, "mget": true, "set": true, "hdel": true, "hmget": true, "info": true, "time": true,
		"scan": true, "unlink": true, "subscribe": true, "ping": true, "cluster|nodes": true, "cluster|slots": true,
	}
	files, err := sources.ReadDir("lua")
	require.NoError(t, err)
	for _, f := range files {
		source, err := sources.ReadFile("lua/" + f.Name())
		require.NoError(t, err)
		for _, m := range called.FindAllStringSubmatch(string(source), -1) {
			used[strings.ToLower(m[1])] = true
		}
		require.NotContains(t, string(source), "#!lua", "a shebang is of 7.0")
		require.NotRegexp(t, `redis\.p?call\([^']`, string(source), "%s: commands are literal", f.Name())
	}
	delete(used, "spublish") // where it is not known there is another: see TestAClusterWithoutShardedPubSubTellsAllNodes
	require.Greater(t, len(used), 25)
	for command := range used {
		docs, err := client.Do(ctx, "COMMAND", "DOCS", command).Result()
		require.NoError(t, err)
		doc, ok := docs.(map[any]any)[command].(map[any]any)
		require.True(t, ok, command)
		since, _ := doc["since"].(string)
		require.NotEmpty(t, since, command)
		require.False(t, olderThan("6.2.99", major(t, since), minor(t, since)), "%s is since %s", command, since)
	}
}

func major(t *testing.T, version string) int { return part(t, version, 0) }
func minor(t *testing.T, version string) int { return part(t, version, 1) }

func part(t *testing.T, version string, i int) int {
	t.Helper()
	n, err := strconv.Atoi(strings.Split(version, ".")[i])
	require.NoError(t, err)
	return n
}
