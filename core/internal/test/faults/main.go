package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// The modes.
const (
	modeFaults  = "faults"
	modeHerd    = "herd"
	modeStop    = "stop"
	modeRefused = "refused"
)

func main() {
	if say := os.Getenv(childEnv); say != "" {
		if err := child(say); err != nil {
			fmt.Fprintln(os.Stderr, "faults:", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	cfg, err := parse(os.Args[1:], os.Stdout, os.Stderr)
	if err == nil {
		err = conduct(ctx, cfg)
	}
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "faults:", err)
		os.Exit(1)
	}
}

func parse(args []string, out, usage io.Writer) (config, error) {
	cfg := config{out: out}
	f := flag.NewFlagSet("faults", flag.ContinueOnError)
	f.SetOutput(usage)
	f.StringVar(&cfg.mode, "mode", modeFaults, "faults, herd, stop or refused")
	f.DurationVar(&cfg.duration, "duration", time.Minute, "duration of the faults; of mode stop: of the load before and after")
	f.BoolVar(&cfg.cluster, "cluster", false, "a cluster of three masters and three replicas, instead of one server")
	f.Uint64Var(&cfg.seed, "seed", uint64(time.Now().UnixNano()), "seed of the schedule of faults; the load is random in each run")
	f.IntVar(&cfg.readers, "readers", 32, "clients that read")
	f.IntVar(&cfg.writers, "writers", 8, "clients that write")
	f.IntVar(&cfg.ids, "ids", 1000, "number of rows")
	f.IntVar(&cfg.requests, "requests", 10_000, "number of requests of a herd")
	f.DurationVar(&cfg.budget, "budget", 0, "RemoteBudget of the processes (default 50ms, of a herd 1s)")
	f.DurationVar(&cfg.freeze, "freeze", 10*time.Second, "how long mode stop freezes Redis")
	only := f.String("faults", "", "comma-separated names of the faults to run, or none (default all)")
	f.BoolVar(&cfg.verbose, "v", false, "log each event")
	if err := f.Parse(args); err != nil {
		return cfg, err
	}
	if *only != "" {
		cfg.faults = strings.Split(*only, ",")
	}
	switch {
	case f.NArg() > 0:
		return cfg, fmt.Errorf("unexpected argument %q: only flags are allowed", f.Arg(0))
	case cfg.duration < 0 || cfg.budget < 0 || cfg.freeze < 0 || cfg.readers < 1 || cfg.writers < 1 || cfg.ids < 2 || cfg.requests < 4:
		return cfg, errors.New("a flag's number is too small")
	}
	cfg.ids = max(cfg.ids+cfg.ids%2, 4*(herdAttempts+1))
	for _, name := range cfg.faults {
		if !slices.ContainsFunc(allFaults(cfg.cluster), func(f fault) bool { return f.name == name }) && name != "none" {
			return cfg, fmt.Errorf("-faults: unknown fault %q", name)
		}
	}
	return cfg, nil
}

// startupWithin bounds the start before a run and the end after it.
const startupWithin = 2 * time.Minute

// conduct runs the mode of cfg. When it returns, every process that it has started has ended.
func conduct(ctx context.Context, cfg config) error {
	modes := map[string]func(context.Context, *run) error{modeFaults: faults, modeHerd: herd, modeStop: stopped, modeRefused: refused}
	mode := modes[cfg.mode]
	if mode == nil {
		return fmt.Errorf("mode %q: faults, herd, stop and refused are allowed", cfg.mode)
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.duration+cfg.freeze+startupWithin)
	defer cancel()
	r, err := newRun(ctx, cfg)
	if err != nil {
		return err
	}
	err = mode(ctx, r)
	r.close(err == nil)
	return err
}

// faults is the mode of that name.
func faults(ctx context.Context, r *run) error {
	begun := time.Now()
	err := r.underLoad(ctx, r.schedule)
	return errors.Join(r.report(time.Since(begun)), err)
}
