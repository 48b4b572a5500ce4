package core_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/test/memtier"
	"github.com/larderhq/larder/core/internal/tier"
)

// touchy is a codec that panics when it reads 13.
type touchy struct{ core.Codec }

func (touchy) Unmarshal(data []byte, v any) error {
	if string(data) == "13" {
		panic("13")
	}
	return json.Unmarshal(data, v)
}

func TestAPanickingCodecMakesADeadLetterOfOneChangeOnly(t *testing.T) {
	for _, way := range []string{"one process", "one instance"} {
		t.Run(way, func(t *testing.T) {
			oneWayWith(t, way, func(*core.Options) {}, func(w *twoWriters) {
				l := &ledger{t: w.t, w: w, rows: make(map[int]int64)}
				l.a = l.queue(w.a, wbOptions{MaxAttempts: 2})
				require.NoError(l.t, l.a.PutMany(l.t.Context(), map[int]int64{7: 13, 8: 8}))
				time.Sleep(10 * time.Second)
				require.Equal(l.t, map[int]int64{8: 8}, l.table())
				letters, err := l.a.DeadLetters(l.t.Context(), 10)
				require.NoError(l.t, err)
				require.Len(l.t, letters, 1)
				require.True(l.t, letters[0].Undecodable)
				require.Equal(l.t, 7, letters[0].ID)
			}, encoded[int64](touchy{core.JSON}))
		})
	}
}

func TestACallbackThatEndsItsGoroutineDoesNotStopTheQueue(t *testing.T) {
	for name, end := range map[string]func(){"Goexit": runtime.Goexit, "panic": func() { panic("oops") }} {
		t.Run(name, func(t *testing.T) {
			eachQueue(t, wbOptions{OnDead: func(core.Change[int, int64], error) { end() }}, func(l *ledger) {
				l.set(func() { l.during = func([]core.Change[int, int64]) { end() } })
				require.NoError(l.t, l.a.Put(l.t.Context(), 7, 7))
				l.settle()
				l.set(func() { l.during, l.err = nil, core.ErrPoison })
				time.Sleep(10 * time.Second)
				l.set(func() { l.err = nil })
				require.NoError(l.t, l.a.Put(l.t.Context(), 8, 8))
				l.settle()
				require.Equal(l.t, map[int]int64{8: 8}, l.table())
				st, err := l.a.Stats(l.t.Context())
				require.NoError(l.t, err)
				require.Equal(l.t, 1, st.Dead)
			})
		})
	}
}

// wordless is an error without a text, or one that cannot be asked for it.
type wordless struct{ panics bool }

func (w wordless) Error() string {
	if w.panics {
		panic("no text")
	}
	return ""
}

func (w wordless) Is(err error) bool { return err == core.ErrPoison }

func TestAPoisonErrorWithoutATextMakesADeadLetter(t *testing.T) {
	for _, poison := range []error{wordless{}, wordless{panics: true}} {
		eachQueue(t, wbOptions{}, func(l *ledger) {
			l.set(func() { l.err = core.BatchError[int]{7: poison} })
			require.NoError(l.t, l.a.Put(l.t.Context(), 7, 7))
			l.settle()
			letters, err := l.a.DeadLetters(l.t.Context(), 10)
			require.NoError(l.t, err)
			require.Len(l.t, letters, 1)
			require.NotEmpty(l.t, letters[0].Reason)
			require.Empty(l.t, l.table())
		})
	}
}

// A change counts as applied only if that is known.
func TestAnErrorBesideABatchErrorLeavesAllChangesUnapplied(t *testing.T) {
	some := core.BatchError[int]{7: errBad}
	for _, test := range []struct {
		name string
		err  error
		left int
	}{
		{"of one", some, 1},
		{"wrapped", fmt.Errorf("orders: %w", some), 1},
		{"joined with another", errors.Join(some, errDown), 2},
		{"of one, and of an id that is not in the batch", core.BatchError[int]{7: errBad, 9: errBad}, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			oneWayWith(t, "one process", func(*core.Options) {}, func(w *twoWriters) { // one batch
				l := &ledger{t: w.t, w: w, rows: make(map[int]int64), err: test.err}
				l.a = l.queue(w.a, wbOptions{Retry: time.Minute})
				require.NoError(l.t, l.a.PutMany(l.t.Context(), map[int]int64{7: 7, 8: 8}))
				l.settle()
				st, err := l.a.Stats(l.t.Context())
				require.NoError(l.t, err)
				require.Equal(l.t, test.left, st.Depth)
				l.set(func() { l.err = nil })
				time.Sleep(3 * time.Minute)
				require.Subset(l.t, l.table(), map[int]int64{7: 7})
			})
		})
	}
}

func TestADeadLetterWhoseSettlementReplyIsLostIsNotReadAnyMore(t *testing.T) {
	share(t, func(t *testing.T, f *fleet) {
		w := &twoWriters{t: t, f: f, a: f.instance("a"), b: f.instance("b")}
		l := &ledger{t: t, w: w, rows: map[int]int64{7: 1}}
		l.set(func() {
			l.err = core.ErrPoison
			l.during = func([]core.Change[int, int64]) { f.server.SetFaults(memtier.Faults{ReplyLost: 1}) }
		})
		q := l.queue(w.a, wbOptions{})
		require.NoError(t, q.Put(t.Context(), 7, 2))
		synctest.Wait()
		l.reads(7, 2)
		time.Sleep(1100 * time.Millisecond)
		f.server.SetFaults(memtier.Faults{})
		time.Sleep(5 * time.Second)
		letters, err := q.DeadLetters(t.Context(), 10)
		require.NoError(t, err)
		require.Len(t, letters, 1)
		l.reads(7, 1)
	})
}

// home returns the partition of an id's key, and of the tag of that name.
func home(id int) int {
	return tier.Partition(fmt.Sprintf("item:%d", id), tier.DefaultPartitions)
}

func TestOnlyChangesOfAPartitionThatIsDownWaitToBeApplied(t *testing.T) {
	share(t, func(t *testing.T, f *fleet) {
		const down = 3
		w := &twoWriters{t: t, f: f, a: f.instance("a")}
		w.b = w.a
		l := &ledger{t: t, w: w, rows: make(map[int]int64)}
		q := l.queue(w.a, wbOptions{})
		well, waits := make(map[int]int64), 0
		for id := range 200 {
			require.NoError(t, q.Put(t.Context(), id, 1))
			if home(id) != down {
				well[id] = 1
			} else {
				waits++
			}
		}
		f.server.Down(true, down)
		time.Sleep(30 * time.Second)
		require.Subset(t, l.table(), well)
		times := make(map[int]int)
		l.mu.Lock()
		for _, batch := range l.batches {
			for _, c := range batch {
				times[c.ID]++
			}
		}
		l.mu.Unlock()
		for id := range well {
			require.Equal(t, 1, times[id], "%d", id)
		}
		st, _ := q.Stats(t.Context())
		require.LessOrEqual(t, st.Depth, waits)
		f.server.Down(false, down)
		time.Sleep(time.Minute)
		require.Len(t, l.table(), 200)
		st, err := q.Stats(t.Context())
		require.NoError(t, err)
		require.Zero(t, st.Depth)
	})
}

func TestOnlyPutsOfAPartitionThatHangsWait(t *testing.T) {
	share(t, func(t *testing.T, f *fleet) {
		const hangs = 3
		w := &twoWriters{t: t, f: f, a: f.instance("a")}
		l := &ledger{t: t, w: w, rows: make(map[int]int64)}
		q := l.queue(w.a, wbOptions{})
		var there, well []int
		for id := range 200 {
			if home(id) == hangs {
				there = append(there, id)
			} else {
				well = append(well, id)
			}
		}
		f.server.Freeze(true, hangs)
		ended := make(chan struct{})
		var all sync.WaitGroup
		for _, id := range there[:4] {
			all.Go(func() {
				for {
					if err := q.Put(t.Context(), id, 1); err == nil {
						t.Error("it was queued")
					}
					select {
					case <-ended:
						return
					default:
					}
				}
			})
		}
		time.Sleep(6 * time.Second) // until it is known
		for _, id := range well[:50] {
			began := time.Now()
			require.NoError(t, q.Put(t.Context(), id, 1))
			require.Less(t, time.Since(began), 100*time.Millisecond)
			time.Sleep(500 * time.Millisecond)
		}
		close(ended)
		all.Wait()
		f.server.Freeze(false, hangs)
		time.Sleep(time.Second)
		require.NoError(t, q.Put(t.Context(), there[0], 2))
		require.NoError(t, q.Flush(t.Context()))
		require.EqualValues(t, 2, l.table()[there[0]])
	})
}

// By then its caller may have put something newer through another instance.
func TestAChangeOfACallerThatHasLeftIsNotQueued(t *testing.T) {
	share(t, func(t *testing.T, f *fleet) {
		w := &twoWriters{t: t, f: f, a: f.instance("a")}
		w.b = w.a
		l := &ledger{t: t, w: w, rows: map[int]int64{}}
		q := l.queue(w.a, wbOptions{Workers: -1})
		var ids []int // of one partition
		for id := 0; len(ids) < 2; id++ {
			if home(id) == 3 {
				ids = append(ids, id)
			}
		}
		f.server.Freeze(true, 3)
		first := make(chan error, 1)
		go func() { first <- q.Put(t.Context(), ids[0], 1) }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second/2)
		defer cancel()
		require.ErrorIs(t, q.Put(ctx, ids[1], 1), core.ErrNotQueued)
		time.Sleep(time.Second)
		f.server.Freeze(false, 3)
		require.NoError(t, <-first)
		time.Sleep(5 * time.Second)
		st, err := q.Stats(t.Context())
		require.NoError(t, err)
		require.Equal(t, 1, st.Depth)
		l.reads(ids[1], -1)
		l.reads(ids[0], 1)
	})
}

// A caller whose Put ended with an unknown outcome may put a newer value by then.
func TestAPutAnsweredUnknownIsNotQueuedLater(t *testing.T) {
	share(t, func(t *testing.T, f *fleet) {
		w := &twoWriters{t: t, f: f, a: f.instance("a")}
		w.b = w.a
		l := &ledger{t: t, w: w, rows: map[int]int64{}}
		q := l.queue(w.a, wbOptions{Workers: -1, Wait: time.Hour})
		f.server.Freeze(true)
		began := time.Now()
		require.ErrorIs(t, q.Put(t.Context(), 7, 1), core.ErrNotQueued)
		require.Less(t, time.Since(began), 5*time.Second, "by when it has no effect any more")
		time.Sleep(time.Second)
		f.server.Freeze(false)
		time.Sleep(10 * time.Second)
		st, err := q.Stats(t.Context())
		require.NoError(t, err)
		require.Zero(t, st.Depth)
	})
}

func TestAPartialChangeWaitsForRoomWithoutPolling(t *testing.T) {
	var loads atomic.Int64
	o := wbOptions{
		MaxQueued: 16, MaxRetry: time.Second,
		Merge: func(old, change int64) int64 { return old + change },
		Load: func(context.Context, int) (int64, error) {
			loads.Add(1)
			return 0, core.ErrNotFound
		},
	}
	eachQueue(t, o, func(l *ledger) {
		l.set(func() { l.err = errDown })
		var err error
		id := 0
		for ; id < 100 && err == nil; id++ {
			loads.Store(0)
			err = l.a.Put(l.t.Context(), id, 1)
		}
		require.ErrorIs(l.t, err, core.ErrQueueFull)
		require.Less(l.t, loads.Load(), int64(50))
		l.set(func() { l.err = nil })
		require.NoError(l.t, l.a.Put(l.t.Context(), id-1, 1))
	})
}

// Failing changes are retried a few per round, and some are always due.
func TestManyFailingChangesDoNotHoldUpOthers(t *testing.T) {
	const bad = 100
	for _, each := range []bool{false, true} {
		for _, batch := range []int{1, 10} {
			t.Run(fmt.Sprintf("errors of each: %v, batches of %d", each, batch), func(t *testing.T) {
				oneWayWith(t, "one process", func(*core.Options) {}, func(w *twoWriters) {
					var mu sync.Mutex
					applied, well := make(map[int]bool), false
					q, err := core.NewWriteBehind(w.a.Map, func(_ context.Context, changes []core.Change[int, int64]) error {
						mu.Lock()
						defer mu.Unlock()
						failed := make(core.BatchError[int])
						for _, c := range changes {
							if c.ID < bad && !well {
								failed[c.ID] = errBad
							}
						}
						if !each && len(failed) > 0 {
							return errBad
						}
						for _, c := range changes {
							applied[c.ID] = failed[c.ID] == nil
						}
						if len(failed) > 0 {
							return failed
						}
						return nil
					}, wbOptions{Batch: batch, MaxRetry: 5 * time.Second, MaxAttempts: 1 << 20})
					require.NoError(w.t, err)
					for id := range bad {
						require.NoError(w.t, q.Put(w.t.Context(), id, 1))
					}
					time.Sleep(10 * time.Minute)
					for id := bad; id < bad+20; id++ {
						require.NoError(w.t, q.Put(w.t.Context(), id, 1))
					}
					time.Sleep(time.Minute)
					mu.Lock()
					well = true
					got := maps.Clone(applied)
					mu.Unlock()
					for id := bad; id < bad+20; id++ {
						require.True(w.t, got[id], "%d", id)
					}
					time.Sleep(time.Minute)
				})
			})
		}
	}
}

// failing is a codec that cannot decode the value 2 a number of times.
type failing struct {
	core.Codec
	left *atomic.Int64
}

func (c failing) Unmarshal(data []byte, v any) error {
	if string(data) == "2" && c.left.Add(-1) >= 0 {
		return errors.New("a format of the future")
	}
	return json.Unmarshal(data, v)
}

// An instance that cannot decode an entry asks for the lease to replace it, and the queued
// change comes with the lease. A database without that change must not be asked then.
func TestAQueuedChangeIsReturnedAlthoughTheEntryDoesNotDecode(t *testing.T) {
	eachRead(t, func(t *testing.T, f *fleet, read func(*instance, *ledger) (int64, error)) {
		left := &atomic.Int64{}
		q := f.queuedEntry(t, left)
		left.Store(1)
		v, err := read(q.w.b, q)
		require.NoError(t, err)
		require.EqualValues(t, 2, v, "STALE: a change is queued")
		require.Negative(t, left.Load(), "the entry was decoded, and the change")
		q.reads(7, 2)
	})
}

// A load whose instance cannot decode the queued change gets the value from before it.
// Other instances, which can, must not find that value.
func TestAValueFromBeforeAnUndecodableChangeIsNotStored(t *testing.T) {
	eachRead(t, func(t *testing.T, f *fleet, read func(*instance, *ledger) (int64, error)) {
		left := &atomic.Int64{}
		q := f.queuedEntry(t, left)
		left.Store(1 << 40)
		v, err := read(q.w.b, q)
		require.NoError(t, err)
		require.EqualValues(t, 1, v)
		f.opts = nil
		v, err = f.instance("c").Get(t.Context(), 7, q.load)
		require.NoError(t, err)
		require.EqualValues(t, 2, v, "STALE: a change is queued")
	})
}

// eachRead runs a test with each way to read a value that no request has read before.
func eachRead(t *testing.T, test func(t *testing.T, f *fleet, read func(*instance, *ledger) (int64, error))) {
	t.Helper()
	for name, read := range map[string]func(*instance, *ledger) (int64, error){
		"Get": func(in *instance, l *ledger) (int64, error) { return in.Get(l.t.Context(), 7, l.load) },
		"GetMany": func(in *instance, l *ledger) (int64, error) {
			all, err := in.GetMany(l.t.Context(), []int{7}, func(ctx context.Context, ids []int) (map[int]int64, error) {
				v, err := l.load(ctx, ids[0])
				return map[int]int64{7: v}, err
			})
			return all[7], err
		},
	} {
		t.Run(name, func(t *testing.T) {
			share(t, func(t *testing.T, f *fleet) { test(t, f, read) })
		})
	}
}

// queuedEntry returns the ledger of two instances, of which b decodes with a failing codec. The
// database has 1 and takes no change; 2 is queued and in the shared tier.
func (f *fleet) queuedEntry(t *testing.T, left *atomic.Int64) *ledger {
	t.Helper()
	w := &twoWriters{t: t, f: f, a: f.instance("a")}
	f.opts = []option[int64]{encoded[int64](failing{core.JSON, left})}
	w.b = f.instance("b")
	l := &ledger{t: t, w: w, rows: map[int]int64{7: 1}, err: errDown}
	l.a = l.queue(w.a, wbOptions{})
	require.NoError(t, l.a.Put(t.Context(), 7, 2))
	v, err := w.a.Get(t.Context(), 7, l.load)
	require.NoError(t, err)
	require.EqualValues(t, 2, v)
	return l
}
