package main

import (
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// spread is a histogram of durations with a relative precision of 1/16.
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

// atMost returns the largest duration of a bucket.
func atMost(i int) time.Duration {
	if i < 16 {
		return time.Duration(i)
	}
	top := i/16 - 1
	return time.Duration((int64(i%16)+17)<<top - 1)
}

// quantile returns the duration that the given share of the durations does not exceed.
func (s *spread) quantile(q float64) time.Duration {
	left := int64(q * float64(s.n.Load()))
	for i := range s.counts {
		if left -= s.counts[i].Load(); left < 0 {
			return min(atMost(i), time.Duration(s.max.Load()))
		}
	}
	return time.Duration(s.max.Load())
}

// timing records how long requests took beyond their handlers.
type timing struct {
	control, read, write spread
	window               atomic.Pointer[spread] // reads and writes, while it is set
	allowance            time.Duration          // the time that a cache may add to a request

	mu   sync.Mutex
	slow []slowRequest // slower than the budget allows: the machine's share is known only at the end
	more int           // requests beyond maxSlow
	// errors holds the periods in which a call to Redis failed or took too long.
	errors []event
}

type slowRequest struct {
	what       string
	begun, end int64
	beyond     time.Duration // the handler
}

// maxSlow bounds the slow requests that are recorded.
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

// lost records that a process has lost a reply.
func (t *timing) lost(from, to int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.errors) < maxSlow {
		t.errors = append(t.errors, event{from: from, to: to})
	}
}

// errorsBefore counts the errors whose leases a request may have waited for. The caller holds mu.
func (t *timing) errorsBefore(s slowRequest) (n int) {
	for _, e := range t.errors {
		if e.from < s.end && e.to > s.begun-int64(firstLease) {
			n++
		}
	}
	return n
}

// maxLost is the most lost replies that may explain one slow request.
const maxLost = 3

// tooSlow returns the requests that were slow for no known reason. The known reasons are the budget, the machine, the
// leases of dead processes (deaths holds their times), and leases whose grant was lost; dead and lost count the
// requests of the last two.
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
