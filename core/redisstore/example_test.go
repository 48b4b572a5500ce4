package redisstore_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/test/redisserver"
	"github.com/larderhq/larder/core/redisstore"
)

func ExampleNew() {
	server, err := redisserver.Start(context.Background(), redisserver.Options{}) // a redis-server
	if err != nil {
		panic(err)
	}
	defer server.Close()
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	defer client.Close()

	cache, err := core.New(core.Options{
		Classes:       core.Classes{"product": {TTL: 5 * time.Minute}},
		Remote:        redisstore.New(client),
		RequireRemote: true, // an error, if Redis cannot be reached
	})
	if err != nil {
		panic(err)
	}
	fmt.Println(cache.InvalidateEverywhere(context.Background(), core.Tag("catalog")))
	fmt.Println(cache.Close()) // before the client
	// Output:
	// <nil>
	// <nil>
}

func ExampleSeal() {
	server, err := redisserver.Start(context.Background(), redisserver.Options{}) // a redis-server
	if err != nil {
		panic(err)
	}
	defer server.Close()
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	defer client.Close()
	secret := make([]byte, 32) // in an application, from a secret store: the same 32 random bytes on all instances
	_, _ = rand.Read(secret)

	var options core.Options
	options.Remote = redisstore.New(client, redisstore.Seal(redisstore.Sealing{
		Keys: []redisstore.SealingKey{{ID: "2026-11", Secret: secret}}, // 32 random bytes; the first key seals, all open
	}))
	options.RequireRemote = true
	cache, err := core.New(options) // an error, if Redis cannot be reached, or a secret has not 32 bytes
	if err != nil {
		panic(err)
	}
	fmt.Println(cache.Close())
	// Output: <nil>
}

func ExampleACL() {
	rules := redisstore.ACL("shop") // for Options.Namespace "shop"
	fmt.Println("ACL SETUSER larder on >password", strings.Join(rules[:4], " "), "…")
	// Output: ACL SETUSER larder on >password resetkeys resetchannels ~shop:* &shop:* …
}

func ExampleProgram() {
	server, err := redisserver.Start(context.Background(), redisserver.Options{})
	if err != nil {
		panic(err)
	}
	defer server.Close()
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	defer client.Close()

	// Any program may do this, in any language, while caches of the namespace run.
	err = client.Eval(context.Background(), redisstore.Program(), []string{"shop:{00}:head"}, "tag", "product:42").Err()
	fmt.Println(err != nil) // no cache has made the namespace "shop" yet
	// Output: true
}
