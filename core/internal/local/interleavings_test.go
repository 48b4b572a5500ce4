package local

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/maypok86/otter/v2"
	"github.com/stretchr/testify/require"
)

// The tests in this file are the interleavings of doc.go, one by one and each way
// of naming an entry. Each fails in every run if the rule it is about is taken out.

// L.position < I.append < L.check.
func TestAnInvalidationFencesALoadUnderWay(t *testing.T) {
	for _, n := range namings() {
		t.Run(n.name, func(t *testing.T) {
			c := open(t)
			load := c.NewLoad(key, n.early)
			c.Fence(n.items)
			_, refusal := load.Fill(fillOf("old", n.late))
			mustBeGone(t, c, key)
			require.Equal(t, Fenced, refusal)
			require.EqualValues(t, 1, c.Count.Refused.Load())
		})
	}
}

// A generation is made by L after I killed the old one: the new generation is alive, but the
// check refuses.
func TestALateTagWithANewGenerationStillFencesALoad(t *testing.T) {
	c := open(t)
	load := c.NewLoad(key, nil)
	c.Fence([]Item{{Kind: Tag, Value: "t:late"}})
	store(t, c, "item:2", "new", []string{"t:late"}, nil) // the tag's generation is alive again
	load.Fill(fillOf("old", []string{"t:late"}))
	mustBeGone(t, c, key)
	mustBe(t, c, "item:2", "new")
}

// L.position < L.insert < I.append.
func TestAnInvalidationRemovesAStoredEntry(t *testing.T) {
	for _, n := range namings() {
		t.Run(n.name, func(t *testing.T) {
			c := open(t)
			store(t, c, key, "old", n.early, n.late)
			mustBe(t, c, key, "old")
			c.Fence(n.items)
			mustBeGone(t, c, key)
		})
	}
}

func TestAnInvalidationRemovesAStaleOrSpareEntry(t *testing.T) {
	for _, n := range namings() {
		t.Run(n.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := open(t)
				for _, window := range []Lifetime{{Fresh: 1, Stale: hour}, {Fresh: 1, Fallback: hour}} {
					f := fillOf("old", n.late)
					f.Lifetime = window
					c.NewLoad(key, n.early).Fill(f)
					c.Fence(n.items)
					mustBeGone(t, c, key)
				}
			})
		})
	}
}

// I.append < L.position.
func TestALoadAfterAnInvalidationIsStored(t *testing.T) {
	for _, n := range namings() {
		t.Run(n.name, func(t *testing.T) {
			c := open(t)
			c.Fence(n.items)
			store(t, c, key, "new", n.early, n.late)
			mustBe(t, c, key, "new")
		})
	}
}

func TestAnInvalidationOfAnotherTagDoesNotFenceALoad(t *testing.T) {
	c := open(t)
	load := c.NewLoad(key, []string{"t:a"})
	c.Fence([]Item{{Kind: Key, Value: "item:11"}, {Kind: Key, Value: "t:a"}, {Kind: Tag, Value: "t:z"}, {Kind: Tag, Value: key}, {Kind: Pattern, Value: "item:??"}})
	load.Fill(fillOf("new", []string{"t:b"}))
	mustBe(t, c, key, "new")
}

// R joins L, L.position < I.append: R starts a load of its own.
func TestAReaderAfterAnInvalidationDoesNotJoinAnOlderLoad(t *testing.T) {
	for _, n := range namings() {
		if n.late != nil {
			continue // what the load names late cannot be known on joining, see below
		}
		t.Run(n.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := open(t)
				gate := Gate{MaxLoadsAfterError: 4, Wait: minute}
				first, _, err := c.Enter(t.Context(), key, n.early, gate)
				require.NoError(t, err)
				c.Fence(n.items)

				later := enter(t, c, n.early, gate)
				synctest.Wait()
				if later.turn() == nil {
					t.Error("DOOMED: a reader that began after the invalidation waits for the load before it")
				}
				if turn, ok := c.TryLead(key, n.early, gate); ok {
					t.Error("a refresh began beside a load that nothing has fenced")
					turn.Finish(Outcome{Verdict: Failed})
				}
				first.Finish(Outcome{Verdict: Shared, Entry: Unstored("old")})
				later.finish(t, "new")
			})
		})
	}
}

func TestARefreshAfterAnInvalidationRunsBesideAnOlderLoad(t *testing.T) {
	for _, n := range namings() {
		if n.late != nil {
			continue
		}
		t.Run(n.name, func(t *testing.T) {
			c := open(t)
			first, ok := c.TryLead(key, n.early, Gate{MaxLoadsAfterError: 4, Wait: minute})
			require.True(t, ok)
			defer first.Finish(Outcome{Verdict: Failed})
			c.Fence(n.items)
			second, ok := c.TryLead(key, n.early, Gate{MaxLoadsAfterError: 4, Wait: minute})
			if !ok {
				t.Fatal("DOOMED: the refresh leaves it to the load before the invalidation")
			}
			second.Finish(Outcome{Verdict: Failed})
		})
	}
}

// R joins L, L names the tag late: the check at L's end finds the item between
// L.position and R's join.
func TestALateTagMakesAReaderThatJoinedAfterItsInvalidationReload(t *testing.T) {
	for name, late := range map[string][]string{
		"it is the only tag":  {"t:late"},
		"it is one of many":   {"t:x", "t:y", "t:late"},
		"nothing is storable": {"t:late"}, // the value is shared, but stored nowhere
		"it is an error":      {"t:late"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := open(t)
				gate := Gate{MaxLoadsAfterError: 4, Wait: minute}
				lead, _, err := c.Enter(t.Context(), key, []string{"t:early"}, gate)
				require.NoError(t, err)
				before := enter(t, c, []string{"t:early"}, gate)
				synctest.Wait()
				c.Fence([]Item{{Kind: Tag, Value: "t:late"}})
				after := enter(t, c, []string{"t:early"}, gate)
				synctest.Wait()
				require.Nil(t, before.turn())
				require.Nil(t, after.turn())

				out := Outcome{Verdict: Shared, Tags: late}
				switch name {
				case "nothing is storable":
					out.Entry = Unstored("old")
				case "it is an error":
					out.Err = errTested
				default:
					out.Entry, _ = lead.Load.Fill(fillOf("old", late))
				}
				lead.Finish(out)
				synctest.Wait()
				out.Oldest = lead.Began()
				require.Equal(t, out, before.get().out, "a reader that joined before the invalidation shares the load")
				mustBeGone(t, c, key)
				if after.turn() == nil {
					t.Error("STALE: who joined after the invalidation got what was loaded before it")
				} else {
					after.finish(t, "new")
				}
			})
		})
	}
}

func TestReadersThatMustReloadShareOneLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t)
		gate := Gate{MaxLoadsAfterError: 4, Wait: minute}
		lead, _, err := c.Enter(t.Context(), key, nil, gate)
		require.NoError(t, err)
		c.Fence([]Item{{Kind: Tag, Value: "t:late"}})
		var readers []*reader
		for range 10 {
			readers = append(readers, enter(t, c, nil, gate))
		}
		synctest.Wait()
		lead.Finish(Outcome{Verdict: Shared, Entry: Unstored("old"), Tags: []string{"t:late"}})
		synctest.Wait()

		turns := 0
		for _, r := range readers {
			if r.turn() != nil {
				turns++
				r.turn().Finish(Outcome{Verdict: Shared, Entry: Unstored("new")})
			}
		}
		synctest.Wait()
		require.Equal(t, 1, turns)
		for _, r := range readers {
			if r.turn() == nil {
				require.Equal(t, "new", r.value())
			}
		}
	})
}

// A value that is put is fenced by whatever follows its own invalidation, however
// closely: of two that are put at a time, the later one stays.
func TestAnInvalidationAfterThatOfAPutFencesItsValue(t *testing.T) {
	c := open(t)
	store(t, c, key, "old", []string{"t:a"}, nil)
	held, release := hold(c)
	<-held
	start := c.journal.position()
	load := make(chan *Load)
	go func() { load <- c.FenceAndLoad([]Item{{Kind: Key, Value: key}}, key, []string{"t:a"}) }()
	if appended(c, start) { // and now it waits to take out what is there
		c.Fence([]Item{{Kind: Tag, Value: "t:a"}})
	}
	close(release)
	l := <-load
	if c.journal.position() == start+1 { // all of it was one step
		c.Fence([]Item{{Kind: Tag, Value: "t:a"}})
	}
	l.Fill(fillOf("put", nil))
	mustBeGone(t, c, key)

	l = c.FenceAndLoad([]Item{{Kind: Key, Value: key}}, key, []string{"t:a"})
	l.Fill(fillOf("put", nil))
	mustBe(t, c, key, "put")
}

// hold keeps the entry's place in the tier, so that it cannot be taken out.
func hold(c *Cache) (held <-chan struct{}, release chan<- struct{}) {
	h, r := make(chan struct{}), make(chan struct{})
	go func() {
		c.tier.cache.ComputeIfPresent(key, func(old *Entry) (*Entry, otter.ComputeOp) {
			close(h)
			<-r
			return old, otter.CancelOp
		})
	}()
	return h, r
}

// A leader that looks again, now that it is its turn, may find an entry while an
// invalidation is between its item and the removal. The leader began before that
// invalidation returned and may be answered so; who joins it after the return may
// not.
func TestAReaderAfterAnInvalidationDoesNotShareWhatALeaderFound(t *testing.T) {
	for _, items := range [][]Item{{{Kind: Key, Value: key}}} { // the others are one step
		t.Run(fmt.Sprint(items[0].Kind), func(t *testing.T) {
			c := open(t)
			store(t, c, key, "old", nil, nil)
			gate := Gate{MaxLoadsAfterError: 4, Wait: minute}

			held, release := hold(c)
			done := make(chan struct{})
			<-held
			start := c.journal.position()
			go func() {
				c.Fence(items)
				close(done)
			}()
			if !appended(c, start) { // item and removal are one step
				close(release)
				<-done
				mustBeGone(t, c, key)
				return
			}
			leader, _, err := c.Enter(t.Context(), key, nil, gate)
			require.NoError(t, err)
			found, state := c.Lookup(key)
			close(release)
			<-done // the invalidation has returned

			require.Equal(t, Fresh, state, "the entry was there to be found")
			joined := enter(t, c, nil, gate)
			for !joined.done() && !leader.Waited() {
				runtime.Gosched()
			}
			leader.Finish(Outcome{Verdict: Shared, Entry: found})
			for !joined.done() {
				runtime.Gosched()
			}
			if joined.turn() == nil {
				t.Errorf("STALE: a reader that began after the invalidation shares %q", joined.value())
			} else {
				joined.finish(t, "new")
			}
		})
	}
}

// appended waits for the log to move. It returns false if the log's lock is held
// instead: the append then does more work under the lock.
func appended(c *Cache, start uint64) bool {
	for busy := 0; busy < 100_000; {
		if !c.journal.mu.TryRLock() {
			busy++
		} else {
			moved := c.journal.head != start
			c.journal.mu.RUnlock()
			if moved {
				return true
			}
			busy = 0
		}
		runtime.Gosched()
	}
	return false
}

// The log has a bound, and a load that is older than the log is not stored.
func TestALoadOlderThanTheLogIsNeitherStoredNorSharedWithLaterReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t)
		gate := Gate{MaxLoadsAfterError: 4, Wait: minute}
		lead, _, err := c.Enter(t.Context(), key, nil, gate)
		require.NoError(t, err)
		before := enter(t, c, nil, gate)
		synctest.Wait()
		c.Fence([]Item{{Kind: Tag, Value: "t:late"}})
		after := enter(t, c, nil, gate)
		synctest.Wait()
		c.journal.most = logBlock
		for i := range 3 * logBlock { // and the item about the tag is trimmed
			c.Fence([]Item{{Kind: Key, Value: fmt.Sprint("other:", i)}})
		}
		en, refusal := lead.Load.Fill(fillOf("old", []string{"t:late"}))
		lead.Finish(Outcome{Verdict: Shared, Entry: en, Tags: []string{"t:late"}})
		synctest.Wait()
		mustBeGone(t, c, key)
		require.Equal(t, Fenced, refusal)
		require.Equal(t, "old", before.value())
		if after.value() == "old" {
			t.Error("STALE: a reader shares a load although the log since then is not known")
		} else {
			after.finish(t, "new")
		}
	})
}

func TestALoadYoungerThanATrimmedLogIsStored(t *testing.T) {
	c := open(t)
	c.journal.most = 4 * logBlock
	for i := range 8 * logBlock {
		c.Fence([]Item{{Kind: Key, Value: fmt.Sprint("other:", i)}})
	}
	load := c.NewLoad(key, nil)
	for i := range c.journal.most { // as many as the log holds
		c.Fence([]Item{{Kind: Key, Value: fmt.Sprint("other:", i)}})
	}
	_, refusal := load.Fill(fillOf("new", nil))
	require.Equal(t, Stored, refusal)
	load = c.NewLoad(key, nil)
	for i := range c.journal.most + 2*logBlock {
		c.Fence([]Item{{Kind: Key, Value: fmt.Sprint("other:", i)}})
	}
	_, refusal = load.Fill(fillOf("old", nil))
	require.Equal(t, Fenced, refusal)
}

// A load of 30 s sees more items of other tags go by than the log keeps in any case.
func TestALongLoadIsStoredWhateverElseIsInvalidated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t)
		for _, test := range []struct {
			name    string
			concern []Item
			want    Refusal
		}{
			{"nothing that concerns it", nil, Stored},
			{"its tag", []Item{{Kind: Tag, Value: "t:own"}}, Fenced},
			{"its late tag", []Item{{Kind: Tag, Value: "t:late"}}, Fenced},
			{"its key", []Item{{Kind: Key, Value: Name(key)}}, Fenced},
			{"a pattern", []Item{{Kind: Pattern, Value: "*"}}, Fenced},
			{"another pattern", []Item{{Kind: Pattern, Value: "other*"}}, Stored},
			{"all", []Item{{Kind: All}}, Fenced},
		} {
			load := c.NewLoad(key, []string{"t:own"})
			time.Sleep(time.Millisecond)
			c.Fence(test.concern)
			for second := range 30 {
				time.Sleep(time.Second)
				items := make([]Item, 1000)
				for i := range items {
					items[i] = Item{Kind: Tag, Value: fmt.Sprint("t:other:", second, ":", i)}
				}
				c.Fence(items)
			}
			_, refusal := load.Fill(fillOf("v", []string{"t:late"}))
			require.Equal(t, test.want, refusal, test.name)
		}
		time.Sleep(logSpan + time.Second)
		for range 1000 * logBlock {
			c.Fence([]Item{{Kind: Tag, Value: "t:last"}})
			if int(c.journal.head-c.journal.first) < logCapacity+2*logBlock {
				break
			}
		}
		require.Less(t, int(c.journal.head-c.journal.first), logCapacity+2*logBlock, "what is old is forgotten")
		require.Less(t, len(c.journal.last), logCapacity+2*logBlock)
	})
}

func TestItemsAreFoundAfterTheLogWasTrimmed(t *testing.T) {
	c := &Cache{journal: newJournal()}
	c.parts.Store(1)
	j := c.journal
	j.most = logCapacity
	for i := range 3*logCapacity + 7 {
		j.append(int64(i), []Item{{Kind: Key, Value: fmt.Sprint(i)}})
		pos := uint64(i) + 1
		if i%1001 == 0 {
			require.Equal(t, pos, c.concern(max(j.tail(), pos-min(pos-1, 50)), fmt.Sprint(i), nil))
			require.Zero(t, c.concern(pos, "another", nil))
			require.Equal(t, pos, j.since(int64(i)))
			require.Equal(t, pos+1, j.since(int64(i)+1), "nothing is that young")
		}
	}
	require.LessOrEqual(t, int(j.head-j.first), logCapacity+logBlock)
	require.LessOrEqual(t, len(j.last), logCapacity+logBlock)
}

// reader is a call of Enter that runs in a goroutine of its own.
type reader struct{ result atomic.Pointer[result] }

type result struct {
	turn *Turn
	out  Outcome
	err  error
}

// enter calls Enter in a goroutine.
func enter(t *testing.T, c *Cache, tags []string, gate Gate) *reader {
	return enterAs(t.Context(), c, tags, gate)
}

func enterAs(ctx context.Context, c *Cache, tags []string, gate Gate) *reader {
	r := new(reader)
	go func() {
		turn, out, err := c.Enter(ctx, key, tags, gate)
		res := &result{out: out, err: err}
		if turn.Granted() {
			res.turn = &turn
		}
		r.result.Store(res)
	}()
	return r
}

// done reports whether Enter has returned; until then the rest is empty.
func (r *reader) done() bool { return r.result.Load() != nil }

func (r *reader) get() result {
	if res := r.result.Load(); res != nil {
		return *res
	}
	return result{}
}

// turn is the reader's right to load, or nil.
func (r *reader) turn() *Turn { return r.get().turn }

// value is the reader's value from another load, or nil.
func (r *reader) value() any {
	if en := r.get().out.Entry; en != nil {
		return en.Value
	}
	return nil
}

// finish loads value in the reader's turn.
func (r *reader) finish(t *testing.T, value string) {
	t.Helper()
	require.NoError(t, r.get().err)
	turn := r.turn()
	if turn == nil {
		t.Errorf("the reader has no turn to load, but %v", r.value())
		return
	}
	en, _ := turn.Load.Fill(fillOf(value, nil))
	turn.Finish(Outcome{Verdict: Shared, Entry: en})
}
