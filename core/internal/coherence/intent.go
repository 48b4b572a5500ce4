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

// Intent says that a writer is at work on some keys and tags: in this process only, or in
// the shared tier. One call of End, EndWith, Lapse or Abandon ends it; later calls do nothing.
type Intent struct {
	here  *local.Intent // nil: it is in the shared tier
	there *sharedIntent
}

// sharedIntent is an intent in the shared tier.
type sharedIntent struct {
	e        *Engine
	items    []tier.Item
	id       string
	began    int64
	deadline int64
	once     sync.Once

	// EndWith compares them at its end (see write.go): where the intent's items are in
	// their logs, and the places before.
	logged map[tier.Item]tier.Position
	since  []place
}

// Began returns when the intent began, on the engine's clock.
func (in *Intent) Began() int64 {
	if in.here != nil {
		return in.here.Began()
	}
	return in.there.began
}

// Begin enters an intent on items, all of them keys or tags, that lasts for at most d:
// what they name is invalidated then, unless the intent has been closed before (R24). An
// error says that the shared tier has not confirmed it. Then the items are invalidated,
// now or when the tier can be reached; the writer may go on, and calls End.
func (e *Engine) Begin(ctx context.Context, items []tier.Item, d time.Duration) (*Intent, error) {
	if e.shared == nil {
		return &Intent{here: e.Cache.Begin(items, d)}, nil
	}
	s := e.shared
	in := &sharedIntent{
		e: e, items: items, id: rand.Text(),
		logged: make(map[tier.Item]tier.Position), since: s.places(), began: e.Now(),
	}
	in.deadline = in.began + int64(d)
	err := s.begin(ctx, items, &doing{id: in.id, mode: tier.Begin, lasts: d, remain: s.longest, logged: in.logged})
	if err != nil {
		in.logged = nil
	}
	return &Intent{there: in}, err
}

// End invalidates the intent's items, and more, and takes the intent out.
func (in *Intent) End(ctx context.Context, more []tier.Item) error {
	if in.here != nil {
		in.here.End(more)
		return nil
	}
	return in.there.end(ctx, more)
}

// EndWith is End, and stores f under key, which the intent is on, if this writer
// was the only one at work since it began and nobody has invalidated the key or
// its tags. The error is End's: without one the value may still not be stored, and
// is then loaded by the next request.
func (in *Intent) EndWith(ctx context.Context, key string, tags []string, f local.Fill) error {
	if in.here != nil {
		in.here.EndWith(key, tags, f)
		return nil
	}
	return in.there.endWith(ctx, key, tags, f)
}

// Lapse invalidates the intent's items and more, and leaves the intent open until its
// deadline, on those of more too that can have one: the write may still be committed.
// Earlier deadlines are entered besides, see local.Early.
func (in *Intent) Lapse(ctx context.Context, more []tier.Item) error {
	if in.here != nil {
		in.here.Lapse(more)
		return nil
	}
	return in.there.lapse(ctx, more)
}

// Abandon takes the intent out without invalidating: nothing was written, and what the
// deadline would have taken out stays.
func (in *Intent) Abandon(ctx context.Context) {
	if in.here != nil {
		in.here.Abandon()
		return
	}
	in.there.abandon(ctx)
}

// begin enters an intent in the tier. Where it may not be there the items are invalidated
// instead: what is read before they are, nobody would take out if the writer died.
func (s *shared) begin(ctx context.Context, items []tier.Item, do *doing) error {
	s.local.Count.Invalidations.Add(int64(len(items)))
	if s.pending.blockAll() {
		s.local.Fence(items)
		return pendingError(nil)
	}
	failed, err := s.try(ctx, items, do)
	if len(failed) == 0 {
		return nil
	}
	s.pending.add(s.local, failed)
	s.wake()
	s.local.Fence(failed)
	return pendingError(err)
}

func (in *sharedIntent) end(ctx context.Context, more []tier.Item) (err error) {
	in.once.Do(func() {
		s := in.e.shared
		err = s.invalidate(ctx, in.items, &doing{id: in.id, mode: tier.End})
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
		if written := local.Writable(more); left > 0 && len(written) > 0 {
			err = errors.Join(err, s.begin(ctx, written, &doing{id: in.id, mode: tier.Begin, lasts: left, remain: s.longest}))
		}
		all := local.Writable(append(in.items[:len(in.items):len(in.items)], more...))
		for i, d := range local.Early(in.began, in.e.Now(), in.deadline) {
			// One that fails costs nothing but its time: the intent's own deadline comes.
			_, _ = s.try(ctx, all, &doing{id: in.id + "." + strconv.Itoa(i), mode: tier.Begin, lasts: d, remain: s.longest})
		}
	})
	return err
}

func (in *sharedIntent) abandon(ctx context.Context) {
	in.once.Do(func() {
		// If it fails the intent lapses.
		_, _ = in.e.shared.try(ctx, in.items, &doing{id: in.id, mode: tier.Abandon})
	})
}
