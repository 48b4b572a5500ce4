package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Numbers of mode refused.
const (
	refusedRows  = 50 // read by the readers; each has the tag catalog
	refusedPause = 10 * time.Millisecond
	refusedPhase = 5 * time.Second
	refusedGap   = 4 * time.Millisecond // between the reads of a process: a ratio needs no load, and fewer reads per write lose more
	refusedLoss  = 0.05                 // of the hit ratio: what a busy machine may cost
)

// refused measures the hit ratio of a route before, during and after a client sends 100 writes
// per second that the handler refuses. The route of these writes names the tag of every row.
func refused(ctx context.Context, r *run) error {
	if _, err := r.hitsBack(ctx); err != nil {
		return err
	}
	if _, err := r.shelfRatio(ctx, refusedPhase/5); err != nil { // every process has every row
		return err
	}
	before, err := r.shelfRatio(ctx, refusedPhase)
	if err != nil {
		return err
	}
	refusing, stop := context.WithCancel(ctx)
	defer stop()
	sent := make(chan int, 1)
	failed := make(chan error, 1)
	go func() {
		n, err := r.refuseWrites(refusing)
		sent <- n
		failed <- err
	}()
	during, err := r.shelfRatio(ctx, refusedPhase)
	stop()
	n, refusalErr := <-sent, <-failed
	if err := errors.Join(err, refusalErr); err != nil {
		return err
	}
	after, err := r.shelfRatio(ctx, refusedPhase)
	if err != nil {
		return err
	}
	fmt.Fprintf(r.cfg.out, "hit ratio of a route: %s; during %d refused writes to it: %s; afterwards: %s\n", before, n, during, after)
	if during.of() < before.of()-refusedLoss || after.of() < before.of()-refusedLoss {
		return fmt.Errorf("%w: refused writes have taken out what they would have changed", errBroken)
	}
	return nil
}

// ratio counts reads and the hits among them.
type ratio struct{ hits, reads int64 }

func (r ratio) of() float64 { return float64(r.hits) / float64(max(r.reads, 1)) }

func (r ratio) String() string { return fmt.Sprintf("%.2f %% of %d reads", 100*r.of(), r.reads) }

// shelfRatio reads the rows through every process for a time.
func (r *run) shelfRatio(ctx context.Context, d time.Duration) (ratio, error) {
	var hits, reads atomic.Int64
	failed := make([]error, len(r.fleet.places))
	end := time.Now().Add(d)
	var wg sync.WaitGroup
	for place := range r.fleet.places {
		wg.Go(func() {
			cs := r.fleet.clients()
			defer cs.close()
			for i := 0; ctx.Err() == nil && (i < refusedRows || time.Now().Before(end)); i++ {
				res, err := cs.to(place).do(http.MethodGet, "/shelf/", i%refusedRows, "")
				if err == nil && res.status != http.StatusOK {
					err = fmt.Errorf("GET /shelf/: status %d: %s", res.status, res.body)
				}
				if err != nil {
					failed[place] = err
					return
				}
				if reads.Add(1); res.hit {
					hits.Add(1)
				}
				time.Sleep(refusedGap)
			}
		})
	}
	wg.Wait()
	return ratio{hits.Load(), reads.Load()}, errors.Join(append(failed, ctx.Err())...)
}

// refuseWrites sends writes to the processes in turn, each of which refuses them, until ctx ends.
func (r *run) refuseWrites(ctx context.Context) (n int, err error) {
	cs := r.fleet.clients()
	defer cs.close()
	tick := time.NewTicker(refusedPause)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return n, nil
		case <-tick.C:
		}
		res, err := cs.to(n%len(r.fleet.places)).do(http.MethodPut, "/shelf/", n%refusedRows, "")
		if err == nil && res.status != http.StatusUnprocessableEntity {
			err = fmt.Errorf("PUT /shelf/: status %d, not 422: %s", res.status, res.body)
		}
		if err != nil {
			return n, err
		}
		n++
	}
}
