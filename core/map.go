package core

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime/debug"
	"strings"
	"sync/atomic"

	"github.com/larderhq/larder/core/internal/coherence"
	"github.com/larderhq/larder/core/internal/hotkeys"
	"github.com/larderhq/larder/core/internal/loadscope"
	"github.com/larderhq/larder/core/internal/naming"
	"github.com/larderhq/larder/core/internal/waitgraph"
)

// Loader loads the value of one id from where it really lives. Its context
// carries the caller's values, not its cancellation: the load may be for others
// as well, and ends at the class's LoadTimeout. A context that may be recycled (a
// framework's own, such as *gin.Context or *fasthttp.RequestCtx, or a type that embeds no
// context.Context) is asked for values only until the caller's call returns: a load that
// goes on, or begins in the background, has none of them then. The context of the
// *http.Request has no such end. An error that wraps ErrNotFound is
// remembered for the class's NegativeTTL.
type Loader[K comparable, V any] func(ctx context.Context, id K) (V, error)

// Map is a typed cache of values by id. The value of id 42 in a map with the
// prefix "user" has the key "user:42", which is also a tag: a page that shows
// the user carries it, and Invalidate and Put take the page with them.
//
// No caller can change what another one gets: each has a value of his own,
// decoded from the stored bytes or made by MapOptions.Clone.
type Map[K comparable, V any] struct {
	c      *Cache
	name   string // of the class
	prefix string
	id     func(K) (string, error)
	own    func(K) K // returns a copy that shares no buffer with the caller's id
	codec  Codec
	clone  func(V) V
	hot    *atomic.Pointer[hotkeys.Sketch[K]] // what KeepWarm learns; it points to nil while that does not run

	version func(V) int64 // nil: values have none

	// A map for one operation has the class as it is at that revision. The caller's map
	// has none, but the latest of these.
	class    Class
	revision uint64
	latest   *atomic.Pointer[Map[K, V]]
}

// now returns the map for one operation, from its beginning to its end.
func (m *Map[K, V]) now() *Map[K, V] {
	if m.latest == nil { // it is one
		return m
	}
	revision := m.c.classRevision()
	if is := m.latest.Load(); is != nil && is.revision == revision {
		return is
	}
	is := *m
	is.latest, is.revision = nil, revision
	is.class, _ = m.c.Class(m.name) // none is ever taken out
	m.latest.Store(&is)
	return &is
}

// MapOptions configure a Map. Prefix is required.
type MapOptions[K comparable, V any] struct {
	// Class is the name of the map's class, which needs a TTL. Default "", the default
	// class.
	Class string
	// Prefix begins the keys of the map: the value of id 42 has the key "user:42" in a map
	// with the prefix "user". A prefix has 1 to 1024 bytes, belongs to one type of map, and
	// is neither "http" nor "https".
	Prefix string
	// Codec encodes the values. Default JSON.
	Codec Codec
	// Clone returns a deep copy of a value: it copies everything that a caller could
	// change. With Clone the map keeps values in process as they are, and each caller gets
	// a copy, which saves the decoding per hit. With a shared tier the kept value has been
	// through the codec once.
	Clone func(V) V
	// Version returns the version that the database gives to a value and that grows with
	// each change of the id: a row's version or a counter, not a time. Values of version 0
	// or less are not compared.
	//
	// An older value never takes the place of a newer one that is cached and may still be
	// answered. A load that reads an older value, from a replica that lags for example, is
	// answered with the cached one, which keeps its expiry. A Put or Write of an older value
	// stores nothing and invalidates as always; to find that out, it reads the cached value
	// first, which is one call more with a shared tier.
	//
	// Nothing is known of an id that is not cached: it may be invalidated, expired or
	// evicted. So callers still order their Puts, and "not found" has no version. Versions
	// that begin anew, because an id was deleted and created again, do no harm if the
	// deletion is announced; otherwise the former value stays until it expires. For the same
	// reason a version never makes a Write store a value that it would not store without:
	// of writes that overlap, none is stored.
	Version func(V) int64
}

// NewMap returns a map of the values of type V by ids of type K. It returns a *ConfigError
// for a field of o that is wrong.
//
// NewMap refuses a type of value of which JSON always loses a part (an unexported field,
// one that is tagged json:"-", a function, an interface with methods), and names the part,
// unless o has a Codec, or, without a shared tier, a Clone.
func NewMap[K comparable, V any](c *Cache, o MapOptions[K, V]) (*Map[K, V], error) {
	if c == nil {
		return nil, &ConfigError{"cache", nil, "a cache made by New"}
	}
	class, prefix := strings.Clone(o.Class), strings.Clone(o.Prefix)
	m := &Map[K, V]{
		c: c, name: class, prefix: prefix, own: ownerOf[K](), codec: o.Codec, clone: o.Clone, version: o.Version,
		hot: new(atomic.Pointer[hotkeys.Sketch[K]]), latest: new(atomic.Pointer[Map[K, V]]),
	}
	_, err := c.Class(class)
	if err != nil {
		return nil, err
	}
	if err := checkName("MapOptions.Prefix", prefix); err != nil {
		return nil, err
	}
	if prefix == "http" || prefix == "https" {
		return nil, &ConfigError{"MapOptions.Prefix", prefix, "not http or https: the keys of responses begin so"}
	}
	if m.id, err = idEncoder[K](); err != nil {
		return nil, err
	}
	if m.codec == nil {
		m.codec = JSON
	}
	if m.encodes() {
		if err := m.checkType(); err != nil {
			return nil, err
		}
	}
	kind := fmt.Sprintf("%v of class %q, codec %T, clone %v, version %v", reflect.TypeFor[Map[K, V]](), class, m.codec, m.clone != nil, m.version != nil)
	if err := c.register(prefix, mapKind{class, kind}); err != nil {
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
// clone function, and the encoded bytes otherwise; see also validated.
type (
	absent      struct{}
	kept[V any] struct {
		v    V
		size int // encoded
	}
)

// Get answers the value of id: from the cache, or from load, which runs once
// however many ask at the same time. They share its value or its error, but not
// its cancellation or panic: after one of these, or an error of another kind than
// a stale value can stand in for, see Class.StaleIfError and Class.MaxLoadsAfterError.
//
// What a miss answers is what a hit will: the value has been encoded and decoded. One
// that cannot be (NaN in JSON) is answered as load returned it, and stored nowhere: the
// log tells of the first, and Stats.Unencodable counts.
//
// Loads may ask for other values of the same map, or of other caches. One that would wait
// for a load that waits for it, be it by way of others, loads beside it: for its caller
// alone. Where the other one runs in another instance, that is so after two seconds, or a
// quarter of the LoadTimeout.
//
// With the cache closed or switched off it calls load.
func (m *Map[K, V]) Get(ctx context.Context, id K, load Loader[K, V]) (V, error) {
	return m.get(ctx, id, load, nil)
}

// get is Get. It writes down where the value comes from if info is not nil.
func (m *Map[K, V]) get(ctx context.Context, id K, load Loader[K, V], info *origin) (V, error) {
	m = m.now()
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
		return load(loadscope.With(ctx, m.scope(ctx)), id)
	}
	m.asked(key, id)
	now := e.Now()
	if en, state := e.LookupAt(key, now); state >= coherence.Stale {
		if v, err, ok := m.read(en); ok {
			if state == coherence.Fresh {
				e.Count.Hits.Add(1)
			} else {
				e.Count.StaleHits.Add(1)
			}
			if state == coherence.Stale || en.Early(now) {
				m.refresh(ctx, en, key, id, load)
			}
			info.set(FromProcess, en)
			return v, err
		}
		e.Drop(key)
	}
	e.Count.Misses.Add(1)
	tags := []string{naming.Tag(key)}
	outer := loadscope.From(ctx)
	outer.Reads(m.class.ReplicaLag) // what is stored, and hit, has waited for the replicas
	if outer.Within(e, key) {       // a loader that asks for its own value
		return m.beside(ctx, key, id, load)
	}
	turn, out, err := e.Enter(ctx, key, tags, m.gate())
	outer.Reads(out.ReplicaLag)
	switch {
	case errors.Is(err, coherence.ErrCircle):
		return m.beside(ctx, key, id, load)
	case err != nil:
		return zero, err
	case turn == nil && out.Err != nil:
		info.waited(out)
		return zero, out.Err
	case turn == nil:
		if v, err, ok := m.read(out.Entry); ok {
			info.waited(out)
			return v, err
		}
		turn = e.Alone(key, tags) // what does not decode is a miss
	}
	if v, err, ok := m.lookAgain(turn, info); ok {
		return v, err
	}
	// The tier is asked here, which takes its budget at most.
	if v, err, ok := m.look(ctx, turn, id, load, info); ok {
		return v, err
	}
	// The load runs detached. Its leader waits for it as the others do.
	result, own, run := make(chan loaded[V], 1), m.own(id), new(waitgraph.Load)
	left := make(chan struct{})
	defer close(left)
	defer outer.Begins(run)()
	turn.Runs(run)
	lent, end := coherence.Lend(ctx)
	defer end()
	if !e.Serve(lent, 2*m.class.LoadTimeout, left, []*coherence.Turn{turn}, func(ctx context.Context) { m.load(ctx, turn, nil, own, load, result) }) {
		turn.Finish(coherence.Outcome{Verdict: coherence.Failed})
		return load(loadscope.With(ctx, m.scope(ctx)), id)
	}
	select {
	case r := <-result:
		if r.spare {
			e.Count.StaleHits.Add(1)
		}
		info.loaded(r.from, r.entry, r.instead)
		return r.v, r.err
	case <-ctx.Done():
		return zero, ctx.Err()
	}
}

// maxBeside bounds how often a key is loaded beside its flight within one load: its
// loader asks for it over and over.
const maxBeside = 32

// beside loads within a load that others wait for, where to wait for them would be to
// wait for itself. What comes of it is the caller's alone, and stored nowhere.
func (m *Map[K, V]) beside(ctx context.Context, key string, id K, load Loader[K, V]) (v V, err error) {
	sc, e := m.scope(ctx), m.c.engine
	if sc.Besides(e, key) >= maxBeside {
		return v, fmt.Errorf("larder: the loader of %s asks for %s again, %d times within itself", m.prefix, key, maxBeside)
	}
	sc.Beside = strings.Clone(key)
	run, cancel := context.WithTimeout(ctx, m.class.LoadTimeout)
	defer cancel()
	e.Count.Loads.Add(1)
	defer func() {
		if p := recover(); p != nil {
			e.Count.Panics.Add(1)
			err = &PanicError{Value: p, Stack: debug.Stack()}
		}
		if err != nil && !errors.Is(err, ErrNotFound) {
			e.Count.LoadErrors.Add(1)
		}
	}()
	v, err = load(loadscope.With(run, sc), id)
	sc.Outer.Reads(sc.Said().ReplicaLag)
	if err != nil {
		return v, err
	}
	var fill coherence.Fill
	asHit, err := m.keep(&fill, v, "")
	if err != nil {
		m.notKept(err)
		return v, nil
	}
	return asHit, nil
}

// lookAgain looks for what somebody filled in between the first look and the turn.
func (m *Map[K, V]) lookAgain(turn *coherence.Turn, info *origin) (v V, err error, ok bool) {
	read := false
	defer func() {
		if !read { // the codec or clone function panicked
			turn.Finish(coherence.Outcome{Verdict: coherence.Failed})
		}
	}()
	if en, state := m.c.engine.Lookup(turn.Key()); state == coherence.Fresh {
		if v, err, ok = m.read(en); ok {
			info.set(FromProcess, en)
			turn.Finish(coherence.Outcome{Verdict: coherence.Shared, Entry: en})
		}
	}
	read = true
	return v, err, ok
}

func (m *Map[K, V]) gate() coherence.Gate {
	return coherence.Gate{MaxLoadsAfterError: m.class.MaxLoadsAfterError, Wait: m.class.LoadTimeout, ReplicaLag: m.class.ReplicaLag}
}

type loaded[V any] struct {
	v     V
	err   error
	spare bool // v stands in for an error
	cut   bool // the load's context had ended

	prior *coherence.Entry // what the loader was offered, nil: nothing

	// For Lookup.
	from    Source
	entry   *coherence.Entry
	instead error // the error that v stands in for

	stored   bool // it was stored
	storable bool // it would be, if there had been time for the shared tier
}

// load runs the loader in a turn, stores what it returned and puts it into
// result, which has room for it.
//
// seen is the entry that a refresh is to replace, nil for a miss.
func (m *Map[K, V]) load(ctx context.Context, turn *coherence.Turn, seen *coherence.Entry, id K, load Loader[K, V], result chan<- loaded[V]) {
	e := m.c.engine
	sc := m.scope(ctx)
	p := &prior[K, V]{m: m, turn: turn}
	if turn.Running() == nil {
		turn.Runs(new(waitgraph.Load))
		sc.Outer = nil // it goes on behind its caller
	}
	sc.Leads, sc.Prior, sc.Load = turn.Key(), p.offer, turn.Running()
	if seen != nil {
		sc.Outer = nil // nobody waits for a refresh
	}
	var r loaded[V]
	finished := false
	defer func() {
		if !finished {
			// A panic of the loader, codec or clone function, or Goexit (then recover
			// returns nil). Nothing but this stands between it and the process.
			e.Count.Panics.Add(1)
			e.Count.LoadErrors.Add(1)
			r.err = &PanicError{Value: recover(), Stack: debug.Stack()}
			p.end()
			turn.Finish(coherence.Outcome{Verdict: coherence.Failed})
		}
		result <- r
	}()
	if m.fetch(ctx, sc, turn, seen, id, load, &r) {
		finished = true
		return
	}
	e.Count.Loads.Add(1)
	if seen != nil {
		e.Count.Refreshes.Add(1)
	}
	run, cancel := context.WithTimeout(ctx, m.class.LoadTimeout)
	defer cancel()
	r.v, r.err = load(loadscope.With(run, sc), id)
	sc.Outer.Reads(sc.Said().ReplicaLag)
	r.cut, r.prior = run.Err() != nil, p.end()
	missed := turn.Missed()
	m.settle(ctx, turn, sc.Said(), &r)
	finished = true
	if missed && r.storable {
		m.later(ctx, nil, turn.Key(), id, load)
	}
}

// fetch answers from the shared tier, and finishes the turn, if it has the value.
func (m *Map[K, V]) fetch(ctx context.Context, sc *loadscope.Scope, turn *coherence.Turn, seen *coherence.Entry, id K, load Loader[K, V], r *loaded[V]) bool {
	q := m.query()
	if sc.Outer.Loading() != nil {
		q.Wait = coherence.Abroad(q.Wait)
	}
	q.Seen, q.Background = seen, seen != nil
	f := turn.Fetch(ctx, q)
	if f.Queued != nil {
		queued, said, ok := m.fromQueue(f.Queued)
		if ok {
			*r = queued
			m.settle(ctx, turn, said, r)
			r.from = FromQueue
		}
		return ok
	}
	if f.Busy { // another instance refreshes it
		turn.Finish(coherence.Outcome{Verdict: coherence.Failed})
		return true
	}
	if f.Entry != nil && f.State >= coherence.Stale {
		v, err, ok := m.found(ctx, turn, f, id, load)
		if ok {
			r.v, r.err, r.from, r.entry = v, err, FromRemote, f.Entry
			return true
		}
		turn.Fetch(ctx, q)
	}
	if turn.Behind() && !turn.MayStore() { // it would be of no use to anybody
		turn.Finish(coherence.Outcome{Verdict: coherence.Failed})
		return true
	}
	return false
}

func (m *Map[K, V]) query() coherence.Query {
	return coherence.Query{Codec: mapCodec[K, V]{m}, Wait: m.class.LoadTimeout, Queue: true}
}

// look answers from what the shared tier has.
func (m *Map[K, V]) look(ctx context.Context, turn *coherence.Turn, id K, load Loader[K, V], info *origin) (v V, err error, ok bool) {
	looked := false
	defer func() {
		if !looked { // the codec or clone function panicked
			turn.Finish(coherence.Outcome{Verdict: coherence.Failed})
		}
	}()
	q := m.query()
	q.Leads = true
	if f := turn.Look(ctx, q); f.Entry != nil && f.State >= coherence.Stale {
		if v, err, ok = m.found(ctx, turn, f, id, load); ok {
			info.set(FromRemote, f.Entry)
		}
	}
	looked = true
	return v, err, ok
}

// found answers from what the shared tier has, and finishes the turn, if it
// decodes.
func (m *Map[K, V]) found(ctx context.Context, turn *coherence.Turn, f coherence.Found, id K, load Loader[K, V]) (v V, err error, ok bool) {
	v, err, ok = m.read(f.Entry)
	if !ok { // it is replaced
		m.c.engine.Drop(turn.Key())
		turn.Refuse(f.Entry)
		return v, err, false
	}
	turn.Finish(coherence.Outcome{Verdict: coherence.Shared, Entry: f.Entry, Found: true})
	if f.State == coherence.Stale {
		m.refresh(ctx, f.Entry, turn.Key(), id, load)
	}
	return v, err, true
}

// settle stores what a loader returned and tells those who wait for it.
func (m *Map[K, V]) settle(ctx context.Context, turn *coherence.Turn, said loadscope.Said, r *loaded[V]) {
	e := m.c.engine
	turn.Reads(said.ReplicaLag)
	fill := coherence.Fill{ReplicaLag: max(m.class.ReplicaLag, said.ReplicaLag), Codec: mapCodec[K, V]{m}}
	renewed := m.renew(&fill, &said, r)
	fill.Tags = said.Tags
	out := coherence.Outcome{Verdict: coherence.Shared, Tags: said.Tags}
	switch {
	case r.err == nil:
		if !renewed {
			v, err := m.keep(&fill, r.v, said.Validator)
			if err != nil { // what cannot be kept is the caller's alone
				m.notKept(err)
				m.forgetOlder(ctx, turn)
				turn.Finish(coherence.Outcome{Verdict: coherence.Unshareable})
				return
			}
			r.v = v
			if m.outdated(turn, r) {
				return
			}
		}
		said.NoStore = said.NoStore || fill.Size > m.class.MaxEntryBytes
		fill.Lifetime = m.lifetime(said)
	case errors.Is(r.err, ErrNotFound):
		fill.Value, fill.Lifetime.Fresh = absent{}, m.class.NegativeTTL
		out.Err = r.err
	default:
		e.Count.LoadErrors.Add(1)
		if en, v, err, ok := m.spare(turn.Key()); ok {
			r.instead, r.from, r.entry = r.err, FromProcess, en
			r.v, r.err, r.spare, out.Entry = v, err, true, en
		} else if r.cut || errors.Is(r.err, context.Canceled) || errors.Is(r.err, context.DeadlineExceeded) {
			out.Verdict = coherence.Failed
		} else {
			out.Err = r.err
		}
		turn.Finish(out)
		return
	}
	if said.NoStore || fill.Lifetime.Fresh == 0 {
		fill.Lifetime = coherence.Lifetime{}
		// Made for those who wait, stored for nobody; and what it is instead of is
		// not answered any longer.
		out.Entry = coherence.Loose(fill.Value)
		m.forgetOlder(ctx, turn)
	} else {
		var refusal coherence.Refusal
		out.Entry, refusal = turn.Fill(ctx, fill)
		switch refusal {
		case coherence.Stored:
			r.entry, r.stored = out.Entry, r.err == nil
		case coherence.Deferred:
			r.entry = out.Entry
		case coherence.NoLease:
			r.storable = true
		}
	}
	if said.Unnamed { // who came later cannot be told from who came in time
		out = coherence.Outcome{Verdict: coherence.Unshareable}
	}
	turn.Finish(out)
}

// forgetOlder takes out what a value that is not stored takes the place of.
func (m *Map[K, V]) forgetOlder(ctx context.Context, turn *coherence.Turn) {
	if en, state := m.c.engine.Lookup(turn.Key()); state != coherence.Gone && state != coherence.Fresh {
		turn.ForgetEntry(ctx, turn.Key(), en)
	}
}

// encodes reports whether what a hit answers has been encoded.
func (m *Map[K, V]) encodes() bool { return m.clone == nil || m.c.engine.Shares() }

// checkType returns a *ConfigError if the map's codec is JSON and loses a part of V.
func (m *Map[K, V]) checkType() error {
	if _, ok := m.codec.(jsonCodec); !ok {
		return nil // it is for the caller's own to know
	}
	return checkJSON(reflect.TypeFor[V]())
}

// marshal encodes v. The result is nobody else's.
func (m *Map[K, V]) marshal(v V) ([]byte, error) {
	if _, ok := m.codec.(jsonCodec); ok {
		return m.codec.Marshal(&v) // so that methods of pointers count
	}
	data, err := m.codec.Marshal(v)
	return bytes.Clone(data), err // it may be v's own, or a buffer that the codec reuses
}

// keep puts v into fill in the form it is stored in, and returns it as a hit has it.
func (m *Map[K, V]) keep(fill *coherence.Fill, v V, validator string) (asHit V, err error) {
	data, err := m.marshal(v)
	if err != nil {
		return v, fmt.Errorf("larder: encode a value of %s: %w", m.prefix, err)
	}
	asHit = v
	if m.encodes() {
		var decoded V
		if err := m.codec.Unmarshal(data, &decoded); err != nil {
			return v, fmt.Errorf("larder: a value of %s does not decode again: %w", m.prefix, err)
		}
		asHit = decoded
	}
	if fill.Value = data; m.clone != nil {
		fill.Value = kept[V]{m.clone(asHit), len(data)}
	}
	fill.Value, fill.Size = withValidator(fill.Value, validator), len(data)+len(validator)
	return asHit, nil
}

// notKept counts a value that its codec cannot keep, and tells of the first.
func (m *Map[K, V]) notKept(err error) {
	m.c.engine.Count.Unencodable.Add(1)
	if _, told := m.c.told.LoadOrStore(m.prefix, true); !told {
		m.c.opts.Logger.Error("larder: a value is answered and not stored", "map", m.prefix, "error", err)
	}
}

func (m *Map[K, V]) lifetime(said loadscope.Said) coherence.Lifetime {
	ttl := coherence.Jittered(m.class.TTL, m.class.Jitter)
	if said.TTLSet {
		ttl = said.TTL
	}
	l := coherence.Lifetime{Fresh: ttl, Stale: m.class.StaleWhileRevalidate, Spare: m.class.StaleIfError}
	if said.Validator != "" {
		l.Spare = max(l.Spare, keepForValidation)
	}
	return l
}

// read returns a stored value; ok is false if it does not decode.
func (m *Map[K, V]) read(en *coherence.Entry) (v V, err error, ok bool) {
	return m.readValue(en.Value)
}

func (m *Map[K, V]) readValue(value any) (v V, err error, ok bool) {
	switch stored := value.(type) {
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
	case validated:
		return m.readValue(stored.value)
	}
	return v, nil, false
}

// spare returns an entry that may stand in for an error, and its value.
func (m *Map[K, V]) spare(key string) (en *coherence.Entry, v V, err error, ok bool) {
	if m.class.StaleIfError == 0 {
		return nil, v, nil, false
	}
	now := m.c.engine.Now()
	en, state := m.c.engine.LookupAt(key, now)
	if state == coherence.Gone || state == coherence.Spare && now >= en.FreshUntil+int64(m.class.StaleIfError) {
		return nil, v, nil, false
	}
	v, err, ok = m.read(en)
	return en, v, err, ok
}

// refresh loads id in the background unless somebody does already.
func (m *Map[K, V]) refresh(ctx context.Context, seen *coherence.Entry, key string, id K, load Loader[K, V]) {
	e := m.c.engine
	if e.Thrifty() {
		m.later(ctx, seen, key, m.own(id), load)
		return
	}
	turn, ok := e.TryLead(key, []string{naming.Tag(key)}, m.gate())
	if !ok {
		return
	}
	id = m.own(id)
	turn.Runs(new(waitgraph.Load))
	ok = e.Refresh(ctx, m.class.LoadTimeout, turn, func(ctx context.Context) {
		m.load(ctx, turn, seen, id, load, make(chan loaded[V], 1))
	})
	if !ok {
		turn.Finish(coherence.Outcome{Verdict: coherence.Failed})
	}
}

// later loads id behind a response, as soon as the shared tier has given a lease for it.
func (m *Map[K, V]) later(ctx context.Context, seen *coherence.Entry, key string, id K, load Loader[K, V]) {
	m.c.engine.Later(ctx, key, []string{naming.Tag(key)}, m.gate(), 2*m.class.LoadTimeout, func(ctx context.Context, turn *coherence.Turn) {
		m.load(ctx, turn, seen, id, load, make(chan loaded[V], 1))
	})
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

// InvalidateAll forgets the values of all ids. What carries their keys as tags stays.
// It is a Sweep of the map's prefix, with a Sweep's cost and result. A tag that the
// loader gives to every value (AddTags) is invalidated in O(1) instead, and reaches
// pages too.
func (m *Map[K, V]) InvalidateAll(ctx context.Context) (SweepResult, error) {
	return m.c.Sweep(ctx, Prefix(m.prefix+":"))
}
