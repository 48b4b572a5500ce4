// The command downstream measures what shared caches in front of Larder do with its
// answers: nginx, Varnish, Squid, Apache httpd, Traffic Server and HAProxy, as Debian
// packages them. Each runs as a process of its own on a free port of the loopback
// interface, in front of one server with Larder, and is ended at the end.
//
//	go -C examples run ./downstream                        # prints the table
//	go -C examples run ./downstream -only nginx,Varnish    # some of the caches
//	go -C examples run ./downstream -write FILE            # puts the table into a Markdown file
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
)

func main() {
	only := flag.String("only", "", "names of caches, separated by commas; all if empty")
	write := flag.String("write", "", "a Markdown file whose table is replaced")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, *only, *write)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "downstream:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, only, file string) error {
	chosen := fronts()
	if only != "" {
		names := strings.Split(only, ",")
		chosen = slices.DeleteFunc(chosen, func(f front) bool { return !slices.Contains(names, f.name) })
	}
	if len(chosen) == 0 {
		return fmt.Errorf("-only %q names none of the caches", only)
	}
	if missing := missingCommands(chosen); len(missing) > 0 {
		return fmt.Errorf("not installed: %s; install them, as root: apt-get install nginx-light varnish squid apache2 trafficserver haproxy",
			strings.Join(missing, ", "))
	}
	columns, err := measureAll(ctx, chosen)
	if err != nil {
		return err
	}
	table := markdown(columns)
	if file == "" {
		fmt.Print(table)
		return nil
	}
	return replaceTable(file, table)
}

// column is what one cache did in each situation.
type column struct {
	front   front
	version string
	cells   []string
}

// measureAll measures the caches side by side, each against paths of its own.
func measureAll(ctx context.Context, chosen []front) ([]column, error) {
	o, err := newOrigin()
	if err != nil {
		return nil, err
	}
	defer o.close()
	columns := make([]column, len(chosen))
	errs := make([]error, len(chosen))
	var wg sync.WaitGroup
	for i, f := range chosen {
		wg.Go(func() { columns[i], errs[i] = measure(ctx, o, f) })
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			return nil, fmt.Errorf("%s: %w", chosen[i].name, err)
		}
	}
	return columns, nil
}

func measure(ctx context.Context, o *origin, f front) (column, error) {
	c := column{front: f, version: version(ctx, f)}
	p, err := startFront(ctx, f, o.port)
	if err != nil {
		return c, err
	}
	defer p.stop()
	v := &visitor{origin: o, front: p.url, prefix: strings.ReplaceAll(f.name, " ", "-")}
	defer v.close()
	for _, s := range situations {
		cell, err := s.measure(ctx, v)
		if err != nil {
			return c, fmt.Errorf("%s: %w", s.name, err)
		}
		c.cells = append(c.cells, cell)
	}
	return c, nil
}
