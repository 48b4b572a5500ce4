package core

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"github.com/larderhq/larder/core/internal/coherence"
	"github.com/larderhq/larder/core/internal/loadscope"
	"github.com/larderhq/larder/core/internal/local"
	"github.com/larderhq/larder/core/internal/naming"
	"github.com/larderhq/larder/core/internal/packed"
	"github.com/larderhq/larder/core/internal/tier"
	"github.com/larderhq/larder/core/internal/waitgraph"
	"github.com/larderhq/larder/core/internal/writebehind"
)

// The methods of a generic type are compiled once for each of its instantiations. The work
// of a Map therefore stands here, on keys and on boxed values, and is compiled once. A
// boxed value of a Map[K, V] is a *V in an any.

// mapBase is the part of a Map that does not depend on the types of ids and values.
type mapBase struct {
	c      *Cache
	name   string // of the class
	prefix string
	lead   string // of keys: the prefix and a colon
	values valueType
	latest atomic.Pointer[snapshot]
}

// snapshot is a map for one operation, from its beginning to its end: its class does not
// change meanwhile.
type snapshot struct {
	*mapBase

	class    Class
	revision uint64
}

// snapshot returns the map as of the latest SetClasses.
func (b *mapBase) snapshot() *snapshot {
	revision := b.c.classRevision()
	if s := b.latest.Load(); s != nil && s.revision == revision {
		return s
	}
	s := &snapshot{mapBase: b, revision: revision}
	s.class, _ = b.c.Class(b.name) // no class is ever removed
	b.latest.Store(s)
	return s
}

// newMapBase checks the options that do not depend on the types of a map.
func newMapBase(c *Cache, class, prefix string, values valueType) (*mapBase, error) {
	if c == nil {
		return nil, &ConfigError{"cache", nil, "a cache made by New"}
	}
	b := &mapBase{c: c, name: strings.Clone(class), prefix: strings.Clone(prefix), lead: prefix + ":", values: values}
	if _, err := c.Class(b.name); err != nil {
		return nil, err
	}
	if err := checkName("MapOptions.Prefix", b.prefix); err != nil {
		return nil, err
	}
	if b.prefix == "http" || b.prefix == "https" {
		return nil, &ConfigError{"MapOptions.Prefix", b.prefix, "not http or https: the keys of responses begin so"}
	}
	if b.values.codec == nil {
		b.values.codec = JSON
	}
	b.values.packs()
	return b, nil
}

// register checks the type of the values, and claims the prefix of the map.
func (b *mapBase) register(typ reflect.Type) error {
	if b.encodes() {
		if err := b.values.checkType(); err != nil {
			return err
		}
	}
	kind := fmt.Sprintf("%v of class %q, codec %T, clone %v, version %v, not found %v",
		typ, b.name, b.values.codec, b.values.clone != nil, b.values.version != nil, b.values.notFound.texts())
	return b.c.register(b.prefix, mapKind{b.name, kind})
}

// key returns the key of an id whose text is text.
func (b *mapBase) key(text string, err error) (string, error) {
	switch {
	case err != nil:
		return "", fmt.Errorf("larder: id of %s: %w", b.prefix, err)
	case text == "" || len(text) > MaxKeyBytes || naming.HasControl(text):
		return "", checkName("id of "+b.prefix, text)
	}
	return b.checked(b.lead + text)
}

// numbered returns the key of an id that is a number.
func (b *mapBase) numbered(text []byte) (string, error) { return b.checked(b.lead + string(text)) }

func (b *mapBase) checked(key string) (string, error) {
	if len(key) > MaxKeyBytes {
		return key, checkName("key", key)
	}
	return key, nil
}

// loader is a Loader and an id.
type loader interface {
	// load returns a boxed value.
	load(ctx context.Context) (value any, err error)
	// detached returns a loader that shares no buffer with the caller's id.
	detached() loader
}

// answer is a boxed value, or the error in its place: ErrNotFound for a value that is
// known not to exist.
type answer struct {
	value any
	err   error
}

// hit is a stored value in the memory of this process.
type hit struct {
	stored packed.Value // nil: answer has it
	answer answer
	entry  *local.Entry
	due    bool          // for a refresh
	waited time.Duration // for the shared tier
}

// open returns the answer of a hit.
func (s *snapshot) open(h *hit) answer {
	if h.stored == (packed.Value{}) {
		return h.answer
	}
	return answer{value: s.values.unpack(h.stored)}
}

// kept is stored where the map has a clone function, and otherwise a packed.Value, or the
// encoded bytes of what cannot be packed; see also absent and validated.
type kept struct {
	value any // boxed
	size  int // encoded
}

// get is Map.Get for a caller that has no types.
func (s *snapshot) get(ctx context.Context, key string, load loader) answer {
	if !s.c.Enabled() {
		return s.bypass(ctx, load)
	}
	h, ok := s.hit(ctx, key, nil)
	if !ok {
		return s.miss(ctx, key, load, nil, h.waited)
	}
	if h.due {
		s.refresh(ctx, h.entry, key, load)
	}
	return s.open(&h)
}

// bypass loads for the caller alone: the cache is closed or switched off.
func (s *snapshot) bypass(ctx context.Context, load loader) (a answer) {
	s.c.engine.Count.Bypassed.Add(1)
	return s.loadAlone(ctx, load)
}

func (s *snapshot) loadAlone(ctx context.Context, load loader) (a answer) {
	a.value, a.err = load.load(loadscope.With(ctx, s.scope(ctx)))
	return a
}

// hit answers from the memory of this process, and counts a hit or a miss.
func (s *snapshot) hit(ctx context.Context, key string, info *origin) (h hit, ok bool) {
	e := s.c.engine
	now := e.Now()
	en, state := e.LookupAt(key, now)
	if state < local.Stale {
		if h.waited = e.Awaken(ctx); h.waited > 0 {
			now = e.Now()
			en, state = e.LookupAt(key, now)
		}
	}
	if state < local.Stale {
		e.Count.Misses.Add(1)
		return h, false
	}
	if h.stored, ok = en.Value.(packed.Value); !ok { // a packed value is read without a box
		if h.answer, ok = s.read(en); !ok {
			e.Drop(key)
			e.Count.Misses.Add(1)
			return h, false
		}
	}
	if state == local.Fresh {
		e.Count.Hits.Add(1)
	} else {
		e.Count.StaleHits.Add(1)
	}
	h.entry, h.due = en, state == local.Stale || en.Early(now)
	info.set(FromProcess, en)
	return h, true
}

// miss answers from the shared tier, or by a load. The caller has waited for the tier for some time.
func (s *snapshot) miss(ctx context.Context, key string, load loader, info *origin, waited time.Duration) answer {
	e := s.c.engine
	outer := loadscope.From(ctx)
	outer.ReadsReplica(s.class.ReplicaLag) // stored values have waited for the replicas
	if outer.Within(e, key) {              // a loader that asks for its own value
		return s.beside(ctx, key, load)
	}
	turn, a := s.enter(ctx, key, load, info)
	if turn == nil {
		return a
	}
	turn.Spend(waited)
	if a, ok := s.lookAgain(turn, info); ok {
		return a
	}
	if a, ok := s.look(ctx, turn, load, info); ok { // for the budget at most
		return a
	}
	return s.serve(ctx, turn, load, info)
}

// enter waits for the turn to load a key. Without a turn, another load has given the answer.
func (s *snapshot) enter(ctx context.Context, key string, load loader, info *origin) (*coherence.Turn, answer) {
	e, tags := s.c.engine, []string{naming.Tag(key)}
	turn, out, err := e.Enter(ctx, key, tags, s.gate())
	outer := loadscope.From(ctx)
	outer.ReadsReplica(out.ReplicaLag)
	outer.Contains(out.Oldest)
	switch {
	case errors.Is(err, local.ErrCycle):
		return nil, s.beside(ctx, key, load)
	case err != nil:
		return nil, answer{err: err}
	case turn != nil:
		return turn, answer{}
	case out.Err != nil:
		info.waited(out)
		return nil, answer{err: out.Err}
	}
	if a, ok := s.read(out.Entry); ok {
		info.waited(out)
		return nil, a
	}
	return e.Alone(key, tags), answer{} // a value that does not decode is a miss
}

// serve loads in a turn. The load runs detached: its leader waits for it as the others do.
func (s *snapshot) serve(ctx context.Context, turn *coherence.Turn, load loader, info *origin) answer {
	e := s.c.engine
	result, detached, run := make(chan loaded, 1), load.detached(), new(waitgraph.Load)
	left := make(chan struct{})
	defer close(left)
	defer loadscope.From(ctx).Begins(run)()
	turn.Runs(run)
	lent, end := local.Lend(ctx)
	defer end()
	ok := e.Serve(lent, 2*s.class.LoadTimeout, left, []*coherence.Turn{turn}, func(ctx context.Context) {
		s.load(ctx, turn, nil, detached, result)
	})
	if !ok { // the cache is being closed
		turn.Finish(local.Outcome{Verdict: local.Failed})
		return s.loadAlone(ctx, load)
	}
	select {
	case r := <-result:
		if r.fallback {
			e.Count.StaleHits.Add(1)
		}
		info.loaded(r.from, r.entry, r.instead)
		return r.answer
	case <-ctx.Done():
		return answer{err: ctx.Err()}
	}
}

// maxBeside bounds how often a key is loaded beside its flight within one load: its
// loader asks for it over and over.
const maxBeside = 32

// beside loads within a load that others wait for, where to wait for them would be to
// wait for itself. The value is the caller's alone, and stored nowhere.
func (s *snapshot) beside(ctx context.Context, key string, load loader) (a answer) {
	sc, e := s.scope(ctx), s.c.engine
	if sc.Besides(e, key) >= maxBeside {
		return answer{err: fmt.Errorf("larder: the loader of %s asks for %s again, %d times within itself", s.prefix, key, maxBeside)}
	}
	sc.Beside = strings.Clone(key)
	run, cancel := context.WithTimeout(ctx, s.class.LoadTimeout)
	defer cancel()
	e.Count.Loads.Add(1)
	defer func() {
		if p := recover(); p != nil {
			e.Count.Panics.Add(1)
			a.err = &PanicError{Value: p, Stack: debug.Stack()}
		}
		if a.err != nil && !errors.Is(a.err, ErrNotFound) {
			e.Count.LoadErrors.Add(1)
		}
	}()
	a.value, a.err = load.load(loadscope.With(run, sc))
	sc.Outer.Inherit(sc.Said())
	if a.err != nil {
		return a
	}
	var fill local.Fill
	asHit, err := s.keep(&fill, a.value, "")
	if err != nil {
		s.notKept(err)
		return a
	}
	return answer{value: asHit}
}

// lookAgain reads the value that another load has stored between the first lookup and the turn.
func (s *snapshot) lookAgain(turn *coherence.Turn, info *origin) (a answer, ok bool) {
	read := false
	defer func() {
		if !read { // the codec or clone function panicked
			turn.Finish(local.Outcome{Verdict: local.Failed})
		}
	}()
	if en, state := s.c.engine.Lookup(turn.Key()); state == local.Fresh {
		if a, ok = s.read(en); ok {
			info.set(FromProcess, en)
			turn.Finish(local.Outcome{Verdict: local.Shared, Entry: en})
		}
	}
	read = true
	return a, ok
}

func (s *snapshot) gate() local.Gate {
	return local.Gate{MaxLoadsAfterError: s.class.MaxLoadsAfterError, Wait: s.class.LoadTimeout, ReplicaLag: s.class.ReplicaLag}
}

// loaded is the result of a load.
type loaded struct {
	answer

	fallback bool // the value stands in for an error
	cut      bool // the load's context had ended

	prior *local.Entry // what the loader was offered, nil: nothing

	// For Lookup.
	from    Source
	entry   *local.Entry
	instead error // the error that the value stands in for

	stored   bool // the value was stored
	storable bool // the value would be stored, if there had been time for the shared tier
}

// load runs the loader in a turn, stores its value and puts it into result, which has room
// for it.
//
// seen is the entry that a refresh is to replace, nil for a miss.
func (s *snapshot) load(ctx context.Context, turn *coherence.Turn, seen *local.Entry, load loader, result chan<- loaded) {
	e := s.c.engine
	sc := s.scope(ctx)
	p := &prior{s: s, turn: turn}
	if turn.Running() == nil {
		turn.Runs(new(waitgraph.Load))
		sc.Outer = nil // it goes on behind its caller
	}
	sc.Leads, sc.Prior, sc.Load = turn.Key(), p.offer, turn.Running()
	if seen != nil {
		sc.Outer = nil // no caller waits for a refresh
	}
	var r loaded
	finished := false
	defer func() {
		if !finished {
			// A panic of the loader, codec or clone function, or Goexit (then recover
			// returns nil). Nothing but this stands between it and the process.
			e.Count.Panics.Add(1)
			e.Count.LoadErrors.Add(1)
			r.err = &PanicError{Value: recover(), Stack: debug.Stack()}
			p.end()
			turn.Finish(local.Outcome{Verdict: local.Failed})
		}
		result <- r
	}()
	if s.fetch(ctx, sc, turn, seen, load, &r) {
		finished = true
		return
	}
	e.Count.Loads.Add(1)
	if seen != nil {
		e.Count.Refreshes.Add(1)
	}
	run, cancel := context.WithTimeout(ctx, s.class.LoadTimeout)
	defer cancel()
	r.value, r.err = load.load(loadscope.With(run, sc))
	sc.Outer.Inherit(sc.Said())
	r.cut, r.prior = run.Err() != nil, p.end()
	missed := turn.OverBudget()
	s.settle(ctx, turn, sc.Said(), &r)
	finished = true
	if missed && r.storable {
		s.later(ctx, nil, turn.Key(), load)
	}
}

// fetch answers from the shared tier, and finishes the turn, if it has the value.
func (s *snapshot) fetch(ctx context.Context, sc *loadscope.Scope, turn *coherence.Turn, seen *local.Entry, load loader, r *loaded) bool {
	q := s.query()
	if sc.Outer.Loading() != nil {
		q.Wait = local.InstanceWait(q.Wait)
	}
	q.Seen, q.Background = seen, seen != nil
	f := turn.Fetch(ctx, q)
	if f.Entry != nil && f.State >= local.Stale {
		if a, ok := s.accept(ctx, turn, f, load); ok {
			r.answer, r.from, r.entry = a, FromRemote, f.Entry
			return true
		}
		f = turn.Fetch(ctx, q) // for the lease to replace the entry, or a queued change
	}
	unstored := false
	if f.Queued != nil {
		change, said, ok := s.fromQueue(f.Queued)
		if ok {
			*r = change
			s.settle(ctx, turn, said, r)
			r.from = FromQueue
			return true
		}
		// The load gets the database's value, which is older than the change. Instances that
		// can decode the change must not find that value.
		unstored = true
		sc.SetNoStore()
	}
	switch {
	case f.Busy: // another instance refreshes it
	case turn.Behind() && (unstored || !turn.MayStore()): // the value would be of no use to any caller
	default:
		return false
	}
	turn.Finish(local.Outcome{Verdict: local.Failed})
	return true
}

// queuedValue returns the boxed value of a queued change, and its tags: ErrNotFound if it
// deletes the value.
func (b *mapBase) queuedValue(rec *tier.Queued) (box any, tags []string, err error) {
	r, ok := writebehind.DecodeRecord(rec.Payload)
	switch {
	case !ok:
		return nil, nil, writebehind.ErrMalformed
	case r.Deleted:
		return nil, nil, b.values.notFound.unnamed()
	}
	if box, err = b.values.decode(r.Data); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", writebehind.ErrMalformed, err)
	}
	return box, r.Tags, nil
}

// fromQueue returns a queued change as the result of a load. ok is false if it does not
// decode: then only the database can tell.
func (s *snapshot) fromQueue(rec *tier.Queued) (r loaded, said loadscope.Said, ok bool) {
	r.value, said.Tags, r.err = s.queuedValue(rec)
	if errors.Is(r.err, writebehind.ErrMalformed) {
		s.c.engine.Count.Undecodable.Add(1)
		return loaded{}, loadscope.Said{}, false
	}
	return r, said, true
}

func (s *snapshot) query() coherence.Query {
	return coherence.Query{Codec: mapCodec{t: &s.values}, Wait: s.class.LoadTimeout, Queue: true}
}

// look answers from the shared tier, without a load.
func (s *snapshot) look(ctx context.Context, turn *coherence.Turn, load loader, info *origin) (a answer, ok bool) {
	looked := false
	defer func() {
		if !looked { // the codec or clone function panicked
			turn.Finish(local.Outcome{Verdict: local.Failed})
		}
	}()
	q := s.query()
	q.Leads = true
	if f := turn.Look(ctx, q); f.Entry != nil && f.State >= local.Stale {
		if a, ok = s.accept(ctx, turn, f, load); ok {
			info.set(FromRemote, f.Entry)
		}
	}
	looked = true
	return a, ok
}

// accept answers with an entry of the shared tier, and finishes the turn, if the entry
// decodes.
func (s *snapshot) accept(ctx context.Context, turn *coherence.Turn, f coherence.Found, load loader) (answer, bool) {
	a, ok := s.read(f.Entry)
	if !ok { // it is replaced
		s.c.engine.Drop(turn.Key())
		turn.Refuse(f.Entry)
		return a, false
	}
	turn.Finish(local.Outcome{Verdict: local.Shared, Entry: f.Entry, Found: true})
	if f.State == local.Stale {
		s.refresh(ctx, f.Entry, turn.Key(), load)
	}
	return a, true
}

// settle stores the result of a loader, and finishes the turn with it.
func (s *snapshot) settle(ctx context.Context, turn *coherence.Turn, said loadscope.Said, r *loaded) {
	if st, ok := s.settlement(ctx, turn, said, r); ok {
		s.store(ctx, turn, &st, r)
		st.finish(turn)
	}
}

// settlement is what a turn stores and ends with.
type settlement struct {
	fill    local.Fill
	out     local.Outcome
	noStore bool // the value may not be stored
	unnamed bool // the value depends on more than the tags say
}

// settlement returns the settlement of the result of a loader. It reports false where the turn has
// ended: there is no value that can be kept.
func (s *snapshot) settlement(ctx context.Context, turn *coherence.Turn, said loadscope.Said, r *loaded) (st settlement, ok bool) {
	turn.ReadsReplica(said.ReplicaLag)
	turn.Contains(said.Oldest)
	fill := local.Fill{ReplicaLag: max(s.class.ReplicaLag, said.ReplicaLag), Codec: mapCodec{t: &s.values}}
	renewed := s.revalidate(turn.Key(), &fill, &said, r)
	fill.Tags = said.Tags
	out := local.Outcome{Verdict: local.Shared, Tags: said.Tags}
	switch {
	case r.err == nil:
		if !renewed && !s.prepare(ctx, turn, &fill, said.Validator, r) {
			return st, false
		}
		said.NoStore = said.NoStore || fill.Size > s.class.MaxEntryBytes
		fill.Lifetime = s.lifetime(said)
	case errors.Is(r.err, ErrNotFound):
		fill.Value, fill.Lifetime.Fresh = absent{s.values.notFound.of(r.err)}, s.class.NegativeTTL
		out.Err = r.err
	default:
		s.fail(turn, out, r)
		return st, false
	}
	return settlement{fill: fill, out: out, noStore: said.NoStore || fill.Lifetime.Fresh == 0, unnamed: said.Unnamed}, true
}

// finish finishes a turn.
func (st *settlement) finish(turn *coherence.Turn) {
	if st.unnamed { // a request that came later cannot be told from one that came in time
		st.out = local.Outcome{Verdict: local.Unshareable}
	}
	turn.Finish(st.out)
}

// prepare puts a loaded value into fill. It reports false where the turn has ended: the
// value cannot be kept, or is older than the cached one.
func (s *snapshot) prepare(ctx context.Context, turn *coherence.Turn, fill *local.Fill, validator string, r *loaded) bool {
	value, err := s.keep(fill, r.value, validator)
	if err != nil { // the value is the caller's alone
		s.notKept(err)
		s.forgetOlder(ctx, turn)
		turn.Finish(local.Outcome{Verdict: local.Unshareable})
		return false
	}
	r.value = value
	return !s.outdated(turn, r)
}

// store fills in a value, unless it may not be stored.
func (s *snapshot) store(ctx context.Context, turn *coherence.Turn, st *settlement, r *loaded) {
	if st.noStore {
		s.leaveUnstored(ctx, turn, st)
		return
	}
	en, refusal := turn.Fill(ctx, st.fill)
	st.stored(en, refusal, r)
}

// leaveUnstored makes an entry for the callers that wait. The value that it replaces is not
// answered any longer.
func (s *snapshot) leaveUnstored(ctx context.Context, turn *coherence.Turn, st *settlement) {
	s.forgetOlder(ctx, turn)
	st.out.Entry = local.Unstored(st.fill.Value)
}

// stored notes the result of a fill.
func (st *settlement) stored(en *local.Entry, refusal local.Refusal, r *loaded) {
	st.out.Entry = en
	switch refusal {
	case local.Stored:
		r.entry, r.stored = en, r.err == nil
	case local.Deferred:
		r.entry = en
	case local.NoLease:
		r.storable = true
	}
}

// fail ends a turn whose loader failed, with a stale value where the class allows one.
func (s *snapshot) fail(turn *coherence.Turn, out local.Outcome, r *loaded) {
	s.c.engine.Count.LoadErrors.Add(1)
	if en, a, ok := s.fallback(turn.Key()); ok {
		r.instead, r.from, r.entry = r.err, FromProcess, en
		r.answer, r.fallback, out.Entry = a, true, en
	} else if r.cut || errors.Is(r.err, context.Canceled) || errors.Is(r.err, context.DeadlineExceeded) {
		out.Verdict = local.Failed
	} else {
		out.Err = r.err
	}
	turn.Finish(out)
}

// forgetOlder removes the entry that a value that is not stored takes the place of.
func (s *snapshot) forgetOlder(ctx context.Context, turn *coherence.Turn) {
	if en, state := s.c.engine.Lookup(turn.Key()); state != local.Gone && state != local.Fresh {
		turn.ForgetEntry(ctx, turn.Key(), en)
	}
}

// encodes reports whether the value of a hit has been encoded.
func (b *mapBase) encodes() bool { return b.values.clone == nil || b.c.engine.Shares() }

// keep puts a value into fill in the form it is stored in, and returns it as a hit has it.
func (s *snapshot) keep(fill *local.Fill, value any, validator string) (asHit any, err error) {
	data, err := s.values.encode(value)
	if err != nil {
		return value, fmt.Errorf("larder: encode a value of %s: %w", s.prefix, err)
	}
	asHit = value
	if s.encodes() {
		if asHit, err = s.values.decode(data); err != nil {
			return value, fmt.Errorf("larder: a value of %s does not decode again: %w", s.prefix, err)
		}
	}
	own := asHit
	if s.values.clone != nil {
		own = s.values.clone(asHit)
	}
	stored, size := s.values.stored(own, data, s.c.engine.Shares())
	fill.Value, fill.Codec = withValidator(stored, validator), mapCodec{&s.values, data}
	fill.Size, fill.Memory = len(data)+len(validator), size+len(validator)
	return asHit, nil
}

// notKept counts a value that its codec cannot keep, and logs the first.
func (s *snapshot) notKept(err error) {
	s.c.engine.Count.Unencodable.Add(1)
	if _, logged := s.c.unencodable.LoadOrStore(s.prefix, true); !logged {
		s.c.opts.Logger.Error("larder: a value is answered and not stored", "map", s.prefix, "error", err)
	}
}

func (s *snapshot) lifetime(said loadscope.Said) local.Lifetime {
	ttl := local.Jittered(s.class.TTL, s.class.Jitter)
	if said.TTLSet {
		ttl = said.TTL
	}
	l := local.Lifetime{Fresh: ttl, Stale: s.class.StaleWhileRevalidate, Fallback: s.class.StaleIfError}
	if said.Validator != "" {
		l.Fallback = max(l.Fallback, keepForValidation)
	}
	return l
}

// read returns a stored value, decoded or cloned; ok is false if it does not decode.
func (b *mapBase) read(en *local.Entry) (a answer, ok bool) { return b.readValue(en.Value) }

func (b *mapBase) readValue(value any) (a answer, ok bool) {
	switch stored := value.(type) {
	case absent:
		return answer{err: stored.error()}, true
	case []byte:
		v, err := b.values.decode(stored)
		if err != nil {
			b.c.engine.Count.Undecodable.Add(1)
			return a, false
		}
		return answer{value: v}, true
	case packed.Value:
		return answer{value: b.values.unpack(stored)}, true
	case kept:
		if b.values.clone != nil {
			return answer{value: b.values.clone(stored.value)}, true
		}
	case validated:
		return b.readValue(stored.value)
	}
	return a, false
}

// fallback returns an entry that may stand in for an error, and its value.
func (s *snapshot) fallback(key string) (en *local.Entry, a answer, ok bool) {
	if s.class.StaleIfError == 0 {
		return nil, a, false
	}
	now := s.c.engine.Now()
	en, state := s.c.engine.LookupAt(key, now)
	if state == local.Gone || state == local.Fallback && now >= en.FreshUntil+int64(s.class.StaleIfError) {
		return nil, a, false
	}
	a, ok = s.read(en)
	return en, a, ok
}

// refresh loads a value in the background unless another load does already.
func (s *snapshot) refresh(ctx context.Context, seen *local.Entry, key string, load loader) {
	e := s.c.engine
	if e.Distant() {
		s.later(ctx, seen, key, load.detached())
		return
	}
	turn, ok := e.TryLead(key, []string{naming.Tag(key)}, s.gate())
	if !ok {
		return
	}
	load = load.detached()
	turn.Runs(new(waitgraph.Load))
	ok = e.Refresh(ctx, s.class.LoadTimeout, turn, func(ctx context.Context) {
		s.load(ctx, turn, seen, load, make(chan loaded, 1))
	})
	if !ok {
		turn.Finish(local.Outcome{Verdict: local.Failed})
	}
}

// later loads a value behind a response, as soon as the shared tier has given a lease for
// it.
func (s *snapshot) later(ctx context.Context, seen *local.Entry, key string, load loader) {
	s.c.engine.Later(ctx, key, []string{naming.Tag(key)}, s.gate(), 2*s.class.LoadTimeout, func(ctx context.Context, turn *coherence.Turn) {
		s.load(ctx, turn, seen, load, make(chan loaded, 1))
	})
}
