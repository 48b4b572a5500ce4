package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/larderhq/larder/core"
)

func TestWarmedPagesAreHits(t *testing.T) {
	for _, adapter := range adapters {
		t.Run(adapter, func(t *testing.T) {
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
			var out strings.Builder
			if err := warm(t.Context(), server, "http://shop.example", shop, 0, &out); err != nil {
				t.Fatal(err)
			}
			for _, line := range []string{"answers are in the cache, 0 failed", "of 65\n"} {
				if !strings.Contains(out.String(), line) {
					t.Errorf("%q is missing in:\n%s", line, out.String())
				}
			}
			before := shop.Queries()
			for _, path := range []string{"/products", "/products/1", "/products/60"} {
				if got := status(t, server, path); !strings.HasPrefix(got, "Larder; hit") {
					t.Errorf("%s: %s", path, got)
				}
			}
			if n := shop.Queries() - before; n > 0 {
				t.Errorf("%d queries", n)
			}
		})
	}
}

func TestWarmingThatIsInterruptedIsTakenUpAgain(t *testing.T) {
	shop := openShop(t)
	ctx, cancel := context.WithCancel(t.Context())
	var asked atomic.Int64
	server := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { //nolint:gosec // it serves no requests
		if asked.Add(1) == 20 {
			cancel()
		}
	})}
	err := warm(ctx, server, "http://shop.example", shop, 0, io.Discard)
	if err == nil {
		t.Fatal("it was not interrupted")
	}
	var from int
	_, rest, _ := strings.Cut(err.Error(), "-warm-from ")
	if _, err := fmt.Sscan(rest, &from); err != nil || from < 0 || from > 20 {
		t.Fatalf("from %d: %v", from, err)
	}
	asked.Store(1000)
	var out strings.Builder
	if err := warm(t.Context(), server, "http://shop.example", shop, from, &out); err != nil {
		t.Fatal(err)
	}
	catalog, err := shop.Catalog(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got, want := int(asked.Load())-1000, 1+len(catalog.Products)-from; got != want {
		t.Errorf("%d pages were asked for, want %d", got, want)
	}
}

func TestTheProgressBarGrowsOnATerminal(t *testing.T) {
	var out strings.Builder
	bar := progressBar{out: &out, total: 4, terminal: true}
	for n := range 5 {
		bar.draw(core.WarmResult{Items: n})
	}
	bar.end()
	lines := strings.Split(out.String(), "\r")
	if len(lines) != 6 || lines[3] != "warm: ["+strings.Repeat("#", 20)+strings.Repeat(".", 20)+"] 2 of 4" || !strings.HasSuffix(lines[5], "] 4 of 4\n") {
		t.Errorf("%q", lines)
	}
}
