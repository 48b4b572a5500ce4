package patterns

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/larderhq/larder/core"
)

func oneTTL(_ *testing.T, client *redis.Client, db Database) shop {
	return &OneTTLShop{NullShop{AsideShop{db: db, rdb: client}}}
}

// warm fills in many products.
func (w *world) warm(s *server, ids []int64) error {
	if ours, ok := s.shop.(*Shop); ok {
		return ours.Warm(w.t.Context(), ids)
	}
	return (&OneTTLShop{NullShop{AsideShop{db: w.db, rdb: w.client}}}).Warm(w.t.Context(), ids)
}

// lifetimes are the remaining TTLs in Redis of the keys with this prefix.
func (w *world) lifetimes(prefix string) []time.Duration {
	w.t.Helper()
	var all []time.Duration
	for _, key := range w.client.Keys(w.t.Context(), "*").Val() {
		if w.larder && !strings.Contains(key, "}:e:") || !strings.Contains(key, prefix) {
			continue
		}
		left, err := w.client.PTTL(w.t.Context(), key).Result()
		if err != nil || left <= 0 {
			w.t.Fatalf("%q is kept for %v, %v", key, left, err)
		}
		all = append(all, left)
	}
	slices.Sort(all)
	return all
}

func TestOneTTLExpiresAWarmedCacheAtOnce(t *testing.T) {
	const products = 300
	compare(t, oneTTL, larder(), func(w *world) bool {
		var ids []int64
		for i := range int64(products) {
			ids = append(ids, i+1)
			w.db.set(Product{ID: i + 1, Cents: old})
		}
		var all []time.Duration
		// On a busy machine Larder does not store values that took too long, and Warm skips those that are stored.
		until(w.t, "most of the products to be stored", func() bool {
			if err := w.warm(w.a, ids); err != nil {
				w.t.Fatal(err)
			}
			all = w.lifetimes("product:")
			return len(all) > products/2
		})
		within := all[len(all)*9/10] - all[len(all)/10]
		w.t.Logf("8 of 10 of %d expire within %v", len(all), within)
		return within < 10*time.Second
	}, true, false)
}

func TestOneTTLKeepsPricesAsLongAsCountriesAndMissingIDs(t *testing.T) {
	type result struct{ product, country, missing time.Duration } // rounded up to distinct steps
	compare(t, oneTTL, larder(), func(w *world) result {
		w.cost(w.a)
		countries := w.a.shop.(interface {
			Countries(ctx context.Context) ([]string, error)
		})
		if _, err := countries.Countries(w.t.Context()); err != nil {
			w.t.Fatal(err)
		}
		if _, err := w.a.Product(w.t.Context(), 404); !isMissing(err) {
			w.t.Fatal(err)
		}
		upTo := func(key string) time.Duration {
			all := w.lifetimes(key)
			if len(all) != 1 {
				w.t.Fatalf("%d of %s", len(all), key)
			}
			for _, step := range []time.Duration{10 * time.Second, 6 * time.Minute, 25 * time.Hour} {
				if all[0] <= step {
					return step
				}
			}
			return all[0]
		}
		return result{upTo("product:1"), upTo("country:all"), upTo("product:404")}
	},
		result{6 * time.Minute, 6 * time.Minute, 6 * time.Minute},
		result{6 * time.Minute, 25 * time.Hour, 10 * time.Second})
}

func TestOneTTLMakesAllReadersOfAnExpiredProductWait(t *testing.T) {
	const clients = 20
	short := func(o *core.Options) {
		c := o.Classes["product"]
		c.TTL, c.Jitter = time.Millisecond, 0
		o.Classes["product"] = c
	}
	type result struct{ answered, loading int }
	compare(t, oneTTL, larder(short), func(w *world) result {
		w.cost(w.a)
		if !w.larder {
			w.client.PExpire(w.t.Context(), productKey(id), time.Millisecond)
			until(w.t, "the TTL to end", func() bool { return w.client.Exists(w.t.Context(), productKey(id)).Val() == 0 })
		}
		reads := w.db.hold(w.t, hasRead, clients)
		if w.larder {
			until(w.t, "a refresh", func() bool { w.cost(w.a); return reads.held() > 0 })
		}
		var answers []<-chan answer
		for range clients {
			answers = append(answers, w.ask(w.a))
		}
		answered := 0
		until(w.t, "all clients to be answered or to load", func() bool {
			answered = 0
			for _, a := range answers {
				answered += len(a)
			}
			return answered == clients || reads.held() == clients
		})
		loading := reads.held()
		reads.release()
		for _, a := range answers {
			if got := receive(w.t, "an answer", a); got != (answer{cents: old}) {
				w.t.Errorf("%+v", got)
			}
		}
		return result{answered, loading}
	}, result{0, clients}, result{clients, 1})
}
