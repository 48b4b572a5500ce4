package patterns

import (
	"testing"

	"github.com/redis/go-redis/v9"
)

func updateSet(_ *testing.T, client *redis.Client, db Database) shop {
	return &UpdateSetShop{AsideShop{db: db, rdb: client}}
}

func TestUpdateThenSetKeepsTheOlderOfTwoWrites(t *testing.T) {
	compare(t, updateSet, larder(), func(w *world) int64 {
		commits := w.db.hold(w.t, hasWritten, 1)
		first := make(chan error, 1)
		go func() { first <- w.a.Save(w.t.Context(), cheese(newer)) }()
		commits.await(w.t, "the first writer to commit", 1)
		w.save(w.b, newest) // commits and sets
		commits.release()   // and the first one sets
		if err := receive(w.t, "the first writer", first); err != nil {
			w.t.Fatal(err)
		}
		if truth := w.db.price(id); truth != newest {
			w.t.Fatalf("the database says %d", truth)
		}
		w.mustStay()
		return w.cost(w.a)
	}, newer, newest)
}

func TestUpdateThenSetKeepsTheOldPriceWhenRedisIsFull(t *testing.T) {
	compare(t, updateSet, larder(), func(w *world) int64 {
		w.cost(w.a) // is stored
		if err := w.client.ConfigSet(w.t.Context(), "maxmemory", "1").Err(); err != nil {
			w.t.Fatal(err)
		}
		err := w.a.Save(w.t.Context(), cheese(newer)) // commits; the error comes too late
		w.t.Logf("save: %v", err)
		w.mustStay()
		return w.cost(w.a)
	}, old, newer)
}
