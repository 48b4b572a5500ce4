package core

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/larderhq/larder/core/internal/coherence"
	"github.com/larderhq/larder/core/internal/hotkeys"
	"github.com/larderhq/larder/core/internal/local"
	"github.com/larderhq/larder/core/internal/tier"
	"github.com/larderhq/larder/core/internal/warmup"
)

// WarmOptions configure [Map.Warm]. Every field is optional.
type WarmOptions struct {
	Batch     int     // ids of one load; default 100, at most 1000. URLs: one by one
	Parallel  int     // concurrent loads; default 2, at most 64
	PerSecond float64 // ids or URLs per second, at least 0.001; default 0, no limit
	// Skip leaves out items at the beginning. WarmResult.Items of a run that was ended
	// continues it. Default 0.
	Skip int
	// Progress is called after each batch, never concurrently. Default nil.
	Progress func(WarmResult)
}

// WarmResult is the progress of warming.
type WarmResult struct {
	// Items is the number of items at the beginning of the sequence that are done without a
	// gap, including skipped ones. Later items may be done, too.
	Items   int
	Filled  int           // items of this run that were stored
	Failed  int           // items of this run whose load failed
	Elapsed time.Duration // since warming began
}

func (o WarmOptions) plan() (warmup.Plan, error) { return o.planOf("WarmOptions") }

// planOf is plan for options with another name in errors.
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

// Warm loads the values of ids before a caller asks for them. Values that are cached are
// left alone. Others are loaded as [Map.GetMany] loads them, under the same fences: a
// value that is invalidated, or written, while it is loaded is not stored, so that
// warming never replaces a newer value. With a shared tier, several values are stored with one
// call, without a lease for each: an instance that misses an id meanwhile, or warms the same ids, loads
// it as well.
//
// Warm returns when ids ends, with nil, or when ctx ends, with its error. The result is
// valid with both; errors of single ids are only counted. Nil ids, a nil load and options out of
// range are a *[ConfigError], and a cache that is closed or switched off is [ErrClosed],
// with a zero result.
func (m *Map[K, V]) Warm(ctx context.Context, ids iter.Seq[K], load ManyLoader[K, V], o WarmOptions) (WarmResult, error) {
	switch {
	case ids == nil:
		return WarmResult{}, &ConfigError{"ids", nil, "a sequence"}
	case load == nil:
		return WarmResult{}, &ConfigError{"load", nil, "a function"}
	}
	if !m.base.c.Enabled() {
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

// each applies own to the items of a sequence.
func each[T any](items iter.Seq[T], own func(T) T) iter.Seq[T] {
	return func(yield func(T) bool) {
		for item := range items {
			if !yield(own(item)) {
				return
			}
		}
	}
}

// KeepWarmOptions configure [Map.KeepWarm]. Every field is optional.
type KeepWarmOptions struct {
	// Top is the number of ids, or URLs, that are kept warm: the most requested ones.
	// Default 1000, at most 100000. They should fit into Options.MaxBytes.
	Top int
	// Every is the interval between rounds. A round loads the ids that expire before the
	// next one. Default 10s, 100ms to an hour. A value that lives for less than that is not
	// warm all the time.
	Every     time.Duration
	Batch     int     // ids of one load; default 100, at most 1000. URLs: one by one
	Parallel  int     // concurrent loads; default 2, at most 64
	PerSecond float64 // ids or URLs per second, at least 0.001; default 0, no limit
	// Progress is called after each round. Default nil.
	Progress func(KeepWarmRound)
}

// KeepWarmRound is the result of one round of KeepWarm.
type KeepWarmRound struct {
	Hot int // the ids or URLs that are kept warm
	Due int // hot ones without an entry, or whose entry expires before the next round
	// Filled are the due ones whose values were stored, and Failed those whose load failed.
	// Another instance has refreshed the others, or is doing so.
	Filled, Failed int
	Elapsed        time.Duration // of the round
}

const (
	maxTop   = 100_000
	minEvery = 100 * time.Millisecond
	maxEvery = time.Hour
)

// plan returns the options with their defaults filled in.
func (o KeepWarmOptions) plan() (warmup.KeepPlan, error) {
	p := warmup.KeepPlan{Top: o.Top, Every: o.Every}
	if o.Progress != nil {
		p.Round = func(r warmup.Round) { o.Progress(KeepWarmRound(r)) }
	}
	switch {
	case o.Top < 0 || o.Top > maxTop:
		return p, &ConfigError{"KeepWarmOptions.Top", o.Top, fmt.Sprintf("0 (1000) to %d", maxTop)}
	case o.Every != 0 && (o.Every < minEvery || o.Every > maxEvery):
		return p, &ConfigError{"KeepWarmOptions.Every", o.Every.String(), "0 (10s), or 100ms to 1h"}
	}
	if p.Top == 0 {
		p.Top = 1000
	}
	if p.Every == 0 {
		p.Every = 10 * time.Second
	}
	var err error
	p.Plan, err = WarmOptions{Batch: o.Batch, Parallel: o.Parallel, PerSecond: o.PerSecond}.planOf("KeepWarmOptions")
	return p, err
}

// KeepWarm keeps the most requested values warm. While it runs, it learns from Get and
// GetMany which ids are requested most, and in each round loads those that are about to
// expire, or are not cached. The caller gives it a goroutine:
//
//	go users.KeepWarm(ctx, loadUsers, core.KeepWarmOptions{})
//
// It returns the error of ctx when ctx ends, and [ErrClosed] when the cache is closed. A
// nil load, options out of range, and a map that is kept warm already are a
// *[ConfigError].
//
// KeepWarm loads as a background refresh does, under the same fences: a value that is
// invalidated, or written, while it is loaded is not stored. It leaves alone the values
// that another caller is loading, and takes those that another instance has refreshed
// from the shared tier, so that several instances may call it. While the tier does not
// answer, KeepWarm loads nothing. Ids that are known not to exist expire.
//
// A hit takes no lock for it, and costs nothing while KeepWarm does not run: few of many
// requests are sampled, and a request of ten minutes ago counts for half. In the shared
// tier up to 64 KiB of the hottest ids are kept for an instance that starts.
func (m *Map[K, V]) KeepWarm(ctx context.Context, load ManyLoader[K, V], o KeepWarmOptions) error {
	if load == nil {
		return &ConfigError{"load", nil, "a function"}
	}
	p, err := o.plan()
	if err != nil {
		return err
	}
	c := m.base.c
	k := warmup.Keeper[K]{
		Engine: c.engine, Plan: p, Sketch: m.hot, Enabled: c.Enabled,
		Closed: ErrClosed, Twice: &ConfigError{"KeepWarm", m.base.prefix, "a map that is not kept warm already"},
		Note: m.base.prefix + ":" + string(rune(tier.NameEnd)) + "hot",
		Key: func(it hotkeys.Item[K]) (string, bool) {
			key, err := m.Key(it.About)
			return key, err == nil && key == it.Name
		},
		Leave: func(en *local.Entry) bool { _, none := en.Value.(absent); return none },
		Renew: func(ctx context.Context, due warmup.Due, items []hotkeys.Item[K]) (filled, failed int) {
			return m.keepDue(ctx, due, items, load)
		},
	}
	return k.Keep(ctx)
}

// keepDue loads the values of items that are about to expire, or not there.
func (m *Map[K, V]) keepDue(ctx context.Context, due warmup.Due, items []hotkeys.Item[K], load ManyLoader[K, V]) (filled, failed int) {
	call := &manyCall[K, V]{m: m, do: load}
	keys := make([]string, 0, len(items))
	for _, it := range items {
		call.ids, keys = append(call.ids, it.About), append(keys, it.Name)
	}
	b := newBatch(m.base.snapshot(), call, len(keys))
	b.due, b.warms = due, true
	return b.keep(ctx, keys)
}

// keep loads the due values of a round of KeepWarm.
func (b *batch) keep(ctx context.Context, keys []string) (filled, failed int) {
	e := b.s.c.engine
	var led []*part
	for i, key := range keys {
		p := b.part(i, key)
		if en, state := e.Lookup(p.key); state != local.Gone {
			p.seen = en
		}
		if b.begins(p) {
			led = append(led, p)
		}
	}
	if len(led) == 0 {
		return 0, 0
	}
	done := make(chan struct{})
	turns, _ := oneLoad(led)
	if !e.Serve(ctx, 2*b.s.class.LoadTimeout, ctx.Done(), turns, func(spawned context.Context) {
		defer close(done)
		spawned, cancel := context.WithCancel(spawned)
		defer cancel()
		defer context.AfterFunc(ctx, func() {
			if coherence.Unwatched(spawned, turns) { // only KeepWarm asked for it
				cancel()
			}
		})()
		b.lead(spawned, led)
	}) {
		finish(led)
		return 0, 0
	}
	<-done
	return int(b.stored.Load()), b.failed()
}

// replace takes the lease to replace an entry that is about to expire. An entry that
// another instance has stored meanwhile is taken instead.
func (b *batch) replace(ctx context.Context, p *part) {
	taken := func(en *local.Entry) {
		p.turn.Finish(local.Outcome{Verdict: local.Shared, Entry: en})
		p.done = true
	}
	if en, state := b.s.c.engine.Lookup(p.key); state == local.Fresh && !b.due(en) {
		taken(en)
		return
	}
	q := b.s.query()
	q.Seen, q.Background = p.seen, true
	p.turn.AllowBudgets(b.patience)
	f := p.turn.Fetch(ctx, q)
	if f.Entry != nil && b.due(f.Entry) {
		p.turn.Refuse(f.Entry)
		f = p.turn.Fetch(ctx, q)
	}
	switch {
	case f.Queued != nil:
		b.fromQueue(ctx, p, f.Queued)
	case f.Entry != nil && f.State == local.Fresh && !b.due(f.Entry):
		taken(f.Entry)
	case f.Busy, !p.turn.MayStore(): // another instance loads it, or the tier cannot be asked
		p.busy = true
		p.turn.Finish(local.Outcome{Verdict: local.Failed})
	}
}
