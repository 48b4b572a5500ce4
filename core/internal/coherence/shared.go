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

// Codec is how the shared tier keeps the values of one kind.
type Codec interface {
	// Encode returns the payload for a value; ok is false if it has none.
	Encode(value any) (payload []byte, ok bool)
	// Decode returns the value of a payload and its size in memory. The payload is
	// the callee's. born is when the value's load began, on the engine's clock.
	Decode(payload []byte, born int64) (value any, size int, ok bool)
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

// shared is the engine's view of the tier that it shares: what it has verified of
// each partition, and since when.
//
// A copy in this process is legal only while every partition that it depends on
// has been verified within MaxStaleness: asked for its head, and everything
// before that head applied. Nobody's clock is compared with anybody else's.
type shared struct {
	Sharing
	e     *Engine
	delta int64

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

	stale  stalenesses
	agreed atomic.Int64 // when this instance's part of the layout was last renewed
	lag    atomic.Int64 // the largest ReplicaLag of any instance

	stop       context.CancelFunc
	done       sync.WaitGroup
	complaints complaints
}

// share opens the shared tier and begins to follow it.
func (e *Engine) share(o Sharing) error {
	s := &shared{Sharing: o, e: e, delta: int64(o.Layout.MaxStaleness), kick: make(chan struct{}, 1), sweeping: make(chan struct{}, 1)}
	s.rounds.next = make(chan struct{})
	s.pending.items = make(map[Item]*pendingItem)
	s.wakes.m = make(map[string]*wake)
	first := new(breaker)
	for p := range s.parts {
		s.parts[p].breaker.Store(first)
	}
	s.skew.Store(s.wall() - e.monotonic())
	e.parts.Store(int32(tier.DefaultPartitions))
	if o.Layout.Partitions > 0 {
		e.parts.Store(int32(o.Layout.Partitions))
	}
	e.shared = s
	err := s.start()
	if tier.IsPermanent(err) && !errors.Is(err, tier.ErrUnusable) {
		err = fmt.Errorf("%w: %w", tier.ErrUnusable, err)
	}
	if err != nil && (o.Required || errors.Is(err, tier.ErrUnusable)) {
		if ses := s.session.Load(); ses != nil {
			_ = (*ses).Close() // it is of no use
		}
		e.shared = nil
		return err
	}
	if err != nil {
		s.uncounted(err)
		s.unreachable(err)
	}
	run, stop := context.WithCancel(e.ctx)
	s.stop = stop
	s.done.Add(1)
	go s.run(run)
	return nil
}

// start opens the tier and verifies the partitions, while New waits. A tier that is
// required is tried again until maxOpenTimeout is over: the server may be starting, or
// slow at first.
func (s *shared) start() error {
	limit := openTimeout
	if s.Required {
		limit = maxOpenTimeout
	}
	ctx, cancel := context.WithTimeout(s.e.ctx, limit)
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
	if n := int32(l.Partitions); n > 0 && n <= tier.MaxPartitions && n != s.e.parts.Load() {
		s.follow.Lock()
		defer s.follow.Unlock()
		s.e.parts.Store(n)
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
	now := s.e.monotonic()
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

// legal reports whether every partition of the mask was verified within
// MaxStaleness (R4).
func (s *shared) legal(mask uint64, now int64) bool {
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
	for p := range s.e.partitions() {
		v := s.parts[p].verified.Load()
		if v != 0 && (until == 0 || v+s.delta < until) { // 0: nothing of it is kept
			until = v + s.delta
		}
	}
	return until
}

// everything is the mask of what may carry any tag.
func (s *shared) everything() uint64 {
	if n := s.e.partitions(); n < 64 {
		return 1<<n - 1
	}
	return math.MaxUint64
}

// unverified reports whether there is a partition of which nothing has been proved.
func (s *shared) unverified() bool {
	for p := range s.e.partitions() {
		if s.parts[p].verified.Load() == 0 {
			return true
		}
	}
	return false
}

// computeLegal finds until when everything is legal. The caller holds follow.
func (s *shared) computeLegal() {
	until := int64(math.MaxInt64)
	for p := range s.e.partitions() {
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

// checkClocks notices a machine that was suspended: its monotonic clock stood
// still, and what it believes to have verified just now is old (R22).
func (s *shared) checkClocks(mono int64) {
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
	mask := s.e.mask(key, tags)
	if s.broken(mask) || !s.legal(mask, s.e.Now()) || s.pending.blocks(s.e, key, tags) {
		return nil, false
	}
	return *ses, true
}

// answering returns the session if the tier has not just failed for key.
func (s *shared) answering(key string) (tier.Session, bool) {
	ses := s.session.Load()
	if ses == nil || s.broken(s.e.mask(key, nil)) {
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

// undated is a context without a deadline of its own.
type undated struct{ context.Context }

// Deadline implements context.Context.
func (undated) Deadline() (time.Time, bool) { return time.Time{}, false }

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
	ctx, cancel := context.WithTimeout(undated{ctx}, b.left)
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
