package core

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/larderhq/larder/core/internal/naming"
	"github.com/larderhq/larder/core/internal/tier"
)

// change is a change on its way into the queue.
type change struct {
	key     string
	payload []byte
	tags    []string  // that readers store it under
	lease   string    // only if it is still there; "": in any case
	until   time.Time // how long its caller waits
	done    chan error
	also    []*change // earlier ones of the key, which it has taken the place of
}

func newChange(key string, q queued) *change {
	return &change{key: key, payload: q.encode(), tags: q.tags, done: make(chan error, 1)}
}

// finish tells the caller, and those of the changes that this one is instead of.
func (c *change) finish(err error) {
	c.done <- err
	for _, other := range c.also {
		other.finish(err)
	}
	c.also = nil
}

// wait returns what became of it.
func (c *change) wait(ctx context.Context) error {
	select {
	case err := <-c.done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrNotQueued, ctx.Err())
	}
}

// errLeaseLost says that what a change was made of does not hold any more.
var errLeaseLost = errors.New("larder: somebody else changed it meanwhile")

const (
	// maxCommit is how many changes are recorded together; maxOfPartition is how many of
	// one partition, and maxCommitBytes how long their values are, but for one.
	maxCommit      = 1024
	maxOfPartition = 128
	maxCommitBytes = 8 << 20
	// recordWithin is how long a reply is waited for. What is executed later than that does
	// nothing: by then its caller has been told, and may have put something newer.
	recordWithin = 2 * time.Second
	// decentWait is how long a reply is waited for at least, however little time the callers
	// have: a partition that is silent for so long is thought to be.
	decentWait = time.Second
	// fullRetry is how long a change waits before it asks again for room.
	fullRetry = 10 * time.Millisecond
)

// lane is where changes of a partition wait that cannot be recorded with the others: there
// is no room for them, or the partition does not answer. A goroutine goes on trying.
type lane struct {
	mu      sync.Mutex
	open    bool
	waiting []*change
}

// add puts changes into the lane, after those that are in it, unless it is closed and is
// not to be opened. open: it has been, and somebody has to empty it.
func (l *lane) add(list []*change, mayOpen bool) (added, open bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.open && !mayOpen {
		return false, false
	}
	open = !l.open
	l.open = true
	if len(l.waiting)+len(list) > maxLane {
		l.waiting = current(l.waiting)
	}
	room := max(0, maxLane-len(l.waiting))
	for _, c := range list[min(room, len(list)):] {
		c.finish(ErrQueueFull)
	}
	l.waiting = append(l.waiting, list[:min(room, len(list))]...)
	return true, open
}

// take returns what waits, nil if nothing does: then it is closed.
func (l *lane) take(first []*change) []*change {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := append(first, l.waiting...)
	l.waiting, l.open = nil, len(list) > 0
	return list
}

// maxLane is how many changes of a partition wait there.
const maxLane = 4 * maxCommit

// current returns changes whose callers still wait. The others are told, and so are
// those that another one has taken the place of: a change that nobody waits for may be
// older than one that another instance has queued meanwhile.
func current(list []*change) (left []*change) {
	now := time.Now()
	for _, c := range list {
		if now.Before(c.until) {
			left = append(left, c)
		} else {
			c.finish(fmt.Errorf("%w: %w", ErrNotQueued, context.DeadlineExceeded))
		}
	}
	return left
}

// commits records changes, as many as have come while the last were recorded, so that
// those who wait share what that costs.
func (w *WriteBehind[K, V]) commits() {
	defer close(w.committed)
	defer w.aside.Wait()
	for {
		var batch []*change
		select {
		case c := <-w.puts:
			batch = append(batch, c)
		case <-w.quit:
			select {
			case c := <-w.puts:
				batch = append(batch, c)
			default:
				return
			}
		}
	gather:
		for len(batch) < maxCommit {
			select {
			case c := <-w.puts:
				batch = append(batch, c)
			default:
				break gather
			}
		}
		w.commit(batch)
	}
}

// commit records a batch. What would keep it waiting goes into a lane.
func (w *WriteBehind[K, V]) commit(batch []*change) {
	groups := make(map[int][]*change)
	for _, c := range w.lastOf(current(batch)) {
		p := w.e.Home(c.key)
		groups[p] = append(groups[p], c)
	}
	for p, group := range groups {
		if w.wait(p, group, !w.answers(p)) {
			delete(groups, p)
		}
	}
	ctx, cancel := context.WithTimeout(w.ctx, w.o.Wait)
	defer cancel()
	var all sync.WaitGroup
	together := tier.NewBatch(len(groups))
	for p, group := range groups {
		all.Go(func() {
			defer together.Leave()
			w.wait(p, w.recordAll(tier.WithBatch(ctx, together), p, group), true)
		})
	}
	all.Wait()
	for p := range groups {
		w.wake(p)
	}
}

// wait puts changes into the lane of their partition. It returns false if they need not.
func (w *WriteBehind[K, V]) wait(p int, list []*change, must bool) bool {
	if len(list) == 0 {
		return false
	}
	if must {
		w.makeRoom(p) // it is full, as a rule
	}
	added, open := w.lanes[p].add(list, must)
	if open {
		w.aside.Go(func() { w.empty(p) })
	}
	return added
}

// empty records what is in a lane until nothing is.
func (w *WriteBehind[K, V]) empty(p int) {
	var again []*change
	for {
		list := w.lanes[p].take(again)
		if len(list) == 0 {
			return
		}
		ctx, cancel := context.WithTimeout(w.ctx, w.o.Wait)
		again = w.recordAll(ctx, p, w.lastOf(current(list)))
		cancel()
		w.wake(p)
		if len(again) > 0 {
			w.makeRoom(p)
			select {
			case <-time.After(fullRetry):
			case <-w.ctx.Done():
			}
		}
	}
}

// recordAll records changes of one partition, and returns those that could not be and whose
// callers still wait.
func (w *WriteBehind[K, V]) recordAll(ctx context.Context, p int, list []*change) (again []*change) {
	for len(list) > 0 {
		n, size := 0, 0
		for n < min(len(list), maxOfPartition) && (n == 0 || size+len(list[n].payload) <= maxCommitBytes) {
			size += len(list[n].payload)
			n++
		}
		part := list[:n]
		list = list[n:]
		again = append(again, w.record(ctx, p, part)...)
	}
	return again
}

// lastOf returns the last change of each key. The earlier ones share its fate.
func (w *WriteBehind[K, V]) lastOf(batch []*change) []*change {
	last := make(map[string]int, len(batch))
	list := make([]*change, 0, len(batch))
	for _, c := range batch {
		i, ok := last[c.key]
		if !ok {
			last[c.key] = len(list)
			list = append(list, c)
			continue
		}
		w.coalesced.Add(1)
		c.also = append(c.also, list[i])
		list[i] = c
	}
	return list
}

// record records changes of one partition, and invalidates in the same step what carries
// their keys as tags: before, what is made of the old values would stay.
func (w *WriteBehind[K, V]) record(ctx context.Context, p int, group []*change) (again []*change) {
	if group = current(group); len(group) == 0 {
		return nil
	}
	class := w.m.now().class
	q := tier.Enqueue{Partition: p, Queue: w.m.prefix, Limit: w.share(), Lag: class.ReplicaLag}
	var tags [][]string
	for _, c := range group {
		q.Changes = append(q.Changes, tier.QueueChange{Key: c.key, Payload: c.payload, Lease: c.lease, Tag: naming.Tag(c.key)})
		tags = append(tags, c.tags)
		q.Within = max(q.Within, time.Until(c.until), time.Millisecond)
	}
	q.Within = min(q.Within, recordWithin)
	// The reply is waited for longer than some callers wait: it says for sure what has
	// happened, and a partition is not silent that had no time to answer.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), max(q.Within, decentWait))
	defer cancel()
	defer context.AfterFunc(w.ctx, cancel)()
	results, err := w.e.Enqueue(ctx, q, tags, class.TTL)
	w.heard(p, err)
	if err == nil && len(results) != len(group) {
		err = fmt.Errorf("%d results of %d", len(results), len(group))
	}
	for i, c := range group {
		switch {
		case err != nil && !errors.Is(err, tier.ErrMigrating):
			c.finish(fmt.Errorf("%w: %w", ErrNotQueued, err))
		case err == nil && results[i].Version > 0:
			c.finish(nil)
		case err == nil && results[i].Version < 0:
			c.finish(errLeaseLost)
		case c.lease != "" && err != nil:
			c.finish(errLeaseLost)
		case c.lease != "": // which is not kept from readers meanwhile
			c.finish(ErrQueueFull)
		case time.Until(c.until) > fullRetry: // later, perhaps
			again = append(again, c)
		case err != nil:
			c.finish(fmt.Errorf("%w: %w", ErrNotQueued, err))
		default:
			c.finish(ErrQueueFull)
		}
	}
	return again
}

// share is how many ids a partition's part of the queue holds.
func (w *WriteBehind[K, V]) share() int {
	n := w.e.Partitions()
	if n == 1 {
		return w.o.MaxQueued
	}
	return max(1, w.o.MaxQueued*3/2/n)
}

// answers reports whether a partition is thought to answer.
func (w *WriteBehind[K, V]) answers(p int) bool {
	return w.e.Answers(p) && time.Now().UnixNano() >= w.silent[p].Load()
}

// heard notes whether a partition has answered.
func (w *WriteBehind[K, V]) heard(p int, err error) {
	if err != nil && !errors.Is(err, tier.ErrMigrating) && !errors.Is(err, tier.ErrLate) {
		w.silent[p].Store(time.Now().Add(silence).UnixNano())
	}
}

// silence is for how long a partition that failed is not thought to answer.
const silence = 5 * time.Second

// wake tells the worker of a partition that there is something.
func (w *WriteBehind[K, V]) wake(p int) {
	if len(w.workers) > 0 {
		w.workers[p%len(w.workers)].mark(p)
	}
}

// makeRoom tells the worker of a partition that writers wait for room in it.
func (w *WriteBehind[K, V]) makeRoom(p int) {
	if len(w.workers) == 0 {
		return
	}
	a := w.workers[p%len(w.workers)]
	a.due.Or(1 << p)
	select {
	case a.full <- struct{}{}:
	default:
	}
}
