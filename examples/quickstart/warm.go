package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/httpcache"
	"github.com/larderhq/larder/fibercache"
)

// warm has the server answer the list and all product pages before anybody asks, and
// draws how far it has come. from is how many of them to leave out: where warming was
// interrupted it says where, and is taken up again there.
func warm(ctx context.Context, server Server, base string, shop *Shop, from int, out io.Writer) error {
	catalog, err := shop.Catalog(ctx)
	if err != nil {
		return err
	}
	urls := func(yield func(string) bool) {
		if !yield(base + "/products") {
			return
		}
		for _, p := range catalog.Products {
			if !yield(fmt.Sprintf("%s/products/%d", base, p.ID)) {
				return
			}
		}
	}
	bar := progressBar{out: out, total: 1 + len(catalog.Products), terminal: isTerminal(out), tenth: -1}
	options := core.WarmOptions{Skip: from, Progress: bar.draw}
	var done core.WarmResult
	switch s := server.(type) {
	case *http.Server: // of net/http, Echo and Gin
		done, err = httpcache.Warm(ctx, s.Handler, urls, options)
	case fiberServer:
		done, err = fibercache.Warm(ctx, s.app, urls, options)
	default:
		return fmt.Errorf("warm: a server of type %T", server)
	}
	bar.end()
	if err != nil {
		return fmt.Errorf("warm: ended early, -warm-from %d takes it up again: %w", done.Items, err)
	}
	fmt.Fprintf(out, "warm: %d answers are in the cache, %d failed, in %v\n", done.Filled, done.Failed, done.Elapsed.Round(1e6))
	return nil
}

// progressBar draws a line that grows on a terminal, and a line for each tenth
// elsewhere.
type progressBar struct {
	out      io.Writer
	total    int
	terminal bool
	tenth    int // the last one written
}

const barWidth = 40

func (b *progressBar) draw(r core.WarmResult) {
	done := min(r.Items, b.total)
	if b.terminal {
		full := barWidth * done / b.total
		fmt.Fprintf(b.out, "\rwarm: [%s%s] %d of %d", strings.Repeat("#", full), strings.Repeat(".", barWidth-full), done, b.total)
		return
	}
	if tenth := 10 * done / b.total; tenth > b.tenth {
		b.tenth = tenth
		fmt.Fprintf(b.out, "warm: %d of %d\n", done, b.total)
	}
}

func (b *progressBar) end() {
	if b.terminal {
		fmt.Fprintln(b.out)
	}
}

func isTerminal(out io.Writer) bool {
	f, ok := out.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
