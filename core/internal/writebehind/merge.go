package writebehind

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/larderhq/larder/core/internal/coherence"
	"github.com/larderhq/larder/core/internal/local"
	"github.com/larderhq/larder/core/internal/naming"
	"github.com/larderhq/larder/core/internal/tier"
)

// maxMergePause is the longest pause before another attempt at a partial change.
const maxMergePause = 200 * time.Millisecond

// Merge is a partial change of a key: it depends on the latest value.
type Merge struct {
	Key   string
	Codec local.Codec
	// Apply returns the new value. queued is the queued change of the key, nil if there is
	// none. Apply may be called more than once.
	Apply func(ctx context.Context, queued *tier.Queued) (Record, error)
}

// Merge queues the result of a partial change. The lease of the key proves that the value has
// not changed since the read: every change and every invalidation of the key ends the
// lease.
func (p *Pipeline) Merge(ctx context.Context, m Merge) error {
	ctx, cancel := context.WithTimeout(ctx, p.Committer.Wait)
	defer cancel()
	unlock, err := p.lock(ctx, m.Key) // the lease excludes other processes only
	if err != nil {
		return err
	}
	defer unlock()
	deadline, _ := ctx.Deadline()
	for pause := fullRetry; ; pause = min(2*pause, maxMergePause) {
		done, err := p.mergeOnce(ctx, m)
		full := errors.Is(err, ErrQueueFull)
		switch {
		case !full && (done || err != nil):
			return err
		case full && time.Until(deadline) <= pause: // the deadline would cut off the next attempt
			return err
		}
		select {
		case <-time.After(pause):
		case <-p.life.closing:
			return p.Closed
		case <-ctx.Done():
			if full {
				return fmt.Errorf("%w: %w", ErrQueueFull, ctx.Err())
			}
			return fmt.Errorf("%w: %w", ErrNotQueued, ctx.Err())
		}
	}
}

// PutAmongMerges is Put for a key that also has partial changes.
func (p *Pipeline) PutAmongMerges(ctx context.Context, c *Change) error {
	call, cancel := context.WithTimeout(ctx, p.Committer.Wait)
	defer cancel()
	unlock, err := p.lock(call, c.key)
	if err != nil {
		return err
	}
	defer unlock()
	return p.Put(ctx, c)
}

// lock excludes other partial changes of the key in this process.
func (p *Pipeline) lock(ctx context.Context, key string) (unlock func(), err error) {
	slot := p.merges[tier.Partition(key, len(p.merges))]
	select {
	case slot <- struct{}{}:
		return func() { <-slot }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", ErrNotQueued, ctx.Err())
	}
}

// mergeOnce is one attempt at a partial change. done: no further attempt is needed.
func (p *Pipeline) mergeOnce(ctx context.Context, m Merge) (done bool, err error) {
	turn := p.Engine.Alone(m.Key, []string{naming.Tag(m.Key)})
	defer turn.Finish(local.Outcome{Verdict: local.Unshareable})
	f := turn.Fetch(ctx, coherence.Query{Codec: m.Codec, LeaseOnly: true, Wait: p.Committer.Wait})
	switch {
	case !p.Engine.Shares() || turn.Lease() != "":
	case p.committer.answers(p.Engine.PartitionOf(m.Key)): // this process is behind the log, or another has the lease
		return false, nil
	default:
		return false, fmt.Errorf("%w: the shared tier does not answer", ErrNotQueued)
	}
	r, err := m.Apply(ctx, f.Queued)
	if err != nil {
		return false, err
	}
	c := NewChange(m.Key, r)
	c.lease = turn.Lease()
	err = p.Put(ctx, c)
	if errors.Is(err, errLeaseLost) {
		return false, nil
	}
	return true, err
}
