package coherence

import (
	"context"
	"time"

	"github.com/larderhq/larder/core/internal/local"
	"github.com/larderhq/larder/core/internal/tier"
)

// Instances join their knowledge of a lasting value, so that no response is answered under
// less than all of them know. The tier has one place for it, which each instance writes in whole.
// A and B are instances, R is a response that says less (it does not vary).
//
//  1. A and B learn different things at a time. Each write returns what it has replaced.
//     A writer that has replaced more than its own value covers joins the two and writes
//     again, until its value covers the replaced one: no knowledge is lost, since the
//     instance that overwrites it holds it. A call whose reply is lost is repeated by the next variant.
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
// A value that the server evicts or loses is learnt again from the next response that
// varies. A gap in the log ends the era of the copies, and of the lasting values.

// maxLearn bounds how often a lasting value is written for what others write at a time.
const maxLearn = 8

// Learn puts a lasting value into the shared tier, in the background, for a while. done is
// told whether that has succeeded; without a shared tier it is not called.
func (e *Engine) Learn(key string, value local.Lasting, d time.Duration, done func(ok bool)) {
	s := e.shared
	if s == nil {
		return
	}
	ses, ok := s.askable(key, nil)
	ok = ok && e.Background(e.Life(), max(s.Budget, leaseTime), func(ctx context.Context) {
		news, payload, ok := e.learn(ctx, ses, key, value, min(d, maxKeep))
		if ok && news {
			s.announce(ctx, local.LearntItem(key, payload))
		}
		done(ok)
	})
	if !ok {
		done(false)
	}
}

// learn writes a value, and what it replaces that the value does not know. news: somebody
// may have known less.
func (e *Engine) learn(ctx context.Context, ses tier.Session, key string, value local.Lasting, d time.Duration) (news bool, payload []byte, ok bool) {
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
		other, lasts := old.(local.Lasting)
		if was.ID == "" || !readable || !lasts {
			return news || was.ID != "", payload, true
		}
		news = news || !other.Covers(mine)
		left := time.Duration(was.KeepUntil-was.Now) * time.Millisecond
		if value.Covers(other) && left <= d {
			return news, payload, true
		}
		value, d = value.Join(other), max(d, left)
		e.Join(key, other, e.Now()+int64(left))
	}
	return true, payload, true
}

// announce logs an item that is no invalidation of the app's. An item that the tier does not
// confirm is pending.
func (s *shared) announce(ctx context.Context, it tier.Item) {
	items := []tier.Item{it}
	if failed, _ := s.try(ctx, items, nil); len(failed) > 0 {
		s.pending.add(s.local, failed)
		s.wake()
	}
	s.local.Fence(items)
}

// heed takes notice of a lasting value that is found where it is not asked for.
func (a *asking) heed(en *tier.Entry) {
	if !tier.Learnt(en.ID) || len(en.Eras) != 0 {
		return
	}
	value, _, now, ok := a.decode(en)
	if lasting, lasts := value.(local.Lasting); ok && lasts {
		a.s.local.Join(a.t.Key(), lasting, now+(en.KeepUntil-en.Now)*1e6)
	}
}
