package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// openRedis returns a client of the server that REDIS_URL names, as redis.ParseURL
// reads it. Nothing is sent yet. In CLIENT LIST its connections have that name.
func openRedis(redisURL, name string) (*redis.Client, error) {
	options, err := redis.ParseURL(redisURL)
	if err == nil && strings.Contains(options.Addr, ",") {
		err = errors.New("several hosts")
	}
	if err != nil {
		// No error quotes what may be a password.
		if bad := (*url.Error)(nil); errors.As(err, &bad) {
			err = bad.Err
		} else if u, e := url.Parse(redisURL); e == nil {
			err = fmt.Errorf("%s: %w", u.Redacted(), err)
		}
		return nil, fmt.Errorf("REDIS_URL: %w; want one server: redis://[user:password@]host[:port][/database], or rediss:// for TLS", err)
	}
	options.ClientName = name
	options.ContextTimeoutEnabled = true // otherwise a context does not end a call
	return redis.NewClient(options), nil
}

// forgetTimeout is how long may be spent on looking for the keys of one namespace
// among all keys of the server.
const forgetTimeout = 30 * time.Second

// forget removes the keys of a closed cache from Redis.
func forget(ctx context.Context, client *redis.Client, namespace string) error {
	// ctx may have ended: that is how a server is stopped.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), forgetTimeout)
	defer cancel()
	keys := client.Scan(ctx, 0, namespace+":*", 1000).Iterator()
	for keys.Next(ctx) {
		if err := client.Unlink(ctx, keys.Val()).Err(); err != nil {
			return fmt.Errorf("remove %s: %w", keys.Val(), err)
		}
	}
	if err := keys.Err(); err != nil {
		return fmt.Errorf("remove %s:*: %w", namespace, err)
	}
	return nil
}

// cutSubscribers makes Redis close the connections of that name over which messages
// arrive, and returns how many there were.
func cutSubscribers(ctx context.Context, client *redis.Client, name string) (int, error) {
	list, err := client.Do(ctx, "CLIENT", "LIST", "TYPE", "pubsub").Text()
	if err != nil {
		return 0, fmt.Errorf("list subscribers: %w", err)
	}
	cut := 0
	for line := range strings.Lines(list) {
		fields := strings.Fields(line)
		if len(fields) == 0 || !strings.Contains(line, " name="+name+" ") {
			continue // of another program
		}
		n, err := client.ClientKillByFilter(ctx, "ID", strings.TrimPrefix(fields[0], "id=")).Result()
		if err != nil {
			return cut, fmt.Errorf("cut a subscriber: %w", err)
		}
		cut += int(n)
	}
	return cut, nil
}
