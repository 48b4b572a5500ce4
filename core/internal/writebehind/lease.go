package writebehind

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/larderhq/larder/core/internal/tier"
)

const (
	// workerLease is the time for which a worker has the queue of a partition, unless it
	// renews the lease. The batch of a stopped instance waits for as long.
	workerLease = 5 * time.Second
	// leaseMargin is the time before the end of a lease at which the apply is cancelled.
	leaseMargin = workerLease / 10
)

// lease is a worker's identity in its leases of queues.
type lease struct {
	token string
	terms [tier.MaxPartitions]uint64 // number of releases
}

// name identifies the lease of a partition's queue. It changes with each release, so that a
// release that the tier executes late does not end the next lease.
func (l *lease) name(p int) string {
	return l.token + "." + strconv.FormatUint(l.terms[p], 10)
}

// claim claims up to most records of a partition. With renew it only renews the lease.
func (w *worker) claim(ctx context.Context, q tier.Queue, p, most int, renew bool) (tier.Claimed, error) {
	return q.Claim(ctx, tier.Claim{
		Partition: p, Queue: w.Queue, Worker: w.lease.name(p), Max: most, Lease: workerLease, Keep: renew,
	})
}

// settle settles a batch, and releases the queue unless the worker continues with it.
func (w *worker) settle(ctx context.Context, q tier.Queue, b *batch) (tier.Settlement, error) {
	release := !b.continues()
	st := tier.Settle{Partition: b.partition, Queue: w.Queue, Worker: w.lease.name(b.partition), Records: b.settled, Release: release}
	if release {
		w.lease.terms[b.partition]++
	}
	return q.Settle(ctx, st)
}

// hold renews the leases of batches until release is called, or an apply hangs. The context
// ends when a lease is lost, or may be lost.
func (w *worker) hold(q tier.Queue, held []*batch, claimedAt time.Time) (ctx context.Context, release func()) {
	ctx, cancel := context.WithCancel(w.ctx)
	lapse := time.AfterFunc(time.Until(claimedAt.Add(workerLease-leaseMargin)), cancel)
	var renewing sync.WaitGroup
	released := make(chan struct{})
	renewing.Go(func() {
		tick := time.NewTicker(workerLease / 4)
		defer tick.Stop()
		for {
			select {
			case <-released:
				return
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if w.hangs() {
				return // another instance gets the batch when the lease ends
			}
			sent := time.Now()
			switch lost, unknown := w.renew(ctx, q, held); {
			case lost:
				cancel()
			case !unknown:
				lapse.Reset(time.Until(sent.Add(workerLease - leaseMargin)))
			}
		}
	})
	return ctx, func() {
		close(released)
		renewing.Wait()
		lapse.Stop()
		cancel()
	}
}

// renew renews the leases of batches. lost: another worker has one of them; unknown: the
// tier did not answer for one of them.
func (w *worker) renew(ctx context.Context, q tier.Queue, held []*batch) (lost, unknown bool) {
	var isLost, isUnknown atomic.Bool
	together(ctx, held, func(ctx context.Context, b *batch) {
		switch c, err := w.claim(ctx, q, b.partition, 0, true); {
		case err != nil:
			isUnknown.Store(true)
		case c.Busy > 0:
			isLost.Store(true)
		}
	})
	return isLost.Load(), isUnknown.Load()
}

// hangs reports whether an apply runs for longer than its timeout.
func (w *worker) hangs() bool {
	since := w.applying.Load()
	return since != nil && time.Since(*since) > w.Worker.ApplyTimeout
}
