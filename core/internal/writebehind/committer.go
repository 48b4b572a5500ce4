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
	// maxCommit is how many changes are recorded together, maxOfPartition how many of one
	// partition. maxCommitBytes bounds the bytes of their values; a single value may be
	// longer.
	maxCommit      = 1024
	maxOfPartition = 128
	maxCommitBytes = 8 << 20
	// recordWithin bounds the wait for a reply. The tier ignores a call that it executes
	// later: by then the caller has an error, and may have queued something newer.
	recordWithin = 2 * time.Second
	// minReplyWait is the shortest wait for a reply, however little time the callers have:
	// a partition that is silent for longer counts as one that does not answer.
	minReplyWait = time.Second
	// fullRetry is how long a change waits before it asks again for room.
	fullRetry = 10 * time.Millisecond
	// silence is for how long a partition that failed counts as one that does not answer.
	silence = 5 * time.Second
)

// errLeaseLost is the error of a change whose lease has ended: the value that it was made
// of is no longer the latest.
var errLeaseLost = errors.New("larder: lease lost")

// committer records changes in the queue of the tier.
type committer struct {
	*shared
	crew        *crew
	changes     chan *Change
	lanes       [tier.MaxPartitions]lane
	draining    sync.WaitGroup                   // of lanes
	silentUntil [tier.MaxPartitions]atomic.Int64 // Unix nanoseconds
	quit        chan struct{}                    // no change comes any more
	ended       chan struct{}
}

func newCommitter(s *shared, workers *crew) *committer {
	return &committer{
		shared: s, crew: workers,
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

// gather waits for a change and returns it with those behind it. It returns none after
// quit.
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
		p := c.Engine.Home(change.key)
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
		c.crew.wake(p)
	}
}

// toLane puts changes into the lane of their partition. It returns false if there are
// none, or the lane is closed and the changes can be recorded at once.
func (c *committer) toLane(p int, list []*Change, must bool) bool {
	if len(list) == 0 {
		return false
	}
	if must {
		c.crew.makeRoom(p) // a full queue is the usual reason
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
		c.crew.wake(p)
		if len(again) > 0 {
			c.crew.makeRoom(p)
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
		for n < min(len(list), maxOfPartition) && (n == 0 || size+len(list[n].payload) <= maxCommitBytes) {
			size += len(list[n].payload)
			n++
		}
		again = append(again, c.record(ctx, p, list[:n])...)
		list = list[n:]
	}
	return again
}

// record records changes of one partition, and invalidates in the same step the entries
// that carry their keys as tags. An invalidation before that step would leave entries that
// are made of the old values afterwards.
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
	// The wait for the reply is longer than some callers wait: the reply tells for sure
	// whether the changes are recorded, and the partition gets enough time to answer.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), max(q.Within, minReplyWait))
	defer cancel()
	defer context.AfterFunc(c.ctx, cancel)()
	results, err := c.Engine.Enqueue(ctx, q, tags, ttl)
	c.heard(p, err)
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

// result returns what the caller gets for the version that the tier gave the change, or
// for the error of the call. retry: the caller waits for another attempt.
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
	case c.lease != "": // the lease must not keep readers waiting
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

// heard notes whether a partition has answered.
func (c *committer) heard(p int, err error) {
	if err != nil && !errors.Is(err, tier.ErrMigrating) && !errors.Is(err, tier.ErrLate) {
		c.silentUntil[p].Store(time.Now().Add(silence).UnixNano())
	}
}
