package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/larderhq/larder/core"
)

// measureGrowth measures caches that share one Redis, all of them in this process.
func measureGrowth(ctx context.Context, cfg config) ([]section, error) {
	t := section{
		title: "Instances over one Redis",
		text: "The instances are caches of this process, each with its own connections. An idle instance makes the commands by which it\n" +
			"learns of invalidations that no message has told it. The CPU times are those of Redis for one operation of one instance, in microseconds,\n" +
			"idle commands subtracted; an invalidation includes its messages to all instances.",
		head: []string{"instances", "idle commands per second and instance", "idle Redis CPU per second and instance, µs", "miss, Redis CPU", "invalidation, Redis CPU"},
	}
	counts := []int{1, 10, 100}
	if cfg.quick {
		counts = []int{1, 2}
	}
	for _, n := range counts {
		if err := grow(ctx, cfg, n, &t); err != nil {
			return []section{t}, fmt.Errorf("%d instances: %w", n, err)
		}
	}
	return []section{t}, nil
}

func grow(ctx context.Context, cfg config, n int, t *section) (err error) {
	s, err := startRedis(ctx)
	if err != nil {
		return err
	}
	var ends []func() error
	defer func() {
		for _, end := range ends {
			err = errors.Join(err, end())
		}
		err = errors.Join(err, s.close())
	}()
	var caches []*core.Cache
	for range n {
		cache, end, err := newShared(s.addr, core.Class{TTL: ttl})
		if err != nil {
			return err
		}
		caches, ends = append(caches, cache), append(ends, end)
	}
	if err := s.subscribed(ctx, n); err != nil {
		return err
	}
	idle, idleCPU, err := idleUse(ctx, cfg, s)
	if err != nil {
		return err
	}
	m, err := core.NewMap(caches[0], core.MapOptions[int64, string]{Class: "product", Prefix: "product"})
	if err != nil {
		return err
	}
	load := func(context.Context, int64) (string, error) { return remoteBody, nil }
	var id atomic.Int64
	miss, err := costOf(ctx, s, cfg.size(2000), 0, func(ctx context.Context) error { _, err := m.Get(ctx, id.Add(1), load); return err })
	if err != nil {
		return err
	}
	invalidation, err := costOf(ctx, s, cfg.size(2000), 0, func(ctx context.Context) error {
		return caches[0].Invalidate(ctx, core.Tag(fmt.Sprint("product:", id.Add(-1))))
	})
	// Microseconds of idle CPU within an operation: µs per second × seconds.
	without := func(c cost) string { return tenth(max(0, c.redis-idleCPU*c.alone/1e6)) }
	t.add(exact(n), tenth(idle/float64(n)), whole(idleCPU/float64(n)), without(miss), without(invalidation))
	return err
}

// idleUse returns the commands and the microseconds of CPU per second of a Redis whose caches
// are idle.
func idleUse(ctx context.Context, cfg config, s *redisServer) (commands, cpu float64, err error) {
	before, err := s.usage(ctx)
	if err != nil {
		return 0, 0, err
	}
	select { // a rate needs a period
	case <-time.After(time.Duration(cfg.size(100)) * 60 * time.Millisecond):
	case <-ctx.Done():
		return 0, 0, ctx.Err()
	}
	after, err := s.usage(ctx)
	if err != nil {
		return 0, 0, err
	}
	seconds := after.at.Sub(before.at).Seconds()
	commands = (after.commands - before.commands - 2) / seconds // two of these are INFO
	return max(0, commands), float64((after.redis - before.redis).Nanoseconds()) / 1e3 / seconds, nil
}
