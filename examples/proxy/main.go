// Proxy is a caching reverse proxy made of the middleware. The fields of its origin's
// responses decide which are stored, for whom and for how long.
//
//	go run ./proxy -origin http://127.0.0.1:8000                  # serves on 127.0.0.1:9100
//	go run ./proxy -origin http://127.0.0.1:8000 -adapter gin     # the same in another framework
//	go run ./proxy -origin http://127.0.0.1:8000 -redis redis://127.0.0.1:6379
//
// It is what `make conformance` measures with the public suite for HTTP caches; see
// the folder conformance. Each request to the origin has a connection of its own and
// asks for no compression, so that the suite measures the cache and not a
// transport.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
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

// adapters are the frameworks that the proxy can be served with.
var adapters = []string{"nethttp", "echo", "gin", "fiber"}

func newServer(adapter string, o *origin, cache *core.Cache) (Server, error) {
	switch adapter {
	case "nethttp":
		return newNetHTTP(o, cache), nil
	case "echo":
		return newEcho(o, cache), nil
	case "gin":
		return newGin(o, cache), nil
	case "fiber":
		return newFiber(o, cache), nil
	default:
		return nil, fmt.Errorf("-adapter is %q; allowed: %s", adapter, strings.Join(adapters, ", "))
	}
}

// className is the only class: a proxy does not know the kinds of data.
const className = "origin"

// class is that of a cache that follows the responses alone, as RFC 9111 has it; a
// TTL is for those that state none. Cookies are nothing special there: an origin
// that answers each user differently has to say so, with private or Vary. While
// the origin cannot be reached, a stale response is better than none.
func class(ttl time.Duration) core.Class {
	return core.Class{
		TTL: ttl, StaleIfError: 10 * time.Minute,
		HTTP: core.HTTPPolicy{
			AllowSetCookie: true, Cookies: []string{}, RankLanguages: true,
			RequestDirectives: []string{"no-cache", "no-store", "max-age", "min-fresh", "max-stale", "only-if-cached"},
		},
	}
}

// shutdownTimeout is how long requests under way may take to end.
const shutdownTimeout = 5 * time.Second

func main() {
	logging.Disable() // go-redis logs on its own what the cache logs as well
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "proxy:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	flags := flag.NewFlagSet("proxy", flag.ContinueOnError)
	adapter := flags.String("adapter", "nethttp", "framework: "+strings.Join(adapters, ", "))
	listen := flags.String("listen", "127.0.0.1:9100", "address to serve on")
	base := flags.String("origin", "http://127.0.0.1:8000", "URL of the server behind")
	ttl := flags.Duration("class-ttl", 0, "lifetime of responses that state none (0: these are not stored)")
	redisURL := flags.String("redis", "", "URL of a Redis over which proxies share the cache")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	target, err := url.Parse(*base)
	if err != nil || (target.Scheme != "http" && target.Scheme != "https") || target.Host == "" {
		return fmt.Errorf("-origin is %q; want a URL such as http://127.0.0.1:8000", *base)
	}

	options := core.Options{
		Classes: core.Classes{className: class(*ttl)},
		// An origin is far away: Redis may take longer than what spares a handler.
		RemoteBudget: time.Second,
	}
	if *redisURL != "" {
		o, err := redis.ParseURL(*redisURL)
		if err != nil {
			return errors.New("-redis: want redis://[user:password@]host[:port][/database]") // the error may quote a password
		}
		o.ContextTimeoutEnabled = true // otherwise a context does not end a call
		client := redis.NewClient(o)
		defer func() { err = errors.Join(err, client.Close()) }()
		options.Remote, options.Namespace = redisstore.New(client), "proxy"
	}
	cache, err := core.New(options)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cache.Close()) }()
	server, err := newServer(*adapter, newOrigin(target), cache)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "Proxy on http://%s (%s) for %s. Ctrl-C ends it.\n", l.Addr(), *adapter, target.Redacted())
	return serve(ctx, server, l)
}

// serve serves until ctx ends, then lets the requests under way end.
func serve(ctx context.Context, server Server, l net.Listener) error {
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	select {
	case err := <-served: // it could not go on
		return err
	case <-ctx.Done():
	}
	wait, stop := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer stop()
	err := server.Shutdown(wait)
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("shutdown: %w", err) // what still runs ends with the process
	}
	if e := <-served; !errors.Is(e, http.ErrServerClosed) {
		err = errors.Join(err, e)
	}
	return err
}
