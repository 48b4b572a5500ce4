package core

import (
	"context"
	"crypto/rand"
	"errors"
	"math/bits"
	mathrand "math/rand/v2"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/larderhq/larder/core/internal/engine"
	"github.com/larderhq/larder/core/internal/remote"
)

const (
	// workerLease is for how long a worker has the queue of a partition, unless it keeps
	// it: what a worker that dies costs those who wait for its batch.
	workerLease = 5 * time.Second
	// lookEvery is how often a worker looks for what other instances have queued, or
	// workers that died have left.
	lookEvery = time.Second
	// checkEvery is how often it is asked whether the tier keeps what is queued.
	checkEvery = 30 * time.Second
	// strikes is how many attempts in a row may fail before a worker takes it for the
	// database's fault, and leaves the rest for later.
	strikes = 3
)

// worker applies what is queued in its share of the partitions.
type worker[K comparable, V any] struct {
	w     *WriteBehind[K, V]
	index int
	token string // what its lease of a queue is known by

	due   atomic.Uint64 // partitions that have something
	kick  chan struct{}
	hurry chan struct{} // Flush waits
	quit  chan struct{}
	once  sync.Once

	at     [remote.MaxPartitions]time.Time // when a partition is looked at again; zero: when it is due
	failed [remote.MaxPartitions]int       // rounds in a row that nothing was applied in
}

func newWorker[K comparable, V any](w *WriteBehind[K, V], index int) *worker[K, V] {
	return &worker[K, V]{
		w: w, index: index, token: rand.Text(),
		kick: make(chan struct{}, 1), hurry: make(chan struct{}, 1), quit: make(chan struct{}),
	}
}

func (a *worker[K, V]) mark(p int) {
	a.due.Or(1 << p)
	select {
	case a.kick <- struct{}{}:
	default:
	}
}

func (a *worker[K, V]) wake() {
	select {
	case a.hurry <- struct{}{}:
	default:
	}
}

func (a *worker[K, V]) end() { a.once.Do(func() { close(a.quit) }) }

func (a *worker[K, V]) ending() bool {
	select {
	case <-a.quit:
		return true
	case <-a.w.ctx.Done():
		return true
	default:
		return false
	}
}

// run applies until the queue is closed.
func (a *worker[K, V]) run() {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	check := time.NewTicker(checkEvery)
	defer check.Stop()
	next := time.NewTimer(0)
	defer next.Stop()
	var gather <-chan time.Time // changes wait for others until then
	for {
		select {
		case <-a.quit:
			return
		case <-a.w.ctx.Done():
			return
		case <-a.kick:
			if gather == nil {
				gather = time.After(a.w.o.Interval)
			}
			continue
		case <-check.C:
			if a.index == 0 {
				ctx, cancel := context.WithTimeout(a.w.ctx, remoteWait)
				_ = a.w.check(ctx)
				cancel()
			}
			continue
		case <-look.C:
			if gather != nil {
				continue
			}
			a.look()
		case <-a.hurry:
			a.look()
			gather = nil
		case <-gather:
			gather = nil
		case <-next.C:
		}
		a.drainAll()
		next.Reset(a.next())
	}
}

// look finds out where there is something. What it does not learn it takes for there.
func (a *worker[K, V]) look() {
	states, err := a.w.states(a.w.ctx)
	for p := a.index; p < a.w.e.Partitions(); p += len(a.w.workers) {
		if err != nil && p >= len(states) || p < len(states) && (states[p].Depth > 0 || states[p].Err != nil) {
			a.due.Or(1 << p)
		}
	}
}

// later puts a partition off.
func (a *worker[K, V]) later(p int, d time.Duration) { a.at[p] = time.Now().Add(d) }

// next returns how long until a partition that was put off is due.
func (a *worker[K, V]) next() time.Duration {
	next := lookEvery
	for p := range a.at {
		if !a.at[p].IsZero() {
			next = min(next, max(0, time.Until(a.at[p])))
		}
	}
	return next
}

func (a *worker[K, V]) drainAll() {
	due, now := a.due.Swap(0), time.Now()
	for p := range a.at {
		if !a.at[p].IsZero() {
			if now.Before(a.at[p]) {
				due &^= 1 << p
				continue
			}
			a.at[p] = time.Time{}
			due |= 1 << p
		}
	}
	for ; due != 0 && !a.ending(); due &= due - 1 {
		if p := bits.TrailingZeros64(due); p < a.w.e.Partitions() {
			a.drain(p)
		}
	}
}

// drain applies what is queued in a partition, batch by batch.
func (a *worker[K, V]) drain(p int) {
	for !a.ending() {
		q, err := a.w.e.Queue()
		if err != nil {
			a.later(p, lookEvery)
			return
		}
		claimedAt := time.Now()
		c, err := a.claim(q, p, false)
		switch {
		case err != nil:
			a.later(p, lookEvery)
			return
		case c.Busy > 0:
			a.later(p, min(c.Busy, lookEvery))
			return
		case len(c.Records) == 0:
			if c.Next > 0 {
				a.later(p, c.Next)
			}
			_, _ = a.settle(q, p, nil, true) // the lease lapses if it fails
			return
		}
		if goOn := a.batch(q, p, &c, claimedAt); !goOn {
			return
		}
	}
}

func (a *worker[K, V]) claim(q remote.Queue, p int, keep bool) (remote.Claimed, error) {
	ctx, cancel := context.WithTimeout(a.w.ctx, remoteWait)
	defer cancel()
	return q.Claim(ctx, remote.Claim{
		Partition: p, Queue: a.w.m.prefix, Worker: a.token, Max: a.w.o.Batch, Lease: workerLease, Keep: keep,
	})
}

func (a *worker[K, V]) settle(q remote.Queue, p int, records []remote.Settled, release bool) (remote.Settlement, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(a.w.ctx), remoteWait) // what has been applied is settled
	defer cancel()
	return q.Settle(ctx, remote.Settle{Partition: p, Queue: a.w.m.prefix, Worker: a.token, Records: records, Release: release})
}

// outcome is what became of a record.
type outcome[K comparable, V any] struct {
	record *remote.Queued
	change Change[K, V]
	tried  bool
	err    error // nil: applied
	final  bool  // it will never be applied
}

// batch applies what was claimed and settles it. It returns whether to claim more.
func (a *worker[K, V]) batch(q remote.Queue, p int, c *remote.Claimed, claimedAt time.Time) (goOn bool) {
	ctx, done := a.keep(q, p, claimedAt)
	results := a.applyAll(ctx, c)
	done()
	var applied []engine.Item
	progress := false
	for _, r := range results {
		if r.tried && r.err == nil {
			applied = append(applied, tagItem(r.record.Key))
			progress = true
		}
	}
	// Before it leaves the queue: what was made of the database before is over, and what
	// is made of it from here on has the change.
	if len(applied) > 0 {
		call, cancel := context.WithTimeout(context.WithoutCancel(a.w.ctx), remoteWait)
		err := a.w.e.Invalidate(call, applied)
		cancel()
		if err != nil { // it is applied again
			a.giveWay(q, p, false)
			return false
		}
	}
	results = slices.DeleteFunc(results, func(r outcome[K, V]) bool { return !r.tried })
	settled := a.settled(results)
	goOn = c.More && progress
	s, err := a.settle(q, p, settled, !goOn)
	if err != nil {
		a.later(p, lookEvery)
		return false
	}
	a.account(results, settled, &s, c.Now)
	switch {
	case goOn:
		a.failed[p] = 0
	case progress && !c.More:
		a.failed[p] = 0
		if c.Next > 0 {
			a.later(p, c.Next)
		} else {
			a.later(p, a.w.o.Retry) // what failed, or was left
		}
	default:
		a.failed[p]++
		a.later(p, a.backoff(a.failed[p]))
	}
	return goOn
}

// giveWay lets go of a partition for a while.
func (a *worker[K, V]) giveWay(q remote.Queue, p int, progress bool) {
	_, _ = a.settle(q, p, nil, true)
	if !progress {
		a.failed[p]++
	}
	a.later(p, a.backoff(a.failed[p]))
}

// keep keeps the queue of a partition while something is applied. The context ends when
// it is lost, or when nobody knows.
func (a *worker[K, V]) keep(q remote.Queue, p int, claimedAt time.Time) (ctx context.Context, done func()) {
	ctx, cancel := context.WithCancel(a.w.ctx)
	const margin = workerLease / 10
	lapse := time.AfterFunc(time.Until(claimedAt.Add(workerLease-margin)), cancel)
	var kept sync.WaitGroup
	ended := make(chan struct{})
	kept.Go(func() {
		tick := time.NewTicker(workerLease / 4)
		defer tick.Stop()
		for {
			select {
			case <-ended:
				return
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			sent := time.Now()
			c, err := a.claim(q, p, true)
			switch {
			case err == nil && c.Busy == 0:
				lapse.Reset(time.Until(sent.Add(workerLease - margin)))
			case err == nil: // it is another one's
				cancel()
				return
			}
		}
	})
	return ctx, func() {
		close(ended)
		kept.Wait()
		lapse.Stop()
		cancel()
	}
}

// applyAll applies what was claimed: what has not failed yet together, the rest one by
// one, so that one that can never be applied does not keep others.
func (a *worker[K, V]) applyAll(ctx context.Context, c *remote.Claimed) []outcome[K, V] {
	results := make([]outcome[K, V], len(c.Records))
	var together []*outcome[K, V]
	var single []*outcome[K, V]
	for i := range c.Records {
		r := &results[i]
		r.record = &c.Records[i]
		r.change, r.err = a.w.decoded(r.record)
		switch {
		case r.err != nil:
			r.tried = true
		case r.record.Attempts == 0:
			together = append(together, r)
		default:
			single = append(single, r)
		}
	}
	failures := 0
	if len(together) > 0 {
		if a.try(ctx, together) == 0 {
			failures++
		}
	}
	for _, r := range single {
		if failures >= strikes || ctx.Err() != nil || a.ending() {
			break
		}
		if a.try(ctx, []*outcome[K, V]{r}) == 0 {
			failures++
		} else {
			failures = 0
		}
	}
	return results
}

// try calls apply and returns how many it has taken.
func (a *worker[K, V]) try(ctx context.Context, list []*outcome[K, V]) (applied int) {
	changes := make([]Change[K, V], len(list))
	for i, r := range list {
		changes[i] = r.change
	}
	err := a.call(ctx, changes)
	var each BatchError[K]
	whole := err != nil && !errors.As(err, &each)
	for _, r := range list {
		r.tried = true
		switch {
		case whole:
			r.err = err
		case each != nil:
			r.err = each[r.change.ID]
		}
		r.final = errors.Is(r.err, ErrPoison) && (!whole || len(list) == 1)
		if r.err == nil {
			applied++
		}
	}
	return applied
}

// call calls apply. Its panic is its error.
func (a *worker[K, V]) call(ctx context.Context, changes []Change[K, V]) (err error) {
	ctx, cancel := context.WithTimeout(ctx, a.w.o.ApplyTimeout)
	defer cancel()
	finished := false
	defer func() {
		if !finished {
			a.w.e.Count.Panics.Add(1)
			err = &PanicError{Value: recover(), Stack: debug.Stack()}
		}
	}()
	err = a.w.apply(ctx, changes)
	finished = true
	return err
}

// settled is what the queue is told.
func (a *worker[K, V]) settled(results []outcome[K, V]) []remote.Settled {
	list := make([]remote.Settled, len(results))
	for i, r := range results {
		list[i] = remote.Settled{Key: r.record.Key, Version: r.record.Version}
		switch {
		case r.err == nil:
		case r.final || r.record.Attempts+1 >= a.w.o.MaxAttempts:
			list[i].Dead = r.err.Error()
		default:
			list[i].Retry = a.backoff(r.record.Attempts + 1)
		}
	}
	return list
}

// account tells of what has been settled.
func (a *worker[K, V]) account(results []outcome[K, V], settled []remote.Settled, s *remote.Settlement, now int64) {
	w := a.w
	var over []engine.Item // what readers may have, and does not hold
	for i, r := range results {
		switch {
		case r.err == nil:
			w.applied.Add(1)
			w.lag.Store(int64(time.Duration(now-r.record.First) * time.Microsecond))
			if !s.Held {
				w.overtaken.Add(1)
				over = append(over, engine.Item{Kind: engine.Key, Value: r.record.Key}, tagItem(r.record.Key))
			}
			continue
		case settled[i].Dead != "" && s.Held && !s.Newer[i]:
			w.dead.Add(1)
			over = append(over, engine.Item{Kind: engine.Key, Value: r.record.Key}, tagItem(r.record.Key))
		}
		w.failed.Add(1)
	}
	if len(over) > 0 {
		call, cancel := context.WithTimeout(context.WithoutCancel(w.ctx), remoteWait)
		_ = w.e.Invalidate(call, over) // pending at worst
		cancel()
	}
	log := w.m.c.opts.Logger
	if !s.Held {
		log.Warn("larder: write-behind: a worker had lost its lease of the queue when it had applied a batch; "+
			"where another one has applied later changes, Change.Version tells", "queue", w.m.prefix, "changes", len(results))
		return
	}
	for i, r := range results {
		if settled[i].Dead == "" || s.Newer[i] {
			continue
		}
		log.Error("larder: write-behind: a change could not be applied and is a dead letter",
			"queue", w.m.prefix, "key", r.record.Key, "attempts", r.record.Attempts+1, "error", r.err)
		if w.o.OnDead != nil {
			w.o.OnDead(r.change, r.err)
		}
	}
}

// backoff returns how long to wait after so many failures: up to a fifth more, so that
// what failed together does not come back together.
func (a *worker[K, V]) backoff(failures int) time.Duration {
	d := a.w.o.MaxRetry
	if n := failures - 1; n < 30 && a.w.o.Retry<<n < d {
		d = a.w.o.Retry << n
	}
	return d + time.Duration(mathrand.Int64N(int64(d)/5+1))
}
