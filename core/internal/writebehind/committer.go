package writebehind

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/larderhq/larder/core/internal/naming"
	"github.com/larderhq/larder/core/internal/tier"
)

const (
	// maxCommit bounds the changes of one commit, and maxPerPartition those of one
	// partition. maxCommitBytes bounds the bytes of their values; a single value may be
	// longer.
	maxCommit       = 1024
	maxPerPartition = 128
	maxCommitBytes  = 8 << 20
	// recordWithin bounds the wait for a reply. The tier ignores a call that it executes
	// later: by then the caller has an error, and may have queued a later change.
	recordWithin = 2 * time.Second
	// minReplyWait is the shortest wait for a reply, even if the callers have less time.
	// After a longer wait the partition counts as one that does not answer.
	minReplyWait = time.Second
	// fullRetry is the pause before a change asks again for room.
	fullRetry = 10 * time.Millisecond
	// silence is the time for which a partition that failed counts as one that does not
	// answer.
	silence = 5 * time.Second
)

// errLeaseLost is the error of a change whose lease has ended: it was computed from a value
// that is no longer the latest.
var errLeaseLost = errors.New("larder: lease lost")

// committer records changes in the queue of the tier.
type committer struct {
	*shared
	pool        *pool
	changes     chan *Change
	lanes       [tier.MaxPartitions]lane
	draining    sync.WaitGroup                   // of lanes
	silentUntil [tier.MaxPartitions]atomic.Int64 // Unix nanoseconds
	quit        chan struct{}                    // closed when no further change arrives
	ended       chan struct{}                    // closed when the committer has ended
}

func newCommitter(s *shared, workers *pool) *committer {
	return &committer{
		shared: s, pool: workers,
		changes: make(chan *Change, maxCommit), quit: make(chan struct{}), ended: make(chan struct{}),
	}
}

// run records changes until quit. The changes that arrive during a commit share the next.
func (c *committer) run() {
	defer close(c.ended)
	defer c.draining.Wait()
	for {
		batch := c.gather()
		if len(batch) == 0 {
			return
		}
		c.commit(batch)
	}
}

// gather waits for a change, and returns it with all others that have arrived. It returns
// none after quit.
func (c *committer) gather() (batch []*Change) {
	select {
	case first := <-c.changes:
		batch = append(batch, first)
	case <-c.quit:
	}
	for len(batch) < maxCommit {
		select {
		case next := <-c.changes:
			batch = append(batch, next)
		default:
			return batch
		}
	}
	return batch
}

// commit records a batch. A change that would delay the others goes into a lane.
func (c *committer) commit(batch []*Change) {
	groups := make(map[int][]*Change)
	for _, change := range c.coalesce(dropExpired(batch)) {
		p := c.Engine.PartitionOf(change.key)
		groups[p] = append(groups[p], change)
	}
	for p, group := range groups {
		if c.toLane(p, group, !c.answers(p)) {
			delete(groups, p)
		}
	}
	ctx, cancel := context.WithTimeout(c.ctx, c.Committer.Wait)
	defer cancel()
	var all sync.WaitGroup
	together := tier.NewBatch(len(groups))
	for p, group := range groups {
		all.Go(func() {
			defer together.Leave()
			c.toLane(p, c.recordAll(tier.WithBatch(ctx, together), p, group), true)
		})
	}
	all.Wait()
	for p := range groups {
		c.pool.wake(p)
	}
}

// toLane puts changes into the lane of their partition. It returns false if there are no
// changes, or if the lane is closed and must is false: the caller records them at once.
func (c *committer) toLane(p int, list []*Change, must bool) bool {
	if len(list) == 0 {
		return false
	}
	if must {
		c.pool.makeRoom(p) // as a rule the queue is full
	}
	added, opened := c.lanes[p].add(list, must)
	if opened {
		c.draining.Go(func() { c.drain(p) })
	}
	return added
}

// drain records the changes of a lane until it is empty.
func (c *committer) drain(p int) {
	var again []*Change
	for {
		list := c.lanes[p].take(again)
		if len(list) == 0 {
			return
		}
		ctx, cancel := context.WithTimeout(c.ctx, c.Committer.Wait)
		again = c.recordAll(ctx, p, c.coalesce(dropExpired(list)))
		cancel()
		c.pool.wake(p)
		if len(again) > 0 {
			c.pool.makeRoom(p)
			select {
			case <-time.After(fullRetry):
			case <-c.ctx.Done():
			}
		}
	}
}

// recordAll records changes of one partition. It returns those that could not be recorded
// and whose callers still wait.
func (c *committer) recordAll(ctx context.Context, p int, list []*Change) (again []*Change) {
	for len(list) > 0 {
		n, size := 0, 0
		for n < min(len(list), maxPerPartition) && (n == 0 || size+len(list[n].payload) <= maxCommitBytes) {
			size += len(list[n].payload)
			n++
		}
		again = append(again, c.record(ctx, p, list[:n])...)
		list = list[n:]
	}
	return again
}

// record records changes of one partition, and invalidates in the same step the entries
// that carry their keys as tags. An earlier invalidation would leave the entries that are
// made of the old values between the two.
func (c *committer) record(ctx context.Context, p int, group []*Change) (again []*Change) {
	if group = dropExpired(group); len(group) == 0 {
		return nil
	}
	lag, ttl := c.Target.Class()
	q := tier.Enqueue{Partition: p, Queue: c.Queue, Limit: c.quota(), Lag: lag}
	var tags [][]string
	for _, ch := range group {
		q.Changes = append(q.Changes, tier.QueueChange{Key: ch.key, Payload: ch.payload, Lease: ch.lease, Tag: naming.Tag(ch.key)})
		tags = append(tags, ch.tags)
		q.Within = max(q.Within, time.Until(ch.deadline), time.Millisecond)
	}
	q.Within = min(q.Within, recordWithin)
	// The wait for the reply may be longer than the callers': only the reply proves whether
	// the changes are recorded, and the partition gets enough time to answer.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), max(q.Within, minReplyWait))
	defer cancel()
	defer context.AfterFunc(c.ctx, cancel)()
	results, err := c.Engine.Enqueue(ctx, q, tags, ttl)
	c.recordAnswer(p, err)
	if err == nil && len(results) != len(group) {
		err = fmt.Errorf("%d results of %d", len(results), len(group))
	}
	for i, ch := range group {
		version := int64(0)
		if err == nil {
			version = results[i].Version
		}
		if result, retry := ch.result(version, err); retry {
			again = append(again, ch)
		} else {
			ch.finish(result)
		}
	}
	return again
}

// result returns the result for the caller, from the version that the tier gave the change
// or the error of the call. retry: the caller waits for another attempt.
func (c *Change) result(version int64, err error) (result error, retry bool) {
	switch {
	case err != nil && !errors.Is(err, tier.ErrMigrating):
		return fmt.Errorf("%w: %w", ErrNotQueued, err), false
	case err == nil && version > 0:
		return nil, false
	case err == nil && version < 0:
		return errLeaseLost, false
	case c.lease != "" && err != nil:
		return errLeaseLost, false
	case c.lease != "": // the caller releases the lease, for which readers may wait
		return ErrQueueFull, false
	case time.Until(c.deadline) > fullRetry:
		return nil, true
	case err != nil:
		return fmt.Errorf("%w: %w", ErrNotQueued, err), false
	}
	return ErrQueueFull, false
}

// answers reports whether a partition counts as one that answers.
func (c *committer) answers(p int) bool {
	return c.Engine.Answers(p) && time.Now().UnixNano() >= c.silentUntil[p].Load()
}

// recordAnswer records whether a partition has answered.
func (c *committer) recordAnswer(p int, err error) {
	if err != nil && !errors.Is(err, tier.ErrMigrating) && !errors.Is(err, tier.ErrLate) {
		c.silentUntil[p].Store(time.Now().Add(silence).UnixNano())
	}
}
