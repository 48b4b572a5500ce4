package main

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// fault causes a failure, and has repaired it when it returns.
type fault struct {
	name string
	run  func(ctx context.Context, r *run) error
}

// failovers returns the faults after which another server is the master. In a cluster one
// of them happens at least every failoverEvery, however long the others take.
func failovers() []string {
	return []string{"graceful failover", "master killed and replica promoted", "shard stopped until replaced"}
}

const failoverEvery = 20 * time.Second

// tally is the result of one kind of fault.
type tally struct {
	name    string
	count   int
	slowest time.Duration // until hits returned
	notBack int

	reads, hits int64 // while it lasted
}

// faultWithin bounds one fault.
const faultWithin = 60 * time.Second

func allFaults(cluster bool) []fault {
	if cluster {
		return append(commonFaults(), clusterFaults()...)
	}
	return append(commonFaults(), standaloneFaults()...)
}

// schedule runs faults one after the other until the time is over: all of them in random order, then all again in
// another order.
func (r *run) schedule(ctx context.Context) error {
	list := allFaults(r.cfg.cluster)
	if r.cfg.faults != nil {
		list = slices.DeleteFunc(list, func(f fault) bool { return !slices.Contains(r.cfg.faults, f.name) })
	}
	for _, f := range list {
		r.tally = append(r.tally, &tally{name: f.name})
	}
	if _, err := r.hitsBack(ctx); err != nil {
		return fmt.Errorf("before any fault: %w", err)
	}
	if len(list) == 0 {
		r.sleep(ctx, r.cfg.duration)
		return ctx.Err()
	}
	ends := time.Now().Add(r.cfg.duration)
	var deck, failing []int
	for i, f := range list {
		if r.cfg.cluster && slices.Contains(failovers(), f.name) {
			failing = append(failing, i)
		}
	}
	failed := time.Now()
	for {
		pause := time.Duration(r.rng.IntN(int(min(2*time.Second, r.cfg.duration/20))))
		if !r.sleep(ctx, min(pause, time.Until(ends))) {
			return ctx.Err()
		}
		if time.Now().After(ends) {
			return nil
		}
		if len(deck) == 0 {
			deck = r.rng.Perm(len(list))
		}
		i := deck[0]
		if len(failing) > 0 && !slices.Contains(failing, i) && time.Since(failed) > failoverEvery {
			i = failing[r.rng.IntN(len(failing))]
		} else {
			deck = deck[1:]
		}
		if slices.Contains(failing, i) {
			failed = time.Now()
		}
		if err := r.happen(ctx, list[i], r.tally[i]); err != nil {
			return err
		}
	}
}

// happen runs one fault, and waits until hits return.
func (r *run) happen(ctx context.Context, f fault, t *tally) error {
	r.say("%s", f.name)
	over := r.history.happens(f.name)
	reads, hits := r.history.reads.Load(), r.history.hits.Load()
	limited, cancel := context.WithTimeout(ctx, faultWithin)
	err := f.run(limited, r)
	cancel()
	over()
	t.reads += r.history.reads.Load() - reads
	t.hits += r.history.hits.Load() - hits
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("%s: %w", f.name, err)
	}
	t.count++
	back, err := r.hitsBack(ctx)
	if err != nil {
		t.notBack++
		r.say("%s: %v", f.name, err)
		return ctx.Err()
	}
	t.slowest = max(t.slowest, back)
	r.say("%s: over; hits returned after %v", f.name, back.Round(time.Millisecond))
	return nil
}

// sleep returns false if ctx has ended.
func (r *run) sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(max(d, 0))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// between returns a random duration.
func (r *run) between(least, most time.Duration) time.Duration {
	return least + time.Duration(r.rng.Int64N(int64(most-least)))
}
