package core

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/larderhq/larder/core/internal/coherence"
	"github.com/larderhq/larder/core/internal/loadscope"
	"github.com/larderhq/larder/core/internal/naming"
	"github.com/larderhq/larder/core/internal/tier"
	"github.com/larderhq/larder/core/internal/waitgraph"
	"github.com/larderhq/larder/core/internal/warmup"
)

// ManyLoader loads the values of several ids at once. An id that is not in its
// result does not exist (ErrNotFound), which is remembered for the class's
// NegativeTTL. With an error the result counts for nothing, unless it is a BatchError:
// then those ids have failed, and the others are what the result says. What it says
// of itself by its context (AddTags, SetTTL, NoStore) is said of all of them.
type ManyLoader[K comparable, V any] func(ctx context.Context, ids []K) (map[K]V, error)

// BatchError is the errors of single ids of a batch.
type BatchError[K comparable] map[K]error

// resultKey returns the id under which a result stands: a copy, where the caller finds a
// copy by his own id.
func (m *Map[K, V]) resultKey(id K) K {
	if own := m.own(id); own == id {
		return own
	}
	return id
}

// Error implements error: one of them, and how many there are.
func (e BatchError[K]) Error() string {
	for id, err := range e {
		return fmt.Sprintf("larder: %d of a batch failed, %v among them: %v", len(e), id, err)
	}
	return "larder: nothing of a batch failed"
}

// Unwrap returns all of them.
func (e BatchError[K]) Unwrap() []error {
	list := make([]error, 0, len(e))
	for _, err := range e {
		list = append(list, err)
	}
	return list
}

// maxBatch is how many ids are looked for, and loaded, at a time.
const maxBatch = 1000

// GetMany answers the values of ids. What is missing is loaded by one call of load,
// up to 1000 ids at a time, but for ids that somebody else is loading already: for
// these it waits, as Get does. The shared tier is asked for all of them together: a
// pipeline per server.
//
// The result has the values that there are. Ids that do not exist are not in it. If
// some failed, the error is an BatchError[K] with one error for each, and the result has
// the others.
func (m *Map[K, V]) GetMany(ctx context.Context, ids []K, load ManyLoader[K, V]) (map[K]V, error) {
	values, _, err := m.getMany(ctx, ids, load, true)
	return values, err
}

// getMany is GetMany, and returns how many it has stored. asked: somebody asks for them.
func (m *Map[K, V]) getMany(ctx context.Context, ids []K, load ManyLoader[K, V], asked bool) (values map[K]V, stored int, err error) {
	if load == nil {
		return nil, 0, &ConfigError{"load", nil, "a function"}
	}
	m = m.now()
	keys := make(map[K]string, len(ids))
	for _, id := range ids {
		key, err := m.Key(id)
		if err != nil {
			return nil, 0, err
		}
		keys[id] = key
	}
	b := &batch[K, V]{m: m, load: load, warms: !asked, values: make(map[K]V, len(keys)), errs: make(BatchError[K])}
	if !m.c.Enabled() {
		m.c.engine.Count.Bypassed.Add(int64(len(keys)))
		sc := m.c.scope()
		sc.Outer = loadscope.From(ctx)
		b.loadAll(loadscope.With(ctx, sc), keys)
		values, err = b.result()
		return values, 0, err
	}
	if asked && m.hot.Load() != nil {
		for id, key := range keys {
			m.asked(key, id)
		}
	}
	var left []*part[K, V]
	now := m.c.engine.Now()
	for id, key := range keys {
		if !b.here(ctx, id, key, now) {
			left = append(left, b.part(id, key))
		}
	}
	for len(left) > 0 {
		n := min(len(left), maxBatch)
		if err := b.get(ctx, left[:n]); err != nil {
			return b.leave(), int(b.stored.Load()), err // a load that is under way goes on
		}
		left = left[n:]
	}
	values, err = b.result()
	return values, int(b.stored.Load()), err
}

// batch is one GetMany.
type batch[K comparable, V any] struct {
	m    *Map[K, V]
	load ManyLoader[K, V]

	patience int        // how many budgets the shared tier may take, for many ids
	warms    bool       // nobody waits for it
	due      warmup.Due // of KeepWarm: what is to be replaced
	stored   atomic.Int64

	mu     sync.Mutex
	left   bool // by its caller, who has what there was
	values map[K]V
	errs   BatchError[K]
}

// part is one id of it that was not in this process.
type part[K comparable, V any] struct {
	id    K // core's own
	asked K // as the caller has it: equal to id, but where it is a pointer
	key   string
	turn  *coherence.Turn
	seen  *coherence.Entry // of KeepWarm: what is to be replaced, nil: nothing is there
	busy  bool             // somebody else loads it
	done  bool             // it has been answered

	missed bool // it has no lease for want of time alone
}

func (b *batch[K, V]) part(id K, key string) *part[K, V] {
	return &part[K, V]{id: b.m.own(id), asked: b.m.resultKey(id), key: key}
}

// leave returns what there is. What comes later is for nobody: neither the caller's map
// nor his ids, which may be views of a buffer, are touched any more.
func (b *batch[K, V]) leave() map[K]V {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left = true
	return b.values
}

func (b *batch[K, V]) result() (map[K]V, error) {
	if len(b.errs) > 0 {
		return b.values, b.errs
	}
	return b.values, nil
}

// answer notes what became of an id.
func (b *batch[K, V]) answer(id K, v V, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.left:
	case err == nil:
		b.values[id] = v
	case !errors.Is(err, ErrNotFound):
		b.errs[b.m.resultKey(id)] = err
	}
}

// here answers an id from this process.
func (b *batch[K, V]) here(ctx context.Context, id K, key string, now int64) bool {
	e := b.m.c.engine
	en, state := e.LookupAt(key, now)
	if state < coherence.Stale {
		e.Count.Misses.Add(1)
		return false
	}
	v, err, ok := b.m.read(en)
	if !ok {
		e.Drop(key)
		e.Count.Misses.Add(1)
		return false
	}
	if state == coherence.Fresh {
		e.Count.Hits.Add(1)
	} else {
		e.Count.StaleHits.Add(1)
	}
	if state == coherence.Stale || en.Early(now) {
		b.m.refresh(ctx, en, key, id, b.one)
	}
	b.answer(id, v, err)
	return true
}

// one is the loader of a single id.
func (b *batch[K, V]) one(ctx context.Context, id K) (v V, err error) {
	values, err := b.load(ctx, []K{id})
	var each BatchError[K]
	if errors.As(err, &each) {
		err = each[id]
	}
	if err != nil {
		return v, err
	}
	v, ok := values[id]
	if !ok {
		return v, ErrNotFound
	}
	return v, nil
}

// loadAll is for a cache that is switched off.
func (b *batch[K, V]) loadAll(ctx context.Context, keys map[K]string) {
	ids := make([]K, 0, len(keys))
	for id := range keys {
		ids = append(ids, id)
	}
	values, err := b.load(ctx, ids)
	var each BatchError[K]
	whole := !errors.As(err, &each) && err != nil
	for _, id := range ids {
		v, ok := values[id]
		switch {
		case whole:
			b.answer(id, v, err)
		case each[id] != nil:
			b.answer(id, v, each[id])
		case ok:
			b.answer(id, v, nil)
		}
	}
}

// get answers ids that were not in this process. The load runs detached, for
// others may wait for it by the time.
func (b *batch[K, V]) get(ctx context.Context, parts []*part[K, V]) error {
	e, m := b.m.c.engine, b.m
	if err := ctx.Err(); err != nil {
		return err
	}
	outer := loadscope.From(ctx)
	outer.Reads(b.m.class.ReplicaLag)
	var led, own []*part[K, V]
	for _, p := range parts {
		if outer.Within(e, p.key) { // a loader that asks for its own value
			own = append(own, p)
			p.done = true
			continue
		}
		if b.begins(p) {
			led = append(led, p)
		} else {
			p.busy = true
		}
	}
	if len(led) > 0 {
		if err := b.detach(ctx, led); err != nil {
			return err
		}
	}
	for _, p := range own {
		v, err := m.beside(ctx, p.key, p.id, b.one)
		b.answer(p.asked, v, err)
	}
	var busy []*part[K, V]
	for _, p := range parts {
		if p.busy && !p.done {
			p.turn, p.busy = nil, false
			busy = append(busy, p)
		}
	}
	if len(busy) == 0 {
		return nil
	}
	// When one is there the others may be, or may be had.
	v, err := m.Get(ctx, busy[0].id, b.one)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	b.answer(busy[0].asked, v, err)
	if len(busy) == 1 {
		return nil
	}
	return b.get(ctx, busy[1:])
}

// detach leads, and waits for that as long as ctx lasts.
func (b *batch[K, V]) detach(ctx context.Context, led []*part[K, V]) error {
	e, run := b.m.c.engine, new(waitgraph.Load)
	turns := make([]*coherence.Turn, len(led))
	for i, p := range led {
		turns[i] = p.turn
		p.turn.Runs(run)
	}
	defer loadscope.From(ctx).Begins(run)()
	done, left := make(chan struct{}), make(chan struct{})
	defer close(left)
	lent, end := coherence.Lend(ctx)
	defer end()
	ok := e.Serve(lent, 2*b.m.class.LoadTimeout, left, turns, func(ctx context.Context) {
		defer close(done)
		b.lead(ctx, led)
	})
	if !ok {
		finish(led)
		for _, p := range led { // the cache is being closed
			p.busy = true
		}
		return nil
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func finish[K comparable, V any](led []*part[K, V]) {
	for _, p := range led {
		p.turn.Finish(coherence.Outcome{Verdict: coherence.Failed})
	}
}

// lead asks the shared tier, loads what it has not, and stores that.
func (b *batch[K, V]) lead(ctx context.Context, led []*part[K, V]) {
	defer finish(led) // whatever happens
	defer func() {
		for _, p := range led {
			if !p.done && !p.busy { // Goexit
				var zero V
				b.answer(p.asked, zero, &PanicError{})
			}
		}
	}()
	b.each(ctx, led, b.fetch)
	var missing []*part[K, V]
	var ids []K
	for _, p := range led {
		if !p.done && !p.busy {
			missing = append(missing, p)
			ids = append(ids, p.id)
		}
	}
	if len(missing) == 0 {
		return
	}
	values, said, panicked, cut, err := b.run(ctx, missing, ids)
	var each BatchError[K]
	if errors.As(err, &each) {
		err = nil
	}
	b.each(ctx, missing, func(ctx context.Context, p *part[K, V]) {
		r := loaded[V]{err: err, cut: cut}
		if v, ok := values[p.id]; each[p.id] != nil {
			r.err = each[p.id]
		} else if err == nil && ok {
			r.v = v
		} else if err == nil {
			r.err = ErrNotFound
		}
		p.missed = p.turn.Missed()
		if panicked {
			p.turn.Finish(coherence.Outcome{Verdict: coherence.Failed})
		} else {
			b.m.settle(ctx, p.turn, said, &r)
		}
		if r.stored {
			b.stored.Add(1)
		}
		p.missed = r.storable && p.missed
		b.answer(p.asked, r.v, r.err)
		p.done = true
	})
	b.later(ctx, missing)
}

// later loads again behind the response what could not be stored for want of time alone.
func (b *batch[K, V]) later(ctx context.Context, parts []*part[K, V]) {
	parts = slices.DeleteFunc(slices.Clone(parts), func(p *part[K, V]) bool { return !p.missed })
	if len(parts) == 0 {
		return
	}
	b.m.c.engine.Behind(ctx, 2*b.m.class.LoadTimeout, func(ctx context.Context) {
		again := &batch[K, V]{m: b.m, load: b.load, warms: true, values: make(map[K]V), errs: make(BatchError[K])}
		again.lead(ctx, again.turns(parts))
	})
}

// begins gives a part its turn, unless somebody else loads it.
func (b *batch[K, V]) begins(p *part[K, V]) (ok bool) {
	e, tags := b.m.c.engine, []string{naming.Tag(p.key)}
	if b.warms && e.Thrifty() {
		p.turn, ok = e.TryLater(p.key, tags, b.m.gate())
	} else {
		p.turn, ok = e.TryLead(p.key, tags, b.m.gate())
	}
	return ok
}

// turns returns parts for the same ids, with turns that nobody waits for.
func (b *batch[K, V]) turns(parts []*part[K, V]) (led []*part[K, V]) {
	for _, p := range parts {
		next := &part[K, V]{id: p.id, asked: p.id, key: p.key, seen: p.seen}
		var ok bool
		if next.turn, ok = b.m.c.engine.TryLater(p.key, []string{naming.Tag(p.key)}, b.m.gate()); ok {
			led = append(led, next)
		}
	}
	return led
}

// run calls the loader. Its panic is its error.
func (b *batch[K, V]) run(ctx context.Context, parts []*part[K, V], ids []K) (values map[K]V, said loadscope.Said, panicked, cut bool, err error) {
	e, m := b.m.c.engine, b.m
	sc := m.c.scope()
	sc.Outer, sc.LeadsToo, sc.Load = loadscope.From(ctx), make(map[string]bool, len(parts)), parts[0].turn.Running()
	for _, p := range parts {
		sc.LeadsToo[p.key] = true
	}
	e.Count.Loads.Add(1)
	for _, p := range parts {
		if p.seen != nil {
			e.Count.Refreshes.Add(1)
		}
	}
	finished := false
	defer func() {
		if !finished {
			e.Count.Panics.Add(1)
			e.Count.LoadErrors.Add(1)
			err, panicked = &PanicError{Value: recover(), Stack: debug.Stack()}, true
		}
	}()
	run, cancel := context.WithTimeout(ctx, m.class.LoadTimeout)
	defer cancel()
	values, err = b.load(loadscope.With(run, sc), ids)
	sc.Outer.Reads(sc.Said().ReplicaLag)
	finished = true
	return values, sc.Said(), false, run.Err() != nil, err
}

// fetch answers an id from the shared tier, or takes the lease for it.
func (b *batch[K, V]) fetch(ctx context.Context, p *part[K, V]) {
	if b.due != nil {
		b.renew(ctx, p)
		return
	}
	if v, err, ok := b.m.lookAgain(p.turn, nil); ok {
		b.answer(p.asked, v, err)
		p.done = true
		return
	}
	q := b.m.query()
	q.Background = true
	p.turn.Patient(b.patience)
	f := p.turn.Fetch(ctx, q)
	switch {
	case f.Queued != nil:
		b.fromQueue(ctx, p, f.Queued)
	case f.Busy: // another instance loads it
		p.busy = true
		p.turn.Finish(coherence.Outcome{Verdict: coherence.Failed})
	case f.Entry != nil && f.State >= coherence.Stale:
		if v, err, ok := b.m.found(ctx, p.turn, f, p.id, b.one); ok {
			b.answer(p.asked, v, err)
			p.done = true
			return
		}
		p.turn.Fetch(ctx, q)
	}
	if p.turn.Behind() && !p.done && !p.busy && !p.turn.MayStore() {
		p.busy = true // it would be of no use to anybody
		p.turn.Finish(coherence.Outcome{Verdict: coherence.Failed})
	}
}

// fromQueue answers an id with a change that is queued, if it can be read.
func (b *batch[K, V]) fromQueue(ctx context.Context, p *part[K, V], queued *tier.Queued) {
	r, said, ok := b.m.fromQueue(queued)
	if !ok {
		return
	}
	b.m.settle(ctx, p.turn, said, &r)
	b.answer(p.asked, r.v, r.err)
	p.done = true
}

// each does something for several ids at the same time, so that what it sends goes
// to the shared tier together.
func (b *batch[K, V]) each(ctx context.Context, parts []*part[K, V], do func(context.Context, *part[K, V])) {
	b.patience = 1 + len(parts)/50
	together := tier.NewBatch(len(parts))
	ctx = tier.WithBatch(ctx, together)
	var all sync.WaitGroup
	for _, p := range parts {
		all.Go(func() {
			defer together.Leave()
			defer func() {
				if v := recover(); v != nil { // of the codec or clone function
					b.m.c.engine.Count.Panics.Add(1)
					p.turn.Finish(coherence.Outcome{Verdict: coherence.Failed})
					var zero V
					b.answer(p.asked, zero, &PanicError{Value: v, Stack: debug.Stack()})
					p.done = true
				}
			}()
			do(ctx, p)
		})
	}
	all.Wait()
}

// PutMany is Put of several values, with the same tags. If some were not stored, or
// their invalidation is pending, the error is an BatchError[K].
func (m *Map[K, V]) PutMany(ctx context.Context, values map[K]V, tags ...string) error {
	m = m.now()
	for id, v := range values { // what is wrong is found before anything is done
		key, err := m.Key(id)
		if err != nil {
			return err
		}
		if _, err := m.filled(key, v, tags); err != nil {
			return err
		}
	}
	slots := make(chan struct{}, maxParallel)
	errs := make(BatchError[K])
	var mu sync.Mutex
	var all sync.WaitGroup
	for id, v := range values {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			if err := m.Put(ctx, id, v, tags...); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs[m.resultKey(id)] = err
			}
		})
	}
	all.Wait()
	if len(errs) > 0 {
		return errs
	}
	return nil
}

// maxParallel is how many values are put at a time.
const maxParallel = 64

// InvalidateMany is Invalidate of many ids.
func (m *Map[K, V]) InvalidateMany(ctx context.Context, ids []K) error {
	if len(ids) == 0 {
		return nil
	}
	return m.Invalidate(ctx, ids...)
}
