package coherence

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/larderhq/larder/core/internal/local"
	"github.com/larderhq/larder/core/internal/tier"
)

// Write-through (R25): a writer that knows the value ends its intent with it. The
// interleavings that must not leave the cache behind the database:
//
//	A begins, B begins, A saves 1, B saves 2, B ends with 2, A ends with 1:
//	    A finds B's beginning in the log, B found A's intent open: neither stores.
//	A begins, saves 1; B begins, saves 2, ends with 2; A ends with 1:
//	    A finds B's items in the log; B found A's intent open.
//	B began before A and ends after it: A finds B's intent open; B finds A's items.
//	B began before A and dies: its intent is open, or it has lapsed since A began;
//	    A stores nothing either way. If it had lapsed before that, nobody can know
//	    whether it commits later: the limit of R24.
//	somebody invalidates, sweeps or ends an era between the two: it is in the log, or
//	    the era differs.
//
// So the value is stored only by a writer who was alone from its beginning to the
// moment at which the lease to store it was there; whatever comes after that ends
// the lease, or a generation or era that came with it.

// A version that the database gives could tell more: what is valid in the cache at
// A's end, loaded since B ended and with a version below A's, would show that B's is
// below too. But an id that is deleted and created again may begin its versions anew:
//
//	A saves 9; B deletes, C creates 1, both end; 1 is loaded; A ends with 9
//
// So versions only ever forbid to store.

// Newer reports whether there is an entry under key that may be answered, has been loaded
// since a time, and that f is older than, in this process or in the shared tier. What was
// loaded before a writer began says nothing: an id that is created again may begin its
// versions anew.
//
// The entry may have been stored a moment ago, by a writer whose invalidation is heard of
// while it is read: then it is not admitted, as if it were from before. It is read again,
// and taken for newer if nobody comes to know: nothing is stored then.
func (e *Engine) Newer(ctx context.Context, key string, tags []string, f local.Fill, since int64) bool {
	if f.Older == nil {
		return false
	}
	const looks = 3
	for range looks {
		if en, state := e.Lookup(key); state >= local.Stale {
			return en.Born >= since && f.Older(en)
		}
		found := e.lookAlone(ctx, key, tags, f.Codec)
		switch {
		case usable(found):
			return found.Entry.Born >= since && f.Older(found.Entry)
		case !found.fenced:
			return false
		}
	}
	return true
}

// lookAlone reads the shared tier's entry under key.
func (e *Engine) lookAlone(ctx context.Context, key string, tags []string, codec local.Codec) Found {
	t := e.Alone(key, tags)
	defer t.Finish(local.Outcome{Verdict: local.Unshareable})
	return t.Look(ctx, Query{Codec: codec})
}

func (in *sharedIntent) endWith(ctx context.Context, key string, tags []string, f local.Fill) (err error) {
	in.once.Do(func() { err = in.endWithOnce(ctx, key, tags, f) })
	return err
}

func (in *sharedIntent) endWithOnce(ctx context.Context, key string, tags []string, f local.Fill) error {
	e, s := in.e, in.e.shared
	did := &doing{id: in.id, mode: tier.End, logged: make(map[tier.Item]tier.Position)}
	if err := s.invalidate(ctx, in.items, did); err != nil {
		return err
	}
	l := e.FenceAndLoad(in.items, key, tags)
	if in.logged == nil || e.Now() >= in.deadline {
		return nil
	}
	e.storeFor(ctx, key, tags, f, func(ctx context.Context, t *Turn) bool {
		t.Load = l
		if !in.wasAlone(ctx, t, did.logged, key, tags) {
			return false
		}
		t.held.since, t.held.sent = in.since, in.began // the tags that f names are compared from there on
		return true
	})
	return nil
}

// errNotLogged says that an item is in no log: an era ended in its place.
var errNotLogged = errors.New("larder: no item of the writer's own in the log")

// wasAlone reports whether nobody else has been at work on the key and its tags
// since the intent began: no other intent is open, none has lapsed since, and the
// logs hold nothing that concerns them but this writer's own items.
func (in *sharedIntent) wasAlone(ctx context.Context, t *Turn, ended map[tier.Item]tier.Position, key string, tags []string) bool {
	e, h, b := in.e, t.held, &t.asked.budget
	n := e.Partitions()
	lapsed := func(ago time.Duration) bool {
		return ago > 0 && int64(ago) <= e.Now()-in.began+int64(time.Millisecond)
	}
	if h.lease.Open > 0 || lapsed(h.lease.Lapsed) || !h.inErasOf(in.since) {
		return false
	}
	if slices.ContainsFunc(h.lease.Generations, func(g tier.Generation) bool { return g.Open > 0 }) {
		return false
	}
	clean := func(since tier.Log) bool {
		return since.Joined && !slices.ContainsFunc(since.Items, func(it tier.Logged) bool {
			return !ownItem(in.logged, it) && !ownItem(ended, it) && e.Concerns(meant(it.Item), key, tags)
		})
	}
	var own tier.Log
	lates := make([]tier.Late, len(tags))
	asks := []func(context.Context) error{func(ctx context.Context) (err error) {
		pos, ok := in.logged[tier.Item{Kind: tier.Key, Value: key}]
		if !ok {
			return errNotLogged
		}
		own, err = h.ses.Log(ctx, tier.Partition(tier.Name(key), n), pos)
		return err
	}}
	for i, tag := range tags {
		asks = append(asks, func(ctx context.Context) (err error) {
			pos, ok := in.logged[tier.Item{Kind: tier.Tag, Value: tag}]
			if !ok {
				return errNotLogged
			}
			lates[i], err = h.ses.Late(ctx, tag, pos)
			return err
		})
	}
	if b.together(ctx, asks) != nil || !clean(own) {
		return false
	}
	return !slices.ContainsFunc(lates, func(late tier.Late) bool {
		return !clean(late.Log) || late.Open > 0 || lapsed(late.Lapsed)
	})
}

// meant returns what an item is about: the beginning of a writer's work on a key or tag
// counts as an invalidation to another writer.
func meant(it tier.Item) tier.Item {
	if in, ok := tier.IntentOf(it); ok {
		return in.Item
	}
	return it
}
