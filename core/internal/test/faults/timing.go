package main

import (
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// spread counts durations by size, to one part in sixteen.
type spread struct {
	counts [64 * 16]atomic.Int64
	n, max atomic.Int64
}

func (s *spread) add(d time.Duration) {
	ns := max(int64(d), 0)
	s.n.Add(1)
	raise(&s.max, ns)
	s.counts[bucket(ns)].Add(1)
}

func bucket(ns int64) int {
	if ns < 16 {
		return int(ns)
	}
	top := bits.Len64(uint64(ns)) - 5 // what is left has five bits
	return (top+1)*16 + int(ns>>top) - 16
}

// atMost is the largest duration of a bucket.
func atMost(i int) time.Duration {
	if i < 16 {
		return time.Duration(i)
	}
	top := i/16 - 1
	return time.Duration((int64(i%16)+17)<<top - 1)
}

// quantile returns what a share of the durations do not exceed.
func (s *spread) quantile(q float64) time.Duration {
	left := int64(q * float64(s.n.Load()))
	for i := range s.counts {
		if left -= s.counts[i].Load(); left < 0 {
			return min(atMost(i), time.Duration(s.max.Load()))
		}
	}
	return time.Duration(s.max.Load())
}

// timing is how long requests took beyond their handlers.
type timing struct {
	control, read, write spread
	window               atomic.Pointer[spread] // reads and writes, while it is set
	allowance            time.Duration          // what a cache may add to a request

	mu   sync.Mutex
	slow []slowRequest // beyond what the budget allows: the machine's share is known when all is over
	more int           // that did not fit
	// errors are times in which a call to Redis failed or took too long.
	errors []event
}

type slowRequest struct {
	what       string
	begun, end int64
	beyond     time.Duration // the handler
}

// maxSlow bounds what is remembered.
const maxSlow = 100_000

func (t *timing) note(to *spread, what func() string, begun, end int64, took time.Duration) {
	beyond := time.Duration(end-begun) - took
	to.add(beyond)
	if w := t.window.Load(); w != nil && to != &t.control {
		w.add(beyond)
	}
	if beyond <= t.allowance || to == &t.control {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.slow) < maxSlow {
		t.slow = append(t.slow, slowRequest{what(), begun, end, beyond})
	} else {
		t.more++
	}
}

// lost notes that a process has lost a reply.
func (t *timing) lost(from, to int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.errors) < maxSlow {
		t.errors = append(t.errors, event{from: from, to: to})
	}
}

// errorsBefore counts the times of errors that a lease waited for by a request can be of. The caller holds mu.
func (t *timing) errorsBefore(s slowRequest) (n int) {
	for _, e := range t.errors {
		if e.from < s.end && e.to > s.begun-int64(firstLease) {
			n++
		}
	}
	return n
}

// maxLost is how many lost replies explain how slow one request was.
const maxLost = 3

// tooSlow returns the requests that neither the budget nor the machine explains, nor the leases of the dead, who are
// given by the times of their deaths, nor those of which nobody knows; these are counted.
func (t *timing) tooSlow(deaths []int64) (list []slowRequest, dead, lost int) {
	limit := t.allowance + time.Duration(t.control.max.Load())
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.slow {
		if s.beyond <= limit {
			continue
		}
		died := slices.ContainsFunc(deaths, func(d int64) bool { return s.begun < d+int64(leaseTime) && s.end > d })
		switch {
		case died && s.beyond <= limit+leaseTime:
			dead++
		case s.beyond <= limit+time.Duration(min(maxLost, t.errorsBefore(s)))*firstLease:
			lost++
		default:
			list = append(list, s)
		}
	}
	return list, dead, lost
}
