package coherence

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/larderhq/larder/core/internal/local"
	"github.com/larderhq/larder/core/internal/tier"
)

// Sharing is what an engine needs to share a tier with other instances.
type Sharing struct {
	Tier     tier.Tier
	Layout   tier.Layout
	Required bool          // New fails if the tier cannot be reached
	Budget   time.Duration // the time for which one request waits for the tier in all
	Log      *slog.Logger
	// Wall is the wall clock, in nanoseconds. nil: the machine's.
	Wall func() int64
}

const (
	// maxKeep is the longest time for which an entry stays in the shared tier. Generations
	// and versions of the app are kept longer.
	maxKeep = 7 * 24 * time.Hour
	// firstRounds is the maximum number of rounds of New. For a required tier it is the
	// maximum number of consecutive rounds that succeed and leave a partition unverified.
	firstRounds = 5
	// firstPause is the time between two attempts to reach a required tier.
	firstPause = 50 * time.Millisecond
	// openTimeout bounds the time for which New waits for a tier that is not required.
	// maxOpenTimeout bounds the time for which New waits for a required one, and each later
	// attempt to connect: a connection, HELLO and the layout take several round trips.
	openTimeout    = time.Second
	maxOpenTimeout = 5 * time.Second
)

// shared is the view of the shared tier, and the guard of the local cache.
type shared struct {
	Sharing
	partitions
	agreement agreement
	longest   time.Duration // the longest that a load may take

	session  atomic.Pointer[tier.Session] // nil: the tier has not been opened
	watchdog watchdog
	rest     rest
	health   health

	waiters    leaseWaiters
	mirrors    mirrors
	ownChanges *ownChanges

	count    *Counters // of the engine
	pending  pending
	external atomic.Int32  // invalidations of other programs in progress
	sweeping chan struct{} // has room for one Sweep

	stop context.CancelFunc
	done sync.WaitGroup
}

// health is what is known of the tier's servers and of the way to them.
type health struct {
	breaker  breaker // of all servers together
	distance distance
	failures failureLog
}

// newShared returns the view of a tier that has not been opened. maxBytes bounds the
// in-process tier; longest is the longest time that a load may take.
func newShared(o Sharing, maxBytes uint64, longest time.Duration) *shared {
	s := &shared{
		Sharing: o, longest: longest,
		sweeping: make(chan struct{}, 1), ownChanges: newOwnChanges(maxBytes),
	}
	s.delta = int64(o.Layout.MaxStaleness)
	s.watchdog.requested = make(chan struct{}, 1)
	s.watchdog.rounds.next = make(chan struct{})
	s.pending.items = make(map[tier.Item]*pendingItem)
	s.waiters.byKey = make(map[string]*leaseWaiter)
	first := new(breaker)
	for p := range s.parts {
		s.parts[p].server.breaker.Store(first)
	}
	return s
}

// start opens the shared tier and begins to follow it for a cache whose guard is s.
func (s *shared) start(cache *local.Cache) error {
	s.local = cache
	s.suspension.skew.Store(s.wall() - cache.Monotonic())
	cache.SetPartitions(tier.DefaultPartitions)
	if s.Layout.Partitions > 0 {
		cache.SetPartitions(s.Layout.Partitions)
	}
	err := s.reach()
	if tier.IsPermanent(err) && !errors.Is(err, tier.ErrUnusable) {
		err = fmt.Errorf("%w: %w", tier.ErrUnusable, err)
	}
	if err != nil && (s.Required || errors.Is(err, tier.ErrUnusable)) {
		if ses := s.session.Load(); ses != nil {
			_ = (*ses).Close() // the error of the attempt is returned
		}
		return err
	}
	if err != nil {
		s.countUnrefused(err)
		s.unreachable(err)
	}
	run, stop := context.WithCancel(cache.Life())
	s.stop = stop
	s.done.Add(1)
	go s.run(run)
	return nil
}

// reach opens the tier and verifies the partitions while New waits. A required tier is tried
// again until maxOpenTimeout has passed: its server may be starting, or slow at first.
func (s *shared) reach() error {
	limit := openTimeout
	if s.Required {
		limit = maxOpenTimeout
	}
	ctx, cancel := context.WithTimeout(s.local.Life(), limit)
	defer cancel()
	if !s.Required {
		if err := s.open(ctx); err != nil {
			return err
		}
		return s.verifyFirst(ctx)
	}
	err := s.insist(ctx, s.open)
	if err == nil {
		err = s.insist(ctx, s.verifyRequired())
	}
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("larder: the shared tier, which is required, was not ready within %v: %w", limit, err)
	}
	return err
}

// errInconclusive is the error of firstRounds rounds that succeeded and left a partition
// unverified. Further rounds would verify no more.
var errInconclusive = errors.New("larder: the rounds succeed and verify nothing")

// verifyRequired returns an attempt to verify all partitions. It fails with errInconclusive
// after firstRounds consecutive attempts that succeeded and left a partition unverified.
func (s *shared) verifyRequired() func(context.Context) error {
	inconclusive := 0
	return func(ctx context.Context) error {
		err := s.verifyOnce(ctx)
		if inconclusive++; !errors.Is(err, errUnverified) {
			inconclusive = 0
		}
		if inconclusive >= firstRounds {
			return fmt.Errorf("%w: %w", errInconclusive, err)
		}
		return err
	}
}

// insist repeats an attempt until it succeeds, fails permanently, or ctx ends. The error is
// that of the last attempt that ctx did not cut short, if there is one.
func (s *shared) insist(ctx context.Context, attempt func(context.Context) error) error {
	var reason error
	for {
		err := attempt(ctx)
		if err == nil || tier.IsPermanent(err) || errors.Is(err, tier.ErrUnusable) || errors.Is(err, errInconclusive) {
			return err
		}
		if reason == nil || ctx.Err() == nil {
			reason = err
		}
		if !sleep(ctx, firstPause, nil) {
			return reason
		}
	}
}

// verifyFirst runs the first rounds. A round creates the heads that are missing, and the
// next one verifies them. A round that fails may be followed by one that succeeds.
func (s *shared) verifyFirst(ctx context.Context) (err error) {
	for range firstRounds {
		if err = s.verifyOnce(ctx); err == nil || tier.IsPermanent(err) || ctx.Err() != nil {
			break
		}
	}
	return err
}

// errUnverified is the error of rounds that succeed and leave a partition unverified.
var errUnverified = errors.New("larder: the shared tier answers, but it cannot be verified what was invalidated: " +
	"each call is answered by another server, as behind a proxy that hides several")

// verifyOnce runs one round. It fails if a partition is unverified afterwards.
func (s *shared) verifyOnce(ctx context.Context) error {
	if err := s.round(ctx); err != nil {
		return err
	}
	if s.unverified() {
		return errUnverified
	}
	return nil
}

// open opens the session and agrees on the layout, before the first hit.
func (s *shared) open(ctx context.Context) error {
	ses, err := s.Tier.Open(ctx, s.Layout)
	if err != nil {
		return err
	}
	if err := s.agree(ctx, ses); err != nil {
		return errors.Join(err, ses.Close())
	}
	s.observe(ses)
	s.session.Store(&ses)
	return nil
}

func (s *shared) close() {
	if s.stop != nil {
		s.stop()
	}
	s.done.Wait()
	if ses := s.session.Load(); ses != nil {
		_ = (*ses).Close() // nothing uses it any more
	}
}

// Blocks reports whether a pending invalidation concerns an entry (R16).
func (s *shared) Blocks(key string, tags []string) bool { return s.pending.blocks(s.local, key, tags) }

// Forget drops the queued changes of this process that items concern (R27).
func (s *shared) Forget(items []tier.Item) { s.ownChanges.invalidate(s.local, items) }

// askable returns the session if a request may ask the tier for key: its partitions are
// legal, no pending invalidation concerns it, and the tier has not just failed.
func (s *shared) askable(key string, tags []string) (tier.Session, bool) {
	ses := s.session.Load()
	if ses == nil {
		return nil, false
	}
	mask := s.local.Mask(key, tags)
	if s.broken(mask) || !s.Legal(mask, s.local.Now()) || s.Blocks(key, tags) {
		return nil, false
	}
	return *ses, true
}

// answering returns the session if the tier has not just failed for key.
func (s *shared) answering(key string) (tier.Session, bool) {
	ses := s.session.Load()
	if ses == nil || s.broken(s.local.Mask(key, nil)) {
		return nil, false
	}
	return *ses, true
}

// sleep waits for d, or until wake receives a value or is closed. It returns false when ctx
// has ended.
func sleep(ctx context.Context, d time.Duration, wake <-chan struct{}) bool {
	timer := time.NewTimer(max(d, 0))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-wake:
	case <-ctx.Done():
		return false
	}
	return true
}

// sleepOpen is sleep. It also returns false when the cache is closed: nothing is stored
// then, and no load is waited for.
func (s *shared) sleepOpen(ctx context.Context, d time.Duration, wake <-chan struct{}) bool {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.local.Life(), cancel)()
	return sleep(ctx, d, wake)
}
