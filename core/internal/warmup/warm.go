// Package warmup loads the items of a sequence in batches: several concurrently, no faster
// than a rate. A run that was ended can be continued.
package warmup

import (
	"context"
	"iter"
	"sync"
	"sync/atomic"
	"time"
)

// Plan is how a sequence is worked through.
type Plan struct {
	Batch     int     // items of one batch
	Parallel  int     // concurrent batches
	PerSecond float64 // items; 0: no limit
	Skip      int     // items at the beginning that are left out
	// Progress is called after each batch, never concurrently.
	Progress func(Done)
}

// Done is the progress of a Run.
type Done struct {
	// Items is how many items are done from the beginning of the sequence on, including those
	// that were skipped. Later items may be done, too.
	Items   int
	Filled  int // items of this run that were stored
	Failed  int // items of this run whose load failed
	Elapsed time.Duration
}

// Run works through items. do returns how many of a batch were filled in and how
// many failed. Run ends with the sequence, or with ctx, and returns how far it came.
func Run[T any](ctx context.Context, items iter.Seq[T], p Plan, do func(ctx context.Context, batch []T) (filled, failed int)) (Done, error) {
	w := &work{plan: p, start: time.Now(), finished: make(map[int]int)}
	w.done.Items = p.Skip
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	slots := make(chan struct{}, p.Parallel)
	var all sync.WaitGroup
	sent, number := 0, 0
	give := func(batch []T) bool {
		if !w.pace(ctx, sent) {
			return false
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return false
		}
		n := number
		number++
		sent += len(batch)
		all.Go(func() {
			defer func() { <-slots }()
			defer func() {
				if v := recover(); v != nil { // it is the caller's, in the caller's goroutine
					w.panicked.CompareAndSwap(nil, &panicked{v})
					cancel()
				}
			}()
			filled, failed := do(ctx, batch)
			if ctx.Err() == nil { // else it may not have been done
				w.note(n, len(batch), filled, failed)
			}
		})
		return true
	}
	var batch []T
	skip, ended := p.Skip, false
	for item := range items {
		if skip > 0 {
			skip--
			continue
		}
		if batch = append(batch, item); len(batch) == p.Batch {
			if ended = !give(batch); ended {
				break
			}
			batch = nil
		}
	}
	if len(batch) > 0 && !ended {
		give(batch)
	}
	all.Wait()
	if v := w.panicked.Load(); v != nil {
		panic(v.value)
	}
	w.done.Elapsed = time.Since(w.start)
	return w.done, ctx.Err()
}

type panicked struct{ value any }

type work struct {
	plan     Plan
	start    time.Time
	panicked atomic.Pointer[panicked]

	mu       sync.Mutex
	next     int         // the first batch that is not done
	finished map[int]int // batches behind it that are: number, items. No more than run at a time
	done     Done
}

// pace waits until so many items may have been sent.
func (w *work) pace(ctx context.Context, sent int) bool {
	if w.plan.PerSecond <= 0 {
		return ctx.Err() == nil
	}
	due := w.start.Add(time.Duration(float64(sent) / w.plan.PerSecond * float64(time.Second)))
	timer := time.NewTimer(time.Until(due))
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

func (w *work) note(number, items, filled, failed int) {
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
	w.done.Elapsed = time.Since(w.start)
	if w.plan.Progress != nil {
		w.plan.Progress(w.done)
	}
}
