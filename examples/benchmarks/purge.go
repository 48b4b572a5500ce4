package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/larderhq/larder/core"
)

// backWithin bounds the wait for the memory of invalidated entries.
const backWithin = 10 * time.Second

func measurePurge(ctx context.Context, cfg config) ([]section, error) {
	t := section{
		title: "One tag of all entries",
		text: "Each entry has a value of 195 bytes and the tag that is invalidated. The memory is back when the process holds less than a twentieth of\n" +
			"the bytes that it held (`Stats.Bytes`); Redis CPU includes the commands that read it; the wait for it ends after " + backWithin.String() + ". The peers in process have no tags.\n" +
			"The fill over Redis ends after 20 s, so that the largest number of entries depends on the machine.",
		head: []string{"entries", "invalidation", "Redis CPU", "memory back after"},
	}
	for _, n := range []int{1, 1_000, 100_000, 1_000_000} {
		cache, err := core.New(core.Options{Classes: core.Classes{"product": {TTL: ttl}}, MaxBytes: 4 << 30})
		if err != nil {
			return nil, err
		}
		if err := purge(ctx, cache, nil, cfg.size(n), &t); err != nil {
			return nil, err
		}
		if err := cache.Close(); err != nil {
			return nil, err
		}
	}
	s, err := startRedis(ctx)
	if err != nil {
		return []section{t}, err
	}
	defer func() { _ = s.close() }()
	for _, n := range []int{1, 1_000, 100_000, 1_000_000} {
		if err := s.client.FlushAll(ctx).Err(); err != nil {
			return nil, err
		}
		cache, end, err := newShared(s.addr, core.Class{TTL: ttl})
		if err != nil {
			return nil, err
		}
		if err := purge(ctx, cache, s, cfg.size(n), &t); err != nil {
			return nil, err
		}
		if err := end(); err != nil {
			return nil, err
		}
	}
	return []section{t}, nil
}

// valueOf195 is a value of 195 bytes.
func valueOf195(id int64) string { return fmt.Sprintf("%0195d", id) }

// fillTagged fills a cache with n entries of one tag. Over Redis it ends after 20 s, and
// returns how many entries there are.
func fillTagged(ctx context.Context, cache *core.Cache, shared bool, n int) (int, error) {
	m, err := core.NewMap(cache, core.MapOptions[int64, string]{Class: "product", Prefix: "product"})
	if err != nil {
		return 0, err
	}
	load := func(ctx context.Context, id int64) (string, error) {
		return valueOf195(id), core.AddTags(ctx, "catalog")
	}
	if !shared {
		for id := range int64(n) {
			if _, err := m.Get(ctx, id, load); err != nil {
				return 0, err
			}
		}
		return n, nil
	}
	var last atomic.Int64
	errs := make(chan error, 32)
	until := time.Now().Add(20 * time.Second)
	crowd(cap(errs), func() {
		for time.Now().Before(until) {
			id := last.Add(1)
			if id > int64(n) {
				last.Add(-1)
				break
			}
			if _, err := m.Get(ctx, id, load); err != nil {
				errs <- err
				return
			}
		}
		errs <- nil
	})
	for range cap(errs) {
		if err := <-errs; err != nil {
			return 0, err
		}
	}
	return int(last.Load()), nil
}

func purge(ctx context.Context, cache *core.Cache, s *redisServer, n int, t *section) error {
	n, err := fillTagged(ctx, cache, s != nil, n)
	if err != nil {
		return err
	}
	var before, after usage
	if s != nil {
		if before, err = s.usage(ctx); err != nil {
			return err
		}
	}
	held, start := cache.Stats().Bytes, time.Now()
	if err := cache.Invalidate(ctx, core.Tag("catalog")); err != nil {
		return err
	}
	took := time.Since(start)
	name, cpu := fmt.Sprintf("%d in process", n), ""
	if s != nil {
		if after, err = s.usage(ctx); err != nil {
			return err
		}
		name, cpu = fmt.Sprintf("%d over Redis", n), duration(after.redis-before.redis)
	}
	back, err := memoryBack(ctx, cache, held, start)
	t.add(name, duration(took), cpu, back)
	return err
}

// memoryBack waits until the cache holds a twentieth of its former bytes.
func memoryBack(ctx context.Context, cache *core.Cache, held uint64, start time.Time) (string, error) {
	poll := time.NewTicker(time.Millisecond)
	defer poll.Stop()
	for held > 20_000 && cache.Stats().Bytes > held/20 {
		if time.Since(start) > backWithin {
			return fmt.Sprintf("more than %v", backWithin), nil
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-poll.C:
		}
	}
	return duration(time.Since(start)), nil
}
