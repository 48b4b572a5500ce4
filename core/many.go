package core

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/larderhq/larder/core/internal/coherence"
	"github.com/larderhq/larder/core/internal/loadscope"
	"github.com/larderhq/larder/core/internal/local"
	"github.com/larderhq/larder/core/internal/naming"
	"github.com/larderhq/larder/core/internal/tier"
	"github.com/larderhq/larder/core/internal/waitgraph"
	"github.com/larderhq/larder/core/internal/warmup"
)

// ManyLoader loads the values of several ids with one call, up to 1000 ids. An id that is
// not in its result does not exist ([ErrNotFound]), which is remembered for the class's
// NegativeTTL. With an error the result is ignored, unless the error is a [BatchError]:
// then the ids in it have failed, and the result holds for all other ids. [AddTags],
// [SetTTL] and [NoStore] on its context apply to all values of the call.
type ManyLoader[K comparable, V any] func(ctx context.Context, ids []K) (map[K]V, error)

// BatchError holds the errors of single ids of a batch. Ids that are not in it have
// succeeded.
type BatchError[K comparable] map[K]error

// Error implements error: it has one of the errors, and how many there are.
func (e BatchError[K]) Error() string {
	for id, err := range e {
		return fmt.Sprintf("larder: %d ids of a batch failed, among them %v: %v", len(e), id, err)
	}
	return "larder: no id of a batch failed"
}

// Unwrap returns the errors of all ids, for errors.Is and errors.As.
func (e BatchError[K]) Unwrap() []error {
	list := make([]error, 0, len(e))
	for _, err := range e {
		list = append(list, err)
	}
	return list
}

const (
	// maxBatch is how many ids are looked up, and loaded, with one call.
	maxBatch = 1000
	// maxParallel is how many values PutMany puts concurrently.
	maxParallel = 64
)

// GetMany returns the values of ids. It loads missing values with one call of load for up
// to 1000 ids, except ids that another caller is loading already: for these it waits, as
// [Map.Get] does. All ids share one pipeline to each server of the shared tier.
//
// The result holds each value that was found, also when the error is not nil: ids that do
// not exist are in neither. If some ids failed, the error is a [BatchError] with one error
// for each of them. If ctx ends first, the error is that of ctx, and loads that are under
// way go on. An id that is no valid key, or a nil load, is an error before any lookup, with
// a nil result.
func (m *Map[K, V]) GetMany(ctx context.Context, ids []K, load ManyLoader[K, V]) (map[K]V, error) {
	values, _, err := m.getMany(ctx, ids, load, true)
	return values, err
}

// getMany is GetMany, and returns how many values it has stored. asked is false if no
// caller waits for the values.
func (m *Map[K, V]) getMany(ctx context.Context, ids []K, load ManyLoader[K, V], asked bool) (map[K]V, int, error) {
	if load == nil {
		return nil, 0, &ConfigError{"load", nil, "a function"}
	}
	call := &manyCall[K, V]{m: m, do: load, asked: make([]K, 0, len(ids))}
	keys, known := make([]string, 0, len(ids)), make(map[K]struct{}, len(ids))
	for _, id := range ids {
		if _, ok := known[id]; ok {
			continue
		}
		key, err := m.Key(id)
		if err != nil {
			return nil, 0, err
		}
		known[id] = struct{}{}
		call.asked, keys = append(call.asked, id), append(keys, key)
		if asked && m.base.c.Enabled() {
			m.sample(key, id)
		}
	}
	call.ids = slices.Clone(call.asked)
	b := newBatch(m.base.snapshot(), call, len(keys))
	b.warms = !asked
	err := b.getAll(ctx, keys)
	return call.result(b, err)
}

// manyLoader is a ManyLoader and its ids, which are named by their index.
type manyLoader interface {
	// load returns an answer for each index, or the error of all.
	load(ctx context.Context, indexes []int) ([]answer, error)
	// detach makes the loader share no buffer with the caller's id. It is called before a
	// load of the id begins.
	detach(index int)
}

// manyCall implements manyLoader.
type manyCall[K comparable, V any] struct {
	m     *Map[K, V]
	do    ManyLoader[K, V]
	asked []K // the caller's ids
	ids   []K // the same ids; the ids of loads are copies
}

func (c *manyCall[K, V]) detach(i int) { c.ids[i] = c.m.own(c.ids[i]) }

func (c *manyCall[K, V]) load(ctx context.Context, indexes []int) ([]answer, error) {
	ids := make([]K, len(indexes))
	for n, i := range indexes {
		ids[n] = c.ids[i]
	}
	values, err := c.do(ctx, slices.Clone(ids)) // the loader may change its slice
	var failed BatchError[K]
	if err != nil && !errors.As(err, &failed) {
		return nil, err
	}
	answers := make([]answer, len(ids))
	for n, id := range ids {
		v, ok := values[id]
		switch {
		case failed[id] != nil:
			answers[n].err = c.m.base.values.notFound.error(failed[id])
		case ok:
			answers[n].value = &v
		default:
			answers[n].err = c.m.base.values.notFound.unnamed()
		}
	}
	return answers, nil
}

// result returns the result of GetMany. Later answers change neither of the maps.
func (c *manyCall[K, V]) result(b *batch, err error) (map[K]V, int, error) {
	values := make(map[K]V, len(c.asked))
	failed := make(BatchError[K])
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, a := range b.answers {
		switch id := c.asked[i]; {
		case a.value != nil && a.err == nil:
			if own := c.ids[i]; own == id { // a pointer is found by the caller's only
				id = own
			}
			values[id] = unboxed[V](a.value)
		case a.err != nil && !errors.Is(a.err, ErrNotFound):
			failed[c.m.resultKey(id)] = a.err
		}
	}
	if err == nil && len(failed) > 0 {
		err = failed
	}
	return values, int(b.stored.Load()), err
}

// resultKey returns the id under which a result stands: a copy, where the caller finds a
// copy by its own id.
func (m *Map[K, V]) resultKey(id K) K {
	if own := m.own(id); own == id {
		return own
	}
	return id
}

// batch is one GetMany, or one round of Warm or KeepWarm.
type batch struct {
	s    *snapshot
	load manyLoader

	patience int        // how many budgets the shared tier may take, for many ids
	warms    bool       // no caller waits for the values
	due      warmup.Due // of KeepWarm: which entries are to be replaced
	stored   atomic.Int64
	waited   time.Duration // for the shared tier, before its turns

	mu      sync.Mutex
	answers []answer // by index
}

// part is one id of a batch whose value was not in this process.
type part struct {
	index int
	key   string
	turn  *coherence.Turn
	seen  *local.Entry // of KeepWarm: the entry to be replaced, nil: there is none
	busy  bool         // another caller loads it
	done  bool         // it has been answered

	missed   bool // it has no lease for want of time alone
	unstored bool // its value must not be stored
}

func newBatch(s *snapshot, load manyLoader, size int) *batch {
	return &batch{s: s, load: load, answers: make([]answer, size)}
}

func (b *batch) part(index int, key string) *part {
	b.load.detach(index)
	return &part{index: index, key: key}
}

// getAll answers all ids. With an error the loads that are under way go on.
func (b *batch) getAll(ctx context.Context, keys []string) error {
	e := b.s.c.engine
	if !b.s.c.Enabled() {
		e.Count.Bypassed.Add(int64(len(keys)))
		sc := b.s.c.scope()
		sc.Outer = loadscope.From(ctx)
		b.loadAll(loadscope.With(ctx, sc))
		return nil
	}
	var left []*part
	for i, key := range keys {
		h, ok := b.s.hit(ctx, key, nil)
		b.waited += h.waited
		if !ok {
			left = append(left, b.part(i, key))
			continue
		}
		if h.due {
			b.s.refresh(ctx, h.entry, key, oneOfMany{many: b.load, index: i})
		}
		b.answer(i, b.s.open(&h))
	}
	for len(left) > 0 {
		n := min(len(left), maxBatch)
		if err := b.get(ctx, left[:n]); err != nil {
			return err
		}
		left = left[n:]
	}
	return nil
}

func (b *batch) answer(index int, a answer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answers[index] = a
}

// failed returns how many ids have failed.
func (b *batch) failed() (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, a := range b.answers {
		if a.err != nil && !errors.Is(a.err, ErrNotFound) {
			n++
		}
	}
	return n
}

// oneOfMany loads a single id with a manyLoader.
type oneOfMany struct {
	many  manyLoader
	index int
	own   bool // it is detached
}

func (o oneOfMany) detached() loader {
	if !o.own {
		o.many.detach(o.index)
		o.own = true
	}
	return o
}

func (o oneOfMany) load(ctx context.Context) (any, error) {
	answers, err := o.many.load(ctx, []int{o.index})
	if err != nil {
		return nil, err
	}
	return answers[0].value, answers[0].err
}

// loadAll loads all ids of a cache that is switched off.
func (b *batch) loadAll(ctx context.Context) {
	indexes := make([]int, len(b.answers))
	for i := range indexes {
		indexes[i] = i
	}
	answers, err := b.load.load(ctx, indexes)
	for i := range indexes {
		if err != nil {
			b.answer(i, answer{err: err})
		} else {
			b.answer(i, answers[i])
		}
	}
}

// get answers ids that were not in this process: it loads those that no other caller is
// loading, and waits for the others.
func (b *batch) get(ctx context.Context, parts []*part) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	outer := loadscope.From(ctx)
	outer.ReadsReplica(b.s.class.ReplicaLag)
	led, within := b.begin(outer, parts)
	if len(led) > 0 {
		if err := b.detach(ctx, led); err != nil {
			return err
		}
	}
	for _, p := range within {
		b.answer(p.index, b.s.beside(ctx, p.key, b.one(p)))
	}
	var busy []*part
	for _, p := range parts {
		if p.busy && !p.done {
			p.turn, p.busy = nil, false
			busy = append(busy, p)
		}
	}
	if len(busy) == 0 {
		return nil
	}
	// When the first is loaded the others are, or can be.
	a := b.s.get(ctx, busy[0].key, b.one(busy[0]))
	if ctx.Err() != nil {
		return ctx.Err()
	}
	b.answer(busy[0].index, a)
	if len(busy) == 1 {
		return nil
	}
	return b.get(ctx, busy[1:])
}

// begin takes the turns of the parts that no other caller is loading. within are those
// whose value the running loader itself loads.
func (b *batch) begin(outer *loadscope.Scope, parts []*part) (led, within []*part) {
	for _, p := range parts {
		switch {
		case outer.Within(b.s.c.engine, p.key):
			within = append(within, p)
			p.done = true
		case b.begins(p):
			led = append(led, p)
		default:
			p.busy = true
		}
	}
	return led, within
}

func (b *batch) one(p *part) loader { return oneOfMany{b.load, p.index, true} }

// oneLoad notes that one load runs in the turns of parts, and returns both.
func oneLoad(parts []*part) ([]*coherence.Turn, *waitgraph.Load) {
	load := new(waitgraph.Load)
	turns := make([]*coherence.Turn, len(parts))
	for i, p := range parts {
		turns[i] = p.turn
		p.turn.Runs(load)
	}
	return turns, load
}

// detach leads, and waits for that as long as ctx lasts.
func (b *batch) detach(ctx context.Context, led []*part) error {
	turns, load := oneLoad(led)
	defer loadscope.From(ctx).Begins(load)()
	done, left := make(chan struct{}), make(chan struct{})
	defer close(left)
	lent, end := local.Lend(ctx)
	defer end()
	ok := b.s.c.engine.Serve(lent, 2*b.s.class.LoadTimeout, left, turns, func(ctx context.Context) {
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

func finish(led []*part) {
	for _, p := range led {
		p.turn.Finish(local.Outcome{Verdict: local.Failed})
	}
}

// open returns the parts that are neither answered nor left to another caller.
func open(parts []*part) []*part {
	return slices.DeleteFunc(slices.Clone(parts), func(p *part) bool { return p.done || p.busy })
}

// lead asks the shared tier, loads the values that it does not have, and stores them.
func (b *batch) lead(ctx context.Context, led []*part) {
	defer finish(led) // whatever happens
	defer func() {
		for _, p := range open(led) { // Goexit
			b.answer(p.index, answer{err: &PanicError{}})
		}
	}()
	rest := led
	if b.warms && b.due == nil {
		if rest = b.leadTogether(ctx, led); len(rest) == 0 {
			return
		}
	}
	b.each(ctx, rest, b.fetch)
	missing := open(rest)
	if len(missing) == 0 {
		return
	}
	c := b.call(ctx, missing)
	at := make(map[*part]int, len(missing))
	for i, p := range missing {
		at[p] = i
	}
	b.each(ctx, missing, func(ctx context.Context, p *part) {
		r := loaded{answer: answer{err: c.err}, cut: c.cut}
		if c.err == nil {
			r.answer = c.answers[at[p]]
		}
		p.missed = p.turn.OverBudget()
		if c.panicked {
			p.turn.Finish(local.Outcome{Verdict: local.Failed})
		} else {
			said := c.said
			said.NoStore = said.NoStore || p.unstored
			b.s.settle(ctx, p.turn, said, &r)
		}
		if r.stored {
			b.stored.Add(1)
		}
		p.missed = r.storable && p.missed
		b.answer(p.index, r.answer)
		p.done = true
	})
	b.later(ctx, missing)
}

// later loads again, behind the response, the values that were not stored for want of time
// alone.
func (b *batch) later(ctx context.Context, parts []*part) {
	parts = slices.DeleteFunc(slices.Clone(parts), func(p *part) bool { return !p.missed })
	if len(parts) == 0 {
		return
	}
	b.s.c.engine.Behind(ctx, 2*b.s.class.LoadTimeout, func(ctx context.Context) {
		again := newBatch(b.s, b.load, len(b.answers))
		again.warms = true
		again.lead(ctx, again.turns(parts))
	})
}

// begins gives a part its turn, unless another caller loads it.
func (b *batch) begins(p *part) (ok bool) {
	e, tags := b.s.c.engine, []string{naming.Tag(p.key)}
	if b.warms && e.Distant() {
		p.turn, ok = e.TryLater(p.key, tags, b.s.gate())
	} else {
		p.turn, ok = e.TryLead(p.key, tags, b.s.gate())
	}
	if ok {
		p.turn.Spend(b.waited)
	}
	return ok
}

// turns returns parts for the same ids, with turns that no caller waits for.
func (b *batch) turns(parts []*part) (led []*part) {
	for _, p := range parts {
		next := &part{index: p.index, key: p.key, seen: p.seen}
		var ok bool
		if next.turn, ok = b.s.c.engine.TryLater(p.key, []string{naming.Tag(p.key)}, b.s.gate()); ok {
			led = append(led, next)
		}
	}
	return led
}

// called is the result of a call of a manyLoader: an answer for each part, or the error of
// all.
type called struct {
	answers  []answer
	err      error
	said     loadscope.Said
	panicked bool
	cut      bool // its context had ended
}

// call calls the loader. A panic becomes its error.
func (b *batch) call(ctx context.Context, parts []*part) (c called) {
	e := b.s.c.engine
	sc := b.s.c.scope()
	sc.Outer, sc.LeadsToo, sc.Load = loadscope.From(ctx), make(map[string]bool, len(parts)), parts[0].turn.Running()
	indexes := make([]int, len(parts))
	e.Count.Loads.Add(1)
	for i, p := range parts {
		indexes[i] = p.index
		sc.LeadsToo[p.key] = true
		if p.seen != nil {
			e.Count.Refreshes.Add(1)
		}
	}
	finished := false
	defer func() {
		if !finished {
			e.Count.Panics.Add(1)
			e.Count.LoadErrors.Add(1)
			c = called{err: &PanicError{Value: recover(), Stack: debug.Stack()}, panicked: true}
		}
	}()
	run, cancel := context.WithTimeout(ctx, b.s.class.LoadTimeout)
	defer cancel()
	c.answers, c.err = b.load.load(loadscope.With(run, sc), indexes)
	sc.Outer.Inherit(sc.Said())
	finished = true
	c.said, c.cut = sc.Said(), run.Err() != nil
	return c
}

// fetch answers an id from the shared tier, or takes the lease for it.
func (b *batch) fetch(ctx context.Context, p *part) {
	if b.due != nil {
		b.replace(ctx, p)
		return
	}
	if a, ok := b.s.lookAgain(p.turn, nil); ok {
		b.answer(p.index, a)
		p.done = true
		return
	}
	q := b.s.query()
	q.Background = true
	p.turn.AllowBudgets(b.patience)
	f := p.turn.Fetch(ctx, q)
	if f.Entry != nil && f.State >= local.Stale {
		if a, ok := b.s.accept(ctx, p.turn, f, b.one(p)); ok {
			b.answer(p.index, a)
			p.done = true
			return
		}
		f = p.turn.Fetch(ctx, q) // for the lease to replace the entry, or a queued change
	}
	switch {
	case f.Queued != nil:
		b.fromQueue(ctx, p, f.Queued)
	case f.Busy: // another instance loads it
		p.busy = true
		p.turn.Finish(local.Outcome{Verdict: local.Failed})
	}
	if p.turn.Behind() && !p.done && !p.busy && (p.unstored || !p.turn.MayStore()) {
		p.busy = true // the value would be of no use to any caller
		p.turn.Finish(local.Outcome{Verdict: local.Failed})
	}
}

// fromQueue answers an id with a change that is queued. If the change does not decode, the
// load gets an older value, which must not be stored: other instances may decode the change.
func (b *batch) fromQueue(ctx context.Context, p *part, rec *tier.Queued) {
	r, said, ok := b.s.fromQueue(rec)
	if !ok {
		p.unstored = true
		return
	}
	b.s.settle(ctx, p.turn, said, &r)
	b.answer(p.index, r.answer)
	p.done = true
}

// each calls do for all parts concurrently, so that their calls to the shared tier share
// its pipelines.
func (b *batch) each(ctx context.Context, parts []*part, do func(context.Context, *part)) {
	b.patience = 1 + len(parts)/50
	together := tier.NewBatch(len(parts))
	ctx = tier.WithBatch(ctx, together)
	var all sync.WaitGroup
	for _, p := range parts {
		all.Go(func() {
			defer together.Leave()
			b.guard(p, func() { do(ctx, p) })
		})
	}
	all.Wait()
}

// PutMany is [Map.Put] of several values, with the same tags, up to 64 of them
// concurrently. Every id and value is checked first: a *[ConfigError] says that none was
// put. Later, the error is a [BatchError] with the ids whose value was not stored or whose
// invalidation is pending.
func (m *Map[K, V]) PutMany(ctx context.Context, values map[K]V, tags ...string) error {
	ids, puts := make([]K, 0, len(values)), make([]put, 0, len(values))
	for id, v := range values {
		key, err := m.Key(id)
		if err != nil {
			return err
		}
		ids, puts = append(ids, id), append(puts, put{key, &v})
	}
	each, err := m.base.snapshot().putAll(ctx, puts, tags)
	if err != nil {
		return err
	}
	failed := make(BatchError[K])
	for i, err := range each {
		if err != nil {
			failed[m.resultKey(ids[i])] = err
		}
	}
	if len(failed) > 0 {
		return failed
	}
	return nil
}

// InvalidateMany is [Map.Invalidate] of many ids. No ids are no error.
func (m *Map[K, V]) InvalidateMany(ctx context.Context, ids []K) error {
	if len(ids) == 0 {
		return nil
	}
	return m.Invalidate(ctx, ids...)
}
