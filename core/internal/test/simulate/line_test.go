package simulate_test

import (
	"context"
	"crypto/rand"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/larderhq/larder/core/internal/tier"
)

// line is one process's connection to the tier, which can be cut. Then calls wait for their
// deadlines, replies under way are lost, and no message arrives.
type line struct {
	mu       sync.Mutex
	restored chan struct{} // not nil while it is cut

	slow     time.Duration             // a call that takes longer fails
	failed   func()                    // not nil: called when a call has failed
	settling atomic.Pointer[func()]    // called before changes are settled
	settled  atomic.Pointer[func()]    // called when they have been settled, before the reply arrives
	changed  atomic.Pointer[func()]    // called after an invalidation, before the reply arrives
	leased   atomic.Pointer[func()]    // called after a question for a lease, before the reply arrives
	filling  atomic.Pointer[func()]    // called before a fill is sent
	noChange atomic.Bool               // invalidations fail
	noAgree  atomic.Bool               // renewals of the layout fail
	noHeads  atomic.Bool               // reads of heads fail
	noEra    atomic.Bool               // begins of an era fail
	busy     atomic.Bool               // no reader is answered within its budget
	concerns func(...tier.Item) func() // not nil: called before items are invalidated; the result is called with the reply
	proofs   proofs
	rounds   atomic.Int64           // questions for the heads
	late     atomic.Int64           // delay of replies about heads
	asked    atomic.Pointer[func()] // called when heads have been read, before the reply is sent
}

var errLine = errors.New("the line is cut")

func (l *line) cut(cut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case cut && l.restored == nil:
		l.restored = make(chan struct{})
	case !cut && l.restored != nil:
		close(l.restored)
		l.restored = nil
	}
}

// concern reports items that are about to be invalidated. Messages about them may arrive before
// the reply, with which done is called, and for a while after it.
func (l *line) concern(items ...tier.Item) (done func()) {
	if l.concerns == nil {
		return func() {}
	}
	return l.concerns(items...)
}

func (l *line) isCut() chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.restored
}

// keepsWaiting blocks a reader until its context ends, if the line is busy.
func (l *line) keepsWaiting(ctx context.Context) bool {
	if !l.busy.Load() {
		return false
	}
	if l.failed != nil {
		l.failed()
		defer l.failed()
	}
	<-ctx.Done()
	return true
}

// over runs a call over the line.
func over[T any](ctx context.Context, l *line, call func() (T, error)) (T, error) {
	lost := func(restored chan struct{}) (T, error) {
		var zero T
		if l.failed != nil {
			l.failed()
			defer l.failed()
		}
		select {
		case <-ctx.Done():
			return zero, ctx.Err()
		case <-restored:
			return zero, errLine
		}
	}
	if c := l.isCut(); c != nil {
		return lost(c)
	}
	begun := time.Now()
	got, err := call()
	if l.failed != nil && (err != nil || time.Since(begun) > l.slow) {
		l.failed()
	}
	if c := l.isCut(); c != nil {
		return lost(c)
	}
	return got, err
}

// lined is a session over a line.
type lined struct {
	tier.Session
	l *line
}

func (s *lined) Agree(ctx context.Context) (tier.Layout, error) {
	if s.l.noAgree.Load() {
		return tier.Layout{}, errLine
	}
	return over(ctx, s.l, func() (tier.Layout, error) { return s.Session.Agree(ctx) })
}

type got struct {
	entry tier.Entry
	gens  []string
}

func (s *lined) Get(ctx context.Context, key string, tags []string) (tier.Entry, []string, error) {
	if s.l.keepsWaiting(ctx) {
		return tier.Entry{}, nil, ctx.Err()
	}
	g, err := over(ctx, s.l, func() (got, error) {
		e, gens, err := s.Session.Get(ctx, key, tags)
		return got{e, gens}, err
	})
	return g.entry, g.gens, err
}

func (s *lined) Generations(ctx context.Context, tags []string) ([]string, error) {
	return over(ctx, s.l, func() ([]string, error) { return s.Session.Generations(ctx, tags) })
}

func (s *lined) Acquire(ctx context.Context, key, seen string, tags []string, d time.Duration) (tier.Lease, error) {
	if s.l.keepsWaiting(ctx) {
		return tier.Lease{}, ctx.Err()
	}
	return over(ctx, s.l, func() (tier.Lease, error) {
		l, err := s.Session.Acquire(ctx, key, seen, tags, d)
		if fn := s.l.leased.Swap(nil); fn != nil {
			(*fn)()
		}
		return l, err
	})
}

func (s *lined) Extend(ctx context.Context, l tier.Lease, d time.Duration) (bool, error) {
	return over(ctx, s.l, func() (bool, error) { return s.Session.Extend(ctx, l, d) })
}

func (s *lined) Fill(ctx context.Context, l tier.Lease, f tier.Fill) (bool, error) {
	if fn := s.l.filling.Swap(nil); fn != nil {
		(*fn)()
	}
	return over(ctx, s.l, func() (bool, error) { return s.Session.Fill(ctx, l, f) })
}

func (s *lined) Release(ctx context.Context, l tier.Lease) error {
	_, err := over(ctx, s.l, func() (bool, error) { return true, s.Session.Release(ctx, l) })
	return err
}

func (s *lined) Late(ctx context.Context, tag string, since tier.Position) (tier.Late, error) {
	return over(ctx, s.l, func() (tier.Late, error) { return s.Session.Late(ctx, tag, since) })
}

func (s *lined) Change(ctx context.Context, c tier.Change) ([]tier.Logged, error) {
	if s.l.noChange.Load() {
		return nil, errLine
	}
	return over(ctx, s.l, func() ([]tier.Logged, error) {
		defer s.l.concern(c.Items...)()
		logged, err := s.Session.Change(ctx, c)
		if fn := s.l.changed.Swap(nil); fn != nil {
			(*fn)()
		}
		return logged, err
	})
}

func (s *lined) NewEra(ctx context.Context, p int, was string, always bool) error {
	if s.l.noEra.Load() {
		return errLine
	}
	defer s.l.concern(tier.Item{Kind: tier.Era})()
	_, err := over(ctx, s.l, func() (bool, error) { return true, s.Session.NewEra(ctx, p, was, always) })
	return err
}

func (s *lined) Scan(ctx context.Context, scan tier.Scan) (tier.Scanned, error) {
	return over(ctx, s.l, func() (tier.Scanned, error) { return s.Session.Scan(ctx, scan) })
}

func (s *lined) Heads(ctx context.Context) ([]tier.Head, error) {
	s.l.rounds.Add(1)
	if s.l.noHeads.Load() {
		return nil, errLine
	}
	sent := time.Now()
	heads, err := over(ctx, s.l, func() ([]tier.Head, error) {
		heads, err := s.Session.Heads(ctx)
		if fn := s.l.asked.Swap(nil); fn != nil {
			(*fn)()
		}
		time.Sleep(time.Duration(s.l.late.Load()))
		return heads, err
	})
	s.l.proofs.heads(sent, heads, err)
	return heads, err
}

func (s *lined) Log(ctx context.Context, p int, after tier.Position) (tier.Log, error) {
	sent := time.Now()
	log, err := over(ctx, s.l, func() (tier.Log, error) { return s.Session.Log(ctx, p, after) })
	s.l.proofs.log(sent, &log, err)
	return log, err
}

func (s *lined) Durable(ctx context.Context) error {
	_, err := over(ctx, s.l, func() (bool, error) { return true, s.Session.Durable(ctx) })
	return err
}

func (s *lined) Enqueue(ctx context.Context, e tier.Enqueue) ([]tier.Enqueued, error) {
	done, err := over(ctx, s.l, func() ([]tier.Enqueued, error) { return s.Session.Enqueue(ctx, e) })
	if err != nil { // an unknown outcome is pending
		s.l.concern(tier.Item{Kind: tier.All})()
	}
	return done, err
}

func (s *lined) Claim(ctx context.Context, c tier.Claim) (tier.Claimed, error) {
	return over(ctx, s.l, func() (tier.Claimed, error) { return s.Session.Claim(ctx, c) })
}

func (s *lined) Settle(ctx context.Context, st tier.Settle) (tier.Settlement, error) {
	if fn := s.l.settling.Load(); fn != nil && len(st.Records) > 0 {
		(*fn)()
	}
	return over(ctx, s.l, func() (tier.Settlement, error) {
		done, err := s.Session.Settle(ctx, st)
		if fn := s.l.settled.Load(); fn != nil && len(st.Records) > 0 {
			(*fn)()
		}
		return done, err
	})
}

func (s *lined) States(ctx context.Context, queue string) ([]tier.QueueState, error) {
	return over(ctx, s.l, func() ([]tier.QueueState, error) { return s.Session.States(ctx, queue) })
}

func (s *lined) DeadLetters(ctx context.Context, p int, queue, after string, n int) ([]tier.DeadLetter, error) {
	return over(ctx, s.l, func() ([]tier.DeadLetter, error) { return s.Session.DeadLetters(ctx, p, queue, after, n) })
}

func (s *lined) Replay(ctx context.Context, p int, queue, id string) (bool, error) {
	return over(ctx, s.l, func() (bool, error) { return s.Session.Replay(ctx, p, queue, id) })
}

func (s *lined) Discard(ctx context.Context, p int, queue, id string) (bool, error) {
	return over(ctx, s.l, func() (bool, error) { return s.Session.Discard(ctx, p, queue, id) })
}

func (s *lined) Hints(ctx context.Context, ready func(), fn func(tier.Hint)) error {
	return s.Session.Hints(ctx, ready, func(h tier.Hint) {
		if s.l.isCut() != nil {
			return
		}
		if h.Item.Kind == tier.Era && h.Item.Token == "" {
			// As redisstore does. The engine takes a message without one for a foreign message.
			h.Item.Token = "era " + rand.Text()
		}
		fn(h)
	})
}
