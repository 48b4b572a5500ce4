package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/test/redisserver"
)

// row holds the measurements at one round trip.
type row struct {
	trip                            time.Duration
	hit, remote, miss, here, abroad []time.Duration
	purge                           []time.Duration
	n                               int
	stored                          int // of n misses, shortly after the responses
	runs                            int // runs of the handler for these n
	remoteRuns, hereRuns            int // runs for n requests of a second caller, at the other instance and at the same one
	abroadRuns                      int
	pending                         int // invalidations that were not confirmed when the call returned
}

const head = `| round trip | hit in process | in Redis, not in the process: time, runs | miss: time, runs | stored | invalidation: time, confirmed when the call returned | second caller, same instance: time, runs | second caller, other instance: time, runs |
|---:|---:|---:|---:|---:|---:|---:|---:|
`

// String returns the row of the table.
func (r row) String() string {
	return fmt.Sprintf("| %v | %s | %s, %s | %s, %s | %.0f %% | %s, %s | %s, %s | %s, %s |\n", r.trip, median(r.hit),
		median(r.remote), r.per(r.remoteRuns), median(r.miss), r.per(r.runs), 100*float64(r.stored)/float64(r.n),
		median(r.purge), r.of(len(r.purge)-r.pending, len(r.purge)), median(r.here), r.per(r.hereRuns), median(r.abroad), r.per(r.abroadRuns))
}

func (row) of(k, n int) string { return fmt.Sprintf("%d of %d", k, n) }

// per formats a count divided by n.
func (r row) per(k int) string {
	return strings.TrimSuffix(fmt.Sprintf("%.1f", float64(k)/float64(r.n)), ".0")
}

func median(ds []time.Duration) string {
	if len(ds) == 0 {
		return "-"
	}
	ds = slices.Sorted(slices.Values(ds))
	d := ds[len(ds)/2]
	if d < time.Millisecond {
		return "< 1 ms"
	}
	return fmt.Sprintf("%.0f ms", float64(d)/float64(time.Millisecond))
}

// lab has two instances at one round trip from Redis.
type lab struct {
	row
	a, b   *instance
	origin origin
}

// measure fills in a row.
func measure(ctx context.Context, addr string, trip, budget time.Duration, n int) (r row, err error) {
	proxy, err := redisserver.StartProxy(addr)
	if err != nil {
		return r, err
	}
	defer func() {
		if err = errors.Join(err, proxy.Close()); err != nil {
			err = fmt.Errorf("at %v: %w", trip, err)
		}
	}()
	proxy.Delay(trip / 2)
	l := &lab{row: row{trip: trip, n: n}, origin: origin{runs: make(map[string]int)}}
	namespace := fmt.Sprintf("trip-%v-%v", trip, budget)
	for _, in := range []**instance{&l.a, &l.b} {
		if *in, err = open(proxy.Addr(), namespace, budget, &l.origin); err != nil {
			return r, err
		}
		defer func() { err = errors.Join(err, (*in).close()) }()
	}
	// Wait until both have connected and have measured the round trip.
	if err = sleep(ctx, 4*time.Second+20*trip); err != nil {
		return r, err
	}
	for _, step := range []func(context.Context) error{l.misses, l.hits, l.remoteHits, l.inOneInstance, l.inAnother, l.invalidations} {
		if err = step(ctx); err != nil {
			return r, err
		}
	}
	return l.row, nil
}

// settle waits until the work after the responses has ended.
func (l *lab) settle(ctx context.Context) error { return sleep(ctx, time.Second+5*l.trip) }

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// each requests n paths of a kind.
func (l *lab) each(ctx context.Context, in *instance, kind string, took *[]time.Duration) (runs int, err error) {
	for i := range l.n {
		path := fmt.Sprintf("/%s/%d", kind, i)
		before := l.origin.ran(path)
		d, err := in.get(ctx, path)
		if err != nil {
			return runs, err
		}
		*took = append(*took, d)
		runs += l.origin.ran(path) - before
	}
	return runs, nil
}

func (l *lab) misses(ctx context.Context) error {
	if _, err := l.each(ctx, l.a, "miss", &l.miss); err != nil {
		return err
	}
	if err := l.settle(ctx); err != nil {
		return err
	}
	for i := range l.n {
		l.runs += l.origin.ran(fmt.Sprintf("/miss/%d", i)) // also after the response
	}
	return nil
}

// hits repeats the requests that were misses.
func (l *lab) hits(ctx context.Context) error {
	var took []time.Duration
	runs, err := l.each(ctx, l.a, "miss", &took)
	l.stored = l.n - runs
	for _, d := range took {
		if d < theLoad {
			l.hit = append(l.hit, d)
		}
	}
	return errors.Join(err, l.settle(ctx))
}

// remoteHits sends them to the other instance.
func (l *lab) remoteHits(ctx context.Context) (err error) {
	l.remoteRuns, err = l.each(ctx, l.b, "miss", &l.remote)
	return errors.Join(err, l.settle(ctx))
}

func (l *lab) inOneInstance(ctx context.Context) (err error) {
	l.hereRuns, err = l.pairs(ctx, "here", l.a, &l.here)
	return err
}

func (l *lab) inAnother(ctx context.Context) (err error) {
	l.abroadRuns, err = l.pairs(ctx, "abroad", l.b, &l.abroad)
	return err
}

// pairs sends a second request while the handler runs for a first one.
func (l *lab) pairs(ctx context.Context, kind string, second *instance, took *[]time.Duration) (runs int, err error) {
	for i := range l.n {
		path := fmt.Sprintf("/%s/%d", kind, i)
		var first sync.WaitGroup
		var firstErr error
		first.Go(func() { _, firstErr = l.a.get(ctx, path) })
		for l.origin.ran(path) == 0 && ctx.Err() == nil {
			time.Sleep(time.Millisecond) // until the handler runs
		}
		d, err := second.get(ctx, path)
		first.Wait()
		if err = errors.Join(err, firstErr, ctx.Err()); err != nil {
			return runs, err
		}
		*took = append(*took, d)
		runs += l.origin.ran(path)
	}
	return runs, l.settle(ctx)
}

func (l *lab) invalidations(ctx context.Context) error {
	for i := range l.n {
		began := time.Now()
		err := l.a.cache.Invalidate(ctx, core.Key(fmt.Sprint("key:", i)), core.Tag(fmt.Sprint("tag:", i)))
		l.purge = append(l.purge, time.Since(began))
		switch {
		case errors.Is(err, core.ErrPending):
			l.pending++
		case err != nil:
			return err
		}
	}
	return nil
}
