// Quickstart is a small product API over a real SQLite database, cached and
// invalidated by one line per handler. It serves the same four routes with
// net/http, Echo, Gin or Fiber:
//
//	go run ./quickstart                  # serves on 127.0.0.1:8080
//	go run ./quickstart -adapter gin     # the same in another framework
//	go run ./quickstart -tour            # shows what the cache does, and ends
//
// Read nethttp.go, echo.go, gin.go or fiber.go for the lines that matter;
// shop.go is the database, tour.go the client of the tour.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/larderhq/larder/core"
)

// Server is what http.Server and Fiber have in common.
type Server interface {
	Serve(l net.Listener) error
	Shutdown(ctx context.Context) error
}

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
		return nil, fmt.Errorf("-adapter is %q; allowed: nethttp, echo, gin, fiber", adapter)
	}
}

func newCache() (*core.Cache, error) {
	return core.New(core.Options{
		Classes: core.Classes{
			"product": {TTL: 5 * time.Minute, Stale: time.Minute},
			"list":    {TTL: time.Minute},
		},
	})
}

// shutdownTimeout is how long requests under way may take to end.
const shutdownTimeout = 5 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	flags := flag.NewFlagSet("quickstart", flag.ContinueOnError)
	adapter := flags.String("adapter", "nethttp", "framework: nethttp, echo, gin or fiber")
	listen := flags.String("listen", "127.0.0.1:8080", "address to serve on")
	orders := flags.Int("orders", 25_000, "made-up orders in the database: the more, the dearer a query")
	tour := flags.Bool("tour", false, "serve on a free port, show with real requests what the cache does, and end")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if *orders < 0 || *orders > 1_000_000 {
		return fmt.Errorf("-orders is %d; allowed: 0 to 1000000", *orders)
	}

	shop, err := OpenShop(ctx, *orders)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, shop.Close()) }()
	cache, err := newCache()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cache.Close()) }()
	server, err := newServer(*adapter, shop, cache)
	if err != nil {
		return err
	}

	if *tour {
		*listen = "127.0.0.1:0"
	}
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	address := listener.Addr().String()
	if *tour {
		return serve(ctx, server, listener, func(ctx context.Context) error {
			return showTour(ctx, out, *adapter, "http://"+address, shop.Queries)
		})
	}
	return serve(ctx, server, listener, func(ctx context.Context) error {
		fmt.Fprintf(out, welcome, *adapter, address)
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

Ctrl-C ends it.
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

	// ctx may have ended already: that is what began the shutdown.
	wait, stop := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer stop()
	if e := server.Shutdown(wait); e != nil {
		err = errors.Join(err, fmt.Errorf("shutdown: %w", e))
	}
	return errors.Join(err, <-served)
}
