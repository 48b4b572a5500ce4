package core

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math/bits"
	mathrand "math/rand/v2"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/larderhq/larder/core/internal/coherence"
	"github.com/larderhq/larder/core/internal/tier"
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
	token string // what its leases of queues are known by

	due   atomic.Uint64 // partitions that have got something
	kick  chan struct{}
	full  chan struct{} // writers wait for room
	hurry chan struct{} // Flush waits
	quit  chan struct{}
	once  sync.Once

	at     [tier.MaxPartitions]time.Time // when a partition is looked at again; zero: when it is due
	failed [tier.MaxPartitions]int       // rounds in a row that nothing was applied in

	terms [tier.MaxPartitions]uint64 // how often it has let go of a queue

	success time.Time // when something was applied last

	applying atomic.Pointer[time.Time] // since when apply runs; nil: it does not
}

// hangs reports whether apply has not come back although its time is up.
func (a *worker[K, V]) hangs() bool {
	since := a.applying.Load()
	return since != nil && time.Since(*since) > a.w.o.ApplyTimeout
}

func newWorker[K comparable, V any](w *WriteBehind[K, V], index int) *worker[K, V] {
	return &worker[K, V]{
		w: w, index: index, token: rand.Text(),
		kick: make(chan struct{}, 1), full: make(chan struct{}, 1), hurry: make(chan struct{}, 1), quit: make(chan struct{}),
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
			a.drainAll(a.look(a.w.o.Interval))
		case <-a.hurry:
			gather = nil
			a.drainAll(a.due.Swap(0) | a.look(0))
		case <-gather:
			gather = nil
			a.drainAll(a.due.Swap(0))
		case <-a.full:
			gather = nil
			a.drainAll(a.due.Swap(0))
		case <-next.C:
			a.drainAll(0)
		}
		next.Reset(a.next())
	}
}

// look finds out where there is something that has waited for so long, or no room for
// more. What it does not learn it takes for there.
func (a *worker[K, V]) look(waited time.Duration) (mask uint64) {
	states, err := a.w.states(a.w.ctx)
	for p := a.index; p < a.w.e.Partitions(); p += len(a.w.workers) {
		switch {
		case p >= len(states):
			if err == nil {
				continue
			}
		case states[p].Err != nil || states[p].Depth >= a.w.share():
		case states[p].Depth == 0, states[p].Now-states[p].First < waited.Microseconds():
			continue
		}
		mask |= 1 << p
	}
	return mask
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

// drainAll applies what is queued in some partitions, and in those whose time has come.
func (a *worker[K, V]) drainAll(due uint64) {
	now := time.Now()
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
	for due != 0 && !a.ending() {
		due = a.round(due)
	}
}

// share is a worker's part of a round: what it has claimed of a partition.
type share struct {
	p       int
	claimed tier.Claimed
	err     error
	settled []tier.Settled
	results tier.Settlement
	tried   int // of the records
	applied int
	decided int // of the records: applied, or of no use for sure
}

// round claims a batch of what is queued in some partitions, applies it and settles it.
// It returns the partitions that have more.
func (a *worker[K, V]) round(due uint64) (more uint64) {
	q, err := a.w.e.Queue()
	if err != nil {
		a.postpone(due, lookEvery)
		return 0
	}
	var shares []*share
	for m := due; m != 0; m &= m - 1 {
		if p := bits.TrailingZeros64(m); p < a.w.e.Partitions() {
			shares = append(shares, &share{p: p})
		}
	}
	claimedAt := time.Now()
	most := max(2, (a.w.o.Batch+len(shares)-1)/max(1, len(shares))) // one that failed, and one that has not
	together(a.w.ctx, shares, func(ctx context.Context, s *share) {
		s.claimed, s.err = a.claim(ctx, q, s.p, most, false)
	})
	var mine []*share
	for _, s := range shares {
		switch {
		case s.err != nil:
			a.later(s.p, lookEvery)
		case s.claimed.Busy > 0:
			a.later(s.p, min(s.claimed.Busy, lookEvery))
		default:
			mine = append(mine, s)
		}
	}
	ctx, done := a.keep(q, mine, claimedAt)
	results := a.applyAll(ctx, mine)
	a.awaitReplicas(ctx, results)
	done()
	// Before it leaves the queue: what was made of the database before is over, and what
	// is made of it from here on has the change.
	a.tell(results)
	for _, r := range results {
		r.of.tried++
		if r.err == nil && !r.untold {
			r.of.applied++
		}
		if r.err == nil && !r.untold || r.own {
			r.of.decided++
		}
		r.index = len(r.of.settled)
		r.of.settled = append(r.of.settled, a.settled(r))
	}
	together(context.WithoutCancel(a.w.ctx), mine, func(ctx context.Context, s *share) { // what has been applied is settled
		s.results, s.err = a.settle(ctx, q, s, !s.goOn())
	})
	a.account(results)
	for _, s := range mine {
		switch {
		case s.err != nil:
			a.later(s.p, lookEvery)
		case s.goOn():
			a.failed[s.p] = 0
			more |= 1 << s.p
		case len(s.claimed.Records) == 0 || s.decided > 0:
			a.failed[s.p] = 0
			if s.applied < len(s.claimed.Records) {
				a.later(s.p, a.w.o.Retry) // what failed, or was left
			} else if s.claimed.Next > 0 {
				a.later(s.p, s.claimed.Next)
			}
		default:
			a.failed[s.p]++
			a.later(s.p, a.backoff(a.failed[s.p]))
		}
	}
	return more
}

// tell invalidates what carries the keys of what has been applied as tags. Where that is
// not known to have happened, the change stays in the queue, and is applied again.
func (a *worker[K, V]) tell(results []*outcome[K, V]) {
	var items []coherence.Item
	for _, r := range results {
		if r.err == nil {
			items = append(items, tagItem(r.record.Key))
		}
	}
	if len(items) == 0 {
		return
	}
	call, cancel := context.WithTimeout(context.WithoutCancel(a.w.ctx), remoteWait)
	defer cancel()
	failed, err := a.w.e.InvalidateApplied(call, items)
	if err == nil {
		return
	}
	pending := make(map[coherence.Item]bool, len(failed))
	for _, it := range failed {
		pending[it] = true
	}
	for _, r := range results {
		r.untold = r.err == nil && pending[tagItem(r.record.Key)]
	}
}

// goOn reports whether there is more to apply, and reason to believe that it can be.
func (s *share) goOn() bool { return s.claimed.More && s.decided > 0 }

// together does something in several partitions, so that what it sends goes out together.
func together(ctx context.Context, shares []*share, do func(context.Context, *share)) {
	ctx, cancel := context.WithTimeout(ctx, remoteWait)
	defer cancel()
	batch := tier.NewBatch(len(shares))
	ctx = tier.WithBatch(ctx, batch)
	var all sync.WaitGroup
	for _, s := range shares {
		all.Go(func() {
			defer batch.Leave()
			do(ctx, s)
		})
	}
	all.Wait()
}

func (a *worker[K, V]) postpone(mask uint64, d time.Duration) {
	for ; mask != 0; mask &= mask - 1 {
		a.later(bits.TrailingZeros64(mask), d)
	}
}

func (a *worker[K, V]) claim(ctx context.Context, q tier.Queue, p, most int, keep bool) (tier.Claimed, error) {
	return q.Claim(ctx, tier.Claim{
		Partition: p, Queue: a.w.m.prefix, Worker: a.name(p), Max: most, Lease: workerLease, Keep: keep,
	})
}

func (a *worker[K, V]) settle(ctx context.Context, q tier.Queue, s *share, release bool) (tier.Settlement, error) {
	st := tier.Settle{Partition: s.p, Queue: a.w.m.prefix, Worker: a.name(s.p), Records: s.settled, Release: release}
	if release {
		a.terms[s.p]++
	}
	return q.Settle(ctx, st)
}

// awaitReplicas keeps what has been applied in the queue, where readers find it, until the
// replicas that they load from have it.
func (a *worker[K, V]) awaitReplicas(ctx context.Context, results []*outcome[K, V]) {
	lag := a.w.m.now().class.ReplicaLag
	if lag == 0 || !slices.ContainsFunc(results, func(r *outcome[K, V]) bool { return r.err == nil }) {
		return
	}
	timer := time.NewTimer(lag)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// name returns what the worker's lease of a partition's queue is known by: another one
// each time, for a release that is executed late must not give up the next.
func (a *worker[K, V]) name(p int) string {
	return a.token + "." + strconv.FormatUint(a.terms[p], 10)
}

// keep keeps the queues of partitions while something is applied, but not for an apply
// that hangs. The context ends when one is lost, or when nobody knows.
func (a *worker[K, V]) keep(q tier.Queue, mine []*share, claimedAt time.Time) (ctx context.Context, done func()) {
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
			if a.hangs() {
				return // others have it when the lease is over
			}
			sent := time.Now()
			var lost, unknown atomic.Bool
			together(ctx, mine, func(ctx context.Context, s *share) {
				c, err := a.claim(ctx, q, s.p, 0, true)
				switch {
				case err != nil:
					unknown.Store(true)
				case c.Busy > 0: // it is another one's
					lost.Store(true)
				}
			})
			switch {
			case lost.Load():
				cancel()
			case !unknown.Load():
				lapse.Reset(time.Until(sent.Add(workerLease - margin)))
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

// outcome is what became of a record.
type outcome[K comparable, V any] struct {
	of     *share
	record *tier.Queued
	change Change[K, V]
	err    error // nil: applied
	own    bool  // the error is of this change, for sure
	final  bool  // it will never be applied
	untold bool  // it has been applied, and what was made without it may not be over
	index  int   // among what is settled
}

// applyAll applies what was claimed: what has not failed yet together, the rest one by
// one, so that one that can never be applied does not keep others. It returns what became
// of what it tried.
func (a *worker[K, V]) applyAll(ctx context.Context, mine []*share) (results []*outcome[K, V]) {
	var fresh, single []*outcome[K, V]
	for _, s := range mine {
		for i := range s.claimed.Records {
			r := &outcome[K, V]{of: s, record: &s.claimed.Records[i], index: -1}
			r.change, r.err = a.w.decoded(r.record)
			switch {
			case r.err != nil: // it does not decode
				r.own = true
				results = append(results, r)
			case r.record.Attempts == 0:
				fresh = append(fresh, r)
			default:
				single = append(single, r)
			}
		}
	}
	failures := 0
	try := func(list []*outcome[K, V]) {
		if failures >= strikes || ctx.Err() != nil || a.ending() {
			return
		}
		failures++
		if a.try(ctx, list) {
			failures = 0
		}
		results = append(results, list...)
	}
	for list := range slices.Chunk(fresh, a.w.o.Batch) {
		try(list)
	}
	for list := range slices.Chunk(single, 1) {
		try(list)
	}
	return results
}

// try calls apply and reports whether the database answers: it has taken one, or has
// something against each.
func (a *worker[K, V]) try(ctx context.Context, list []*outcome[K, V]) (answers bool) {
	applied, own := 0, 0
	changes := make([]Change[K, V], len(list))
	for i, r := range list {
		changes[i] = r.change
	}
	err := a.call(ctx, changes)
	each, whole := ofEach(err, changes)
	for _, r := range list {
		switch r.err = each[r.change.ID]; {
		case r.err != nil:
			r.own = true
		case whole:
			r.err = err
		}
		r.final = errors.Is(r.err, ErrPoison) && (r.own || len(list) == 1)
		switch {
		case r.err == nil:
			applied++
		case r.own:
			own++
		}
	}
	if applied > 0 {
		a.success = time.Now()
	}
	return applied > 0 || own == len(list)
}

// ofEach returns the errors of single changes. whole: the others have failed as well, for
// err says more than that, or of ids that nobody asked it for: what is not known to be
// applied is applied again.
func ofEach[K comparable, V any](err error, changes []Change[K, V]) (each BatchError[K], whole bool) {
	for is := err; is != nil; is = errors.Unwrap(is) { // which tells nothing of errors that are joined
		var ok bool
		if each, ok = is.(BatchError[K]); !ok { //nolint:errorlint // one in a chain, not in a tree
			continue
		}
		known := 0
		for _, c := range changes {
			if _, ok := each[c.ID]; ok {
				known++
			}
		}
		return each, known < len(each)
	}
	return nil, err != nil
}

// call calls apply.
func (a *worker[K, V]) call(ctx context.Context, changes []Change[K, V]) error {
	ctx, cancel := context.WithTimeout(ctx, a.w.o.ApplyTimeout)
	defer cancel()
	began := time.Now()
	a.applying.Store(&began)
	defer a.applying.Store(nil)
	return a.guarded(func() error { return a.w.apply(ctx, changes) })
}

// guarded calls a function of the user's in a goroutine of its own, for it may end that
// (runtime.Goexit), and the worker with it. Its panic is its error.
func (a *worker[K, V]) guarded(call func() error) (err error) {
	done := make(chan struct{})
	go func() {
		finished := false
		defer func() {
			if !finished {
				a.w.e.Count.Panics.Add(1)
				err = &PanicError{Value: recover(), Stack: debug.Stack()}
			}
			close(done)
		}()
		err = call()
		finished = true
	}()
	<-done
	return err
}

// reason is an error's text as a dead letter keeps it: not empty, and not without end.
func (a *worker[K, V]) reason(err error) string {
	text := ""
	if perr := a.guarded(func() error { text = err.Error(); return nil }); perr != nil {
		text = perr.Error()
	}
	switch {
	case text == "":
		return fmt.Sprintf("%T", err)
	case len(text) > maxReason:
		return strings.ToValidUTF8(text[:maxReason], "") + "..."
	}
	return text
}

// maxReason is how long the reason of a dead letter may be.
const maxReason = 4 << 10

// settled is what the queue is told.
func (a *worker[K, V]) settled(r *outcome[K, V]) tier.Settled {
	s := tier.Settled{Key: r.record.Key, Version: r.record.Version}
	switch {
	case r.untold:
		s.Retry = max(lookEvery, a.backoff(r.record.Attempts+1))
	case r.err == nil:
	case r.final, r.record.Attempts+1 >= a.w.o.MaxAttempts && (r.own || a.works()):
		s.Dead = a.reason(r.err)
	default:
		s.Retry = a.backoff(r.record.Attempts + 1)
	}
	return s
}

// account counts what has been settled, and tells of it.
func (a *worker[K, V]) account(results []*outcome[K, V]) {
	w := a.w
	var over []coherence.Item // what readers may have, and does not hold
	var dead []*outcome[K, V]
	overtaken := 0
	for _, r := range results {
		switch s := r.of; {
		case r.err != nil:
			w.failed.Add(1)
			switch {
			case s.settled[r.index].Dead == "":
				continue
			case s.err != nil: // it may be a dead letter by now, of which nobody else knows
			case !s.results.Held || s.results.Newer[r.index]:
				continue
			default:
				dead = append(dead, r)
			}
		case s.err != nil: // it will be applied again
			continue
		case !s.results.Held:
			overtaken++
		case r.untold: // as well
			continue
		default:
			w.applied.Add(1)
			w.lag.Store(int64(time.Duration(s.claimed.Now-r.record.First) * time.Microsecond))
			continue
		}
		over = append(over, coherence.Item{Kind: coherence.Key, Value: r.record.Key}, tagItem(r.record.Key))
	}
	if len(over) > 0 {
		call, cancel := context.WithTimeout(context.WithoutCancel(w.ctx), remoteWait)
		_ = w.e.Invalidate(call, over) // pending at worst
		cancel()
	}
	logger := w.m.c.opts.Logger
	if overtaken > 0 {
		w.overtaken.Add(int64(overtaken))
		logger.Warn("larder: write-behind: a worker had lost its lease of the queue when it had applied a batch; "+
			"where another one has applied later changes, Change.Version tells", "queue", w.m.prefix, "changes", overtaken)
	}
	w.dead.Add(int64(len(dead)))
	for _, r := range dead {
		logger.Error("larder: write-behind: a change could not be applied and is a dead letter",
			"queue", w.m.prefix, "key", r.record.Key, "attempts", r.record.Attempts+1, "error", r.err)
		if w.o.OnDead != nil {
			if err := a.guarded(func() error { w.o.OnDead(r.change, r.err); return nil }); err != nil {
				logger.Error("larder: write-behind: OnDead panicked", "queue", w.m.prefix, "error", err)
			}
		}
	}
}

// works reports whether something has been applied since any change that is tried now
// was tried before: then an error of a change alone is its own.
func (a *worker[K, V]) works() bool {
	return !a.success.IsZero() && time.Since(a.success) < a.w.o.MaxRetry
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
