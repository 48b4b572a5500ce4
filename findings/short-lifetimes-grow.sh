#!/usr/bin/env bash
# Two caches of Go turn a lifetime below one second into a long one. go-redis/cache keeps an
# item with a TTL of 500 ms for one hour, its default, and tells only the standard log;
# its documentation says that TTL is the expiration time, and the client below it speaks
# milliseconds (PX). gocache over freecache rounds the Expiration down to seconds, and
# freecache takes zero as "no expiry": an entry that should live for 500 ms never expires.
# A reader expects 500 ms, a second, or an error.
#
# go-redis/cache v9.0.0 with miniredis v2.35.0; gocache's freecache store v4.2.2 with freecache v1.2.4.
# Seen: one hour, and no expiry. It hurts those who cache for less than a second against
# a stampede (live prices, stock, health checks): the value freezes. The script fails if that changes.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT; cd "$dir"
cat > main.go <<'GO'
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/coocood/freecache"
	gocache "github.com/eko/gocache/lib/v4/cache"
	"github.com/eko/gocache/lib/v4/store"
	freestore "github.com/eko/gocache/store/freecache/v4"
	"github.com/go-redis/cache/v9"
	"github.com/redis/go-redis/v9"
)

func main() {
	log.SetOutput(io.Discard)
	ctx := context.Background()
	server, err := miniredis.Run()
	if err != nil {
		panic(err)
	}
	defer server.Close()
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	shared := cache.New(&cache.Options{Redis: client})
	for _, ttl := range []time.Duration{500 * time.Millisecond, 1500 * time.Millisecond} {
		err := shared.Set(&cache.Item{Key: "price", Value: 1, TTL: ttl})
		fmt.Printf("go-redis/cache, TTL %v: error %v, in Redis for %v\n", ttl, err, server.TTL("price"))
	}

	free := gocache.New[[]byte](freestore.NewFreecache(freecache.NewCache(1 << 20)))
	for _, ttl := range []time.Duration{500 * time.Millisecond, 1500 * time.Millisecond} {
		if err := free.Set(ctx, ttl.String(), []byte("1"), store.WithExpiration(ttl)); err != nil {
			panic(err)
		}
	}
	time.Sleep(3 * time.Second)
	for _, ttl := range []time.Duration{500 * time.Millisecond, 1500 * time.Millisecond} {
		_, left, err := free.GetWithTTL(ctx, ttl.String())
		fmt.Printf("gocache over freecache, Expiration %v: after 3s a hit: %v, lifetime left %v\n", ttl, err == nil, left)
	}
}
GO
go mod init finding >/dev/null 2>&1
go get github.com/go-redis/cache/v9@v9.0.0 github.com/redis/go-redis/v9@v9.17.3 github.com/alicebob/miniredis/v2@v2.35.0 \
	github.com/eko/gocache/lib/v4@v4.2.0 github.com/eko/gocache/store/freecache/v4@v4.2.2 github.com/coocood/freecache@v1.2.4 >/dev/null 2>&1
go mod tidy >/dev/null 2>&1
go run . | tee out
diff out - <<'WANT'
go-redis/cache, TTL 500ms: error <nil>, in Redis for 1h0m0s
go-redis/cache, TTL 1.5s: error <nil>, in Redis for 1.5s
gocache over freecache, Expiration 500ms: after 3s a hit: true, lifetime left 0s
gocache over freecache, Expiration 1.5s: after 3s a hit: false, lifetime left 0s
WANT
