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

// inOne is a layout of one partition.
func inOne() tier.Layout {
	want := layout("v1")
	want.Partitions = 1
	return want
}

// changes are of keys, each with its key as the payload.
func changes(keys ...string) tier.Enqueue {
	e := tier.Enqueue{Queue: "q", Limit: 1000}
	for _, k := range keys {
		e.Changes = append(e.Changes, tier.QueueChange{Key: k, Payload: []byte("of " + k)})
	}
	return e
}

// enqueue queues a change of each key, in partition 0, and returns the versions.
func enqueue(t testing.TB, s *session, keys ...string) []int64 {
	t.Helper()
	done, err := s.Enqueue(t.Context(), changes(keys...))
	require.NoError(t, err)
	versions := make([]int64, len(done))
	for i, d := range done {
		require.NotZero(t, d.Version)
		versions[i] = d.Version
	}
	return versions
}

func claim(t testing.TB, s *session) tier.Claimed {
	t.Helper()
	c, err := s.Claim(t.Context(), tier.Claim{Queue: "q", Worker: "w", Max: 100, Lease: time.Minute})
	require.NoError(t, err)
	require.Zero(t, c.Busy)
	return c
}

func settle(t testing.TB, s *session, of ...tier.Settled) tier.Settlement {
	t.Helper()
	done, err := s.Settle(t.Context(), tier.Settle{Queue: "q", Worker: "w", Records: of})
	require.NoError(t, err)
	return done
}

// queued returns the queued change that the lease for a key carries, nil if there is none.
func queued(t testing.TB, s *session, key string) *tier.Queued {
	t.Helper()
	l, err := s.Acquire(t.Context(), key, "", nil, time.Minute)
	require.NoError(t, err)
	require.NotEmpty(t, l.Token)
	require.NoError(t, s.Release(t.Context(), l))
	return l.Queued
}

func state(t testing.TB, s *session) tier.QueueState {
	t.Helper()
	states, err := s.States(t.Context(), "q")
	require.NoError(t, err)
	require.NoError(t, states[0].Err)
	return states[0]
}

func letters(t testing.TB, s *session) []tier.DeadLetter {
	t.Helper()
	all, err := s.DeadLetters(t.Context(), 0, "q", "", 1000)
	require.NoError(t, err)
	return all
}

// dump is everything that a server holds, to be compared.
func dump(t testing.TB, client *redis.Client) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, key := range client.Keys(t.Context(), "*").Val() {
		all[key] = client.Dump(t.Context(), key).Val()
	}
	return all
}

func TestAFullServerQueuesNothing(t *testing.T) {
	for _, policy := range []string{"noeviction", "volatile-lru"} {
		t.Run(policy, func(t *testing.T) {
			_, client := single(t, "--maxmemory-policy", policy)
			s := open(t, client, inOne())
			ctx := within(t, 10*time.Second)
			enqueue(t, s, "old")
			versions := enqueue(t, s, "applied", "failed", "dead", "poison")
			claim(t, s)
			settle(t, s, tier.Settled{Key: "poison", Version: versions[3], Dead: "why"})
			require.NoError(t, client.ConfigSet(ctx, "maxmemory", "1").Err())
			before := dump(t, client)

			_, err := s.Enqueue(ctx, changes("old", "new"))
			require.ErrorContains(t, err, "OOM")
			id := letters(t, s)[0].ID
			_, err = s.Replay(ctx, 0, "q", id)
			require.ErrorContains(t, err, "OOM")
			require.Equal(t, before, dump(t, client))

			// Any worker can empty it.
			require.Len(t, claim(t, s).Records, 4)
			require.True(t, settle(t, s,
				tier.Settled{Key: "applied", Version: versions[0]},
				tier.Settled{Key: "failed", Version: versions[1], Retry: time.Minute},
				tier.Settled{Key: "dead", Version: versions[2], Dead: "why"},
			).Held)
			st := state(t, s)
			require.Equal(t, []int{2, 1, 2}, []int{st.Depth, st.Retrying, st.Dead})
			ok, err := s.Discard(ctx, 0, "q", id)
			require.NoError(t, err)
			require.True(t, ok)
			require.NoError(t, client.ConfigSet(ctx, "maxmemory", "0").Err())
			enqueue(t, s, "old", "new")
		})
	}
}

func TestAKilledServerHasItsQueueAgainFromItsAppendOnlyFile(t *testing.T) {
	server, client := single(t, "--appendonly", "yes", "--appendfsync", "always")
	s := open(t, client, inOne())
	versions := enqueue(t, s, "a", "b", "c", "d")
	claim(t, s)
	settle(t, s, tier.Settled{Key: "a", Version: versions[0]},
		tier.Settled{Key: "b", Version: versions[1], Retry: time.Hour},
		tier.Settled{Key: "c", Version: versions[2], Dead: "why"})
	server.Kill()
	require.NoError(t, server.Restart(t.Context(), redisserver.AsItWas))

	require.Eventually(t, func() bool {
		_, err := s.States(t.Context(), "q")
		return err == nil && queued(t, s, "d") != nil
	}, 5*time.Second, 10*time.Millisecond)
	require.Equal(t, []tier.Queued{{Key: "d", Version: versions[3], First: versions[3], Payload: []byte("of d")}}, claim(t, s).Records)
	require.Equal(t, 1, queued(t, s, "b").Attempts)
	require.Nil(t, queued(t, s, "a"))
	require.Equal(t, "c", letters(t, s)[0].Key)
	require.Greater(t, enqueue(t, s, "a")[0], versions[3])
}

func TestVolatileEvictionEvictsEntriesAndNoQueuedChange(t *testing.T) {
	_, client := single(t, "--maxmemory-policy", "volatile-lru", "--maxmemory-samples", "10")
	s := open(t, client, inOne())
	ctx := within(t, 30*time.Second)
	require.NoError(t, s.Durable(ctx))
	var keys []string
	for i := range tier.MaxChanges {
		keys = append(keys, strconv.Itoa(i))
	}
	enqueue(t, s, keys...)
	var used int64
	_, err := fmt.Sscan(infoField(client.Info(ctx, "memory").Val(), "used_memory"), &used)
	require.NoError(t, err)
	require.NoError(t, client.ConfigSet(ctx, "maxmemory", strconv.FormatInt(used+1<<20, 10)).Err())
	payload := strings.Repeat("x", 10_000)
	for i := range 500 {
		_ = s.Note(ctx, "note"+strconv.Itoa(i), []byte(payload[:9000+i]+strconv.Itoa(i)), time.Hour)
		require.NoError(t, client.Set(ctx, "foreign"+strconv.Itoa(i), payload, time.Hour).Err())
	}
	require.NotEqual(t, "0", infoField(client.Info(ctx, "stats").Val(), "evicted_keys"))
	require.Equal(t, len(keys), state(t, s).Depth)
	require.Len(t, claim(t, s).Records, 100)
}

func TestDurableNamesThePolicyThatEvicts(t *testing.T) {
	_, client := single(t)
	s := open(t, client, inOne())
	ctx := within(t, 10*time.Second)
	for policy, durable := range map[string]bool{
		"noeviction": true, "volatile-lru": true, "volatile-lfu": true, "volatile-random": true, "volatile-ttl": true,
		"allkeys-lru": false, "allkeys-lfu": false, "allkeys-random": false,
	} {
		require.NoError(t, client.ConfigSet(ctx, "maxmemory-policy", policy).Err())
		err := s.Durable(ctx)
		if durable {
			require.NoError(t, err, policy)
			continue
		}
		require.ErrorIs(t, err, tier.ErrUnusable)
		for _, part := range []string{"maxmemory-policy", policy, "noeviction", "volatile-*", client.Options().Addr} {
			require.ErrorContains(t, err, part)
		}
	}
}

func TestDurableAsksEveryMaster(t *testing.T) {
	t.Parallel()
	cluster, client := threeByThree(t)
	s := open(t, client, layout("v1"))
	ctx := within(t, 10*time.Second)
	require.NoError(t, s.Durable(ctx))
	slot, err := cluster.SlotOf(ctx, s.names.head(2))
	require.NoError(t, err)
	master, err := cluster.MasterOf(ctx, slot)
	require.NoError(t, err)
	_, err = master.Do(ctx, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
	require.NoError(t, err)
	require.ErrorIs(t, s.Durable(ctx), tier.ErrUnusable)
}

func TestKeysOfAQueueWithAWrongTypeAreReplaced(t *testing.T) {
	for at, name := range []string{"records", "order", "retries", "worker", "letters", "index", "nothing"} {
		for _, wrong := range []string{"string", "list"} {
			t.Run(name+" "+wrong, func(t *testing.T) {
				_, client := single(t)
				s := open(t, client, inOne())
				ctx := within(t, 10*time.Second)
				key := s.names.queue(0, "q")[at]
				spoil := func() {
					require.NoError(t, client.Del(ctx, key).Err())
					if wrong == "list" {
						require.NoError(t, client.RPush(ctx, key, "nonsense").Err())
					} else {
						require.NoError(t, client.Set(ctx, key, "nonsense", 0).Err())
					}
				}
				versions := enqueue(t, s, "first", "later", "dead")
				claim(t, s)
				settle(t, s, tier.Settled{Key: "later", Version: versions[1], Retry: time.Millisecond},
					tier.Settled{Key: "dead", Version: versions[2], Dead: "why"})
				spoil()
				state(t, s)
				letters(t, s)
				queued(t, s, "first")
				if name == "worker" {
					require.False(t, settle(t, s, tier.Settled{Key: "first", Version: versions[0]}).Held)
				} else {
					settle(t, s, tier.Settled{Key: "none", Version: 1})
				}
				spoil()
				enqueue(t, s, "third")
				spoil()
				require.Eventually(t, func() bool { // the retry is due
					return len(claim(t, s).Records) == map[bool]int{true: 0, false: 3}[name == "records"]
				}, 5*time.Second, time.Millisecond)
				third := enqueue(t, s, "third", "fourth")[0]
				spoil()
				settle(t, s, tier.Settled{Key: "third", Version: third, Retry: time.Minute}, tier.Settled{Key: "fourth", Version: third + 1, Dead: "why"})
				for _, l := range letters(t, s) {
					_, err := s.Replay(ctx, 0, "q", l.ID)
					require.NoError(t, err)
				}
				spoil()
				fresh := enqueue(t, s, "fresh")[0]
				for range 2 { // the first finds ids in the order whose records are lost
					claim(t, s)
				}
				require.Equal(t, fresh, queued(t, s, "fresh").Version)
				require.True(t, settle(t, s, tier.Settled{Key: "fresh", Version: fresh}).Held)
				require.Nil(t, queued(t, s, "fresh"))
			})
		}
	}
}

func TestALostOrderIsRebuiltFromTheRecords(t *testing.T) {
	_, client := single(t)
	s := open(t, client, inOne())
	keys := s.names.queue(0, "q")
	versions := enqueue(t, s, "a", "b", "c")
	claim(t, s)
	settle(t, s, tier.Settled{Key: "b", Version: versions[1], Retry: time.Hour})
	require.NoError(t, client.Set(t.Context(), keys[1], "x", 0).Err())
	require.Equal(t, []string{"a", "c"}, claimedKeys(claim(t, s)))
	require.NoError(t, client.Set(t.Context(), keys[2], "x", 0).Err())
	require.Equal(t, []string{"a", "b", "c"}, claimedKeys(claim(t, s)), "what would wait is tried at once")
}

func claimedKeys(c tier.Claimed) []string {
	var keys []string
	for _, r := range c.Records {
		keys = append(keys, r.Key)
	}
	return keys
}

// nonsense holds malformed records.
func nonsense() []string {
	return []string{
		"", ":", "x", "1", "1:2:3", "1:1:0:n:1:", "1:1:0:n:1:q", "1:1:0:n:1:qp", "1:1:0:n:2:qp", "1:1:0:n:0:p", "1:1:0::1:qp",
		"-1:1:0:n:1:qp", "1:-1:0:n:1:qp", "1:1:x:n:1:qp", "1:1:0:n!:1:qp", "1:1:0:n:1e0:qp", "nan:1:0:n:1:qp", "inf:1:0:n:1:qp",
		"9007199254740992:1:0:n:1:qp", "9007199254740991:1:0:n:1:qp", "1:99999999999999999999:0:n:1:qp",
		"1:1:2147483648:n:1:qp", "1:1:2147483646:n:1:qp", "1:1:0:n:99999999999999999999:qp", "01:01:00:n:01:qp",
		" 1:1:0:n:1:qp", "1:1:0:n:1:q\x00", "1:1:0:n:1: p", "1.0:1:0:n:1:qp",
	}
}

func TestScriptsAndGoRefuseTheSameMalformedRecords(t *testing.T) {
	_, client := single(t)
	s := open(t, client, inOne())
	ctx := within(t, 30*time.Second)
	keys := s.names.queue(0, "q")
	for _, text := range nonsense() {
		rec, ok := parseRecord(text)
		is := ok && rec.queue == "q"
		for set := 1; set <= 2; set++ {
			require.NoError(t, client.HSet(ctx, keys[0], "key", text, "", text).Err())
			require.NoError(t, client.ZAdd(ctx, keys[set], redis.Z{Score: 1, Member: "key"}).Err())
			state(t, s)
			require.Equal(t, ok, queued(t, s, "key") != nil, "%q", text)
			claimed := claim(t, s)
			require.Equal(t, is, len(claimed.Records) == 1, "%q: %v", text, claimed)
			if is {
				require.Equal(t, rec.queued("key"), claimed.Records[0])
				settle(t, s, tier.Settled{Key: "key", Version: rec.version, Retry: time.Hour})
				settle(t, s, tier.Settled{Key: "key", Version: rec.version + 1})
			}
			v := enqueue(t, s, "key")[0]
			require.Equal(t, v, queued(t, s, "key").Version)
			claim(t, s)
			settle(t, s, tier.Settled{Key: "key", Version: v, Dead: text + "."})
			require.Nil(t, queued(t, s, "key"))
			require.NoError(t, client.HSet(ctx, keys[5], "key", text).Err())
			require.NoError(t, client.XAdd(ctx, &redis.XAddArgs{Stream: keys[4], Values: []string{"k", text, text, "x"}}).Err())
			letters(t, s)
			_, err := s.Replay(ctx, 0, "q", text)
			if err == nil {
				_, err = s.DeadLetters(ctx, 0, "q", text, 1)
			}
			if err != nil {
				require.ErrorContains(t, err, "Invalid stream ID")
			}
			require.NoError(t, client.Del(ctx, keys...).Err())
		}
	}
}

func TestAQueueCallExecutedTwiceTakesEffectOnce(t *testing.T) {
	_, client := single(t)
	s := open(t, client, inOne())
	ctx := within(t, 10*time.Second)
	run := func(c call) *reply {
		t.Helper()
		values, err := s.run(ctx, c)
		require.NoError(t, err)
		return newReply(values[0])
	}
	version := func(r *reply) int64 {
		t.Helper()
		require.Equal(t, "done", r.string())
		r.int()
		v := r.int()
		require.NoError(t, r.err)
		return v
	}

	t.Run("enqueue", func(t *testing.T) {
		c := s.enqueueCall(changes("k"))
		one := version(run(c))
		at := heads(t, s)[0].Position
		require.Equal(t, one, version(run(c)))
		require.NotEqual(t, at, heads(t, s)[0].Position, "it invalidates once more")
		require.Equal(t, one, queued(t, s, "k").Version)
		two := enqueue(t, s, "k")[0]
		three := version(run(c))
		require.Greater(t, three, two, "it is a change like any other by now")
		require.Equal(t, one, queued(t, s, "k").First)
	})
	t.Run("enqueue under a lease", func(t *testing.T) {
		l, err := s.Acquire(ctx, "leased", "", nil, time.Minute)
		require.NoError(t, err)
		e := changes("leased")
		e.Changes[0].Lease = l.Token
		c := s.enqueueCall(e)
		one := version(run(c))
		require.NotZero(t, one)
		require.Equal(t, one, version(run(c)))
		require.EqualValues(t, -1, version(run(s.enqueueCall(e))), "another call with the lease is not it")
	})
	t.Run("claim", func(t *testing.T) {
		require.Equal(t, claimedKeys(claim(t, s)), claimedKeys(claim(t, s)))
	})
	t.Run("settle", func(t *testing.T) {
		v := enqueue(t, s, "settled")[0]
		claim(t, s)
		c := s.settleCall(tier.Settle{Queue: "q", Worker: "w", Records: []tier.Settled{{Key: "settled", Version: v, Retry: time.Hour}}})
		run(c)
		run(c)
		require.Equal(t, 1, queued(t, s, "settled").Attempts)
		c = s.settleCall(tier.Settle{Queue: "q", Worker: "w", Records: []tier.Settled{{Key: "settled", Version: v, Dead: "why"}}})
		run(c)
		run(c)
		require.Len(t, letters(t, s), 1)
	})
	t.Run("replay", func(t *testing.T) {
		l := letters(t, s)[0]
		c := s.replayCall(0, "q", l.ID, l.Key, true)
		require.EqualValues(t, 1, version(run(c)))
		v := queued(t, s, l.Key).Version
		require.EqualValues(t, 1, version(run(c)))
		require.Equal(t, v, queued(t, s, l.Key).Version)
		require.Zero(t, version(run(s.replayCall(0, "q", l.ID, l.Key, true))))
	})
}

func TestTheOldestDeadLettersBeyondTheLimitGo(t *testing.T) {
	_, client := single(t)
	s := open(t, client, inOne())
	s.letters = 5
	for i := range 10 {
		var of []tier.Settled
		names := []string{fmt.Sprint("a", i), fmt.Sprint("b", i)}
		for j, v := range enqueue(t, s, names...) {
			of = append(of, tier.Settled{Key: names[j], Version: v, Dead: "why"})
		}
		claim(t, s)
		settle(t, s, of...)
	}
	var left []string
	for _, l := range letters(t, s) {
		left = append(left, l.Key)
	}
	require.Equal(t, []string{"b7", "a8", "b8", "a9", "b9"}, left)
	require.ElementsMatch(t, left, client.HKeys(t.Context(), s.names.queue(0, "q")[5]).Val())
	require.Equal(t, 5, state(t, s).Dead)
}

func TestAChangeExecutedAfterItsLimitDoesNothing(t *testing.T) {
	_, client := single(t)
	s := open(t, client, inOne())
	ctx := within(t, 10*time.Second)
	heads(t, s)
	now, known := s.clocks[0].now()
	require.True(t, known)
	before := dump(t, client)
	e := changes("k")
	e.Within = 5 * time.Second
	s.clocks[0].last.Store(&reading{now - 10_000, time.Now()})
	_, err := s.Enqueue(ctx, e)
	require.ErrorIs(t, err, errLate)
	require.Equal(t, before, dump(t, client))
	_, err = s.Enqueue(ctx, e)
	require.NoError(t, err, "the clock has been read")
	s.clocks[0].last.Store(nil)
	_, err = s.Enqueue(ctx, e)
	require.NoError(t, err, "it is not known")
}

func TestAQueuedChangeReachesAVersionThatCameIntoUseLater(t *testing.T) {
	_, client := single(t)
	want := inOne()
	old := open(t, client, want)
	want.Version = "v2"
	newer := open(t, client, want)
	ctx := within(t, 10*time.Second)
	fill(t, newer, "k", "x")
	require.Equal(t, []string{"v1"}, old.knownVersions())
	before := dump(t, client)
	values, err := old.run(ctx, old.enqueueCall(changes("k")))
	require.NoError(t, err)
	require.Equal(t, "versions", newReply(values[0]).string())
	require.Equal(t, before, dump(t, client))

	at := heads(t, old)[0].Position
	enqueue(t, old, "k")
	e, _, err := newer.Get(ctx, "k", nil)
	require.NoError(t, err)
	require.Empty(t, e.ID)
	l, err := old.Log(ctx, 0, at)
	require.NoError(t, err)
	require.Len(t, l.Items, 1)

	// A lease is of its version.
	for _, s := range []*session{old, newer} {
		require.Len(t, s.knownVersions(), 2)
		lease, err := s.Acquire(ctx, "k", "", nil, time.Minute)
		require.NoError(t, err)
		other := map[*session]*session{old: newer, newer: old}[s]
		e := changes("k")
		e.Changes[0].Lease = lease.Token
		done, err := other.Enqueue(ctx, e)
		require.NoError(t, err)
		require.EqualValues(t, -1, done[0].Version)
		done, err = s.Enqueue(ctx, e)
		require.NoError(t, err)
		require.NotZero(t, done[0].Version)
	}
}

func TestASlotMigrationRefusesQueueCallsAsAWhole(t *testing.T) {
	t.Parallel()
	cluster, client := threeByThree(t)
	s := open(t, client, layout("v1"))
	ctx := within(t, 60*time.Second)
	var names []string
	for i := 0; len(names) < 6; i++ {
		if name := strconv.Itoa(i); s.partitionOf(name) == 0 {
			names = append(names, name)
		}
	}
	versions := enqueue(t, s, names[:5]...)
	claim(t, s)
	settle(t, s, tier.Settled{Key: names[0], Version: versions[0], Retry: time.Millisecond},
		tier.Settled{Key: names[1], Version: versions[1], Dead: "why"})
	letter := letters(t, s)[0]
	all := func() (of []string) {
		for _, key := range s.names.queue(0, "q")[:6] {
			for _, node := range cluster.Nodes() {
				if v, err := node.Do(ctx, "DUMP", key); err == nil && v != nil {
					of = append(of, key+fmt.Sprint(v))
					break
				}
			}
		}
		return of
	}
	before := all()
	require.Len(t, before, 6)
	refused := func() {
		t.Helper()
		for name, do := range map[string]func() error{
			"enqueue": func() error { _, err := s.Enqueue(ctx, changes(names[5])); return err },
			"claim": func() error {
				_, err := s.Claim(ctx, tier.Claim{Queue: "q", Worker: "w", Max: 10, Lease: time.Minute})
				return err
			},
			"settle": func() error {
				_, err := s.Settle(ctx, tier.Settle{Queue: "q", Worker: "w", Records: []tier.Settled{{Key: names[2], Version: versions[2]}}})
				return err
			},
			"state": func() error {
				states, err := s.States(ctx, "q")
				require.NoError(t, err)
				require.NoError(t, states[1].Err)
				return states[0].Err
			},
			"replay":  func() error { _, err := s.Replay(ctx, 0, "q", letter.ID); return err },
			"discard": func() error { _, err := s.Discard(ctx, 0, "q", letter.ID); return err },
		} {
			require.ErrorIs(t, do(), tier.ErrMigrating, name)
		}
		require.Len(t, letters(t, s), 1)
	}
	m := migrate(t, cluster, s)
	refused()
	for moved := 1; moved > 0; {
		var err error
		moved, err = m.MoveKeys(ctx, 1)
		require.NoError(t, err)
		refused()
	}
	require.NoError(t, m.Finish(ctx))
	require.Equal(t, before, all())
	require.Len(t, claim(t, s).Records, 4)
	require.True(t, settle(t, s, tier.Settled{Key: names[2], Version: versions[2]}).Held)
	ok, err := s.Replay(ctx, 0, "q", letter.ID)
	require.NoError(t, err)
	require.True(t, ok)
	enqueue(t, s, names[5])
}

func TestAFailoverKeepsReplicatedQueuedChanges(t *testing.T) {
	t.Parallel()
	sentinel := redisserver.WithSentinel(t)
	client := redis.NewFailoverClient(&redis.FailoverOptions{MasterName: redisserver.MasterName, SentinelAddrs: sentinel.SentinelAddrs()})
	t.Cleanup(func() { _ = client.Close() })
	s := open(t, client, inOne())
	v := enqueue(t, s, "k")[0]
	master, err := sentinel.Master(t.Context())
	require.NoError(t, err)
	require.NoError(t, master.WaitReplicated(t.Context()))
	_, err = sentinel.Failover(t.Context())
	require.NoError(t, err)
	var c tier.Claimed
	require.Eventually(t, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		c, err = s.Claim(ctx, tier.Claim{Queue: "q", Worker: "w", Max: 100, Lease: time.Minute})
		return err == nil && len(c.Records) == 1
	}, 30*time.Second, 50*time.Millisecond)
	require.Equal(t, v, c.Records[0].Version)
}

func FuzzParseRecord(f *testing.F) {
	for _, text := range nonsense() {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, ok := parseRecord(text)
		if !ok {
			require.Equal(t, record{}, r)
			return
		}
		require.NotEmpty(t, r.payload)
		require.Less(t, max(r.version, r.first), int64(maxVersion))
		require.True(t, strings.HasSuffix(text, r.queue+r.payload))
		again := fmt.Sprintf("%d:%d:%d:%s:%d:%s%s", r.version, r.first, r.attempts, r.by, len(r.queue), r.queue, r.payload)
		same, ok := parseRecord(again)
		require.True(t, ok)
		require.Equal(t, r, same)
	})
}

// BenchmarkEnqueue measures the cost of a queued change, by changes per call, beside Change
// of as many keys and HSET of as many fields.
func BenchmarkEnqueue(b *testing.B) {
	server := redisserver.Single(b)
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	defer client.Close()
	opened, err := New(client).Open(b.Context(), inOne())
	require.NoError(b, err)
	defer opened.Close()
	s := opened.(*session)
	require.NoError(b, s.NewEra(b.Context(), 0, "", false))
	payload := []byte(strings.Repeat("x", 200))
	for _, n := range []int{1, 16, 128} {
		e := tier.Enqueue{Queue: "q", Limit: 1 << 20, Within: time.Second}
		c := tier.Change{}
		var fields []any
		for i := range n {
			key := fmt.Sprint("user:", i)
			e.Changes = append(e.Changes, tier.QueueChange{Key: key, Payload: payload})
			c.Items = append(c.Items, tier.Item{Kind: tier.Key, Value: key})
			fields = append(fields, key, payload)
		}
		for _, way := range []struct {
			name string
			do   func() error
		}{
			{"enqueue", func() error { _, err := s.Enqueue(b.Context(), e); return err }},
			{"change", func() error { _, err := s.Change(b.Context(), c); return err }},
			{"hset", func() error { return client.HSet(b.Context(), "hash", fields...).Err() }},
		} {
			b.Run(fmt.Sprint(way.name, "/", n), func(b *testing.B) {
				spent := func() (seconds float64) {
					for _, field := range []string{"used_cpu_sys_main_thread", "used_cpu_user_main_thread"} {
						v, err := strconv.ParseFloat(infoField(client.Info(b.Context(), "cpu").Val(), field), 64)
						require.NoError(b, err)
						seconds += v
					}
					return seconds
				}
				before := spent()
				for range b.N {
					require.NoError(b, way.do())
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/change")
				b.ReportMetric(1e9*(spent()-before)/float64(b.N*n), "server-cpu-ns/change")
			})
		}
	}
}

// A worker has to read them within its time.
func TestAClaimOfLargeValuesIsBoundedInBytes(t *testing.T) {
	t.Parallel()
	_, client := single(t)
	s := open(t, client, inOne())
	payload := []byte(strings.Repeat("x", 1<<20))
	for i := range 200 {
		e := tier.Enqueue{Queue: "q", Limit: 1000, Changes: []tier.QueueChange{{Key: strconv.Itoa(i), Payload: payload}}}
		_, err := s.Enqueue(t.Context(), e)
		require.NoError(t, err)
	}
	left := 200
	for left > 0 {
		c := claim(t, s)
		require.NotEmpty(t, c.Records)
		require.LessOrEqual(t, len(c.Records), 8, "8 MiB")
		left -= len(c.Records)
		require.Equal(t, left > 0, c.More)
		done := make([]tier.Settled, len(c.Records))
		for i, r := range c.Records {
			done[i] = tier.Settled{Key: r.Key, Version: r.Version}
		}
		require.True(t, settle(t, s, done...).Held)
	}
}

func TestAClaimOfLargeValuesAfterSmallOnesIsBoundedInBytes(t *testing.T) {
	_, client := single(t)
	s := open(t, client, inOne())
	add := func(key string, size int) {
		e := tier.Enqueue{Queue: "q", Limit: 1000, Changes: []tier.QueueChange{{Key: key, Payload: []byte(strings.Repeat("x", size))}}}
		_, err := s.Enqueue(t.Context(), e)
		require.NoError(t, err)
	}
	for i := range 20 {
		add("small"+strconv.Itoa(i), 100)
	}
	for i := range 40 {
		add("large"+strconv.Itoa(i), 1<<20)
	}

	c := claim(t, s)

	require.Len(t, c.Records, 28, "20 small values and 8 MiB")
	require.True(t, c.More)
}

func TestTheStateOfAQueueCountsRetriedRecordsThatItHasNotRead(t *testing.T) {
	_, client := single(t)
	s := open(t, client, inOne())
	var all []int64
	for i := range retriesRead + 1 {
		e := changes(strconv.Itoa(i))
		e.Limit = 2 * retriesRead
		done, err := s.Enqueue(t.Context(), e)
		require.NoError(t, err)
		all = append(all, done[0].Version)
	}
	for from := 0; from < len(all); from += tier.MaxClaim { // the oldest is due last
		var failed []tier.Settled
		for i := from; i < min(from+tier.MaxClaim, len(all)); i++ {
			wait := time.Minute
			if i == 0 {
				wait = time.Hour
			}
			failed = append(failed, tier.Settled{Key: strconv.Itoa(i), Version: all[i], Retry: wait})
		}
		claim(t, s)
		require.True(t, settle(t, s, failed...).Held)
	}

	st := state(t, s)

	require.Equal(t, []int{retriesRead + 1, retriesRead + 1, 1}, []int{st.Depth, st.Retrying, st.Unseen})
	require.Equal(t, all[1], st.First)
}
