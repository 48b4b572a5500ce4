// Quickstart is a small product API over a real SQLite database, cached and
// invalidated by one line per handler. It serves the same four routes with
// net/http, Echo, Gin or Fiber:
//
//	go run ./quickstart                  # serves on 127.0.0.1:8080
//	go run ./quickstart -adapter gin     # the same in another framework
//	go run ./quickstart -warm            # fills the cache before it serves
//	go run ./quickstart -tour            # shows the cache with real requests, and ends
//
// With REDIS_URL=redis://127.0.0.1:6379 in the environment the cache is shared over
// Redis. The tour then has two servers; to start two by hand, let them share the
// database too:
//
//	go run ./quickstart -db shop.db
//	go run ./quickstart -db shop.db -listen 127.0.0.1:8081 -adapter gin
//
// Read nethttp.go, echo.go, gin.go or fiber.go for the lines that matter;
// shop.go is the database, redis.go what concerns Redis, warm.go fills the cache ahead,
// tour.go and sharing.go are the client of the tour.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/redisstore"
)

// Server is the common part of http.Server and Fiber.
type Server interface {
	Serve(l net.Listener) error
	Shutdown(ctx context.Context) error
}

// adapters are the frameworks that the shop can be served with.
var adapters = []string{"nethttp", "echo", "gin", "fiber"}

func newServer(adapter string, shop *Shop, cache *core.Cache) (Server, error) {
	switch adapter {
	case "nethttp":
		return newNetHTTP(shop, cache), nil
	case "echo":
		return newEcho(shop, cache), nil
	case "gin":
		return newGin(shop, cache), nil
	case "fiber":
		return newFiber(shop, cache), nil
	default:
		return nil, fmt.Errorf("-adapter is %q; allowed: %s", adapter, strings.Join(adapters, ", "))
	}
}

func newCache(options core.Options) (*core.Cache, error) {
	options.Classes = core.Classes{
		"product": {TTL: 5 * time.Minute, StaleWhileRevalidate: time.Minute},
		"list":    {TTL: time.Minute},
	}
	return core.New(options)
}

// shutdownTimeout is how long requests under way may take to end.
const shutdownTimeout = 5 * time.Second

func main() {
	logging.Disable() // go-redis logs on its own what the cache logs as well
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Getenv("REDIS_URL"), os.Stdout)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, redisURL string, out io.Writer) (err error) {
	flags := flag.NewFlagSet("quickstart", flag.ContinueOnError)
	adapter := flags.String("adapter", "nethttp", "framework: "+strings.Join(adapters, ", "))
	listen := flags.String("listen", "127.0.0.1:8080", "address to serve on")
	db := flags.String("db", "", "SQLite file, for several processes to share (default: a database of its own, gone at the end)")
	orders := flags.Int("orders", 25_000, "made-up orders in a new database: the more, the dearer a query")
	tour := flags.Bool("tour", false, "serve on a free port, show the cache with real requests, and end")
	warmed := flags.Bool("warm", false, "fill the cache with the list and all products before serving")
	warmFrom := flags.Int("warm-from", 0, "leave out so many pages at the beginning: takes up a -warm that was interrupted")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if *orders < 0 || *orders > 1_000_000 {
		return fmt.Errorf("-orders is %d; allowed: 0 to 1000000", *orders)
	}
	if *tour && *db != "" {
		return errors.New("-db and -tour: the tour has a database of its own")
	}

	if *warmFrom < 0 {
		return fmt.Errorf("-warm-from is %d; allowed: 0 and more", *warmFrom)
	}

	// Servers that share a cache share a database: a temporary database has its own
	// namespace, which is removed with it.
	namespace := "quickstart"
	if *db == "" {
		namespace += "-" + rand.Text()
	}
	var client *redis.Client
	if redisURL != "" {
		if client, err = openRedis(redisURL, namespace); err != nil {
			return err
		}
		defer func() {
			if *db == "" {
				if err := forget(ctx, client, namespace); err != nil && !errors.Is(err, syscall.ECONNREFUSED) {
					slog.Warn("quickstart: keys may be left in Redis", "error", err)
				}
			}
			err = errors.Join(err, client.Close())
		}()
	}
	shop, err := OpenShop(ctx, *db, *orders)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, shop.Close()) }()
	if *tour {
		return showTour(ctx, out, *adapter, shop, client, namespace)
	}

	var options core.Options
	if client != nil {
		options.Remote = redisstore.New(client)
		options.Namespace = namespace
	}
	cache, err := newCache(options)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cache.Close()) }()
	if client != nil && shop.Made() {
		// Entries in Redis may belong to a file that was deleted.
		if err := cache.Invalidate(ctx, core.All()); err != nil {
			slog.Warn("quickstart: the database is new, the cache may not be", "error", err)
		}
	}
	server, err := newServer(*adapter, shop, cache)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	if *warmed {
		if err := warm(ctx, server, "http://"+listener.Addr().String(), shop, *warmFrom, out); err != nil {
			return errors.Join(err, listener.Close())
		}
	}
	return serve(ctx, server, listener, func(ctx context.Context) error {
		fmt.Fprintf(out, welcome, *adapter, listener.Addr())
		switch {
		case client == nil:
		case *db == "":
			fmt.Fprint(out, alone)
		default:
			fmt.Fprintf(out, shared, *db, listener.Addr())
		}
		fmt.Fprintln(out, "\nCtrl-C ends it.")
		<-ctx.Done()
		fmt.Fprintln(out, "shutting down")
		return nil
	})
}

const welcome = `Cheese shop on http://%[2]s (%[1]s, SQLite). Try:

  curl -i http://%[2]s/products/1
      the first time   Cache-Status: Larder; fwd=uri-miss; stored
      then             Cache-Status: Larder; hit; ttl=299

  curl -i -X PUT -d '{"price_cents":1234}' http://%[2]s/products/1
      and the first line again: the new price, fwd=uri-miss; stored

  curl -iN http://%[2]s/stream
      a stream is never held back: five events, one by one
`

const alone = `
The cache is in Redis too. For a second server to share it, share the database: -db shop.db
`

const shared = `
Shared over Redis and %[1]s. Another server, with the same REDIS_URL:

  go run ./quickstart -db %[1]s -listen 127.0.0.1:8081 -adapter gin

The host is part of what is cached. Name one, as a load balancer would:

  curl -i -H 'Host: shop.example' http://%[2]s/products/1
`

// serve serves until do returns, then lets the requests under way end.
func serve(ctx context.Context, server Server, l net.Listener, do func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	served := make(chan error, 1)
	go func() {
		err := server.Serve(l)
		if errors.Is(err, http.ErrServerClosed) {
			err = nil
		}
		cancel(err) // a server that fails ends do, too
		served <- err
	}()
	err := do(ctx)

	// ctx may have ended already, which began the shutdown.
	wait, stop := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer stop()
	if e := server.Shutdown(wait); e != nil {
		err = errors.Join(err, fmt.Errorf("shutdown: %w", e))
	}
	return errors.Join(err, <-served)
}
