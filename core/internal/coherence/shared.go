package coherence

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/bits"
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
	Required bool          // to open it now, or to fail
	Budget   time.Duration // how long one request waits for the tier, all in all
	Log      *slog.Logger
	// Wall is the wall clock, in nanoseconds. nil: the machine's.
	Wall func() int64
}

const (
	// firstLease is for how long a lease is taken, and what it costs others if the
	// reply is lost: then nobody knows that he has it. leaseTime is for how long a
	// load that lasts makes it last, and what a process that dies in it costs; in a
	// large batch it is batchLease at most.
	firstLease = 200 * time.Millisecond
	leaseTime  = time.Second
	batchLease = 3 * time.Second
	// maxKeep is the longest that an entry stays in the shared tier: generations
	// and the versions of deploys are remembered longer.
	maxKeep = 7 * 24 * time.Hour
	// firstRounds is the number of rounds that New makes at most. Where the tier is
	// required, only those count that succeed and prove nothing.
	firstRounds = 5
	// firstPause is the time between two attempts to reach a tier that is required.
	firstPause = 50 * time.Millisecond
	// vainRounds is how many rounds in a row succeed and prove nothing of a partition
	// before that is taken for a failure.
	vainRounds = 10
	// openTimeout bounds the time that New waits for a tier that is not required.
	// maxOpenTimeout bounds the time that New waits for a required one, and each later
	// attempt to connect: a connection, HELLO and the layout take several round trips.
	openTimeout    = time.Second
	maxOpenTimeout = 5 * time.Second
	// agreeEvery is how often this instance's part of the layout is renewed.
	agreeEvery = 15 * time.Second
	// agreeLapse is when an instance that could not renew it stops. A tier keeps it
	// for a minute and twice the MaxStaleness at least.
	agreeLapse = 40 * time.Second
)

// shared is the view of the tier that is shared: what has been verified of each partition,
// and since when. It is the guard of the local cache.
//
// A copy in this process is legal only while every partition that it depends on
// has been verified within MaxStaleness: asked for its head, and everything
// before that head applied. Nobody's clock is compared with anybody else's.
type shared struct {
	Sharing
	local   *local.Cache
	delta   int64         // MaxStaleness
	longest time.Duration // that a load may take

	session atomic.Pointer[tier.Session]

	legalUntil atomic.Int64 // the earliest of all partitions
	breaker    breaker      // of all servers
	parts      [tier.MaxPartitions]follower

	// follow guards what is known of the partitions, and orders what is applied.
	// It is taken before the journal's lock.
	follow sync.Mutex
	skew   atomic.Int64 // of the wall clock against the monotonic one
	jumped atomic.Bool  // they have parted: everything must be aged before anything is verified

	kick   chan struct{} // a round is wanted now
	rounds round
	asked  int64 // when the last round asked for the heads; its own
	vain   int   // how many rounds in a row have proved nothing of some partition; the watchdog's own

	distance   distance
	pending    pending
	foreigners atomic.Int32
	sweeping   chan struct{} // has room for the one Sweep at a time
	wakes      wakes
	mirrors    mirrors
	owns       *owns

	stale  stalenesses
	agreed atomic.Int64 // when this instance's part of the layout was last renewed
	lag    atomic.Int64 // the largest ReplicaLag of any instance

	stop       context.CancelFunc
	done       sync.WaitGroup
	complaints complaints
}

// newShared returns the view of a tier that has not been opened. maxBytes bounds the
// in-process tier; longest is the longest time that a load may take.
func newShared(o Sharing, maxBytes uint64, longest time.Duration) *shared {
	s := &shared{
		Sharing: o, delta: int64(o.Layout.MaxStaleness), longest: longest,
		kick: make(chan struct{}, 1), sweeping: make(chan struct{}, 1), owns: newOwns(maxBytes),
	}
	s.rounds.next = make(chan struct{})
	s.pending.items = make(map[tier.Item]*pendingItem)
	s.wakes.m = make(map[string]*wake)
	first := new(breaker)
	for p := range s.parts {
		s.parts[p].breaker.Store(first)
	}
	return s
}

// start opens the shared tier and begins to follow it for a cache, whose guard s is.
func (s *shared) start(cache *local.Cache) error {
	s.local = cache
	s.skew.Store(s.wall() - cache.Monotonic())
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
			_ = (*ses).Close() // it is of no use
		}
		return err
	}
	if err != nil {
		s.uncounted(err)
		s.unreachable(err)
	}
	run, stop := context.WithCancel(cache.Life())
	s.stop = stop
	s.done.Add(1)
	go s.run(run)
	return nil
}

// reach opens the tier and verifies the partitions, while New waits. A tier that is
// required is tried again until maxOpenTimeout is over: the server may be starting, or
// slow at first.
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
		vain := 0
		err = s.insist(ctx, func(ctx context.Context) error {
			err := s.verifyOnce(ctx)
			if vain++; !errors.Is(err, errUnverified) {
				vain = 0
			}
			if vain >= firstRounds {
				return fmt.Errorf("%w: %w", errVain, err)
			}
			return err
		})
	}
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("larder: the shared tier, which is required, was not ready within %v: %w", limit, err)
	}
	return err
}

// errVain says that further rounds would prove as little as those before.
var errVain = errors.New("larder: rounds without proof")

// insist repeats an attempt until it succeeds, fails for good, or ctx ends. The error is
// that of the last attempt which ctx did not cut short, if there is one.
func (s *shared) insist(ctx context.Context, attempt func(context.Context) error) error {
	var reason error
	for {
		err := attempt(ctx)
		if err == nil || tier.IsPermanent(err) || errors.Is(err, tier.ErrUnusable) || errors.Is(err, errVain) {
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

// verifyFirst makes the first rounds: heads that are not there are made by one and
// verified by the next. What fails may succeed at the next.
func (s *shared) verifyFirst(ctx context.Context) (err error) {
	for range firstRounds {
		if err = s.verifyOnce(ctx); err == nil || tier.IsPermanent(err) || ctx.Err() != nil {
			break
		}
	}
	return err
}

// verifyOnce makes one round, and fails if some partition is unverified after it.
func (s *shared) verifyOnce(ctx context.Context) error {
	if err := s.round(ctx); err != nil {
		return err
	}
	if s.unverified() {
		return errUnverified
	}
	return nil
}

// open makes the session and agrees on the layout: before the first hit.
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

// agree renews this instance's part of the layout and adopts what holds.
func (s *shared) agree(ctx context.Context, ses tier.Session) error {
	l, err := ses.Agree(ctx)
	if err != nil {
		return err
	}
	s.seen(l.MaxStaleness)
	s.lag.Store(int64(max(l.ReplicaLag, s.Layout.ReplicaLag)))
	if n := int32(l.Partitions); n > 0 && n <= tier.MaxPartitions && int(n) != s.local.Partitions() {
		s.follow.Lock()
		defer s.follow.Unlock()
		s.local.SetPartitions(int(n))
		s.ageAll()
	}
	return nil
}

// stalenesses is the largest MaxStaleness that the layout has told of lately: the
// layout itself may be lost, and is complete again only when every instance has
// renewed its part.
type stalenesses struct {
	mu      sync.Mutex
	largest time.Duration
	until   int64
}

// seen notes what the layout tells and returns the largest of late.
func (s *shared) seen(d time.Duration) time.Duration {
	now := s.local.Monotonic()
	s.stale.mu.Lock()
	defer s.stale.mu.Unlock()
	if d >= s.stale.largest || now > s.stale.until {
		s.stale.largest, s.stale.until = d, now+int64(3*agreeEvery)
	}
	return s.stale.largest
}

func (s *shared) close() {
	if s.stop != nil {
		s.stop()
	}
	s.done.Wait()
	if ses := s.session.Load(); ses != nil {
		_ = (*ses).Close() // whatever it was, it is over
	}
}

// Legal reports whether every partition of the mask was verified within
// MaxStaleness (R4).
func (s *shared) Legal(mask uint64, now int64) bool {
	if now < s.legalUntil.Load() {
		return true
	}
	for ; mask != 0; mask &= mask - 1 {
		if !s.parts[bits.TrailingZeros64(mask)].legal(now, s.delta) {
			return false
		}
	}
	return true
}

// lapsed returns until when everything was legal, where it is not any longer: what was
// loaded before may have been made of what was verified MaxStaleness before.
func (s *shared) lapsed() int64 {
	until := int64(0)
	for p := range s.local.Partitions() {
		v := s.parts[p].verified.Load()
		if v != 0 && (until == 0 || v+s.delta < until) { // 0: nothing of it is kept
			until = v + s.delta
		}
	}
	return until
}

// Outlived reports whether something that this process has not heard of in time may concern
// a load that began at a time, or whether it may have made use of what was legal then and is
// not any longer (R7).
func (s *shared) Outlived(began, now int64) bool {
	return !s.Legal(s.everything(), now) && (now-began >= s.delta || began < s.lapsed())
}

// Blocks reports whether something pending concerns an entry (R16).
func (s *shared) Blocks(key string, tags []string) bool { return s.pending.blocks(s.local, key, tags) }

// Forget drops the queued changes of this process that items concern (R27).
func (s *shared) Forget(items []tier.Item) { s.owns.drop(s.local, items) }

// everything is the mask of what may carry any tag.
func (s *shared) everything() uint64 {
	if n := s.local.Partitions(); n < 64 {
		return 1<<n - 1
	}
	return math.MaxUint64
}

// unverified reports whether there is a partition of which nothing has been proved.
func (s *shared) unverified() bool {
	for p := range s.local.Partitions() {
		if s.parts[p].verified.Load() == 0 {
			return true
		}
	}
	return false
}

// computeLegal finds until when everything is legal. The caller holds follow.
func (s *shared) computeLegal() {
	until := int64(math.MaxInt64)
	for p := range s.local.Partitions() {
		v := s.parts[p].verified.Load()
		if v == 0 {
			until = 0
			break
		}
		until = min(until, v+s.delta)
	}
	s.legalUntil.Store(until)
	if s.jumped.Load() {
		s.legalUntil.Store(0)
	}
}

func (s *shared) wall() int64 {
	if s.Wall != nil {
		return s.Wall()
	}
	return time.Now().UnixNano()
}

// CheckClocks notices a machine that was suspended: its monotonic clock stood
// still, and what it believes to have verified just now is old (R22).
func (s *shared) CheckClocks(mono int64) {
	skew := s.skew.Load()
	d := s.wall() - mono - skew
	if d <= s.delta/4 && d >= -s.delta/4 {
		return
	}
	// No lock: the caller may have any. Whoever verifies something meanwhile looks
	// at jumped after that, and takes it back. The skew comes last: until then every
	// caller sees the jump.
	s.jumped.Store(true)
	for p := range s.parts {
		s.parts[p].verified.Store(0)
	}
	s.legalUntil.Store(0)
	s.skew.CompareAndSwap(skew, skew+d)
	s.wake()
}

// wake asks for a round now.
func (s *shared) wake() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

func (s *shared) replicaLag() time.Duration { return time.Duration(s.lag.Load()) }

// askable returns the session if a request may ask the tier about key now: it is
// legal, nothing of it is pending, and the tier has not just failed.
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

// budget is what is left of the time that a request may wait for the tier.
type budget struct {
	s    *shared
	left time.Duration
	over bool // something was not asked, or cut off, for want of time
}

// errUnverified says that all calls succeed and prove nothing.
var errUnverified = errors.New("larder: the shared tier answers, but it cannot be verified what was invalidated: " +
	"each call is answered by another server, as behind a proxy that hides several")

var errSpent = errors.New("larder: the request has waited for the shared tier for as long as it may")

// use runs fn with what is left. The error is errSpent where that was too little to tell
// anything of the tier.
func (b *budget) use(ctx context.Context, fn func(context.Context) error) error {
	if b.left <= 0 || !b.s.fits(b.left) {
		b.over = true
		return errSpent
	}
	had, start := b.left, time.Now()
	// A load's context may tell of its client's deadline and not end there, since
	// others wait for it.
	ctx, cancel := context.WithTimeout(local.Undated(ctx), b.left)
	defer cancel()
	err := fn(ctx)
	b.left -= time.Since(start)
	// A connection's deadline may be noticed a moment before the context's.
	if err != nil && (errors.Is(ctx.Err(), context.DeadlineExceeded) || b.left < time.Millisecond) {
		b.over = true
		if had < b.s.decent() {
			return fmt.Errorf("%w: %w", errSpent, err)
		}
	}
	return err
}

// together asks several questions at a time, in one round trip per server, and returns
// their errors.
func (b *budget) together(ctx context.Context, asks []func(context.Context) error) error {
	return b.use(ctx, func(ctx context.Context) error {
		leave := func() {}
		if tier.BatchOf(ctx) == nil { // else they go out with what others ask
			batch := tier.NewBatch(len(asks))
			ctx, leave = tier.WithBatch(ctx, batch), batch.Leave
		}
		errs := make([]error, len(asks))
		var all sync.WaitGroup
		for i, ask := range asks {
			all.Go(func() {
				defer leave()
				errs[i] = ask(ctx)
			})
		}
		all.Wait()
		return errors.Join(errs...)
	})
}
