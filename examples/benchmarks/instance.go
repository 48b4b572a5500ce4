package main

import (
	"context"
	"errors"
	"fmt"

	rediscache "github.com/go-redis/cache/v9"
	"github.com/redis/go-redis/v9"

	"github.com/larderhq/larder/core"
)

// openInstance opens a contender of remoteKinds with entries that expire soon.
func openInstance(name, addr string, load func() string) (read func() error, end func() error, err error) {
	ctx := context.Background()
	switch name {
	case ours:
		cache, end, err := newShared(addr, core.Class{TTL: shortTTL})
		if err != nil {
			return nil, nil, err
		}
		m, err := core.NewMap(cache, core.MapOptions[int64, string]{Class: "product", Prefix: "product"})
		if err != nil {
			return nil, nil, errors.Join(err, end())
		}
		loader := func(context.Context, int64) (string, error) { return load(), nil }
		return func() error { _, err := m.Get(ctx, 42, loader); return err }, end, nil
	case "go-redis/cache":
		client := redis.NewClient(&redis.Options{Addr: addr})
		c := rediscache.New(&rediscache.Options{Redis: client})
		return func() error {
			var v string
			return c.Once(&rediscache.Item{Ctx: ctx, Key: dataKey, Value: &v, TTL: shortTTL,
				Do: func(*rediscache.Item) (any, error) { return load(), nil }})
		}, client.Close, nil
	}
	client := redis.NewClient(&redis.Options{Addr: addr, PoolSize: 64})
	return func() error {
		err := client.Get(ctx, "raw").Err()
		if !errors.Is(err, redis.Nil) {
			return err
		}
		if err := client.Set(ctx, "raw", load(), shortTTL).Err(); err != nil {
			return fmt.Errorf("SET: %w", err)
		}
		return nil
	}, client.Close, nil
}
