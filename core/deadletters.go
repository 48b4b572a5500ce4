package core

import (
	"context"

	"github.com/larderhq/larder/core/internal/tier"
	"github.com/larderhq/larder/core/internal/writebehind"
)

// DeadLetter is a change that could not be applied.
type DeadLetter[K comparable, V any] struct {
	Change[K, V]
	Reason string // the error of the last attempt
	// Undecodable: the queued bytes do not decode to ID and Value. Another type of value or
	// another version of this library has queued them.
	Undecodable bool

	at writebehind.DeadLetter
}

// DeadLetters returns up to n dead letters, the oldest of each partition first. A later
// change of the same id deletes its dead letter. A partition keeps about 10 000; the oldest
// are evicted.
func (w *WriteBehind[K, V]) DeadLetters(ctx context.Context, n int) (list []DeadLetter[K, V], err error) {
	if n < 1 {
		return nil, &ConfigError{"n", n, "1 or more"}
	}
	err = w.pipeline.DeadLetters(ctx, n, func(at writebehind.DeadLetter, l tier.DeadLetter, change any, err error) {
		d := DeadLetter[K, V]{Reason: l.Reason, Undecodable: err != nil, at: at}
		d.Change, _ = change.(Change[K, V])
		d.Attempt = l.Attempts
		list = append(list, d)
	})
	return list, err
}

// Replay queues dead letters again, and returns how many. It discards a dead letter whose id
// has been changed since: the later change wins.
func (w *WriteBehind[K, V]) Replay(ctx context.Context, letters ...DeadLetter[K, V]) (int, error) {
	return w.pipeline.Replay(ctx, places(letters))
}

// Discard deletes dead letters, and returns how many.
func (w *WriteBehind[K, V]) Discard(ctx context.Context, letters ...DeadLetter[K, V]) (int, error) {
	return w.pipeline.Discard(ctx, places(letters))
}

// places returns where dead letters are.
func places[K comparable, V any](letters []DeadLetter[K, V]) []writebehind.DeadLetter {
	list := make([]writebehind.DeadLetter, len(letters))
	for i, l := range letters {
		list[i] = l.at
	}
	return list
}
