package redisstore_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/httpcache"
	"github.com/larderhq/larder/nethttp"
)

// The first instance that is asked loads. The other one has it from Redis, and each from
// its own memory after that.
func showCacheAside(p *pair) {
	p.open(core.Class{TTL: time.Hour})
	p.db.set(7, product{Name: "tea"})
	for _, step := range []struct {
		in   *app
		from core.Source
	}{{p.a, core.FromLoader}, {p.b, core.FromRemote}, {p.b, core.FromProcess}, {p.a, core.FromProcess}} {
		r := p.lookup(step.in, 7)
		require.Equal(p, "tea", r.Value.Name)
		require.Equal(p, step.from.String(), r.Source.String())
		require.False(p, r.Stale)
	}
	p.loaded(7)
}

// That there is no such id is known to both after one load, until it is made.
func showNegativeCaching(p *pair) {
	p.open(core.Class{TTL: time.Hour, NegativeTTL: time.Hour})
	for _, in := range []*app{p.a, p.b, p.b, p.a} {
		_, err := in.Get(p.Context(), 7, p.db.load)
		require.ErrorIs(p, err, core.ErrNotFound)
	}
	p.loaded(7)
	v := product{Name: "tea"}
	p.db.set(7, v)
	require.NoError(p, p.a.Put(p.Context(), 7, v))
	p.has(p.a, 7, "tea")
	p.comesToHit(p.b, 7, "tea")
	p.loaded()
}

// A loader gets the value that another instance loaded, and its validator, and says that
// it still holds.
func showValidation(p *pair) {
	p.open(core.Class{TTL: time.Hour})
	p.db.set(7, product{Name: "tea"})
	_, err := p.a.Get(p.Context(), 7, func(ctx context.Context, id int) (product, error) {
		if err := core.SetValidator(ctx, "changed on Monday"); err != nil {
			return product{}, err
		}
		return p.db.loadShort(ctx, id)
	})
	require.NoError(p, err)
	p.loaded(7)
	var validated atomic.Bool
	validate := func(ctx context.Context, _ int) (product, error) {
		old, validator, ok := core.StaleValue[product](ctx)
		if !ok || old.Name != "tea" || validator != "changed on Monday" {
			return product{}, fmt.Errorf("no stale value: %v, %q", old, validator)
		}
		validated.Store(true)
		return product{}, core.ErrNotModified // SELECT … WHERE changed > … has no row
	}
	p.until("the value is stale", func() bool {
		v, err := p.b.Get(p.Context(), 7, validate)
		require.NoError(p, err)
		require.Equal(p, "tea", v.Name)
		return validated.Load()
	})
	r := p.lookup(p.b, 7)
	require.Equal(p, "tea", r.Value.Name)
	require.Greater(p, r.Fresh, time.Minute, "for another TTL")
	p.loaded()
}

// Both answer the stale value while one of them reloads it.
func showStaleWhileRevalidate(p *pair) {
	p.open(core.Class{TTL: time.Hour, StaleWhileRevalidate: time.Hour})
	p.db.set(7, product{Name: "tea"})
	_, err := p.a.Get(p.Context(), 7, p.db.loadShort)
	require.NoError(p, err)
	p.db.set(7, product{Name: "coffee"})
	_, release := p.db.hold()
	defer release()
	for _, in := range []*app{p.a, p.b} {
		p.until("a stale answer", func() bool {
			r := p.lookup(in, 7)
			require.Equal(p, "tea", r.Value.Name)
			return r.Stale
		})
	}
	release()
	p.comesToHave(p.a, 7, "coffee")
	p.comesToHave(p.b, 7, "coffee")
	p.loaded(7, 7)
}

// A stale value is answered by both while the database is down.
func showStaleOnError(p *pair) {
	p.open(core.Class{TTL: time.Hour, StaleIfError: time.Hour})
	p.db.set(7, product{Name: "tea"})
	_, err := p.a.Get(p.Context(), 7, p.db.loadShort)
	require.NoError(p, err)
	p.db.fail(errDatabaseDown)
	for _, in := range []*app{p.a, p.b} {
		p.until("an answer in place of an error", func() bool {
			r := p.lookup(in, 7)
			require.Equal(p, "tea", r.Value.Name)
			if r.Instead == nil {
				return false
			}
			require.ErrorIs(p, r.Instead, errDatabaseDown)
			return r.Stale
		})
	}
	p.db.fail(nil)
	p.db.set(7, product{Name: "coffee"})
	p.comesToHave(p.a, 7, "coffee")
	p.comesToHave(p.b, 7, "coffee")
}

// A hundred callers ask both instances for one absent value: one load.
func showStampedeLock(p *pair) {
	p.open(core.Class{TTL: time.Hour})
	p.db.set(7, product{Name: "tea"})
	began, release := p.db.hold()
	defer release()
	missedA, missedB := p.a.cache.Stats().Misses, p.b.cache.Stats().Misses
	const each = 50
	var asking sync.WaitGroup
	for _, in := range []*app{p.a, p.b} {
		for range each {
			asking.Go(func() {
				if v, err := in.Get(p.Context(), 7, p.db.load); err != nil || v.Name != "tea" {
					p.Errorf("%v, %v", v, err)
				}
			})
		}
	}
	receive(p, began)
	p.until("all wait", func() bool {
		return p.a.cache.Stats().Misses == missedA+each && p.b.cache.Stats().Misses == missedB+each
	})
	release()
	asking.Wait()
	p.loaded(7)
}

// How long a value lives is a matter of its class, and of the default class where a map
// names none.
func showClasses(p *pair) {
	p.openWith(func(o *core.Options) {
		o.Classes = core.Classes{"": {TTL: time.Hour}, "product": {TTL: time.Minute}, "country": {TTL: 24 * time.Hour}}
	})
	for class, ttl := range map[string]time.Duration{"": time.Hour, "product": time.Minute, "country": 24 * time.Hour} {
		for _, in := range []*app{p.a, p.b} { // in memory, and in Redis
			m, err := core.NewMap(in.cache, core.MapOptions[int, string]{Class: class, Prefix: "of the class " + class})
			require.NoError(p, err)
			r, err := m.Lookup(p.Context(), 1, func(context.Context, int) (string, error) { return "v", nil })
			require.NoError(p, err)
			require.Equal(p, in == p.b, r.Source == core.FromRemote)
			if in == p.b {
				require.LessOrEqual(p, r.Fresh, ttl)
				require.Greater(p, r.Fresh, ttl/2)
			}
		}
	}
}

// A reload of the configuration changes the TTL of values that are stored from then
// on, at every reader.
func showSetClasses(p *pair) {
	p.open(core.Class{TTL: time.Minute})
	require.NoError(p, p.a.Put(p.Context(), 1, product{Name: "tea"}))
	classes := p.a.cache.Options().Classes
	class := classes["product"]
	class.TTL = 24 * time.Hour
	classes["product"] = class
	require.NoError(p, p.a.cache.SetClasses(classes))
	require.NoError(p, p.a.Put(p.Context(), 2, product{Name: "tea"}))
	require.LessOrEqual(p, p.lookup(p.b, 1).Fresh, time.Minute)
	require.Greater(p, p.lookup(p.b, 2).Fresh, time.Hour)
	p.loaded()

	delete(classes, "product")
	var wrong *core.ConfigError
	require.ErrorAs(p, p.a.cache.SetClasses(classes), &wrong)
	require.Equal(p, `Classes["product"]`, wrong.Field)
}

// One load fetches all missing ids. Ids that fail do not fail the others.
func showGetMany(p *pair) {
	p.open(core.Class{TTL: time.Hour, NegativeTTL: time.Hour})
	for id := 1; id <= 6; id++ {
		p.db.set(id, product{Stock: id})
	}
	p.lookup(p.a, 2)
	p.loaded(2)
	var calls [][]int
	load := func(ctx context.Context, ids []int) (map[int]product, error) {
		calls = append(calls, slices.Sorted(slices.Values(ids)))
		return p.db.loadMany(ctx, ids)
	}
	for _, in := range []*app{p.b, p.a} {
		found, err := in.GetMany(p.Context(), []int{1, 2, 3, 4, 5, 6, 9}, load)
		require.NoError(p, err)
		require.Len(p, found, 6, "9 does not exist")
		require.Equal(p, 2, found[2].Stock)
	}
	require.Equal(p, [][]int{{1, 3, 4, 5, 6, 9}}, calls)

	found, err := p.b.GetMany(p.Context(), []int{1, 10, 11}, func(context.Context, []int) (map[int]product, error) {
		return map[int]product{10: {Stock: 10}}, core.BatchError[int]{11: errDatabaseDown}
	})
	var failed core.BatchError[int]
	require.ErrorAs(p, err, &failed)
	require.Len(p, failed, 1)
	require.ErrorIs(p, failed[11], errDatabaseDown)
	require.Equal(p, map[int]product{1: {Stock: 1}, 10: {Stock: 10}}, found)
}

func showPutMany(p *pair) {
	p.open(core.Class{TTL: time.Hour})
	for id := 1; id <= 3; id++ {
		p.db.set(id, product{Name: "tea"})
		p.has(p.a, id, "tea")
		p.has(p.b, id, "tea")
	}
	p.loaded(1, 2, 3)
	changed := map[int]product{1: {Name: "coffee"}, 2: {Name: "coffee"}}
	for id, v := range changed {
		p.db.set(id, v)
	}
	require.NoError(p, p.a.PutMany(p.Context(), changed))
	for id := range changed {
		p.has(p.a, id, "coffee")
		p.comesToHit(p.b, id, "coffee")
	}
	p.loaded() // they were put
	p.db.set(1, product{Name: "milk"})
	p.db.set(3, product{Name: "milk"})
	require.NoError(p, p.b.InvalidateMany(p.Context(), []int{1, 3}))
	p.has(p.b, 1, "milk")
	p.has(p.b, 3, "milk")
	p.comesToHave(p.a, 1, "milk")
	p.comesToHave(p.a, 3, "milk")
	p.has(p.a, 2, "coffee")
	p.loadedAnew(1, 3)
}

// invalidation is one of the ways.
type invalidation struct {
	gone []int // of 1, 2, 3 and 10, of which 2 and 10 have the tag "even"
	do   func(p *pair) error
}

var (
	byKey     = invalidation{[]int{1}, func(p *pair) error { return p.a.Invalidate(p.Context(), 1) }}
	byTag     = invalidateBy(core.Tag("even"), 2, 10)
	byPattern = invalidateBy(core.Pattern("product:[13]*"), 1, 3, 10)
	byPrefix  = invalidateBy(core.Prefix("product:1"), 1, 10)
	ofAll     = invalidateBy(core.All(), 1, 2, 3, 10)
	// bySweep is for patterns over a Redis of any size, and counts its work.
	bySweep = invalidation{[]int{1, 10}, func(p *pair) error {
		did, err := p.a.cache.Sweep(p.Context(), core.Prefix("product:1"))
		require.NoError(p, did.Everything, "what was named was enough")
		require.Len(p, p.redis.masters, did.Servers)
		require.EqualValues(p, 2, did.Removed)
		return err
	}}
)

func invalidateBy(target core.Target, gone ...int) invalidation {
	return invalidation{gone, func(p *pair) error {
		ctx, cancel := context.WithTimeout(p.Context(), 30*time.Second) // a scan has half of it
		defer cancel()
		return p.a.cache.Invalidate(ctx, target)
	}}
}

// Both instances have the values in memory. The values that one invalidates, and no others,
// are loaded again, and both have them.
func showInvalidation(by invalidation) func(p *pair) {
	return func(p *pair) {
		p.open(core.Class{TTL: time.Hour})
		ids := []int{1, 2, 3, 10}
		get := func(in *app, id int) string {
			v, err := in.Get(p.Context(), id, func(ctx context.Context, id int) (product, error) {
				if id%2 == 0 {
					if err := core.AddTags(ctx, "even"); err != nil {
						return product{}, err
					}
				}
				return p.db.load(ctx, id)
			})
			require.NoError(p, err)
			return v.Name
		}
		for _, id := range ids {
			p.db.set(id, product{Name: "tea"})
			require.Equal(p, "tea", get(p.a, id))
			require.Equal(p, "tea", get(p.b, id))
			p.db.set(id, product{Name: "coffee"})
		}
		p.loaded(ids...)
		require.NoError(p, by.do(p))
		want := func(id int) string {
			if slices.Contains(by.gone, id) {
				return "coffee"
			}
			return "tea"
		}
		for _, id := range ids {
			require.Equal(p, want(id), get(p.a, id))
			p.until(fmt.Sprint("the other one has heard of it: ", id), func() bool { return get(p.b, id) == want(id) })
		}
		p.loadedAnew(by.gone...)
	}
}

// InvalidateEverywhere returns when no instance serves the old value any more, even if every
// message to the other instance is lost.
func showEverywhere(p *pair) {
	p.openWith(func(o *core.Options) {
		o.Classes["product"] = core.Class{TTL: time.Hour}
		o.MaxStaleness = time.Second // for which it waits
	})
	p.db.set(7, product{Name: "tea"})
	p.has(p.a, 7, "tea")
	p.has(p.b, 7, "tea")
	p.db.set(7, product{Name: "coffee"})
	p.b.wire.deaf.Store(true)
	require.NoError(p, p.a.cache.InvalidateEverywhere(p.Context(), core.Key("product:7")))
	p.has(p.b, 7, "coffee")
}

// The watchdog runs once an hour at most, so the other instance learns of changes only by
// messages.
func showMessages(p *pair) {
	p.openWith(func(o *core.Options) {
		o.Classes["product"] = core.Class{TTL: time.Hour}
		o.MaxStaleness = time.Hour
	})
	p.listens()
	for id := range probed {
		p.db.set(id, product{Name: "coffee"})
		require.NoError(p, p.a.Invalidate(p.Context(), id))
		p.comesToHave(p.b, id, "coffee")
	}
}

// listens waits until b receives a's messages for all probed ids, and has "tea" for them.
func (p *pair) listens() {
	p.Helper()
	for id := range probed {
		p.db.set(id, product{Name: "milk"})
		p.has(p.b, id, "milk")
		p.db.set(id, product{Name: "tea"})
		p.until("it listens", func() bool {
			require.NoError(p, p.a.Invalidate(p.Context(), id))
			return p.lookup(p.b, id).Value.Name == "tea"
		})
	}
}

// Any program may tell all instances, in a line that redis-cli can send.
func showForeignMessages(p *pair) {
	p.open(core.Class{TTL: time.Hour})
	p.db.set(7, product{Name: "tea"})
	p.has(p.a, 7, "tea")
	p.has(p.b, 7, "tea")
	p.db.set(7, product{Name: "coffee"})
	other := p.redis.client(nil)
	defer other.Close()
	for _, in := range []*app{p.a, p.b} {
		p.until("it has heard of it", func() bool { // a subscriber that is late misses the message
			require.NoError(p, other.Publish(p.Context(), p.space+":invalidate", "tag:product:7").Err())
			return p.lookup(in, 7).Value.Name == "coffee"
		})
	}
}

// Both instances have the values that one of them has warmed.
func showWarm(p *pair) {
	p.open(core.Class{TTL: time.Hour})
	var ids []int
	for id := range 50 {
		p.db.set(id, product{Name: "tea"})
		ids = append(ids, id)
	}
	p.has(p.b, 3, "tea")
	done, err := p.a.Warm(p.Context(), slices.Values(ids), p.db.loadMany, core.WarmOptions{Batch: 20, PerSecond: 10_000})
	require.NoError(p, err)
	require.Equal(p, 50, done.Items)
	require.Equal(p, 49, done.Filled, "one was there")
	p.loaded(ids...)
	for _, in := range []*app{p.a, p.b} {
		found, err := in.GetMany(p.Context(), ids, p.db.loadMany)
		require.NoError(p, err)
		require.Len(p, found, 50)
	}
	p.loaded()
}

// A value that either instance writes during a warming stays.
func showWarmBesideWrites(p *pair) {
	p.open(core.Class{TTL: time.Hour})
	for id := 1; id <= 3; id++ {
		p.db.set(id, product{Name: "tea"})
	}
	began, release := p.db.hold()
	defer release()
	warmed := make(chan error, 1)
	go func() {
		_, err := p.a.Warm(p.Context(), slices.Values([]int{1, 2, 3}), p.db.loadMany, core.WarmOptions{})
		warmed <- err
	}()
	receive(p, began) // it has read
	require.NoError(p, p.b.Write(p.Context(), 1, product{Name: "coffee"}, p.db.save))
	p.db.set(2, product{Name: "coffee"})
	require.NoError(p, p.b.Invalidate(p.Context(), 2))
	release()
	require.NoError(p, receive(p, warmed))
	p.loadedAgain(2, 1, 2, 3) // unless a has received the message of the invalidation before
	for _, in := range []*app{p.a, p.b} {
		p.comesToHave(in, 1, "coffee")
		p.comesToHave(in, 2, "coffee")
		p.has(in, 3, "tea")
	}
}

// URLs are warmed through the handlers that serve them.
func showWarmURLs(p *pair) {
	p.open(core.Class{TTL: time.Hour})
	var runs atomic.Int64
	server := func(in *app) http.Handler {
		mux := http.NewServeMux()
		page := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			runs.Add(1)
			fmt.Fprint(w, "page ", r.PathValue("id"))
		})
		mux.Handle("GET /products/{id}", nethttp.Cache(in.cache, "product", "product:{id}")(page))
		return mux
	}
	urls := []string{"http://example.com/products/1", "http://example.com/products/2"}
	done, err := httpcache.Warm(p.Context(), server(p.a), slices.Values(urls), core.WarmOptions{})
	require.NoError(p, err)
	require.Equal(p, 2, done.Filled)
	require.EqualValues(p, 2, runs.Load())
	other := server(p.b)
	for _, id := range []string{"1", "2"} {
		w := httptest.NewRecorder()
		other.ServeHTTP(w, httptest.NewRequestWithContext(p.Context(), http.MethodGet, "/products/"+id, nil)) // of example.com
		require.Equal(p, "page "+id, w.Body.String())
	}
	require.EqualValues(p, 2, runs.Load(), "the other instance has them as well")
}

// The most frequent values are loaded before a request has to wait for them.
func showKeepWarm(p *pair) {
	p.open(core.Class{TTL: time.Hour})
	p.db.set(7, product{Name: "tea"})
	ctx, cancel := context.WithCancel(p.Context())
	ended := make(chan error, 1)
	var hot, filled atomic.Int64
	go func() {
		ended <- p.a.KeepWarm(ctx, p.db.loadMany, core.KeepWarmOptions{
			Every: 100 * time.Millisecond,
			Progress: func(r core.KeepWarmRound) {
				hot.Store(int64(r.Hot))
				filled.Add(int64(r.Filled))
			},
		})
	}()
	defer func() {
		cancel()
		require.ErrorIs(p, receive(p, ended), context.Canceled)
	}()
	p.until("it is known to be hot", func() bool {
		p.has(p.a, 7, "tea")
		return hot.Load() == 1
	})
	p.loaded(7)
	p.db.set(7, product{Name: "coffee"})
	require.NoError(p, p.b.Invalidate(p.Context(), 7))
	p.until("it is warm again", func() bool { return filled.Load() > 0 }) // without any request
	p.comesToHit(p.a, 7, "coffee")
	p.comesToHit(p.b, 7, "coffee")
	p.loadedAnew(7)
}
