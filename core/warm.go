package core

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/larderhq/larder/core/internal/warmup"
)

// WarmOptions is how a cache is warmed. The zero value will do.
type WarmOptions struct {
	Batch     int     // items of one load; default 100, at most 1000
	Parallel  int     // loads at a time; default 2, at most 64
	PerSecond float64 // items per second at most; 0: no limit
	// Skip leaves out items at the beginning: WarmResult.Items of a run that was ended
	// takes it up again.
	Skip int
	// Progress is called after each batch, never twice at a time.
	Progress func(WarmResult)
}

// WarmResult is how far warming has come.
type WarmResult struct {
	// Items is how many items are done, from the beginning of the sequence on, those that
	// were skipped included. Items after them may be done, too.
	Items   int
	Filled  int           // of the items worked on, those that were stored
	Failed  int           // of the items worked on, those whose load failed
	Elapsed time.Duration // since warming began
}

func (o WarmOptions) plan() (warmup.Plan, error) { return o.planOf("WarmOptions") }

// planOf is plan for options that are called so.
func (o WarmOptions) planOf(name string) (warmup.Plan, error) {
	p := warmup.Plan{Batch: o.Batch, Parallel: o.Parallel, PerSecond: o.PerSecond, Skip: o.Skip}
	if o.Progress != nil {
		p.Progress = func(d warmup.Done) { o.Progress(WarmResult(d)) }
	}
	switch {
	case o.Batch < 0 || o.Batch > maxBatch:
		return p, &ConfigError{name + ".Batch", o.Batch, fmt.Sprintf("0 (100) to %d", maxBatch)}
	case o.Parallel < 0 || o.Parallel > maxParallel:
		return p, &ConfigError{name + ".Parallel", o.Parallel, fmt.Sprintf("0 (2) to %d", maxParallel)}
	case o.PerSecond != 0 && !(o.PerSecond >= 0.001): // so that NaN is refused
		return p, &ConfigError{name + ".PerSecond", o.PerSecond, "0 (no limit) or 0.001 and more"}
	case o.Skip < 0:
		return p, &ConfigError{name + ".Skip", o.Skip, "0 or more"}
	}
	if p.Batch == 0 {
		p.Batch = 100
	}
	if p.Parallel == 0 {
		p.Parallel = 2
	}
	return p, nil
}

// Warm fills in the values of ids before anybody asks for them. What is there is left
// alone. What is not is loaded as GetMany loads it, under the same fences: a value
// that is invalidated, or written, while it is loaded is not stored, so that warming
// never puts an older value in the place of a newer one. It ends with ids or with ctx,
// whose error it returns then; errors of single ids are counted. A cache that is closed or
// switched off is not warmed: ErrClosed.
func (m *Map[K, V]) Warm(ctx context.Context, ids iter.Seq[K], load ManyLoader[K, V], o WarmOptions) (WarmResult, error) {
	if load == nil {
		return WarmResult{}, &ConfigError{"load", nil, "a function"}
	}
	if !m.c.Enabled() {
		return WarmResult{}, ErrClosed
	}
	p, err := o.plan()
	if err != nil {
		return WarmResult{}, err
	}
	done, err := warmup.Run(ctx, each(ids, m.own), p, func(ctx context.Context, ids []K) (filled, failed int) {
		ids = slices.DeleteFunc(ids, func(id K) bool {
			_, err := m.Key(id)
			if err != nil {
				failed++
			}
			return err != nil
		})
		values, filled, err := m.getMany(ctx, ids, load, false)
		var each BatchError[K]
		switch {
		case errors.As(err, &each):
			failed += len(each)
		case err != nil:
			failed += len(ids) - len(values)
		}
		return filled, failed
	})
	return WarmResult(done), err
}

// each returns what own makes of the items of a sequence.
func each[T any](items iter.Seq[T], own func(T) T) iter.Seq[T] {
	return func(yield func(T) bool) {
		for item := range items {
			if !yield(own(item)) {
				return
			}
		}
	}
}
