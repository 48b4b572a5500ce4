package coherence

import (
	"context"
	"sync"
	"time"

	"github.com/larderhq/larder/core/internal/tier"
)

const (
	// firstLease is the first term of a lease, and the delay of other instances if the reply is
	// lost: no instance knows then that it has the lease. leaseTime is the term to which a
	// running load extends its lease, and the delay of other instances if its process dies.
	// batchLease bounds both in a large batch.
	firstLease = 200 * time.Millisecond
	leaseTime  = time.Second
	batchLease = 3 * time.Second
)

// heldLease is the lease of a turn, with everything that was captured before the load.
type heldLease struct {
	s              *shared
	ses            tier.Session
	lease          tier.Lease
	term           time.Duration // the first term
	sent, received int64         // before and after the call that brought it, on the engine's clock
	began          int64         // the load, after it
	before         []place       // of every partition, before the load
	registered     bool          // the load was registered at before: the log in memory has what this process has applied since

	mu     sync.Mutex
	extend *time.Timer
	ended  bool
}

// hold keeps a lease for the turn, and extends it until the turn ends.
func (t *Turn) hold(ses tier.Session, l tier.Lease, sent, received int64) {
	h := &heldLease{s: t.e.shared, ses: ses, lease: l, term: t.leaseTerm(), sent: sent, received: received}
	t.held = h
	for _, g := range l.Generations {
		if g.Open == 0 { // under an open intent the generation may expire before this process knows
			t.e.shared.learn(t.Position(), g.Tag, g.Token)
		}
	}
	t.claim(h)
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.ended {
		h.extend = time.AfterFunc(h.term/3, func() { h.s.extend(h) })
	}
}

// leaseTerm is the first term of a lease. The reply, the first extension and the fill take up
// to four round trips. The load of a key in a batch begins when all keys have their leases,
// and extending thousands of leases one by one would take too long: their terms are
// longer.
func (t *Turn) leaseTerm() time.Duration {
	trips := 4 * t.e.shared.roundTrip()
	return min(firstLease*time.Duration(max(1, t.budgets))+trips, batchLease)
}

// extend extends the lease of a load that is still running.
func (s *shared) extend(h *heldLease) {
	term := max(leaseTime, h.term)
	s.local.Spawn(s.local.Life(), term, func(ctx context.Context) {
		if h.Over() {
			return
		}
		_, _ = h.ses.Extend(ctx, h.lease, term) // the fill finds out if the lease is lost
		h.mu.Lock()
		defer h.mu.Unlock()
		if !h.ended && s.local.Now()-h.received < int64(2*s.longest) {
			h.extend.Reset(term / 3)
		}
	})
}

// end ends the extensions. It reports whether the caller has to end the lease.
func (h *heldLease) end() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	first := !h.ended
	h.ended = true
	if h.extend != nil {
		h.extend.Stop()
	}
	return first
}

// Release implements local.Claim. It ends a lease under which nothing was stored, so that
// no instance waits until it expires.
func (h *heldLease) Release() {
	if h.end() {
		h.s.giveBack(h)
	}
}

// giveBack ends a lease in the tier. If the call fails, the lease expires.
func (s *shared) giveBack(h *heldLease) {
	release := func(ctx context.Context) { _ = h.ses.Release(ctx, h.lease) }
	if !s.local.Spawn(s.local.Life(), leaseTime, release) { // the cache is being closed, and waits for this load
		ctx, cancel := context.WithTimeout(context.Background(), s.Budget)
		defer cancel()
		release(ctx)
	}
}

// claim shows the lease to the other turns of the flight. A flight that was fenced meanwhile
// has no use for it, and the lease is released.
func (t *Turn) claim(h *heldLease) {
	if !t.AddClaim(h) {
		h.Release()
	}
	// Another turn of the flight may have been refused the lease before it could see the
	// claim.
	t.e.shared.waiters.wake(t.Key())
}

// Over implements local.Claim.
func (h *heldLease) Over() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ended
}

// Lease returns the token of the turn's lease, "" if it has none.
func (t *Turn) Lease() string {
	if t.held == nil || t.held.Over() {
		return ""
	}
	return t.held.lease.Token
}
