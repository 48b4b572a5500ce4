package main

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// judge records the writes and judges every answer by the promises of the cache.
// All times are from one clock, its own.
//
// Let a write commit version w of a product through a shop, and be answered at t. An
// answer that began at r and shows an older version is stale if
//
//   - it is of the same shop, and r ≥ t. This needs no Redis;
//   - it is of another shop, the invalidation was confirmed by c, and
//     r ≥ c + MaxStaleness. Confirmed means that the writing shop has answered, to a
//     request sent after t, that none of its invalidations is pending. A shop that is
//     killed before has promised nothing.
//
// Two limits of a cluster, which the README states, are excused while they last. A
// promotion loses the writes that the master has confirmed and its replica has not
// received: an answer is excused if it began after the master was killed and no later
// than MaxStaleness after its successor answered, and if the version that it lacks was
// confirmed before that answer. A master that was frozen and replaced acts as the master
// for a moment when it continues: writes that it confirms then are no promise.
type judge struct {
	delta time.Duration
	now   func() time.Duration

	mu      sync.Mutex
	ledgers []ledger // by product
	limits  []*limit
	split   int // frozen masters that have continued, and may not know that they were replaced
	splits  int // goes up when one begins and when it ends
	count   tally
}

// tally holds the judge's counts.
type tally struct {
	reads, writes  int64
	stale, excused int64
	unpromised     int64         // writes without a time by which they must be seen
	longest        time.Duration // the longest time after a confirmed write at which another shop answered an older version within its promise
}

// promise says that answers show at least this version of a product.
type promise struct {
	version   int64
	confirmed time.Duration
	due       time.Duration // to answers that begin from here on
}

// ledger holds the promises about a product.
type ledger struct {
	settled promise   // to every shop, now
	waiting []promise // not due yet: the writes of one MaxStaleness
}

// memory holds the promises of one process of a shop: the versions written through it, by
// product.
type memory []promise

// limit is a time in which Redis may have lost changes that it had confirmed before lost.
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

// read records that an answer begins, from the process with this memory.
func (j *judge) read(own memory, product int) reading {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.settle(product)
	return reading{product, j.now(), own[product], j.ledgers[product].settled}
}

// answered judges an answer. It returns a description of a stale answer, and "" for every
// other.
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

// settle moves the promises that are due. The caller holds mu.
func (j *judge) settle(product int) {
	l, now := &j.ledgers[product], j.now()
	l.waiting = slices.DeleteFunc(l.waiting, func(p promise) bool {
		if p.due > now {
			return false
		}
		if p.version > l.settled.version {
			// An older version may have been confirmed later: the loss must explain both.
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

// write records that a write begins.
func (j *judge) write(product int) writing {
	j.mu.Lock()
	defer j.mu.Unlock()
	return writing{product, j.splits}
}

// written records that the process with this memory has answered a write.
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

// confirmed records that Redis has confirmed a write.
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

// unconfirmed records that a shop was killed before Redis had confirmed its write.
func (j *judge) unconfirmed() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.count.unpromised++
}

// divided reports whether there may have been two masters since a write began.
func (j *judge) divided(w writing) bool { return j.split > 0 || j.splits != w.splits }

// maxLimits bounds the recorded limits: one that ended longer ago than any answer takes
// explains nothing.
const maxLimits = 100

// losing records that Redis may lose confirmed writes. The function records that it answers
// again. returns says that the server that returns may act as the master.
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
