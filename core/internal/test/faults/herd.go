package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Of a herd.
const (
	// herdBudget is far above the default. Clients and processes share this machine, and a reply of Redis that is in
	// time waits behind thousands of requests until the goroutine that reads it runs.
	herdBudget    = time.Second
	herdStaleness = 10 * time.Second // likewise: the watchdog would be late, and the processes would not use the tier
	herdHandler   = 300 * time.Millisecond
	herdKillAfter = 100 * time.Millisecond // after its handler began
	herdAttempts  = 5
)

// herd sends requests for one cold key to all processes at once. It then does so for another key, and kills the process
// whose handler runs.
//
// A process that Redis does not answer within its budget runs the handler by itself, as documented. On a busy machine
// so many requests cause that. The count of runs then proves nothing, and another herd is sent.
func herd(ctx context.Context, r *run) error {
	leaders := make(chan leader, 64)
	r.origin.delay = func(int) time.Duration { return herdHandler / 2 }
	r.origin.read = func(process, row int) {
		select {
		case leaders <- leader{process, row}:
		default:
		}
	}
	r.origin.serve()
	if _, err := r.hitsBack(ctx); err != nil { // all instances follow the log
		return err
	}
	row := -2 // neither late tags nor a short life: 2, 6, 10 and so on
	next := func() int { row += 4; return row }

	slowest, err := r.herdOnce(ctx, next)
	if err != nil {
		return err
	}
	return r.herdWithDeath(ctx, next(), leaders, slowest)
}

// leader is a process that has begun to run the handler for a row.
type leader struct{ process, row int }

// herdOnce sends herds until Redis has answered one in time, and returns the slowest request of that.
func (r *run) herdOnce(ctx context.Context, next func() int) (slowest time.Duration, err error) {
	for range herdAttempts {
		row := next()
		before, err := r.remoteErrors()
		if err != nil {
			return 0, err
		}
		s, err := r.stampede(ctx, row, nil)
		if err != nil {
			return 0, err
		}
		after, err := r.remoteErrors()
		if err != nil {
			return 0, err
		}
		runs := r.origin.reads[row].Load()
		fmt.Fprintf(r.cfg.out, "%d concurrent requests for a cold key, %d processes, a handler of %v: %d runs; "+
			"slowest request %v, failed %d; calls to Redis that took longer than %v: %d\n", r.cfg.requests, len(r.fleet.places),
			herdHandler, runs, s.slowest.Round(time.Millisecond), s.failed, r.cfg.budget, after-before)
		switch {
		case s.failed > 0:
			return 0, fmt.Errorf("%w: requests failed: %v", errBroken, r.failed)
		case runs == 1:
			return s.slowest, nil
		case after == before:
			return 0, fmt.Errorf("%w: the handler ran %d times for one cold key", errBroken, runs)
		}
	}
	return 0, fmt.Errorf("%w: the handler ran more than once for each of %d cold keys, since Redis took too long",
		errBroken, herdAttempts)
}

// herdWithDeath sends a herd and kills the process that runs the handler for it.
func (r *run) herdWithDeath(ctx context.Context, row int, leaders <-chan leader, slowest time.Duration) error {
	var killed *process
	s, err := r.stampede(ctx, row, func() {
		for killed == nil {
			select {
			case l := <-leaders:
				if l.row != row {
					continue
				}
				r.sleep(ctx, herdKillAfter)
				killed = r.fleet.at(l.process)
				r.kill(killed)
			case <-ctx.Done():
				return
			}
		}
	})
	if err != nil {
		return err
	}
	runs := r.origin.reads[row].Load()
	fmt.Fprintf(r.cfg.out, "the same for another key, %s killed %v after its handler began: %d runs; "+
		"slowest request to the other processes %v, failed there %d\n", killed.name, herdKillAfter, runs, s.slowest.Round(time.Millisecond), s.failed)

	// The machine's own time for so many answers is the time of the first herd beyond its handler.
	limit := slowest + herdKillAfter + leaseTime + herdHandler + 2*r.cfg.budget
	switch {
	case runs > 2:
		return fmt.Errorf("%w: the handler ran %d times although only one leader died", errBroken, runs)
	case s.failed > 0:
		return fmt.Errorf("%w: requests failed: %v", errBroken, r.failed)
	case s.slowest > limit && !r.cfg.untimed:
		return fmt.Errorf("%w: a dead leader cost %v, more than a lease period", errBroken, s.slowest)
	}
	return nil
}

// remoteErrors returns the number of calls to Redis that have failed or took too long, of all processes.
func (r *run) remoteErrors() (n int64, err error) {
	cs := r.fleet.clients()
	defer cs.close()
	for place := range r.fleet.places {
		s, err := stats(cs.to(place))
		if err != nil {
			return 0, err
		}
		n += s.RemoteErrors
	}
	return n, nil
}

// stampeded is the outcome of a herd.
type stampeded struct {
	slowest time.Duration
	failed  int
}

// stampede opens a connection for each request and sends all requests at once. It calls meanwhile, if that is not nil,
// while they are under way.
func (r *run) stampede(ctx context.Context, row int, meanwhile func()) (s stampeded, err error) {
	n := r.cfg.requests
	list := make([]*client, n)
	var connecting sync.WaitGroup
	failed := make([]error, n)
	slots := make(chan struct{}, 64)
	for i := range n {
		connecting.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			list[i] = &client{p: r.fleet.at(i % len(r.fleet.places))}
			_, failed[i] = list[i].do(http.MethodGet, "/pending/", 0, "")
		})
	}
	connecting.Wait()
	defer func() {
		for _, c := range list {
			c.close()
		}
	}()
	if i := slices.IndexFunc(failed, func(err error) bool { return err != nil }); i >= 0 {
		return s, fmt.Errorf("connect: %w", failed[i])
	}

	var slowest, bad atomic.Int64
	start := make(chan struct{})
	var asking sync.WaitGroup
	for _, c := range list {
		asking.Go(func() {
			<-start
			begun := time.Now()
			res, err := c.do(http.MethodGet, "/items/", row, "")
			if r.answered(c, "GET /items", row, res, err) {
				raise(&slowest, int64(time.Since(begun)))
			} else if !c.p.killed.Load() {
				bad.Add(1)
			}
		})
	}
	close(start)
	if meanwhile != nil {
		meanwhile()
	}
	asking.Wait()
	return stampeded{time.Duration(slowest.Load()), int(bad.Load())}, ctx.Err()
}
