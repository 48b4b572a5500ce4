package tiertest

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/internal/tier"
)

func queueCases() []testCase {
	cases := []testCase{
		{name: "a tier of the suite is durable", run: func(s *store) {
			require.NoError(s, s.open().Durable(s.ctx()))
		}},
	}
	cases = append(cases, enqueueCases()...)
	cases = append(cases, claimCases()...)
	cases = append(cases, settleCases()...)
	return append(cases, letterCases()...)
}

func enqueueCases() []testCase {
	return []testCase{
		{name: "a lease reports the queued change until it is settled", run: func(s *store) {
			a, b := s.open(), s.openVersion("v2")
			require.Nil(s, a.queued("key"))
			v := a.enqueue("key", "one")
			require.Equal(s, tier.Queued{Key: "key", Version: v, First: v, Payload: []byte("one")}, *b.queued("key"))
			require.Nil(s, b.queued("other"))
			require.Nil(s, b.queued("key"+string(tier.NameEnd)+"gzip"), "it is of one key, not of a name")
			w := b.worker("w", home("key"))
			require.Equal(s, []tier.Queued{*b.queued("key")}, w.claim(10).Records)
			require.NotNil(s, a.queued("key"), "it stays")
			w.settle(tier.Settled{Key: "key", Version: v})
			require.Nil(s, a.queued("key"))
			require.Empty(s, w.claim(10).Records)
		}},

		{name: "a refused lease reports the queued change as well", run: func(s *store) {
			c := s.open()
			v := c.enqueue("key", "one")
			c.acquire("key")
			refused := c.ask("key", "", minute)
			require.Positive(s, refused.Busy)
			require.NotNil(s, refused.Queued)
			require.Equal(s, v, refused.Queued.Version)
		}},

		{name: "enqueue invalidates its keys as a change does", run: func(s *store) {
			a, b := s.open(), s.openVersion("v2")
			first, second := in(1, "key "), in(1, "another ")
			a.put(first, "payload", "t1")
			b.put(first, "payload")
			l := b.acquire(second)
			at := a.heads()[1]
			done := a.enqueueAll(tier.Enqueue{Limit: 10, Lag: minute}, first, "x", second, "y")
			require.False(s, a.has(first))
			require.False(s, b.has(first))
			require.NotEmpty(s, a.generations("t1")[0])
			require.False(s, b.fill(l, value(l, "late")), "its lease has ended")
			require.True(s, a.lagsKey(first))
			got := b.log(1, at.Position)
			require.True(s, got.Joined)
			require.Equal(s, []tier.Logged{done[0].Logged, done[1].Logged}, got.Items)
			require.Equal(s, []tier.Item{key(first), key(second)}, []tier.Item{got.Items[0].Item, got.Items[1].Item})
			s.follows(at.Position.Token, got.Items)
			require.Equal(s, got.Items[1].Position, a.heads()[1].Position)
			require.Equal(s, at.Era, a.heads()[1].Era)
		}},

		{name: "enqueue invalidates tags with their keys, in one step", run: func(s *store) {
			a, b := s.open(), s.open()
			names := []string{in(1, "one "), in(1, "two ")}
			a.put(names[0], "payload", "t:"+names[0])
			a.put(names[1], "payload", "t:"+names[1])
			before := a.generations("t:"+names[0], "t:"+names[1])
			at := a.heads()[1]
			r := b.listen()
			e := tier.Enqueue{Partition: 1, Queue: "q", Limit: 1, Changes: []tier.QueueChange{
				{Key: names[0], Payload: []byte("x"), Tag: "t:" + names[0]},
				{Key: names[1], Payload: []byte("y"), Tag: "t:" + names[1]},
			}}
			done, err := a.Enqueue(a.ctx(), e)
			require.NoError(s, err)
			require.Positive(s, done[0].Version)
			require.Zero(s, done[1], "there was room for one")
			got := b.log(1, at.Position)
			require.Equal(s, []tier.Logged{done[0].Logged, done[0].Tagged}, got.Items)
			require.Equal(s, []tier.Item{key(names[0]), tag("t:" + names[0])}, []tier.Item{got.Items[0].Item, got.Items[1].Item})
			s.follows(at.Position.Token, got.Items)
			s.eventually(func() bool { return slices.Equal(got.Items, r.items(1)) }, "the items")
			after := a.generations("t:"+names[0], "t:"+names[1])
			require.NotEqual(s, before[0], after[0])
			require.Equal(s, before[1], after[1])

			e.Changes = []tier.QueueChange{{Key: names[0], Payload: []byte("x"), Tag: "t:" + in(2, "three ")}}
			_, err = a.Enqueue(a.ctx(), e)
			require.ErrorContains(s, err, "not of partition 1")
		}},

		{name: "enqueue is published, and wakes who waits for a lease", run: func(s *store) {
			c := s.open()
			r := c.listen()
			c.acquire("key")
			require.Positive(s, c.ask("key", "", minute).Busy)
			done := c.enqueueAll(tier.Enqueue{Limit: 1}, "key", "x")
			want := []tier.Logged{done[0].Logged}
			s.eventually(func() bool { return slices.Equal(want, r.items(home("key"))) }, "the item")
			s.eventually(func() bool { return len(r.woken()) > 0 }, "the hint that wakes")
			require.Equal(s, "key", r.woken()[0].Wake)
		}},

		{name: "an intent stays open when its key is queued", run: func(s *store) {
			c := s.open()
			c.begin("intent", minute, key("key"))
			c.enqueue("key", "x")
			require.Positive(s, c.openKey("key"))
			c.end("intent", key("key"))
			require.NotNil(s, c.queued("key"))
		}},

		{name: "a later change takes the place of an earlier one", run: func(s *store) {
			c := s.open()
			one := c.enqueue("key", "one")
			two := c.enqueue("key", "two")
			require.Greater(s, two, one)
			want := tier.Queued{Key: "key", Version: two, First: one, Payload: []byte("two")}
			require.Equal(s, want, *c.queued("key"))
			claimed := c.worker("w", home("key")).claim(10)
			require.Equal(s, []tier.Queued{want}, claimed.Records)
			require.False(s, claimed.More)
		}},

		{name: "versions grow and are of the server's clock", run: func(s *store) {
			c := s.open()
			names := make([]string, 0, 2*tier.MaxChanges)
			for i := range tier.MaxChanges {
				names = append(names, in(2, fmt.Sprint("key ", i, "/")), "x")
			}
			before := c.states()[2].Now
			var last int64
			for range 3 {
				for _, d := range c.enqueueAll(tier.Enqueue{Limit: 1000}, names...) {
					require.Greater(s, d.Version, last)
					last = d.Version
				}
			}
			st := c.states()[2]
			require.Equal(s, last, st.Last)
			require.GreaterOrEqual(s, last, before)
			require.Less(s, last, st.Now+second.Microseconds())
			require.Equal(s, tier.MaxChanges, st.Depth)
		}},

		{name: "versions grow over the loss of what is queued", needs: needsEvict, run: func(s *store) {
			c := s.open()
			v := c.enqueue("key", "lost")
			c.evictIn(Queue, home("key"), "")
			require.Nil(s, c.queued("key"))
			s.wait(2 * time.Millisecond)
			w := c.worker("w", home("key"))
			require.Empty(s, w.claim(10).Records)
			require.Greater(s, c.enqueue("key", "next"), v)
			require.Len(s, w.claim(10).Records, 1)
		}},

		{name: "beyond the limit new keys are refused, and queued keys are accepted", run: func(s *store) {
			c := s.open()
			a, b, x := in(0, "a"), in(0, "b"), in(0, "x")
			entry := c.put(x, "payload")
			first := c.enqueueAll(tier.Enqueue{Limit: 2}, a, "1", b, "2")
			done := c.enqueueAll(tier.Enqueue{Limit: 2}, x, "3", a, "4")
			require.Zero(s, done[0])
			require.Greater(s, done[1].Version, first[1].Version)
			require.Equal(s, entry.ID, c.entry(x).ID, "nothing happened to it")
			require.Len(s, c.log(0, first[1].Logged.Position).Items, 1)
			require.Zero(s, c.enqueueAll(tier.Enqueue{Limit: 1}, x, "5")[0])
			require.NotZero(s, c.enqueueAll(tier.Enqueue{Limit: 1, Queue: "other"}, x, "6")[0], "each queue has its own")
			require.NotZero(s, c.enqueueAll(tier.Enqueue{Limit: 1}, b, "7")[0])
			w := c.worker("w", 0)
			w.claim(1)
			w.settle(tier.Settled{Key: a, Version: done[1].Version, Retry: minute})
			require.Zero(s, c.enqueueAll(tier.Enqueue{Limit: 2}, in(0, "y"), "8")[0], "what waits for a retry counts")
		}},

		{name: "a change under a lease is taken while the lease is there", run: func(s *store) {
			c := s.open()
			with := func(l tier.Lease, payload string) tier.Enqueued {
				done, err := c.Enqueue(c.ctx(), tier.Enqueue{Partition: home(l.Key), Queue: "q", Limit: 10, Changes: []tier.QueueChange{
					{Key: l.Key, Payload: []byte(payload), Lease: l.Token},
				}})
				require.NoError(s, err)
				require.Len(s, done, 1)
				return done[0]
			}
			l := c.acquire("key")
			c.ask("key", "", minute) // another instance waits for it
			require.NotZero(s, with(l, "one").Version)
			require.Equal(s, tier.Enqueued{Version: -1}, with(l, "two"), "the change has ended the lease")
			require.Equal(s, "one", string(c.queued("key").Payload))
			l = c.acquire("key")
			c.enqueue("key", "three")
			require.Equal(s, tier.Enqueued{Version: -1}, with(l, "four"))
			l = c.acquire("key")
			c.invalidate(key("key"))
			require.Equal(s, tier.Enqueued{Version: -1}, with(l, "five"))
			l = c.acquire("key")
			e := c.put("other", "payload")
			of := l
			of.Key = "other"
			require.Equal(s, tier.Enqueued{Version: -1}, with(of, "six"), "it is the lease of another key")
			require.NoError(s, c.Release(c.ctx(), l))
			require.Equal(s, e.ID, c.entry("other").ID)
			require.Equal(s, "three", string(c.queued("key").Payload))
			expired := c.ask("third", "", short)
			s.wait(beyond)
			require.Equal(s, tier.Enqueued{Version: -1}, with(expired, "seven"))
		}},

		{name: "what is queued may hold any bytes", run: func(s *store) {
			c := s.open()
			for _, name := range []string{"a:b", "1:2:3:4:5:", "\xff\x00\r\n", "{07}", "k" + string(tier.NameEnd) + "variant"} {
				for _, payload := range []string{":", "\x00", "\xff\r\n:1:2", string(bytes.Repeat([]byte("payload"), 100_000))} {
					v := c.enqueue(name, payload)
					require.Equal(s, payload, string(c.queued(name).Payload))
					w := c.worker("w", home(name))
					got := w.claim(10).Records
					require.Len(s, got, 1)
					require.Equal(s, name, got[0].Key)
					require.Equal(s, payload, string(got[0].Payload))
					w.settle(tier.Settled{Key: name, Version: v})
					require.Nil(s, c.queued(name))
				}
			}
		}},

		{name: "what cannot be is refused", run: func(s *store) {
			c := s.open()
			k := in(0, "key")
			x := []byte("x")
			many := make([]tier.QueueChange, tier.MaxChanges+1)
			for i := range many {
				many[i] = tier.QueueChange{Key: in(0, fmt.Sprint(i, "/")), Payload: x}
			}
			for _, e := range []tier.Enqueue{
				{Partition: -1, Queue: "q", Changes: many[:1]},
				{Partition: partitions, Queue: "q", Changes: many[:1]},
				{Queue: "q", Changes: many},
				{Changes: many[:1]},
				{Queue: "q", Changes: []tier.QueueChange{{Key: k}}},
				{Queue: "q", Changes: []tier.QueueChange{{Payload: x}}},
				{Queue: "q", Changes: []tier.QueueChange{{Key: k, Payload: x}, {Key: k, Payload: x}}},
				{Queue: "q", Changes: []tier.QueueChange{{Key: in(1, "key"), Payload: x}}},
			} {
				e.Limit = 1000
				_, err := c.Enqueue(c.ctx(), e)
				require.Error(s, err)
			}
			_, err := c.Claim(c.ctx(), tier.Claim{Queue: "q", Max: 1, Lease: minute})
			require.Error(s, err)
			_, err = c.Settle(c.ctx(), tier.Settle{Queue: "q", Worker: "w", Partition: partitions})
			require.Error(s, err)
			_, err = c.DeadLetters(c.ctx(), partitions, "q", "", 1)
			require.Error(s, err)
			_, err = c.Replay(c.ctx(), -1, "q", "1")
			require.Error(s, err)
			_, err = c.Discard(c.ctx(), partitions, "q", "1")
			require.Error(s, err)
			require.Empty(s, c.enqueueAll(tier.Enqueue{Limit: 1}))
			for _, st := range c.states() {
				require.Zero(s, st.Depth)
			}
		}},

		{name: "arguments are the caller's again, results too", run: func(s *store) {
			c := s.open()
			payload := []byte("payload")
			_, err := c.Enqueue(c.ctx(), tier.Enqueue{
				Partition: home("key"), Queue: "q", Limit: 1, Changes: []tier.QueueChange{{Key: "key", Payload: payload}},
			})
			require.NoError(s, err)
			payload[0] = '!'
			c.queued("key").Payload[0] = '!'
			w := c.worker("w", home("key"))
			w.claim(1).Records[0].Payload[0] = '!'
			require.Equal(s, "payload", string(c.queued("key").Payload))
		}},

		{name: "no invalidation concerns what is queued", run: func(s *store) {
			c := s.open()
			c.enqueue("key", "x")
			c.invalidate(key("key"), pattern("*"), all())
			did, err := c.Scan(c.ctx(), tier.Scan{Globs: []string{"*"}})
			require.NoError(s, err)
			require.True(s, did.Sure)
			require.NotNil(s, c.queued("key"))
			require.Len(s, c.worker("w", home("key")).claim(1).Records, 1)
		}},

		{name: "given a restart, what is queued is there", needs: needsRestart, alone: true, run: func(s *store) {
			c := s.open()
			v := c.enqueue("key", "x")
			w := c.worker("w", home("key"))
			w.claim(1)
			c.h.Restart(c.TB)
			s.eventually(func() bool {
				l, err := c.Acquire(c.ctx(), "key", "", nil, minute)
				return err == nil && l.Queued != nil && l.Queued.Version == v
			}, "the record")
			w.settle(tier.Settled{Key: "key", Version: v})
			require.Zero(s, c.states()[home("key")].Depth)
		}},

		{name: "while a slot is on its way nothing of a queue is done", needs: needsMigrate, alone: true, run: func(s *store) {
			c := s.open()
			name := in(1, "key")
			v := c.enqueue(name, "one")
			w := c.worker("w", 1)
			w.claim(1)
			before := c.heads()[1].Position
			c.h.Migrate(c.TB, c.layout, 1, true)
			_, err := c.Enqueue(c.ctx(), tier.Enqueue{
				Partition: 1, Queue: "q", Limit: 10, Changes: []tier.QueueChange{{Key: name, Payload: []byte("two")}},
			})
			require.ErrorIs(s, err, tier.ErrMigrating)
			_, err = c.Claim(c.ctx(), tier.Claim{Partition: 1, Queue: "q", Worker: "w", Max: 1, Lease: minute})
			require.ErrorIs(s, err, tier.ErrMigrating)
			_, err = c.Settle(c.ctx(), tier.Settle{Partition: 1, Queue: "q", Worker: "w", Records: []tier.Settled{{Key: name, Version: v}}})
			require.ErrorIs(s, err, tier.ErrMigrating)
			states, err := c.States(c.ctx(), "q")
			require.NoError(s, err)
			require.ErrorIs(s, states[1].Err, tier.ErrMigrating)
			require.NoError(s, states[0].Err)
			c.h.Migrate(c.TB, c.layout, 1, false)
			require.Equal(s, before, c.heads()[1].Position)
			require.Equal(s, v, c.queued(name).Version)
			require.True(s, w.settle(tier.Settled{Key: name, Version: v}).Held)
		}},
	}
}

func claimCases() []testCase {
	return []testCase{
		{name: "the longest queued is claimed first, as many as are asked for", run: func(s *store) {
			c := s.open()
			var names []string
			for i := range 5 {
				names = append(names, in(0, fmt.Sprint(9-i, "/")))
				c.enqueue(names[i], "x")
			}
			c.enqueue(names[0], "changed again")
			w := c.worker("w", 0)
			for range 2 {
				got := w.claim(3)
				require.Equal(s, names[:3], keysOf(got.Records))
				require.True(s, got.More)
			}
			got := w.claim(5)
			require.Equal(s, names, keysOf(got.Records))
			require.False(s, got.More)
			require.Zero(s, got.Next)
			require.True(s, w.claim(0).More)
			other := c.worker("w", 1).claim(10)
			require.Empty(s, other.Records, "each partition is its own")
			require.False(s, other.More)
		}},

		{name: "a queue has one worker, until its lease has ended", run: func(s *store) {
			c := s.open()
			c.enqueue("key", "x")
			a, b := c.worker("a", home("key")), s.open().worker("b", home("key"))
			require.Len(s, a.claimFor(1, 4*short).Records, 1)
			busy := b.claim(1)
			require.Empty(s, busy.Records)
			require.Positive(s, busy.Busy)
			require.LessOrEqual(s, busy.Busy, 4*short)
			require.NotZero(s, busy.Now)
			require.Zero(s, a.claimFor(1, short).Busy, "it keeps it for as long as it says")
			s.wait(beyond)
			require.Len(s, b.claim(1).Records, 1)
			require.Positive(s, a.claim(1).Busy)
		}},

		{name: "a worker keeps its queue without claiming", run: func(s *store) {
			c := s.open()
			c.enqueue("key", "x")
			a, b := c.worker("a", home("key")), c.worker("b", home("key"))
			a.claimFor(1, short)
			kept, err := c.Claim(c.ctx(), tier.Claim{
				Partition: a.partition, Queue: "q", Worker: "a", Max: 1, Lease: minute, Keep: true,
			})
			require.NoError(s, err)
			require.Zero(s, kept.Busy)
			require.Empty(s, kept.Records)
			require.NotZero(s, kept.Now)
			s.wait(beyond)
			require.Positive(s, b.claim(1).Busy)
		}},

		{name: "queues of two names do not know each other", run: func(s *store) {
			c := s.open()
			c.enqueue("key", "x")
			w := c.worker("w", home("key"))
			w.queue = "other"
			require.Empty(s, w.claim(10).Records)
			require.Zero(s, c.worker("another", home("key")).claim(10).Busy)
			states, err := c.States(c.ctx(), "other")
			require.NoError(s, err)
			require.Zero(s, states[home("key")].Depth)
			require.Zero(s, states[home("key")].First)
			require.NotZero(s, states[home("key")].Last, "versions are of the partition")
		}},

		{name: "a key is in the queue that it was put in last", run: func(s *store) {
			c := s.open()
			one := c.enqueue("key", "one")
			two := c.enqueueAll(tier.Enqueue{Queue: "other", Limit: 1}, "key", "two")[0].Version
			require.Equal(s, two, c.queued("key").Version)
			w := c.worker("w", home("key"))
			require.Empty(s, w.claim(10).Records)
			w.settle(tier.Settled{Key: "key", Version: one}, tier.Settled{Key: "key", Version: two})
			w.queue = "other"
			require.Len(s, w.claim(10).Records, 1)
			w.settle(tier.Settled{Key: "key", Version: two})
			require.Nil(s, c.queued("key"))
			for _, st := range c.states() {
				require.Zero(s, st.Depth)
			}
		}},

		{name: "the state says what is there", run: func(s *store) {
			c := s.open()
			for _, st := range c.states() {
				require.Equal(s, tier.QueueState{Now: st.Now}, st)
				require.NotZero(s, st.Now)
			}
			var names []string
			var versions []int64
			for i := range 4 {
				names = append(names, in(3, fmt.Sprint(i, "/")))
				versions = append(versions, c.enqueue(names[i], "x"))
			}
			st := c.states()[3]
			require.Equal(s, tier.QueueState{Depth: 4, First: versions[0], Last: versions[3], Now: st.Now}, st)
			w := c.worker("w", 3)
			w.claim(10)
			w.settle(
				tier.Settled{Key: names[0], Version: versions[0], Retry: minute},
				tier.Settled{Key: names[1], Version: versions[1], Dead: "it is poison"},
				tier.Settled{Key: names[2], Version: versions[2]},
			)
			st = c.states()[3]
			require.Equal(s, tier.QueueState{Depth: 2, Retrying: 1, Dead: 1, First: versions[0], Last: versions[3], Now: st.Now}, st)
		}},

		{name: "while clients change and workers fight, every last change is applied", run: func(s *store) {
			const writers, changes, names = 3, 40, 5
			var mu sync.Mutex
			last, applied := map[string]int64{}, map[string]int64{}
			failed := make(chan error, writers+2)
			var wg, writing sync.WaitGroup
			for i := range writers {
				c := s.open()
				writing.Add(1)
				wg.Go(func() {
					defer writing.Done()
					for j := range changes {
						name := in(0, fmt.Sprint("key ", (i+j)%names, "/"))
						done, err := c.Enqueue(c.ctx(), tier.Enqueue{Queue: "q", Limit: 100, Changes: []tier.QueueChange{
							{Key: name, Payload: []byte(strconv.Itoa(j))},
						}})
						if err != nil {
							failed <- err
							return
						}
						mu.Lock()
						last[name] = max(last[name], done[0].Version)
						mu.Unlock()
					}
				})
			}
			ended := make(chan struct{})
			go func() { writing.Wait(); close(ended) }()
			for _, name := range []string{"a", "b"} {
				w := s.open().worker(name, 0)
				wg.Go(func() {
					if err := w.drain(ended, func(r tier.Queued) error {
						mu.Lock()
						defer mu.Unlock()
						if r.Version < applied[r.Key] {
							return fmt.Errorf("%d of %q after %d", r.Version, r.Key, applied[r.Key])
						}
						applied[r.Key] = r.Version
						return nil
					}); err != nil {
						failed <- err
					}
				})
			}
			wg.Wait()
			close(failed)
			for err := range failed {
				require.NoError(s, err)
			}
			require.Equal(s, last, applied)
			require.Zero(s, s.open().states()[0].Depth)
		}},
	}
}

func settleCases() []testCase {
	return []testCase{
		{name: "a change that was replaced while it was applied stays queued", run: func(s *store) {
			c := s.open()
			w := c.worker("w", 0)
			name, later := in(0, "key"), in(0, "later")
			one := c.enqueue(name, "one")
			w.claim(1)
			c.enqueue(later, "x")
			two := c.enqueue(name, "two")
			done := w.settle(tier.Settled{Key: name, Version: one})
			require.Equal(s, tier.Settlement{Held: true, Newer: []bool{true}}, done)
			// A change between the two may have been replaced: a Flush that began after it waits.
			require.Equal(s, tier.Queued{Key: name, Version: two, First: one + 1, Payload: []byte("two")}, *c.queued(name))
			require.ElementsMatch(s, []string{name, later}, keysOf(w.claim(10).Records))
			done = w.settle(tier.Settled{Key: name, Version: two})
			require.Equal(s, tier.Settlement{Held: true, Newer: []bool{false}}, done)
			require.Equal(s, tier.Settlement{Held: true, Newer: []bool{false}},
				w.settle(tier.Settled{Key: name, Version: two}), "once more does no harm")
			require.Equal(s, []string{later}, keysOf(w.claim(10).Records))
		}},

		{name: "what failed is claimed again when it is due, and first", run: func(s *store) {
			c := s.open()
			w := c.worker("w", 0)
			name, other := in(0, "key"), in(0, "other")
			v := c.enqueue(name, "x")
			c.enqueue(other, "x")
			w.claim(1)
			require.Equal(s, tier.Settlement{Held: true, Newer: []bool{false}},
				w.settle(tier.Settled{Key: name, Version: v, Retry: short}))
			got := w.claim(10)
			if len(got.Records) == 1 { // nothing held us up
				require.Equal(s, other, got.Records[0].Key)
				require.Positive(s, got.Next)
				require.LessOrEqual(s, got.Next, short)
			}
			require.Equal(s, 1, c.queued(name).Attempts)
			s.wait(beyond)
			for range 2 {
				got = w.claim(10)
				require.Equal(s, []string{name, other}, keysOf(got.Records))
				require.Equal(s, tier.Queued{Key: name, Version: v, First: v, Attempts: 1, Payload: []byte("x")}, got.Records[0])
				require.Zero(s, got.Next)
			}
			require.True(s, w.claim(1).More)
			w.settle(tier.Settled{Key: name, Version: v, Retry: minute})
			require.Equal(s, 2, c.queued(name).Attempts)
			require.Greater(s, w.claim(10).Next, short)
			w.settle(tier.Settled{Key: name, Version: v})
			require.Zero(s, c.states()[0].Retrying)
			require.Nil(s, c.queued(name))
		}},

		{name: "a change of what waits for its next attempt is tried at once", run: func(s *store) {
			c := s.open()
			w := c.worker("w", home("key"))
			one := c.enqueue("key", "one")
			w.claim(1)
			w.settle(tier.Settled{Key: "key", Version: one, Retry: minute})
			two := c.enqueue("key", "two")
			want := tier.Queued{Key: "key", Version: two, First: one, Payload: []byte("two")}
			got := w.claim(1)
			require.Equal(s, []tier.Queued{want}, got.Records)
			require.Zero(s, got.Next)
			require.Zero(s, c.states()[home("key")].Retrying)
			// It was not applied: it is queued since the first, and no letter takes it along.
			w.settle(tier.Settled{Key: "key", Version: one, Retry: minute})
			require.Equal(s, want, *c.queued("key"))
			w.settle(tier.Settled{Key: "key", Version: one, Dead: "poison"})
			require.Equal(s, want, *c.queued("key"))
			require.Empty(s, c.letters(home("key")))
		}},

		{name: "a settlement without the queue changes nothing", run: func(s *store) {
			c := s.open()
			a, b := c.worker("a", home("key")), c.worker("b", home("key"))
			v := c.enqueue("key", "x")
			for _, of := range []tier.Settled{
				{Key: "key", Version: v},
				{Key: "key", Version: v, Retry: minute},
				{Key: "key", Version: v, Dead: "poison"},
				{Key: "key", Version: v - 1},
			} {
				a.release()
				b.release()
				for range 2 {
					done := a.settle(of)
					require.False(s, done.Held)
					require.Equal(s, []bool{of.Version != v}, done.Newer)
					require.Equal(s, tier.Queued{Key: "key", Version: v, First: v, Payload: []byte("x")}, *c.queued("key"))
					st := c.states()[home("key")]
					require.Equal(s, []int{1, 0, 0}, []int{st.Depth, st.Retrying, st.Dead})
					b.claim(1) // no worker has it, then another one
				}
			}
			a.release()
			require.True(s, b.settle(tier.Settled{Key: "key", Version: v}).Held, "nobody gives up what is another's")
		}},

		{name: "a worker whose lease has ended does not have the queue", run: func(s *store) {
			c := s.open()
			w := c.worker("w", home("key"))
			v := c.enqueue("key", "x")
			w.claimFor(1, short)
			s.wait(beyond)
			require.False(s, w.settle(tier.Settled{Key: "key", Version: v}).Held)
			require.NotNil(s, c.queued("key"))
		}},

		{name: "a queue that is given up is anybody's, after what was settled", run: func(s *store) {
			c := s.open()
			a, b := c.worker("a", home("key")), c.worker("b", home("key"))
			v := c.enqueue("key", "x")
			a.claim(1)
			done, err := c.Settle(c.ctx(), tier.Settle{
				Partition: a.partition, Queue: "q", Worker: "a", Release: true,
				Records: []tier.Settled{{Key: "key", Version: v}},
			})
			require.NoError(s, err)
			require.True(s, done.Held)
			require.Nil(s, c.queued("key"))
			require.Zero(s, b.claim(1).Busy)
		}},

		{name: "what is settled invalidates nothing", run: func(s *store) {
			c := s.open()
			w := c.worker("w", 0)
			var of []tier.Settled
			var ids []string
			for i, how := range []tier.Settled{{}, {Retry: minute}, {Dead: "poison"}} {
				how.Key = in(0, fmt.Sprint(i, "/"))
				how.Version = c.enqueue(how.Key, "x")
				of = append(of, how)
				ids = append(ids, c.put(how.Key, "payload").ID)
			}
			at := c.heads()[0].Position
			w.claim(10)
			w.settle(of...)
			for i, how := range of {
				require.Equal(s, ids[i], c.entry(how.Key).ID)
			}
			require.Equal(s, at, c.heads()[0].Position)
		}},
	}
}

func letterCases() []testCase {
	return []testCase{
		{name: "what failed for good becomes a dead letter", run: func(s *store) {
			c := s.open()
			w := c.worker("w", 0)
			require.Empty(s, c.letters(0))
			var names []string
			for i := range 5 {
				names = append(names, in(0, fmt.Sprint(i, "/")))
				w.bury(names[i], "payload "+strconv.Itoa(i), "reason "+strconv.Itoa(i))
			}
			letters := c.letters(0)
			require.Len(s, letters, 5)
			for i, l := range letters {
				require.NotEmpty(s, l.ID)
				require.Equal(s, tier.DeadLetter{
					ID: l.ID, Reason: "reason " + strconv.Itoa(i),
					Queued: tier.Queued{Key: names[i], Version: l.Version, First: l.First, Attempts: 2, Payload: []byte("payload " + strconv.Itoa(i))},
				}, l)
				require.Nil(s, c.queued(names[i]))
			}
			require.Equal(s, 5, c.states()[0].Dead)
			require.Zero(s, c.states()[0].Depth)
			two, err := c.DeadLetters(c.ctx(), 0, "q", letters[1].ID, 2)
			require.NoError(s, err)
			require.Equal(s, letters[2:4], two)
			none, err := c.DeadLetters(c.ctx(), 0, "q", letters[4].ID, 2)
			require.NoError(s, err)
			require.Empty(s, none)
			other, err := c.DeadLetters(c.ctx(), 0, "other", "", 2)
			require.NoError(s, err)
			require.Empty(s, other)
			require.Empty(s, c.letters(1))
		}},

		{name: "a later change takes a dead letter out", run: func(s *store) {
			c := s.open()
			w := c.worker("w", 0)
			name, other := in(0, "key"), in(0, "other")
			w.bury(name, "dead", "why")
			w.bury(other, "dead", "why")
			letter := c.letters(0)[0]
			v := c.enqueue(name, "alive")
			left := c.letters(0)
			require.Len(s, left, 1)
			require.Equal(s, other, left[0].Key)
			require.Equal(s, 1, c.states()[0].Dead)
			require.False(s, c.replay(0, letter.ID))
			require.False(s, c.discard(0, letter.ID))
			require.Equal(s, v, c.queued(name).Version)
			w.bury(name, "dead again", "why")
			require.Equal(s, "dead again", string(c.letters(0)[1].Payload))
		}},

		{name: "a dead letter is queued again like a change", run: func(s *store) {
			c := s.open()
			w := c.worker("w", 0)
			name := in(0, "key")
			w.bury(name, "payload", "why")
			letter := c.letters(0)[0]
			c.put(name, "of the database")
			at := c.heads()[0].Position
			require.True(s, c.replay(0, letter.ID))
			q := c.queued(name)
			require.Greater(s, q.Version, letter.Version)
			require.Equal(s, tier.Queued{Key: name, Version: q.Version, First: q.Version, Payload: []byte("payload")}, *q)
			require.False(s, c.has(name), "it is invalidated")
			require.Equal(s, []string{name}, values(c.log(0, at).Items))
			require.Empty(s, c.letters(0))
			require.False(s, c.replay(0, letter.ID), "it is there once")
			require.Equal(s, []tier.Queued{*q}, w.claim(10).Records)
			w.settle(tier.Settled{Key: name, Version: q.Version, Dead: "again"})
			require.Equal(s, 1, c.letters(0)[0].Attempts)
		}},

		{name: "a dead letter is taken out", run: func(s *store) {
			c := s.open()
			w := c.worker("w", 0)
			name := in(0, "key")
			w.bury(name, "payload", "why")
			id := c.letters(0)[0].ID
			e := c.put(name, "payload")
			require.True(s, c.discard(0, id))
			require.False(s, c.discard(0, id))
			require.Empty(s, c.letters(0))
			require.Equal(s, e.ID, c.entry(name).ID)
			require.Nil(s, c.queued(name))
			require.Zero(s, c.states()[0].Dead)
		}},

		{name: "what is queued is newer than a dead letter", run: func(s *store) {
			c := s.open()
			name := in(0, "key")
			c.worker("w", 0).bury(name, "payload", "why")
			id := c.letters(0)[0].ID
			c.enqueueAll(tier.Enqueue{Queue: "other", Limit: 1}, name, "newer")
			require.False(s, c.replay(0, id))
			require.Equal(s, "newer", string(c.queued(name).Payload))
			require.Empty(s, c.letters(0))
		}},
	}
}

// queued returns the queued change that a lease of a key reports, and releases the lease.
func (c *client) queued(name string) *tier.Queued {
	c.Helper()
	l := c.ask(name, c.entry(name).ID, minute)
	require.NotEmpty(c, l.Token, "nobody fills it")
	require.NoError(c, c.Release(c.ctx(), l))
	return l.Queued
}

// enqueue queues one change, and returns its version.
func (c *client) enqueue(name, payload string) int64 {
	c.Helper()
	v := c.enqueueAll(tier.Enqueue{Limit: 1000}, name, payload)[0].Version
	require.Positive(c, v)
	return v
}

// enqueueAll queues changes, given as key, payload, key, payload, of one partition.
func (c *client) enqueueAll(e tier.Enqueue, changes ...string) []tier.Enqueued {
	c.Helper()
	if e.Queue == "" {
		e.Queue = "q"
	}
	for i := 0; i < len(changes); i += 2 {
		e.Partition = home(changes[i])
		e.Changes = append(e.Changes, tier.QueueChange{Key: changes[i], Payload: []byte(changes[i+1])})
	}
	done, err := c.Enqueue(c.ctx(), e)
	require.NoError(c, err)
	require.Len(c, done, len(e.Changes))
	return done
}

func (c *client) states() []tier.QueueState {
	c.Helper()
	states, err := c.States(c.ctx(), "q")
	require.NoError(c, err)
	require.Len(c, states, partitions)
	for _, st := range states {
		require.NoError(c, st.Err)
	}
	return states
}

func (c *client) letters(partition int) []tier.DeadLetter {
	c.Helper()
	letters, err := c.DeadLetters(c.ctx(), partition, "q", "", 100)
	require.NoError(c, err)
	return letters
}

func (c *client) replay(partition int, id string) bool {
	c.Helper()
	ok, err := c.Replay(c.ctx(), partition, "q", id)
	require.NoError(c, err)
	return ok
}

func (c *client) discard(partition int, id string) bool {
	c.Helper()
	ok, err := c.Discard(c.ctx(), partition, "q", id)
	require.NoError(c, err)
	return ok
}

// worker is one of a partition.
type worker struct {
	*client
	name, queue string
	partition   int
}

func (c *client) worker(name string, partition int) *worker {
	return &worker{c, name, "q", partition}
}

func (w *worker) claim(most int) tier.Claimed {
	w.Helper()
	return w.claimFor(most, minute)
}

func (w *worker) claimFor(most int, lease time.Duration) tier.Claimed {
	w.Helper()
	claimed, err := w.Claim(w.ctx(), tier.Claim{
		Partition: w.partition, Queue: w.queue, Worker: w.name, Max: most, Lease: lease,
	})
	require.NoError(w, err)
	return claimed
}

func (w *worker) settle(of ...tier.Settled) tier.Settlement {
	w.Helper()
	done, err := w.Settle(w.ctx(), tier.Settle{Partition: w.partition, Queue: w.queue, Worker: w.name, Records: of})
	require.NoError(w, err)
	require.Len(w, done.Newer, len(of))
	return done
}

func (w *worker) release() {
	w.Helper()
	_, err := w.Settle(w.ctx(), tier.Settle{Partition: w.partition, Queue: w.queue, Worker: w.name, Release: true})
	require.NoError(w, err)
}

// bury queues a change and makes it a dead letter at its second attempt.
func (w *worker) bury(name, payload, why string) {
	w.Helper()
	v := w.enqueue(name, payload)
	w.claim(1)
	w.settle(tier.Settled{Key: name, Version: v, Retry: time.Millisecond})
	require.True(w, w.settle(tier.Settled{Key: name, Version: v, Dead: why}).Held)
}

// drain applies queued changes until the queue is empty. No change may be queued meanwhile.
func (w *worker) drain(ended <-chan struct{}, apply func(tier.Queued) error) error {
	for {
		last := false
		select {
		case <-ended:
			last = true
		default:
		}
		claimed, err := w.Claim(w.ctx(), tier.Claim{Partition: w.partition, Queue: w.queue, Worker: w.name, Max: 3, Lease: minute})
		if err != nil {
			return err
		}
		var of []tier.Settled
		for _, r := range claimed.Records {
			if err := apply(r); err != nil {
				return err
			}
			of = append(of, tier.Settled{Key: r.Key, Version: r.Version})
		}
		_, err = w.Settle(w.ctx(), tier.Settle{
			Partition: w.partition, Queue: w.queue, Worker: w.name, Records: of, Release: true,
		})
		if err != nil || last && claimed.Busy == 0 && len(of) == 0 {
			return err
		}
		w.wait(time.Millisecond)
	}
}

func keysOf(records []tier.Queued) []string {
	var keys []string
	for _, r := range records {
		keys = append(keys, r.Key)
	}
	return keys
}
