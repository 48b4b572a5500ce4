#!/usr/bin/env bash
# go-redis/cache stores the value of a Set with SetNX in its local cache before it asks
# Redis, and leaves it there when Redis has refused it. Item.SetNX is documented as "only
# sets the key if it does not already exist", so a reader expects that after two such Sets
# of one key both instances read the first value. Each instance reads its own for the
# lifetime of the local cache, and Set returns no error. SetXX of a missing key likewise
# leaves a value that Redis does not have.
#
# go-redis/cache v9.0.0, with miniredis v2.35.0 as the server. Seen: the loser reads its
# own value. It hurts those who let SetNX decide which instance's value counts (the
# winner of a race, the first price, a lock's owner). The script fails if that changes.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT; cd "$dir"
cat > main.go <<'GO'
package main

import (
	"context"
	"fmt"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/go-redis/cache/v9"
	"github.com/redis/go-redis/v9"
)

func main() {
	ctx := context.Background()
	server, err := miniredis.Run()
	if err != nil {
		panic(err)
	}
	defer server.Close()
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	instance := func() *cache.Cache {
		return cache.New(&cache.Options{Redis: client, LocalCache: cache.NewTinyLFU(100, time.Minute)})
	}
	first, second := instance(), instance()
	read := func(c *cache.Cache, key string) string {
		var value string
		if err := c.Get(ctx, key, &value); err != nil {
			return err.Error()
		}
		return value
	}
	shared := func(key string) string {
		var value string
		if err := first.GetSkippingLocalCache(ctx, key, &value); err != nil {
			return err.Error()
		}
		return value
	}

	err1 := first.Set(&cache.Item{Key: "nx", Value: "value of the first", TTL: time.Hour, SetNX: true})
	err2 := second.Set(&cache.Item{Key: "nx", Value: "value of the second", TTL: time.Hour, SetNX: true})
	fmt.Printf("SetNX twice: %v, %v; Redis has the %s\n", err1, err2, shared("nx"))
	fmt.Printf("the first reads the %s, the second reads the %s\n", read(first, "nx"), read(second, "nx"))

	err = first.Set(&cache.Item{Key: "xx", Value: "update of nothing", TTL: time.Hour, SetXX: true})
	fmt.Printf("SetXX of a missing key: %v; Redis: %s; the instance reads: %s\n", err, shared("xx"), read(first, "xx"))
}
GO
go mod init finding >/dev/null 2>&1
go get github.com/go-redis/cache/v9@v9.0.0 github.com/redis/go-redis/v9@v9.17.3 github.com/alicebob/miniredis/v2@v2.35.0 >/dev/null 2>&1
go mod tidy >/dev/null 2>&1
go run . | tee out
diff out - <<'WANT'
SetNX twice: <nil>, <nil>; Redis has the value of the first
the first reads the value of the first, the second reads the value of the second
SetXX of a missing key: <nil>; Redis: cache: key is missing; the instance reads: update of nothing
WANT
