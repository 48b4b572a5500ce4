package core_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/test/memtier"
	"github.com/larderhq/larder/core/internal/tier"
)

// validating is a loader that answers by the version of what is there, as an origin
// does by its ETag. It notes what it was offered.
type validating struct {
	m       *items
	offered []string
	before  func() // called before it asks what it replaces
	after   func() // and after that
	tags    []string
	coarse  bool // its validator does not tell of a change
}

func (l *validating) load(ctx context.Context, id int) (item, error) {
	call(l.before)
	old, validator, ok := core.StaleValue[item](ctx)
	call(l.after)
	l.offered = append(l.offered, fmt.Sprint(old.Name, "/", validator, "/", ok))
	v, err := l.m.load(ctx, id)
	if err == nil {
		err = core.AddTags(ctx, l.tags...)
	}
	if err != nil {
		return v, err
	}
	if ok && (l.coarse || validator == "is "+v.Name) {
		return item{}, fmt.Errorf("the row is as it was: %w", core.ErrNotModified)
	}
	return v, core.SetValidator(ctx, "is "+v.Name)
}

func call(fn func()) {
	if fn != nil {
		fn()
	}
}

func (l *validating) get(t *testing.T) string {
	t.Helper()
	v, err := l.m.Get(t.Context(), 1, l.load)
	require.NoError(t, err)
	return v.Name
}

// offers demands what the loader was offered since the last time.
func (l *validating) offers(t *testing.T, want ...string) {
	t.Helper()
	require.Equal(t, want, l.offered)
	l.offered = nil
}

// eachTier runs a test without and with a shared tier.
func eachTier(t *testing.T, class core.Class, test func(t *testing.T, l *validating), opts ...option[item]) {
	t.Helper()
	for _, name := range []string{"this process", "a shared tier"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := core.Options{Classes: core.Classes{"item": class}}
				if name == "a shared tier" {
					server := memtier.New(memtier.Config{})
					defer server.Close()
					o.Remote = server.Tier("a")
					m := itemsOf(t, open(t, o), opts...)
					synctest.Wait()
					test(t, &validating{m: m})
					require.NoError(t, m.cache.Close())
					return
				}
				test(t, &validating{m: itemsOf(t, open(t, o), opts...)})
			})
		})
	}
}

func TestErrNotModifiedKeepsTheValueForAnotherTTL(t *testing.T) {
	clone := cloned(func(v item) item { v.Tags = slices.Clone(v.Tags); return v })
	for name, opts := range map[string][]option[item]{"decoded": nil, "cloned": {clone}} {
		t.Run(name, func(t *testing.T) {
			eachTier(t, core.Class{TTL: minute}, func(t *testing.T, l *validating) {
				require.Equal(t, "one", l.get(t))
				l.offers(t, "//false")
				for range 3 {
					time.Sleep(minute)
					require.Equal(t, "one", l.get(t))
					l.offers(t, "one/is one/true")
					time.Sleep(minute - time.Second)
					require.Equal(t, "one", l.get(t))
					l.offers(t)
					time.Sleep(time.Second)
				}
				l.m.name.Store("two")
				require.Equal(t, "two", l.get(t))
				l.offers(t, "one/is one/true")
				time.Sleep(minute + hour) // it has been kept for long enough
				require.Equal(t, "two", l.get(t))
				l.offers(t, "//false")
			}, opts...)
		})
	}
}

func TestErrNotModifiedOfARefreshMakesTheValueFresh(t *testing.T) {
	eachTier(t, core.Class{TTL: minute, StaleWhileRevalidate: minute}, func(t *testing.T, l *validating) {
		l.get(t)
		time.Sleep(minute)
		require.Equal(t, "one", l.get(t))
		synctest.Wait()
		l.offers(t, "//false", "one/is one/true")
		r, err := l.m.Lookup(t.Context(), 1, l.load)
		require.NoError(t, err)
		require.Equal(t, core.Result[item]{Value: item{Name: "one"}, Source: core.FromProcess, Fresh: minute}, r)
	})
}

// A validator is of use in its own window, and for no other purpose.
func TestAValueKeptForValidationDoesNotStandInForAnError(t *testing.T) {
	eachTier(t, core.Class{TTL: minute, StaleIfError: minute}, func(t *testing.T, l *validating) {
		l.get(t)
		time.Sleep(2*minute - 1)
		l.m.fail(errDown)
		require.Equal(t, "one", l.get(t))
		time.Sleep(1)
		_, err := l.m.Get(t.Context(), 1, l.load)
		require.ErrorIs(t, err, errDown)
		l.m.fail(nil)
		l.offered = nil
		require.Equal(t, "one", l.get(t))
		l.offers(t, "one/is one/true")
	})
}

func TestStaleValueOffersOnlyValidatableValues(t *testing.T) {
	eachTier(t, core.Class{TTL: minute, StaleIfError: minute, NegativeTTL: time.Second}, func(t *testing.T, l *validating) {
		ctx := t.Context()
		never := func(context.Context, int) (item, error) { return item{}, core.ErrNotModified }
		_, err := l.m.Get(ctx, 1, never)
		require.ErrorIs(t, err, core.ErrNotModified)
		require.ErrorContains(t, err, "no stale value to renew")

		l.m.fail(core.ErrNotFound) // what is not there is not offered
		_, err = l.m.Get(ctx, 1, l.load)
		require.ErrorIs(t, err, core.ErrNotFound)
		time.Sleep(time.Second)
		l.m.fail(nil)
		l.get(t)
		l.offers(t, "//false", "//false")

		_, err = l.m.GetMany(ctx, []int{5}, func(ctx context.Context, _ []int) (map[int]item, error) {
			_, _, ok := core.StaleValue[item](ctx)
			require.False(t, ok)
			require.ErrorIs(t, core.SetValidator(ctx, "x"), core.ErrNoScope)
			return nil, core.ErrNotModified
		})
		require.ErrorIs(t, err, core.ErrNotModified)

		time.Sleep(minute)
		v, err := l.m.Get(ctx, 1, func(ctx context.Context, _ int) (item, error) {
			_, _, ok := core.StaleValue[string](ctx)
			require.False(t, ok, "another type")
			var ce *core.ConfigError
			require.ErrorAs(t, core.SetValidator(ctx, ""), &ce)
			require.ErrorAs(t, core.SetValidator(ctx, strings.Repeat("x", core.MaxValidatorBytes+1)), &ce)
			return item{Name: "other"}, nil
		})
		require.NoError(t, err)
		require.Equal(t, "other", v.Name)

		_, _, ok := core.StaleValue[item](ctx)
		require.False(t, ok)
		require.ErrorIs(t, core.SetValidator(ctx, "x"), core.ErrNoScope)
		l.m.cache.SetEnabled(false)
		l.offered = nil
		require.Equal(t, "one", l.get(t))
		l.offers(t, "//false")
	})
}

func TestALoaderCannotChangeTheStoredStaleValue(t *testing.T) {
	clone := cloned(func(v item) item { v.Tags = slices.Clone(v.Tags); return v })
	for name, opts := range map[string][]option[item]{"decoded": nil, "cloned": {clone}} {
		t.Run(name, func(t *testing.T) {
			eachTier(t, core.Class{TTL: minute, StaleIfError: hour}, func(t *testing.T, l *validating) {
				load := func(ctx context.Context, _ int) (item, error) {
					for range 2 {
						v, _, ok := core.StaleValue[item](ctx)
						if !ok {
							return item{Tags: []string{"a"}}, nil
						}
						require.Equal(t, []string{"a"}, v.Tags)
						v.Tags[0] = "spoiled"
					}
					return item{}, core.ErrNotModified
				}
				for range 3 {
					v, err := l.m.Get(t.Context(), 1, load)
					require.NoError(t, err)
					require.Equal(t, []string{"a"}, v.Tags)
					time.Sleep(minute)
				}
			}, opts...)
		})
	}
}

func TestAValidatedValueTakesTheLoadersTagsAndTTL(t *testing.T) {
	class := core.Class{TTL: minute, StaleIfError: hour}
	for name, test := range map[string]struct {
		say  func(ctx context.Context) error
		then func(t *testing.T, l *validating)
	}{
		"a TTL": {func(ctx context.Context) error { return core.SetTTL(ctx, hour) }, func(t *testing.T, l *validating) {
			time.Sleep(hour - 1)
			l.get(t)
			l.offers(t)
		}},
		"another validator": {func(ctx context.Context) error { return core.SetValidator(ctx, "other") }, func(t *testing.T, l *validating) {
			time.Sleep(minute)
			l.get(t)
			l.offers(t, "one/other/true")
		}},
		"not to store": {core.NoStore, func(t *testing.T, l *validating) {
			l.get(t)
			l.offers(t, "//false")
		}},
		"too many tags": {func(ctx context.Context) error {
			for i := range core.MaxTagsPerEntry {
				if err := core.AddTags(ctx, fmt.Sprint("tag", i)); err != nil {
					return err
				}
			}
			return nil
		}, func(t *testing.T, l *validating) {
			l.get(t)
			l.offers(t, "//false")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			eachTier(t, class, func(t *testing.T, l *validating) {
				l.tags = []string{"list"}
				l.get(t)
				time.Sleep(minute)
				v, err := l.m.Get(t.Context(), 1, func(ctx context.Context, _ int) (item, error) {
					_, _, ok := core.StaleValue[item](ctx)
					require.True(t, ok)
					return item{}, errors.Join(core.ErrNotModified, test.say(ctx))
				})
				require.NoError(t, err)
				require.Equal(t, "one", v.Name)
				l.offered = nil
				test.then(t, l)
			})
		})
	}
}

var renewalTargets = map[string]core.Target{
	"key": core.Key("item:1"), "own tag": core.Tag("item:1"), "late tag": core.Tag("list"), "pattern": core.Pattern("item:?"), "all": core.All(),
}

// An invalidated value is not renewed, at whatever time the invalidation comes, also by a
// loader with a coarse validator.
func TestAValueInvalidatedDuringItsValidationIsNotRenewed(t *testing.T) {
	for name, target := range renewalTargets {
		for _, when := range []string{"before the offer", "after the offer", "after the load"} {
			t.Run(name+" "+when, func(t *testing.T) {
				eachTier(t, core.Class{TTL: minute, StaleIfError: hour}, func(t *testing.T, l *validating) {
					l.coarse, l.tags = true, []string{"list"}
					l.get(t)
					time.Sleep(minute)
					invalidate := func() {
						l.m.name.Store("two")
						require.NoError(t, l.m.cache.Invalidate(t.Context(), target))
					}
					l.tags = nil // the value is the same: so are its tags
					switch when {
					case "before the offer":
						l.before = invalidate
					case "after the offer":
						l.after = invalidate
					}
					l.get(t)
					if when == "after the load" {
						invalidate()
					}
					l.before, l.after = nil, nil
					synctest.Wait()
					require.Equal(t, "two", l.get(t))
				})
			})
		}
	}
}

// The same, by an instance whose messages do not arrive: a value whose invalidation this
// instance has not seen would be valid again for all.
func TestAValueInvalidatedByAnotherInstanceIsNotRenewed(t *testing.T) {
	for name, target := range renewalTargets {
		for _, when := range []string{"before the load", "before the offer", "after the offer"} {
			t.Run(name+" "+when, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					server := memtier.New(memtier.Config{})
					defer server.Close()
					instance := func(name string) *items {
						return itemsOf(t, open(t, core.Options{
							Remote: server.Tier(name), Classes: core.Classes{"item": {TTL: minute, StaleIfError: hour}},
						}))
					}
					l, b := &validating{m: instance("a"), coarse: true, tags: []string{"list"}}, instance("b")
					synctest.Wait()
					l.get(t)
					time.Sleep(minute)
					synctest.Wait()
					server.SetFaults(memtier.Faults{HintLost: 1})
					invalidate := func() {
						l.m.name.Store("two")
						require.NoError(t, b.cache.Invalidate(t.Context(), target))
					}
					l.tags = nil
					switch when {
					case "before the load":
						invalidate()
					case "before the offer":
						l.before = invalidate
					case "after the offer":
						l.after = invalidate
					}
					l.get(t)
					l.before, l.after, l.coarse = nil, nil, false
					time.Sleep(time.Second + time.Millisecond)
					require.Equal(t, "two", l.get(t))
					b.name.Store("two")
					require.Equal(t, "two", b.get(t))
				})
			})
		}
	}
}

// scanning is a tier whose scan is held up.
type scanning struct {
	core.Remote
	before, after func()
}

func (s scanning) Open(ctx context.Context, l tier.Layout) (tier.Session, error) {
	ses, err := s.Remote.Open(ctx, l)
	return scanningSession{ses, s}, err
}

type scanningSession struct {
	tier.Session
	s scanning
}

func (s scanningSession) Scan(ctx context.Context, what tier.Scan) (tier.Scanned, error) {
	s.s.before()
	did, err := s.Session.Scan(ctx, what)
	s.s.after()
	return did, err
}

// The scan of a pattern takes its time: what it has not reached yet must not be
// filled in again behind it.
func TestAValueThatAScanPassesDuringItsValidationIsNotRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := memtier.New(memtier.Config{})
		defer server.Close()
		o := core.Options{Remote: server.Tier("a"), Classes: core.Classes{"item": {TTL: minute, StaleIfError: hour}}}
		l := &validating{m: itemsOf(t, open(t, o)), coarse: true}
		var got *pending
		scanned := make(chan struct{})
		o.Remote = scanning{server.Tier("b"), func() {
			synctest.Wait()                 // the pattern has been heard of
			l.before = func() { <-scanned } // it has read what is there, and has the lease
			got = l.m.async(t.Context(), l.load)
			synctest.Wait()
		}, func() {
			close(scanned)
			synctest.Wait()
		}}
		b := itemsOf(t, open(t, o))
		synctest.Wait()
		l.get(t)
		time.Sleep(minute)
		l.m.name.Store("two")
		require.NoError(t, b.cache.Invalidate(t.Context(), core.Pattern("item:*")))
		require.True(t, got.done())
		l.before, l.coarse = nil, false
		require.Equal(t, "two", l.get(t))
		b.name.Store("two")
		require.Equal(t, "two", b.get(t))
	})
}

func TestWaitersOfAValidationLoadAgainAfterItsTagIsInvalidated(t *testing.T) {
	eachTier(t, core.Class{TTL: minute, StaleIfError: hour}, func(t *testing.T, l *validating) {
		l.tags = []string{"list"}
		l.get(t)
		time.Sleep(minute)
		l.tags, l.coarse = nil, true
		offered, renew := make(chan struct{}), make(chan struct{})
		l.after = func() { close(offered); <-renew }
		one := l.m.async(t.Context(), l.load)
		<-offered
		l.m.name.Store("two")
		require.NoError(t, l.m.cache.Invalidate(t.Context(), core.Tag("list")))
		two := l.m.async(t.Context(), l.m.load)
		synctest.Wait()
		l.after = nil
		close(renew)
		synctest.Wait()
		require.Equal(t, "one", one.name(t), "it asked before")
		require.Equal(t, "two", two.name(t))
	})
}

func TestAnIntentThatExpiresDuringAValidationPreventsIt(t *testing.T) {
	eachTier(t, core.Class{TTL: minute, StaleIfError: hour, LoadTimeout: hour}, func(t *testing.T, l *validating) {
		_, err := l.m.cache.Begin(t.Context(), core.Tag("item:1"))
		require.NoError(t, err)
		l.coarse = true
		_, err = l.m.Get(t.Context(), 1, func(ctx context.Context, id int) (item, error) {
			require.NoError(t, core.SetTTL(ctx, time.Second))
			return l.m.load(ctx, id)
		})
		require.NoError(t, err)
		time.Sleep(writeTimeout - time.Second)
		l.m.name.Store("two") // it commits, and is never heard of again
		l.after = func() { time.Sleep(2 * time.Second) }
		l.get(t)
		l.after, l.coarse = nil, false
		require.Equal(t, "two", l.get(t))
	})
}
