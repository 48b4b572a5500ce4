package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// load is the set of clients of the shops.
type load struct {
	fleet  *fleet
	judge  *judge
	rate   int
	client *http.Client
	wg     sync.WaitGroup

	took, propagation samples

	mu      sync.Mutex
	pending []unconfirmedWrite
}

// unconfirmedWrite is a write whose shop has a pending invalidation.
type unconfirmedWrite struct {
	writing

	process *process
	version int64
}

func newLoad(f *fleet, j *judge, rate int) *load {
	return &load{fleet: f, judge: j, rate: rate, client: newClient()}
}

// clients is the most requests under way. Beyond that the load is less than configured.
const clients = 32

// start sends requests until ctx ends.
func (l *load) start(ctx context.Context) {
	// A token stands for a request. A token that no client takes is dropped.
	tokens := make(chan struct{})
	l.wg.Go(func() {
		defer close(tokens)
		tick := time.NewTicker(time.Second / time.Duration(l.rate))
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			select {
			case tokens <- struct{}{}:
			default:
			}
		}
	})
	for range clients {
		l.wg.Go(func() {
			for range tokens {
				l.request(ctx)
			}
		})
	}
	l.wg.Go(func() { l.probe(ctx) })
	l.wg.Go(func() { l.confirm(ctx) })
}

// wait waits until the last request was answered.
func (l *load) wait() { l.wg.Wait() }

// anyone returns a random place whose shop is up, or nil.
func (l *load) anyone() (*place, *process) {
	places := l.fleet.places
	first := rand.IntN(len(places))
	for i := range places {
		at := places[(first+i)%len(places)]
		if p := at.up(); p != nil {
			return at, p
		}
	}
	return nil, nil
}

// probed is the product that only the probe writes and reads.
const probed = 0

// popular is the number of products that get most of the requests.
const popular = 20

func anyProduct() int {
	if rand.IntN(3) > 0 {
		return 1 + rand.IntN(popular)
	}
	return 1 + rand.IntN(products-1)
}

// request sends one request to one shop: one in twenty writes.
func (l *load) request(ctx context.Context) {
	at, p := l.anyone()
	if p == nil {
		return
	}
	product := anyProduct()
	switch n := rand.IntN(100); {
	case n < 5:
		if w, ok := l.put(ctx, at, p, product); ok {
			l.settle(ctx, w)
		}
	case n < 20:
		l.readShelf(ctx, at, p, product/shelfSize)
	case n < 45:
		l.read(ctx, at, p, "/data/", product)
	default:
		l.read(ctx, at, p, "/products/", product)
	}
}

// requestTimeout is far beyond the time of any request, also on a busy machine.
const requestTimeout = time.Minute

// send sends a request, and counts it. A request that has begun is answered, although
// ctx may end meanwhile.
func (l *load) send(ctx context.Context, at *place, p *process, method, path string, answer any) (http.Header, bool) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout)
	defer cancel()
	begun := time.Now()
	header, err := ask(ctx, l.client, method, p.url+path, answer)
	if err != nil && p.ending.Load() {
		return nil, false // it ended with its process, as it must
	}
	at.requests.Add(1)
	l.took.add(time.Since(begun))
	if err != nil {
		at.failed.Add(1)
		l.fleet.events.blame("failed: %s %s at shop %d: %v", method, path, at.number, err)
	}
	return header, err == nil
}

// read reads a product, and judges the answer.
func (l *load) read(ctx context.Context, at *place, p *process, path string, product int) (version int64, ok bool) {
	r := l.judge.read(p.memory, product)
	var answer Product
	path = fmt.Sprint(path, product)
	header, ok := l.send(ctx, at, p, http.MethodGet, path, &answer)
	if !ok {
		return 0, false
	}
	l.answered(at, path, header, r, answer)
	return answer.Version, true
}

// readShelf reads several products at once.
func (l *load) readShelf(ctx context.Context, at *place, p *process, shelf int) {
	readings := make([]reading, shelfSize)
	for i := range readings {
		readings[i] = l.judge.read(p.memory, shelf*shelfSize+i)
	}
	var answer []Product
	path := fmt.Sprint("/shelves/", shelf)
	header, ok := l.send(ctx, at, p, http.MethodGet, path, &answer)
	if !ok {
		return
	}
	for i, r := range readings {
		var a Product
		if i < len(answer) {
			a = answer[i]
		}
		l.answered(at, path, header, r, a)
	}
}

// answered judges an answer.
func (l *load) answered(at *place, path string, header http.Header, r reading, answer Product) {
	if answer.ID != int64(r.product) {
		at.failed.Add(1)
		l.fleet.events.blame("failed: GET %s at shop %d: product %d instead of %d", path, at.number, answer.ID, r.product)
		return
	}
	if stale := l.judge.answered(r, answer.Version); stale != "" {
		at.stale.Add(1)
		l.fleet.events.blame("STALE: GET %s at shop %d (%s; %s): %s", path, at.number, at.options.Adapter,
			strings.Join(header["Cache-Status"], ", "), stale)
	}
}

// put writes a product, and records the promise of its shop.
func (l *load) put(ctx context.Context, at *place, p *process, product int) (w unconfirmedWrite, ok bool) {
	w = unconfirmedWrite{writing: l.judge.write(product), process: p}
	var answer Product
	if _, ok := l.send(ctx, at, p, http.MethodPut, fmt.Sprint("/products/", product), &answer); !ok {
		return w, false
	}
	w.version = answer.Version
	l.judge.written(w.writing, p.memory, w.version)
	return w, true
}

// maxPending bounds the writes that wait to be confirmed. Further ones have no promise.
const maxPending = 10_000

// settle finds out whether Redis has confirmed a write. The answer of a route with the
// Invalidate middleware does not state it; the counters of the cache do.
func (l *load) settle(ctx context.Context, w unconfirmedWrite) {
	if s, err := l.fleet.stats(context.WithoutCancel(ctx), w.process); err == nil && s.Pending == 0 {
		l.judge.confirmed(w.writing, w.version)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.pending) >= maxPending {
		l.judge.unconfirmed()
		return
	}
	l.pending = append(l.pending, w)
}

// confirmEvery is the interval at which shops with pending invalidations are polled.
const confirmEvery = 20 * time.Millisecond

// confirm waits until Redis has confirmed the pending invalidations.
func (l *load) confirm(ctx context.Context) {
	tick := time.NewTicker(confirmEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, p := range l.unconfirmed() {
			// The answer does not cover writes after the request.
			asked := l.take(p)
			s, err := l.fleet.stats(ctx, p)
			switch {
			case err == nil && s.Pending == 0:
				for _, w := range asked {
					l.judge.confirmed(w.writing, w.version)
				}
			case p.ending.Load() || p.gone():
				for range asked {
					l.judge.unconfirmed()
				}
			default:
				l.mu.Lock()
				l.pending = append(l.pending, asked...)
				l.mu.Unlock()
			}
		}
	}
}

// unconfirmed returns the processes with pending invalidations.
func (l *load) unconfirmed() (list []*process) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, w := range l.pending {
		if !slices.Contains(list, w.process) {
			list = append(list, w.process)
		}
	}
	return list
}

// take removes and returns the unconfirmed writes of a process.
func (l *load) take(p *process) (taken []unconfirmedWrite) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pending = slices.DeleteFunc(l.pending, func(w unconfirmedWrite) bool {
		if w.process == p {
			taken = append(taken, w)
		}
		return w.process == p
	})
	return taken
}

const (
	probeEvery = 250 * time.Millisecond
	// probePause is the pause between two reads of a probe.
	probePause = time.Millisecond
)

// probe writes at one shop after the other, and measures the time until the others answer
// the new version.
func (l *load) probe(ctx context.Context) {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		at := l.fleet.places[i%len(l.fleet.places)]
		p := at.up()
		if p == nil {
			continue
		}
		// The others hold the old version, so that the message has an effect.
		for _, other := range l.fleet.places {
			if o := other.up(); o != nil {
				l.read(ctx, other, o, "/products/", probed)
			}
		}
		w, ok := l.put(ctx, at, p, probed)
		if !ok {
			continue
		}
		written := time.Now()
		var others sync.WaitGroup
		for _, other := range l.fleet.places {
			if o := other.up(); other != at && o != nil {
				others.Go(func() { l.arrive(ctx, other, o, w.version, written) })
			}
		}
		l.settle(ctx, w)
		others.Wait()
	}
}

// arrive reads at a shop until it answers a version that was written at another one.
func (l *load) arrive(ctx context.Context, at *place, p *process, version int64, written time.Time) {
	limit := 5 * l.judge.delta
	for ctx.Err() == nil && time.Since(written) < limit {
		got, ok := l.read(ctx, at, p, "/products/", probed)
		if !ok {
			return // it was killed, or the failure has been counted
		}
		if got >= version {
			l.propagation.add(time.Since(written))
			return
		}
		time.Sleep(probePause)
	}
}

// samples are the last durations that were measured.
type samples struct {
	mu   sync.Mutex
	ring []time.Duration
	n    int
}

// maxSamples bounds them.
const maxSamples = 1 << 14

func (s *samples) add(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.ring) < maxSamples {
		s.ring = append(s.ring, d)
	} else {
		s.ring[s.n%maxSamples] = d
	}
	s.n++
}

// quantiles returns the durations that the given shares of the samples do not exceed; zeros
// without samples.
func (s *samples) quantiles(shares ...float64) []time.Duration {
	s.mu.Lock()
	sorted := slices.Clone(s.ring)
	s.mu.Unlock()
	slices.Sort(sorted)
	list := make([]time.Duration, len(shares))
	for i, q := range shares {
		if len(sorted) > 0 {
			list[i] = sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
		}
	}
	return list
}
