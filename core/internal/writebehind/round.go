package writebehind

import (
	"context"
	"fmt"
	"math/bits"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/larderhq/larder/core/internal/tier"
)

// batch is the part of a round in one partition.
type batch struct {
	partition  int
	claimed    tier.Claimed
	err        error // of the last call
	settled    []tier.Settled
	settlement tier.Settlement
	applied    int // records that were applied
	decided    int // records that were applied, or have a single error
}

// continues reports whether the partition has more records, and the target can apply some.
func (b *batch) continues() bool { return b.claimed.More && b.decided > 0 }

// round claims a batch of each due partition, applies the batches and settles them. It
// returns the partitions that have more records.
func (w *worker) round(due uint64) (more uint64) {
	q, err := w.Engine.Queue()
	if err != nil {
		for m := due; m != 0; m &= m - 1 {
			w.schedule.postpone(bits.TrailingZeros64(m), pollInterval)
		}
		return 0
	}
	claimedAt := time.Now()
	held := w.claimAll(q, due)
	ctx, release := w.hold(q, held, claimedAt)
	outcomes := w.applyAll(ctx, held)
	w.awaitReplicas(ctx, outcomes)
	release()
	// The tags are invalidated before the records leave the queue. An entry that was made of
	// the target's old value ends here, and an entry that is made from now on has the change.
	w.invalidateTags(outcomes)
	w.decide(outcomes)
	w.settleAll(q, held)
	w.account(outcomes)
	for _, b := range held {
		if w.reschedule(b) {
			more |= 1 << b.partition
		}
	}
	return more
}

// claimAll claims a batch of each due partition, and returns the batches of which the worker
// got the lease.
func (w *worker) claimAll(q tier.Queue, due uint64) (held []*batch) {
	var batches []*batch
	for m := due; m != 0; m &= m - 1 {
		if p := bits.TrailingZeros64(m); p < w.Engine.Partitions() {
			batches = append(batches, &batch{partition: p})
		}
	}
	// Two at least, so that the batch has room for a record that has failed and for another.
	most := max(2, (w.Worker.Batch+len(batches)-1)/max(1, len(batches)))
	together(w.ctx, batches, func(ctx context.Context, b *batch) {
		b.claimed, b.err = w.claim(ctx, q, b.partition, most, false)
	})
	for _, b := range batches {
		switch {
		case b.err != nil:
			w.schedule.postpone(b.partition, pollInterval)
		case b.claimed.Busy > 0:
			w.schedule.postpone(b.partition, min(b.claimed.Busy, pollInterval))
		default:
			held = append(held, b)
		}
	}
	return held
}

// together calls do for each batch concurrently, in a tier.Batch, so that one round trip
// carries the calls.
func together(ctx context.Context, batches []*batch, do func(context.Context, *batch)) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	calls := tier.NewBatch(len(batches))
	ctx = tier.WithBatch(ctx, calls)
	var all sync.WaitGroup
	for _, b := range batches {
		all.Go(func() {
			defer calls.Leave()
			do(ctx, b)
		})
	}
	all.Wait()
}

// awaitReplicas keeps applied changes in the queue, where readers find them, until the
// replicas from which readers load have them.
func (w *worker) awaitReplicas(ctx context.Context, outcomes []*outcome) {
	lag, _ := w.Target.Class()
	if lag == 0 || !slices.ContainsFunc(outcomes, func(o *outcome) bool { return o.err == nil }) {
		return
	}
	timer := time.NewTimer(lag)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// invalidateTags invalidates the entries that carry the keys of applied changes as tags. A
// change whose invalidation is pending stays in the queue, and is applied again.
func (w *worker) invalidateTags(outcomes []*outcome) {
	var items []tier.Item
	for _, o := range outcomes {
		if o.err == nil {
			items = append(items, tagItem(o.record.Key))
		}
	}
	if len(items) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(w.ctx), callTimeout)
	defer cancel()
	failed, err := w.Engine.InvalidateApplied(ctx, items)
	if err == nil {
		return
	}
	pending := make(map[tier.Item]bool, len(failed))
	for _, it := range failed {
		pending[it] = true
	}
	for _, o := range outcomes {
		o.pending = o.err == nil && pending[tagItem(o.record.Key)]
	}
}

// decide fills in the settlement of each record.
func (w *worker) decide(outcomes []*outcome) {
	for _, o := range outcomes {
		done := o.err == nil && !o.pending
		if done {
			o.batch.applied++
		}
		if done || o.single {
			o.batch.decided++
		}
		o.index = len(o.batch.settled)
		o.batch.settled = append(o.batch.settled, w.settled(o))
	}
}

// settled returns the settlement of a record.
func (w *worker) settled(o *outcome) tier.Settled {
	s := tier.Settled{Key: o.record.Key, Version: o.record.Version}
	attempts := o.record.Attempts + 1
	switch {
	case o.pending:
		s.Retry = max(pollInterval, w.backoff(attempts))
	case o.err == nil:
	case o.poison, attempts >= w.Worker.MaxAttempts && (o.single || w.works()):
		s.Dead = w.reason(o.err)
	default:
		s.Retry = w.backoff(attempts)
	}
	return s
}

// works reports whether a change was applied so recently that the failure of another is not
// the target's.
func (w *worker) works() bool {
	return !w.applied.IsZero() && time.Since(w.applied) < w.Worker.MaxRetry
}

// maxReason is the longest reason of a dead letter, in bytes.
const maxReason = 4 << 10

// reason returns the text of an error for a dead letter. It is not empty, and at most
// maxReason bytes long.
func (w *worker) reason(err error) string {
	text := ""
	if perr := w.guarded(func() error { text = err.Error(); return nil }); perr != nil {
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

// settleAll settles batches, also while the Pipeline ends: applied changes must leave the
// queue.
func (w *worker) settleAll(q tier.Queue, held []*batch) {
	together(context.WithoutCancel(w.ctx), held, func(ctx context.Context, b *batch) {
		b.settlement, b.err = w.settle(ctx, q, b)
	})
}

// reschedule schedules the next round of the partition of a settled batch. It returns true if
// the worker continues with it at once.
func (w *worker) reschedule(b *batch) (more bool) {
	s, p := &w.schedule, b.partition
	switch {
	case b.err != nil:
		s.postpone(p, pollInterval)
	case b.continues():
		s.failures[p] = 0
		return true
	case len(b.claimed.Records) > 0 && b.decided == 0:
		s.failures[p]++
		s.postpone(p, w.backoff(s.failures[p]))
	default:
		s.failures[p] = 0
		switch {
		case b.applied < len(b.claimed.Records): // some failed, or were not tried
			s.postpone(p, w.Worker.Retry)
		case b.claimed.Next > 0:
			s.postpone(p, b.claimed.Next)
		}
	}
	return false
}

// fate is the final state of a record after a round, for the counters and the log.
type fate int

const (
	fateQueued    fate = iota // in the queue, and readers get it
	fateApplied               // applied, and no longer in the queue
	fateDead                  // a dead letter
	fateUnknown               // perhaps a dead letter
	fateOvertaken             // applied without the lease of the queue
)

// fate returns the fate of the record.
func (o *outcome) fate() fate {
	b := o.batch
	switch {
	case o.err == nil && b.err != nil:
		return fateQueued
	case o.err == nil && !b.settlement.Held:
		return fateOvertaken
	case o.err == nil && o.pending:
		return fateQueued
	case o.err == nil:
		return fateApplied
	case b.settled[o.index].Dead == "":
		return fateQueued
	case b.err != nil:
		return fateUnknown
	case !b.settlement.Held || b.settlement.Newer[o.index]:
		return fateQueued
	}
	return fateDead
}

// account counts and logs settled outcomes, and invalidates the keys whose changes readers
// must no longer get.
func (w *worker) account(outcomes []*outcome) {
	var invalid []tier.Item
	var dead []*outcome
	late := 0
	for _, o := range outcomes {
		if o.err != nil {
			w.counters.failed.Add(1)
		}
		switch o.fate() {
		case fateQueued:
			continue
		case fateApplied:
			w.counters.applied.Add(1)
			w.counters.lag.Store(int64(time.Duration(o.batch.claimed.Now-o.record.First) * time.Microsecond))
			continue
		case fateDead:
			dead = append(dead, o)
		case fateOvertaken:
			late++
		case fateUnknown:
		}
		invalid = append(invalid, keyItem(o.record.Key), tagItem(o.record.Key))
	}
	if len(invalid) > 0 {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(w.ctx), callTimeout)
		_ = w.Engine.Invalidate(ctx, invalid) // an error leaves them pending
		cancel()
	}
	if late > 0 {
		w.counters.overtaken.Add(int64(late))
		w.Logger.Warn("larder: write-behind: a worker applied a batch after it had lost its lease of the queue; "+
			"Change.Version tells whether another worker has applied later changes", "queue", w.Queue, "changes", late)
	}
	w.reportDead(dead)
}

// reportDead counts and logs dead letters, and passes them to the Target.
func (w *worker) reportDead(dead []*outcome) {
	w.counters.died.Add(int64(len(dead)))
	for _, o := range dead {
		w.Logger.Error("larder: write-behind: a change could not be applied and is a dead letter",
			"queue", w.Queue, "key", o.record.Key, "attempts", o.record.Attempts+1, "error", o.err)
		if err := w.guarded(func() error { w.Target.OnDead(o.change, o.err); return nil }); err != nil {
			w.Logger.Error("larder: write-behind: OnDead panicked", "queue", w.Queue, "error", err)
		}
	}
}
