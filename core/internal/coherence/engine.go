package coherence

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/larderhq/larder/core/internal/local"
	"github.com/larderhq/larder/core/internal/tier"
)

// Settings configure an engine. All fields except Shared are required.
type Settings struct {
	MaxBytes    uint64        // of the in-process tier
	LongestLoad time.Duration // the longest load of any class; the tier remembers a lapsed intent for that time
	Refreshes   int           // maximum of concurrent background refreshes
	Shared      *Sharing      // nil: no tier is shared
}

// Engine is the cache of one process together with the tier that it shares with other
// instances. The embedded cache holds everything that concerns this process alone.
type Engine struct {
	*local.Cache
	// TierCount counts the events of the shared tier. Its counters are 0 without one.
	TierCount Counters

	shared *shared // nil: no tier is shared
	queue  atomic.Pointer[LocalQueue]
	behind behind // fills and loads behind a response
	closed atomic.Bool
}

// New makes an engine.
func New(s Settings) (*Engine, error) {
	e := &Engine{behind: newBehind(s.Refreshes, s.MaxBytes)}
	settings := local.Settings{MaxBytes: s.MaxBytes, Refreshes: s.Refreshes}
	if s.Shared != nil {
		e.shared = newShared(*s.Shared, s.MaxBytes, s.LongestLoad)
		e.shared.count = &e.TierCount
		settings.Guard = e.shared
	}
	cache, err := local.New(settings)
	if err != nil {
		return nil, err
	}
	e.Cache = cache
	if e.shared == nil {
		return e, nil
	}
	if err := e.shared.start(cache); err != nil {
		_ = cache.Close(context.Background()) // no goroutine runs yet
		return nil, err
	}
	return e, nil
}

// Now returns the engine's time: nanoseconds since it was made, by the monotonic
// clock. It starts above zero.
func (e *Engine) Now() int64 {
	now := e.Monotonic()
	if e.shared != nil {
		e.shared.CheckClocks(now)
	}
	return now
}

// Lookup returns the entry under key if it may be answered now. It counts neither a hit nor
// a miss: the caller knows which of them the lookup is.
func (e *Engine) Lookup(key string) (*local.Entry, local.State) { return e.LookupAt(key, e.Now()) }

// LookupAt is Lookup for a caller that has read the clock. The key is not kept, so that it may
// be a view of a buffer that is used again.
func (e *Engine) LookupAt(key string, now int64) (*local.Entry, local.State) {
	en, state := e.Cache.LookupAt(key, now)
	if en == nil || e.shared == nil {
		return en, state
	}
	e.shared.demand()
	return e.proven(key, en, now)
}

// proven returns an entry that was found in memory if its partitions are legal (R4). An entry whose
// partitions are not legal stays, since they may become so again. A round may have fenced the
// entry after it was found, and then have made its partitions legal: its state is read again.
func (e *Engine) proven(key string, en *local.Entry, now int64) (*local.Entry, local.State) {
	if !e.shared.Legal(en.Partitions(), now) {
		return nil, local.Gone
	}
	state := e.StateOf(key, en, now)
	if state == local.Gone {
		return nil, local.Gone
	}
	return en, state
}

// Note is Put for all instances. The shared tier is written in the background.
func (e *Engine) Note(key string, value any, size int, d time.Duration, c local.Codec) {
	s := e.shared
	if !e.Put(key, value, size, d) || s == nil {
		return
	}
	ses, ok := s.askable(key, nil)
	payload, has := c.Encode(value)
	if !ok || !has {
		return
	}
	e.Background(e.Life(), max(s.Budget, leaseTime), func(ctx context.Context) {
		_ = ses.Note(ctx, key, payload, min(d, maxKeep)) // a note that is lost costs a miss
	})
}

// Forget removes the entries under some keys, here at once and in the shared tier in
// the background. It is no invalidation.
func (e *Engine) Forget(keys []string) {
	for _, key := range keys {
		e.Drop(key)
	}
	if e.shared != nil && len(keys) > 0 {
		e.Background(e.Life(), behindWait, func(ctx context.Context) {
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

// ForgetEntry removes en, here and in the shared tier, unless another entry has taken its
// place. It waits for the tier for the rest of the turn's budget.
func (t *Turn) ForgetEntry(ctx context.Context, key string, en *local.Entry) {
	t.e.DropEntry(key, en)
	s := t.e.shared
	if s == nil || en.ID() == "" {
		return
	}
	wait := s.Budget / 2
	if t.fetch != nil {
		wait = t.fetch.budget.left
	}
	e := t.e
	began := time.Now()
	e.outlast(ctx, wait, func(ctx context.Context) { e.forget(ctx, key) })
	if t.fetch != nil {
		t.fetch.budget.left -= time.Since(began)
	}
}

// forget removes the entry under key from the shared tier. If the call fails, the entry
// stays until it expires.
func (e *Engine) forget(ctx context.Context, key string) {
	if ses, ok := e.shared.askable(key, nil); ok {
		_ = ses.Note(ctx, key, nil, time.Millisecond)
	}
}

// Refresh is Background for the load of a turn. After Close the load continues while a request waits for it.
func (e *Engine) Refresh(parent context.Context, limit time.Duration, turn *Turn, fn func(context.Context)) bool {
	return e.Slot(fn, func(fn func(context.Context)) bool {
		return e.Serve(parent, limit, nil, []*Turn{turn}, fn)
	})
}

// Serve is Spawn for the load of turns. After Close the load continues until its caller has
// left (a nil channel: it has left) and no request waits for the turns. A caller
// that waits has lent the parent (Lend).
func (e *Engine) Serve(parent context.Context, limit time.Duration, left <-chan struct{}, turns []*Turn, fn func(context.Context)) bool {
	return e.SpawnUntil(tier.WithBatch(parent, nil), limit, fn, func(ctx context.Context) bool {
		if left != nil {
			select {
			case <-left:
			case <-ctx.Done():
				return false
			}
		}
		return Unwatched(ctx, turns)
	})
}

// Unwatched waits until no request waits for the loads of turns. It returns false if ctx
// ended first.
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

// CanStore reports whether a value that is loaded for key could be stored at present: there
// is no shared tier, or the tier can be asked for the key.
func (e *Engine) CanStore(key string, tags ...string) bool {
	if e.Closed() {
		return false
	}
	if e.shared == nil {
		return true
	}
	_, ok := e.shared.askable(key, tags)
	return ok
}

// Close ends the engine: nothing is stored any more, the contexts of loads for which no
// request waits are cancelled, and Close waits for all loads until ctx ends. Later calls do
// nothing.
func (e *Engine) Close(ctx context.Context) error {
	if e.closed.Swap(true) {
		return nil
	}
	if e.shared != nil {
		defer e.shared.close()
	}
	return e.Cache.Close(ctx)
}
