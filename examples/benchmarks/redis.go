package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	rediscache "github.com/go-redis/cache/v9"
	"github.com/redis/go-redis/v9"

	"github.com/larderhq/larder/core"
)

// remote is a client of the Redis: a cache, or the commands alone.
type remote struct {
	read func(ctx context.Context, id int64) error // loads and stores an absent value
	end  func() error
}

// remoteKind is a contender over Redis.
type remoteKind struct {
	name, module string
	tags         int // further tags of each entry
	open         func(addr string, tags int, loads *atomic.Int64) (remote, error)
}

func (k remoteKind) title() string {
	title := contender{name: k.name, module: k.module}.title()
	if k.tags > 0 {
		title += fmt.Sprintf(", %d further tags", k.tags)
	}
	return title
}

func remoteKinds(quick bool) []remoteKind {
	list := []remoteKind{
		{ours, "", 0, openRemoteMap},
		{"go-redis/cache", "github.com/go-redis/cache/v9", 0, openRemoteCache},
		{"GET and SET of go-redis", "github.com/redis/go-redis/v9", 0, openRaw},
	}
	if quick {
		return list
	}
	for _, tags := range []int{1, 3, 16, 63} {
		list = append(list, remoteKind{ours, "", tags, openRemoteMap})
	}
	return list
}

// remoteBody is the value of each key.
var remoteBody = strings.Repeat("x", 1<<10)

func tagNames(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprint("tag:", i)
	}
	return names
}

func openRemoteMap(addr string, tags int, loads *atomic.Int64) (remote, error) {
	cache, end, err := newShared(addr, core.Class{TTL: ttl})
	if err != nil {
		return remote{}, err
	}
	m, err := core.NewMap(cache, core.MapOptions[int64, string]{Class: "product", Prefix: "product"})
	if err != nil {
		return remote{}, err
	}
	names := tagNames(tags)
	load := func(ctx context.Context, _ int64) (string, error) {
		loads.Add(1)
		return remoteBody, core.AddTags(ctx, names...)
	}
	return remote{func(ctx context.Context, id int64) error { _, err := m.Get(ctx, id, load); return err }, end}, nil
}

func openRemoteCache(addr string, _ int, loads *atomic.Int64) (remote, error) {
	client := redis.NewClient(&redis.Options{Addr: addr, PoolSize: 64})
	c := rediscache.New(&rediscache.Options{Redis: client})
	return remote{func(ctx context.Context, id int64) error {
		var v string
		return c.Once(&rediscache.Item{
			Ctx: ctx, Key: fmt.Sprint("once:", id), Value: &v, TTL: ttl,
			Do: func(*rediscache.Item) (any, error) { loads.Add(1); return remoteBody, nil },
		})
	}, client.Close}, nil
}

func openRaw(addr string, _ int, loads *atomic.Int64) (remote, error) {
	client := redis.NewClient(&redis.Options{Addr: addr, PoolSize: 64})
	return remote{func(ctx context.Context, id int64) error {
		key := fmt.Sprint("raw:", id)
		err := client.Get(ctx, key).Err()
		if !errors.Is(err, redis.Nil) {
			return err
		}
		loads.Add(1)
		return client.Set(ctx, key, remoteBody, ttl).Err()
	}, client.Close}, nil
}

// cost is what an operation costs.
type cost struct{ app, redis, commands, alone, rate, busy float64 }

// costOf runs an operation n times one by one, and then by 32 goroutines as often as they can
// in the time.
func costOf(ctx context.Context, s *redisServer, n int, limit time.Duration, op func(context.Context) error) (c cost, err error) {
	before, err := s.usage(ctx)
	if err != nil {
		return c, err
	}
	for range n {
		if err := op(ctx); err != nil {
			return c, err
		}
	}
	after, err := s.usage(ctx)
	if err != nil {
		return c, err
	}
	per := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 / float64(n) }
	c.app, c.redis, c.alone = per(after.app-before.app), per(after.redis-before.redis), per(after.at.Sub(before.at))
	c.commands = (after.commands - before.commands - 2) / float64(n) // two of these read INFO
	if limit == 0 {
		return c, nil
	}
	done, err := together(ctx, limit, op)
	if err != nil {
		return c, err
	}
	last, err := s.usage(ctx)
	wall := last.at.Sub(after.at).Seconds()
	c.rate, c.busy = float64(done)/wall, 100*(last.redis-after.redis).Seconds()/wall
	return c, err
}

// together runs an operation by 32 goroutines until the time is over, and returns how often.
func together(ctx context.Context, limit time.Duration, op func(context.Context) error) (int64, error) {
	var all sync.WaitGroup
	var done atomic.Int64
	failed := make(chan error, 32)
	until := time.Now().Add(limit)
	for range cap(failed) {
		all.Go(func() {
			for time.Now().Before(until) {
				if err := op(ctx); err != nil {
					failed <- err
					return
				}
				done.Add(1)
			}
		})
	}
	all.Wait()
	select {
	case err := <-failed:
		return 0, err
	default:
		return done.Load(), nil
	}
}

func measureRedis(ctx context.Context, cfg config) (list []section, err error) {
	s, err := startRedis(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = s.close() }()
	t := section{
		title: "Hits, misses and invalidations",
		text: "A value of 1 KiB. A miss finds nothing in Redis, and stores what a loader returns at once. A hit finds the value in Redis and not in the process.\n" +
			"CPU times are microseconds per operation, one operation after another: those of this process, and those of Redis (`INFO cpu`). Commands\n" +
			"include those inside scripts. Rates are those of 32 goroutines on the same processors; `busy` is the CPU time of Redis in that time.\n" +
			"A cache that stores without tags and leases needs fewer commands: it invalidates key by key, and loads that overlap an invalidation store old values.",
		head: []string{"", "app CPU, µs", "Redis CPU, µs", "commands", "µs alone", "per second", "Redis busy, %"},
	}
	for _, k := range remoteKinds(cfg.quick) {
		if err := k.measure(ctx, cfg, s, &t); err != nil {
			return list, fmt.Errorf("%s: %w", k.name, err)
		}
	}
	if err := measureMessages(ctx, cfg, s, &t); err != nil {
		return list, err
	}
	carried, err := carries(t)
	if n := len(carried.lines); n > 0 && cfg.quick {
		carried.text += "\n`-quick` measures too few operations for this table."
	}
	return []section{t, carried}, err
}

// measure adds the lines of misses and hits.
func (k remoteKind) measure(ctx context.Context, cfg config, s *redisServer, t *section) error {
	if err := s.client.FlushAll(ctx).Err(); err != nil {
		return err
	}
	var loads, last atomic.Int64
	writer, err := k.open(s.addr, k.tags, &loads)
	if err != nil {
		return err
	}
	defer func() { _ = writer.end() }()
	next := func(r remote) func(context.Context) error {
		return func(ctx context.Context) error { return r.read(ctx, last.Add(1)) }
	}
	limit := time.Duration(cfg.size(100)) * 10 * time.Millisecond
	c, err := costOf(ctx, s, cfg.size(2000), limit, next(writer))
	if err != nil {
		return err
	}
	t.cost("miss, "+k.title(), c)
	if k.tags > 0 && k.tags < 63 {
		return nil
	}
	stored := last.Swap(0)
	reader, err := k.open(s.addr, k.tags, &loads)
	if err != nil {
		return err
	}
	defer func() { _ = reader.end() }()
	loads.Store(0)
	n := min(int(stored), cfg.size(2000))
	if c, err = costOf(ctx, s, n, 0, next(reader)); err != nil {
		return err
	}
	name := "hit, " + k.title()
	if l := loads.Load(); l > 0 {
		name += fmt.Sprintf(" (%d of %d loaded)", l, n)
	}
	t.cost(name, c)
	return nil
}

// cost adds a line.
func (s *section) cost(name string, c cost) {
	rate, busy := "", ""
	if c.rate > 0 {
		rate, busy = whole(c.rate), whole(c.busy)
	}
	s.add(name, tenth(c.app), tenth(c.redis), tenth(c.commands), whole(c.alone), rate, busy)
}

// measureMessages adds an invalidation and a PUBLISH.
func measureMessages(ctx context.Context, cfg config, s *redisServer, t *section) error {
	cache, end, err := newShared(s.addr, core.Class{TTL: ttl})
	if err != nil {
		return err
	}
	defer func() { _ = end() }()
	limit := time.Duration(cfg.size(100)) * 10 * time.Millisecond
	var id atomic.Int64
	c, err := costOf(ctx, s, cfg.size(2000), limit, func(ctx context.Context) error {
		return cache.Invalidate(ctx, core.Tag(fmt.Sprint("product:", id.Add(1))))
	})
	if err != nil {
		return err
	}
	t.cost("invalidation of a tag, **Larder**", c)
	client := redis.NewClient(&redis.Options{Addr: s.addr, PoolSize: 64})
	defer func() { _ = client.Close() }()
	c, err = costOf(ctx, s, cfg.size(2000), limit, func(ctx context.Context) error {
		return client.Publish(ctx, "channel", fmt.Sprint("product:", id.Add(1))).Err()
	})
	t.cost("`PUBLISH` of go-redis", c)
	return err
}

// carries derives the capacity of one Redis from the CPU times.
func carries(costs section) (section, error) {
	t := section{
		title: "What one Redis carries",
		text: "Arithmetic, not a measurement: operations per second = 0.7 × 1,000,000 / Redis CPU per operation in µs, with 30 % of the one processor that\n" +
			"Redis uses left over. A cluster is assumed to spread keys and tags evenly, so that its masters carry that number each; further tags on other\n" +
			"masters cost additional commands. Hits in the process cost Redis nothing. Replicas and the network are not in these numbers.",
		head: []string{"operation", "Redis CPU, µs", "1 master, per second", "3 masters", "100 masters"},
	}
	for _, line := range costs.lines {
		if !strings.Contains(line[0], "**Larder**") {
			continue
		}
		var us float64
		if _, err := fmt.Sscan(line[2], &us); err != nil {
			return t, err
		}
		if us == 0 {
			continue
		}
		one := 0.7 * 1e6 / us
		t.add(line[0], line[2], whole(one), whole(3*one), whole(100*one))
	}
	return t, nil
}
