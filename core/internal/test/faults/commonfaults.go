package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/larderhq/larder/core/internal/test/redisserver"
)

// commonFaults returns the faults of every kind of Redis. On a cluster they hit all masters at once.
func commonFaults() []fault {
	return []fault{
		{"cut subscribers", func(ctx context.Context, r *run) error { return r.cut(ctx, redisserver.PubSubClients) }},
		{"cut all clients", func(ctx context.Context, r *run) error {
			return errors.Join(r.cut(ctx, redisserver.PubSubClients), r.cut(ctx, redisserver.NormalClients))
		}},
		{"flush by a stranger", func(ctx context.Context, r *run) error { return r.all(ctx, "FLUSHALL") }},
		{"flush and all invalidated", func(ctx context.Context, r *run) error {
			// Then the first access to an emptied partition is an invalidation, not that of a watchdog.
			err := r.all(ctx, "FLUSHALL")
			cs := r.fleet.clients()
			defer cs.close()
			r.write(cs.to(r.rng.IntN(len(r.fleet.places))), way{method: http.MethodPost, path: "/all/"}, r.pick())
			return err
		}},
		{"scripts flushed", func(ctx context.Context, r *run) error { return r.all(ctx, "SCRIPT", "FLUSH") }},
		{"memory full", func(ctx context.Context, r *run) error { return r.fill(ctx, "noeviction") }},
		{"memory full and keys evicted", func(ctx context.Context, r *run) error { return r.fill(ctx, "allkeys-lru") }},
		{"process killed in a write", killWriter},
	}
}

// masters returns the servers that hold data.
func (r *run) masters(ctx context.Context) (list []*redisserver.Server, err error) {
	if r.cluster == nil {
		return []*redisserver.Server{r.redis}, nil
	}
	for slot := 0; slot < redisserver.Slots; slot += redisserver.Slots / 48 {
		m, err := r.masterOf(ctx, slot)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(list, m) {
			list = append(list, m)
		}
	}
	return list, nil
}

// all sends a command to all masters.
func (r *run) all(ctx context.Context, args ...string) error {
	list, err := r.masters(ctx)
	for _, m := range list {
		_, e := m.Do(ctx, args...)
		err = errors.Join(err, e)
	}
	return err
}

// cut closes all connections of one kind, between one and four times.
func (r *run) cut(ctx context.Context, kind redisserver.ClientKind) error {
	nodes := []*redisserver.Server{r.redis}
	if r.cluster != nil {
		nodes = r.cluster.Nodes() // in a cluster any node may have a subscription, and replicas are clients of their masters
	}
	for range 1 + r.rng.IntN(4) {
		for _, n := range nodes {
			if _, err := n.CutClients(ctx, kind); err != nil {
				return err
			}
		}
		if !r.sleep(ctx, r.between(time.Millisecond, 300*time.Millisecond)) {
			return ctx.Err()
		}
	}
	return nil
}

// fill lowers the servers' maxmemory below what they hold, for a while.
func (r *run) fill(ctx context.Context, policy string) error {
	err := errors.Join(r.all(ctx, "CONFIG", "SET", "maxmemory-policy", policy), r.all(ctx, "CONFIG", "SET", "maxmemory", "1mb"))
	if err == nil && !r.sleep(ctx, r.between(500*time.Millisecond, 3*time.Second)) {
		err = ctx.Err()
	}
	return errors.Join(err, r.all(ctx, "CONFIG", "SET", "maxmemory", "0"))
}

// killWriter kills a process between the commit of a write and its end, and starts another in its place.
func killWriter(ctx context.Context, r *run) error {
	place := r.rng.IntN(len(r.fleet.places))
	path := []string{"/intent/", "/intent/", "/items/", "/said/"}[r.rng.IntN(4)]
	linger := r.between(0, 100*time.Millisecond)
	asleep := r.between(0, time.Second)
	p, row := r.fleet.at(place), r.pick()
	for len(r.commits) > 0 {
		<-r.commits
	}
	splits := r.history.splits.Load()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		c := &client{p: p}
		defer c.close()
		// The process dies during this request.
		_, _ = c.do(http.MethodPut, path, row, fieldPause+": 10s\r\n")
	}()
	select {
	case c := <-r.commits:
		committed := r.history.now()
		r.sleep(ctx, linger)
		r.kill(p)
		if c.begun {
			// Entries stored before the commit expire at the writer's deadline, without an invalidation.
			r.history.promised(row, promise{
				version: c.version, how: "PUT " + path + " killed", by: p,
				confirmed: committed, everywhere: committed + int64(writeTimeout), killed: true,
			}, splits)
		}
	case <-ctx.Done():
		r.kill(p)
		<-gone
		return fmt.Errorf("a writer did not commit: %w", ctx.Err())
	}
	<-gone
	r.sleep(ctx, asleep)
	return r.fleet.start(ctx, place)
}

// kill kills a process and records the time.
func (r *run) kill(p *process) {
	r.mu.Lock()
	r.deaths = append(r.deaths, r.history.now())
	r.mu.Unlock()
	p.kill()
}
