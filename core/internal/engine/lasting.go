package engine

import (
	"context"
	"time"

	"github.com/maypok86/otter/v2"
)

// A Lasting value is a note that nothing but what knows as much takes the place of, as
// long as it lasts: an index of what the responses of a resource vary on. What several
// loads and instances have learnt is joined.
type Lasting interface {
	// Covers reports whether the value knows all that another one does.
	Covers(other Lasting) bool
	// Join returns a value that knows what both know, and is this process's own as the
	// value is. It takes no time: a lock is held.
	Join(other Lasting) Lasting
	// Size is that in memory.
	Size() int
	// Codec is how the shared tier keeps it.
	Codec() Codec
}

// Amend puts in place of what is under key what fn makes of it, in one step, and keeps
// that until a time on the engine's clock. fn gets the lasting value that is there and
// how long that is kept, or nil. It is called once at most, and calls nothing of the
// engine's but Now. A nil value changes nothing.
func (e *Engine) Amend(key string, fn func(old Lasting, until int64) (value Lasting, keep int64)) {
	stamps := e.eraStamps(nil, e.mask(key, nil))
	e.journal.mu.RLock()
	defer e.journal.mu.RUnlock()
	if e.closed.Load() {
		return
	}
	now, head := e.Now(), e.journal.head
	e.tier.cache.Compute(key, func(en *Entry, found bool) (*Entry, otter.ComputeOp) {
		var old Lasting
		until := int64(0)
		if found && en.State(now) != Gone {
			if old, _ = en.Value.(Lasting); old != nil {
				until = en.KeepUntil
			}
		}
		value, keep := fn(old, until)
		if value == nil || keep <= now {
			return en, otter.CancelOp
		}
		next := &Entry{
			Value: value, Born: now, FreshUntil: keep, StaleUntil: keep, KeepUntil: keep,
			stamps: stamps, weight: weigh(key, value.Size(), len(stamps)),
		}
		next.compared.Store(head)
		return next, otter.WriteOp
	})
}

// join puts a lasting value under key, or what it and one that is there know together.
func (e *Engine) join(key string, value Lasting, keep int64) {
	e.Amend(key, func(old Lasting, until int64) (Lasting, int64) {
		if old == nil {
			return value, keep
		}
		return old.Join(value), max(until, keep)
	})
}

// putUnless puts an entry into the tier that has been compared with the whole log, unless
// a lasting value is under key: then it returns false. The caller holds the journal's
// lock, for reading at least.
func (e *Engine) putUnless(key string, en *Entry) bool {
	en.compared.Store(e.journal.head)
	now, put := e.Now(), true
	e.tier.cache.Compute(key, func(old *Entry, found bool) (*Entry, otter.ComputeOp) {
		if found && old.State(now) != Gone {
			if _, lasts := old.Value.(Lasting); lasts {
				put = false
				return old, otter.CancelOp
			}
		}
		return en, otter.WriteOp
	})
	return put
}

// Learn puts a lasting value into the shared tier, in the background, for a while. done is
// told whether that has succeeded; without a shared tier it is not called.
func (e *Engine) Learn(key string, value Lasting, d time.Duration, done func(ok bool)) {
	s := e.shared
	if s == nil {
		return
	}
	ses, ok := s.askable(key, nil)
	ok = ok && e.Background(e.ctx, max(s.Budget, leaseTime), func(ctx context.Context) {
		payload, ok := value.Codec().Encode(value)
		done(ok && ses.Note(ctx, key, payload, min(d, maxKeep)) == nil)
	})
	if !ok {
		done(false)
	}
}
