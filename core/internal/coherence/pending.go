package coherence

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/larderhq/larder/core/internal/local"
	"github.com/larderhq/larder/core/internal/tier"
)

// pending are the invalidations that the shared tier has not confirmed. Until it confirms
// them, this process neither answers nor stores anything in the tier that they concern
// (R16).
type pending struct {
	count atomic.Int32
	mu    sync.Mutex
	items map[tier.Item]*pendingItem
}

type pendingItem struct {
	until    int64 // no entry that it concerns lives longer
	requests int   // how often it was requested
}

// maxPending bounds the pending items. Beyond it everything is pending.
const maxPending = 1024

func (q *pending) add(c *local.Cache, items []tier.Item) {
	q.mu.Lock()
	defer q.mu.Unlock()
	until := c.Now() + int64(maxKeep)
	all := tier.Item{Kind: tier.All}
	for _, it := range items {
		if q.items[all] != nil {
			it = all
		} else if len(q.items) >= maxPending && q.items[it] == nil {
			clear(q.items)
			it = all
		}
		p := q.items[it]
		if p == nil {
			p = &pendingItem{}
			q.items[it] = p
		}
		p.until = until
		p.requests++
	}
	q.count.Store(int32(len(q.items)))
}

// isAll reports whether everything is pending. The caller's invalidation is then pending with
// it.
func (q *pending) isAll() bool {
	if q.count.Load() == 0 {
		return false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	p := q.items[tier.Item{Kind: tier.All}]
	if p != nil {
		p.requests++
	}
	return p != nil
}

// blocks reports whether a pending invalidation concerns an entry.
func (q *pending) blocks(c *local.Cache, key string, tags []string) bool {
	if q.count.Load() == 0 {
		return false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for it := range q.items {
		if c.Concerns(it, key, tags) {
			return true
		}
	}
	return false
}

// retryPending retries the pending invalidations once.
func (s *shared) retryPending(ctx context.Context, ses tier.Session) {
	if s.pending.count.Load() == 0 {
		return
	}
	requests := s.duePending()
	if len(requests) == 0 {
		return
	}
	items := make([]tier.Item, 0, len(requests))
	for it := range requests {
		items = append(items, it)
	}
	ctx, cancel := context.WithTimeout(ctx, min(time.Duration(s.delta)/2, time.Second)+s.Budget*4)
	defer cancel()
	failed, _ := s.execute(ctx, items, nil)
	for _, it := range failed {
		delete(requests, it)
	}
	confirmed := items[:0]
	for _, it := range items {
		if _, ok := requests[it]; ok {
			confirmed = append(confirmed, it)
		}
	}
	s.local.Fence(confirmed) // before an answer may come from the tier again (R14)
	s.pending.remove(confirmed, requests)
}

// duePending returns the items to retry, with the number of their requests so far. It leaves
// out the partitions that the last round did not reach, since a call to them would delay the
// next round.
func (s *shared) duePending() map[tier.Item]int {
	q := &s.pending
	q.mu.Lock()
	defer q.mu.Unlock()
	now := s.local.Now()
	requests := make(map[tier.Item]int, len(q.items))
	for it, p := range q.items {
		if p.until < now {
			delete(q.items, it)
			continue
		}
		if s.verifiedSince(s.concerned(it), s.watchdog.asked) {
			requests[it] = p.requests
		}
	}
	q.count.Store(int32(len(q.items)))
	return requests
}

// remove removes the items that have not been requested again since the retry.
func (q *pending) remove(items []tier.Item, requests map[tier.Item]int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, it := range items {
		if p := q.items[it]; p != nil && p.requests == requests[it] {
			delete(q.items, it)
		}
	}
	q.count.Store(int32(len(q.items)))
}

// Pending returns the number of invalidations that the shared tier has not confirmed.
func (e *Engine) Pending() int {
	if e.shared == nil {
		return 0
	}
	return int(e.shared.pending.count.Load())
}
