package writebehind

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/larderhq/larder/core/internal/tier"
)

// maxFailures is how many applies in a row may fail before a worker takes the failure for
// the target's, and leaves the rest of its batches for later.
const maxFailures = 3

// outcome is the result of an attempt to apply a record.
type outcome struct {
	batch   *batch
	record  *tier.Queued
	change  any   // decoded
	err     error // nil: applied
	own     bool  // the error is of this change, not of its batch
	poison  bool  // it can never be applied
	pending bool  // it is applied, and the invalidation of its tag is pending
	index   int   // in batch.settled
}

// applyAll applies batches: new records together, and records that have failed before one
// by one, so that one that can never be applied does not hold up the others. It returns
// the outcomes of the records that it tried.
func (w *worker) applyAll(ctx context.Context, held []*batch) (outcomes []*outcome) {
	var first, retried []*outcome
	for _, b := range held {
		for i := range b.claimed.Records {
			o := &outcome{batch: b, record: &b.claimed.Records[i], index: -1}
			o.change, o.err = w.Target.Decode(o.record)
			switch {
			case o.err != nil:
				o.own = true
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
// change, or has an error for each.
func (w *worker) try(ctx context.Context, list []*outcome) (works bool) {
	applied, own := 0, 0
	each, rest := w.apply(ctx, list)
	for i, o := range list {
		o.err = rest
		if i < len(each) && each[i] != nil {
			o.err, o.own = each[i], true
		}
		o.poison = errors.Is(o.err, ErrPoison) && (o.own || len(list) == 1)
		switch {
		case o.err == nil:
			applied++
		case o.own:
			own++
		}
	}
	if applied > 0 {
		w.applied = time.Now()
	}
	return applied > 0 || own == len(list)
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
