package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// config holds the values of the flags.
type config struct {
	peers, gate bool
	dir         string // of PEERS.md and peers.svg; "": not written
	rounds      int
	slice       time.Duration // of one contender in a round
}

func main() {
	cfg, err := parse(os.Args[1:], os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return
	case err == nil:
		err = run(cfg, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchmarks:", err)
		os.Exit(1)
	}
}

func parse(args []string, usage io.Writer) (config, error) {
	var cfg config
	f := flag.NewFlagSet("benchmarks", flag.ContinueOnError)
	f.SetOutput(usage)
	f.BoolVar(&cfg.peers, "peers", false, "measure other caches as well")
	f.StringVar(&cfg.dir, "write", "", "folder in which to write PEERS.md and peers.svg")
	f.BoolVar(&cfg.gate, "gate", false, "fail if a hit of Larder is far slower than a bare handler that writes the same")
	f.IntVar(&cfg.rounds, "rounds", 81, "rounds, 3 to 1001")
	f.DurationVar(&cfg.slice, "slice", 2*time.Millisecond, "time of a contender in a round, 100µs to 1s")
	if err := f.Parse(args); err != nil {
		return cfg, err
	}
	switch {
	case f.NArg() > 0:
		return cfg, fmt.Errorf("unexpected argument %q: only flags are allowed", f.Arg(0))
	case cfg.rounds < 3 || cfg.rounds > 1001:
		return cfg, fmt.Errorf("-rounds %d: 3 to 1001 are allowed", cfg.rounds)
	case cfg.slice < 100*time.Microsecond || cfg.slice > time.Second:
		return cfg, fmt.Errorf("-slice %v: 100µs to 1s are allowed", cfg.slice)
	}
	return cfg, nil
}

func run(cfg config, out io.Writer) error {
	if cfg.gate {
		return gate(cfg, out)
	}
	var r report
	for _, f := range frameworks() {
		t, err := measureFramework(cfg, f)
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		r.http = append(r.http, t)
	}
	for _, kind := range dataKinds() {
		t, err := measureData(cfg, kind)
		if err != nil {
			return fmt.Errorf("%s: %w", kind.name, err)
		}
		r.data = append(r.data, t)
	}
	text := r.markdown()
	fmt.Fprint(out, text)
	if cfg.dir == "" {
		return nil
	}
	return errors.Join(
		os.WriteFile(filepath.Join(cfg.dir, "PEERS.md"), []byte(page(text)), 0o600),
		os.WriteFile(filepath.Join(cfg.dir, "peers.svg"), []byte(r.svg()), 0o600),
	)
}
