package patterns

import (
	"database/sql"
	"errors"
	"fmt"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/larderhq/larder/core"
)

func aside(_ *testing.T, client *redis.Client, db Database) shop {
	return &AsideShop{db: db, rdb: client}
}

func null(_ *testing.T, client *redis.Client, db Database) shop {
	return &NullShop{AsideShop{db: db, rdb: client}}
}

func TestAsideStoresAnOldPriceAfterItsDeletion(t *testing.T) {
	compare(t, aside, larder(), func(w *world) int64 {
		reads := w.db.hold(w.t, hasRead, 1)
		loading := w.ask(w.a)
		reads.await(w.t, "the load to have read the old price", 1)
		w.save(w.b, newer) // the deletion finds nothing to delete
		reads.release()
		receive(w.t, "the load", loading)
		if a, b := w.cost(w.a), w.cost(w.b); a != b {
			w.t.Fatalf("%d at one server, %d at the other", a, b)
		}
		w.mustStay()
		return w.cost(w.a)
	}, old, newer)
}

func TestAsideLoadsAColdProductOncePerRequest(t *testing.T) {
	const clients = 50
	compare(t, aside, larder(), func(w *world) int {
		reads := w.db.hold(w.t, hasRead, clients)
		var answers []<-chan answer
		for i := range clients {
			answers = append(answers, w.ask([]shop{w.a, w.b}[i%2]))
		}
		// With Larder two lead, one at each server: one loads, the other waits for it.
		until(w.t, "all clients to have missed", func() bool {
			return reads.held() == clients || w.waiting() == clients-2
		})
		reads.release()
		for _, a := range answers {
			if got := receive(w.t, "an answer", a); got != (answer{cents: old}) {
				w.t.Errorf("somebody was answered %+v", got)
			}
		}
		return w.db.loads()
	}, clients, 1)
}

func TestAsideQueriesAMissingProductEachTime(t *testing.T) {
	const requests = 100
	type queries string
	compare(t, aside, larder(), func(w *world) queries {
		for range requests {
			if _, err := w.a.Product(w.t.Context(), 404); !isMissing(err) {
				w.t.Fatalf("a product that does not exist: %v", err)
			}
		}
		switch n := w.db.loads(); {
		case n == requests:
			return "each time"
		case n < requests/10: // on a busy machine Larder may not store the first
			return "hardly ever"
		default:
			return queries(fmt.Sprint(n))
		}
	}, "each time", "hardly ever")
}

func TestAsideReadsAStoredNullAsAProductWithoutAPrice(t *testing.T) {
	type result struct{ first, second bool } // said to be missing
	compare(t, null, larder(), func(w *world) result {
		_, err := w.a.Product(w.t.Context(), 404)
		first := isMissing(err)
		_, err = w.a.Product(w.t.Context(), 404)
		return result{first, isMissing(err)}
	}, result{true, false}, result{true, true})
}

func isMissing(err error) bool {
	return errors.Is(err, sql.ErrNoRows) || errors.Is(err, core.ErrNotFound)
}
