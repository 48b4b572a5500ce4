package core_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/test/memtier"
)

// twoWriters are two instances (or one, twice) that write through one database.
type twoWriters struct {
	t    *testing.T
	f    *fleet
	a, b *instance
}

const writeTimeout = 30 * time.Second // the default

// itself is the version of values that are nothing else.
var itself = versioned(func(v int64) int64 { return v })

// eachWay runs a test in one process without a shared tier, in one with it, and in
// two that share it; without and with versions.
func eachWay(t *testing.T, test func(w *twoWriters)) {
	t.Helper()
	for _, way := range []string{"one process", "one instance", "two instances"} {
		t.Run(way, func(t *testing.T) { oneWay(t, way, test) })
		t.Run(way+", versions", func(t *testing.T) { oneWay(t, way, test, itself) })
	}
}

func oneWay(t *testing.T, way string, test func(w *twoWriters), opts ...option[int64]) {
	t.Helper()
	oneWayWith(t, way, func(*core.Options) {}, test, opts...)
}

func oneWayWith(t *testing.T, way string, change func(*core.Options), test func(w *twoWriters), opts ...option[int64]) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{t: t, server: memtier.New(memtier.Config{}), opts: opts}
		defer f.server.Close()
		w := &twoWriters{t: t, f: f}
		w.a = f.instance("a", change, func(o *core.Options) {
			if way == "one process" {
				o.Remote = nil
			}
		})
		w.b = w.a
		if way == "two instances" {
			w.b = f.instance("b", change)
		}
		test(w)
	})
}

// write writes v through; then, if not nil, is called when it has been saved and
// the write has not ended.
func (w *twoWriters) write(in *instance, v int64, then func(), tags ...string) error {
	return in.Write(w.t.Context(), 7, v, func(context.Context, int, int64) error {
		w.f.data.Store(v)
		if then != nil {
			then()
		}
		return nil
	}, tags...)
}

// reads demands that both instances answer what the database has, and how many
// loads that took.
func (w *twoWriters) reads(v int64, loads int) {
	w.t.Helper()
	synctest.Wait()
	before := w.f.loads.Load()
	require.Equal(w.t, v, w.f.data.Load())
	require.Equal(w.t, v, w.a.get(7))
	require.Equal(w.t, v, w.b.get(7))
	require.EqualValues(w.t, loads, w.f.loads.Load()-before, "loads")
}

func TestAWrittenValueIsSavedAndAHit(t *testing.T) {
	eachWay(t, func(w *twoWriters) {
		require.NoError(w.t, w.write(w.a, 1, nil))
		w.reads(1, 0)
		require.NoError(w.t, w.write(w.b, 2, nil, "list"))
		w.reads(2, 0)
		require.NoError(w.t, w.a.cache.Invalidate(w.t.Context(), core.Tag("list")))
		w.reads(2, 1)
	})
}

func TestOverlappingWritesNeverLeaveTheOlderValue(t *testing.T) {
	t.Run("the first ends last", func(t *testing.T) {
		eachWay(t, func(w *twoWriters) {
			require.NoError(w.t, w.write(w.a, 1, func() { require.NoError(w.t, w.write(w.b, 2, nil)) }))
			w.reads(2, 1)
		})
	})
	t.Run("the first ends last, and had saved last", func(t *testing.T) {
		eachWay(t, func(w *twoWriters) {
			require.NoError(w.t, w.a.Write(w.t.Context(), 7, 1, func(context.Context, int, int64) error {
				require.NoError(w.t, w.write(w.b, 2, nil))
				w.f.data.Store(1)
				return nil
			}))
			w.reads(1, 1)
		})
	})
	t.Run("the first ends first, and had saved last", func(t *testing.T) {
		eachWay(t, func(w *twoWriters) {
			began, saved := make(chan struct{}), make(chan struct{})
			done := make(chan error, 1)
			go func() {
				<-began
				done <- w.b.Write(w.t.Context(), 7, 2, func(context.Context, int, int64) error {
					w.f.data.Store(2)
					close(saved)
					time.Sleep(time.Millisecond) // the other one ends meanwhile
					return nil
				})
			}()
			require.NoError(w.t, w.a.Write(w.t.Context(), 7, 1, func(context.Context, int, int64) error {
				close(began)
				<-saved
				w.f.data.Store(1)
				return nil
			}))
			require.EqualValues(w.t, 1, w.a.get(7), "while the other one is at work")
			require.NoError(w.t, <-done)
			w.reads(1, 1)
		})
	})
}

func TestAWriteInvalidatedDuringItsSaveIsNotStored(t *testing.T) {
	for name, target := range map[string]core.Target{
		"by key": core.Key("item:7"), "by tag": core.Tag("item:7"), "by a tag of its own": core.Tag("list"),
		"by pattern": core.Pattern("item:?"), "all": core.All(),
	} {
		t.Run(name, func(t *testing.T) {
			eachWay(t, func(w *twoWriters) {
				require.NoError(w.t, w.write(w.a, 1, func() {
					require.NoError(w.t, w.b.cache.Invalidate(w.t.Context(), target))
					synctest.Wait()
				}, "list"))
				w.reads(1, 1)
			})
		})
	}
}

func TestAWriteBesideAnOpenIntentIsNotStored(t *testing.T) {
	eachWay(t, func(w *twoWriters) {
		intent, err := w.b.cache.Begin(w.t.Context(), core.Tag("item:7"))
		require.NoError(w.t, err)
		require.NoError(w.t, w.write(w.a, 1, nil))
		w.f.data.Store(2) // the other one commits
		require.NoError(w.t, intent.End(w.t.Context()))
		w.reads(2, 1)
	})
	for name, target := range map[string]core.Target{"by tag": core.Tag("item:7"), "by key": core.Key("item:7"), "by a tag of the value": core.Tag("list")} {
		t.Run("its deadline passes meanwhile, "+name, func(t *testing.T) {
			eachWay(t, func(w *twoWriters) {
				_, err := w.b.cache.Begin(w.t.Context(), target) // and is never heard of again
				require.NoError(w.t, err)
				time.Sleep(writeTimeout - time.Second)
				require.NoError(w.t, w.write(w.a, 1, func() { time.Sleep(2 * time.Second) }, "list"))
				w.reads(1, 1)
			})
		})
	}
	t.Run("the writer's own deadline passes", func(t *testing.T) {
		eachWay(t, func(w *twoWriters) {
			require.NoError(w.t, w.write(w.a, 1, func() { time.Sleep(writeTimeout + time.Second) }))
			w.reads(1, 1)
		})
	})
}

func TestAFailedSaveThatCommittedInvalidates(t *testing.T) {
	eachWay(t, func(w *twoWriters) {
		require.NoError(w.t, w.write(w.a, 1, nil))
		err := w.a.Write(w.t.Context(), 7, 2, func(context.Context, int, int64) error {
			w.f.data.Store(2)
			return errDown
		})
		require.Equal(w.t, errDown, err)
		w.reads(2, 1)
		require.PanicsWithValue(w.t, "oops", func() {
			_ = w.a.Write(w.t.Context(), 7, 3, func(context.Context, int, int64) error {
				w.f.data.Store(3)
				panic("oops")
			})
		})
		w.reads(3, 1)
	})
}

func TestAFailedSaveThatCommitsLaterInvalidatesAtItsDeadline(t *testing.T) {
	for _, fails := range []string{"error", "panic"} {
		t.Run(fails, func(t *testing.T) {
			eachWay(t, func(w *twoWriters) {
				func() {
					defer func() { _ = recover() }()
					err := w.a.Write(w.t.Context(), 7, 1, func(context.Context, int, int64) error {
						if fails == "panic" {
							panic("the connection is gone")
						}
						return context.DeadlineExceeded
					})
					require.ErrorIs(w.t, err, context.DeadlineExceeded)
				}()
				w.reads(0, 1)
				w.f.data.Store(1) // the database had received it
				time.Sleep(writeTimeout + time.Millisecond)
				require.EqualValues(w.t, 1, w.a.get(7))
				require.EqualValues(w.t, 1, w.b.get(7))
			})
		})
	}
}

func TestALoadUnderWayDoesNotReplaceAWrittenValue(t *testing.T) {
	eachWay(t, func(w *twoWriters) {
		loading, release := make(chan struct{}), make(chan struct{})
		got := make(chan int64, 1)
		go func() {
			v, err := w.b.Get(w.t.Context(), 7, func(context.Context, int) (int64, error) {
				close(loading)
				<-release
				return 0, nil // read before the write
			})
			if err != nil {
				w.t.Error(err)
			}
			got <- v
		}()
		<-loading
		require.NoError(w.t, w.write(w.a, 1, nil))
		close(release)
		require.EqualValues(w.t, 0, <-got)
		w.reads(1, 0)
	})
}

func TestAWriteWithoutTheTierSavesUnlessConfirmWritesIsSet(t *testing.T) {
	share(t, func(t *testing.T, f *fleet) {
		strict := false
		in := f.instance("a", func(o *core.Options) {
			c := o.Classes["c"]
			c.ConfirmWrites = true
			o.Classes["strict"] = c
		})
		m, err := core.NewMap(in.cache, core.MapOptions[int, int64]{Class: "strict", Prefix: "strict"})
		require.NoError(t, err)
		f.server.Down(true)
		save := func(context.Context, int, int64) error { strict = true; return nil }
		require.ErrorIs(t, m.Write(t.Context(), 1, 1, save), core.ErrPending)
		require.False(t, strict, "it has not been saved")
		require.ErrorIs(t, in.Write(t.Context(), 7, 1, func(context.Context, int, int64) error { f.data.Store(1); return nil }), core.ErrPending)
		require.EqualValues(t, 1, in.get(7))
		f.server.Down(false)
	})
}

func TestABadWriteSavesNothing(t *testing.T) {
	bubble(t, core.Class{TTL: hour, MaxEntryBytes: 100}, func(t *testing.T, m *items) {
		save := func(context.Context, int, item) error { return errors.New("saved") }
		var ce *core.ConfigError
		require.ErrorAs(t, m.Write(t.Context(), 1, item{}, nil), &ce)
		require.ErrorAs(t, m.Write(t.Context(), 1, item{Name: fmt.Sprintf("%100d", 1)}, save), &ce)
		require.ErrorAs(t, m.Write(t.Context(), 1, item{}, save, ""), &ce)
		require.NoError(t, m.cache.Close())
		require.ErrorIs(t, m.Write(t.Context(), 1, item{}, save), core.ErrClosed)
	})
}
