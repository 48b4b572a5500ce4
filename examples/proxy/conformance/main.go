// Conformance measures the example proxy with http-cache-tests, the public suite for
// HTTP caches behind https://cache-tests.fyi. It starts the suite's origin, the proxy
// and, with -redis, a redis-server, all on the loopback, runs the suite's client and
// judges its results as the suite's own pages do. `make conformance` installs the
// suite and runs this for every adapter:
//
//	go run ./proxy/conformance -suite DIR -adapters nethttp,echo
//	go run ./proxy/conformance -suite DIR -only freshness-max-age   # requests and responses of one test
//
// It needs node, and is run in the examples' module. Nothing that it has started runs
// when it ends.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

type config struct {
	suite    string
	adapters []string
	redis    bool
	only     string
	results  string
	ttl      time.Duration
	gate     bool
}

// gates are the scores that have been reached. core/httpcache/CONFORMANCE.md says
// why they are not all.
var gates = map[string]struct{ required, optimal int }{
	"nethttp": {152, 82},
	"echo":    {152, 82},
	"gin":     {152, 82},
	"fiber":   {150, 82},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(1)
	}
}

func parse(args []string) (config, error) {
	var c config
	flags := flag.NewFlagSet("conformance", flag.ContinueOnError)
	flags.StringVar(&c.suite, "suite", "", "folder of the package http-cache-tests, with its dependencies beside it")
	adapters := flags.String("adapters", "nethttp", "adapters of the proxy, with commas between")
	flags.BoolVar(&c.redis, "redis", false, "measure each a second time over a redis-server")
	flags.StringVar(&c.only, "only", "", "run one test, by its id, and print its requests and responses")
	flags.StringVar(&c.results, "results", "", "folder for what the client reports, as JSON (default: it is not kept)")
	flags.DurationVar(&c.ttl, "class-ttl", 0, "the proxy's -class-ttl")
	flags.BoolVar(&c.gate, "gate", false, "fail if an adapter passes fewer tests than it did")
	if err := flags.Parse(args); err != nil {
		return c, err
	}
	switch {
	case flags.NArg() > 0:
		return c, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case c.suite == "":
		return c, errors.New("-suite is missing: the folder of the npm package http-cache-tests")
	}
	c.adapters = strings.FieldsFunc(*adapters, func(r rune) bool { return r == ',' || r == ' ' })
	return c, nil
}

// Limits. A test pauses for three seconds between requests; all take half a minute.
const (
	clientTimeout = 5 * time.Minute
	setupTimeout  = 5 * time.Minute // compiling the proxy, for the most part
)

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	c, err := parse(args)
	if err != nil {
		return err
	}
	variants := 1
	if c.redis {
		variants = 2
	}
	ctx, cancel := context.WithTimeout(ctx, setupTimeout+time.Duration(variants*len(c.adapters))*clientTimeout)
	defer cancel()

	parts, err := definitions(ctx, c.suite)
	if err != nil {
		return err
	}
	if c.only != "" && !has(parts, c.only) {
		return fmt.Errorf("-only is %q: the suite has no such test for a server", c.only)
	}
	tmp, err := os.MkdirTemp("", "conformance-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	binary, err := build(ctx, tmp)
	if err != nil {
		return err
	}
	var log io.Writer
	if c.only != "" {
		log = out // the origin reports its requests of that test
	}
	origin, originURL, err := startOrigin(c.suite, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, origin.stop()) }()

	tiers := []string{""}
	if c.redis {
		redis, redisURL, err := startRedis(tmp)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, redis.stop()) }()
		tiers = append(tiers, redisURL)
	}
	var short []error
	for _, adapter := range c.adapters {
		for _, redisURL := range tiers {
			if err := measure(ctx, out, &c, binary, adapter, originURL, redisURL, parts); err != nil {
				short = append(short, err)
			}
			if ctx.Err() != nil {
				return errors.Join(short...) // the context has ended
			}
		}
	}
	return errors.Join(short...)
}

// measure runs the suite through one proxy and prints its score.
func measure(ctx context.Context, out io.Writer, c *config, binary, adapter, originURL, redisURL string, parts []part) (err error) {
	name := adapter
	if redisURL != "" {
		name += "-redis"
	}
	proxy, proxyURL, err := startProxy(binary, adapter, originURL, redisURL, c.ttl)
	if err != nil {
		return err
	}
	defer func() {
		if e := proxy.stop(); e != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", name, e))
		}
	}()

	ctx, cancel := context.WithTimeout(ctx, clientTimeout)
	defer cancel()
	if c.only != "" {
		fmt.Fprintf(out, "\n%s\n", name)
	}
	report, err := client(ctx, c.suite, proxyURL, c.only)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if c.only != "" {
		_, err := out.Write(report)
		return err
	}
	if c.results != "" {
		if err := os.WriteFile(filepath.Join(c.results, "conformance-"+name+".json"), report, 0o644); err != nil {
			return err
		}
	}
	results, err := read(report)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	required, optimal := judge(parts, results).print(out, name)
	if g := gates[adapter]; c.gate && (required < g.required || optimal < g.optimal) {
		return fmt.Errorf("%s passes %d required and %d optimal tests; it passed %d and %d before", name, required, optimal, g.required, g.optimal)
	}
	return nil
}
