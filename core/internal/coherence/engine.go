package coherence

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/larderhq/larder/core/internal/local"
	"github.com/larderhq/larder/core/internal/tier"
)

// Settings configure an engine. All fields but Shared are required.
type Settings struct {
	MaxBytes    uint64        // of the in-process tier
	LongestLoad time.Duration // of any class: how long the tier remembers an intent that has lapsed
	Refreshes   int           // maximum of concurrent background refreshes
	Shared      *Sharing      // nil: this process only
}

// Engine is the cache of one process and what it shares with other instances. The embedded
// cache answers whatever concerns this process alone.
type Engine struct {
	*local.Cache
	shared *shared // nil: no tier is shared
	queue  atomic.Pointer[LocalQueue]
	behind behind // loads and fills behind a response
	closed atomic.Bool
}

// New makes an engine.
func New(s Settings) (*Engine, error) {
	e := &Engine{behind: newBehind(s.Refreshes, s.MaxBytes)}
	settings := local.Settings{MaxBytes: s.MaxBytes, Refreshes: s.Refreshes}
	if s.Shared != nil {
		e.shared = newShared(*s.Shared, s.MaxBytes, s.LongestLoad)
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
		_ = cache.Close(context.Background()) // nothing is at work yet
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

// Lookup returns the entry under key, if it may be answered now. It does not count: the
// caller knows whether a lookup is a hit or a miss.
func (e *Engine) Lookup(key string) (*local.Entry, local.State) { return e.LookupAt(key, e.Now()) }

// LookupAt is Lookup for a caller that has read the clock. key may be a view of a
// buffer that is used again: it is not kept.
func (e *Engine) LookupAt(key string, now int64) (*local.Entry, local.State) {
	en, state := e.Cache.LookupAt(key, now)
	if en != nil && e.shared != nil && !e.shared.Legal(en.Partitions(), now) {
		return nil, local.Gone // it may be legal again: it stays
	}
	return en, state
}

// Note is Put, and for the other instances as well: in the background, when the
// shared tier has time for it.
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

// ForgetEntry takes en out, unless another entry has taken its place, and for the
// other instances as well: it waits for that for what is left of the turn's budget.
func (t *Turn) ForgetEntry(ctx context.Context, key string, en *local.Entry) {
	t.e.DropEntry(key, en)
	s := t.e.shared
	if s == nil || en.ID == "" {
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

// Refresh is Background for the load of a turn: when the engine is closed, it goes on
// for as long as somebody waits for it.
func (e *Engine) Refresh(parent context.Context, limit time.Duration, turn *Turn, fn func(context.Context)) bool {
	return e.Slot(fn, func(fn func(context.Context)) bool {
		return e.Serve(parent, limit, nil, []*Turn{turn}, fn)
	})
}

// Serve is Spawn for the load of turns, which goes on when the engine is closed until
// its caller has left (nil: it has left) and nobody waits for the turns. A caller who waits has lent it the
// parent (Lend).
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

// CanStore reports whether a value that is loaded for key could be stored at present: the
// shared tier, if there is one, can be asked about it.
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

// Close ends the engine: nothing is stored any more, the contexts of loads that nobody
// waits for are cancelled, and all are waited for until ctx ends. Later calls do nothing.
func (e *Engine) Close(ctx context.Context) error {
	if e.closed.Swap(true) {
		return nil
	}
	if e.shared != nil {
		defer e.shared.close()
	}
	return e.Cache.Close(ctx)
}
