package queue

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/larderhq/larder/core/internal/tier"
)

// Local is a queue in memory with one partition, 0, for processes without a shared tier. There
// are no leases, so that a change with a lease is refused. It invalidates nothing: the caller
// of Enqueue or Replay invalidates the keys afterwards. No method waits. All are safe for
// concurrent use.
type Local struct {
	begin time.Time // the clock continues from it by the monotonic clock

	mu    sync.Mutex
	state *State
}

var _ tier.Queue = (*Local)(nil)

var errNoLease = errors.New("queue: a change under a lease, and there are no leases in one process")

// NewLocal returns an empty queue.
func NewLocal() *Local { return &Local{begin: time.Now(), state: NewState()} }

// now returns the clock, which never goes back. The caller holds l.mu.
func (l *Local) now() int64 { return l.begin.UnixMicro() + time.Since(l.begin).Microseconds() }

// enter locks the queue, unless the arguments are invalid or ctx has ended.
func (l *Local) enter(ctx context.Context, invalid error) error {
	if invalid == nil {
		invalid = ctx.Err()
	}
	if invalid != nil {
		return fmt.Errorf("queue: %w", invalid)
	}
	l.mu.Lock()
	return nil
}

// checkPartition returns an error for a partition other than 0.
func checkPartition(partition int) error {
	if partition != 0 {
		return fmt.Errorf("partition %d of 1", partition)
	}
	return nil
}

// Peek returns the queued change of a key, from any queue.
func (l *Local) Peek(key string) (tier.Queued, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state.Peek(key)
}

// Durable implements tier.Queue. Queued changes are never evicted.
func (l *Local) Durable(context.Context) error { return nil }

// Enqueue implements tier.Queue, and invalidates nothing. It is executed at once, so that
// Within has no effect.
func (l *Local) Enqueue(ctx context.Context, e tier.Enqueue) ([]tier.Enqueued, error) {
	for _, c := range e.Changes {
		if c.Lease != "" {
			return nil, errNoLease
		}
	}
	if err := l.enter(ctx, e.Validate(1)); err != nil {
		return nil, err
	}
	defer l.mu.Unlock()
	done := make([]tier.Enqueued, len(e.Changes))
	for i, v := range l.state.Enqueue(&e, l.now(), "", nil) {
		done[i].Version = v
	}
	return done, nil
}

// Claim implements tier.Queue.
func (l *Local) Claim(ctx context.Context, c tier.Claim) (tier.Claimed, error) {
	if err := l.enter(ctx, c.Validate(1)); err != nil {
		return tier.Claimed{}, err
	}
	defer l.mu.Unlock()
	return l.state.Claim(&c, l.now()), nil
}

// Settle implements tier.Queue.
func (l *Local) Settle(ctx context.Context, s tier.Settle) (tier.Settlement, error) {
	if err := l.enter(ctx, s.Validate(1)); err != nil {
		return tier.Settlement{}, err
	}
	defer l.mu.Unlock()
	return l.state.Settle(&s, l.now(), ""), nil
}

// States implements tier.Queue.
func (l *Local) States(ctx context.Context, queue string) ([]tier.QueueState, error) {
	if err := l.enter(ctx, nil); err != nil {
		return nil, err
	}
	defer l.mu.Unlock()
	return []tier.QueueState{l.state.State(queue, l.now())}, nil
}

// DeadLetters implements tier.Queue.
func (l *Local) DeadLetters(ctx context.Context, partition int, queue, after string, n int) ([]tier.DeadLetter, error) {
	if err := l.enter(ctx, checkPartition(partition)); err != nil {
		return nil, err
	}
	defer l.mu.Unlock()
	letters, err := l.state.DeadLetters(queue, after, n)
	if err != nil {
		return nil, fmt.Errorf("queue: %w", err)
	}
	return letters, nil
}

// Replay implements tier.Queue, and invalidates nothing.
func (l *Local) Replay(ctx context.Context, partition int, queue, id string) (bool, error) {
	if err := l.enter(ctx, checkPartition(partition)); err != nil {
		return false, err
	}
	defer l.mu.Unlock()
	_, ok := l.state.Replay(queue, id, l.now(), "")
	return ok, nil
}

// Discard implements tier.Queue.
func (l *Local) Discard(ctx context.Context, partition int, queue, id string) (bool, error) {
	if err := l.enter(ctx, checkPartition(partition)); err != nil {
		return false, err
	}
	defer l.mu.Unlock()
	return l.state.Discard(queue, id), nil
}
