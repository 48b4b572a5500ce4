// Package waitgraph records which loads of the process wait for which others, across all caches.
// It refuses a wait that would never end.
//
// A load waits for a flight until one of the flight's loads ends, or for a load that it has
// begun itself. It continues when all its waits have ended. A wait never ends if no order
// exists in which the loads that it reaches can end. The package searches for such an order
// when a load for which others may wait begins to wait.
//
// The interleavings: A, B, C and D are loads, and a, b, c and d their flights.
//
//	A waits for b, B would wait for a      B is refused: otherwise neither would end.
//	A and B would wait for each other's    One lock orders the two calls: the second is
//	flights concurrently                   refused.
//	A begins B (a load within a load),     A waits for B from before its begin until after
//	B would wait for a                     its end: B is refused.
//	A begins C, B begins D; C would wait   As above, through four loads: A, C, B, D.
//	for d, D for a
//	b has two loads, one of them waits     A's wait for b is not refused: the other load
//	for a                                  may end.
//	b has a turn whose load has not begun  A's wait for b is not refused: that load waits for
//	                                       nothing yet.
//	A's context ends before B begins to    A's wait has been removed: B may wait for a. A's
//	wait                                   load, if it continues, waits for nothing.
//	A waits for b, B ends, A is woken      The end of B removes B from b before A is woken.
package waitgraph

import (
	"slices"
	"sync"
	"time"
)

// mu guards all loads and flights. A search, which holds mu, is needed only for a wait within a
// load.
var mu sync.Mutex //nolint:gochecknoglobals // loads of several caches may wait for each other

// Load is one run of a loader or handler. The zero Load waits for nothing.
type Load struct {
	on      map[target]int // the targets of its waits, with the number of waiting goroutines
	waiting time.Time      // the begin of its wait for another instance; zero: it does not wait for one
}

// Flight is the loads of one key. A wait for it ends with the first of them. The zero Flight
// has none.
type Flight struct {
	turns int // including those whose loads are not known yet
	loads map[*Load]int
}

type target interface{ isTarget() }

func (*Load) isTarget()   {}
func (*Flight) isTarget() {}

// Turn adds a turn whose load is not known yet.
func (f *Flight) Turn() {
	mu.Lock()
	defer mu.Unlock()
	f.turns++
}

// Runs makes l the load of a turn.
func (f *Flight) Runs(l *Load) {
	mu.Lock()
	defer mu.Unlock()
	if f.loads == nil {
		f.loads = make(map[*Load]int, 1)
	}
	f.loads[l]++
}

// Ended removes a turn, and its load unless that is nil.
func (f *Flight) Ended(l *Load) {
	mu.Lock()
	defer mu.Unlock()
	f.turns--
	if l == nil {
		return
	}
	if f.loads[l]--; f.loads[l] <= 0 {
		delete(f.loads, l)
	}
}

// For begins a wait of l for a flight, which leave ends. ok is false if the wait would never
// end.
func (l *Load) For(f *Flight) (leave func(), ok bool) {
	mu.Lock()
	defer mu.Unlock()
	l.add(f)
	if !canEnd(l, nil) {
		l.remove(f)
		return nil, false
	}
	return l.leaver(f), true
}

// Begins records that l waits for a load that it has begun itself, until leave is called.
func (l *Load) Begins(other *Load) (leave func()) {
	mu.Lock()
	defer mu.Unlock()
	l.add(other)
	return l.leaver(other)
}

func (l *Load) add(t target) {
	if l.on == nil {
		l.on = make(map[target]int, 1)
	}
	l.on[t]++
}

func (l *Load) remove(t target) {
	if l.on[t]--; l.on[t] <= 0 {
		delete(l.on, t)
	}
}

func (l *Load) leaver(t target) func() {
	return sync.OnceFunc(func() {
		mu.Lock()
		defer mu.Unlock()
		l.remove(t)
	})
}

// WaitForInstance records that l waits for another instance, until leave is called.
func (l *Load) WaitForInstance() (leave func()) {
	mu.Lock()
	defer mu.Unlock()
	l.waiting = time.Now()
	return func() {
		mu.Lock()
		defer mu.Unlock()
		l.waiting = time.Time{}
	}
}

// HeldUp reports whether the waits of l can end only after a load that has been waiting for
// another instance for at least limit.
func (l *Load) HeldUp(limit time.Duration) bool {
	mu.Lock()
	defer mu.Unlock()
	now := time.Now()
	return !canEnd(l, func(l *Load) bool { return !l.waiting.IsZero() && now.Sub(l.waiting) >= limit })
}

// canEnd reports whether an order exists in which l can end. Loads that are stuck cannot end.
// The caller holds mu.
func canEnd(l *Load, stuck func(*Load) bool) bool {
	reached := reach(l)
	ends := make(map[target]bool, len(reached))
	for changed := true; changed; { // the farthest first, since the others wait for them
		changed = false
		for _, t := range slices.Backward(reached) {
			if ends[t] || !mayEnd(t, ends, stuck) {
				continue
			}
			ends[t], changed = true, true
		}
	}
	return ends[l]
}

// mayEnd reports whether t can end when the targets in ends do.
func mayEnd(t target, ends map[target]bool, stuck func(*Load) bool) bool {
	switch t := t.(type) {
	case *Load:
		if stuck != nil && stuck(t) {
			return false
		}
		for on := range t.on {
			if !ends[on] {
				return false
			}
		}
		return true
	case *Flight:
		known := 0
		for l, turns := range t.loads {
			if ends[l] {
				return true
			}
			known += turns
		}
		return t.turns > known || t.turns == 0 // a load has not begun, or the flight is ending
	}
	return true
}

// reach returns everything that can be reached from l, including l, the farthest last.
func reach(l *Load) (all []target) {
	seen := map[target]bool{l: true}
	all = append(all, l)
	for i := 0; i < len(all); i++ {
		visit := func(t target) {
			if !seen[t] {
				seen[t] = true
				all = append(all, t)
			}
		}
		switch t := all[i].(type) {
		case *Load:
			for on := range t.on {
				visit(on)
			}
		case *Flight:
			for l := range t.loads {
				visit(l)
			}
		}
	}
	return all
}
