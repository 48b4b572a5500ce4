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
	"github.com/larderhq/larder/core/internal/waitgraph"
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

// KeepWarmOptions is how a hot set is kept warm. The zero value will do.
type KeepWarmOptions struct {
	// Top is how many ids, or URLs, are kept warm: those that were asked for most.
	// Default 1000, at most 100000. They should fit into Options.MaxBytes.
	Top int
	// Every is how often it is looked which of them expire before the next look.
	// Default 10s, 100ms to an hour. What lives for less than that is not kept warm all
	// the time.
	Every     time.Duration
	Batch     int     // ids of one load; default 100, at most 1000. URLs: one by one
	Parallel  int     // loads at a time; default 2, at most 64
	PerSecond float64 // ids or URLs per second that are loaded at most; 0: no limit
	// Progress is called after each look.
	Progress func(KeepWarmRound)
}

// KeepWarmRound is the result of one round of KeepWarm.
type KeepWarmRound struct {
	Hot int // ids or URLs that are known to be asked for most
	Due int // of these, those without an entry, or with one that expires before the next round
	// Filled and Failed are the due ones that were loaded, and those whose load failed.
	// Another instance has refreshed the others, or is about to.
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

// KeepWarm keeps warm what is hit most, until ctx ends, whose error it returns, or the
// cache is closed: ErrClosed. It learns from Get and GetMany, while it runs, which ids are
// asked for most, and every so often loads those of them that are about to expire, or are
// not there, before anybody has to wait for them. The caller gives it a goroutine:
//
//	go users.KeepWarm(ctx, loadUsers, core.KeepWarmOptions{})
//
// It loads as a refresh in the background does, under the same fences: a value that is
// invalidated, or written, while it is loaded is not stored. What somebody else loads
// meanwhile is left alone, and what another instance has refreshed is taken from the
// shared tier, so that each of several instances may call it. While the tier cannot be
// asked, nothing is loaded. Ids that are known not to exist are let expire.
//
// A hit costs no lock for it, and nothing while nobody calls it: of many requests few are
// counted, and what was asked for ten minutes ago counts for half. In the shared tier up to
// 64 KiB of the hottest ids are noted for an instance that starts, and begins with them.
//
// A Map is kept warm once at a time.
func (m *Map[K, V]) KeepWarm(ctx context.Context, load ManyLoader[K, V], o KeepWarmOptions) error {
	if load == nil {
		return &ConfigError{"load", nil, "a function"}
	}
	p, err := o.plan()
	if err != nil {
		return err
	}
	k := warmup.Keeper[K]{
		Engine: m.c.engine, Plan: p, Sketch: m.hot, Enabled: m.c.Enabled,
		Closed: ErrClosed, Twice: &ConfigError{"KeepWarm", m.prefix, "a map that is not kept warm already"},
		Note: m.prefix + ":" + string(rune(coherence.NameEnd)) + "hot",
		Key: func(it hotkeys.Item[K]) (string, bool) {
			key, err := m.Key(it.About)
			return key, err == nil && key == it.Name
		},
		Leave: func(en *coherence.Entry) bool { _, none := en.Value.(absent); return none },
		Renew: func(ctx context.Context, due warmup.Due, items []hotkeys.Item[K]) (filled, failed int) {
			return m.now().renewDue(ctx, due, items, load)
		},
	}
	return k.Keep(ctx)
}

// asked notes that an id was asked for, if KeepWarm wants to know.
func (m *Map[K, V]) asked(key string, id K) {
	if s := m.hot.Load(); s != nil && s.Sampled() {
		s.Saw(key, m.own(id))
	}
}

// renewDue loads what is about to expire and what is not there.
func (m *Map[K, V]) renewDue(ctx context.Context, due warmup.Due, items []hotkeys.Item[K], load ManyLoader[K, V]) (filled, failed int) {
	e := m.c.engine
	b := &batch[K, V]{m: m, load: load, due: due, warms: true, values: make(map[K]V, len(items)), errs: make(BatchError[K])}
	var led []*part[K, V]
	for _, it := range items {
		p := b.part(it.About, it.Name)
		if en, state := e.Lookup(p.key); state != coherence.Gone {
			p.seen = en
		}
		if b.begins(p) {
			led = append(led, p)
		}
	}
	if len(led) == 0 {
		return 0, 0
	}
	done, run := make(chan struct{}), new(waitgraph.Load)
	turns := make([]*coherence.Turn, len(led))
	for i, p := range led {
		turns[i] = p.turn
		p.turn.Runs(run)
	}
	if !e.Serve(ctx, 2*m.class.LoadTimeout, ctx.Done(), turns, func(spawned context.Context) {
		defer close(done)
		spawned, cancel := context.WithCancel(spawned)
		defer cancel()
		defer context.AfterFunc(ctx, func() {
			if coherence.Unwatched(spawned, turns) { // nobody but KeepWarm has asked for it
				cancel()
			}
		})()
		b.lead(spawned, led)
	}) {
		finish(led)
		return 0, 0
	}
	<-done
	b.mu.Lock()
	defer b.mu.Unlock()
	return int(b.stored.Load()), len(b.errs)
}

// renew takes the lease to replace what is about to expire. What another instance has
// made of it meanwhile is taken instead.
func (b *batch[K, V]) renew(ctx context.Context, p *part[K, V]) {
	taken := func(en *coherence.Entry) {
		p.turn.Finish(coherence.Outcome{Verdict: coherence.Shared, Entry: en})
		p.done = true
	}
	if en, state := b.m.c.engine.Lookup(p.key); state == coherence.Fresh && !b.due(en) {
		taken(en)
		return
	}
	q := b.m.query()
	q.Seen, q.Background = p.seen, true
	p.turn.Patient(b.patience)
	f := p.turn.Fetch(ctx, q)
	if f.Entry != nil && b.due(f.Entry) {
		p.turn.Refuse(f.Entry)
		f = p.turn.Fetch(ctx, q)
	}
	switch {
	case f.Queued != nil:
		b.fromQueue(ctx, p, f.Queued)
	case f.Entry != nil && f.State == coherence.Fresh && !b.due(f.Entry):
		taken(f.Entry)
	case f.Busy, !p.turn.MayStore(): // another instance loads it, or the tier cannot be asked
		p.busy = true
		p.turn.Finish(coherence.Outcome{Verdict: coherence.Failed})
	}
}
