package core

import (
	"context"
	"errors"
	"fmt"

	"github.com/larderhq/larder/core/internal/coherence"
)

// DeadLetter is a change that could not be applied.
type DeadLetter[K comparable, V any] struct {
	Change[K, V]
	Reason string // the last attempt's error
	// Undecodable says that ID and Value could not be made of what was queued: it is of
	// another type, or of another version of this library.
	Undecodable bool

	key       string
	partition int
	id        string
}

// DeadLetters returns up to n dead letters, of each partition the oldest first. A later
// change of the same id takes its dead letter away. A partition keeps 10 000 about; the
// oldest go.
func (w *WriteBehind[K, V]) DeadLetters(ctx context.Context, n int) (list []DeadLetter[K, V], err error) {
	if n < 1 {
		return nil, &ConfigError{"n", n, "1 or more"}
	}
	q, err := w.e.Queue()
	if err != nil {
		return nil, err
	}
	for p := 0; p < w.e.Partitions() && len(list) < n; p++ {
		letters, err := q.Letters(ctx, p, w.m.prefix, "", n-len(list))
		if err != nil {
			return list, err
		}
		for _, l := range letters {
			d := DeadLetter[K, V]{Reason: l.Reason, key: l.Key, partition: p, id: l.ID}
			d.Change, err = w.decoded(&l.Queued)
			d.Undecodable = err != nil
			d.Attempt = l.Attempts
			list = append(list, d)
		}
	}
	return list, nil
}

// Replay queues dead letters again, and returns how many: one whose id has been changed
// since is left, for what it holds is older.
func (w *WriteBehind[K, V]) Replay(ctx context.Context, letters ...DeadLetter[K, V]) (int, error) {
	return w.take(ctx, letters, true)
}

// Discard forgets dead letters, and returns how many.
func (w *WriteBehind[K, V]) Discard(ctx context.Context, letters ...DeadLetter[K, V]) (int, error) {
	return w.take(ctx, letters, false)
}

func (w *WriteBehind[K, V]) take(ctx context.Context, letters []DeadLetter[K, V], again bool) (n int, err error) {
	q, err := w.e.Queue()
	if err != nil {
		return 0, err
	}
	for _, l := range letters {
		ok, rerr := q.Replay(ctx, l.partition, w.m.prefix, l.id, again)
		if rerr != nil {
			err = errors.Join(err, fmt.Errorf("larder: dead letter of %s: %w", l.key, rerr))
		}
		if ok {
			n++
		}
		if again && (ok || rerr != nil) {
			call, cancel := w.m.c.bound(ctx)
			err = errors.Join(err, w.e.Invalidate(call, []coherence.Item{{Kind: coherence.Key, Value: l.key}, tagItem(l.key)}))
			cancel()
			w.wake(l.partition)
		}
	}
	return n, err
}
