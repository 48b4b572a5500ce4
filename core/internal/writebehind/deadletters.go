package writebehind

import (
	"context"
	"errors"
	"fmt"

	"github.com/larderhq/larder/core/internal/tier"
)

// DeadLetter names a dead letter.
type DeadLetter struct {
	Partition int
	ID        string
	Key       string
}

// DeadLetters calls each with up to n dead letters, the oldest of each partition first.
// err is the error of a record that does not decode.
func (p *Pipeline) DeadLetters(ctx context.Context, n int, each func(at DeadLetter, l tier.DeadLetter, change any, err error)) error {
	q, err := p.Engine.Queue()
	if err != nil {
		return err
	}
	for i := 0; i < p.Engine.Partitions() && n > 0; i++ {
		list, err := q.DeadLetters(ctx, i, p.Queue, "", n)
		if err != nil {
			return err
		}
		for _, l := range list {
			change, err := p.Target.Decode(&l.Queued)
			each(DeadLetter{Partition: i, ID: l.ID, Key: l.Key}, l, change, err)
		}
		n -= len(list)
	}
	return nil
}

// Replay queues the changes of dead letters again, and returns their number. It discards a dead
// letter whose key has a later change in the queue.
func (p *Pipeline) Replay(ctx context.Context, list []DeadLetter) (n int, err error) {
	q, err := p.Engine.Queue()
	if err != nil {
		return 0, err
	}
	return eachDeadLetter(list, func(l DeadLetter) (bool, error) {
		ok, err := q.Replay(ctx, l.Partition, p.Queue, l.ID)
		if ok || err != nil { // after an error the change may be queued
			err = errors.Join(deadLetterError(l, err), p.invalidate(ctx, l.Key))
			p.pool.wake(l.Partition)
		}
		return ok, err
	})
}

// Discard deletes dead letters, and returns their number.
func (p *Pipeline) Discard(ctx context.Context, list []DeadLetter) (n int, err error) {
	q, err := p.Engine.Queue()
	if err != nil {
		return 0, err
	}
	return eachDeadLetter(list, func(l DeadLetter) (bool, error) {
		ok, err := q.Discard(ctx, l.Partition, p.Queue, l.ID)
		return ok, deadLetterError(l, err)
	})
}

// eachDeadLetter calls do for each dead letter. It returns the number of calls that returned
// true, and all errors.
func eachDeadLetter(list []DeadLetter, do func(DeadLetter) (bool, error)) (n int, err error) {
	for _, l := range list {
		ok, lerr := do(l)
		if ok {
			n++
		}
		err = errors.Join(err, lerr)
	}
	return n, err
}

func deadLetterError(l DeadLetter, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("larder: dead letter of %s: %w", l.Key, err)
}

// invalidate invalidates a key and the entries that carry it as a tag, even if ctx has
// ended.
func (p *Pipeline) invalidate(ctx context.Context, key string) error {
	ctx, cancel := p.Bound(ctx)
	defer cancel()
	return p.Engine.Invalidate(ctx, []tier.Item{keyItem(key), tagItem(key)})
}
