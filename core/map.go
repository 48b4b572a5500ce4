package core

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime/debug"
	"sync/atomic"

	"github.com/larderhq/larder/core/internal/engine"
	"github.com/larderhq/larder/core/internal/hot"
	"github.com/larderhq/larder/core/internal/scope"
)

// Loader loads the value of one id from where it really lives. Its context
// carries the caller's values, not its cancellation: the load may be for others
// as well, and ends at the class's LoadTimeout. An error that wraps ErrNotFound is
// remembered for the class's NegativeTTL.
type Loader[K comparable, V any] func(ctx context.Context, id K) (V, error)

// Map is a typed cache of values by id. The value of id 42 in a map with the
// prefix "user" has the key "user:42", which is also a tag: a page that shows
// the user carries it, and Invalidate and Put take the page with them.
//
// No caller can change what another one gets: each has a value of his own,
// decoded from the stored bytes or made by WithClone.
type Map[K comparable, V any] struct {
	c      *Cache
	class  Class
	prefix string
	id     func(K) (string, error)
	codec  Codec
	clone  func(V) V
	hot    atomic.Pointer[hot.Sketch[K]] // what KeepWarm learns; nil while it does not run
}

// NewMap makes a map of the class, which needs a TTL, whose keys begin with
// prefix and a colon. A prefix belongs to one type of map.
func NewMap[K comparable, V any](c *Cache, class, prefix string, opts ...MapOption) (*Map[K, V], error) {
	if c == nil {
		return nil, &ConfigError{"cache", nil, "a cache made by New"}
	}
	m := &Map[K, V]{c: c, prefix: prefix, codec: JSON}
	var err error
	if m.class, err = c.Class(class); err != nil {
		return nil, err
	}
	if m.class.TTL == 0 {
		return nil, &ConfigError{fmt.Sprintf("Classes[%q].TTL", class), "0s", "1ms or more: values of a map do not state their lifetime"}
	}
	if err := checkName("prefix", prefix); err != nil {
		return nil, err
	}
	if prefix == "http" || prefix == "https" {
		return nil, &ConfigError{"prefix", prefix, "not http or https: the keys of responses begin so"}
	}
	if m.id, err = idEncoder[K](); err != nil {
		return nil, err
	}
	for _, o := range opts {
		switch {
		case o.codec != nil:
			m.codec = o.codec
		case o.clone != nil:
			clone, ok := o.clone.(func(V) V)
			if !ok || clone == nil {
				return nil, &ConfigError{"WithClone", fmt.Sprintf("%T", o.clone), fmt.Sprintf("a non-nil %T", m.clone)}
			}
			m.clone = clone
		default:
			return nil, &ConfigError{"MapOption", "nil", "WithCodec or WithClone of something"}
		}
	}
	kind := fmt.Sprintf("%v of class %q, codec %T, clone %v", reflect.TypeFor[Map[K, V]](), class, m.codec, m.clone != nil)
	if err := c.register(prefix, kind); err != nil {
		return nil, err
	}
	return m, nil
}

// Key returns the key of id, for Key and Tag targets.
func (m *Map[K, V]) Key(id K) (string, error) {
	text, err := m.id(id)
	if err != nil {
		return "", fmt.Errorf("larder: id of %s: %w", m.prefix, err)
	}
	if err := checkName("id of "+m.prefix, text); err != nil {
		return "", err
	}
	key := m.prefix + ":" + text
	return key, checkName("key", key)
}

// absent is stored where the loader said ErrNotFound, kept where the map has a
// clone function, and the encoded bytes otherwise.
type (
	absent      struct{}
	kept[V any] struct{ v V }
)

// Get answers the value of id: from the cache, or from load, which runs once
// however many ask at the same time. They share its value or its error, but not
// its cancellation or panic: after one of these, or an error of another kind than
// a stale value can stand in for, see Class.StaleIfError and Class.MaxLoads.
//
// With the cache closed or switched off it calls load.
func (m *Map[K, V]) Get(ctx context.Context, id K, load Loader[K, V]) (V, error) {
	var zero V
	key, err := m.Key(id)
	if err != nil {
		return zero, err
	}
	if load == nil {
		return zero, &ConfigError{"load", nil, "a function"}
	}
	e := m.c.engine
	if !m.c.Enabled() {
		e.Count.Bypassed.Add(1)
		return load(scope.With(ctx, m.c.Scope()), id)
	}
	m.asked(key, id)
	now := e.Now()
	if en, state := e.LookupAt(key, now); state >= engine.Stale {
		if v, err, ok := m.read(en); ok {
			if state == engine.Fresh {
				e.Count.Hits.Add(1)
			} else {
				e.Count.StaleHits.Add(1)
			}
			if state == engine.Stale || en.Early(now) {
				m.refresh(ctx, en, key, id, load)
			}
			return v, err
		}
		e.Drop(key)
	}
	e.Count.Misses.Add(1)
	tags := []string{TagName(key)}
	if scope.From(ctx).Within(key) { // a loader that asks for its own value
		return load(ctx, id)
	}
	turn, out, err := e.Enter(ctx, key, tags, m.gate())
	switch {
	case err != nil:
		return zero, err
	case turn == nil && out.Err != nil:
		return zero, out.Err
	case turn == nil:
		if v, err, ok := m.read(out.Entry); ok {
			return v, err
		}
		turn = e.Alone(key, tags) // what does not decode is a miss
	}
	if v, err, ok := m.lookAgain(turn); ok {
		return v, err
	}
	// The tier is asked here, which takes its budget at most.
	if v, err, ok := m.look(ctx, turn, id, load); ok {
		return v, err
	}
	// The load runs detached. Its leader waits for it as the others do.
	result := make(chan loaded[V], 1)
	if !e.Spawn(ctx, 2*m.class.LoadTimeout, func(ctx context.Context) { m.load(ctx, turn, nil, id, load, result) }) {
		turn.Finish(engine.Outcome{Verdict: engine.Failed})
		return load(scope.With(ctx, m.c.Scope()), id)
	}
	select {
	case r := <-result:
		if r.spare {
			e.Count.StaleHits.Add(1)
		}
		return r.v, r.err
	case <-ctx.Done():
		return zero, ctx.Err()
	}
}

// lookAgain looks for what somebody filled in between the first look and the turn.
func (m *Map[K, V]) lookAgain(turn *engine.Turn) (v V, err error, ok bool) {
	read := false
	defer func() {
		if !read { // the codec or clone function panicked
			turn.Finish(engine.Outcome{Verdict: engine.Failed})
		}
	}()
	if en, state := m.c.engine.Lookup(turn.Key()); state == engine.Fresh {
		if v, err, ok = m.read(en); ok {
			turn.Finish(engine.Outcome{Verdict: engine.Shared, Entry: en})
		}
	}
	read = true
	return v, err, ok
}

func (m *Map[K, V]) gate() engine.Gate {
	return engine.Gate{MaxLoads: m.class.MaxLoads, Wait: m.class.LoadTimeout}
}

type loaded[V any] struct {
	v     V
	err   error
	spare bool // v stands in for an error

	stored bool // it was stored
}

// load runs the loader in a turn, stores what it returned and puts it into
// result, which has room for it.
//
// seen is the entry that a refresh is to replace, nil for a miss.
func (m *Map[K, V]) load(ctx context.Context, turn *engine.Turn, seen *engine.Entry, id K, load Loader[K, V], result chan<- loaded[V]) {
	e := m.c.engine
	sc := m.c.Scope()
	sc.Leads, sc.Outer = turn.Key(), scope.From(ctx)
	var r loaded[V]
	finished := false
	defer func() {
		if !finished {
			// A panic of the loader, codec or clone function, or Goexit (then recover
			// returns nil). Nothing but this stands between it and the process.
			e.Count.Panics.Add(1)
			e.Count.LoadErrors.Add(1)
			r.err = &PanicError{Value: recover(), Stack: debug.Stack()}
			turn.Finish(engine.Outcome{Verdict: engine.Failed})
		}
		result <- r
	}()
	if m.fetch(ctx, turn, seen, id, load, &r) {
		finished = true
		return
	}
	e.Count.Loads.Add(1)
	if seen != nil {
		e.Count.Refreshes.Add(1)
	}
	run, cancel := context.WithTimeout(ctx, m.class.LoadTimeout)
	defer cancel()
	r.v, r.err = load(scope.With(run, sc), id)
	m.settle(ctx, turn, sc.Said(), &r)
	finished = true
}

// fetch answers from the shared tier, and finishes the turn, if it has the value.
func (m *Map[K, V]) fetch(ctx context.Context, turn *engine.Turn, seen *engine.Entry, id K, load Loader[K, V], r *loaded[V]) bool {
	q := m.query()
	q.Seen, q.Background = seen, seen != nil
	f := turn.Fetch(ctx, q)
	if f.Busy { // another instance refreshes it
		turn.Finish(engine.Outcome{Verdict: engine.Failed})
		return true
	}
	if f.Entry == nil || f.State < engine.Stale {
		return false
	}
	v, err, ok := m.found(ctx, turn, f, id, load)
	if !ok {
		turn.Fetch(ctx, q)
		return false
	}
	r.v, r.err = v, err
	return true
}

func (m *Map[K, V]) query() engine.Query {
	return engine.Query{Codec: mapCodec[K, V]{m}, Wait: m.class.LoadTimeout}
}

// look answers from what the shared tier has.
func (m *Map[K, V]) look(ctx context.Context, turn *engine.Turn, id K, load Loader[K, V]) (v V, err error, ok bool) {
	looked := false
	defer func() {
		if !looked { // the codec or clone function panicked
			turn.Finish(engine.Outcome{Verdict: engine.Failed})
		}
	}()
	if f := turn.Look(ctx, m.query()); f.Entry != nil && f.State >= engine.Stale {
		v, err, ok = m.found(ctx, turn, f, id, load)
	}
	looked = true
	return v, err, ok
}

// found answers from what the shared tier has, and finishes the turn, if it
// decodes.
func (m *Map[K, V]) found(ctx context.Context, turn *engine.Turn, f engine.Found, id K, load Loader[K, V]) (v V, err error, ok bool) {
	v, err, ok = m.read(f.Entry)
	if !ok { // it is replaced
		m.c.engine.Drop(turn.Key())
		turn.Refuse(f.Entry)
		return v, err, false
	}
	turn.Finish(engine.Outcome{Verdict: engine.Shared, Entry: f.Entry})
	if f.State == engine.Stale {
		m.refresh(ctx, f.Entry, turn.Key(), id, load)
	}
	return v, err, true
}

// settle stores what a loader returned and tells those who wait for it.
func (m *Map[K, V]) settle(ctx context.Context, turn *engine.Turn, said scope.Said, r *loaded[V]) {
	e := m.c.engine
	out := engine.Outcome{Verdict: engine.Shared, Tags: said.Tags}
	fill := engine.Fill{Tags: said.Tags, ReplicaLag: m.class.ReplicaLag, Codec: mapCodec[K, V]{m}}
	switch {
	case r.err == nil:
		size, err := m.keep(&fill, r.v)
		switch {
		case err != nil: // what does not encode is the caller's alone
			turn.Finish(engine.Outcome{Verdict: engine.Unshareable})
			r.err = err
			return
		case size > m.class.MaxBytes:
			said.NoStore = true
		}
		fill.Lifetime = m.lifetime(said)
	case errors.Is(r.err, ErrNotFound):
		fill.Value, fill.Lifetime.Fresh = absent{}, m.class.NegativeTTL
		out.Err = r.err
	default:
		e.Count.LoadErrors.Add(1)
		if en, v, err, ok := m.spare(turn.Key()); ok {
			r.v, r.err, r.spare, out.Entry = v, err, true, en
		} else if errors.Is(r.err, context.Canceled) || errors.Is(r.err, context.DeadlineExceeded) {
			out.Verdict = engine.Failed
		} else {
			out.Err = r.err
		}
		turn.Finish(out)
		return
	}
	if said.NoStore || fill.Lifetime.Fresh == 0 {
		fill.Lifetime = engine.Lifetime{}
		// Made for those who wait, stored for nobody; and what it is instead of is
		// not answered any longer.
		out.Entry = engine.Loose(fill.Value)
		if en, state := e.Lookup(turn.Key()); state != engine.Gone && state != engine.Fresh {
			turn.ForgetEntry(ctx, turn.Key(), en)
		}
	} else {
		var refusal engine.Refusal
		out.Entry, refusal = turn.Fill(ctx, fill)
		r.stored = refusal == engine.Stored && r.err == nil
	}
	if said.Unnamed { // who came later cannot be told from who came in time
		out = engine.Outcome{Verdict: engine.Unshareable}
	}
	turn.Finish(out)
}

// keep puts v into fill in the form it is stored in.
func (m *Map[K, V]) keep(fill *engine.Fill, v V) (size int, err error) {
	data, err := m.codec.Marshal(v)
	if err != nil {
		return 0, fmt.Errorf("larder: encode a value of %s: %w", m.prefix, err)
	}
	fill.Value, fill.Size = data, len(data)
	if m.clone != nil {
		fill.Value = kept[V]{m.clone(v)}
	}
	return len(data), nil
}

func (m *Map[K, V]) lifetime(said scope.Said) engine.Lifetime {
	ttl := m.class.JitteredTTL()
	if said.TTLSet {
		ttl = said.TTL
	}
	return engine.Lifetime{Fresh: ttl, Stale: m.class.Stale, Spare: m.class.StaleIfError}
}

// read returns a stored value; ok is false if it does not decode.
func (m *Map[K, V]) read(en *engine.Entry) (v V, err error, ok bool) {
	switch stored := en.Value.(type) {
	case absent:
		return v, ErrNotFound, true
	case []byte:
		if m.codec.Unmarshal(stored, &v) == nil {
			return v, nil, true
		}
		m.c.engine.Count.Undecodable.Add(1)
		var zero V
		return zero, nil, false
	case kept[V]:
		if m.clone != nil {
			return m.clone(stored.v), nil, true
		}
	}
	return v, nil, false
}

// spare returns an entry that may stand in for an error, and its value.
func (m *Map[K, V]) spare(key string) (en *engine.Entry, v V, err error, ok bool) {
	if m.class.StaleIfError == 0 {
		return nil, v, nil, false
	}
	en, state := m.c.engine.Lookup(key)
	if state == engine.Gone {
		return nil, v, nil, false
	}
	v, err, ok = m.read(en)
	return en, v, err, ok
}

// refresh loads id in the background unless somebody does already.
func (m *Map[K, V]) refresh(ctx context.Context, seen *engine.Entry, key string, id K, load Loader[K, V]) {
	e := m.c.engine
	turn, ok := e.TryLead(key, []string{TagName(key)}, m.gate())
	if !ok {
		return
	}
	ok = e.Background(ctx, m.class.LoadTimeout, func(ctx context.Context) {
		m.load(ctx, turn, seen, id, load, make(chan loaded[V], 1))
	})
	if !ok {
		turn.Finish(engine.Outcome{Verdict: engine.Failed})
	}
}

// Invalidate forgets the values of ids and whatever carries their keys as tags.
func (m *Map[K, V]) Invalidate(ctx context.Context, ids ...K) error {
	targets := make([]Target, 0, 2*len(ids))
	for _, id := range ids {
		key, err := m.Key(id)
		if err != nil {
			return err
		}
		targets = append(targets, Key(key), Tag(key))
	}
	return m.c.Invalidate(ctx, targets...)
}
