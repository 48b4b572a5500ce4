// Package warmup loads the items of a sequence in concurrent batches, at a limited rate. A run
// that was ended can be continued.
package warmup

import (
	"context"
	"iter"
	"sync"
	"sync/atomic"
	"time"
)

// Plan is the configuration of a Run.
type Plan struct {
	Batch     int     // items of one batch
	Parallel  int     // concurrent batches
	PerSecond float64 // items per second; 0: no limit
	Skip      int     // number of items to leave out at the beginning
	// Progress is called after each batch, never concurrently.
	Progress func(Done)
}

// Done is the progress of a Run.
type Done struct {
	// Items is the number of items at the beginning of the sequence that are done without a
	// gap, including skipped ones. Later items may be done, too.
	Items   int
	Filled  int // items of this run that were stored
	Failed  int // items of this run whose load failed
	Elapsed time.Duration
}

// Run calls do for the batches of a sequence. do returns the numbers of items of a batch that
// were stored and that failed. Run ends with the sequence, or with ctx, whose error it returns
// with its progress. A panic of do is raised in the caller's goroutine.
func Run[T any](ctx context.Context, items iter.Seq[T], p Plan, do func(ctx context.Context, batch []T) (filled, failed int)) (Done, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := &run[T]{
		work: work{plan: p, begun: time.Now(), finished: make(map[int]int)},
		do:   do, cancel: cancel, slots: make(chan struct{}, p.Parallel),
	}
	r.done.Items = p.Skip
	r.startAll(ctx, items)
	r.running.Wait()
	if v := r.panicked.Load(); v != nil {
		panic(v.value)
	}
	r.done.Elapsed = time.Since(r.begun)
	return r.done, ctx.Err()
}

// run is a Run in progress.
type run[T any] struct {
	work
	do      func(ctx context.Context, batch []T) (filled, failed int)
	cancel  context.CancelFunc
	slots   chan struct{} // has room for each running batch
	running sync.WaitGroup

	sent    int // items of the batches that were started
	batches int // number of batches that were started
}

// startAll starts the batches of a sequence, until it or ctx ends.
func (r *run[T]) startAll(ctx context.Context, items iter.Seq[T]) {
	var batch []T
	skip := r.plan.Skip
	for item := range items {
		if skip > 0 {
			skip--
			continue
		}
		if batch = append(batch, item); len(batch) == r.plan.Batch {
			if !r.start(ctx, batch) {
				return
			}
			batch = nil
		}
	}
	if len(batch) > 0 {
		r.start(ctx, batch)
	}
}

// start starts a batch as soon as the rate and the other batches permit it. It returns false
// when ctx has ended.
func (r *run[T]) start(ctx context.Context, batch []T) bool {
	if !r.pace(ctx, r.sent) {
		return false
	}
	select {
	case r.slots <- struct{}{}:
	case <-ctx.Done():
		return false
	}
	number := r.batches
	r.batches++
	r.sent += len(batch)
	r.running.Go(func() {
		defer func() { <-r.slots }()
		defer func() {
			if v := recover(); v != nil {
				r.panicked.CompareAndSwap(nil, &panicked{v})
				r.cancel()
			}
		}()
		filled, failed := r.do(ctx, batch)
		if ctx.Err() == nil { // otherwise the batch may not be done
			r.record(number, len(batch), filled, failed)
		}
	})
	return true
}

type panicked struct{ value any }

// work is the progress of a Run.
type work struct {
	plan     Plan
	begun    time.Time
	panicked atomic.Pointer[panicked]

	mu       sync.Mutex
	next     int         // the first batch that is not done
	finished map[int]int // the later batches that are done: their items by number. As many as run concurrently, at most
	done     Done
}

// pace waits until the rate permits another batch after the sent items.
func (w *work) pace(ctx context.Context, sent int) bool {
	if w.plan.PerSecond <= 0 {
		return ctx.Err() == nil
	}
	due := w.begun.Add(time.Duration(float64(sent) / w.plan.PerSecond * float64(time.Second)))
	timer := time.NewTimer(time.Until(due))
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// record records a batch that is done.
func (w *work) record(number, items, filled, failed int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.finished[number] = items
	for {
		n, ok := w.finished[w.next]
		if !ok {
			break
		}
		delete(w.finished, w.next)
		w.done.Items += n
		w.next++
	}
	w.done.Filled += filled
	w.done.Failed += failed
	w.done.Elapsed = time.Since(w.begun)
	if w.plan.Progress != nil {
		w.plan.Progress(w.done)
	}
}
