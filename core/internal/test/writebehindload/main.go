package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

// config holds the values of the flags.
type config struct {
	changes, ids, plain int
	processes, writers  int
	kill, restart       time.Duration // 0: not by time
	cluster             bool
	limit               time.Duration

	// For tests, once each: the process that has sent the batch of this number is killed
	// before it gets the database's answer; Redis is killed after this number of changes.
	killAtBatch, restartAtChange int
}

// quiet replaces the logger of go-redis, which logs every connection that Redis refuses.
type quiet struct{}

func (quiet) Printf(context.Context, string, ...any) {}

func main() {
	redis.SetLogger(quiet{})
	if say := os.Getenv(childEnv); say != "" {
		if err := child(say); err != nil {
			fmt.Fprintln(os.Stderr, "writebehind:", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	cfg, err := parse(os.Args[1:])
	if err == nil {
		_, err = conduct(ctx, cfg, os.Stdout)
	}
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "writebehind:", err)
		os.Exit(1)
	}
}

func parse(args []string) (config, error) {
	var cfg config
	f := flag.NewFlagSet("writebehind", flag.ContinueOnError)
	f.IntVar(&cfg.changes, "changes", 100_000, "number of changes under faults")
	f.IntVar(&cfg.ids, "ids", 0, "number of ids; 0: a tenth of the changes")
	f.IntVar(&cfg.plain, "plain", 50_000, "number of changes, of as many ids, to measure the rate without faults; 0: none")
	f.IntVar(&cfg.processes, "processes", 4, "number of processes that apply")
	f.IntVar(&cfg.writers, "writers", 64, "number of goroutines that put")
	f.DurationVar(&cfg.kill, "kill", 5*time.Second, "interval between kills of a process; 0: none")
	f.DurationVar(&cfg.restart, "restart", 20*time.Second, "interval between restarts of Redis, or of one master of a cluster; 0: none")
	f.BoolVar(&cfg.cluster, "cluster", false, "a cluster of three masters, instead of one server")
	f.DurationVar(&cfg.limit, "limit", 30*time.Minute, "limit of the whole run")
	if err := f.Parse(args); err != nil {
		return cfg, err
	}
	if cfg.ids == 0 {
		cfg.ids = max(cfg.writers, cfg.changes/10)
	}
	if f.NArg() > 0 || cfg.changes < 1 || cfg.writers < 1 || cfg.ids < cfg.writers || cfg.plain < 0 || cfg.plain > 0 && cfg.plain < cfg.writers || cfg.processes < 1 || cfg.kill <= 0 || cfg.restart <= 0 {
		return cfg, errors.New("a flag's value is out of range, or there is an argument that is not a flag")
	}
	return cfg, nil
}
