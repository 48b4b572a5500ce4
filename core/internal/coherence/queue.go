package coherence

import (
	"context"
	"errors"
	"time"

	"github.com/larderhq/larder/core/internal/tier"
)

// Write-behind (R27): one step records a change in the tier's queue and invalidates its key.
// From then on the answer to a question for the key's lease contains the change
// (Found.Queued), and the reader does not load. The following interleavings must neither lose
// a change nor answer the value from before it:
//
//	a load is running, the change is put       The change ends the lease of the load and fences
//	                                           this process. The value of the load is stored
//	                                           nowhere.
//	the change is put, a reader asks for the   The answer contains the change, with the lease
//	lease                                      or without it.
//	a reader gets the change and stores it, a  The later change ends the lease, or unlinks the
//	later change is put                        entry.
//	the change is applied, then settled        A reader in between gets the change, which the
//	                                           database has. A later reader loads.
//	a page is made of the database before the  The key's tag is invalidated after the change
//	change is applied                          was applied and before it is settled.

// LocalQueue is a queue of this process, for engines that share no tier.
type LocalQueue interface {
	tier.Queue
	Peek(key string) (tier.Queued, bool)
}

// errNoQueue is the error of an engine without a tier and without a local queue.
var errNoQueue = errors.New("larder: no queue")

// UseQueue makes q the queue of an engine that shares no tier, unless it has one
// already, and returns the queue that it has.
func (e *Engine) UseQueue(q LocalQueue) LocalQueue {
	if e.queue.CompareAndSwap(nil, &q) {
		return q
	}
	return *e.queue.Load()
}

// Queue returns the queue: the shared tier's, or the local one.
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

// PartitionOf returns the partition of a key.
func (e *Engine) PartitionOf(key string) int { return tier.Partition(tier.Name(key), e.Partitions()) }

// Answers reports whether a partition has answered within MaxStaleness, or to the last question
// before a rest. A call for one that has not may have to wait.
func (e *Engine) Answers(p int) bool {
	return e.shared == nil || e.shared.rest.resting.Load() || e.shared.Legal(1<<p, e.Now())
}

// Enqueue records changes and invalidates their keys: in this process before it returns, in
// other instances as Invalidate does. After an error the outcome is unknown, and the keys are
// invalidated all the same. tags are those that the value of each change carries; ttl is that
// of its class.
func (e *Engine) Enqueue(ctx context.Context, q tier.Enqueue, tags [][]string, ttl time.Duration) ([]tier.Enqueued, error) {
	items := make([]tier.Item, 0, 2*len(q.Changes))
	for _, c := range q.Changes {
		items = append(items, changeItems(c)...)
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
	sent := s.ownChanges.register(&q, tags, ttl)
	defer s.ownChanges.unregister(sent)
	done, err := to.Enqueue(ctx, q)
	switch {
	case errors.Is(err, tier.ErrMigrating), errors.Is(err, tier.ErrLate):
		return nil, err // nothing has happened
	case err != nil:
		s.pending.add(s.local, items)
		s.requestRound()
		e.Fence(items)
		return nil, err
	}
	items = items[:0]
	for i, c := range done {
		if c.Version <= 0 || i >= len(sent) { // refused: nothing has happened
			continue
		}
		items = append(items, changeItems(q.Changes[i])...)
		s.applyOwn(q.Partition, c.Logged)
		if c.Tagged.Token != "" {
			s.applyOwn(q.Partition, c.Tagged)
		}
		s.ownChanges.keep(sent[i], c, e.Now())
	}
	e.FenceLoads(items) // after the reply, whether or not the items were heard of before (R14)
	return done, nil
}

// changeItems returns the items that a change invalidates.
func changeItems(c tier.QueueChange) []tier.Item {
	items := []tier.Item{{Kind: tier.Key, Value: c.Key}}
	if c.Tag != "" {
		items = append(items, tier.Item{Kind: tier.Tag, Value: c.Tag})
	}
	return items
}

// queued returns the change of a key in the local queue.
func (e *Engine) queued(key string) *tier.Queued {
	if q := e.queue.Load(); q != nil {
		if rec, ok := (*q).Peek(key); ok {
			return &rec
		}
	}
	return nil
}
