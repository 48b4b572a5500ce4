package patterns

import (
	"testing"

	"github.com/redis/go-redis/v9"
)

func queued(_ *testing.T, client *redis.Client, db Database) shop {
	return NewQueueShop(AsideShop{db: db, rdb: client})
}

// work starts the workers of both servers. Larder's work already.
func (w *world) work() {
	for _, s := range []*server{w.a, w.b} {
		if naive, ok := s.shop.(*QueueShop); ok {
			w.start(naive.Work)
		}
	}
}

// drained waits until everything that a server has queued is in the database.
func (w *world) drained(s *server) {
	w.t.Helper()
	if w.larder {
		if err := w.flush(s.shop); err != nil {
			w.t.Fatal(err)
		}
		return
	}
	const last = 99
	w.db.set(Product{ID: last})
	if err := s.Save(w.t.Context(), Product{ID: last, Cents: 1}); err != nil {
		w.t.Fatal(err)
	}
	until(w.t, "the queue to be worked off", func() bool { return w.db.price(last) == 1 })
}

func TestAKilledProcessLosesItsQueuedWrites(t *testing.T) {
	compare(t, queued, writeBehind, func(w *world) (saved int) {
		role := roleQueue
		if w.larder {
			role = roleWriteBehind
		}
		w.kill(role)
		w.work()
		w.drained(w.a)
		for i := range int64(acknowledged) {
			if w.db.price(i+1) == newer {
				saved++
			}
		}
		return saved
	}, 0, acknowledged)
}

func TestAWriterReadsTheOldValueWhileItsWriteIsQueued(t *testing.T) {
	type prices struct{ a, b int64 }
	compare(t, queued, writeBehind, func(w *world) prices {
		w.work()
		w.cost(w.a) // is cached
		writes := w.db.hold(w.t, willWrite, 1)
		w.save(w.a, newer)
		writes.await(w.t, "a worker to begin", 1)
		read := prices{w.cost(w.a), w.cost(w.b)}
		writes.release()
		w.drained(w.a)
		return read
	}, prices{old, old}, prices{newer, newer})
}

func TestQueuesOfTwoServersMayApplyAnOlderWriteLast(t *testing.T) {
	compare(t, queued, writeBehind, func(w *world) int64 {
		w.work()
		writes := w.db.hold(w.t, willWrite, 1)
		w.save(w.a, newer)
		writes.await(w.t, "a worker to begin with the first write", 1)
		w.save(w.b, newest)
		if !w.larder { // whose order is that of the id, over all servers
			w.drained(w.b)
		}
		writes.release()
		w.drained(w.a)
		w.drained(w.b)
		return w.db.price(id)
	}, newer, newest)
}
