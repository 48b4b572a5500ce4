package core

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/larderhq/larder/core/internal/coherence"
	"github.com/larderhq/larder/core/internal/naming"
	"github.com/larderhq/larder/core/internal/queue"
	"github.com/larderhq/larder/core/internal/tier"
)

// Errors of write-behind.
var (
	// ErrNotQueued is returned when nobody knows that a change is in the queue. It may
	// be there all the same, or come to be within 2s: the tier's reply may have been
	// lost. To write it again is safe.
	ErrNotQueued = errors.New("larder: the change is not known to be queued")
	// ErrQueueFull is returned when there was no room in the queue for as long as the
	// caller waited. The change is not in the queue.
	ErrQueueFull = errors.New("larder: the write-behind queue is full")
	// ErrPoison is what apply wraps, for a batch of one or in a BatchError, for a
	// change that it will never take: it becomes a dead letter at once.
	ErrPoison = errors.New("larder: a change that can never be applied")
)

// Change is a change of one id that is to be applied.
type Change[K comparable, V any] struct {
	ID      K
	Value   V
	Deleted bool // there is no value any more
	// Version grows with every change of the id. A database that stores it with the row
	// and refuses a smaller one is safe from a worker that was paused in the middle of
	// apply for longer than its lease of the queue, and came back after another one had
	// applied something newer.
	Version int64
	Attempt int       // 1: the first
	Queued  time.Time // when the first change since the id was last clean was queued, on the tier's clock
}

// WriteBehindOptions are all optional, but that Merge needs Load.
type WriteBehindOptions[K comparable, V any] struct {
	// Batch is how many changes one apply gets at most. Default 100, at most 1000.
	Batch int
	// Interval is how long a change waits for others, before it is applied, while there is
	// room for more. Default 1s.
	Interval time.Duration
	// Workers is how many batches this process applies at a time: of different
	// partitions, so never of the same id. Default 2, at most 64. -1: none, for a process
	// that leaves it to others; not without a shared tier.
	Workers int
	// MaxQueued is how many ids may wait in the queue; beyond it Put waits for room. They
	// spread over the partitions of the tier, each of which has room for its share and a
	// half. Default 100 000.
	MaxQueued int
	// Wait is how long Put and Delete wait for room and for the tier, where their context
	// does not end before. Default 5s.
	Wait time.Duration
	// ApplyTimeout is the deadline of an apply. What one has not applied that goes on for
	// longer, others apply. Default 30s.
	ApplyTimeout time.Duration
	// Retry is how long a change that failed waits for the next attempt. It doubles with
	// each, up to MaxRetry. Defaults 100ms and 1m.
	Retry, MaxRetry time.Duration
	// MaxAttempts is how often a change is tried before it becomes a dead letter. Default
	// 20: about 12 minutes. An error of a whole batch may be the database's: after one, its
	// changes are tried one by one, and while nothing at all is applied none becomes a
	// dead letter for it.
	MaxAttempts int
	// Merge is for partial changes: it puts change on what holds now, which is what is
	// queued, or else what Load loads (the zero V where that says ErrNotFound), and
	// returns what is to be queued. It may be called more than once for one Put, and
	// must change neither. With it Put reads before it writes. What has become a dead letter
	// does not hold: the next Put merges with what Load loads, without it, as readers see
	// it. A counter whose increment became a dead letter is short by that until the letter is
	// dealt with, and to replay the letter would undo what came after it: OnDead is where to
	// note an increment that must not be lost.
	Merge func(old, change V) V
	Load  Loader[K, V]
	// OnDead is told of each change that became a dead letter, from the worker's
	// goroutine. It must not wait for the queue.
	OnDead func(Change[K, V], error)
}

// WriteBehind is a queue of changes of a map's values, and the workers that apply them
// to where the values really live. It answers when a change is in the queue: from then
// on every reader of the map gets it, in other processes as soon as the message arrives
// and after MaxStaleness at the latest, and pages that carry the id's key as a tag are
// made anew. Workers of any instance apply the changes, in batches, in order per id, each
// at least once; of changes of one id that wait, only the last is applied.
//
// With a shared tier the queue is in the tier and lasts as long as the tier's own data:
// a Redis without appendonly loses it when it restarts, a failover loses what the
// replica had not got. Without one it is in this process: Close applies what is left, and
// a crash loses it.
//
// Where the map's class has a ReplicaLag, what has been applied stays in the queue for that
// long: a process applies Workers times Batch changes per ReplicaLag, at most.
//
// Of an id, all writes go through the queue: what another writer puts into the database
// is overwritten by what is queued. While the cache is switched off, and while the tier
// does not answer (it cannot be reached, it is full, the id's slot is on its way), Get
// loads from the database, which may be behind the queue.
type WriteBehind[K comparable, V any] struct {
	m     *Map[K, V]
	apply func(context.Context, []Change[K, V]) error
	o     WriteBehindOptions[K, V]
	id    func(string) (K, error)
	e     *coherence.Engine

	puts   chan *change
	lanes  [tier.MaxPartitions]lane
	aside  sync.WaitGroup                   // those who empty lanes
	silent [tier.MaxPartitions]atomic.Int64 // when they are asked with the others again

	merging [64]chan struct{} // of ids whose changes are partial, by hash: who changes one

	life      sync.RWMutex  // held by who hands in a change
	closing   chan struct{} // nobody hands in any more
	once      sync.Once
	quit      chan struct{}   // the committer ends,
	committed chan struct{}   // and has ended
	ctx       context.Context // of workers
	stop      context.CancelFunc
	work      sync.WaitGroup
	flushing  atomic.Int32
	workers   []*worker[K, V]
	unusable  atomic.Pointer[error] // why nothing may be queued
	asked     atomic.Int64          // when it was asked whether it is durable, by a change
	checked   atomic.Bool

	applied, failed, dead, overtaken, coalesced atomic.Int64
	lag                                         atomic.Int64
}

// NewWriteBehind makes the queue of a map, and begins to apply what is in it. apply gets
// changes of different ids and puts them where the values live; its errors are of all
// of them, or a BatchError[K] of some. It may be called again with what it has applied
// already.
//
// It fails if the tier can be reached and might evict what is queued. The queue is
// closed by Close, or by the cache's.
func NewWriteBehind[K comparable, V any](
	m *Map[K, V], apply func(ctx context.Context, changes []Change[K, V]) error, o WriteBehindOptions[K, V],
) (*WriteBehind[K, V], error) {
	if m == nil {
		return nil, &ConfigError{"map", nil, "a map made by NewMap"}
	}
	if apply == nil {
		return nil, &ConfigError{"apply", nil, "a function"}
	}
	if err := m.checkType(); err != nil { // what waits is encoded in any case
		return nil, err
	}
	e := m.c.engine
	o, err := o.resolve(e.Shares())
	if err != nil {
		return nil, err
	}
	w := &WriteBehind[K, V]{
		m: m, apply: apply, o: o, e: e,
		puts: make(chan *change, maxCommit), closing: make(chan struct{}), quit: make(chan struct{}), committed: make(chan struct{}),
	}
	for i := range w.merging {
		w.merging[i] = make(chan struct{}, 1)
	}
	if w.id, err = idDecoder[K](); err != nil {
		return nil, err
	}
	if e.Closed() {
		return nil, ErrClosed
	}
	if !e.Shares() {
		e.UseQueue(queue.NewLocal())
	}
	w.ctx, w.stop = context.WithCancel(context.Background())
	check, cancel := context.WithTimeout(w.ctx, remoteWait)
	defer cancel()
	if err := w.check(check); errors.Is(err, ErrUnusable) {
		w.stop()
		return nil, err
	}
	if err := m.c.own(m.prefix, w.shut); err != nil {
		w.stop()
		return nil, err
	}
	w.work.Go(w.commits)
	for i := range max(0, o.Workers) {
		a := newWorker(w, i)
		w.workers = append(w.workers, a)
	}
	for _, a := range w.workers {
		w.work.Go(a.run)
	}
	return w, nil
}

func (o WriteBehindOptions[K, V]) resolve(shared bool) (WriteBehindOptions[K, V], error) {
	for _, d := range []struct {
		name string
		d    *time.Duration
		def  time.Duration
	}{
		{"Interval", &o.Interval, time.Second},
		{"Wait", &o.Wait, 5 * time.Second},
		{"ApplyTimeout", &o.ApplyTimeout, 30 * time.Second},
		{"Retry", &o.Retry, 100 * time.Millisecond},
		{"MaxRetry", &o.MaxRetry, time.Minute},
	} {
		if err := checkDuration("WriteBehindOptions."+d.name, *d.d); err != nil {
			return o, err
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
		{"Batch", &o.Batch, 100, 1, 1000},
		{"MaxQueued", &o.MaxQueued, 100_000, 1, 1 << 30},
		{"MaxAttempts", &o.MaxAttempts, 20, 1, 1 << 20},
	} {
		if *n.n == 0 {
			*n.n = n.def
		}
		if *n.n < n.min || *n.n > n.max {
			return o, &ConfigError{"WriteBehindOptions." + n.name, *n.n, fmt.Sprintf("0 (%d), or %d to %d", n.def, n.min, n.max)}
		}
	}
	if o.Workers == 0 {
		o.Workers = 2
	}
	switch {
	case o.Workers < -1 || o.Workers > tier.MaxPartitions:
		return o, &ConfigError{"WriteBehindOptions.Workers", o.Workers, "-1 (none), 0 (2), or 1 to 64"}
	case o.Workers == -1 && !shared:
		return o, &ConfigError{"WriteBehindOptions.Workers", o.Workers, "0 or more without a shared tier: nobody else could apply"}
	case (o.Merge == nil) != (o.Load == nil):
		return o, &ConfigError{"WriteBehindOptions.Load", o.Load != nil, "a function with Merge, which needs it, and none without"}
	}
	return o, nil
}

// check asks the tier whether it keeps what is queued.
func (w *WriteBehind[K, V]) check(ctx context.Context) error {
	q, err := w.e.Queue()
	if err == nil {
		err = q.Durable(ctx)
	}
	switch {
	case errors.Is(err, ErrUnusable):
		if w.unusable.Swap(&err) == nil {
			w.m.c.opts.Logger.Error("larder: write-behind: nothing can be queued", "queue", w.m.prefix, "error", err)
		}
	case err == nil:
		w.unusable.Store(nil)
		w.checked.Store(true)
	}
	return err
}

// usable fails where the tier is known to be of no use. What has not been checked is.
func (w *WriteBehind[K, V]) usable(ctx context.Context) error {
	if err := w.unusable.Load(); err != nil {
		return *err
	}
	if w.checked.Load() {
		return nil
	}
	// It asks every server: one that does not answer must not keep each change waiting.
	now, last := time.Now().UnixNano(), w.asked.Load()
	if now-last < int64(lookEvery) || !w.asked.CompareAndSwap(last, now) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, remoteWait)
	defer cancel()
	return w.check(ctx)
}

// Put changes the value of id to v, or, with WriteBehindOptions.Merge, in the way
// that v says. tags are those that its loader would name: readers store it under
// them. What carries the id's key as a tag is invalidated in the same step. It waits while
// the queue is full.
//
// After Put has returned without an error this instance answers the change, or a later one,
// even where the tier does not answer a reader within RemoteBudget: as long as what was
// invalidated has been verified within MaxStaleness, and nothing else of the id, of its tags
// or of everything has been invalidated since. Changes that are kept for that take an eighth of
// MaxEntryBytes at most, besides; the oldest go. Other instances answer the change when they have
// heard of it; a reader of theirs whom the tier does not answer gets what the database has.
func (w *WriteBehind[K, V]) Put(ctx context.Context, id K, v V, tags ...string) error {
	if w.o.Merge != nil {
		return w.merge(ctx, id, v, tags)
	}
	c, err := w.change(id, v, tags)
	if err != nil {
		return err
	}
	return w.queue(ctx, c)
}

// Delete changes id to one that does not exist: ErrNotFound to readers.
func (w *WriteBehind[K, V]) Delete(ctx context.Context, id K) error {
	key, err := w.m.Key(id)
	if err != nil {
		return err
	}
	if w.o.Merge != nil {
		call, cancel := context.WithTimeout(ctx, w.o.Wait)
		defer cancel()
		unlock, err := w.lockMerge(call, key)
		if err != nil {
			return err
		}
		defer unlock()
	}
	return w.queue(ctx, newChange(key, queued{deleted: true}))
}

// PutMany is Put of several values, with the same tags, and not of partial changes. If
// some were not queued the error is a BatchError[K].
func (w *WriteBehind[K, V]) PutMany(ctx context.Context, values map[K]V, tags ...string) error {
	if w.o.Merge != nil {
		return &ConfigError{"WriteBehindOptions.Merge", "set", "none for PutMany, which does not read"}
	}
	changes := make(map[K]*change, len(values))
	for id, v := range values { // what is wrong is found before anything is done
		c, err := w.change(id, v, tags)
		if err != nil {
			return err
		}
		changes[id] = c
	}
	ctx, cancel := context.WithTimeout(ctx, w.o.Wait)
	defer cancel()
	errs := make(BatchError[K])
	for id, c := range changes {
		if err := w.hand(ctx, c); err != nil {
			errs[w.m.resultKey(id)] = err
			delete(changes, id)
		}
	}
	for id, c := range changes {
		if err := c.wait(ctx); err != nil {
			errs[w.m.resultKey(id)] = err
		}
	}
	if len(errs) > 0 {
		return errs
	}
	return nil
}

// change checks what a caller brings.
func (w *WriteBehind[K, V]) change(id K, v V, tags []string) (*change, error) {
	key, err := w.m.Key(id)
	if err != nil {
		return nil, err
	}
	names, err := tagNames(tags)
	if err != nil {
		return nil, err
	}
	data, err := w.m.marshal(v)
	if err != nil {
		return nil, fmt.Errorf("larder: encode a value of %s: %w", w.m.prefix, err)
	}
	if err := w.m.now().checkSize(key, len(data)); err != nil {
		return nil, err
	}
	return newChange(key, queued{tags: names, data: data}), nil
}

// merge queues what becomes of what holds now. The lease of the key says that nothing
// has come between; whoever changes or invalidates the key ends it.
func (w *WriteBehind[K, V]) merge(ctx context.Context, id K, v V, tags []string) error {
	key, err := w.m.Key(id)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, w.o.Wait)
	defer cancel()
	unlock, err := w.lockMerge(ctx, key) // of this process; others are kept out by the lease
	if err != nil {
		return err
	}
	defer unlock()
	deadline, _ := ctx.Deadline()
	for pause := fullRetry; ; pause = min(2*pause, maxMergePause) {
		done, err := w.mergeOnce(ctx, id, key, v, tags)
		full := errors.Is(err, ErrQueueFull)
		switch {
		case !full && (done || err != nil):
			return err
		case full && time.Until(deadline) <= pause: // or the next attempt would end in the middle
			return err
		}
		select {
		case <-time.After(pause):
		case <-w.closing:
			return ErrClosed
		case <-ctx.Done():
			if full {
				return fmt.Errorf("%w: %w", ErrQueueFull, ctx.Err())
			}
			return fmt.Errorf("%w: %w", ErrNotQueued, ctx.Err())
		}
	}
}

// maxMergePause is how long a partial change waits at most before it reads again.
const maxMergePause = 200 * time.Millisecond

func (w *WriteBehind[K, V]) lockMerge(ctx context.Context, key string) (unlock func(), err error) {
	slot := w.merging[tier.Partition(key, len(w.merging))]
	select {
	case slot <- struct{}{}:
		return func() { <-slot }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", ErrNotQueued, ctx.Err())
	}
}

func (w *WriteBehind[K, V]) mergeOnce(ctx context.Context, id K, key string, v V, tags []string) (done bool, err error) {
	turn := w.e.Alone(key, []string{naming.Tag(key)})
	defer turn.Finish(coherence.Outcome{Verdict: coherence.Unshareable})
	f := turn.Fetch(ctx, coherence.Query{Codec: mapCodec[K, V]{w.m}, Anew: true, Wait: w.o.Wait})
	switch {
	case !w.e.Shares() || turn.Lease() != "":
	case w.answers(w.e.Home(key)): // this process is behind the tier, or others have the lease
		return false, nil
	default:
		return false, fmt.Errorf("%w: the shared tier does not answer", ErrNotQueued)
	}
	var old V
	if f.Queued != nil {
		old, err = w.m.queuedValue(f.Queued)
	} else {
		old, err = w.o.Load(ctx, id)
	}
	if err != nil && !errors.Is(err, ErrNotFound) {
		return false, err
	}
	c, err := w.change(id, w.o.Merge(old, v), tags)
	if err != nil {
		return false, err
	}
	c.lease = turn.Lease()
	err = w.queue(ctx, c)
	if errors.Is(err, errLeaseLost) {
		return false, nil
	}
	return true, err
}

// queue hands a change to the committer and waits for what becomes of it.
func (w *WriteBehind[K, V]) queue(ctx context.Context, c *change) error {
	ctx, cancel := context.WithTimeout(ctx, w.o.Wait)
	defer cancel()
	if err := w.hand(ctx, c); err != nil {
		return err
	}
	return c.wait(ctx)
}

func (w *WriteBehind[K, V]) hand(ctx context.Context, c *change) error {
	if err := w.usable(ctx); errors.Is(err, ErrUnusable) {
		return err
	}
	w.life.RLock()
	defer w.life.RUnlock()
	select {
	case <-w.closing:
		return ErrClosed
	default:
	}
	c.until, _ = ctx.Deadline()
	select {
	case w.puts <- c:
		return nil
	case <-w.closing:
		return ErrClosed
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrQueueFull, ctx.Err())
	}
}

// Flush returns when everything that was queued before, by whomever, has been applied,
// or has become a dead letter. Where a later change of the id has taken the place of one, it
// is the later one that must have been. It waits for ctx at most, whose error it returns then, with how much is left.
func (w *WriteBehind[K, V]) Flush(ctx context.Context) error {
	w.flushing.Add(1)
	defer w.flushing.Add(-1)
	var until []int64
	tick := time.NewTicker(flushTick)
	defer tick.Stop()
	wait, last := "it is not known how many", error(nil)
	for {
		left, err := w.left(ctx, &until)
		switch {
		case err == nil && left == 0:
			return nil
		case err == nil:
			wait, last = strconv.Itoa(left), nil
		case ctx.Err() == nil:
			last = err
		}
		for _, a := range w.workers {
			a.wake()
		}
		select {
		case <-tick.C:
		case <-w.ctx.Done():
			return ErrClosed
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("larder: flush: %s changes wait: %w", wait, ctx.Err()), last)
		}
	}
}

// flushTick is how often Flush looks.
const flushTick = 20 * time.Millisecond

// left returns how many records there are in partitions that hold one of a version up to
// until, which it fills in if it is nil.
func (w *WriteBehind[K, V]) left(ctx context.Context, until *[]int64) (int, error) {
	states, err := w.states(ctx)
	if err != nil {
		return 0, err
	}
	if *until == nil {
		for _, st := range states {
			*until = append(*until, st.Last)
		}
	}
	left := 0
	for p, st := range states {
		if p < len(*until) && st.First != 0 && st.First <= (*until)[p] {
			left += st.Depth
		}
	}
	return left, nil
}

func (w *WriteBehind[K, V]) states(ctx context.Context) ([]tier.QueueState, error) {
	q, err := w.e.Queue()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, remoteWait)
	defer cancel()
	states, err := q.States(ctx, w.m.prefix)
	for _, st := range states {
		err = errors.Join(err, st.Err)
	}
	return states, err
}

// Close ends the queue in this process: Put and Delete return ErrClosed, what is being
// applied is finished. Without a shared tier it applies what is queued first; with one
// that stays in the queue, for other instances and for the next start. ctx bounds it;
// then contexts of applies are cancelled, and the error says what is lost, if anything
// is. A second Close does nothing.
func (w *WriteBehind[K, V]) Close(ctx context.Context) error {
	w.m.c.disown(w.m.prefix)
	return w.shut(ctx)
}

// shut is Close for the cache.
func (w *WriteBehind[K, V]) shut(ctx context.Context) (err error) {
	w.once.Do(func() { err = w.end(ctx) })
	return err
}

func (w *WriteBehind[K, V]) end(ctx context.Context) (err error) {
	defer w.stop()
	close(w.closing)
	w.life.Lock() // who handed in a change has done so
	close(w.quit)
	w.life.Unlock()
	select {
	case <-w.committed:
		if !w.e.Shares() {
			err = w.Flush(ctx)
		}
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil && !w.e.Shares() {
		err = fmt.Errorf("larder: close of write-behind: what waits is lost: %w", err)
	}
	for _, a := range w.workers {
		a.end()
	}
	done := make(chan struct{})
	go func() {
		w.work.Wait()
		close(done)
	}()
	select {
	case <-done:
		return err
	case <-ctx.Done():
		return errors.Join(err, fmt.Errorf("larder: close of write-behind: an apply was cancelled: %w", ctx.Err()))
	}
}

// WriteBehindStats is the state of a queue.
type WriteBehindStats struct {
	Depth     int           // ids that wait, in all
	Retrying  int           // of these, after a failed attempt
	Dead      int           // dead letters
	Oldest    time.Duration // how long the longest has been waiting
	Lag       time.Duration // how long the last change that this process applied had waited
	Applied   int64         // changes that this process applied
	Coalesced int64         // changes of this process that another one of the same moment took the place of
	Failed    int64         // attempts of this process that failed
	Died      int64         // changes that this process made dead letters
	Overtaken int64         // changes that this process applied after it had lost its lease of the queue: see Change.Version
}

// Stats asks the tier for the state of the queue. With an error the counters of this
// process are right.
func (w *WriteBehind[K, V]) Stats(ctx context.Context) (WriteBehindStats, error) {
	s := WriteBehindStats{
		Lag: time.Duration(w.lag.Load()), Applied: w.applied.Load(), Coalesced: w.coalesced.Load(),
		Failed: w.failed.Load(), Died: w.dead.Load(), Overtaken: w.overtaken.Load(),
	}
	states, err := w.states(ctx)
	for _, st := range states {
		s.Depth += st.Depth
		s.Retrying += st.Retrying
		s.Dead += st.Dead
		if st.First > 0 {
			s.Oldest = max(s.Oldest, time.Duration(st.Now-st.First)*time.Microsecond)
		}
	}
	return s, err
}
