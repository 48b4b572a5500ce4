package patterns

import (
	"context"
	"testing"

	"github.com/redis/go-redis/v9"
)

func newWriteBehind(client *redis.Client, db Database) (shop, error) {
	s, err := NewShop(db, patient(client))
	if err != nil {
		return nil, err
	}
	return NewQueuedShop(s)
}

var writeBehind maker = func(t *testing.T, client *redis.Client, db Database) shop {
	t.Helper()
	s, err := newWriteBehind(client, db)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := s.(*QueuedShop).Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (w *world) flush(s shop) error { return s.(*QueuedShop).queue.Flush(w.t.Context()) }
