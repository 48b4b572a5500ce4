package main

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// judge knows what was written and says of every answer whether it is as promised.
// All times are from one clock, its own.
//
// Let a write commit version w of a product through a shop, and be answered at t. An
// answer that began at r and shows an older version is stale if
//
//   - it is of the same shop, and r ≥ t. This needs no Redis;
//   - it is of another shop, the invalidation was confirmed by c, and
//     r ≥ c + MaxStaleness. Confirmed means that the shop which wrote has said, asked
//     after t, that none of its invalidations is pending. A shop that is killed
//     before has promised nothing.
//
// Two limits of a cluster are left out for as long as they last, as the README
// states them. What a master confirmed and its replica had not heard is lost when
// the replica takes over: an answer is excused that began after the master was gone,
// and no later than MaxStaleness after its successor answered, if what it should
// have shown was confirmed before that. And a master that was frozen and replaced
// takes itself for the master for a moment when it goes on: what it confirms then is
// no promise.
type judge struct {
	delta time.Duration
	now   func() time.Duration

	mu      sync.Mutex
	ledgers []ledger // by product
	limits  []*limit
	split   int // frozen masters that have gone on, and may not have heard that they were replaced
	splits  int // goes up when one begins and when it ends
	count   tally
}

// tally is what the judge has counted.
type tally struct {
	reads, writes  int64
	stale, excused int64
	unpromised     int64         // writes of which nobody can say when they must be seen
	longest        time.Duration // how long after a confirmed write another shop answered what was before it, as promised
}

// promise is that answers show at least this version of a product.
type promise struct {
	version   int64
	confirmed time.Duration
	due       time.Duration // to answers that begin from here on
}

// ledger is what was promised of a product.
type ledger struct {
	settled promise   // to every shop, now
	waiting []promise // not due yet: the writes of one MaxStaleness
}

// memory is what one process of a shop has promised by itself: what was written
// through it, by product.
type memory []promise

// limit is a time in which Redis may have lost what it had confirmed before lost.
type limit struct {
	lasts             bool // the rest is not known yet
	from, lost, until time.Duration
}

func newJudge(products int, delta time.Duration) *judge {
	begun := time.Now()
	return &judge{delta: delta, now: func() time.Duration { return time.Since(begun) }, ledgers: make([]ledger, products)}
}

// reading is an answer that has begun.
type reading struct {
	product int
	begun   time.Duration
	here    promise // of the process that is asked
	all     promise // of every shop
}

// read notes that an answer begins; the process that is asked has this memory.
func (j *judge) read(own memory, product int) reading {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.settle(product)
	return reading{product, j.now(), own[product], j.ledgers[product].settled}
}

// answered judges an answer. What it returns describes a stale one, and is empty
// for every other.
func (j *judge) answered(r reading, version int64) string {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.count.reads++
	var broken []promise
	for _, p := range []promise{r.here, r.all} {
		if version < p.version {
			broken = append(broken, p)
		}
	}
	switch {
	case len(broken) == 0:
		l := &j.ledgers[r.product]
		for _, p := range append([]promise{l.settled}, l.waiting...) {
			if version < p.version && p.confirmed <= r.begun {
				j.count.longest = max(j.count.longest, r.begun-p.confirmed)
			}
		}
		return ""
	case j.lost(r.begun, broken):
		j.count.excused++
		return ""
	}
	j.count.stale++
	var b strings.Builder
	fmt.Fprintf(&b, "product %d: version %d, asked for at %v", r.product, version, round(r.begun))
	for _, p := range broken {
		fmt.Fprintf(&b, "; version %d was confirmed at %v and due at %v", p.version, round(p.confirmed), round(p.due))
	}
	return b.String()
}

// lost reports whether a limit explains that promises were broken.
func (j *judge) lost(begun time.Duration, broken []promise) bool {
	return slices.ContainsFunc(j.limits, func(l *limit) bool {
		if begun < l.from || !l.lasts && begun > l.until {
			return false
		}
		return l.lasts || !slices.ContainsFunc(broken, func(p promise) bool { return p.confirmed > l.lost })
	})
}

// settle moves what is due. The caller holds mu.
func (j *judge) settle(product int) {
	l, now := &j.ledgers[product], j.now()
	l.waiting = slices.DeleteFunc(l.waiting, func(p promise) bool {
		if p.due > now {
			return false
		}
		if p.version > l.settled.version {
			// An older version may have been confirmed later: what is lost has to explain both.
			p.confirmed = max(p.confirmed, l.settled.confirmed)
			l.settled = p
		}
		return true
	})
}

// writing is a write that has begun.
type writing struct {
	product, splits int
}

// write notes that a write begins.
func (j *judge) write(product int) writing {
	j.mu.Lock()
	defer j.mu.Unlock()
	return writing{product, j.splits}
}

// written notes that a write was answered, by the process with this memory.
func (j *judge) written(w writing, own memory, version int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.count.writes++
	if j.divided(w) {
		return // confirmed counts it
	}
	if now := j.now(); version > own[w.product].version {
		own[w.product] = promise{version, now, now}
	}
}

// confirmed notes that Redis has confirmed a write.
func (j *judge) confirmed(w writing, version int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.divided(w) {
		j.count.unpromised++
		return
	}
	j.settle(w.product)
	l, now := &j.ledgers[w.product], j.now()
	l.waiting = append(l.waiting, promise{version, now, now + j.delta})
}

// unconfirmed notes that a shop was killed before Redis had confirmed its write.
func (j *judge) unconfirmed() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.count.unpromised++
}

// divided reports whether two masters may have been there since a write began.
func (j *judge) divided(w writing) bool { return j.split > 0 || j.splits != w.splits }

// maxLimits bounds what is remembered: limits that are over for longer than any
// answer takes explain nothing.
const maxLimits = 100

// losing notes that Redis may lose what it has confirmed; the function notes that it
// answers again. returns says that who comes back may take itself for the master.
func (j *judge) losing(returns bool) (answers func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	l := &limit{lasts: true, from: j.now()}
	j.limits = append(j.limits[max(0, len(j.limits)-maxLimits+1):], l)
	if returns {
		j.split++
		j.splits++
	}
	return sync.OnceFunc(func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		l.lasts, l.lost, l.until = false, j.now(), j.now()+j.delta
		if returns {
			j.split--
			j.splits++
		}
	})
}

func (j *judge) tally() tally {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.count
}

func round(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }
