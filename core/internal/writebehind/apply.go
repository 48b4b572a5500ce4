package writebehind

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/larderhq/larder/core/internal/tier"
)

// maxFailures is the number of consecutive failed applies after which a worker blames the
// target and postpones the rest of its batches.
const maxFailures = 3

// outcome is the result of an attempt to apply a record.
type outcome struct {
	batch   *batch
	record  *tier.Queued
	change  any   // decoded
	err     error // nil: applied
	single  bool  // the error belongs to this change, not to its batch
	poison  bool  // the change can never be applied
	pending bool  // the change is applied, and the invalidation of its tag is pending
	index   int   // in batch.settled
}

// applyAll applies batches: new records together, and records that have failed before one
// by one, so that a change that can never be applied does not delay the others. It returns
// the outcomes of the records that it tried.
func (w *worker) applyAll(ctx context.Context, held []*batch) (outcomes []*outcome) {
	var first, retried []*outcome
	for _, b := range held {
		for i := range b.claimed.Records {
			o := &outcome{batch: b, record: &b.claimed.Records[i], index: -1}
			o.change, o.err = w.Target.Decode(o.record)
			switch {
			case o.err != nil:
				o.single = true
				outcomes = append(outcomes, o)
			case o.record.Attempts == 0:
				first = append(first, o)
			default:
				retried = append(retried, o)
			}
		}
	}
	failures := 0
	try := func(list []*outcome) {
		if failures >= maxFailures || ctx.Err() != nil || w.ending() {
			return
		}
		failures++
		if w.try(ctx, list) {
			failures = 0
		}
		outcomes = append(outcomes, list...)
	}
	for list := range slices.Chunk(first, w.Worker.Batch) {
		try(list)
	}
	for list := range slices.Chunk(retried, 1) {
		try(list)
	}
	return outcomes
}

// try applies changes with one call. It reports whether the target works: it has applied a
// change, or has returned an error for each change.
func (w *worker) try(ctx context.Context, list []*outcome) (works bool) {
	applied, single := 0, 0
	each, rest := w.apply(ctx, list)
	for i, o := range list {
		o.err = rest
		if i < len(each) && each[i] != nil {
			o.err, o.single = each[i], true
		}
		o.poison = errors.Is(o.err, ErrPoison) && (o.single || len(list) == 1)
		switch {
		case o.err == nil:
			applied++
		case o.single:
			single++
		}
	}
	if applied > 0 {
		w.applied = time.Now()
	}
	return applied > 0 || single == len(list)
}

// apply calls the target. A panic is the error of all changes.
func (w *worker) apply(ctx context.Context, list []*outcome) (each []error, rest error) {
	ctx, cancel := context.WithTimeout(ctx, w.Worker.ApplyTimeout)
	defer cancel()
	changes := make([]any, len(list))
	for i, o := range list {
		changes[i] = o.change
	}
	began := time.Now()
	w.applying.Store(&began)
	defer w.applying.Store(nil)
	if err := w.guarded(func() error {
		each, rest = w.Target.Apply(ctx, changes)
		return nil
	}); err != nil {
		return nil, err
	}
	return each, rest
}
