package main

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/larderhq/larder/core"
)

// maxStaleness is the default of core.Options.MaxStaleness: the time for which another
// server may answer an old value when the message about its change is lost.
const maxStaleness = time.Second

// sharing holds the results of the tour's second server.
type sharing struct {
	adapters [2]string // of the first, of the second
	second   string    // its base URL
	cache    *core.Cache
	shop     *Shop
	cut      func(context.Context) (int, error) // the subscriptions of both
}

// share shows that the two servers share one cache.
func (t *tourist) share(ctx context.Context, s *sharing) error {
	second := visitor{s.second, t.client}
	if err := t.shareRead(ctx, s, second); err != nil {
		return err
	}
	if err := t.shareWrite(ctx, s, second, false); err != nil {
		return err
	}
	if err := t.shareWrite(ctx, s, second, true); err != nil {
		return err
	}
	if err := t.everywhere(ctx, s); err != nil {
		return err
	}
	return t.crowdAt(ctx, "product 4, cold, %d clients at both servers", "/products/4", t.base, s.second)
}

// shareRead shows that the second server answers what only the first has loaded.
func (t *tourist) shareRead(ctx context.Context, s *sharing, second visitor) error {
	before := t.queries()
	miss, err := t.get(ctx, "/products/3", nil)
	if err != nil {
		return err
	}
	n := t.queries() - before
	t.note("product 3 at the first server", miss, n, s.adapters[0])
	t.expect(!miss.hit() && n == 1, "product 3 is a miss at first: %q, %d queries", miss.cacheStatus(), n)

	before = t.queries()
	hit, err := second.get(ctx, "/products/3", nil)
	if err != nil {
		return err
	}
	n = t.queries() - before
	t.note("product 3 at the second", hit, n, s.adapters[1]+", which never loaded it")
	t.expect(hit.hit() && n == 0, "what one server has loaded is a hit at the other: %q, %d queries", hit.cacheStatus(), n)
	t.expect(string(hit.body) == string(miss.body), "both servers answer the same bytes: %q, %q", miss.body, hit.body)
	return nil
}

// shareWrite shows that after an update at the second server the first answers what
// is old until the message arrives, and, if it is lost, for maxStaleness at most.
func (t *tourist) shareWrite(ctx context.Context, s *sharing, second visitor, lost bool) error {
	price, err := t.warm(ctx, "/products/3")
	if err != nil {
		return err
	}
	price += 200
	remark := ""
	if lost {
		n, err := s.cut(ctx)
		if err != nil {
			return err
		}
		remark = ", both servers' subscriptions cut"
		t.expect(n == 2, "both servers subscribe to messages: %d do", n)
	}
	before := t.queries()
	put, err := second.put(ctx, "/products/3", price)
	if err != nil {
		return err
	}
	done := time.Now()
	t.note("it gets a new price at the second (PUT)", put, t.queries()-before, money(price)+remark)
	t.expect(put.status == http.StatusNoContent, "the update succeeds: status %d, %q", put.status, put.body)

	before = t.queries()
	for old := 0; ; old++ {
		began := time.Since(done)
		r, err := t.get(ctx, "/products/3", nil)
		if err != nil {
			return err
		}
		got, err := r.price()
		if err != nil {
			return err
		}
		if got == price {
			n := t.queries() - before
			r.took = time.Since(done)
			t.note("product 3 at the first, until it is new", r, n, fmt.Sprintf("since the PUT; old answers before: %d", old))
			t.expect(n == 1, "the read after the update is one query: %d", n)
			return nil
		}
		t.expect(began < maxStaleness, "the first server is fresh %v after an update at the second", maxStaleness)
		if began > 10*maxStaleness {
			return fmt.Errorf("product 3 at the first server: still the old price after %v", began)
		}
		time.Sleep(time.Millisecond) // leave the processors to the other server
	}
}

// everywhere shows an invalidation that returns when no server answers anything old
// any more, message or not.
func (t *tourist) everywhere(ctx context.Context, s *sharing) error {
	price, err := t.warm(ctx, "/products/3")
	if err != nil {
		return err
	}
	price += 200
	if _, err := s.cut(ctx); err != nil {
		return err
	}
	before, start := t.queries(), time.Now()
	if err := s.shop.setPrice(ctx, 3, price); err != nil {
		return err
	}
	if err := s.cache.InvalidateEverywhere(ctx, core.Tag("product:3"), core.Tag("catalog")); err != nil {
		return err
	}
	t.note("it gets one without a request, InvalidateEverywhere", reply{took: time.Since(start)}, t.queries()-before,
		money(price)+", subscriptions cut again; it returns when all servers are fresh")

	before = t.queries()
	r, err := t.get(ctx, "/products/3", nil)
	if err != nil {
		return err
	}
	got, err := r.price()
	if err != nil {
		return err
	}
	t.note("product 3 at the first, after it", r, t.queries()-before, "the new price: "+money(got))
	t.expect(got == price, "after InvalidateEverywhere the first answer has the new price %d: %d", price, got)
	return nil
}

// warm demands that a product is in the first server's cache, and returns its price.
func (t *tourist) warm(ctx context.Context, path string) (int64, error) {
	if _, err := t.get(ctx, path, nil); err != nil {
		return 0, err
	}
	r, err := t.get(ctx, path, nil)
	if err != nil {
		return 0, err
	}
	t.expect(r.hit(), "a product is a hit before it gets a new price: %q", r.cacheStatus())
	return r.price()
}
