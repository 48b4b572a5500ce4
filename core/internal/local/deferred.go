package local

import "sync"

// DeferredFill is a fill that may continue after its caller has been answered. The flight of its
// load stays until the end of the fill, and requests may join it.
type DeferredFill struct {
	done  chan struct{}
	joins bool // requests may join

	mu      sync.Mutex
	left    bool // the caller has been answered
	over    bool
	entry   *Entry
	refusal Refusal
	f       *flight
}

// NewDeferredFill returns a fill that begins. joins: requests that come before its end may share
// the value of the load.
func NewDeferredFill(joins bool) *DeferredFill {
	return &DeferredFill{done: make(chan struct{}), joins: joins}
}

// Done returns a channel that is closed at the end of the fill.
func (d *DeferredFill) Done() <-chan struct{} { return d.done }

// Leave records that the caller of a turn is answered now. If the fill has ended, Leave returns
// its result and true.
func (t *Turn) Leave(d *DeferredFill) (en *Entry, refusal Refusal, over bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.over {
		return d.entry, d.refusal, true
	}
	d.left = true
	t.deferred = d
	return nil, "", false
}

// End ends a fill, and reports whether its caller had been answered before.
func (c *Cache) End(d *DeferredFill, en *Entry, refusal Refusal) (left bool) {
	d.mu.Lock()
	d.over, d.entry, d.refusal = true, en, refusal
	left, f := d.left, d.f
	d.mu.Unlock()
	close(d.done)
	if f != nil {
		sh := c.flights.shard(f.key)
		sh.mu.Lock()
		if sh.m[f.key] == f && f.settled != nil {
			c.close(sh, f)
		}
		sh.mu.Unlock()
	}
	return left
}

// settled is the outcome of a flight whose load has ended and whose fill has not.
type settled struct {
	t *Turn
	o Outcome
}

// linger keeps the turn's flight for requests that come before its fill has ended. The caller
// holds the shard's lock.
func (t *Turn) linger(sh *flightShard, o Outcome) bool {
	d, f := t.deferred, t.f
	if d == nil || !d.joins || o.Entry == nil || f.running > 0 || sh.m[f.key] != f {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.over {
		return false
	}
	d.f = f
	if f.overdue != nil {
		f.overdue.Stop()
	}
	o.Found = true // for later requests: one that demands a newer value must compare
	f.settled, f.claims = &settled{t, o}, nil
	return true
}

// outcome returns the outcome that a request may share now. The caller holds the shard's lock,
// and has found the flight unfenced.
func (st *settled) outcome(c *Cache) (Outcome, bool) {
	now, late := c.Now(), append(st.o.Tags[:len(st.o.Tags):len(st.o.Tags)], st.t.late...)
	caughtUp := st.t.replicaCaughtUp(late)
	if st.o.Entry.State(now) < Stale || st.t.fencedAt(late) != 0 || caughtUp != 0 && caughtUp <= now {
		return Outcome{}, false
	}
	return st.o, true
}
