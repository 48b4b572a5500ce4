package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/redisstore"
)

// A shop is an app with a cache. This file has all that an app needs. Its routes are
//
//	GET /products/{id}  a page, cached
//	GET /shelves/{id}   a page of several products, cached
//	GET /data/{id}      a product as data: from a Map, not from a page
//	PUT /products/{id}  a write, which invalidates
//	GET /larder         the counters of the cache
type shop struct {
	cache    *core.Cache
	products *core.Map[int64, Product]
	db       *dbClient
}

// shopOptions are the options that an app would read from its configuration.
type shopOptions struct {
	Number       int // from 1
	Adapter      string
	Redis        []string // one server, or nodes of a cluster
	Cluster      bool
	Database     string
	Namespace    string // of the cache: shops that share it share a database
	MaxStaleness time.Duration
}

// newRedisClient returns a client with go-redis's defaults: the cache makes its own
// from it, which keep to the cache's deadlines. Nothing is sent yet.
func newRedisClient(o shopOptions) redis.UniversalClient {
	if o.Cluster {
		return redis.NewClusterClient(&redis.ClusterOptions{Addrs: o.Redis})
	}
	return redis.NewClient(&redis.Options{Addr: o.Redis[0]})
}

// newShop makes the cache: one per process, shared by all of its routes and maps.
func newShop(client redis.UniversalClient, o shopOptions) (*shop, error) {
	cache, err := core.New(core.Options{
		Remote:       redisstore.New(client),
		Namespace:    o.Namespace,
		MaxStaleness: o.MaxStaleness,
		Classes: core.Classes{
			"page":    {TTL: 20 * time.Second, StaleWhileRevalidate: 20 * time.Second, Jitter: 0.1},
			"product": {TTL: time.Minute, NegativeTTL: 5 * time.Second, Jitter: 0.1},
		},
		// Once per cause: that Redis does not answer, and that it does again.
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{ReplaceAttr: withoutTime})),
	})
	if err != nil {
		return nil, err
	}
	// The value of product 42 has the key product:42, which is also a tag: an
	// invalidation of the tag removes the value and the pages that show it.
	products, err := core.NewMap(cache, core.MapOptions[int64, Product]{Class: "product", Prefix: "product"})
	if err != nil {
		return nil, errors.Join(err, cache.Close())
	}
	return &shop{cache: cache, products: products, db: newDBClient(o.Database, o.Number)}, nil
}

// close ends the cache, after the server and before its Redis client.
func (s *shop) close() error {
	s.db.close()
	return s.cache.Close()
}

// product answers a product from the cache, or from the database, with one query for any
// number of concurrent requests in all shops. It is served as data, and as a page that the
// middleware caches.
func (s *shop) product(ctx context.Context, id string) (Product, error) {
	n, err := strconv.ParseInt(id, 10, 64)
	if err != nil {
		return Product{}, core.ErrNotFound
	}
	return s.products.Get(ctx, n, s.db.product)
}

// shelfSize is how many products a shelf has.
const shelfSize = 8

// shelf answers the products of a shelf, from the Map. One query loads the missing ones. The
// page carries the tag of each product, added by the handler: a write of product 42 need not
// know its shelves. Tags that the handler adds are checked with Redis when it returns: a
// page with a product that has changed meanwhile is not stored.
func (s *shop) shelf(ctx context.Context, id string) ([]Product, error) {
	n, err := strconv.ParseInt(id, 10, 64)
	if err != nil || n < 0 || n > 1<<32 {
		return nil, core.ErrNotFound
	}
	ids, tags := make([]int64, shelfSize), make([]string, shelfSize)
	for i := range ids {
		ids[i] = n*shelfSize + int64(i)
		tags[i] = "product:" + strconv.FormatInt(ids[i], 10)
	}
	if err := core.AddTags(ctx, tags...); err != nil {
		return nil, err
	}
	found, err := s.products.GetMany(ctx, ids, s.db.products)
	if err != nil {
		return nil, err
	}
	var list []Product
	for _, id := range ids {
		if p, ok := found[id]; ok {
			list = append(list, p)
		}
	}
	return list, nil
}

// update changes a product. The Invalidate middleware around it does the rest.
func (s *shop) update(ctx context.Context, id string) (Product, error) {
	n, err := strconv.ParseInt(id, 10, 64)
	if err != nil {
		return Product{}, core.ErrNotFound
	}
	return s.db.update(ctx, n)
}

// statusOf returns the status and text of the answer to an error.
func statusOf(err error) int {
	if errors.Is(err, core.ErrNotFound) {
		return http.StatusNotFound
	}
	slog.Error("shop", "error", err)
	return http.StatusInternalServerError
}

// server is the common part of http.Server and Fiber.
type server interface {
	Serve(l net.Listener) error
	Shutdown(ctx context.Context) error
}

// shutdownTimeout is the time within which requests under way must end.
const shutdownTimeout = 5 * time.Second

// serveShop serves until ctx ends. The order of the end matters: first the server,
// which answers the requests under way; then the cache, which ends its background work;
// then the Redis client.
func serveShop(ctx context.Context, o shopOptions, listening func(net.Addr) error) (err error) {
	client := newRedisClient(o)
	defer func() { err = errors.Join(err, client.Close()) }()
	s, err := newShop(client, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	srv, err := newServer(o.Adapter, s)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	if err := listening(l.Addr()); err != nil {
		return errors.Join(err, l.Close())
	}

	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	wait, stop := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer stop()
	if err := srv.Shutdown(wait); err != nil {
		return fmt.Errorf("shutdown: %w", err)
	}
	if err := <-served; err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}

// shopEnv names the variable that makes this program a shop.
const shopEnv = "LARDER_FLEET_SHOP"

// shopMain is the main function of a shop's process. It serves until SIGTERM, or
// until its standard input ends, which happens when the fleet ends. It writes its address
// to standard output and its log to standard error.
func shopMain(say string) error {
	var o shopOptions
	if err := json.Unmarshal([]byte(say), &o); err != nil {
		return fmt.Errorf("%s: %w", shopEnv, err)
	}
	signal.Ignore(os.Interrupt) // a Ctrl-C is for the fleet
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
		time.Sleep(2 * shutdownTimeout) // nothing may outlive the fleet
		os.Exit(1)
	}()
	return serveShop(ctx, o, func(addr net.Addr) error {
		_, err := fmt.Fprintln(os.Stdout, addr)
		return err
	})
}

// withoutTime leaves out the time, which the fleet prints itself.
func withoutTime(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}
