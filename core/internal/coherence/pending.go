package coherence

import (
	"context"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	"github.com/larderhq/larder/core/internal/local"
	"github.com/larderhq/larder/core/internal/tier"
)

// pending are the invalidations that the shared tier has not confirmed. Until it
// has, this process takes nothing that they concern from the tier, and keeps
// nothing of it (R16).
type pending struct {
	count atomic.Int32
	mu    sync.Mutex
	items map[tier.Item]*pendingItem
}

type pendingItem struct {
	until int64 // nothing that it concerns lives longer
	seq   int   // how often it was asked for
}

// maxPending bounds the queue. Beyond it everything is pending.
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
		p.seq++
	}
	q.count.Store(int32(len(q.items)))
}

// blockAll reports whether everything is pending.
func (q *pending) blockAll() bool {
	if q.count.Load() == 0 {
		return false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	p := q.items[tier.Item{Kind: tier.All}]
	if p != nil {
		p.seq++
	}
	return p != nil
}

// blocks reports whether something pending concerns an entry.
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

// retryPending tries what is pending again, all of it, once.
func (s *shared) retryPending(ctx context.Context, ses tier.Session) {
	q := &s.pending
	if q.count.Load() == 0 {
		return
	}
	q.mu.Lock()
	now := s.local.Now()
	seqs := make(map[tier.Item]int, len(q.items))
	items := make([]tier.Item, 0, len(q.items))
	for it, p := range q.items {
		if p.until < now {
			delete(q.items, it)
			continue
		}
		if !s.verifiedSince(s.concerned(it), s.asked) { // it does not answer, and must not hold up the next round
			continue
		}
		seqs[it] = p.seq
		items = append(items, it)
	}
	q.count.Store(int32(len(q.items)))
	q.mu.Unlock()
	if len(items) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, min(time.Duration(s.delta)/2, time.Second)+s.Budget*4)
	defer cancel()
	failed, _ := s.try(ctx, items, nil)
	still := make(map[tier.Item]bool, len(failed))
	for _, it := range failed {
		still[it] = true
	}
	landed := items[:0:0]
	for _, it := range items {
		if !still[it] {
			landed = append(landed, it)
		}
	}
	s.local.Fence(landed) // before it is answered from again (R14)
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, it := range landed {
		if p := q.items[it]; p != nil && p.seq == seqs[it] {
			delete(q.items, it)
		}
	}
	q.count.Store(int32(len(q.items)))
}

// verifiedSince reports whether every partition of the mask has answered to a
// question that was sent then or later.
func (s *shared) verifiedSince(mask uint64, sent int64) bool {
	for ; mask != 0; mask &= mask - 1 {
		if v := s.parts[bits.TrailingZeros64(mask)].verified.Load(); v == 0 || v < sent {
			return false
		}
	}
	return true
}

// concerned returns the partitions that an item is executed in.
func (s *shared) concerned(it tier.Item) uint64 {
	if it.Kind == tier.Key || it.Kind == tier.Tag {
		return 1 << tier.Partition(tier.Name(it.Value), s.local.Partitions())
	}
	return s.everything()
}

// Pending returns how many invalidations the shared tier has not confirmed.
func (e *Engine) Pending() int {
	if e.shared == nil {
		return 0
	}
	return int(e.shared.pending.count.Load())
}
