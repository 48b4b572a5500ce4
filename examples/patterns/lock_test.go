package patterns

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/larderhq/larder/core"
)

func locked(lockTTL time.Duration) maker {
	return func(_ *testing.T, client *redis.Client, db Database) shop {
		return &LockShop{AsideShop{db: db, rdb: client}, lockTTL}
	}
}

func lockMap(_ *testing.T, client *redis.Client, db Database) shop {
	return &LockMapShop{AsideShop: AsideShop{db: db, rdb: client}, locks: make(map[int64]*sync.Mutex)}
}

const lockKey = "lock:product:1"

func TestALockWithoutTTLOutlivesItsKilledHolder(t *testing.T) {
	type result struct {
		answered bool
		loads    int
	}
	compare(t, locked(0), larder(), func(w *world) result {
		role := roleLock
		if w.larder {
			role = roleLarder
		}
		w.kill(role) // in its load
		ctx, cancel := context.WithCancel(w.t.Context())
		defer cancel()
		if !w.larder {
			w.a.wire.on("setnx", 20, cancel) // that often it has found the lock taken
		}
		got := receive(w.t, "the other server", w.askIn(ctx, w.a, id))
		if got.err != nil && !errors.Is(got.err, context.Canceled) {
			w.t.Fatal(got.err)
		}
		if left := w.client.PTTL(w.t.Context(), lockKey).Val(); !w.larder && left != -1 {
			w.t.Errorf("the lock will be there for %v, not for ever", left)
		}
		return result{got == answer{cents: old}, w.db.loads()}
	}, result{false, 0}, result{true, 1})
}

// expire waits until a lock has expired, or a lease of Larder's would have, had it
// not been extended.
func (w *world) expire() {
	w.t.Helper()
	if !w.larder {
		until(w.t, "the lock to expire", func() bool { return w.client.Exists(w.t.Context(), lockKey).Val() == 0 })
		return
	}
	last := time.Hour
	until(w.t, "the lease to be extended", func() bool {
		for _, key := range w.client.Keys(w.t.Context(), "larder:*").Val() {
			if strings.Contains(key, "}:l:") {
				left := w.client.PTTL(w.t.Context(), key).Val()
				if left > last {
					return true
				}
				last = left
			}
		}
		return false
	})
}

func TestALoadThatOutlastsItsLockRunsTwice(t *testing.T) {
	compare(t, locked(20*time.Millisecond), larder(), func(w *world) int {
		reads := w.db.hold(w.t, hasRead, 2)
		first := w.ask(w.a)
		reads.await(w.t, "the first server to load", 1)
		w.expire()
		second := w.ask(w.b)
		if !w.larder {
			reads.await(w.t, "the second server to load", 2)
		}
		reads.release()
		for _, a := range []<-chan answer{first, second} {
			if got := receive(w.t, "an answer", a); got != (answer{cents: old}) {
				w.t.Errorf("%+v", got)
			}
		}
		return w.db.atOnce()
	}, 2, 1)
}

func TestALoadThatOutlastsItsLockOverwritesANewerPrice(t *testing.T) {
	compare(t, locked(20*time.Millisecond), larder(), func(w *world) int64 {
		reads := w.db.hold(w.t, hasRead, 1)
		first := w.ask(w.a)
		reads.await(w.t, "the first server to have read the old price", 1)
		w.expire()
		w.save(w.b, newer)
		if cents := w.cost(w.b); cents != newer {
			w.t.Fatalf("the second server answers %d", cents)
		}
		reads.release()
		receive(w.t, "the first server", first)
		w.mustStay()
		return w.cost(w.b)
	}, old, newer)
}

func TestALoadThatOutlastsItsLockReleasesAnothers(t *testing.T) {
	one := func(o *core.Options) {
		c := o.Classes["product"]
		c.MaxLoadsAfterError = 1
		o.Classes["product"] = c
	}
	type result struct{ loads, atOnce int } // after the first has failed
	compare(t, locked(20*time.Millisecond), larder(one), func(w *world) result {
		timedOut := errors.New("the database has timed out")
		w.db.failHeld(timedOut)
		failing := w.db.hold(w.t, hasRead, 1)
		first := w.ask(w.a)
		failing.await(w.t, "the first server to load", 1)
		w.expire()
		reads := w.db.hold(w.t, hasRead, 2)
		if b, ok := w.b.shop.(*LockShop); ok {
			b.lockTTL = time.Hour // its lock does not expire
		}
		second := w.ask(w.b) // has the lock; with Larder it waits
		if !w.larder {
			reads.await(w.t, "the second server to load", 1)
		}
		failing.release()
		if got := receive(w.t, "the first server", first); !errors.Is(got.err, timedOut) {
			w.t.Fatalf("%+v", got)
		}
		reads.await(w.t, "the second server to load", 1)
		w.db.failHeld(nil)
		w.db.countAnew()
		third := w.ask(w.a)
		if !w.larder {
			reads.await(w.t, "a third to load", 2)
		}
		reads.release()
		for _, a := range []<-chan answer{second, third} {
			if got := receive(w.t, "an answer", a); got != (answer{cents: old}) {
				w.t.Errorf("%+v", got)
			}
		}
		return result{w.db.loads(), w.db.atOnce()}
	}, result{2, 2}, result{1, 1})
}

func TestALockMapPerServerLoadsOncePerServer(t *testing.T) {
	const clients = 20
	compare(t, lockMap, larder(), func(w *world) int {
		reads := w.db.hold(w.t, hasRead, clients)
		var answers []<-chan answer
		for i := range clients {
			answers = append(answers, w.ask([]shop{w.a, w.b}[i%2]))
		}
		until(w.t, "both servers to have missed", func() bool { return reads.held() == 2 || w.waiting() == clients-2 })
		reads.release()
		for _, a := range answers {
			receive(w.t, "an answer", a)
		}
		return w.db.loads()
	}, 2, 1)
}

func TestALockMapGrowsByOneLockPerProduct(t *testing.T) {
	s := lockMap(t, connect(t, &redis.Options{Addr: startRedis(t)}), newDatabase()).(*LockMapShop)
	for i := range int64(1000) {
		if _, err := s.Product(t.Context(), i); !isMissing(err) {
			t.Fatal(err)
		}
	}
	if n := len(s.locks); n != 1000 {
		t.Errorf("the naive version is not broken as the guide says: %d locks", n)
	}
}
