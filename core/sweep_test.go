package core_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/bridge"
	"github.com/larderhq/larder/core/internal/test/memtier"
	"github.com/larderhq/larder/core/internal/tier"
)

// scanned is a tier whose scans a test takes part in.
type scanned struct {
	tier.Tier
	scans  atomic.Int32
	during atomic.Pointer[func(context.Context, func() (tier.Scanned, error)) (tier.Scanned, error)]
}

func (s *scanned) Open(ctx context.Context, want tier.Layout) (tier.Session, error) {
	ses, err := s.Tier.Open(ctx, want)
	if err != nil {
		return nil, err
	}
	return &scannedSession{ses, s}, nil
}

// instead is what is done instead of scans. next does one.
func (s *scanned) instead(fn func(ctx context.Context, next func() (tier.Scanned, error)) (tier.Scanned, error)) {
	s.during.Store(&fn)
}

type scannedSession struct {
	tier.Session
	tier *scanned
}

func (s *scannedSession) Scan(ctx context.Context, scan tier.Scan) (tier.Scanned, error) {
	s.tier.scans.Add(1)
	next := func() (tier.Scanned, error) { return s.Session.Scan(ctx, scan) }
	if fn := s.tier.during.Load(); fn != nil {
		return (*fn)(ctx, next)
	}
	return next()
}

// swept is an instance whose scans the test takes part in.
func (f *fleet) swept(name string) (*instance, *scanned) {
	f.t.Helper()
	shared := &scanned{Tier: f.server.Tier(name)}
	return f.instance(name, func(o *core.Options) { o.Remote = shared }), shared
}

// longScan is a scan that takes d.
func longScan(d time.Duration) func(context.Context, func() (tier.Scanned, error)) (tier.Scanned, error) {
	return func(ctx context.Context, next func() (tier.Scanned, error)) (tier.Scanned, error) {
		select {
		case <-time.After(d):
			return next()
		case <-ctx.Done():
			return tier.Scanned{}, ctx.Err()
		}
	}
}

// loaded returns those of ids that had to be loaded.
func (in *instance) loaded(ids ...int) []int {
	in.f.t.Helper()
	var anew []int
	for _, id := range ids {
		before := in.f.loads.Load()
		in.get(id)
		if in.f.loads.Load() != before {
			anew = append(anew, id)
		}
	}
	return anew
}

func TestAPrefixInvalidatesItsKeysLiterally(t *testing.T) {
	for _, remotely := range []bool{false, true} {
		share(t, func(t *testing.T, f *fleet) {
			a := f.instance("a", func(o *core.Options) {
				if !remotely {
					o.Remote = nil
				}
			})
			names, err := core.NewMap(a.cache, core.MapOptions[string, int]{Class: "c", Prefix: "name"})
			require.NoError(t, err)
			all := []string{"a", "ab", "a*", "a*b", "a?", "a[b]", `a\`, `a\*`, "b", "A", "é"}
			load := func(context.Context, string) (int, error) { return 0, nil }
			for _, test := range []struct {
				prefix string
				gone   []string
			}{
				{"name:a", []string{"a", "ab", "a*", "a*b", "a?", "a[b]", `a\`, `a\*`}},
				{"name:a*", []string{"a*", "a*b"}},
				{"name:a?", []string{"a?"}},
				{"name:a[", []string{"a[b]"}},
				{"name:a[b]", []string{"a[b]"}},
				{`name:a\`, []string{`a\`, `a\*`}},
				{`name:a\*`, []string{`a\*`}},
				{"name:\xc3", []string{"é"}},
				{"name", all},
				{"ame", nil},
				{"name:ab:", nil},
				{"*", nil},
			} {
				for _, at := range []func() error{
					func() error { return a.cache.Invalidate(t.Context(), core.Prefix(test.prefix)) },
					func() error { _, err := a.cache.Sweep(t.Context(), core.Prefix(test.prefix)); return err },
				} {
					for _, name := range all {
						_, err := names.Get(t.Context(), name, load)
						require.NoError(t, err)
					}
					require.NoError(t, at())
					var gone []string
					for _, name := range all {
						_, err := names.Get(t.Context(), name, func(context.Context, string) (int, error) {
							gone = append(gone, name)
							return 0, nil
						})
						require.NoError(t, err)
					}
					require.Equal(t, test.gone, gone, "%q, remotely: %v", test.prefix, remotely)
				}
			}
		})
	}
}

func TestASweepReportsItsWork(t *testing.T) {
	share(t, func(t *testing.T, f *fleet) {
		a, shared := f.swept("a")
		b := f.instance("b")
		for id := range 20 {
			a.get(id)
			b.get(id)
		}
		f.data.Store(2)
		shared.instead(longScan(10 * time.Minute))
		did, err := a.cache.Sweep(t.Context(), core.Pattern("item:1?"), core.Pattern("item:7"), core.Tag("item:3"), core.Key("item:4"))
		require.NoError(t, err)
		require.NoError(t, did.Everything, "however long it takes")
		require.EqualValues(t, 11, did.Removed)
		require.EqualValues(t, tier.DefaultPartitions, did.Servers)
		require.Greater(t, did.Keys, did.Removed)
		require.Equal(t, 10*time.Minute, did.Duration)
		require.EqualValues(t, 1, shared.scans.Load(), "for all patterns together")
		synctest.Wait()
		ids := make([]int, 20)
		for i := range ids {
			ids[i] = i
		}
		require.Equal(t, []int{3, 4, 7, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19}, b.loaded(ids...))
		require.Empty(t, a.loaded(ids...))

		did, err = b.InvalidateAll(t.Context())
		require.NoError(t, err)
		require.EqualValues(t, 20, did.Removed)
		require.Equal(t, ids, b.loaded(ids...))

		// An invalidation does not wait for so long.
		require.NoError(t, a.cache.Invalidate(t.Context(), core.Pattern("item:7")))
		synctest.Wait()
		require.Equal(t, ids, b.loaded(ids...), "everything is gone")
	})
}

func TestASweepOfOneProcessInvalidates(t *testing.T) {
	bubble(t, core.Class{TTL: hour}, func(t *testing.T, m *items) {
		m.get(t)
		did, err := m.cache.Sweep(t.Context(), core.Prefix("item:"))
		require.NoError(t, err)
		require.NoError(t, m.cache.WaitEverywhere(t.Context()))
		require.Equal(t, core.SweepResult{}, did)
		m.get(t)
		m.mustLoad(t, 2, "")
		_, err = m.InvalidateAll(t.Context())
		require.NoError(t, err)
		m.get(t)
		m.mustLoad(t, 1, "")

		ended, cancel := context.WithCancel(t.Context())
		cancel()
		_, err = m.cache.Sweep(ended, core.Prefix("item:"))
		require.ErrorIs(t, err, context.Canceled)
		m.get(t)
		m.mustLoad(t, 0, "nothing was done")
		_, err = m.cache.Sweep(t.Context())
		refused(t, err, "targets", 0)
		_, err = m.cache.Sweep(t.Context(), core.Prefix("item:"), core.Pattern(""))
		refused(t, err, "Pattern", "")
		m.get(t)
		m.mustLoad(t, 0, "nothing was done")
		require.NoError(t, m.cache.Close())
		_, err = m.cache.Sweep(t.Context(), core.Prefix("item:"))
		require.ErrorIs(t, err, core.ErrClosed)
	})
}

// A load of an old value begins before the sweep. Wherever in it the load ends, its
// value is stored nowhere.
func TestALoadThatASweepOverlapsIsNotStored(t *testing.T) {
	for _, ends := range []string{"before the scan", "after the scan", "after the sweep"} {
		t.Run(ends, func(t *testing.T) {
			share(t, func(t *testing.T, f *fleet) {
				a, shared := f.swept("a")
				b := f.instance("b")
				gate := make(chan struct{})
				got := make(chan int64)
				go func() {
					v, err := b.Get(t.Context(), 1, func(context.Context, int) (int64, error) {
						old := f.data.Load()
						<-gate
						return old, nil
					})
					require.NoError(t, err)
					got <- v
				}()
				synctest.Wait()
				f.data.Store(2)
				end := func() {
					close(gate)
					require.EqualValues(t, 0, <-got, "who asked before it has the old value")
				}
				shared.instead(func(_ context.Context, next func() (tier.Scanned, error)) (tier.Scanned, error) {
					if ends == "before the scan" {
						end()
					}
					defer func() {
						if ends == "after the scan" {
							end()
						}
					}()
					return next()
				})
				_, err := a.cache.Sweep(t.Context(), core.Prefix("item:"))
				require.NoError(t, err)
				if ends == "after the sweep" {
					end()
				}
				synctest.Wait()
				require.EqualValues(t, 2, a.get(1))
				require.EqualValues(t, 2, b.get(1))
			})
		})
	}
}

// An entry that the scan has not reached may be read, and kept, until the sweep returns.
func TestAnEntryReadDuringASweepIsGoneWhenItReturns(t *testing.T) {
	share(t, func(t *testing.T, f *fleet) {
		a, shared := f.swept("a")
		b, c := f.instance("b"), f.instance("c")
		a.get(1)
		f.data.Store(2)
		shared.instead(func(_ context.Context, next func() (tier.Scanned, error)) (tier.Scanned, error) {
			synctest.Wait() // who has heard of the sweep would load now what it was just reading
			require.Zero(t, b.get(1), "it is there yet")
			require.Zero(t, a.get(1))
			return next()
		})
		_, err := a.cache.Sweep(t.Context(), core.Prefix("item:"))
		require.NoError(t, err)
		require.EqualValues(t, 2, a.get(1))
		synctest.Wait()
		require.EqualValues(t, 2, b.get(1))
		require.EqualValues(t, 2, c.get(1))
	})
}

func TestASweepThatCannotFinishInvalidatesEverything(t *testing.T) {
	for name, test := range map[string]struct {
		during func(context.Context, func() (tier.Scanned, error)) (tier.Scanned, error)
		why    error // nil: another
	}{
		"its time is up": {longScan(time.Hour), context.DeadlineExceeded},
		"servers moved": {func(context.Context, func() (tier.Scanned, error)) (tier.Scanned, error) {
			return tier.Scanned{Servers: 3, Keys: 9, Removed: 1}, nil
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			share(t, func(t *testing.T, f *fleet) {
				a, shared := f.swept("a")
				b := f.instance("b")
				a.get(1)
				a.get(2)
				require.Empty(t, b.loaded(1, 2))
				shared.instead(test.during)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				did, err := a.cache.Sweep(ctx, core.Prefix("item:1"))
				require.NoError(t, err, "what was asked for holds")
				require.Error(t, did.Everything)
				if test.why != nil {
					require.ErrorIs(t, did.Everything, test.why)
				} else {
					require.EqualValues(t, 1, did.Removed)
				}
				time.Sleep(time.Second) // the new eras are known
				require.Equal(t, []int{1, 2}, b.loaded(1, 2))
				require.Empty(t, a.loaded(1, 2))
			})
		})
	}
}

func TestASweepWhoseServerFailsIsPendingAndHoldsHere(t *testing.T) {
	share(t, func(t *testing.T, f *fleet) {
		a, shared := f.swept("a")
		b := f.instance("b")
		a.get(1)
		f.data.Store(2)
		broken := errors.New("broken")
		shared.instead(func(context.Context, func() (tier.Scanned, error)) (tier.Scanned, error) {
			return tier.Scanned{Removed: 5}, broken
		})
		did, err := a.cache.Sweep(t.Context(), core.Prefix("item:"))
		require.ErrorIs(t, err, core.ErrPending)
		require.ErrorIs(t, err, broken)
		require.NoError(t, did.Everything)
		require.EqualValues(t, 5, did.Removed)
		require.EqualValues(t, 2, a.get(1))
		require.Equal(t, 1, bridge.Of(a.cache).Engine.Pending())
		shared.during.Store(nil)
		time.Sleep(2 * time.Second)
		require.Zero(t, bridge.Of(a.cache).Engine.Pending())
		require.EqualValues(t, 2, b.get(1))
	})
}

func TestASecondSweepWaitsWithinItsContext(t *testing.T) {
	share(t, func(t *testing.T, f *fleet) {
		a, shared := f.swept("a")
		a.get(1)
		a.get(2)
		shared.instead(longScan(time.Minute))
		first := make(chan error)
		go func() {
			_, err := a.cache.Sweep(t.Context(), core.Key("item:3"), core.Prefix("item:3"))
			first <- err
		}()
		synctest.Wait()
		hasty, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := a.cache.Sweep(hasty, core.Prefix("item:1"))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NotErrorIs(t, err, core.ErrPending)
		require.Empty(t, a.loaded(1, 2), "nothing was done")
		did, err := a.cache.Sweep(t.Context(), core.Prefix("item:2"))
		require.NoError(t, err)
		require.NoError(t, <-first)
		require.Equal(t, 2*time.Minute-time.Second, did.Duration)
		require.Equal(t, []int{2}, a.loaded(1, 2))
		require.NoError(t, a.cache.Invalidate(t.Context(), core.Key("item:1")), "an invalidation does not wait for it")
	})
}

// The steps around the scan have a second each, and are made although the caller's
// time is up.
func TestASweepOfASilentTierEndsPending(t *testing.T) {
	share(t, func(t *testing.T, f *fleet) {
		a := f.instance("a")
		a.get(1)
		f.server.SetFaults(memtier.Faults{RequestLost: 1, Silent: 1})
		began := time.Now()
		did, err := a.cache.Sweep(t.Context(), core.Prefix("item:"), core.Key("x"))
		require.ErrorIs(t, err, core.ErrPending)
		require.Zero(t, did.Removed)
		require.Equal(t, 2*time.Second, time.Since(began))
		require.Equal(t, 2, bridge.Of(a.cache).Engine.Pending())
		f.data.Store(2)
		require.EqualValues(t, 2, a.get(1))
		f.server.SetFaults(memtier.Faults{})
		time.Sleep(3 * time.Second)
		require.Zero(t, bridge.Of(a.cache).Engine.Pending())
		require.EqualValues(t, 2, a.get(1))
	})
}
