package coherence

import (
	"context"
	"sync"
	"time"

	"github.com/larderhq/larder/core/internal/tier"
)

// held is a lease that a turn has, and what was captured with it, before the load.
type held struct {
	ses            tier.Session
	lease          tier.Lease
	lasts          time.Duration // at first
	sent, received int64         // around the call that brought it, on the engine's clock
	began          int64         // the load, after it
	since          []place       // of every partition, before the load
	s              *shared

	mu     sync.Mutex
	extend *time.Timer
	ended  bool
}

// hold keeps a lease for the turn and makes it last while the turn does.
func (t *Turn) hold(ses tier.Session, l tier.Lease, sent, received int64) {
	h := &held{s: t.e.shared, ses: ses, lease: l, lasts: t.lease(), sent: sent, received: received}
	t.held = h
	for _, g := range l.Generations {
		if g.Open == 0 { // under an open intent it may expire before it is forgotten here
			t.e.shared.learn(t.Position(), g.Tag, g.Token)
		}
	}
	t.note(h)
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.ended {
		h.extend = time.AfterFunc(h.lasts/3, func() { h.s.extend(h) })
	}
}

// lease is for how long a lease is taken. One of many waits until the others have
// theirs, and thousands that are lengthened one by one would take the time of them all.
func (t *Turn) lease() time.Duration {
	trips := 4 * t.e.shared.roundTrip() // its reply, the first time that it is lengthened, and the fill
	return min(firstLease*time.Duration(max(1, t.patience))+trips, batchLease)
}

// extend prolongs the lease of a load that takes long.
func (s *shared) extend(h *held) {
	lasts := max(leaseTime, h.lasts)
	s.local.Spawn(s.local.Life(), lasts, func(ctx context.Context) {
		h.mu.Lock()
		ended := h.ended
		h.mu.Unlock()
		if ended {
			return
		}
		// Lost or not, the fill will be told.
		_, _ = h.ses.Extend(ctx, h.lease, lasts)
		h.mu.Lock()
		defer h.mu.Unlock()
		if !h.ended && s.local.Now()-h.received < int64(2*s.longest) {
			h.extend.Reset(lasts / 3)
		}
	})
}

// end reports whether the lease is still the caller's to end.
func (h *held) end() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	was := h.ended
	h.ended = true
	if h.extend != nil {
		h.extend.Stop()
	}
	return !was
}

// Release implements local.Claim: it ends a lease under which nothing was stored, so that
// nobody waits for it until it expires.
func (h *held) Release() {
	if h.end() {
		h.s.giveBack(h)
	}
}

// giveBack ends a lease in the tier.
func (s *shared) giveBack(h *held) {
	release := func(ctx context.Context) {
		_ = h.ses.Release(ctx, h.lease) // if it fails the lease expires
	}
	if !s.local.Spawn(s.local.Life(), leaseTime, release) { // the cache is being closed, and waits for this load
		ctx, cancel := context.WithTimeout(context.Background(), s.Budget)
		defer cancel()
		release(ctx)
	}
}

// note puts the lease into the turn's flight, where others of this process see it.
// The flight may be fenced by now: then it is of no use.
func (t *Turn) note(h *held) {
	if !t.Claims(h) {
		h.Release()
	}
	// Another turn of the flight may have been refused the lease before it could
	// see here which turn has it.
	t.e.shared.wakes.wake(t.Key())
}

// Over implements local.Claim.
func (h *held) Over() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ended
}
