package core_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
)

// Close and the loads under way. Let C be Close, L a load, W a caller that waits for it.
//
//	W waits, C, L ends            W has the value; C returns after L
//	L refreshes, C                L's context ends: no caller waits
//	L refreshes, W joins, C       L runs to its end, for W
//	W waits, C, W goes            L's context ends as W goes
//	W goes, C                     L's context ends
//	C, W asks                     W loads for itself
//	L waits for another instance, L stops waiting, and loads
//	C

// listens is a loader that takes a second, unless its context ends.
func (m *items) listens(ctx context.Context, id int) (item, error) {
	select {
	case <-time.After(time.Second):
		return m.load(ctx, id)
	case <-ctx.Done():
		m.loads.Add(100)
		return item{}, errors.New("the query was cancelled") // as drivers say it
	}
}

func closing(t *testing.T, test func(t *testing.T, m *items, closeIt func() (took time.Duration))) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c, err := core.New(core.Options{Classes: core.Classes{"item": {TTL: minute, StaleWhileRevalidate: minute, LoadTimeout: 10 * time.Second}}})
		require.NoError(t, err)
		test(t, itemsOf(t, c), func() time.Duration {
			began := time.Now()
			require.NoError(t, c.Close())
			return time.Since(began)
		})
	})
}

func TestLoadsThatSomebodyWaitsForGoOnWhenTheCacheIsClosed(t *testing.T) {
	for name, get := range map[string]func(ctx context.Context, m *items) (item, error){
		"Get": func(ctx context.Context, m *items) (item, error) { return m.Get(ctx, 1, m.listens) },
		"Lookup": func(ctx context.Context, m *items) (item, error) {
			r, err := m.Lookup(ctx, 1, m.listens)
			return r.Value, err
		},
		"GetMany": func(ctx context.Context, m *items) (item, error) {
			values, err := m.GetMany(ctx, []int{1, 2}, func(ctx context.Context, ids []int) (map[int]item, error) {
				v, err := m.listens(ctx, ids[0])
				return map[int]item{1: v, 2: v}, err
			})
			return values[1], err
		},
		"a load within a load": func(ctx context.Context, m *items) (item, error) {
			return m.Get(ctx, 1, func(ctx context.Context, _ int) (item, error) { return m.Get(ctx, 2, m.listens) })
		},
		"Warm": func(ctx context.Context, m *items) (item, error) {
			var v item
			r, err := m.Warm(ctx, func(yield func(int) bool) { yield(1) }, func(ctx context.Context, ids []int) (map[int]item, error) {
				var err error
				v, err = m.listens(ctx, ids[0])
				return map[int]item{1: v}, err
			}, core.WarmOptions{})
			require.Zero(t, r.Failed)
			return v, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			closing(t, func(t *testing.T, m *items, closeIt func() time.Duration) {
				got := make(chan error)
				go func() {
					v, err := get(t.Context(), m)
					if err == nil && v.Name != "one" {
						err = errors.New("no value")
					}
					got <- err
				}()
				synctest.Wait()
				joins := m.async(t.Context(), func(context.Context, int) (item, error) { panic("it is loaded already") })
				synctest.Wait()
				went := make(chan time.Duration)
				go func() { went <- closeIt() }()
				require.NoError(t, <-got)
				require.Equal(t, time.Second, <-went)
				synctest.Wait()
				require.Equal(t, "one", joins.name(t))
				m.mustLoad(t, 1, "")
				require.Equal(t, "one", m.get(t), "and who asks later loads for himself")
				m.mustLoad(t, 1, "")
			})
		})
	}
}

func TestARefreshIsCancelledByCloseUnlessSomebodyWaitsForIt(t *testing.T) {
	for name, joined := range map[string]bool{"alone": false, "joined": true} {
		t.Run(name, func(t *testing.T) {
			closing(t, func(t *testing.T, m *items, closeIt func() time.Duration) {
				m.get(t)
				time.Sleep(2*minute - time.Millisecond)
				v, err := m.Get(t.Context(), 1, m.listens) // stale, for a moment more
				require.NoError(t, err)
				require.Equal(t, "one", v.Name)
				m.loads.Store(0)
				time.Sleep(time.Millisecond)
				if !joined {
					require.Zero(t, closeIt())
					m.mustLoad(t, 100, "its context ended")
					return
				}
				waits := m.async(t.Context(), m.listens)
				synctest.Wait()
				closeIt()
				synctest.Wait()
				require.Equal(t, "one", waits.name(t))
				m.mustLoad(t, 1, "")
			})
		})
	}
}

func TestALoadIsCancelledWhenTheCacheIsClosedAndItsCallerGoes(t *testing.T) {
	for name, first := range map[string]string{"he goes first": "caller", "the cache first": "cache"} {
		t.Run(name, func(t *testing.T) {
			closing(t, func(t *testing.T, m *items, closeIt func() time.Duration) {
				ctx, cancel := context.WithCancel(t.Context())
				p := m.async(ctx, m.listens)
				synctest.Wait()
				if first == "caller" {
					cancel()
					synctest.Wait()
					require.Zero(t, closeIt())
				} else {
					time.AfterFunc(time.Millisecond, cancel)
					require.Equal(t, time.Millisecond, closeIt())
				}
				require.ErrorIs(t, p.err(t), context.Canceled)
				m.mustLoad(t, 100, "its context ended")
				cancel()
			})
		})
	}
}

func TestWhatIsKeptWarmGoesOnForThoseWhoWaitForIt(t *testing.T) {
	for name, ends := range map[string]func(cancel func(), closeIt func() time.Duration){
		"the cache is closed": func(_ func(), closeIt func() time.Duration) { closeIt() },
		"KeepWarm is ended":   func(cancel func(), _ func() time.Duration) { cancel() },
	} {
		t.Run(name, func(t *testing.T) {
			closing(t, func(t *testing.T, m *items, closeIt func() time.Duration) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				loading := make(chan struct{}, 10)
				go func() {
					_ = m.KeepWarm(ctx, func(ctx context.Context, ids []int) (map[int]item, error) {
						loading <- struct{}{}
						v, err := m.listens(ctx, ids[0])
						return map[int]item{ids[0]: v}, err
					}, core.KeepWarmOptions{Every: time.Second})
				}()
				synctest.Wait()
				m.get(t)
				m.get(t)
				m.get(t)
				require.NoError(t, m.Invalidate(t.Context(), 1))
				<-loading
				waits := m.async(t.Context(), func(context.Context, int) (item, error) { panic("it is loaded already") })
				synctest.Wait()
				ends(cancel, closeIt)
				time.Sleep(2 * time.Second)
				require.Equal(t, "one", waits.name(t))
				closeIt()
			})
		})
	}
}

// A loader's error after its time was up is not for those who waited for it, whatever
// the loader makes of that.
func TestAnErrorOfALoadThatWasCutOffIsNotShared(t *testing.T) {
	closing(t, func(t *testing.T, m *items, closeIt func() time.Duration) {
		slow := func(ctx context.Context, _ int) (item, error) {
			<-ctx.Done()
			return item{}, errors.New("the query was cancelled")
		}
		leads := m.async(t.Context(), slow)
		synctest.Wait()
		waits := m.async(t.Context(), m.load)
		time.Sleep(11 * time.Second)
		require.ErrorContains(t, leads.err(t), "cancelled")
		require.Equal(t, "one", waits.name(t))
		closeIt()
	})
}

func TestALoadThatWaitsForAnotherInstanceStopsWaitingWhenTheCacheIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list := instances(t, 2)
		a, b := newFamily(t, nil, list[0]), newFamily(t, nil, list[1])
		a.takes = 4 * time.Second
		go a.gets(1)()
		synctest.Wait()
		time.Sleep(time.Second)
		b.takes = time.Second
		began := time.Now()
		time.AfterFunc(time.Millisecond, func() { require.NoError(t, list[1].Close()) })
		b.gets(1)()
		require.Less(t, time.Since(began), 1100*time.Millisecond)
		time.Sleep(minute)
	})
}
