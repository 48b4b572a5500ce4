package coherence

import (
	"context"
	"errors"
	"slices"

	"github.com/larderhq/larder/core/internal/local"
	"github.com/larderhq/larder/core/internal/tier"
)

// Write-through (R25): a writer that knows the new value ends its intent with it. The following
// interleavings must not leave an older value in the cache than in the database. A, B and C
// are writers.
//
//	A begins, B begins, A saves 1, B saves 2,    A finds B's Begin in the log, and B found
//	B ends with 2, A ends with 1                 A's intent open: neither stores.
//	A begins, saves 1; B begins, saves 2, ends   A finds B's items in the log, and B found
//	with 2; A ends with 1                        A's intent open.
//	B begins before A, and ends after A          A finds B's intent open, and B finds A's
//	                                             items.
//	B begins before A, and dies                  B's intent is open, or its deadline has passed
//	                                             since A's Begin: A stores nothing. If the
//	                                             deadline passed before that, B may still
//	                                             commit later (the limit of R24).
//	an invalidation, a pattern or the end of     The log has the item, or the era differs.
//	an era comes in between
//
// A writer therefore stores its value only if it was the only writer from its Begin to the
// grant of the lease. Any later item ends the lease, or a generation or era that came with it.
//
// A version of the database could prove more. Suppose that the valid value in the cache at A's
// end was loaded after B's end, and has a lower version than A's. Then B's version would be
// lower as well. But an id that is deleted and created again may restart its versions:
//
//	A saves 9; B deletes, C creates 1, both end; 1 is loaded; A ends with 9
//
// A version can therefore only forbid a store.

// Newer reports whether a valid entry under key, in this process or in the shared tier, has been
// loaded since a time and is newer than f. An entry from before the writer's Begin proves
// nothing, since an id that is created again may restart its versions.
//
// Another writer may have stored the entry a moment ago, so that its invalidation is heard of
// while the entry is read. The entry is then not admitted, and is read again. If that
// happens every time, Newer reports true, and nothing is stored.
func (e *Engine) Newer(ctx context.Context, key string, tags []string, f local.Fill, since int64) bool {
	if f.Older == nil {
		return false
	}
	const attempts = 3
	for range attempts {
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

// lookAlone reads the entry under key from the shared tier.
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
	op := &operation{id: in.id, mode: tier.End, logged: make(map[tier.Item]tier.Position)}
	if err := s.invalidate(ctx, in.items, op); err != nil {
		return err
	}
	l := e.FenceAndLoad(in.items, key, tags)
	if in.logged == nil || e.Now() >= in.deadline {
		return nil
	}
	e.storeFor(ctx, key, tags, f, func(ctx context.Context, t *Turn) bool {
		t.Load = l
		if !in.wasAlone(ctx, t, op.logged, key, tags) {
			return false
		}
		t.held.before, t.held.sent, t.held.registered = in.before, in.began, false // late tags of f are compared from there on
		return true
	})
	return nil
}

// errNotLogged is the error of an item that is in no log: an era has ended instead.
var errNotLogged = errors.New("larder: the log has no item of the writer")

// wasAlone reports whether no other writer was at work on the key and its tags since the
// intent's begin: no other intent is open or has passed its deadline since, and the logs
// have no item that concerns them, except this writer's own.
func (in *sharedIntent) wasAlone(ctx context.Context, t *Turn, ended map[tier.Item]tier.Position, key string, tags []string) bool {
	lease := &t.held.lease
	if lease.Open > 0 || in.e.shared.lapsedSince(lease.Lapsed, in.began) || !t.held.inErasBefore(in.before) {
		return false
	}
	if slices.ContainsFunc(lease.Generations, func(g tier.Generation) bool { return g.Open > 0 }) {
		return false
	}
	since, lates, ok := in.logsSince(ctx, t, key, tags)
	if !ok {
		return false
	}
	clean := func(since *tier.Log) bool {
		return since.Joined && !slices.ContainsFunc(since.Items, func(it tier.Logged) bool {
			return !isOwn(in.logged, it) && !isOwn(ended, it) && in.e.Concerns(asInvalidation(it.Item), key, tags)
		})
	}
	return clean(&since) && !slices.ContainsFunc(lates, func(late tier.Late) bool {
		return !clean(&late.Log) || late.Open > 0 || in.e.shared.lapsedSince(late.Lapsed, in.began)
	})
}

// logsSince reads the logs of the key and its tags since the intent's own items.
func (in *sharedIntent) logsSince(ctx context.Context, t *Turn, key string, tags []string) (since tier.Log, lates []tier.Late, ok bool) {
	ses, n := t.held.ses, in.e.Partitions()
	questions := []func(context.Context) error{func(ctx context.Context) (err error) {
		pos, ok := in.logged[tier.Item{Kind: tier.Key, Value: key}]
		if !ok {
			return errNotLogged
		}
		since, err = ses.Log(ctx, tier.Partition(tier.Name(key), n), pos)
		return err
	}}
	lates = make([]tier.Late, len(tags))
	for i, tag := range tags {
		questions = append(questions, func(ctx context.Context) (err error) {
			pos, ok := in.logged[tier.Item{Kind: tier.Tag, Value: tag}]
			if !ok {
				return errNotLogged
			}
			lates[i], err = ses.Late(ctx, tag, pos)
			return err
		})
	}
	err := t.fetch.budget.together(ctx, questions)
	return since, lates, err == nil
}

// asInvalidation returns the item of an intent as the invalidation that it announces, and any
// other item as it is: to other writers a Begin on a key or tag counts as an
// invalidation.
func asInvalidation(it tier.Item) tier.Item {
	if in, ok := tier.IntentOf(it); ok {
		return in.Item
	}
	return it
}
