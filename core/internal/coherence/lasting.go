package coherence

import (
	"context"
	"time"

	"github.com/larderhq/larder/core/internal/local"
	"github.com/larderhq/larder/core/internal/tier"
)

// A stored note (local.Lasting) holds the fields on which the responses of a resource vary.
// Instances join their notes, so that no response is answered under fewer fields than all
// instances together know. The tier has one place for the note, and each write replaces it as
// a whole. A and B are instances; R is a response that names fewer fields (it does not vary).
//
//  1. A and B learn different fields concurrently. Each write returns the note that it has
//     replaced. A writer whose note lacks fields of the replaced one joins the two and
//     writes again, until its note covers the replaced one. No field is lost, since the
//     instance that overwrites it holds it. A write whose reply is lost is repeated with the
//     next variant.
//  2. B loads R under a lease that it took before A's note. The fill of R finds the note,
//     which its lease has not seen, and stores nothing (Session.Learn). A mark (Note) does
//     not replace the note either.
//  3. B asks for a lease only (no-cache), and need not answer the note that is there. It joins
//     the note with its own (fetch.joinNote), so that R is stored in the place that the note
//     gives it.
//  4. B keeps R, or a note with fewer fields, in memory. A has replaced R, or B's note, in the
//     tier. A logs an item in the key's partition. Beyond MaxStaleness the partition is legal
//     in B only if B has applied that item: B drops R, and joins the fields of the item with
//     its own.
//  5. B has read R from the tier before A's write, and would keep it after the item was
//     applied. The item fences loads and reads of the key.
//  6. In one process a running load of R finds the note in the place of its entry, and is
//     refused (putUnless).
//
// A note that the server evicts or loses is learned again from the next response that varies.
// A gap in the log ends the era of the copies, and of the notes.

// maxLearn bounds the writes of one note, if others write concurrently.
const maxLearn = 8

// Learn writes a note to the shared tier in the background, for a time. It calls done with the
// outcome. Without a shared tier it does nothing.
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

// learn writes a note, joined with the notes that it replaces. news: another instance may have
// known fewer fields.
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

// announce logs an item that the app did not invalidate. If the tier does not confirm it, the
// item is pending.
func (s *shared) announce(ctx context.Context, it tier.Item) {
	items := []tier.Item{it}
	if failed, _ := s.execute(ctx, items, nil); len(failed) > 0 {
		s.pending.add(s.local, failed)
		s.requestRound()
	}
	s.local.Fence(items)
}
