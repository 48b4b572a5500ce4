package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/redisstore"
)

// childEnv names the variable that makes this program one of the processes.
const childEnv = "LARDER_FAULTS_CHILD"

// The configuration of all processes.
const (
	maxStaleness = 500 * time.Millisecond
	writeTimeout = 3 * time.Second
	leaseTime    = time.Second            // of the engine: the most that a dead process costs a request that waits for its load
	firstLease   = 200 * time.Millisecond // likewise: the cost of a lease whose holder does not know of it, since the reply was lost
)

// order is the configuration of one process.
type order struct {
	Process  int
	Adapter  string
	Redis    []string
	Cluster  bool
	Origin   string
	Budget   time.Duration // of a request, for its calls to Redis
	Delta    time.Duration // MaxStaleness
	MaxBytes int64
}

// adapters are the frameworks, in the order of the processes.
func adapters() []string { return []string{"nethttp", "echocache", "gincache", "fibercache"} }

// server is what http.Server and Fiber have in common.
type server interface{ Serve(l net.Listener) error }

func newServer(adapter string, cache *core.Cache, routes []route) (server, error) {
	switch adapter {
	case "nethttp":
		return newNetHTTP(cache, routes), nil
	case "echocache":
		return newEcho(cache, routes), nil
	case "gincache":
		return newGin(cache, routes), nil
	case "fibercache":
		return newFiber(cache, routes), nil
	default:
		return nil, fmt.Errorf("adapter %q", adapter)
	}
}

// colons writes {id} in the syntax of Echo, Gin and Fiber.
func colons(pattern string) string { return strings.ReplaceAll(pattern, "{id}", ":id") }

// child serves until its standard input ends. That happens when the conductor ends, in whatever way. It writes its
// address to standard output and its log to standard error.
func child(say string) error {
	signal.Ignore(os.Interrupt) // the conductor handles it
	var o order
	if err := json.Unmarshal([]byte(say), &o); err != nil {
		return fmt.Errorf("%s: %w", childEnv, err)
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	var client redis.UniversalClient
	if o.Cluster {
		client = redis.NewClusterClient(&redis.ClusterOptions{Addrs: o.Redis})
	} else {
		client = redis.NewClient(&redis.Options{Addr: o.Redis[0]})
	}
	cache, err := core.New(core.Options{
		Remote:       redisstore.New(client),
		RemoteBudget: o.Budget,
		MaxStaleness: o.Delta,
		WriteTimeout: writeTimeout,
		MaxBytes:     o.MaxBytes,
		Logger:       slog.New(slog.NewTextHandler(os.Stderr, nil)),
		Classes:      core.Classes{class: {TTL: 2 * time.Minute, StaleWhileRevalidate: time.Minute, LoadTimeout: 10 * time.Second}},
	})
	if err != nil {
		return err
	}
	s := &shop{cache: cache, db: openDatabase(o.Origin, o.Process)}
	srv, err := newServer(o.Adapter, cache, s.routes())
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(os.Stdout, l.Addr()); err != nil {
		return err
	}
	if err := srv.Serve(l); err != nil {
		return err
	}
	return errors.New("the server has ended")
}
