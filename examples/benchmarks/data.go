package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dgraph-io/ristretto"
	eko "github.com/eko/gocache/lib/v4/cache"
	"github.com/eko/gocache/lib/v4/store"
	ekoristretto "github.com/eko/gocache/store/ristretto/v4"
	rediscache "github.com/go-redis/cache/v9"
	"github.com/maypok86/otter/v2"
	"github.com/viccon/sturdyc"

	"github.com/larderhq/larder/core"
)

// plain is a value that a copy cannot change.
type plain struct {
	ID         int64
	Name       string
	PriceCents int64
	Stock      int
	Active     bool
}

// listed is a value with a slice, which two copies share.
type listed struct {
	ID         int64
	Name       string
	PriceCents int64
	Tags       []string
}

func somePlain() plain { return plain{42, "Comté, 24 months", 3490, 12, true} }
func someListed() listed {
	return listed{42, "Comté, 24 months", 3490, []string{"cheese", "hard", "cow", "France"}}
}

// getter returns the value of id 42 from a cache, whose loader runs once.
type getter[V any] func() (V, error)

// holder is a cache of values.
type holder[V any] struct {
	name, module, setting string
	open                  func(ttl time.Duration, load func() V) (get getter[V], close func() error, err error)
}

const dataKey = "product:42"

func holders[V any](peers bool) []holder[V] {
	list := []holder[V]{{name: ours, open: openMap[V]}}
	if !peers {
		return list
	}
	return append(list,
		holder[V]{"otter", "github.com/maypok86/otter/v2", "", openOtter[V]},
		holder[V]{"sturdyc", "github.com/viccon/sturdyc", "", openSturdyc[V]},
		holder[V]{"go-redis/cache", "github.com/go-redis/cache/v9", "the local cache alone, without Redis", openRedisCache[V]},
		holder[V]{"eko/gocache", "github.com/eko/gocache/lib/v4", "over ristretto", openEko[V]},
	)
}

func openMap[V any](ttl time.Duration, load func() V) (getter[V], func() error, error) {
	cache, err := core.New(core.Options{Classes: core.Classes{"product": {TTL: ttl}}})
	if err != nil {
		return nil, nil, err
	}
	m, err := core.NewMap(cache, core.MapOptions[int64, V]{Class: "product", Prefix: "product"})
	if err != nil {
		return nil, nil, errors.Join(err, cache.Close())
	}
	loader := func(context.Context, int64) (V, error) { return load(), nil }
	ctx := context.Background()
	return func() (V, error) { return m.Get(ctx, 42, loader) }, cache.Close, nil
}

func openOtter[V any](ttl time.Duration, load func() V) (getter[V], func() error, error) {
	c, err := otter.New(&otter.Options[string, V]{
		MaximumSize: 10_000, ExpiryCalculator: otter.ExpiryWriting[string, V](ttl),
	})
	if err != nil {
		return nil, nil, err
	}
	loader := otter.LoaderFunc[string, V](func(context.Context, string) (V, error) { return load(), nil })
	ctx := context.Background()
	end := func() error { c.StopAllGoroutines(); return nil }
	return func() (V, error) { return c.Get(ctx, dataKey, loader) }, end, nil
}

func openSturdyc[V any](ttl time.Duration, load func() V) (getter[V], func() error, error) {
	c := sturdyc.New[V](10_000, 10, ttl, 10, sturdyc.WithNoContinuousEvictions())
	fetch := func(context.Context) (V, error) { return load(), nil }
	ctx := context.Background()
	return func() (V, error) { return c.GetOrFetch(ctx, dataKey, fetch) }, noEnd, nil
}

func openRedisCache[V any](ttl time.Duration, load func() V) (getter[V], func() error, error) {
	c := rediscache.New(&rediscache.Options{LocalCache: rediscache.NewTinyLFU(10_000, ttl)})
	ctx := context.Background()
	return func() (v V, err error) {
		err = c.Once(&rediscache.Item{
			Ctx: ctx, Key: dataKey, Value: &v, TTL: ttl,
			Do: func(*rediscache.Item) (any, error) { return load(), nil },
		})
		return v, err
	}, noEnd, nil
}

func openEko[V any](ttl time.Duration, load func() V) (getter[V], func() error, error) {
	client, err := ristretto.NewCache(&ristretto.Config{NumCounters: 100_000, MaxCost: 10_000, BufferItems: 64})
	if err != nil {
		return nil, nil, err
	}
	c := eko.NewLoadable(func(context.Context, any) (V, []store.Option, error) {
		return load(), []store.Option{store.WithExpiration(ttl)}, nil
	}, eko.New[V](ekoristretto.NewRistretto(client)))
	ctx := context.Background()
	end := func() error {
		err := c.Close()
		client.Close()
		return err
	}
	return func() (V, error) { return c.Get(ctx, dataKey) }, end, nil
}

func noEnd() error { return nil }

// dataKind is a kind of value.
type dataKind struct {
	name    string
	measure func(cfg config) (table, error)
}

func dataKinds() []dataKind {
	return []dataKind{
		{"a plain struct", func(cfg config) (table, error) {
			return measureValues(cfg, somePlain, func(plain) bool { return false })
		}},
		{"a struct with a slice", func(cfg config) (table, error) {
			return measureValues(cfg, someListed, func(v listed) bool {
				was := v.Tags[0]
				v.Tags[0] = "changed by a caller"
				return was != someListed().Tags[0]
			})
		}},
	}
}

func measureData(cfg config, kind dataKind) (table, error) {
	t, err := kind.measure(cfg)
	t.name = kind.name
	return t, err
}

// measureValues measures hits of values of one type. spoil changes the parts of a value that a
// caller can change, and reports whether the value was changed before.
func measureValues[V any](cfg config, load func() V, spoil func(V) bool) (t table, err error) {
	var clients []func() func()
	for _, h := range holders[V](cfg.peers) {
		var loads atomic.Int64
		get, end, err := h.open(ttl, func() V { loads.Add(1); return load() })
		if err != nil {
			return t, fmt.Errorf("%s: %w", h.name, err)
		}
		defer func() { _ = end() }() // its values are not read any more
		c := contender{name: h.name, module: h.module, setting: h.setting}
		if c.differs, err = probeValue(get, &loads, spoil); err != nil {
			return t, fmt.Errorf("%s: %w", h.name, err)
		}
		hit := func() { _, _ = get() } // probed above
		t.rows = append(t.rows, row{contender: c, allocs: hitAllocs(hit)})
		clients = append(clients, func() func() { return hit })
	}
	for _, workers := range []int{1, 2} {
		for i, c := range compare(cfg, clients, 0, workers) {
			t.rows[i].cells = append(t.rows[i].cells, c)
		}
	}
	return t, nil
}

// storesWithin bounds the time until a value that was loaded is a hit: eko/gocache and ristretto
// store in the background.
const storesWithin = 5 * time.Second

// probeValue reads until a read is a hit, and lists where the values of hits are not those of
// the loader.
func probeValue[V any](get getter[V], loads *atomic.Int64, spoil func(V) bool) (string, error) {
	var differs []string
	for until, hit := time.Now().Add(storesWithin), false; !hit; {
		before := loads.Load()
		if _, err := get(); err != nil {
			return "", err
		}
		hit = loads.Load() == before
		if !hit && time.Now().After(until) {
			return "", fmt.Errorf("no read was a hit within %v", storesWithin)
		}
	}
	for range 2 {
		v, err := get()
		if err != nil {
			return "", err
		}
		if spoil(v) {
			differs = append(differs, "callers share the slice, and one changes another's")
		}
	}
	return strings.Join(differs, "; "), nil
}

// hitAllocs returns the allocations of a hit.
func hitAllocs(hit func()) float64 { return testing.AllocsPerRun(200, hit) }
