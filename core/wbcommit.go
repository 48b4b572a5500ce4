package core

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/larderhq/larder/core/internal/engine"
	"github.com/larderhq/larder/core/internal/remote"
)

// change is a change on its way into the queue.
type change struct {
	key     string
	payload []byte
	lease   string    // only if it is still there; "": in any case
	until   time.Time // how long its caller waits
	done    chan error
	also    []*change // earlier ones of the key, which it has taken the place of
}

func newChange(key string, q queued) *change {
	return &change{key: key, payload: q.encode(), done: make(chan error, 1)}
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
	// one partition.
	maxCommit      = 1024
	maxOfPartition = 128
	// fullRetry is how long a change waits before it asks again for room.
	fullRetry = 10 * time.Millisecond
)

// commits records changes, as many as have come while the last were recorded, so that
// those who wait share what that costs.
func (w *WriteBehind[K, V]) commits() {
	defer close(w.committed)
	var again []*change // that there was no room for
	for {
		batch := again
		if len(batch) == 0 {
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
		} else {
			time.Sleep(fullRetry)
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
		again = w.commit(batch)
	}
}

// commit records a batch, and returns what there was no room for and whose callers
// still wait.
func (w *WriteBehind[K, V]) commit(batch []*change) (again []*change) {
	groups := make(map[int][]*change)
	for _, c := range w.lastOf(waitedFor(batch)) {
		p := w.e.Home(c.key)
		groups[p] = append(groups[p], c)
	}
	ctx, cancel := context.WithTimeout(w.ctx, w.o.Wait)
	defer cancel()
	var done []*change
	var mu sync.Mutex
	var all sync.WaitGroup
	together := remote.NewBatch(len(groups))
	for p, group := range groups {
		all.Go(func() {
			defer together.Leave()
			for part := range slices.Chunk(group, maxOfPartition) {
				recorded, full := w.record(remote.WithBatch(ctx, together), p, part)
				mu.Lock()
				done = append(done, recorded...)
				again = append(again, full...)
				mu.Unlock()
			}
		})
	}
	all.Wait()
	w.announce(ctx, done)
	for p := range groups {
		w.wake(p)
	}
	for _, c := range again {
		w.makeRoom(w.e.Home(c.key))
	}
	return again
}

// waitedFor returns the changes whose callers still wait. What others have left would
// take the place of what has been queued since.
func waitedFor(batch []*change) []*change {
	now := time.Now()
	return slices.DeleteFunc(batch, func(c *change) bool {
		left := !now.Before(c.until)
		if left {
			c.finish(ErrNotQueued)
		}
		return left
	})
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

// record records changes of one partition.
func (w *WriteBehind[K, V]) record(ctx context.Context, p int, group []*change) (done, again []*change) {
	q := remote.Enqueue{Partition: p, Queue: w.m.prefix, Limit: w.share(), Lag: w.m.now().class.ReplicaLag}
	for _, c := range group {
		q.Changes = append(q.Changes, remote.QueueChange{Key: c.key, Payload: c.payload, Lease: c.lease})
		q.Within = max(q.Within, time.Until(c.until), time.Millisecond)
	}
	results, err := w.e.Enqueue(ctx, q)
	if err == nil && len(results) != len(group) {
		err = fmt.Errorf("%d results of %d", len(results), len(group))
	}
	for i, c := range group {
		switch {
		case err != nil && !errors.Is(err, remote.ErrMigrating):
			c.finish(fmt.Errorf("%w: %w", ErrNotQueued, err))
		case err == nil && results[i].Version != 0:
			done = append(done, c)
		case err == nil && c.lease != "":
			c.finish(errLeaseLost)
		case time.Until(c.until) > fullRetry: // later, perhaps
			again = append(again, c)
		case err != nil:
			c.finish(fmt.Errorf("%w: %w", ErrNotQueued, err))
		default:
			c.finish(ErrQueueFull)
		}
	}
	return done, again
}

// share is how many ids a partition's part of the queue holds.
func (w *WriteBehind[K, V]) share() int {
	n := w.e.Partitions()
	if n == 1 {
		return w.o.MaxQueued
	}
	return max(1, w.o.MaxQueued*3/2/n)
}

// announce invalidates what carries the keys of changes as tags: after they are in the
// queue, or what is made of the old values in between would stay.
func (w *WriteBehind[K, V]) announce(ctx context.Context, changes []*change) {
	if len(changes) == 0 {
		return
	}
	items := make([]engine.Item, len(changes))
	for i, c := range changes {
		items[i] = tagItem(c.key)
	}
	var err error
	if !mutantR27Announce {
		err = w.e.Invalidate(ctx, items)
	}
	for _, c := range changes {
		c.finish(err)
	}
}

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
