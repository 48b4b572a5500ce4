package writebehind

import (
	"context"
	"crypto/rand"
	mathrand "math/rand/v2"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/larderhq/larder/core/internal/tier"
)

// pool is the workers of a Pipeline. Each worker has its own partitions, so that two workers
// never apply changes of one key.
type pool struct {
	workers []*worker
}

func newPool(s *shared, d *durability) *pool {
	c := &pool{}
	for i := range max(0, s.Worker.Workers) {
		c.workers = append(c.workers, newWorker(s, d, i))
	}
	return c
}

// of returns the worker of a partition, nil if this process has no workers.
func (c *pool) of(p int) *worker {
	if len(c.workers) == 0 {
		return nil
	}
	return c.workers[p%len(c.workers)]
}

// wake signals to the worker of a partition that changes were recorded in it.
func (c *pool) wake(p int) {
	if w := c.of(p); w != nil {
		w.signals.due.Or(1 << p)
		signal(w.signals.recorded)
	}
}

// makeRoom signals to the worker of a partition that changes wait for room in it.
func (c *pool) makeRoom(p int) {
	if w := c.of(p); w != nil {
		w.signals.due.Or(1 << p)
		signal(w.signals.full)
	}
}

// flush signals to all workers that a Flush waits.
func (c *pool) flush() {
	for _, w := range c.workers {
		signal(w.signals.urgent)
	}
}

func (c *pool) end() {
	for _, w := range c.workers {
		w.signals.once.Do(func() { close(w.signals.quit) })
	}
}

// signals wake a worker.
type signals struct {
	due      atomic.Uint64 // partitions in which changes were recorded
	recorded chan struct{}
	full     chan struct{} // changes wait for room
	urgent   chan struct{} // a Flush waits
	quit     chan struct{}
	once     sync.Once
}

// signal sends to a channel of capacity 1, which may hold a signal already.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// schedule has the time of a worker's next round in each partition.
type schedule struct {
	at       [tier.MaxPartitions]time.Time // zero: as soon as changes are recorded
	failures [tier.MaxPartitions]int       // consecutive rounds without an applied change
}

// postpone sets the time until the next round of a partition.
func (s *schedule) postpone(p int, d time.Duration) { s.at[p] = time.Now().Add(d) }

// wait returns the time until a postponed partition is due, pollInterval at most.
func (s *schedule) wait() time.Duration {
	wait := pollInterval
	for p := range s.at {
		if !s.at[p].IsZero() {
			wait = min(wait, max(0, time.Until(s.at[p])))
		}
	}
	return wait
}

// due returns the partitions of a mask except those that are still postponed, and all whose
// postponement has ended.
func (s *schedule) due(mask uint64) uint64 {
	now := time.Now()
	for p := range s.at {
		switch {
		case s.at[p].IsZero():
		case now.Before(s.at[p]):
			mask &^= 1 << p
		default:
			s.at[p] = time.Time{}
			mask |= 1 << p
		}
	}
	return mask
}

// worker applies the changes of its partitions.
type worker struct {
	*shared
	durability *durability
	index      int
	signals    signals
	schedule   schedule
	lease      lease
	// applied is the time of the last successful apply.
	applied time.Time
	// applying is the begin of the running apply, nil if none runs.
	applying atomic.Pointer[time.Time]
}

func newWorker(s *shared, d *durability, index int) *worker {
	return &worker{
		shared: s, durability: d, index: index, lease: lease{token: rand.Text()},
		signals: signals{
			recorded: make(chan struct{}, 1), full: make(chan struct{}, 1), urgent: make(chan struct{}, 1),
			quit: make(chan struct{}),
		},
	}
}

func (w *worker) ending() bool {
	select {
	case <-w.signals.quit:
		return true
	case <-w.ctx.Done():
		return true
	default:
		return false
	}
}

// run applies changes until quit.
func (w *worker) run() {
	poll := time.NewTicker(pollInterval)
	defer poll.Stop()
	durable := time.NewTicker(durabilityInterval)
	defer durable.Stop()
	next := time.NewTimer(0)
	defer next.Stop()
	var gather <-chan time.Time // the end of the wait of recorded changes for others
	for {
		select {
		case <-w.signals.quit:
			return
		case <-w.ctx.Done():
			return
		case <-w.signals.recorded:
			if gather == nil {
				gather = time.After(w.Worker.Interval)
			}
			continue
		case <-durable.C:
			w.checkDurable()
			continue
		case <-poll.C:
			w.drain(w.poll(w.Worker.Interval))
		case <-w.signals.urgent:
			gather = nil
			w.drain(w.signals.due.Swap(0) | w.poll(0))
		case <-gather:
			gather = nil
			w.drain(w.signals.due.Swap(0))
		case <-w.signals.full:
			gather = nil
			w.drain(w.signals.due.Swap(0))
		case <-next.C:
			w.drain(0)
		}
		next.Reset(w.schedule.wait())
	}
}

// checkDurable checks whether the tier may evict queued changes. One of the workers does it.
func (w *worker) checkDurable() {
	if w.index != 0 {
		return
	}
	ctx, cancel := context.WithTimeout(w.ctx, callTimeout)
	defer cancel()
	_ = w.durability.check(ctx, w.shared) // it logs a tier that may evict
}

// poll returns the partitions with a change that has waited for the given time, the full ones,
// and those whose state is unknown.
func (w *worker) poll(waited time.Duration) (mask uint64) {
	states, err := w.states(w.ctx)
	for p := w.index; p < w.Engine.Partitions(); p += max(1, w.Worker.Workers) {
		switch {
		case p >= len(states):
			if err == nil {
				continue
			}
		case states[p].Err != nil || states[p].Depth >= w.quota():
		case states[p].Depth == 0, states[p].Now-states[p].First < waited.Microseconds():
			continue
		}
		mask |= 1 << p
	}
	return mask
}

// drain applies the changes of some partitions, and of those whose postponement has ended.
func (w *worker) drain(mask uint64) {
	mask = w.schedule.due(mask)
	for mask != 0 && !w.ending() {
		mask = w.round(mask)
	}
}

// backoff returns the wait after a number of failures, with up to a fifth of jitter, so that
// changes that have failed together are not retried together.
func (w *worker) backoff(failures int) time.Duration {
	d := w.Worker.MaxRetry
	if n := failures - 1; n < 30 && w.Worker.Retry<<n < d {
		d = w.Worker.Retry << n
	}
	return d + time.Duration(mathrand.Int64N(int64(d)/5+1))
}

// guarded calls a function of the Target in a goroutine of its own, which the function may
// end (runtime.Goexit). It returns a panic as an error.
func (s *shared) guarded(call func() error) (err error) {
	done := make(chan struct{})
	go func() {
		finished := false
		defer func() {
			if !finished {
				err = s.Target.Panicked(recover(), debug.Stack())
			}
			close(done)
		}()
		err = call()
		finished = true
	}()
	<-done
	return err
}
