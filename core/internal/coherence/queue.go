package coherence

import (
	"context"
	"errors"
	"time"

	"github.com/larderhq/larder/core/internal/tier"
)

// Write-behind (R27): a change is recorded in the tier's queue and its key is
// invalidated in one step. Who asks for the lease of the key then is told the value
// (Found.Queued) and does not load. The interleavings that must not lose a change, or
// show readers what was there before it:
//
//	a load is under way, the change comes: it has ended the load's lease, and fenced
//	    this process: what is loaded is stored nowhere.
//	the change comes, a reader asks for the lease: he is told the change.
//	a reader is refused the lease: with the refusal he is told the change.
//	a reader was told the change and stores it, a later change comes: it ends the
//	    lease, or unlinks the entry.
//	the change is applied, then taken out; a reader in between is told the change,
//	    which is what the database says; one after that loads.
//	a page was made of the database between the change and its being applied: the
//	    key's tag is invalidated after it has been applied, and before it is taken out.

// LocalQueue is a queue of this process, where no tier is shared.
type LocalQueue interface {
	tier.Queue
	Peek(key string) (tier.Queued, bool)
}

// errNoQueue says that nothing can be queued.
var errNoQueue = errors.New("larder: no queue")

// UseQueue makes q the queue of an engine that shares no tier, unless it has one
// already, and returns the one it has.
func (e *Engine) UseQueue(q LocalQueue) LocalQueue {
	if e.queue.CompareAndSwap(nil, &q) {
		return q
	}
	return *e.queue.Load()
}

// Queue returns where changes are queued: the shared tier, or this process.
func (e *Engine) Queue() (tier.Queue, error) {
	if e.shared == nil {
		if q := e.queue.Load(); q != nil {
			return *q, nil
		}
		return nil, errNoQueue
	}
	box := e.shared.session.Load()
	if box == nil {
		return nil, errNotOpen
	}
	return *box, nil
}

// Shares reports whether there is a shared tier.
func (e *Engine) Shares() bool { return e.shared != nil }

// Home returns the partition of a key.
func (e *Engine) Home(key string) int { return tier.Partition(tier.Name(key), e.Partitions()) }

// Answers reports whether a partition has answered within MaxStaleness. Who asks one
// that has not may have to wait.
func (e *Engine) Answers(p int) bool { return e.shared == nil || e.shared.Legal(1<<p, e.Now()) }

// Enqueue records changes and invalidates their keys: for this process before it
// returns, for others as Invalidate does. After an error nobody knows whether they
// were recorded: then the keys are invalidated all the same. tags are those that readers
// keep each change under, for the ttl of its class.
func (e *Engine) Enqueue(ctx context.Context, q tier.Enqueue, tags [][]string, ttl time.Duration) ([]tier.Enqueued, error) {
	items := make([]tier.Item, 0, 2*len(q.Changes))
	for _, c := range q.Changes {
		items = append(items, changed(c)...)
	}
	e.Count.Invalidations.Add(int64(len(items)))
	to, err := e.Queue()
	if err != nil {
		return nil, err
	}
	s := e.shared
	if s == nil {
		done, err := to.Enqueue(ctx, q)
		e.Fence(items)
		return done, err
	}
	q.Lag = max(q.Lag, s.replicaLag())
	sent := s.owns.begin(&q, tags, ttl)
	defer s.owns.end(sent)
	done, err := to.Enqueue(ctx, q)
	switch {
	case errors.Is(err, tier.ErrMigrating), errors.Is(err, tier.ErrLate):
		return nil, err // nothing has happened
	case err != nil:
		s.pending.add(s.local, items)
		s.wake()
		e.Fence(items)
		return nil, err
	}
	items = items[:0]
	for i, c := range done {
		if c.Version <= 0 || i >= len(sent) { // refused: nothing has happened
			continue
		}
		items = append(items, changed(q.Changes[i])...)
		s.told(q.Partition, c.Logged)
		if c.Tagged.Token != "" {
			s.told(q.Partition, c.Tagged)
		}
		s.owns.keep(sent[i], c, e.Now())
	}
	e.FenceLoads(items) // R14: after the reply, heard of or not
	return done, nil
}

// changed is what a change invalidates.
func changed(c tier.QueueChange) []tier.Item {
	items := []tier.Item{{Kind: tier.Key, Value: c.Key}}
	if c.Tag != "" {
		items = append(items, tier.Item{Kind: tier.Tag, Value: c.Tag})
	}
	return items
}

// queued returns what is queued in this process.
func (e *Engine) queued(key string) *tier.Queued {
	if q := e.queue.Load(); q != nil {
		if rec, ok := (*q).Peek(key); ok {
			return &rec
		}
	}
	return nil
}

// Lease returns the token of the lease that the turn has, "" if it has none.
func (t *Turn) Lease() string {
	if t.held == nil || t.held.Over() {
		return ""
	}
	return t.held.lease.Token
}
