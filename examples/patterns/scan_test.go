package patterns

import (
	"context"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

func scan(_ *testing.T, client *redis.Client, db Database) shop {
	return &ScanShop{AsideShop{db: db, rdb: client}}
}

func keys(_ *testing.T, client *redis.Client, db Database) shop {
	return &KeysShop{AsideShop{db: db, rdb: client}}
}

// localScan has a copy in the memory of each server, too.
func localScan(_ *testing.T, client *redis.Client, db Database) shop {
	return &struct {
		*PublishShop
		clearer
	}{&PublishShop{db: db, rdb: client}, &ScanShop{AsideShop{db: db, rdb: client}}}
}

type clearer interface {
	Clear(ctx context.Context) error
}

func (w *world) clear(s *server) {
	w.t.Helper()
	if err := s.shop.(clearer).Clear(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

// raise makes every product dearer, behind everybody's back.
func (w *world) raise(ids ...int64) {
	for _, i := range ids {
		w.db.set(Product{ID: i, Cents: newer})
	}
}

func TestALoadStoresAnOldPriceAfterAScanDeletedAllKeys(t *testing.T) {
	compare(t, scan, larder(), func(w *world) int64 {
		reads := w.db.hold(w.t, hasRead, 1)
		loading := w.ask(w.a)
		reads.await(w.t, "the load to have read the old price", 1)
		w.raise(id)
		w.clear(w.b)
		reads.release()
		receive(w.t, "the load", loading)
		w.mustStay()
		return w.cost(w.b)
	}, old, newer)
}

func TestAScanMissesKeysStoredBehindItsCursor(t *testing.T) {
	const foreign, loading = 3000, 50
	compare(t, scan, larder(), func(w *world) bool {
		w.fill(foreign)
		var ids []int64
		for i := range int64(loading) {
			ids = append(ids, 100+i)
			w.db.set(Product{ID: 100 + i, Cents: old})
		}
		reads := w.db.hold(w.t, hasRead, loading)
		var answers []<-chan answer
		for _, i := range ids {
			answers = append(answers, w.askIn(w.t.Context(), w.a, i))
		}
		reads.await(w.t, "the loads to have read the old prices", loading)
		w.raise(ids...)

		half := 15 // of about 30 scans
		if w.larder {
			half = 2 // of about six, which look at more keys each
		}
		scans := w.b.wire.hold(w.t, "scan", half)
		cleared := make(chan error, 1)
		go func() { cleared <- w.b.shop.(clearer).Clear(w.t.Context()) }()
		scans.await(w.t, "the scan to be half way", 1)
		reads.release()
		for _, a := range answers {
			receive(w.t, "a load", a)
		}
		scans.release()
		if err := receive(w.t, "the end of the scan", cleared); err != nil {
			w.t.Fatal(err)
		}
		stale := 0
		for _, i := range ids {
			p, err := w.b.Product(w.t.Context(), i)
			if err != nil {
				w.t.Fatal(err)
			}
			if p.Cents == old {
				stale++
			}
		}
		w.t.Logf("%d of %d products have their old price", stale, loading)
		return stale > 0
	}, true, false)
}

// fill puts keys into Redis that are no business of the shop.
func (w *world) fill(n int) {
	w.t.Helper()
	const script = `for i = 1, tonumber(ARGV[1]) do redis.call('set', 'foreign:' .. i, i) end return 1`
	if err := w.client.Eval(w.t.Context(), script, nil, n).Err(); err != nil {
		w.t.Fatal(err)
	}
}

func TestAScanLeavesCopiesInTheMemoryOfServers(t *testing.T) {
	compare(t, localScan, larder(fresh), func(w *world) int64 {
		w.cost(w.a) // is in its memory
		w.raise(id)
		w.clear(w.b)
		if w.larder {
			w.heard(w.a)
		}
		return w.cost(w.a)
	}, old, newer)
}

func TestKeysVisitsEveryKeyInOneCommand(t *testing.T) {
	const foreign = 20_000
	type result struct{ oneCommand, manySmallOnes bool }
	compare(t, keys, larder(), func(w *world) result {
		w.fill(foreign)
		w.cost(w.a)
		w.clear(w.a)
		all, atOnce := w.calls("scan"), w.calls("keys")
		// Redis serves no other client while it runs a command.
		return result{atOnce > 0, all >= foreign/5000}
	}, result{true, false}, result{false, true})
}

// calls is how often Redis has run a command.
func (w *world) calls(command string) int {
	w.t.Helper()
	for line := range strings.Lines(w.client.Info(w.t.Context(), "commandstats").Val()) {
		if rest, ok := strings.CutPrefix(line, "cmdstat_"+command+":calls="); ok {
			w.t.Log(strings.TrimSpace(line))
			n, _, _ := strings.Cut(rest, ",")
			calls, err := strconv.Atoi(n)
			if err != nil {
				w.t.Fatal(err)
			}
			return calls
		}
	}
	return 0
}
