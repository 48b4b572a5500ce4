package writebehind

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/larderhq/larder/core/internal/tier"
)

// Pipeline is a queue of changes, the committer that fills it, and the workers that empty
// it. Its methods are safe for concurrent use.
type Pipeline struct {
	*shared
	durability durability
	committer  *committer
	pool       *pool
	merges     [64]chan struct{} // locks of keys whose changes are partial, by hash
	life       lifetime
}

// lifetime ends a Pipeline.
type lifetime struct {
	submitting sync.RWMutex  // held while a change is submitted to the committer
	closing    chan struct{} // closed when no further change is accepted
	once       sync.Once
	running    sync.WaitGroup // the committer and the workers
}

// counters count in this process.
type counters struct {
	applied, failed, died, overtaken, coalesced atomic.Int64
	lag                                         atomic.Int64 // of the last applied change, in nanoseconds
}

// New returns a Pipeline that does not run yet. It fails if the tier may evict queued
// changes.
func New(c Config) (*Pipeline, error) {
	s := &shared{Config: c}
	s.ctx, s.stop = context.WithCancel(context.Background())
	p := &Pipeline{shared: s}
	p.pool = newPool(s, &p.durability)
	p.committer = newCommitter(s, p.pool)
	p.life.closing = make(chan struct{})
	for i := range p.merges {
		p.merges[i] = make(chan struct{}, 1)
	}
	ctx, cancel := context.WithTimeout(s.ctx, callTimeout)
	defer cancel()
	if err := p.durability.check(ctx, s); errors.Is(err, tier.ErrUnusable) {
		s.stop()
		return nil, err
	}
	return p, nil
}

// Start starts the committer and the workers, which Close ends.
func (p *Pipeline) Start() {
	p.life.running.Go(p.committer.run)
	for _, w := range p.pool.workers {
		p.life.running.Go(w.run)
	}
}

// Discontinue is Close for a Pipeline that was not started.
func (p *Pipeline) Discontinue() { p.stop() }

// Put queues a change. It waits for room and for the tier.
func (p *Pipeline) Put(ctx context.Context, c *Change) error {
	ctx, cancel := context.WithTimeout(ctx, p.Committer.Wait)
	defer cancel()
	if err := p.submit(ctx, c); err != nil {
		return err
	}
	return c.wait(ctx)
}

// PutAll is Put of several changes. It returns their errors by index, nil if there are
// none.
func (p *Pipeline) PutAll(ctx context.Context, list []*Change) (errs map[int]error) {
	ctx, cancel := context.WithTimeout(ctx, p.Committer.Wait)
	defer cancel()
	errs = make(map[int]error)
	for i, c := range list {
		if err := p.submit(ctx, c); err != nil {
			errs[i] = err
		}
	}
	for i, c := range list {
		if errs[i] != nil {
			continue
		}
		if err := c.wait(ctx); err != nil {
			errs[i] = err
		}
	}
	return errs
}

// submit gives a change to the committer.
func (p *Pipeline) submit(ctx context.Context, c *Change) error {
	if err := p.durability.usable(ctx, p.shared); err != nil {
		return err
	}
	p.life.submitting.RLock()
	defer p.life.submitting.RUnlock()
	select {
	case <-p.life.closing:
		return p.Closed
	default:
	}
	c.deadline, _ = ctx.Deadline()
	select {
	case p.committer.changes <- c:
		return nil
	case <-p.life.closing:
		return p.Closed
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrQueueFull, ctx.Err())
	}
}

// flushInterval is the interval at which Flush asks for the state of the queue.
const flushInterval = 20 * time.Millisecond

// Flush returns when all changes that were queued before the call are applied or dead
// letters. A change that a later one has replaced counts as applied when the later one is.
// If ctx ends first, the error has the number of waiting changes.
func (p *Pipeline) Flush(ctx context.Context) error {
	f := flush{shared: p.shared, waiting: "an unknown number of"}
	tick := time.NewTicker(flushInterval)
	defer tick.Stop()
	for {
		if f.done(ctx) {
			return nil
		}
		p.pool.flush()
		select {
		case <-tick.C:
		case <-p.ctx.Done():
			return p.Closed
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("larder: flush: %s changes wait: %w", f.waiting, ctx.Err()), f.err)
		}
	}
}

// flush is a running Flush.
type flush struct {
	*shared
	until   []int64 // the last version of each partition at the beginning; nil: not known yet
	waiting string  // the number of waiting changes
	err     error   // of the last question for it
}

// done reports whether each partition is known to hold no change up to until.
func (f *flush) done(ctx context.Context) bool {
	left, err := f.left(ctx)
	switch {
	case err == nil && left == 0:
		return true
	case err == nil:
		f.waiting, f.err = strconv.Itoa(left), nil
	case ctx.Err() == nil:
		f.err = err
	}
	return false
}

// left returns the number of records in partitions that may hold one of a version up to
// until.
func (f *flush) left(ctx context.Context) (n int, err error) {
	states, err := f.states(ctx)
	if err != nil {
		return 0, err
	}
	if f.until == nil {
		for _, st := range states {
			f.until = append(f.until, st.Last)
		}
	}
	return waiting(states, f.until), nil
}

// waiting returns the number of records in partitions that may hold one of a version up to
// until.
func waiting(states []tier.QueueState, until []int64) (n int) {
	for i, st := range states {
		if i < len(until) && (st.Unseen > 0 || st.First != 0 && st.First <= until[i]) {
			n += st.Depth
		}
	}
	return n
}

// Close ends the Pipeline: calls return Config.Closed, and running applies are finished.
// Without a shared tier it applies the queued changes first. When ctx ends, it cancels the
// context of applies. A second Close does nothing.
func (p *Pipeline) Close(ctx context.Context) (err error) {
	p.life.once.Do(func() { err = p.close(ctx) })
	return err
}

func (p *Pipeline) close(ctx context.Context) (err error) {
	defer p.stop()
	close(p.life.closing)
	p.life.submitting.Lock() // the changes that were being submitted have arrived
	close(p.committer.quit)
	p.life.submitting.Unlock()
	select {
	case <-p.committer.ended:
		if !p.Engine.Shares() {
			err = p.Flush(ctx)
		}
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil && !p.Engine.Shares() {
		err = fmt.Errorf("larder: close of write-behind: waiting changes are lost: %w", err)
	}
	p.pool.end()
	ended := make(chan struct{})
	go func() {
		p.life.running.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return err
	case <-ctx.Done():
		return errors.Join(err, fmt.Errorf("larder: close of write-behind: an apply was cancelled: %w", ctx.Err()))
	}
}

// Stats is the state of a queue, and the counters of this process.
type Stats struct {
	Depth, Retrying, Dead                       int
	Oldest, Lag                                 time.Duration
	Applied, Coalesced, Failed, Died, Overtaken int64
}

// Stats asks the tier for the state of the queue. With an error only the counters are valid.
func (p *Pipeline) Stats(ctx context.Context) (Stats, error) {
	c := &p.counters
	s := Stats{
		Lag: time.Duration(c.lag.Load()), Applied: c.applied.Load(), Coalesced: c.coalesced.Load(),
		Failed: c.failed.Load(), Died: c.died.Load(), Overtaken: c.overtaken.Load(),
	}
	states, err := p.states(ctx)
	for _, st := range states {
		s.Depth += st.Depth
		s.Retrying += st.Retrying
		s.Dead += st.Dead
		if st.First > 0 {
			s.Oldest = max(s.Oldest, time.Duration(st.Now-st.First)*time.Microsecond)
		}
	}
	return s, err
}
