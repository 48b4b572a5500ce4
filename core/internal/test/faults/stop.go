package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/larderhq/larder/core/internal/test/redisserver"
)

// stopped freezes Redis, or one master of a cluster, under load. It prints the effect on the clients and the logs.
func stopped(ctx context.Context, r *run) error {
	const before, after = 5 * time.Second, 5 * time.Second
	begun := time.Now()
	err := r.underLoad(ctx, func(ctx context.Context) error {
		if _, err := r.hitsBack(ctx); err != nil {
			return err
		}
		r.sleep(ctx, before)
		server := r.redis
		if r.cluster != nil {
			var err error
			if server, err = r.drawMaster(ctx); err != nil {
				return err
			}
		}
		return r.stop(ctx, server, after)
	})
	return errors.Join(r.report(time.Since(begun)), err)
}

func (r *run) stop(ctx context.Context, server *redisserver.Server, after time.Duration) error {
	sizes := make([]int64, len(r.fleet.places))
	for place := range sizes {
		if info, err := os.Stat(r.fleet.logFile(place)); err == nil {
			sizes[place] = info.Size()
		}
	}
	h, out := r.history, r.cfg.out
	reads, hits, writes, failures := h.reads.Load(), h.hits.Load(), h.writes.Load(), r.failures.Load()
	var requests spread
	r.timing.window.Store(&requests)
	over := h.happens("stopped")
	if err := r.freeze(ctx, server, r.cfg.freeze); err != nil {
		return err
	}
	over()
	back, err := r.hitsBack(ctx)
	if err != nil {
		r.fail(err.Error())
	}
	reads, hits = h.reads.Load()-reads, h.hits.Load()-hits
	writes, failures = h.writes.Load()-writes, r.failures.Load()-failures
	fmt.Fprintf(out, "Redis frozen for %v: %d reads (%d hits) and %d writes meanwhile, %d failed\n", r.cfg.freeze, reads, hits, writes, failures)
	fmt.Fprintf(out, "time beyond the handlers: %s (median), %s (p99), %s (slowest)\n",
		ms(int64(requests.quantile(.5))), ms(int64(requests.quantile(.99))), ms(requests.max.Load()))
	fmt.Fprintf(out, "hits returned %s after Redis continued\n", ms(int64(back)))
	r.sleep(ctx, after)
	r.timing.window.Store(nil)
	for place := range sizes {
		log, err := os.ReadFile(r.fleet.logFile(place))
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "log of %s:\n", r.fleet.at(place).name)
		printLog(out, string(log[min(sizes[place], int64(len(log))):]))
	}
	return ctx.Err()
}

// printLog prints each line of a log once, without the values by which lines of one message differ.
func printLog(out io.Writer, log string) {
	varies := regexp.MustCompile(`time=\S+ |\d{4}/\d\d/\d\d [0-9:]+ |[0-9.]+:\d+(->)?`)
	counts := make(map[string]int)
	var order []string
	for line := range strings.Lines(log) {
		line = strings.TrimSpace(varies.ReplaceAllString(line, ""))
		if counts[line]++; counts[line] == 1 {
			order = append(order, line)
		}
	}
	for _, line := range order {
		fmt.Fprintf(out, "%6d× %s\n", counts[line], line)
	}
}
