package main

import (
	"runtime"
	"slices"
	"sync"
	"time"
)

// sizes are the bodies that are measured, in bytes. The first is measured on two processors
// as well.
var sizes = []int{1 << 10, 16 << 10, 256 << 10}

// cell is the measurement of one contender in one setting.
type cell struct {
	ns    float64 // of a hit: the median over the rounds, or the best round on two processors
	ratio float64 // to the reference: the median of the rounds' ratios, or that of the best rounds
}

// row is a contender with its measurements: a cell for each size on one processor, and one for
// the first size on two.
type row struct {
	contender
	cells  []cell
	allocs float64 // of a hit of the first size
	herd   int64   // runs of the handler for concurrent requests for a page that is not cached
}

// table has the rows of one framework.
type table struct {
	name string
	rows []row
}

func measureFramework(cfg config, f framework) (t table, err error) {
	t.name = f.name
	for i, size := range sizes {
		list, done, err := contenders(f, size, cfg.peers)
		if err == nil {
			t.measure(cfg, list, i == 0)
		}
		if e := done(); err == nil {
			err = e
		}
		if err != nil {
			return t, err
		}
	}
	// The cells on two processors go last.
	for i := range t.rows {
		c := t.rows[i].cells
		t.rows[i].cells = append(append(c[:1:1], c[2:]...), c[1])
	}
	return t, nil
}

// measure adds the cells of one size. The first size opens the rows.
func (t *table) measure(cfg config, list []contender, first bool) {
	workers := []int{1}
	if first {
		workers = []int{1, 2}
		for _, c := range list {
			t.rows = append(t.rows, row{contender: c, allocs: hitAllocs(c.app.client(pageTarget)), herd: c.herd()})
		}
	}
	reference := len(list) - 1 // "bare"
	if i := slices.IndexFunc(list, func(c contender) bool { return c.name == same }); i >= 0 {
		reference = i
	}
	clients := make([]func() func(), len(list))
	for i, c := range list {
		clients[i] = func() func() { return c.app.client(pageTarget) }
	}
	for _, n := range workers {
		for i, c := range compare(cfg, clients, reference, n) {
			t.rows[i].cells = append(t.rows[i].cells, c)
		}
	}
}

// compare times hits of all clients in turn, on as many processors as there are workers, and
// returns a cell for each.
func compare(cfg config, clients []func() func(), reference, workers int) []cell {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(workers))
	runs := make([]*timer, len(clients))
	for i, client := range clients {
		runs[i] = newTimer(client, workers, cfg.slice)
	}
	ns, ratios := make([][]float64, len(runs)), make([][]float64, len(runs))
	for round := range cfg.rounds {
		runtime.GC()
		took := make([]float64, len(runs))
		for i := range runs {
			at := (i + round) % len(runs) // each comes first in turn
			took[at] = runs[at].run()
		}
		for i, t := range took {
			ns[i], ratios[i] = append(ns[i], t), append(ratios[i], t/took[reference])
		}
	}
	cells := make([]cell, len(runs))
	for i := range cells {
		cells[i] = cell{median(ns[i]), median(ratios[i])}
	}
	if workers > 1 { // wall times: in most rounds of a busy machine the workers do not run at once
		for i := range cells {
			best := slices.Min(ns[i])
			cells[i] = cell{best, best / slices.Min(ns[reference])}
		}
	}
	return cells
}

func median(list []float64) float64 {
	slices.Sort(list)
	return list[len(list)/2]
}

// timer times the hits of one contender.
type timer struct {
	hits []func() // one for each worker
	n    int      // hits of each worker in a slice
}

func newTimer(client func() func(), workers int, slice time.Duration) *timer {
	t := &timer{n: 1}
	for range workers {
		t.hits = append(t.hits, client())
	}
	for {
		took := time.Duration(t.run() * float64(t.n*workers))
		if took >= slice/4 || t.n > 1<<24 {
			t.n = max(1, int(float64(t.n)*float64(slice)/float64(max(took, 1))))
			return t
		}
		t.n *= 2
	}
}

// run returns the nanoseconds per hit of one slice: of CPU time with one worker, and of wall
// time with several, which may wait for each other.
func (t *timer) run() float64 {
	if len(t.hits) > 1 {
		return t.together()
	}
	start := cpuTime()
	for range t.n {
		t.hits[0]()
	}
	return float64((cpuTime() - start).Nanoseconds()) / float64(t.n)
}

func (t *timer) together() float64 {
	start := time.Now()
	var all sync.WaitGroup
	for _, hit := range t.hits {
		all.Go(func() {
			for range t.n {
				hit()
			}
		})
	}
	all.Wait()
	return float64(time.Since(start).Nanoseconds()) / float64(t.n*len(t.hits))
}
