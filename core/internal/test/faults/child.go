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

// What all processes are configured with.
const (
	maxStaleness = 500 * time.Millisecond
	writeTimeout = 3 * time.Second
	leaseTime    = time.Second            // of the engine: what a dead process costs those who wait for its load
	firstLease   = 200 * time.Millisecond // likewise: what a lease costs of which nobody knows, since the reply was lost
)

// order is what a process is told to be.
type order struct {
	Process  int
	Adapter  string
	Redis    []string
	Cluster  bool
	Origin   string
	Budget   time.Duration // for Redis, of a request
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

// colons writes {id} as routers do that are not net/http's.
func colons(pattern string) string { return strings.ReplaceAll(pattern, "{id}", ":id") }

// child serves until its standard input ends, which it does with the conductor, however that ends. It writes its
// address to standard output and its log to standard error.
func child(say string) error {
	signal.Ignore(os.Interrupt) // it is for the conductor
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
