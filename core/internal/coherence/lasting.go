package coherence

import (
	"context"
	"encoding/binary"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/larderhq/larder/core/internal/tier"
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

// What instances know of a lasting value is joined, so that no response is answered under
// less than all know. The tier has one place for it, which each instance writes in whole.
// A and B are instances, R is a response that says less (it does not vary).
//
//  1. A and B learn different things at a time. Each write returns what it has replaced.
//     Whoever has replaced what the own value lacks joins the two and writes again, until
//     nothing is replaced that is not covered: what is overwritten is in the hands of the
//     one who did so. A call whose reply is lost is repeated by the next variant.
//  2. B loads R under a lease that it took before A learnt. The fill of R finds what A has
//     stored, which its lease has not seen, and stores nothing (Session.Learn). A mark (Note)
//     does not take its place either.
//  3. B asks for a lease anew (no-cache) beside what A has stored, which it need not answer.
//     It takes notice of that: R gets the place that it has under it (asking.heed).
//  4. B has R in process, or has less. A has replaced R, or less than its own, in the tier;
//     then it logs an item (told) in the key's partition, without which B's copy is not
//     legal beyond MaxStaleness. B drops R, and joins what the item tells to its own.
//  5. B has read R from the tier before A stored, and keeps it after the item was applied.
//     The item fences what is loaded or read for the key.
//  6. In one process a load of R that is under way finds the lasting value in its place, and
//     is refused (putUnless).
//
// What is evicted by the server, or lost with it, is learnt again from the next response
// that varies. A gap in the log ends the era of the copies, and of the lasting values.

// maxLearn bounds how often a lasting value is written for what others write at a time.
const maxLearn = 8

// Learn puts a lasting value into the shared tier, in the background, for a while. done is
// told whether that has succeeded; without a shared tier it is not called.
func (e *Engine) Learn(key string, value Lasting, d time.Duration, done func(ok bool)) {
	s := e.shared
	if s == nil {
		return
	}
	ses, ok := s.askable(key, nil)
	ok = ok && e.Background(e.ctx, max(s.Budget, leaseTime), func(ctx context.Context) {
		news, payload, ok := e.learn(ctx, ses, key, value, min(d, maxKeep))
		if ok && news {
			s.announce(ctx, told(key, payload))
		}
		done(ok)
	})
	if !ok {
		done(false)
	}
}

// learn writes a value, and what it replaces that the value does not know. news: somebody
// may have known less.
func (e *Engine) learn(ctx context.Context, ses tier.Session, key string, value Lasting, d time.Duration) (news bool, payload []byte, ok bool) {
	c, mine := value.Codec(), value
	for range maxLearn {
		if payload, ok = c.Encode(value); !ok {
			return false, nil, false
		}
		was, err := ses.Learn(ctx, key, payload, d)
		if err != nil {
			return false, nil, false
		}
		old, _, readable := c.Decode(was.Payload, 0)
		other, lasts := old.(Lasting)
		if was.ID == "" || !readable || !lasts {
			return news || was.ID != "", payload, true
		}
		news = news || !other.Covers(mine)
		left := time.Duration(was.KeepUntil-was.Now) * time.Millisecond
		if value.Covers(other) && left <= d {
			return news, payload, true
		}
		value, d = value.Join(other), max(d, left)
		e.join(key, other, e.Now()+int64(left))
	}
	return true, payload, true
}

// told returns the item that tells other instances what has been learnt of a key. It is
// logged in the key's partition, and is no key's own: those do not end so.
func told(key string, payload []byte) Item {
	b := append([]byte(key), payload...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
	return Item{Kind: Key, Value: string(append(b, NameEnd))}
}

// toldOf returns what an item tells of which key.
func toldOf(it Item) (key, payload string, ok bool) {
	n := len(it.Value) - 5
	if it.Kind != Key || n < 0 || it.Value[n+4] != NameEnd {
		return "", "", false
	}
	size := uint64(binary.BigEndian.Uint32([]byte(it.Value[n : n+4])))
	if size > uint64(n) {
		return "", "", false
	}
	return it.Value[:n-int(size)], it.Value[n-int(size) : n], true
}

// hear applies what another instance has learnt of a key: what is there that is less goes.
func (e *Engine) hear(key, payload string) {
	var more Lasting
	e.Amend(key, func(old Lasting, until int64) (Lasting, int64) {
		if old == nil {
			return nil, 0
		}
		value, _, ok := old.Codec().Decode([]byte(payload), 0)
		other, lasts := value.(Lasting)
		if !ok || !lasts { // of another version of the app
			return nil, 0
		}
		more = old.Join(other)
		return more, until
	})
	if more == nil {
		e.tier.drop(key)
	}
}

// announce logs an item that is no invalidation of the app's. What does not succeed is
// pending.
func (s *shared) announce(ctx context.Context, it Item) {
	items := []Item{it}
	if failed, _ := s.try(ctx, items, nil); len(failed) > 0 {
		s.pending.add(s.e, failed)
		s.wake()
	}
	s.e.fence(items)
}

// heed takes notice of a lasting value that is found where it is not asked for.
func (a *asking) heed(en *tier.Entry) {
	if !tier.Learnt(en.ID) || len(en.Eras) != 0 {
		return
	}
	value, _, now, ok := a.decode(en)
	if lasting, lasts := value.(Lasting); ok && lasts {
		a.s.e.join(a.t.key, lasting, now+(en.KeepUntil-en.Now)*1e6)
	}
}
