package main

import (
	"context"
	"fmt"
	"net/http"
	"runtime"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/nethttp"
)

// heap returns the bytes and the objects of the heap after a collection.
func heap() (bytes, objects float64) {
	runtime.GC()
	runtime.GC() // what finalizers and pools have freed
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc), float64(m.HeapObjects)
}

// pages is a cache of responses by number: each has 1 KiB and the six fields.
type pages struct {
	read  func(id int) (hit bool)
	bytes func() uint64 // by the cache's own account; nil: it has none
	close func()
}

// response is a response as otter keeps it.
type response struct {
	status int
	fields http.Header
	body   []byte
}

func newResponse() response {
	r := response{status: http.StatusOK, fields: make(http.Header), body: make([]byte, 1<<10)}
	for _, f := range handlerFields() {
		r.fields.Set(f[0], f[1])
	}
	return r
}

func openPages(maxBytes int64) (*pages, error) {
	cache, err := core.New(core.Options{Classes: core.Classes{"product": {TTL: ttl}}, MaxBytes: maxBytes})
	if err != nil {
		return nil, err
	}
	runs := 0
	body := make([]byte, 1<<10)
	mux := http.NewServeMux()
	mux.Handle("GET /p/{id}", nethttp.Cache(cache, "product")(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		runs++
		for _, f := range handlerFields() {
			w.Header().Set(f[0], f[1])
		}
		_, _ = w.Write(body)
	})))
	r := newRequest("/p/0", nil)
	w := new(discard)
	return &pages{
		read: func(id int) bool {
			before := runs
			target := "/p/" + strconv.Itoa(id)
			w.header, r.URL.Path, r.RequestURI = make(http.Header), target, target
			mux.ServeHTTP(w, r)
			return runs == before
		},
		bytes: func() uint64 { return cache.Stats().Bytes },
		close: func() { _ = cache.Close() },
	}, nil
}

func openOtterPages(entries int) (*pages, error) {
	c, err := otter.New(&otter.Options[string, response]{MaximumSize: entries, ExpiryCalculator: otter.ExpiryWriting[string, response](ttl)})
	if err != nil {
		return nil, err
	}
	return &pages{read: func(id int) bool {
		key := "/p/" + strconv.Itoa(id)
		if _, ok := c.GetIfPresent(key); ok {
			return true
		}
		c.Set(key, newResponse())
		return false
	}, close: func() { c.StopAllGoroutines() }}, nil
}

// weight is what an entry takes.
type weight struct{ bytes, objects float64 }

// fillPages reads n pages, and returns what each takes.
func fillPages(ctx context.Context, p *pages, n int) (weight, error) {
	bytes, objects := heap()
	for id := range n {
		if p.read(id); id%10_000 == 0 && ctx.Err() != nil {
			return weight{}, ctx.Err()
		}
	}
	b, o := heap()
	return weight{(b - bytes) / float64(n), (o - objects) / float64(n)}, nil
}

func measureMemory(ctx context.Context, cfg config) (list []section, err error) {
	defer debug.FreeOSMemory()
	var pageWeight weight // of otter
	for _, part := range []func(context.Context, config, *weight) (section, error){entryWeights, bounds, collections, pauses} {
		s, err := part(ctx, cfg, &pageWeight)
		if err != nil {
			return list, err
		}
		list = append(list, s)
		debug.FreeOSMemory()
	}
	return list, nil
}

// entryWeights measures the heap of an entry.
func entryWeights(ctx context.Context, cfg config, otterPage *weight) (section, error) {
	t := section{
		title: "Heap of an entry",
		text: "The heap after a collection with the entries, less the heap before, divided by the entries. A page has 1 KiB and six fields, which otter keeps in an\n" +
			"`http.Header`; a value is a string of 195 bytes under an `int64`. The time of collections of 440,000 pages is in a table below.",
		head: []string{"", "entries", "bytes per entry", "objects per entry"},
	}
	for _, n := range []int{1_000, 100_000, 1_000_000} {
		n = max(100, cfg.size(n))
		p, err := openPages(8 << 30)
		if err != nil {
			return t, err
		}
		w, err := fillPages(ctx, p, n)
		p.close()
		if err != nil {
			return t, err
		}
		t.weight("page, **Larder**", n, w)
		if p, err = openOtterPages(2 * n); err != nil {
			return t, err
		}
		*otterPage, err = fillPages(ctx, p, n)
		p.close()
		if err != nil {
			return t, err
		}
		t.weight("page, "+otterTitle(), n, *otterPage)
	}
	return t, valueWeights(ctx, cfg, &t)
}

func (s *section) weight(name string, n int, w weight) {
	s.add(name, exact(n), whole(w.bytes), tenth(w.objects))
}

func otterTitle() string {
	return contender{name: "otter", module: "github.com/maypok86/otter/v2"}.title()
}

func valueWeights(ctx context.Context, cfg config, t *section) error {
	n := cfg.size(200_000)
	cache, err := core.New(core.Options{Classes: core.Classes{"product": {TTL: ttl}}, MaxBytes: 4 << 30})
	if err != nil {
		return err
	}
	bytes, objects := heap()
	m, err := core.NewMap(cache, core.MapOptions[int64, string]{Class: "product", Prefix: "product"})
	if err != nil {
		return err
	}
	load := func(_ context.Context, id int64) (string, error) { return valueOf195(id), nil }
	for id := range int64(n) {
		if _, err := m.Get(ctx, id, load); err != nil {
			return err
		}
	}
	b, o := heap()
	t.weight("value, **Larder**", n, weight{(b - bytes) / float64(n), (o - objects) / float64(n)})
	if err := cache.Close(); err != nil {
		return err
	}
	c, err := otter.New(&otter.Options[int64, string]{MaximumSize: 2 * n, ExpiryCalculator: otter.ExpiryWriting[int64, string](ttl)})
	if err != nil {
		return err
	}
	defer c.StopAllGoroutines()
	bytes, objects = heap()
	for id := range int64(n) {
		c.Set(id, valueOf195(id))
	}
	b, o = heap()
	t.weight("value, "+otterTitle(), n, weight{(b - bytes) / float64(n), (o - objects) / float64(n)})
	runtime.KeepAlive(c)
	return nil
}

// bound is the in-process tier whose hit ratio is measured.
const bound = 64 << 20

// payload is the weight of a page for a cache that counts only bytes of key, fields and body.
const payload = 1273

// bounds measures the heap against MaxBytes, and the hit ratio there.
func bounds(ctx context.Context, cfg config, otterPage *weight) (section, error) {
	n := cfg.size(1_000_000)
	t := section{
		title: "A tier of 64 MiB",
		text: fmt.Sprintf("Pages of %d keys, drawn by Zipf's law with the exponent 0.9. The first half of %d reads warms the cache, and the hit ratio is that of the second half.\n"+
			"otter counts entries: as many as fit by the heap of its entry in the table above, and as many as fit by a page's %d bytes of payload.", n, 2*n, payload),
		head: []string{"", "hit ratio", "heap, MB", "heap, × 64 MiB"},
	}
	bytes := float64(cfg.size(bound))
	open := []struct {
		title string
		open  func() (*pages, error)
	}{
		{"**Larder**", func() (*pages, error) { return openPages(int64(bytes)) }},
		{otterTitle() + " by heap", func() (*pages, error) { return openOtterPages(int(bytes / max(1, otterPage.bytes))) }},
		{otterTitle() + " by payload", func() (*pages, error) { return openOtterPages(int(bytes / payload)) }},
	}
	draw := newZipf(n, 0.9)
	for _, o := range open {
		before, _ := heap()
		p, err := o.open()
		if err != nil {
			return t, err
		}
		ratio, err := hitRatio(ctx, p, draw, n)
		if err != nil {
			return t, err
		}
		after, _ := heap()
		t.add(o.title, fmt.Sprintf("%.3f", ratio), tenth((after-before)/1e6), fmt.Sprintf("%.2f", (after-before)/bytes))
		p.close()
	}
	return t, nil
}

func hitRatio(ctx context.Context, p *pages, draw *zipf, n int) (float64, error) {
	random, hits := draw.from(1), 0
	for i := range 2 * n {
		if i%10_000 == 0 && ctx.Err() != nil {
			return 0, ctx.Err()
		}
		if p.read(random()) && i >= n {
			hits++
		}
	}
	return float64(hits) / float64(n), nil
}

// collections measures the CPU time of a garbage collection.
func collections(ctx context.Context, cfg config, _ *weight) (section, error) {
	n := cfg.size(440_000)
	t := section{
		title: "A garbage collection",
		text:  fmt.Sprintf("CPU time of one collection with %d pages: the median of five.", n),
		head:  []string{"", "ms"},
	}
	for _, larder := range []bool{true, false} {
		p, title, err := openEither(larder, n)
		if err != nil {
			return t, err
		}
		if _, err := fillPages(ctx, p, n); err != nil {
			return t, err
		}
		var took []float64
		for range 5 {
			start := cpuTime()
			runtime.GC()
			took = append(took, float64((cpuTime()-start).Microseconds())/1e3)
		}
		t.add(title, whole(median(took)))
		p.close()
	}
	return t, nil
}

// openEither opens a cache that holds at least n pages.
func openEither(larder bool, n int) (*pages, string, error) {
	if larder {
		p, err := openPages(8 << 30)
		return p, "**Larder**", err
	}
	p, err := openOtterPages(2 * n)
	return p, otterTitle(), err
}

// pauses measures the pauses of collections with a large tier.
func pauses(ctx context.Context, cfg config, _ *weight) (section, error) {
	n := cfg.size(1_400_000)
	t := section{
		title: "Pauses with 2 GiB",
		text:  "A tier of 2 GiB of pages, and a loop of reads while ten collections run. The pauses are those of the runtime, in which nothing runs (`debug.GCStats`).",
		head:  []string{"", "MB held", "longest pause", "median pause", "slowest read"},
	}
	p, err := openPages(int64(cfg.size(2 << 30)))
	if err != nil {
		return t, err
	}
	defer p.close()
	if _, err := fillPages(ctx, p, n); err != nil {
		return t, err
	}
	held := float64(p.bytes()) / 1e6
	slowest := readsDuringCollections(p, n)
	var stats debug.GCStats
	debug.ReadGCStats(&stats)
	last := stats.Pause[:min(10, len(stats.Pause))]
	longest, list := time.Duration(0), make([]float64, 0, len(last))
	for _, d := range last {
		longest = max(longest, d)
		list = append(list, float64(d))
	}
	t.add("**Larder**", whole(held), duration(longest), duration(time.Duration(median(list))), duration(slowest))
	return t, nil
}

// readsDuringCollections reads pages while ten collections run, and returns how long the
// slowest read took.
func readsDuringCollections(p *pages, n int) (slowest time.Duration) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 10 {
			runtime.GC()
		}
	}()
	for i := n - 1; ; i-- {
		select {
		case <-done:
			return slowest
		default:
		}
		start := time.Now()
		p.read(n - 1 - i%min(n, 1000))
		slowest = max(slowest, time.Since(start))
		if i == 0 {
			i = n
		}
	}
}
