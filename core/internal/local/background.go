package local

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/larderhq/larder/core/internal/tier"
)

// background runs work that outlives a call. Close ends it.
type background struct {
	slots  chan struct{} // of background refreshes
	life   sync.Mutex    // guards closed against work.Add
	closed atomic.Bool
	work   sync.WaitGroup
	atWork atomic.Int64 // the number of goroutines in work
	ctx    context.Context
	cancel context.CancelFunc
}

func (b *background) start(refreshes int) {
	b.slots = make(chan struct{}, refreshes)
	b.ctx, b.cancel = context.WithCancel(context.Background())
}

// Background runs fn in a goroutine that Close waits for. It returns false, and runs nothing, if
// no slot is free or the cache is closed. The context of fn has the values of parent. It ends
// after limit, and when the cache is closed.
func (c *Cache) Background(parent context.Context, limit time.Duration, fn func(context.Context)) bool {
	return c.Slot(fn, func(fn func(context.Context)) bool { return c.Spawn(parent, limit, fn) })
}

// Slot runs fn through spawn in one of the slots of background refreshes. It returns false if no
// slot is free, or if spawn does.
func (c *Cache) Slot(fn func(context.Context), spawn func(func(context.Context)) bool) bool {
	select {
	case c.slots <- struct{}{}:
	default:
		c.Count.RefreshesSkipped.Add(1)
		return false
	}
	ok := spawn(func(ctx context.Context) {
		defer func() { <-c.slots }()
		fn(ctx)
	})
	if !ok {
		<-c.slots
	}
	return ok
}

// Spawn is Background without slots. The number of calls is bounded by their callers, which wait
// for them.
func (c *Cache) Spawn(parent context.Context, limit time.Duration, fn func(context.Context)) bool {
	// A batch of the parent does not wait for work that outlives it.
	return c.SpawnInBatch(tier.WithBatch(parent, nil), limit, fn)
}

// SpawnInBatch is Spawn in the batch of parent.
func (c *Cache) SpawnInBatch(parent context.Context, limit time.Duration, fn func(context.Context)) bool {
	return c.SpawnUntil(parent, limit, fn, func(context.Context) bool { return true })
}

// SpawnUntil runs fn in a goroutine that Close waits for. When the cache is closed, the context
// of fn is cancelled as soon as unwanted returns true. unwanted returns at the end of its
// context at the latest.
func (c *Cache) SpawnUntil(parent context.Context, limit time.Duration, fn func(context.Context), unwanted func(context.Context) bool) bool {
	c.life.Lock()
	if c.closed.Load() {
		c.life.Unlock()
		return false
	}
	c.work.Add(1)
	c.atWork.Add(1)
	c.life.Unlock()
	parent = lasting(parent) // before this call returns, after which it may be recycled
	go func() {
		defer c.work.Done()
		defer c.atWork.Add(-1)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(parent), limit)
		defer cancel()
		defer context.AfterFunc(c.ctx, func() {
			if unwanted(ctx) {
				cancel()
			}
		})()
		fn(ctx)
	}()
	return true
}

// Life returns a context that ends when the cache is closed.
func (c *Cache) Life() context.Context { return c.ctx }

// Closed reports whether Close has been called.
func (c *Cache) Closed() bool { return c.closed.Load() }

// Close ends the cache. Nothing is stored after that. Close cancels the contexts of loads for
// which no request waits, and waits for all work until ctx ends. Later calls do nothing.
func (c *Cache) Close(ctx context.Context) error {
	c.life.Lock()
	already := c.closed.Swap(true)
	c.life.Unlock()
	if already {
		return nil
	}
	c.cancel()
	c.journal.mu.Lock()   // waits for running inserts
	c.journal.mu.Unlock() //nolint:staticcheck // an empty critical section is a barrier here
	c.reaper.work.Wait()  // for one step at most
	c.tier.close()
	if c.atWork.Load() == 0 { // even if ctx has ended
		return nil
	}
	done := make(chan struct{})
	go func() {
		c.work.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
