package patterns

import (
	"context"
	"database/sql"
	"sync"
	"testing"
)

// A stop holds each goroutine that arrives until it is opened. The test's end opens it.
type stop struct {
	mu      sync.Mutex
	came    int
	open    chan struct{}
	release func()
}

func newStop(t *testing.T) *stop {
	s := &stop{open: make(chan struct{})}
	s.release = sync.OnceFunc(func() { close(s.open) })
	t.Cleanup(s.release)
	return s
}

func (s *stop) pass(ctx context.Context) {
	s.mu.Lock()
	s.came++
	s.mu.Unlock()
	select {
	case <-s.open:
	case <-ctx.Done():
	}
}

// held is how many have come.
func (s *stop) held() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.came
}

// await waits until n have come.
func (s *stop) await(t *testing.T, what string, n int) {
	t.Helper()
	until(t, what, func() bool { return s.held() >= n })
}

// The steps at which a database can be made to hold.
type step int

const (
	hasRead    step = iota // a row has been read, and not yet returned
	willWrite              // nothing has been written
	hasWritten             // a write has been committed, and not yet returned
)

// database is the truth: a stand-in for one that is slow at the worst moment.
type database struct {
	mu    sync.Mutex
	rows  map[int64]Product
	fail  error // of the reads that are held
	reads int
	now   int // running reads
	most  int // concurrently
	stops map[step]*stop
	times map[step]int // how many more are held
}

func newDatabase() *database {
	return &database{rows: make(map[int64]Product), stops: make(map[step]*stop), times: make(map[step]int)}
}

// hold makes the next n that come to a step wait there.
func (d *database) hold(t *testing.T, at step, n int) *stop {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stops[at], d.times[at] = newStop(t), n
	return d.stops[at]
}

// at holds the calling goroutine if the step is to be held, and reports whether it did.
func (d *database) at(ctx context.Context, where step) bool {
	d.mu.Lock()
	s := d.stops[where]
	if d.times[where]--; d.times[where] < 0 {
		s = nil
	}
	d.mu.Unlock()
	if s != nil {
		s.pass(ctx)
	}
	return s != nil
}

func (d *database) Product(ctx context.Context, id int64) (Product, error) {
	d.mu.Lock()
	d.reads++
	d.now++
	d.most = max(d.most, d.now)
	p, ok := d.rows[id]
	d.mu.Unlock()
	held := d.at(ctx, hasRead)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.now--
	if held && d.fail != nil {
		return Product{}, d.fail
	}
	if !ok {
		return Product{}, sql.ErrNoRows
	}
	return p, nil
}

func (d *database) Products(_ context.Context, ids []int64) (map[int64]Product, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reads++
	products := make(map[int64]Product, len(ids))
	for _, id := range ids {
		if p, ok := d.rows[id]; ok {
			products[id] = p
		}
	}
	return products, nil
}

func (d *database) Save(ctx context.Context, id int64, p Product) error {
	d.at(ctx, willWrite)
	d.set(p)
	d.at(ctx, hasWritten)
	return nil
}

// set changes a row behind everybody's back.
func (d *database) set(products ...Product) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range products {
		d.rows[p.ID] = p
	}
}

// failHeld makes the reads that are held fail, or not.
func (d *database) failHeld(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail = err
}

// countAnew counts only the reads that run, and those to come.
func (d *database) countAnew() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reads, d.most = d.now, d.now
}

// price is a product's price in the database.
func (d *database) price(id int64) int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rows[id].Cents
}

// loads is how often the database was read.
func (d *database) loads() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.reads
}

// atOnce is the largest number of concurrent reads.
func (d *database) atOnce() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.most
}
