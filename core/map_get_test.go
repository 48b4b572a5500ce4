package core_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
)

func TestTheSecondGetIsAHit(t *testing.T) {
	bubble(t, core.Class{TTL: hour}, func(t *testing.T, m *items) {
		require.Equal(t, "one", m.get(t))
		require.Equal(t, "one", m.get(t))
		m.mustLoad(t, 1, "the second is a hit")
		_, err := m.Get(t.Context(), 2, m.load)
		require.NoError(t, err)
		m.mustLoad(t, 1, "another id is another value")
	})
}

func TestConcurrentMissesShareOneLoad(t *testing.T) {
	bubble(t, core.Class{TTL: hour}, func(t *testing.T, m *items) {
		release := m.hold()
		var all []*pending
		for range 1000 {
			all = append(all, m.async(t.Context(), m.load))
		}
		synctest.Wait()
		release()
		synctest.Wait()
		for _, p := range all {
			require.Equal(t, "one", p.name(t))
		}
		m.mustLoad(t, 1, "")
	})
}

func TestAValueStoredBetweenLookupAndTurnIsAHit(t *testing.T) {
	bubble(t, core.Class{TTL: hour}, func(t *testing.T, m *items) {
		// The context is asked between the look and the turn.
		ctx := &hookedContext{Context: t.Context(), hook: func() { m.get(t) }}
		v, err := m.Get(ctx, 1, m.load)
		require.NoError(t, err)
		require.Equal(t, "one", v.Name)
		require.True(t, ctx.ran.Load())
		m.mustLoad(t, 1, "")
	})
}

// hookedContext runs a function when it is first asked whether it has ended.
type hookedContext struct {
	context.Context
	ran  atomic.Bool
	hook func()
}

func (c *hookedContext) Err() error {
	if !c.ran.Swap(true) {
		c.hook()
	}
	return c.Context.Err()
}

// An entry that a leader finds at its second lookup may be invalidated before the leader
// shares it.
func TestAReaderAfterAnInvalidationDoesNotShareTheLeadersValue(t *testing.T) {
	for name, target := range map[string]core.Target{
		"by a tag that only its own load named": core.Tag("late"),
		"by its key":                            core.Key("item:1"),
		"by a pattern":                          core.Pattern("item:*"),
		"by all":                                core.All(),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				codec := &hookedCodec{Codec: core.JSON}
				m := openItems(t, core.Class{TTL: hour}, encoded[item](codec))
				load := func(ctx context.Context, id int) (item, error) {
					require.NoError(t, core.AddTags(ctx, "late"))
					return m.load(ctx, id)
				}
				var later *pending
				ctx := &hookedContext{Context: t.Context(), hook: func() {
					_, err := m.Get(t.Context(), 1, load)
					require.NoError(t, err)
					// The leader's next step is to decode what it finds.
					hook := func() {
						m.name.Store("two")
						require.NoError(t, m.cache.Invalidate(t.Context(), target))
						later = m.async(t.Context(), load)
						synctest.Wait() // it has joined, or loaded
					}
					codec.hook.Store(&hook)
				}}
				v, err := m.Get(ctx, 1, load)
				require.NoError(t, err)
				require.Equal(t, "one", v.Name, "the leader began before the invalidation")
				synctest.Wait()
				require.Equal(t, "two", later.name(t), "STALE: who began after the invalidation shares the old value")
			})
		})
	}
}

// hookedCodec runs a function once, on the next Unmarshal.
type hookedCodec struct {
	core.Codec
	hook atomic.Pointer[func()]
}

func (c *hookedCodec) Unmarshal(data []byte, v any) error {
	if hook := c.hook.Swap(nil); hook != nil {
		(*hook)()
	}
	return c.Codec.Unmarshal(data, v)
}

// Leaving.

func TestALoadOutlivesItsCallerForItsWaiters(t *testing.T) {
	bubble(t, core.Class{TTL: hour}, func(t *testing.T, m *items) {
		type word struct{}
		ctx, cancel := context.WithCancel(context.WithValue(t.Context(), word{}, "value"))
		release := m.hold()
		leader := m.async(ctx, func(ctx context.Context, id int) (item, error) {
			v, err := m.load(ctx, id)
			require.NoError(t, ctx.Err(), "the load keeps no cancellation")
			require.Equal(t, "value", ctx.Value(word{}), "it keeps the values")
			return v, err
		})
		synctest.Wait()
		waiter := m.async(t.Context(), m.load)
		synctest.Wait()
		cancel()
		synctest.Wait()
		require.ErrorIs(t, leader.err(t), context.Canceled)
		require.False(t, waiter.done())
		release()
		synctest.Wait()
		require.Equal(t, "one", waiter.name(t))
		require.Equal(t, "one", m.get(t), "and it is stored")
		m.mustLoad(t, 1, "")
	})
}

func TestAWaiterWhoseContextEndsLeavesAlone(t *testing.T) {
	bubble(t, core.Class{TTL: hour}, func(t *testing.T, m *items) {
		release := m.hold()
		leader := m.async(t.Context(), m.load)
		synctest.Wait()
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		leaves, stays := m.async(short, m.load), m.async(t.Context(), m.load)
		time.Sleep(time.Second)
		synctest.Wait()
		require.ErrorIs(t, leaves.err(t), context.DeadlineExceeded)
		require.False(t, leader.done())
		require.False(t, stays.done())
		release()
		synctest.Wait()
		require.Equal(t, "one", leader.name(t))
		require.Equal(t, "one", stays.name(t))
		m.mustLoad(t, 1, "")
	})
}

// Panic, Goexit, cancellation.

func TestWaitersOfAPanicLoadMaxLoadsAfterErrorConcurrently(t *testing.T) {
	for name, abort := range map[string]func(){
		"panic":  func() { panic("boom") },
		"Goexit": runtime.Goexit,
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, core.Class{TTL: hour, MaxLoadsAfterError: 3}, func(t *testing.T, m *items) {
				running := make(chan chan bool, 100) // of each load: whether it is to succeed
				load := func(ctx context.Context, id int) (item, error) {
					succeed := make(chan bool)
					running <- succeed
					if !<-succeed {
						abort()
					}
					return item{Name: "one"}, nil
				}
				ctx, cancel := context.WithTimeout(t.Context(), minute)
				defer cancel()
				var all []*pending
				for range 10 {
					all = append(all, m.async(ctx, load))
					synctest.Wait()
				}
				require.Len(t, running, 1)
				<-running <- false
				synctest.Wait()
				require.Len(t, running, 3, "MaxLoadsAfterError at a time")
				for range 4 {
					<-running <- false
					synctest.Wait()
					require.Len(t, running, 3)
				}
				<-running <- true
				synctest.Wait()
				<-running <- false
				<-running <- false
				synctest.Wait()
				require.Empty(t, running)

				served, aborted := 0, 0
				time.Sleep(minute) // only who was forgotten is still here
				synctest.Wait()
				for _, p := range all {
					var panicked *core.PanicError
					switch err := p.err(t); {
					case err == nil:
						served++
					case errors.As(err, &panicked):
						aborted++
					default:
						t.Error(err)
					}
				}
				require.Equal(t, 3, served, "whoever did not load shares the one that succeeded")
				require.Equal(t, 7, aborted, "each panic is its own caller's")
			})
		})
	}
}

func TestAPanicOfALoaderIsItsCallersError(t *testing.T) {
	bubble(t, core.Class{TTL: hour}, func(t *testing.T, m *items) {
		_, err := m.Get(t.Context(), 1, func(context.Context, int) (item, error) { panic(errDown) })
		var p *core.PanicError
		require.ErrorAs(t, err, &p)
		require.Equal(t, errDown, p.Value)
		require.ErrorIs(t, err, errDown)
		require.Contains(t, string(p.Stack), "map_get_test.go")
		require.EqualValues(t, 1, m.cache.Stats().Panics)
		require.Equal(t, "one", m.get(t), "the next one loads")
	})
}

func TestGoexitOfALoaderIsItsCallersError(t *testing.T) {
	bubble(t, core.Class{TTL: hour}, func(t *testing.T, m *items) {
		ctx, cancel := context.WithTimeout(t.Context(), minute) // instead of for ever
		defer cancel()
		_, err := m.Get(ctx, 1, func(context.Context, int) (item, error) { runtime.Goexit(); return item{}, nil })
		var p *core.PanicError
		require.ErrorAs(t, err, &p)
		require.Nil(t, p.Value)
		require.ErrorContains(t, err, "Goexit")
		require.Equal(t, "one", m.get(t), "the next one loads")
	})
}

// Code of the user's runs on the load's own goroutine: a panic there must not end
// the process.
func TestAPanicOfACodecOrCloneIsItsCallersError(t *testing.T) {
	which := os.Getenv("LARDER_TEST_PANICS_IN")
	if which == "" {
		for _, which := range []string{"codec", "clone"} {
			t.Run(which, func(t *testing.T) {
				child := exec.Command(os.Args[0], "-test.run=^"+t.Name()[:len(t.Name())-len(which)-1]+"$")
				child.Env = append(os.Environ(), "LARDER_TEST_PANICS_IN="+which)
				out, err := child.CombinedOutput()
				require.NoError(t, err, "%s", out)
			})
		}
		return
	}
	option := encoded[item](panickingCodec{})
	if which == "clone" {
		option = cloned(func(item) item { panic("boom") })
	}
	m := openItems(t, core.Class{TTL: hour}, option)
	_, err := m.Get(t.Context(), 1, m.load)
	require.Error(t, err)
}

type panickingCodec struct{}

func (panickingCodec) Marshal(any) ([]byte, error)     { panic("boom") }
func (panickingCodec) Unmarshal(d []byte, v any) error { panic("boom") }

func TestWaitersOfACancelledLoadLoadForThemselves(t *testing.T) {
	for _, end := range []error{context.Canceled, context.DeadlineExceeded, fmt.Errorf("query: %w", context.Canceled)} {
		t.Run(end.Error(), func(t *testing.T) {
			bubble(t, core.Class{TTL: hour, MaxLoadsAfterError: 1}, func(t *testing.T, m *items) {
				release := m.hold()
				leader := m.async(t.Context(), func(ctx context.Context, id int) (item, error) {
					_, _ = m.load(ctx, id)
					return item{}, end
				})
				synctest.Wait()
				var waiters []*pending
				for range 5 {
					waiters = append(waiters, m.async(t.Context(), m.load))
				}
				synctest.Wait()
				release()
				synctest.Wait()
				require.ErrorIs(t, leader.err(t), end)
				for _, w := range waiters {
					require.Equal(t, "one", w.name(t))
				}
				m.mustLoad(t, 2, "one of them loads, for all")
			})
		})
	}
}

// Errors.

func TestWaitersShareTheErrorOfALoad(t *testing.T) {
	bubble(t, core.Class{TTL: hour}, func(t *testing.T, m *items) {
		m.fail(fmt.Errorf("select: %w", errDown))
		release := m.hold()
		var all []*pending
		for range 100 {
			all = append(all, m.async(t.Context(), m.load))
		}
		synctest.Wait()
		release()
		synctest.Wait()
		for _, p := range all {
			require.ErrorIs(t, p.err(t), errDown)
		}
		m.mustLoad(t, 1, "a database that is down is asked once")
		m.fail(nil)
		require.Equal(t, "one", m.get(t))
		require.EqualValues(t, 1, m.cache.Stats().LoadErrors)
	})
}

func TestNotFoundIsRememberedForTheNegativeTTL(t *testing.T) {
	bubble(t, core.Class{TTL: hour, NegativeTTL: minute}, func(t *testing.T, m *items) {
		m.fail(fmt.Errorf("no row: %w", core.ErrNotFound))
		for range 3 {
			_, err := m.Get(t.Context(), 1, m.load)
			require.ErrorIs(t, err, core.ErrNotFound)
		}
		m.mustLoad(t, 1, "")
		require.Zero(t, m.cache.Stats().LoadErrors, "not found is an answer")
		time.Sleep(minute)
		m.fail(nil)
		require.Equal(t, "one", m.get(t))
		m.mustLoad(t, 1, "")
	})
}

func TestInvalidateAndPutForgetARememberedNotFound(t *testing.T) {
	bubble(t, core.Class{TTL: hour, NegativeTTL: minute}, func(t *testing.T, m *items) {
		absent := func() {
			m.fail(core.ErrNotFound)
			_, err := m.Get(t.Context(), 1, m.load)
			require.ErrorIs(t, err, core.ErrNotFound)
			m.fail(nil)
		}
		absent()
		require.NoError(t, m.Invalidate(t.Context(), 1))
		require.Equal(t, "one", m.get(t))
		require.NoError(t, m.Invalidate(t.Context(), 1))
		absent()
		require.NoError(t, m.Put(t.Context(), 1, item{Name: "put"}))
		require.Equal(t, "put", m.get(t))
	})
}

func TestWithoutNegativeTTLOnlyWaitersShareNotFound(t *testing.T) {
	bubble(t, core.Class{TTL: hour}, func(t *testing.T, m *items) {
		m.fail(core.ErrNotFound)
		release := m.hold()
		one, two := m.async(t.Context(), m.load), m.async(t.Context(), m.load)
		synctest.Wait()
		release()
		synctest.Wait()
		require.ErrorIs(t, one.err(t), core.ErrNotFound)
		require.ErrorIs(t, two.err(t), core.ErrNotFound)
		m.mustLoad(t, 1, "")
		_, err := m.Get(t.Context(), 1, m.load)
		require.ErrorIs(t, err, core.ErrNotFound)
		m.mustLoad(t, 1, "")
	})
}

// Overlong loads.

func TestTheContextOfALoaderEndsAtTheLoadTimeout(t *testing.T) {
	bubble(t, core.Class{TTL: hour, LoadTimeout: 3 * time.Second}, func(t *testing.T, m *items) {
		start := time.Now()
		_, err := m.Get(t.Context(), 1, func(ctx context.Context, _ int) (item, error) {
			deadline, ok := ctx.Deadline()
			require.True(t, ok)
			require.Equal(t, 3*time.Second, time.Until(deadline))
			<-ctx.Done()
			return item{}, ctx.Err()
		})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 3*time.Second, time.Since(start))
		require.Equal(t, "one", m.get(t))
	})
}

func TestMaxLoadsAfterErrorLoadsRunBesideAnOverdueOne(t *testing.T) {
	bubble(t, core.Class{TTL: hour, LoadTimeout: 3 * time.Second, MaxLoadsAfterError: 2}, func(t *testing.T, m *items) {
		stuck := make(chan struct{})
		leader := m.async(t.Context(), func(context.Context, int) (item, error) {
			<-stuck
			return item{Name: "stuck"}, nil
		})
		synctest.Wait()
		release := m.hold()
		var waiters []*pending
		for range 10 {
			waiters = append(waiters, m.async(t.Context(), m.load))
		}
		time.Sleep(3*time.Second - 1)
		synctest.Wait()
		m.mustLoad(t, 0, "they wait")
		time.Sleep(1)
		synctest.Wait()
		m.mustLoad(t, 2, "MaxLoadsAfterError at a time")
		release()
		synctest.Wait()
		for _, w := range waiters {
			require.Equal(t, "one", w.name(t))
		}
		m.mustLoad(t, 0, "one of these loads served the rest")
		close(stuck)
		synctest.Wait()
		require.Equal(t, "stuck", leader.name(t))
	})
}

// A database that hangs until each load's deadline is as sick as one that answers
// with errors.
func TestAHangingDatabaseIsNotStampeded(t *testing.T) {
	bubble(t, core.Class{TTL: hour, LoadTimeout: time.Second, MaxLoadsAfterError: 3}, func(t *testing.T, m *items) {
		hangs := func(ctx context.Context, id int) (item, error) {
			if now := m.now.Add(1); now > m.most.Load() {
				m.most.Store(now)
			}
			defer m.now.Add(-1)
			m.loads.Add(1)
			<-ctx.Done()
			return item{}, ctx.Err()
		}
		var all []*pending
		for range 40 {
			all = append(all, m.async(t.Context(), hangs))
		}
		time.Sleep(minute)
		synctest.Wait()
		busy := 0
		for _, p := range all {
			if errors.Is(p.err(t), core.ErrBusy) {
				busy++
			} else {
				require.ErrorIs(t, p.err(t), context.DeadlineExceeded)
			}
		}
		require.EqualValues(t, 40, busy+int(m.loads.Load()), "who was not let go in time is told so")
		t.Logf("%d loads, at most %d at a time", m.loads.Load(), m.most.Load())
		require.LessOrEqual(t, m.most.Load(), int64(3+1), "MaxLoadsAfterError, beside one that is overdue")
		require.Zero(t, m.now.Load())
	})
}

// A loader of two values may use the same cache.
func TestALoaderThatGetsAnotherValueStoresBoth(t *testing.T) {
	bubble(t, core.Class{TTL: hour}, func(t *testing.T, m *items) {
		outer := func(ctx context.Context, _ int) (item, error) {
			inner, err := m.Get(ctx, 2, m.load)
			return item{Name: "outer of " + inner.Name}, err
		}
		for range 2 {
			v, err := m.Get(t.Context(), 1, outer)
			require.NoError(t, err)
			require.Equal(t, "outer of one", v.Name)
		}
		m.mustLoad(t, 1, "")
	})
}
