package core

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"time"

	"github.com/larderhq/larder/core/internal/tier"
	"github.com/larderhq/larder/core/internal/writebehind"
	"github.com/larderhq/larder/core/internal/writebehind/queue"
)

// Errors of write-behind.
var (
	// ErrNotQueued is returned when it is unknown whether a change is in the queue: the
	// reply of the tier may have been lost. The change may be in the queue, or arrive there
	// within 2s. It is safe to write it again.
	ErrNotQueued = writebehind.ErrNotQueued
	// ErrQueueFull is returned when the queue had no room for as long as the caller waited.
	// The change is not in the queue.
	ErrQueueFull = writebehind.ErrQueueFull
	// ErrPoison marks a change that can never be applied. An apply wraps it in the error of
	// a batch of one, or in a BatchError. The change becomes a dead letter at once.
	ErrPoison = writebehind.ErrPoison
)

// Change is a change of one id that is to be applied.
type Change[K comparable, V any] struct {
	ID      K
	Value   V
	Deleted bool // the id has no value any more
	// Version grows with every change of the id. A worker that was paused in the middle of
	// apply for longer than its lease of the queue may apply a change after another worker
	// has applied a newer one. A database is safe from that if it stores the version with
	// the row and refuses a smaller one.
	Version int64
	Attempt int       // 1: the first
	Queued  time.Time // of the first change since the queue last held none of the id, on the tier's clock
}

// WriteBehindOptions configures a WriteBehind. All fields are optional, except that Merge
// requires Load.
type WriteBehindOptions[K comparable, V any] struct {
	// Batch is the largest number of changes of one apply. Default 100, at most 1000.
	Batch int
	// Interval is the time for which a change waits for others before it is applied, while
	// the queue has room. Default 1s.
	Interval time.Duration
	// Workers is the number of batches that this process applies concurrently. They are of
	// different partitions, and so of different ids. Default 2, at most 64. -1 means no workers: other
	// processes apply the changes, which requires a shared tier.
	Workers int
	// MaxQueued bounds the ids in the queue; Put waits for room when it is full. Each
	// partition of the tier has room for its share and a half. Default 100 000.
	MaxQueued int
	// Wait bounds how long Put and Delete wait for room and for the tier, besides their
	// context. Default 5s.
	Wait time.Duration
	// ApplyTimeout is the deadline of an apply. Other workers apply the changes of an apply
	// that runs longer. Default 30s.
	ApplyTimeout time.Duration
	// Retry is the wait before the second attempt to apply a change. It doubles with each
	// attempt, up to MaxRetry. Defaults 100ms and 1m.
	Retry, MaxRetry time.Duration
	// MaxAttempts is the number of attempts after which a change becomes a dead letter.
	// Default 20, which takes about 12 minutes. An error of a whole batch may be the
	// database's: the changes of the batch are then tried one by one, and none becomes a dead
	// letter for that error while no change at all can be applied.
	MaxAttempts int
	// Merge makes Put a partial change: it applies change to the latest value and returns the
	// new value. The latest value is the queued one, or else the one that Load returns, or
	// the zero V where Load returns ErrNotFound. Merge may run more than once for one Put,
	// and must modify neither argument. With Merge, Put reads before it writes.
	//
	// A dead letter is no longer the latest value: the next Put merges with the value that
	// Load returns, as readers see it. A counter whose increment has become a dead letter is
	// short by that increment, and Replay of the dead letter would undo later increments.
	// OnDead is the place to record an increment that must not be lost.
	Merge func(old, change V) V
	Load  Loader[K, V]
	// OnDead receives each change that has become a dead letter, on the worker's goroutine.
	// It must not wait for the queue.
	OnDead func(Change[K, V], error)
}

// WriteBehind is a queue of changes of a map's values, and the workers that apply them to
// the database. Put returns when the change is in the queue. From then on every reader of
// the map gets it; readers in other processes get it when the message arrives, and after
// MaxStaleness at the latest. Entries that carry the id's key as a tag are invalidated.
// Workers of any instance apply the changes in batches, in order per id, each at least once.
// Pending changes of one id coalesce; the latest wins.
//
// With a shared tier the queue is in the tier and as durable as the tier: a Redis without
// appendonly loses it when it restarts, and a failover loses the changes that the replica
// had not received. Without a shared tier the queue is in this process: Close applies it,
// and a crash loses it.
//
// Where the map's class has a ReplicaLag, an applied change stays in the queue for that
// long: a process applies at most Workers × Batch changes per ReplicaLag.
//
// Send every write of an id through the queue: a queued change overwrites the value that
// another writer puts into the database. While the cache is switched off, and while the
// tier does not answer (it is unreachable or full, or the id's slot migrates), Get loads
// from the database, which may be behind the queue.
type WriteBehind[K comparable, V any] struct {
	m        *Map[K, V]
	o        WriteBehindOptions[K, V]
	pipeline *writebehind.Pipeline
}

// NewWriteBehind returns the queue of a map, and starts to apply it. apply gets changes of
// different ids and writes them to the database. Its error is the error of all changes, or a
// BatchError[K] with the errors of some. It may get a change again that it has applied
// already.
//
// NewWriteBehind fails if the tier can be reached and may evict queued changes. Close of the
// queue or of the cache ends it.
func NewWriteBehind[K comparable, V any](
	m *Map[K, V], apply func(ctx context.Context, changes []Change[K, V]) error, o WriteBehindOptions[K, V],
) (*WriteBehind[K, V], error) {
	if m == nil {
		return nil, &ConfigError{"map", nil, "a map made by NewMap"}
	}
	if apply == nil {
		return nil, &ConfigError{"apply", nil, "a function"}
	}
	if err := m.base.values.checkType(); err != nil { // the queue encodes values, whatever the class does
		return nil, err
	}
	if (o.Merge == nil) != (o.Load == nil) {
		return nil, &ConfigError{"WriteBehindOptions.Load", o.Load != nil, "a function with Merge, which requires it, and none without"}
	}
	id, err := idDecoder[K]()
	if err != nil {
		return nil, err
	}
	config := writeBehindConfig{
		batch: o.Batch, workers: o.Workers, maxQueued: o.MaxQueued, maxAttempts: o.MaxAttempts,
		interval: o.Interval, wait: o.Wait, applyTimeout: o.ApplyTimeout, retry: o.Retry, maxRetry: o.MaxRetry,
	}
	pipeline, err := m.base.c.newPipeline(m.base.prefix, config, writeBehindTarget[K, V]{m, apply, id, o.OnDead})
	if err != nil {
		return nil, err
	}
	return &WriteBehind[K, V]{m, o, pipeline}, nil
}

// writeBehindConfig is the part of WriteBehindOptions without type parameters.
type writeBehindConfig struct {
	batch, workers, maxQueued, maxAttempts        int
	interval, wait, applyTimeout, retry, maxRetry time.Duration
}

// newPipeline returns the queue of a map, started, which Close of the cache closes.
func (c *Cache) newPipeline(prefix string, o writeBehindConfig, target writebehind.Target) (*writebehind.Pipeline, error) {
	e := c.engine
	if err := o.resolve(e.Shares()); err != nil {
		return nil, err
	}
	if e.Closed() {
		return nil, ErrClosed
	}
	if !e.Shares() {
		e.UseQueue(queue.NewLocal())
	}
	p, err := writebehind.New(writebehind.Config{
		Queue: prefix, Engine: e, Target: target, Logger: c.opts.Logger, Closed: ErrClosed, Bound: c.bound,
		Committer: writebehind.CommitterConfig{MaxQueued: o.maxQueued, Wait: o.wait},
		Worker: writebehind.WorkerConfig{
			Workers: o.workers, Batch: o.batch, Interval: o.interval, ApplyTimeout: o.applyTimeout,
			Retry: o.retry, MaxRetry: o.maxRetry, MaxAttempts: o.maxAttempts,
		},
	})
	if err != nil {
		return nil, err
	}
	if err := c.own(prefix, p.Close); err != nil {
		p.Discontinue()
		return nil, err
	}
	p.Start()
	return p, nil
}

// resolve checks options and fills in the defaults.
func (o *writeBehindConfig) resolve(shared bool) error {
	for _, d := range []struct {
		name string
		d    *time.Duration
		def  time.Duration
	}{
		{"Interval", &o.interval, time.Second},
		{"Wait", &o.wait, 5 * time.Second},
		{"ApplyTimeout", &o.applyTimeout, 30 * time.Second},
		{"Retry", &o.retry, 100 * time.Millisecond},
		{"MaxRetry", &o.maxRetry, time.Minute},
	} {
		if err := checkDuration("WriteBehindOptions."+d.name, *d.d); err != nil {
			return err
		}
		if *d.d == 0 {
			*d.d = d.def
		}
	}
	for _, n := range []struct {
		name          string
		n             *int
		def, min, max int
	}{
		{"Batch", &o.batch, 100, 1, 1000},
		{"MaxQueued", &o.maxQueued, 100_000, 1, 1 << 30},
		{"MaxAttempts", &o.maxAttempts, 20, 1, 1 << 20},
	} {
		if *n.n == 0 {
			*n.n = n.def
		}
		if *n.n < n.min || *n.n > n.max {
			return &ConfigError{"WriteBehindOptions." + n.name, *n.n, fmt.Sprintf("0 (%d), or %d to %d", n.def, n.min, n.max)}
		}
	}
	if o.workers == 0 {
		o.workers = 2
	}
	switch {
	case o.workers < -1 || o.workers > tier.MaxPartitions:
		return &ConfigError{"WriteBehindOptions.Workers", o.workers, "-1 (none), 0 (2), or 1 to 64"}
	case o.workers == -1 && !shared:
		return &ConfigError{"WriteBehindOptions.Workers", o.workers, "0 or more without a shared tier: no other process could apply"}
	}
	return nil
}

// Put changes the value of id to v, or, with WriteBehindOptions.Merge, merges v into it.
// Readers store the value under tags, as if its loader had named them. Put invalidates the
// entries that carry the id's key as a tag in the same step. It waits while the queue is
// full.
//
// After Put has returned without an error this instance answers the change or a later one,
// even where the tier does not answer a reader within RemoteBudget, as long as invalidations
// were verified within MaxStaleness, and none of the id, of its tags or of everything came
// since. The changes that are kept for that take at most an eighth of Options.MaxBytes, beside
// it; the oldest are evicted. Other instances answer the change when the message arrives. If the
// tier does not answer a reader of another instance, the reader gets the value of the
// database.
func (w *WriteBehind[K, V]) Put(ctx context.Context, id K, v V, tags ...string) error {
	if w.o.Merge != nil {
		return w.merge(ctx, id, v, tags)
	}
	c, err := w.change(id, v, tags)
	if err != nil {
		return err
	}
	return w.pipeline.Put(ctx, c)
}

// Delete deletes the value of id: readers get ErrNotFound.
func (w *WriteBehind[K, V]) Delete(ctx context.Context, id K) error {
	key, err := w.m.Key(id)
	if err != nil {
		return err
	}
	c := writebehind.NewChange(key, writebehind.Record{Deleted: true})
	if w.o.Merge != nil {
		return w.pipeline.PutAmongMerges(ctx, c)
	}
	return w.pipeline.Put(ctx, c)
}

// PutMany is Put of several values with the same tags. It is not available with
// WriteBehindOptions.Merge. If some changes were not queued the error is a BatchError[K].
func (w *WriteBehind[K, V]) PutMany(ctx context.Context, values map[K]V, tags ...string) error {
	if w.o.Merge != nil {
		return &ConfigError{"WriteBehindOptions.Merge", "set", "none for PutMany, which does not read"}
	}
	ids := make([]K, 0, len(values))
	changes := make([]*writebehind.Change, 0, len(values))
	for id, v := range values { // all values are checked before the first is queued
		c, err := w.change(id, v, tags)
		if err != nil {
			return err
		}
		ids, changes = append(ids, id), append(changes, c)
	}
	errs := w.pipeline.PutAll(ctx, changes)
	if len(errs) == 0 {
		return nil
	}
	batch := make(BatchError[K], len(errs))
	for i, err := range errs {
		batch[w.m.resultKey(ids[i])] = err
	}
	return batch
}

// change returns the change of an id to v.
func (w *WriteBehind[K, V]) change(id K, v V, tags []string) (*writebehind.Change, error) {
	key, err := w.m.Key(id)
	if err != nil {
		return nil, err
	}
	r, err := w.record(key, v, tags)
	if err != nil {
		return nil, err
	}
	return writebehind.NewChange(key, r), nil
}

// record encodes a value.
func (w *WriteBehind[K, V]) record(key string, v V, tags []string) (r writebehind.Record, err error) {
	if r.Tags, err = tagNames(tags); err != nil {
		return r, err
	}
	if r.Data, err = w.m.base.values.encode(&v); err != nil {
		return r, fmt.Errorf("larder: encode a value of %s: %w", w.m.base.prefix, err)
	}
	return r, w.m.base.snapshot().checkSize(key, len(r.Data))
}

// merge queues a partial change.
func (w *WriteBehind[K, V]) merge(ctx context.Context, id K, v V, tags []string) error {
	key, err := w.m.Key(id)
	if err != nil {
		return err
	}
	return w.pipeline.Merge(ctx, writebehind.Merge{
		Key: key, Codec: mapCodec{t: &w.m.base.values},
		Apply: func(ctx context.Context, queued *tier.Queued) (r writebehind.Record, err error) {
			var old V
			if queued != nil {
				var box any
				box, _, err = w.m.base.queuedValue(queued)
				old = unboxed[V](box)
			} else {
				old, err = w.o.Load(ctx, id)
				err = w.m.base.values.notFound.error(err)
			}
			if err != nil && !errors.Is(err, ErrNotFound) {
				return r, err
			}
			return w.record(key, w.o.Merge(old, v), tags)
		},
	})
}

// Flush returns when every change that any instance queued before the call has been applied
// or has become a dead letter. A change that a later one has replaced counts as applied when
// the later one is. If ctx ends first, Flush returns its error, with the number of waiting
// changes.
func (w *WriteBehind[K, V]) Flush(ctx context.Context) error { return w.pipeline.Flush(ctx) }

// Close ends the queue in this process: Put and Delete return ErrClosed, and running applies
// are finished. Without a shared tier Close applies the queued changes first; with one they
// stay in the queue, for other instances and for the next start. When ctx ends, the contexts
// of applies are cancelled, and the error says whether changes are lost. A second Close does
// nothing.
func (w *WriteBehind[K, V]) Close(ctx context.Context) error {
	w.m.base.c.disown(w.m.base.prefix)
	return w.pipeline.Close(ctx)
}

// WriteBehindStats is the state of a queue.
type WriteBehindStats struct {
	Depth     int           // waiting ids, in all
	Retrying  int           // waiting ids whose last attempt failed
	Dead      int           // dead letters
	Oldest    time.Duration // how long the oldest change has waited
	Lag       time.Duration // how long the last change that this process applied had waited
	Applied   int64         // changes that this process applied
	Coalesced int64         // changes of this process that a later one replaced before they were recorded
	Failed    int64         // failed attempts of this process
	Died      int64         // changes that this process made dead letters
	Overtaken int64         // changes that this process applied after it had lost its lease of the queue: see Change.Version
}

// Stats asks the tier for the state of the queue. With an error, only the counters of this
// process (Lag, Applied, Coalesced, Failed, Died, Overtaken) are right.
func (w *WriteBehind[K, V]) Stats(ctx context.Context) (WriteBehindStats, error) {
	s, err := w.pipeline.Stats(ctx)
	return WriteBehindStats(s), err
}

// writeBehindTarget decodes the records of a map and applies them.
type writeBehindTarget[K comparable, V any] struct {
	m      *Map[K, V]
	apply  func(context.Context, []Change[K, V]) error
	id     func(string) (K, error)
	onDead func(Change[K, V], error)
}

// Decode implements writebehind.Target. It returns a Change[K, V], with an error the part that
// decodes.
func (t writeBehindTarget[K, V]) Decode(rec *tier.Queued) (any, error) {
	c, err := t.decode(rec)
	return c, err
}

func (t writeBehindTarget[K, V]) decode(rec *tier.Queued) (c Change[K, V], err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("%w: %w", writebehind.ErrMalformed, t.Panicked(v, debug.Stack()))
		}
	}()
	c.Version, c.Attempt, c.Queued = rec.Version, rec.Attempts+1, time.UnixMicro(rec.First)
	text, ok := strings.CutPrefix(rec.Key, t.m.base.prefix+":")
	if !ok {
		return c, fmt.Errorf("%w: key %q", writebehind.ErrMalformed, rec.Key)
	}
	if c.ID, err = t.id(text); err != nil {
		return c, fmt.Errorf("%w: id %q: %w", writebehind.ErrMalformed, text, err)
	}
	box, _, err := t.m.base.queuedValue(rec)
	c.Value = unboxed[V](box)
	if errors.Is(err, ErrNotFound) {
		c.Deleted, err = true, nil
	}
	return c, err
}

// Apply implements writebehind.Target.
func (t writeBehindTarget[K, V]) Apply(ctx context.Context, changes []any) (each []error, rest error) {
	list := make([]Change[K, V], len(changes))
	for i, c := range changes {
		list[i], _ = c.(Change[K, V])
	}
	err := t.apply(ctx, list)
	failed, all := batchErrors[K](err)
	if all {
		return nil, err
	}
	each = make([]error, len(list))
	known := 0
	for i, c := range list {
		if own, ok := failed[c.ID]; ok {
			each[i] = own
			known++
		}
	}
	if known < len(failed) { // it names other ids: a change that is not known to be applied is applied again
		rest = err
	}
	return each, rest
}

// batchErrors returns the errors of single changes. all: the error is of all changes.
func batchErrors[K comparable](err error) (failed BatchError[K], all bool) {
	for is := err; is != nil; is = errors.Unwrap(is) { // joined errors say more than their BatchError
		if failed, ok := is.(BatchError[K]); ok { //nolint:errorlint // one in a chain, not in a tree
			return failed, false
		}
	}
	return nil, err != nil
}

// OnDead implements writebehind.Target.
func (t writeBehindTarget[K, V]) OnDead(change any, reason error) {
	if t.onDead != nil {
		c, _ := change.(Change[K, V])
		t.onDead(c, reason)
	}
}

// Class implements writebehind.Target.
func (t writeBehindTarget[K, V]) Class() (replicaLag, ttl time.Duration) {
	class := t.m.base.snapshot().class
	return class.ReplicaLag, class.TTL
}

// Panicked implements writebehind.Target.
func (t writeBehindTarget[K, V]) Panicked(value any, stack []byte) error {
	t.m.base.c.engine.Count.Panics.Add(1)
	return &PanicError{Value: value, Stack: stack}
}
