package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// config holds the values of the flags.
type config struct {
	peers, gate bool
	dir         string // of PEERS.md and peers.svg; "": not written
	rounds      int
	slice       time.Duration // of one contender in a round
	only        []string      // groups that are measured
	quick       bool          // a hundredth of the entries and operations
}

func main() {
	if settings := os.Getenv(childVariable); settings != "" {
		if err := instance(settings); err != nil {
			fmt.Fprintln(os.Stderr, "benchmarks:", err)
			os.Exit(1)
		}
		return
	}
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
	f.BoolVar(&cfg.quick, "quick", false, "a hundredth of the entries and operations, to see that all groups run")
	only := f.String("only", "", "groups to measure, with commas between: "+strings.Join(groupNames(), ", ")+" (default: all with -peers, else hits,values)")
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
	return cfg, cfg.choose(*only)
}

// choose sets the groups.
func (c *config) choose(only string) error {
	switch {
	case only != "":
		c.only = strings.Split(only, ",")
	case c.peers:
		c.only = groupNames()
	default:
		c.only = []string{hitsGroup, valuesGroup}
	}
	for _, name := range c.only {
		if !slices.Contains(groupNames(), name) {
			return fmt.Errorf("-only %q: %s are allowed", only, strings.Join(groupNames(), ", "))
		}
	}
	return nil
}

func run(cfg config, out io.Writer) error {
	if cfg.gate {
		return gate(cfg, out)
	}
	r, err := measureInProcess(cfg)
	if err != nil {
		return err
	}
	sections, failed := measureGroups(cfg)
	text := r.markdown() + sections
	fmt.Fprint(out, text)
	if cfg.dir == "" {
		return failed
	}
	failed = errors.Join(failed, os.WriteFile(filepath.Join(cfg.dir, "PEERS.md"), []byte(page(text)), 0o600))
	if len(r.http) == 0 {
		return failed
	}
	return errors.Join(failed, os.WriteFile(filepath.Join(cfg.dir, "peers.svg"), []byte(r.svg()), 0o600))
}

// measureInProcess measures the groups hits and values.
func measureInProcess(cfg config) (r report, err error) {
	if slices.Contains(cfg.only, hitsGroup) {
		for _, f := range frameworks() {
			t, err := measureFramework(cfg, f)
			if err != nil {
				return r, fmt.Errorf("%s: %w", f.name, err)
			}
			r.http = append(r.http, t)
		}
	}
	if slices.Contains(cfg.only, valuesGroup) {
		for _, kind := range dataKinds() {
			t, err := measureData(cfg, kind)
			if err != nil {
				return r, fmt.Errorf("%s: %w", kind.name, err)
			}
			r.data = append(r.data, t)
		}
	}
	return r, nil
}
