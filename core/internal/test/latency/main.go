package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/larderhq/larder/core/internal/test/redisserver"
)

// config holds the values of the flags.
type config struct {
	trips  []time.Duration
	budget time.Duration // 0: the default, then several round trips
	n      int           // of each kind of request
}

// quiet replaces the logger of go-redis, which logs every connection that fails.
type quiet struct{}

func (quiet) Printf(context.Context, string, ...any) {}

func main() {
	redis.SetLogger(quiet{})
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	cfg, err := parse(os.Args[1:])
	if err == nil {
		err = run(ctx, cfg, os.Stdout)
	}
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "latency:", err)
		os.Exit(1)
	}
}

func parse(args []string) (config, error) {
	cfg := config{trips: []time.Duration{
		time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 30 * time.Millisecond,
		60 * time.Millisecond, 120 * time.Millisecond, 400 * time.Millisecond,
	}}
	f := flag.NewFlagSet("latency", flag.ContinueOnError)
	f.DurationVar(&cfg.budget, "budget", 0, "Options.RemoteBudget; 0: the default, and then several round trips")
	f.IntVar(&cfg.n, "n", 10, "requests of each kind")
	f.Func("trip", "a round trip in place of the default ones", func(s string) error {
		d, err := time.ParseDuration(s)
		cfg.trips = []time.Duration{d}
		return err
	})
	err := f.Parse(args)
	if err == nil && cfg.n < 1 {
		err = fmt.Errorf("-n %d: 1 or more is allowed", cfg.n)
	}
	return cfg, err
}

// recommended returns the budget that the log recommends for a round trip.
func recommended(trip time.Duration) time.Duration { return 3*trip + 10*time.Millisecond }

// wide is the least round trip in the second table.
const wide = 30 * time.Millisecond

func run(ctx context.Context, cfg config, w io.Writer) (err error) {
	server, err := redisserver.Start(ctx, redisserver.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	table := func(title string, budget func(trip time.Duration) time.Duration, from time.Duration) error {
		rows := make([]row, len(cfg.trips))
		errs := make([]error, len(cfg.trips))
		var all sync.WaitGroup // they sleep nearly all of the time
		for i, trip := range cfg.trips {
			if trip >= from {
				all.Go(func() { rows[i], errs[i] = measure(ctx, server.Addr(), trip, budget(trip), cfg.n) })
			}
		}
		all.Wait()
		if err := errors.Join(errs...); err != nil {
			return err
		}
		fmt.Fprintf(w, "%s\n\n%s", title, head)
		for _, r := range rows {
			if r.n > 0 {
				fmt.Fprint(w, r)
			}
		}
		fmt.Fprintln(w)
		return nil
	}
	if cfg.budget != 0 {
		return table(fmt.Sprintf("RemoteBudget %v:", cfg.budget), func(time.Duration) time.Duration { return cfg.budget }, 0)
	}
	if err := table("RemoteBudget 50 ms, the default:", func(time.Duration) time.Duration { return 0 }, 0); err != nil {
		return err
	}
	return table("RemoteBudget of three round trips and 10 ms:", recommended, wide)
}
