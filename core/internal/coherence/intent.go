package coherence

import (
	"context"
	"crypto/rand"
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/larderhq/larder/core/internal/local"
	"github.com/larderhq/larder/core/internal/tier"
)

// Intent announces the write of a writer on some keys and tags, in this process or in the
// shared tier. One call of End, EndWith, Lapse or Abandon ends it; later calls do nothing.
type Intent struct {
	local  *local.Intent // nil: the intent is in the shared tier
	shared *sharedIntent
}

// sharedIntent is an intent in the shared tier.
type sharedIntent struct {
	e        *Engine
	items    []tier.Item
	id       string
	began    int64
	deadline int64
	once     sync.Once

	// EndWith compares them (see write.go): the positions of the intent's items, nil if the
	// Begin was not confirmed, and the places before it.
	logged map[tier.Item]tier.Position
	before []place
}

// Began returns the begin of the intent, on the engine's clock.
func (in *Intent) Began() int64 {
	if in.local != nil {
		return in.local.Began()
	}
	return in.shared.began
}

// Begin enters an intent on items, all of them keys or tags, for a time: they are invalidated
// when it ends, unless the intent has been closed before (R24). If the shared tier does not
// confirm the intent, Begin returns it with an error, and invalidates the items instead, now or
// when the tier can be reached. The writer may proceed, and calls End.
func (e *Engine) Begin(ctx context.Context, items []tier.Item, d time.Duration) (*Intent, error) {
	if e.shared == nil {
		return &Intent{local: e.Cache.Begin(items, d)}, nil
	}
	s := e.shared
	in := &sharedIntent{
		e: e, items: items, id: rand.Text(),
		logged: make(map[tier.Item]tier.Position), before: s.places(), began: e.Now(),
	}
	in.deadline = in.began + int64(d)
	err := s.begin(ctx, items, &operation{id: in.id, mode: tier.Begin, lasts: d, remain: s.longest, logged: in.logged})
	if err != nil {
		in.logged = nil
	}
	return &Intent{shared: in}, err
}

// End invalidates the items of the intent, and more, and closes the intent.
func (in *Intent) End(ctx context.Context, more []tier.Item) error {
	if in.local != nil {
		in.local.End(more)
		return nil
	}
	return in.shared.end(ctx, more)
}

// EndWith is End, and stores f under key, on which the intent is, if no other writer was at
// work since the intent's begin, and the key and its tags were not invalidated. The error is
// that of End. If the value was not stored, the next request loads it.
func (in *Intent) EndWith(ctx context.Context, key string, tags []string, f local.Fill) error {
	if in.local != nil {
		in.local.EndWith(key, tags, f)
		return nil
	}
	return in.shared.endWith(ctx, key, tags, f)
}

// Lapse invalidates the items of the intent, and more, and leaves the intent open until its
// deadline, since the write may still be committed. It also covers the keys and tags of more
// with the intent, and enters earlier deadlines (see local.Early).
func (in *Intent) Lapse(ctx context.Context, more []tier.Item) error {
	if in.local != nil {
		in.local.Lapse(more)
		return nil
	}
	return in.shared.lapse(ctx, more)
}

// Abandon closes the intent without an invalidation: nothing was written, and the entries
// that the deadline would have ended stay.
func (in *Intent) Abandon(ctx context.Context) {
	if in.local != nil {
		in.local.Abandon()
		return
	}
	in.shared.abandon(ctx)
}

// begin enters an intent in the tier. If the tier does not confirm it, the items are
// invalidated instead: no deadline would end an entry that is read before the commit of a
// writer that dies.
func (s *shared) begin(ctx context.Context, items []tier.Item, op *operation) error {
	s.local.Count.Invalidations.Add(int64(len(items)))
	if s.pending.isAll() {
		s.local.Fence(items)
		return pendingError(nil)
	}
	failed, err := s.execute(ctx, items, op)
	if len(failed) == 0 {
		return nil
	}
	s.pending.add(s.local, failed)
	s.requestRound()
	s.local.Fence(failed)
	return pendingError(err)
}

func (in *sharedIntent) end(ctx context.Context, more []tier.Item) (err error) {
	in.once.Do(func() {
		s := in.e.shared
		err = s.invalidate(ctx, in.items, &operation{id: in.id, mode: tier.End})
		if len(more) > 0 {
			err = errors.Join(err, s.invalidate(ctx, more, nil))
		}
	})
	return err
}

func (in *sharedIntent) lapse(ctx context.Context, more []tier.Item) (err error) {
	in.once.Do(func() {
		s := in.e.shared
		err = s.invalidate(ctx, in.items, nil)
		if len(more) > 0 {
			err = errors.Join(err, s.invalidate(ctx, more, nil))
		}
		left := time.Duration(in.deadline - in.e.Now())
		if written := local.KeysAndTags(more); left > 0 && len(written) > 0 {
			err = errors.Join(err, s.begin(ctx, written, &operation{id: in.id, mode: tier.Begin, lasts: left, remain: s.longest}))
		}
		all := local.KeysAndTags(append(in.items[:len(in.items):len(in.items)], more...))
		for i, d := range local.EarlierDeadlines(in.began, in.e.Now(), in.deadline) {
			// If one fails, a later deadline takes its place.
			_, _ = s.execute(ctx, all, &operation{id: in.id + "." + strconv.Itoa(i), mode: tier.Begin, lasts: d, remain: s.longest})
		}
	})
	return err
}

func (in *sharedIntent) abandon(ctx context.Context) {
	in.once.Do(func() {
		// If it fails, the intent lapses.
		_, _ = in.e.shared.execute(ctx, in.items, &operation{id: in.id, mode: tier.Abandon})
	})
}
