package coherence

import (
	"context"
	"fmt"
	"math/bits"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/larderhq/larder/core/internal/hotkeys"
	"github.com/larderhq/larder/core/internal/tier"
)

// Settings are what an engine is made with. All fields are required.
type Settings struct {
	MaxBytes    uint64        // of the in-process tier
	LongestLoad time.Duration // of any class: how long a lapsed intent must be remembered
	Refreshes   int           // background refreshes at a time
	Shared      *Sharing      // nil: this process only
}

// Engine is one in-process cache.
type Engine struct {
	tier     *memory
	journal  *journal
	sweeps   sweeps
	stamps   *stamps
	eras     [tier.MaxPartitions]atomic.Pointer[stamp]
	parts    atomic.Int32 // partitions; 1 without a shared tier
	shared   *shared      // nil without one
	local    atomic.Pointer[LocalQueue]
	owns     *owns
	intents  *intents
	flights  *flights
	maxBytes uint64
	longest  time.Duration
	base     time.Time

	slots  chan struct{} // of background refreshes
	behind behind        // loads and fills behind a response
	life   sync.Mutex    // guards closed against running.Add
	closed atomic.Bool
	work   sync.WaitGroup
	atWork atomic.Int64 // in work
	ctx    context.Context
	cancel context.CancelFunc

	Count Counters
	// Pages is what learns which responses are hit most, nil while nobody wants to know.
	Pages atomic.Pointer[hotkeys.Sketch[string]]
}

// Counters count since the engine was made.
type Counters struct {
	Hits, StaleHits, Misses   atomic.Int64
	Loads, LoadErrors, Panics atomic.Int64
	Coalesced                 atomic.Int64
	Stored, Refused           atomic.Int64
	Bypassed                  atomic.Int64
	Refreshes                 atomic.Int64
	RefreshesSkipped          atomic.Int64
	Invalidations             atomic.Int64
	Evicted                   atomic.Int64
	Undecodable               atomic.Int64
	Unencodable               atomic.Int64
	RemoteHits, RemoteErrors  atomic.Int64
	OverBudget, Deferred      atomic.Int64
}

// New makes an engine.
func New(s Settings) (*Engine, error) {
	e := &Engine{
		journal:  newJournal(),
		stamps:   newStamps(),
		flights:  newFlights(),
		intents:  newIntents(),
		owns:     newOwns(s.MaxBytes),
		maxBytes: s.MaxBytes,
		longest:  s.LongestLoad,
		base:     time.Now(),
		slots:    make(chan struct{}, s.Refreshes),
		behind:   newBehind(s.Refreshes, s.MaxBytes),
	}
	for p := range e.eras {
		e.eras[p].Store(new(stamp))
	}
	e.parts.Store(1)
	e.ctx, e.cancel = context.WithCancel(context.Background())
	t, err := newMemory(s.MaxBytes, e.Now, func() { e.Count.Evicted.Add(1) })
	if err != nil {
		e.cancel()
		return nil, fmt.Errorf("larder: in-process tier: %w", err)
	}
	e.tier = t
	if s.Shared != nil {
		if err := e.share(*s.Shared); err != nil {
			_ = e.Close(context.Background()) // nothing is at work yet
			return nil, err
		}
	}
	return e, nil
}

// Now returns the engine's time: nanoseconds since it was made, by the monotonic
// clock. It starts above zero.
func (e *Engine) Now() int64 {
	now := e.monotonic()
	if e.shared != nil {
		e.shared.checkClocks(now)
	}
	return now
}

func (e *Engine) monotonic() int64 { return int64(time.Since(e.base)) + 1 }

// Lookup returns the entry under key, if it may be answered from now. It counts
// nothing: what a lookup means is the caller's to say.
func (e *Engine) Lookup(key string) (*Entry, State) { return e.LookupAt(key, e.Now()) }

// LookupAt is Lookup for a caller who has read the clock. key may be a view of a
// buffer that is used again: it is not kept.
func (e *Engine) LookupAt(key string, now int64) (*Entry, State) {
	e.lapse(now)
	en, ok := e.tier.get(key)
	if !ok {
		return nil, Gone
	}
	if state := en.State(now); state != Gone && (en.compared.Load() >= e.sweeps.head.Load() || !e.swept(key, en)) {
		if e.shared != nil && !e.shared.legal(en.mask, now) {
			return nil, Gone // it may be legal again: it stays
		}
		return en, state
	}
	e.tier.dropEntry(strings.Clone(key), en)
	return nil, Gone
}

// Put stores an entry that no invalidation concerns: an index or a mark, whose
// worst is a miss.
// It does not take the place of a lasting value; then it returns false.
func (e *Engine) Put(key string, value any, size int, d time.Duration) bool {
	now := e.Now()
	en := &Entry{Value: value, Born: now, FreshUntil: now + int64(d), StaleUntil: now + int64(d), KeepUntil: now + int64(d),
		stamps: e.eraStamps(nil, e.mask(key, nil)), weight: weigh(key, size, 1)}
	e.journal.mu.RLock()
	defer e.journal.mu.RUnlock()
	return !e.closed.Load() && e.putUnless(key, en)
}

// Note is Put, and for the other instances as well: in the background, when the
// shared tier has time for it.
func (e *Engine) Note(key string, value any, size int, d time.Duration, c Codec) {
	s := e.shared
	if !e.Put(key, value, size, d) || s == nil {
		return
	}
	ses, ok := s.askable(key, nil)
	payload, has := c.Encode(value)
	if !ok || !has {
		return
	}
	e.Background(e.ctx, max(s.Budget, leaseTime), func(ctx context.Context) {
		// Its loss is a miss.
		_ = ses.Note(ctx, key, payload, min(d, maxKeep))
	})
}

// Forget takes what is under some keys out, here at once and in the shared tier in
// the background. It is no invalidation.
func (e *Engine) Forget(keys []string) {
	for _, key := range keys {
		e.Drop(key)
	}
	if e.shared != nil && len(keys) > 0 {
		e.Background(e.ctx, behindWait, func(ctx context.Context) {
			for _, key := range keys {
				if ctx.Err() == nil {
					ask, cancel := context.WithTimeout(ctx, max(e.shared.Budget, 2*e.shared.roundTrip()))
					e.forget(ask, key)
					cancel()
				}
			}
		})
	}
}

// ForgetEntry takes en out, unless another entry has taken its place, and for the
// other instances as well: it waits for that for what is left of the turn's budget.
func (t *Turn) ForgetEntry(ctx context.Context, key string, en *Entry) {
	t.e.DropEntry(key, en)
	s := t.e.shared
	if s == nil || en.id == "" {
		return
	}
	wait := s.Budget / 2
	if t.asked != nil {
		wait = t.asked.budget.left
	}
	// If it fails the entry expires.
	e := t.e
	began := time.Now()
	e.outlast(ctx, wait, func(ctx context.Context) { e.forget(ctx, key) })
	if t.asked != nil {
		t.asked.budget.left -= time.Since(began)
	}
}

func (e *Engine) forget(ctx context.Context, key string) {
	if ses, ok := e.shared.askable(key, nil); ok {
		_ = ses.Note(ctx, key, nil, time.Millisecond) // if it fails the entry expires
	}
}

// putNote keeps a note of another instance.
func (e *Engine) putNote(key string, en *Entry) {
	if value, ok := en.Value.(Lasting); ok {
		e.join(key, value, en.KeepUntil)
		return
	}
	e.journal.mu.RLock()
	defer e.journal.mu.RUnlock()
	if !e.closed.Load() && en.KeepUntil > e.Now() {
		e.putUnless(key, en)
	}
}

// Drop takes an entry out of the tier. It is no invalidation: loads under way go
// on and may store.
func (e *Engine) Drop(key string) { e.tier.drop(key) }

// DropEntry takes en out of the tier, unless another entry has taken its place.
func (e *Engine) DropEntry(key string, en *Entry) { e.tier.dropEntry(key, en) }

// fence makes every answer of this process that begins after it returned come
// from a load that began after it was called.
func (e *Engine) fence(items []Item) {
	e.owns.drop(e, items)
	e.fenceLoads(items)
}

// fenceLoads is fence, and leaves the changes that this process has queued.
func (e *Engine) fenceLoads(items []Item) {
	e.journal.mu.Lock()
	e.apply(e.Now(), items)
	e.journal.mu.Unlock()
	e.remove(items)
}

// renew invalidates items in this process and registers the load of key that
// follows, in one step: of two at a time the later one fences the earlier one.
func (e *Engine) renew(items []Item, key string, tags []string) *Load {
	e.owns.drop(e, items)
	e.journal.mu.Lock()
	e.apply(e.Now(), items)
	pos := e.journal.head
	e.journal.mu.Unlock()
	e.remove(items)
	l := e.NewLoad(key, tags)
	l.pos = pos
	return l
}

// apply puts items into the log and kills what they invalidate in O(1). The
// caller holds the journal's lock.
func (e *Engine) apply(now int64, items []Item) {
	if e.shared == nil { // else they are counted where they are asked for
		e.Count.Invalidations.Add(int64(len(items)))
	}
	head := e.journal.head
	e.journal.append(now, items)
	for i, it := range items {
		switch it.Kind {
		case Pattern:
			e.sweeps.add(head+uint64(i), it.Value, now)
		case Tag:
			e.stamps.kill(it.Value)
		case All:
			for p := range e.partitions() {
				e.endEra(p)
			}
		case tier.Era:
			if p := eraOf(it); p >= 0 {
				e.endEra(p)
			}
		}
	}
}

func (e *Engine) endEra(p int) { e.eras[p].Swap(new(stamp)).dead.Store(true) }

func (e *Engine) partitions() int { return int(e.parts.Load()) }

// mask returns the partitions that an entry depends on: its key's and its tags'.
func (e *Engine) mask(key string, tags []string) uint64 {
	n := e.partitions()
	if n == 1 {
		return 1
	}
	m := uint64(1) << tier.Partition(Name(key), n)
	for _, tag := range tags {
		m |= 1 << tier.Partition(tag, n)
	}
	return m
}

func (e *Engine) eraStamps(to []*stamp, mask uint64) []*stamp {
	for ; mask != 0; mask &= mask - 1 {
		to = append(to, e.eras[bits.TrailingZeros64(mask)].Load())
	}
	return to
}

// remove takes out of the tier what has no stamp to die by. It comes after
// apply: an insert that it misses has seen the item and is refused.
func (e *Engine) remove(items []Item) {
	for _, it := range items {
		if key, payload, ok := toldOf(it); ok {
			e.hear(key, payload)
			continue
		}
		switch it.Kind {
		case Key:
			e.tier.drop(it.Value)
		case All:
			e.tier.clear()
		}
	}
}

// Background runs fn in a goroutine that Close waits for, unless as many as
// allowed are running or the engine is closed. fn's context has parent's values,
// and ends with the engine and after limit.
func (e *Engine) Background(parent context.Context, limit time.Duration, fn func(context.Context)) bool {
	select {
	case e.slots <- struct{}{}:
	default:
		e.Count.RefreshesSkipped.Add(1)
		return false
	}
	ok := e.Spawn(parent, limit, func(ctx context.Context) {
		defer func() { <-e.slots }()
		fn(ctx)
	})
	if !ok {
		<-e.slots
	}
	return ok
}

// Refresh is Background for the load of a turn: when the engine is closed, it goes on
// for as long as somebody waits for it.
func (e *Engine) Refresh(parent context.Context, limit time.Duration, turn *Turn, fn func(context.Context)) bool {
	select {
	case e.slots <- struct{}{}:
	default:
		e.Count.RefreshesSkipped.Add(1)
		return false
	}
	ok := e.Serve(parent, limit, closedChannel, []*Turn{turn}, func(ctx context.Context) {
		defer func() { <-e.slots }()
		fn(ctx)
	})
	if !ok {
		<-e.slots
	}
	return ok
}

// Serve is Spawn for the load of turns, which goes on when the engine is closed until
// its caller has left and nobody waits for the turns. A caller who waits has lent it the
// parent (Lend).
func (e *Engine) Serve(parent context.Context, limit time.Duration, left <-chan struct{}, turns []*Turn, fn func(context.Context)) bool {
	return e.spawnUntil(tier.WithBatch(parent, nil), limit, fn, func(ctx context.Context) bool {
		select {
		case <-left:
		case <-ctx.Done():
			return false
		}
		return Unwatched(ctx, turns)
	})
}

// Unwatched waits until nobody waits for the loads of turns. It returns false if ctx has
// ended before.
func Unwatched(ctx context.Context, turns []*Turn) bool {
	for _, t := range turns {
		select {
		case <-t.Unwatched():
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// Spawn is Background without a bound of its own: each call has a caller who
// waits for it.
func (e *Engine) Spawn(parent context.Context, limit time.Duration, fn func(context.Context)) bool {
	// What goes on by itself is in no batch of its parent's.
	return e.spawn(tier.WithBatch(parent, nil), limit, fn)
}

// spawn is Spawn in the batch of its parent's.
func (e *Engine) spawn(parent context.Context, limit time.Duration, fn func(context.Context)) bool {
	return e.spawnUntil(parent, limit, fn, func(context.Context) bool { return true })
}

// spawnUntil runs fn in a goroutine that Close waits for. When the engine is closed its context is cancelled as soon as unwanted returns true; that
// waits for no longer than the context that it is given.
func (e *Engine) spawnUntil(parent context.Context, limit time.Duration, fn func(context.Context), unwanted func(context.Context) bool) bool {
	e.life.Lock()
	if e.closed.Load() {
		e.life.Unlock()
		return false
	}
	e.work.Add(1)
	e.atWork.Add(1)
	e.life.Unlock()
	parent = lasting(parent) // now: it may be recycled when this has returned
	go func() {
		defer e.work.Done()
		defer e.atWork.Add(-1)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(parent), limit)
		defer cancel()
		defer context.AfterFunc(e.ctx, func() {
			if unwanted(ctx) {
				cancel()
			}
		})()
		fn(ctx)
	}()
	return true
}

// Life returns a context that ends when the engine is closed.
func (e *Engine) Life() context.Context { return e.ctx }

// CanStore reports whether what is loaded for key could be stored at present: the
// shared tier, if there is one, can be asked about it.
func (e *Engine) CanStore(key string, tags ...string) bool {
	if e.shared == nil {
		return !e.closed.Load()
	}
	_, ok := e.shared.askable(key, tags)
	return ok && !e.closed.Load()
}

// Closed reports whether Close has been called.
func (e *Engine) Closed() bool { return e.closed.Load() }

// Close ends the engine: nothing is stored any more, the contexts of loads that nobody
// waits for are cancelled, and all are waited for until ctx ends.
func (e *Engine) Close(ctx context.Context) error {
	e.life.Lock()
	already := e.closed.Swap(true)
	e.life.Unlock()
	if already {
		return nil
	}
	e.cancel()
	if e.shared != nil {
		defer e.shared.close()
	}
	e.journal.mu.Lock()   // inserts under way have landed
	e.journal.mu.Unlock() //nolint:staticcheck // an empty critical section is a barrier here
	e.tier.close()
	if e.atWork.Load() == 0 { // however short the time that ctx leaves
		return nil
	}
	done := make(chan struct{})
	go func() {
		e.work.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Size returns the entries and bytes in the in-process tier, about.
func (e *Engine) Size() (entries int, bytes uint64) {
	return e.tier.cache.EstimatedSize(), e.tier.cache.WeightedSize()
}

// Tags returns how many tags have a generation, about.
func (e *Engine) Tags() int { return e.stamps.count() }
