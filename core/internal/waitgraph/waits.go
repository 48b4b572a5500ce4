// Package waitgraph keeps which loads wait for which in the process, since loads of several
// caches may wait for each other. It finds a wait that would never end before it begins.
//
// A load waits for a flight, until one of the flight's loads ends, or for a load that it has
// begun itself. It continues when all of these have ended. So a wait never ends if, with it,
// no order exists in which the loads can end. The package searches for an order over all
// loads that the wait reaches, whenever a load that others may wait for begins to wait.
//
// The interleavings, where A, B are loads and a, b their flights:
//
//	A waits for b, B would wait for a      B is refused: with its wait neither goes on
//	A would wait for b | B would for a     one lock: one of them is the second
//	A begins B (a load within a load),     A waits for B from before B begins to after it
//	B would wait for a                     has ended: B is refused
//	A, B begin c and d; C would wait for   as above, through four: A, C, B, D
//	d, D for a
//	b has two loads, one of them waits     not refused: the other one may end
//	for a
//	b has a turn whose load has not begun  not refused: it waits for nothing yet
//	A gives up (its context ends) before   its wait has been taken out: B may wait for a,
//	B begins to wait                       and A's load, if it goes on, for nothing
//	A waits for b, B ends, A is woken      B's end takes B out of b before it wakes A
package waitgraph

import (
	"slices"
	"sync"
	"time"
)

// mu guards all loads and flights. Only a wait within a load searches while it holds mu.
var mu sync.Mutex //nolint:gochecknoglobals // loads of several caches may wait for each other

// Load is one run of a loader or handler. The zero Load waits for nothing.
type Load struct {
	on     map[target]int // its waits, and how many goroutines wait
	abroad time.Time      // since when it waits for another instance; zero: it does not
}

// Flight is the loads of one key, of which one is enough. The zero Flight has none.
type Flight struct {
	turns int // that may load, be it that their loads are known or not
	loads map[*Load]int
}

type target interface{ isTarget() }

func (*Load) isTarget()   {}
func (*Flight) isTarget() {}

// Turn adds a turn to the flight, whose load is not known yet.
func (f *Flight) Turn() {
	mu.Lock()
	defer mu.Unlock()
	f.turns++
}

// Runs says that a turn's load is l.
func (f *Flight) Runs(l *Load) {
	mu.Lock()
	defer mu.Unlock()
	if f.loads == nil {
		f.loads = make(map[*Load]int, 1)
	}
	f.loads[l]++
}

// Ended takes a turn out, with its load unless that is nil.
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

// For begins a wait of l's for a flight. ok is false if it would never end. Otherwise
// leave ends it.
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

// Begins says that l waits for a load that it has begun itself, until leave is called.
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

// Abroad says that l waits for another instance, until leave is called.
func (l *Load) Abroad() (leave func()) {
	mu.Lock()
	defer mu.Unlock()
	l.abroad = time.Now()
	return func() {
		mu.Lock()
		defer mu.Unlock()
		l.abroad = time.Time{}
	}
}

// HeldUp reports whether the waits of l can end only after a load that has been waiting for
// another instance for at least limit.
func (l *Load) HeldUp(limit time.Duration) bool {
	mu.Lock()
	defer mu.Unlock()
	now := time.Now()
	return !canEnd(l, func(l *Load) bool { return !l.abroad.IsZero() && now.Sub(l.abroad) >= limit })
}

// canEnd reports whether an order exists in which l can end. stuck loads cannot end,
// whatever they wait for. The caller holds mu.
func canEnd(l *Load, stuck func(*Load) bool) bool {
	reached := reach(l)
	ends := make(map[target]bool, len(reached))
	for changed := true; changed; { // the farthest first: their waits are decided before those that lead to them
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
		return t.turns > known || t.turns == 0 // of one that has not begun, or it is ending
	}
	return true
}

// reach returns all that can be reached from l, itself included, the farthest last.
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
