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

// config is what the flags say.
type config struct {
	changes, ids, plain int
	processes, writers  int
	kill, restart       time.Duration // 0: not by time
	cluster             bool
	limit               time.Duration

	// For tests, once each: the process that has sent the so manieth batch is killed before
	// it hears that the database has it; Redis after so many changes.
	killAtBatch, restartAtChange int
}

// quiet is for go-redis, which tells of every connection that Redis refuses.
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
	f.IntVar(&cfg.changes, "changes", 100_000, "changes under faults")
	f.IntVar(&cfg.ids, "ids", 0, "of so many ids; 0: a tenth of the changes")
	f.IntVar(&cfg.plain, "plain", 50_000, "changes without faults, for the rate, of as many ids; 0: none")
	f.IntVar(&cfg.processes, "processes", 4, "that apply")
	f.IntVar(&cfg.writers, "writers", 64, "goroutines that put")
	f.DurationVar(&cfg.kill, "kill", 5*time.Second, "how often a process is killed")
	f.DurationVar(&cfg.restart, "restart", 20*time.Second, "how often Redis is killed and restarted (of a cluster, a master)")
	f.BoolVar(&cfg.cluster, "cluster", false, "a cluster of three masters, instead of one server")
	f.DurationVar(&cfg.limit, "limit", 30*time.Minute, "of all")
	if err := f.Parse(args); err != nil {
		return cfg, err
	}
	if cfg.ids == 0 {
		cfg.ids = max(cfg.writers, cfg.changes/10)
	}
	if f.NArg() > 0 || cfg.changes < 1 || cfg.writers < 1 || cfg.ids < cfg.writers || cfg.plain < 0 || cfg.plain > 0 && cfg.plain < cfg.writers || cfg.processes < 1 || cfg.kill <= 0 || cfg.restart <= 0 {
		return cfg, errors.New("a flag's value is out of range, or there is an argument that is none")
	}
	return cfg, nil
}
