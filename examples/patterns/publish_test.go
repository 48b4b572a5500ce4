package patterns

import (
	"context"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/larderhq/larder/core"
)

func published(t *testing.T, client *redis.Client, db Database) shop {
	t.Helper()
	s := &PublishShop{db: db, rdb: client}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Listen(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return s
}

// listening waits until both naive servers are subscribed.
func (w *world) listening() {
	w.t.Helper()
	if w.larder {
		return
	}
	until(w.t, "both servers to listen", func() bool {
		return w.client.PubSubNumSub(w.t.Context(), "changed").Val()["changed"] == 2
	})
}

// heard waits until a server has worked off every message that will reach it: of
// Larder's, until each is fresh.
func (w *world) heard(s *server) {
	w.t.Helper()
	const marker = 77
	if ours, ok := w.b.shop.(*Shop); ok {
		if err := ours.cache.InvalidateEverywhere(w.t.Context(), core.Tag("marker")); err != nil {
			w.t.Fatal(err)
		}
		return
	}
	naive := s.shop.(*PublishShop)
	naive.local.Store(productKey(marker), Product{})
	until(w.t, "the server to hear a message", func() bool {
		w.client.Publish(w.t.Context(), "changed", productKey(marker))
		_, there := naive.local.Load(productKey(marker))
		return !there
	})
}

func TestASubscriberMissesMessagesWhileItReconnects(t *testing.T) {
	compare(t, published, larder(fresh), func(w *world) int64 {
		w.listening()
		w.cost(w.a) // is in its memory
		mend := w.a.wire.cut(w.t)
		if err := w.client.ClientKillByFilter(w.t.Context(), "TYPE", "pubsub").Err(); err != nil {
			w.t.Fatal(err)
		}
		w.save(w.b, newer)
		mend()
		w.listening()
		w.heard(w.a)
		return w.cost(w.a)
	}, old, newer)
}

func TestAMessageBeforeTheStoreLeavesTheOldPrice(t *testing.T) {
	compare(t, published, larder(fresh), func(w *world) int64 {
		w.listening()
		reads := w.db.hold(w.t, hasRead, 1)
		loading := w.ask(w.a)
		reads.await(w.t, "the load to have read the old price", 1)
		w.save(w.b, newer)
		w.heard(w.a) // there was nothing to delete
		reads.release()
		receive(w.t, "the load", loading)
		return w.cost(w.a)
	}, old, newer)
}
