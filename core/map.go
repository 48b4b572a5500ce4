package core

import (
	"context"
	"reflect"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/larderhq/larder/core/internal/hotkeys"
	"github.com/larderhq/larder/core/internal/loadscope"
	"github.com/larderhq/larder/core/internal/local"
	"github.com/larderhq/larder/core/internal/packed"
)

// Loader loads the value of one id from the database.
//
// Its context carries the caller's values, but not its cancellation, since other callers
// may wait for the load as well: it ends at the class's LoadTimeout. A context that may be
// recycled (a framework's own, such as *gin.Context or *fasthttp.RequestCtx, or a type that
// embeds no context.Context) is asked for values only until the caller's call returns: a
// load that goes on, or begins in the background, has none of them then. The context of an
// *http.Request has no such end.
//
// An error that wraps [ErrNotFound], or an error of MapOptions.NotFound, is remembered for the
// class's NegativeTTL. Of a value
// that comes with an error only the loader's own caller can see anything.
type Loader[K comparable, V any] func(ctx context.Context, id K) (V, error)

// Map is a typed cache of values by id. The value of id 42 in a map with the
// prefix "user" has the key "user:42", which is also a tag: a page that shows
// the user carries it, and [Map.Invalidate] and [Map.Put] invalidate the page with it.
//
// Each caller gets its own copy of a value, equal to what the stored bytes decode to or made
// by MapOptions.Clone, so that no caller can change the value of another. The strings of such
// a copy are parts of one block of memory, which stays as long as one of them is in use. All
// methods are safe for concurrent use. Make one with [NewMap].
type Map[K comparable, V any] struct {
	base *mapBase
	kind idKind
	id   func(K) (string, error)
	own  func(K) K                          // returns a copy that shares no buffer with the caller's id
	hot  *atomic.Pointer[hotkeys.Sketch[K]] // of KeepWarm; it points to nil while that does not run
}

// MapOptions configure a [Map]. Prefix is required.
type MapOptions[K comparable, V any] struct {
	// Class is the name of the map's class, which needs a TTL. Default "", the default
	// class.
	Class string
	// Prefix begins the keys of the map: the value of id 42 has the key "user:42" in a map
	// with the prefix "user". A prefix has 1 to 1024 bytes, belongs to one type of map, and
	// is neither "http" nor "https".
	Prefix string
	// Codec encodes the values. Default [JSON].
	Codec Codec
	// Clone returns a deep copy of a value: it copies everything that a caller could
	// change. With Clone the map keeps values in process as they are, and each caller gets
	// a copy. With a shared tier the kept value has been through the codec once. Default nil:
	// values that JSON has decoded are kept in a compact form, from which a hit makes a copy
	// without decoding; each hit decodes with another Codec, and for a V that holds an
	// interface with methods, or a type that decodes itself (UnmarshalJSON, UnmarshalText) and
	// holds more than numbers and strings, other than time.Time.
	Clone func(V) V
	// Version returns the version that the database gives to a value and that grows with
	// each change of the id: a row's version or a counter, not a time. Values of version 0
	// or less are not compared. Default nil: no value is compared.
	//
	// An older value never takes the place of a newer one that is cached and may still be
	// answered. A load that reads an older value, from a replica that lags for example, is
	// answered with the cached one, which keeps its expiry. A Put or Write of an older value
	// stores nothing and invalidates as always; to find that out, it reads the cached value
	// first, which is one call more with a shared tier.
	//
	// Nothing is known of an id that is not cached: it may be invalidated, expired or
	// evicted. So callers still order their Puts, and "not found" has no version. Versions
	// that restart, because an id was deleted and created again, do no harm if the
	// deletion is announced; otherwise the former value stays until it expires. For the same
	// reason a version never makes a Write store a value that it would not store without:
	// of writes that overlap, none is stored.
	Version func(V) int64
	// NotFound are the errors of loaders that mean, as [ErrNotFound] does, that an id does not
	// exist: []error{sql.ErrNoRows}. They may be wrapped. Such an error is remembered for the
	// class's NegativeTTL, and errors.Is finds it, and ErrNotFound, whether it comes from the
	// loader or from the cache. The cache keeps which listed error it is, not what wraps it.
	// The first one also stands for an id that the result of a [ManyLoader] lacks, and that a
	// write-behind queue has deleted. An error of a ManyLoader counts for the ids in its
	// [BatchError]; as the error of a whole batch it is an error like any other. Default nil:
	// ErrNotFound alone.
	NotFound []error
}

// NewMap returns a map of the values of type V by ids of type K. Its error is a
// *[ConfigError] that names the field of o that is wrong. A second map with the prefix, types
// and options of another one shares its values.
//
// K is a string, integer or bool type, or implements encoding.TextMarshaler. NewMap refuses
// a V of which JSON always loses a part (an unexported field, one that is tagged json:"-", a
// function, an interface with methods), and names the part, unless o has a Codec, or, without
// a shared tier, a Clone.
func NewMap[K comparable, V any](c *Cache, o MapOptions[K, V]) (*Map[K, V], error) {
	values := valueTypeOf(o.Codec, o.Clone, o.Version)
	var err error
	if values.notFound, err = notFoundsOf(o.NotFound); err != nil {
		return nil, err
	}
	base, err := newMapBase(c, o.Class, o.Prefix, values)
	if err != nil {
		return nil, err
	}
	id, err := idEncoder[K]()
	if err != nil {
		return nil, err
	}
	if err := base.register(reflect.TypeFor[Map[K, V]]()); err != nil {
		return nil, err
	}
	return &Map[K, V]{base, idKindOf[K](), id, ownerOf[K](), new(atomic.Pointer[hotkeys.Sketch[K]])}, nil
}

// Key returns the key of id, for [Key] and [Tag] targets. Its error is that of the id's
// MarshalText, or a *[ConfigError] for an id without text, with control characters, or of
// more than [MaxKeyBytes] together with the prefix.
func (m *Map[K, V]) Key(id K) (string, error) {
	var text [20]byte
	switch m.kind {
	case signed:
		return m.base.numbered(strconv.AppendInt(text[:0], reflect.ValueOf(id).Int(), 10))
	case unsigned:
		return m.base.numbered(strconv.AppendUint(text[:0], reflect.ValueOf(id).Uint(), 10))
	}
	return m.base.key(m.id(id))
}

// Get returns the value of id: from the cache, or from load, which runs once however many
// callers ask concurrently. They share its value or its error, but not its cancellation or
// panic: after one of these, the next caller loads, and up to Class.MaxLoadsAfterError
// callers do so concurrently. A stale value stands in for an error within
// Class.StaleIfError.
//
// The errors are: that of load; [ErrNotFound] while "not found" is remembered; a
// *[ConfigError] for a nil load or an id that is no valid key; the error of ctx, if it ends
// first; [ErrBusy] after a wait of twice Class.LoadTimeout for other loads; and a
// *[PanicError]. The value that comes with an error is V's zero value, or what this call's
// own load returned with it.
//
// A miss answers the same value as a later hit: it has been encoded and decoded. A value
// that does not encode (NaN in JSON) is answered as load returned it, and not stored: the
// first is logged, and Stats.Unencodable counts all.
//
// Loads may get other values of the same map, or of other caches. A load that would wait
// for a load that waits for it, directly or through others, loads beside it, for its caller
// alone. Where the other load runs in another instance, that happens after two seconds, or a
// quarter of the LoadTimeout.
//
// With the cache closed or switched off Get calls load.
func (m *Map[K, V]) Get(ctx context.Context, id K, load Loader[K, V]) (V, error) {
	return m.get(ctx, id, load, nil)
}

// get is Get. It notes where the value comes from if info is not nil.
func (m *Map[K, V]) get(ctx context.Context, id K, load Loader[K, V], info *origin) (v V, err error) {
	key, err := m.Key(id)
	if err != nil {
		return v, err
	}
	if load == nil {
		return v, &ConfigError{"load", nil, "a function"}
	}
	s := m.base.snapshot()
	if !s.c.Enabled() {
		s.c.engine.Count.Bypassed.Add(1)
		v, err = load(loadscope.With(ctx, s.scope(ctx)), id)
		return v, s.values.notFound.error(err)
	}
	m.sample(key, id)
	h, ok := s.hit(ctx, key, info)
	if !ok {
		h.answer = s.miss(ctx, key, &call[K, V]{m, id, load}, info, h.waited)
	} else if h.due {
		s.refresh(ctx, h.entry, key, &call[K, V]{m, id, load})
	}
	if h.stored != (packed.Value{}) {
		packed.Unpack(s.values.packed, h.stored, &v)
		return v, nil
	}
	return unboxed[V](h.answer.value), h.answer.err
}

// sample notes that an id was asked for, if KeepWarm runs.
func (m *Map[K, V]) sample(key string, id K) {
	if s := m.hot.Load(); s != nil && s.Sampled() {
		s.Saw(key, m.own(id))
	}
}

// unboxed returns the value in a box, or the zero value if there is none.
func unboxed[V any](box any) (v V) {
	if p, ok := box.(*V); ok {
		return *p
	}
	return v
}

// call implements loader.
type call[K comparable, V any] struct {
	m  *Map[K, V]
	id K
	do Loader[K, V]
}

func (c *call[K, V]) load(ctx context.Context) (any, error) {
	v, err := c.do(ctx, c.id)
	return &v, c.m.base.values.notFound.error(err)
}

func (c *call[K, V]) detached() loader { return &call[K, V]{c.m, c.m.own(c.id), c.do} }

// Invalidate is [Cache.Invalidate] of the values of ids, and of each entry that carries
// their keys as tags. At least one id is required.
func (m *Map[K, V]) Invalidate(ctx context.Context, ids ...K) error {
	targets := make([]Target, 0, 2*len(ids))
	for _, id := range ids {
		key, err := m.Key(id)
		if err != nil {
			return err
		}
		targets = append(targets, Key(key), Tag(key))
	}
	return m.base.c.Invalidate(ctx, targets...)
}

// InvalidateAll invalidates the values of all ids. Entries that carry their keys as tags
// stay. It is a [Cache.Sweep] of the map's prefix, with its cost, result and errors. A tag
// that the loader gives to every value ([AddTags]) is invalidated in O(1) instead, and
// reaches pages too.
func (m *Map[K, V]) InvalidateAll(ctx context.Context) (SweepResult, error) {
	return m.base.c.Sweep(ctx, Prefix(m.base.prefix+":"))
}

// Source says where a value came from.
type Source uint8

// The sources of a value.
const (
	FromLoader  Source = iota // a load: this call's, or one that it waited for
	FromProcess               // the memory of this process
	FromRemote                // the shared tier
	FromQueue                 // a change that waits in a write-behind queue
)

// String implements fmt.Stringer: "loader", "process", "remote" or "queue".
func (s Source) String() string {
	switch s {
	case FromProcess:
		return "process"
	case FromRemote:
		return "remote"
	case FromQueue:
		return "queue"
	}
	return "loader"
}

// Result is a value with its provenance.
type Result[V any] struct {
	Value  V
	Source Source
	// Age is the time since the value's load, or its last validation, began. 0 if the cache
	// has not kept the value.
	Age time.Duration
	// Fresh is for how long the value stays fresh. 0 if it is stale, or the cache has not
	// kept it.
	Fresh time.Duration
	// Stale: the value is past its TTL, and was answered while it is refreshed, or in place
	// of an error.
	Stale bool
	// Waited: the value is that of another caller's load in this process.
	Waited bool
	// Instead is the error of this call's loader that a stale value stands in for. Callers
	// that waited for that load get the value without it.
	Instead error
}

// Lookup is [Map.Get], and returns the provenance of the value with it. With an error the
// result is valid as well: it has the value that Get would return with that error, and the
// provenance of the error: of a remembered [ErrNotFound] its Source, Age and Fresh.
func (m *Map[K, V]) Lookup(ctx context.Context, id K, load Loader[K, V]) (Result[V], error) {
	var o origin
	v, err := m.get(ctx, id, load, &o)
	r := Result[V]{Value: v, Source: o.source, Waited: o.waits, Instead: o.instead}
	if o.entry != nil {
		r.Age, r.Fresh = o.times(m.base.c.engine.Now())
		if r.Stale = r.Fresh == 0; r.Stale && r.Waited && r.Source == FromLoader { // it stood in for an error
			r.Source = FromProcess
		}
	}
	return r, err
}

// origin is the provenance of a value. A nil origin notes nothing.
type origin struct {
	source  Source
	entry   *local.Entry // nil: the value was kept nowhere
	waits   bool
	instead error
}

func (o *origin) times(now int64) (age, fresh time.Duration) {
	return time.Duration(max(0, now-o.entry.Born)), time.Duration(max(0, o.entry.FreshUntil-now))
}

func (o *origin) set(s Source, en *local.Entry) {
	if o != nil {
		o.source, o.entry = s, en
	}
}

// waited notes the outcome of another caller's turn.
func (o *origin) waited(out local.Outcome) {
	if o == nil {
		return
	}
	o.waits = true
	if out.Entry == nil || out.Entry.Unstored() {
		return
	}
	o.entry = out.Entry
	if out.Found {
		o.source = FromRemote
	}
}

func (o *origin) loaded(s Source, en *local.Entry, instead error) {
	if o != nil {
		o.source, o.entry, o.instead = s, en, instead
	}
}
