package main

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// history records what has been written and announced, and judges every read. Times are nanoseconds since base.
type history struct {
	base  time.Time
	delta int64
	rows  []record
	// splits counts up when a replaced master begins to act as one, and when it ends.
	splits atomic.Int64

	reads, hits, writes  atomic.Int64
	pendings, unpromised atomic.Int64 // writes that were not confirmed at once; writes without a promise
	stale, excused       atomic.Int64
	longestHere          atomic.Int64 // staleness on the process that wrote; the promise is 0
	longest, longestLost atomic.Int64 // on other processes; while a limit lasted
	longestKilled        atomic.Int64 // after the commit of a writer that was killed; the promise is writeTimeout

	mu     sync.Mutex
	limits []limit
	events []event
	first  []string // the first stale reads, described
}

// record is the state of one row.
type record struct {
	settled atomic.Int64 // the least version that every read that begins now must see
	due     atomic.Int64 // the time at which the first of waiting is settled; 0: none waits
	latest  atomic.Int64 // the latest version that was promised to any process

	mu      sync.Mutex
	waiting []promise
	past    [128]promise // the latest
	next    int
}

// promise says that reads see a version: reads on the process that wrote it from here on, and reads on others from
// everywhere on. Zero is never.
type promise struct {
	version          int64
	how              string
	by               *process
	here, everywhere int64
	confirmed        int64
	killed           bool // the writer was killed after its commit: confirmed is the time of the commit
}

// limit is a time in which the tier may have lost what it had confirmed before lost.
type limit struct{ from, lost, until int64 }

// event is a fault, or another cause of a slow or stale answer.
type event struct {
	what     string
	from, to int64 // to 0: it lasts
}

func newHistory(rows int) *history {
	return &history{base: time.Now(), delta: int64(maxStaleness), rows: make([]record, rows)}
}

func (h *history) now() int64 { return int64(time.Since(h.base)) }

// promised records a promise about a write that began when splits had the value given.
func (h *history) promised(row int, p promise, splits int64) {
	if splits%2 != 0 || splits != h.splits.Load() {
		h.unpromised.Add(1)
		return
	}
	r := &h.rows[row]
	r.mu.Lock()
	defer r.mu.Unlock()
	r.past[r.next%len(r.past)] = p
	r.next++
	if p.here != 0 {
		raise(&p.by.announced[row], p.version)
	}
	if p.everywhere != 0 {
		r.waiting = append(r.waiting, p)
		r.settle(h.now())
	}
	raise(&r.latest, p.version)
}

// settle moves the promises that are due. The caller holds mu.
func (r *record) settle(now int64) {
	due, left := int64(0), r.waiting[:0]
	for _, p := range r.waiting {
		if p.everywhere <= now {
			raise(&r.settled, p.version)
			continue
		}
		left = append(left, p)
		if due == 0 || p.everywhere < due {
			due = p.everywhere
		}
	}
	r.waiting = left
	r.due.Store(due)
}

func raise(to *atomic.Int64, v int64) {
	for {
		old := to.Load()
		if old >= v || to.CompareAndSwap(old, v) {
			return
		}
	}
}

// least returns the version that a read of a row on a process must see, if it begins after the call.
func (h *history) least(p *process, row int) int64 {
	r := &h.rows[row]
	if due := r.due.Load(); due != 0 {
		if now := h.now(); due <= now {
			r.mu.Lock()
			r.settle(now)
			r.mu.Unlock()
		}
	}
	return max(r.settled.Load(), p.announced[row].Load())
}

// judge judges a read that began at begun, when least was least, and was answered with a version.
func (h *history) judge(p *process, row int, begun, least int64, r response) {
	h.reads.Add(1)
	if r.hit {
		h.hits.Add(1)
	}
	rec := &h.rows[row]
	if r.version >= least && r.version >= rec.latest.Load() {
		return
	}
	past := rec.before(begun)
	old := h.age(past, p, begun, r.version)
	if r.version >= least {
		h.raise(staleness{elsewhere: old.elsewhere, killed: old.killed})
		return
	}
	if h.lost(p, past, begun, r.version) {
		h.excused.Add(1)
		raise(&h.longestLost, max(old.here, old.elsewhere, old.killed))
		return
	}
	h.raise(old)
	if h.stale.Add(1) <= 20 {
		s := h.describe(p, row, begun, least, r, past)
		h.mu.Lock()
		h.first = append(h.first, s)
		h.mu.Unlock()
	}
}

// before returns the promises of versions that were confirmed to a process before a read began.
func (r *record) before(begun int64) (list []promise) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range min(r.next, len(r.past)) {
		p := r.past[(r.next-1-i)%len(r.past)]
		if p.here != 0 && p.here <= begun || p.confirmed != 0 && p.confirmed <= begun {
			list = append(list, p)
		}
	}
	return list
}

// staleness is for how long a version had been outdated when a read began: by a write of the process that was read, by
// one of another process since it was confirmed there, and by a writer that was killed since its commit.
type staleness struct{ here, elsewhere, killed int64 }

func (h *history) age(past []promise, p *process, begun, version int64) (s staleness) {
	for _, w := range past {
		switch {
		case w.version <= version:
		case w.by == p && w.here != 0 && w.here <= begun:
			s.here = max(s.here, begun-w.here)
		case w.by == p || w.confirmed == 0 || w.confirmed > begun:
		case w.killed:
			s.killed = max(s.killed, begun-w.confirmed)
		default:
			s.elsewhere = max(s.elsewhere, begun-w.confirmed)
		}
	}
	return s
}

// raise raises the longest staleness that was seen.
func (h *history) raise(s staleness) {
	raise(&h.longestHere, s.here)
	raise(&h.longest, s.elsewhere)
	raise(&h.longestKilled, s.killed)
}

// lost reports whether a limit explains a stale read: the tier lost every promise that it breaks.
func (h *history) lost(p *process, past []promise, begun, version int64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, l := range h.limits {
		if begun < l.from || l.until != 0 && begun > l.until {
			continue
		}
		explained := true
		for _, w := range past {
			broken := w.version > version &&
				(w.by == p && w.here != 0 && w.here <= begun || w.everywhere != 0 && w.everywhere <= begun)
			if broken && l.lost != 0 && max(w.here, w.confirmed) > l.lost {
				explained = false
			}
		}
		if explained {
			return true
		}
	}
	return false
}

// losing begins a limit. The function ends it when the new server answers.
func (h *history) losing() (answers func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := len(h.limits)
	h.limits = append(h.limits, limit{from: h.now()})
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.limits[i].lost = h.now()
		h.limits[i].until = h.now() + h.delta
	}
}

// happens records the begin of an event. The function records its end.
func (h *history) happens(what string) (over func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := len(h.events)
	h.events = append(h.events, event{what: what, from: h.now()})
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.events[i].to = h.now()
	}
}

// lately returns the events of the seconds before a time.
func (h *history) lately(at int64) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var list []string
	for _, e := range h.events {
		if e.from <= at && (e.to == 0 || e.to > at-int64(5*time.Second)) {
			ended := "goes on"
			if e.to != 0 {
				ended = fmt.Sprintf("to %v", seconds(e.to))
			}
			list = append(list, fmt.Sprintf("%s from %v %s", e.what, seconds(e.from), ended))
		}
	}
	if list == nil {
		return "nothing"
	}
	return strings.Join(list, "; ")
}

func seconds(ns int64) time.Duration { return time.Duration(ns).Round(100 * time.Microsecond) }

func (h *history) describe(p *process, row int, begun, least int64, r response, past []promise) string {
	var b strings.Builder
	fmt.Fprintf(&b, "STALE: row %d on %s, begun at %v, ended at %v, hit %t: version %d, at least %d is promised\n",
		row, p.name, seconds(begun), seconds(h.now()), r.hit, r.version, least)
	for _, w := range past {
		if w.version > r.version {
			fmt.Fprintf(&b, "    version %d by %s through %s: here from %v, confirmed at %v, everywhere from %v\n",
				w.version, w.how, w.by.name, seconds(w.here), seconds(w.confirmed), seconds(w.everywhere))
		}
	}
	fmt.Fprintf(&b, "    lately: %s", h.lately(begun))
	return b.String()
}
