package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/larderhq/larder/core"
)

// fewOrders keep the tests short under the race detector, which slows SQLite down
// a lot, and are enough for a query to take longer than a hit.
const fewOrders = 2000

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// fasthttp, under Fiber, keeps a clock for as long as the process lives, and
		// lets a server's cleaner end up to 10 seconds after its Shutdown.
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"),
	)
}

func TestTheTourKeepsItsPromisesInEveryFramework(t *testing.T) {
	for _, adapter := range []string{"nethttp", "echo", "gin", "fiber"} {
		t.Run(adapter, func(t *testing.T) {
			tour := tourOf(t, adapter)
			for _, f := range tour.failures {
				t.Error(f)
			}
			want := []struct {
				status  int
				queries int64
				cache   string // part of Cache-Status
			}{
				{200, 1, "Larder; fwd="},      // the list
				{200, 1, "Larder; fwd="},      // a product
				{200, 0, "Larder; hit; ttl="}, // again
				{304, 0, "Larder; hit; ttl="}, // conditional
				{200, 1, ""},                  // a thousand at once
				{204, 1, ""},                  // the update
				{200, 1, "Larder; fwd="},      // the product after it
				{200, 1, "Larder; fwd="},      // the list after it
				{200, streamEvents, ""},       // the stream
			}
			if len(tour.steps) != len(want) {
				t.Fatalf("the tour has %d steps, want %d", len(tour.steps), len(want))
			}
			for i, w := range want {
				s := tour.steps[i]
				if s.status != w.status || s.queries != w.queries || !strings.Contains(s.cacheStatus, w.cache) {
					t.Errorf("%s: status %d, %d queries, Cache-Status %q; want %d, %d, %q",
						s.what, s.status, s.queries, s.cacheStatus, w.status, w.queries, w.cache)
				}
			}
			// A hit that is not much faster than the query is no hit.
			if miss, hit := tour.steps[1].took, tour.steps[2].took; hit > miss {
				t.Errorf("a hit took %v, the miss %v", hit, miss)
			}
		})
	}
}

func TestTheTourNoticesACacheThatDoesNothing(t *testing.T) {
	shop := openShop(t)
	cache, err := newCache(core.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer cache.Close()
	cache.SetEnabled(false)
	server, err := newServer("nethttp", shop, cache)
	if err != nil {
		t.Fatal(err)
	}
	listener := listen(t)
	var tour *tourist
	err = serve(t.Context(), server, listener, func(ctx context.Context) (err error) {
		tour, err = takeTour(ctx, "http://"+listener.Addr().String(), shop.Queries, nil, tourSize{hits: 5, clients: 20})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, promise := range []string{"is a hit when asked for again", "hits are no queries", "answered 304", "clients on a cold product are one query"} {
		if !strings.Contains(strings.Join(tour.failures, "\n"), promise) {
			t.Errorf("the tour did not notice: %s\n%q", promise, tour.failures)
		}
	}
}

func TestRunPrintsTheTourAndEnds(t *testing.T) {
	var out strings.Builder
	if err := run(t.Context(), []string{"-tour", "-orders", strconv.Itoa(fewOrders)}, "", &out); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"database queries", "1000 clients at once", "Everything as promised."} {
		if !strings.Contains(out.String(), line) {
			t.Errorf("the tour does not print %q:\n%s", line, out.String())
		}
	}
}

func TestRunServesUntilItIsInterrupted(t *testing.T) {
	for _, adapter := range []string{"nethttp", "echo", "gin", "fiber"} {
		t.Run(adapter, func(t *testing.T) {
			address, stop := start(t, "", "-adapter", adapter, "-orders", "0")
			defer stop()

			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			status := func(method, path, body string) int {
				req, err := http.NewRequestWithContext(t.Context(), method, "http://"+address+path, strings.NewReader(body))
				if err != nil {
					t.Fatal(err)
				}
				resp, err := client.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				_, _ = io.Copy(io.Discard, resp.Body)
				return resp.StatusCode
			}
			for _, c := range []struct {
				method, path, body string
				want               int
			}{
				{"GET", "/products/3", "", 200},
				{"GET", "/products/0", "", 404},
				{"GET", "/products/brie", "", 404},
				{"PUT", "/products/3", `{"price_cents":1234}`, 204},
				{"PUT", "/products/3", `{"price_cents":-1}`, 400},
				{"PUT", "/products/3", `cheap`, 400},
				{"PUT", "/products/0", `{"price_cents":1234}`, 404},
			} {
				if got := status(c.method, c.path, c.body); got != c.want {
					t.Errorf("%s %s %s: status %d, want %d", c.method, c.path, c.body, got, c.want)
				}
			}
			client.CloseIdleConnections()
			stop()
		})
	}
}

func TestRunRefusesWhatItDoesNotKnow(t *testing.T) {
	for _, args := range [][]string{
		{"tour"},
		{"-adapter", "rails", "-orders", "0"},
		{"-listen", "nowhere", "-orders", "0"},
		{"-orders", "-1"},
		{"-warm", "-warm-from", "-1"},
		{"-tour", "-db", "shop.db"},
		{"-db", t.TempDir()},
	} {
		if err := run(t.Context(), args, "", io.Discard); err == nil {
			t.Errorf("run(%q) succeeds", args)
		}
	}
}

// start runs the program on a free port, until the returned function is called.
func start(t *testing.T, redisURL string, args ...string) (address string, stop func()) {
	t.Helper()
	ctx, interrupt := context.WithCancel(t.Context())
	read, write := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := run(ctx, append(args, "-listen", "127.0.0.1:0"), redisURL, write)
		write.CloseWithError(err)
		ended <- err
	}()
	stop = sync.OnceFunc(func() {
		interrupt()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	greeting := make([]byte, 4096)
	n, err := read.Read(greeting)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.Copy(io.Discard, read) }() // the rest of its output
	_, rest, _ := strings.Cut(string(greeting[:n]), "http://")
	address, _, _ = strings.Cut(rest, " ")
	return address, stop
}

func TestTheShopRemovesItsDatabase(t *testing.T) {
	shop, err := OpenShop(t.Context(), "", fewOrders)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(shop.dir, "shop.db")); err != nil {
		t.Error(err)
	}
	if err := shop.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(shop.dir); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", shop.dir, err)
	}
}

func TestAProductPageIsWhatTheDatabaseSays(t *testing.T) {
	shop := openShop(t)
	p, err := shop.Product(t.Context(), "1")
	if err != nil {
		t.Fatal(err)
	}
	if p.Name != "Roquefort" || p.Country != "France" || p.Milk != "sheep" || p.Protection != "PDO" ||
		p.Note != demoNote || p.UnitsSold == 0 || p.RankInMilk == 0 || len(p.BoughtWith) != 3 {
		t.Errorf("product 1 is %+v", p)
	}
	catalog, err := shop.Catalog(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(catalog.Products) < 60 || catalog.Products[0].Name != "Roquefort" || catalog.Products[0].UnitsSold != p.UnitsSold {
		t.Errorf("the catalog has %d products, the first %+v", len(catalog.Products), catalog.Products[0])
	}
	if got := shop.Queries(); got != 2 {
		t.Errorf("%d queries were counted, want 2", got)
	}
}

func tourOf(t *testing.T, adapter string) *tourist {
	t.Helper()
	shop := openShop(t)
	cache, err := newCache(core.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer cache.Close()
	server, err := newServer(adapter, shop, cache)
	if err != nil {
		t.Fatal(err)
	}
	listener := listen(t)
	var tour *tourist
	err = serve(t.Context(), server, listener, func(ctx context.Context) (err error) {
		tour, err = takeTour(ctx, "http://"+listener.Addr().String(), shop.Queries, nil, fullTour)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return tour
}

func openShop(t *testing.T) *Shop {
	t.Helper()
	shop, err := OpenShop(t.Context(), "", fewOrders)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := shop.Close(); err != nil {
			t.Error(err)
		}
	})
	return shop
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}
