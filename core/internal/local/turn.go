package local

import (
	"math"
	"slices"
	"time"

	"github.com/larderhq/larder/core/internal/waitgraph"
)

// Verdict is the result of a load for the requests that wait for it.
type Verdict uint8

// The verdicts.
const (
	Shared      Verdict = iota + 1 // all requests share Outcome.Entry or Err
	Failed                         // a panic, a cancellation or a 5xx: waiters load, at most MaxLoadsAfterError concurrently
	Unshareable                    // the value is for its leader only: each waiter loads
	Again                          // the load has no result for waiters: they enter again

	granted // the waiter loads now
)

// Outcome is the result of a load.
type Outcome struct {
	Verdict Verdict
	Entry   *Entry
	Err     error
	Tags    []string // in addition to those with which the flight was entered
	Found   bool     // Entry was found in the cache, and is not the load's
	// ReplicaLag is the lag of the replicas that the load has read, as known at its end.
	ReplicaLag time.Duration
	// Oldest is the begin of the load, or of the earliest load whose value it contains.
	Oldest int64
}

// Claim is the lease that a turn holds in the shared tier.
type Claim interface {
	// Release gives the claim back. Later calls do nothing.
	Release()
	// Over reports whether the claim has been used or released.
	Over() bool
}

// Turn is the right and the duty to load. Exactly one call of Finish ends it, whatever the result
// of the load. It may be copied once, before its first use.
type Turn struct {
	*Load
	shard    *flightShard // of the key
	f        *flight      // nil: outside any flight; written under the shard's lock
	gate     Gate
	done     bool
	running  *waitgraph.Load // nil: unknown
	late     []string        // the tags of an entry that was found instead of a load
	oldest   int64           // the begin of the earliest load whose value this load contains; 0: none
	deferred *DeferredFill   // the fill that continues after the caller was answered; nil: none
}

// Granted reports whether the turn is valid. Enter and TryLead return the zero Turn to a caller
// that does not load.
func (t *Turn) Granted() bool { return t.Load != nil }

// NewTurn returns the turn of a load outside any flight.
func NewTurn(l *Load, gate Gate) Turn {
	return Turn{Load: l, shard: l.c.flights.shard(l.key), gate: gate}
}

// Runs sets the load of the turn, before the load begins.
func (t *Turn) Runs(l *waitgraph.Load) {
	t.running = l
	if t.f != nil && !t.done {
		t.f.graph.Runs(l)
	}
}

// Running returns the load that Runs has set.
func (t *Turn) Running() *waitgraph.Load { return t.running }

// Waited reports whether a request waits for this turn's load.
func (t *Turn) Waited() bool {
	select {
	case <-t.Unwatched():
		return false
	default:
		return true
	}
}

// Unwatched returns a channel that is closed as soon as no request waits for this turn's load.
func (t *Turn) Unwatched() <-chan struct{} {
	// Fetch may replace Load concurrently, and Lead may set the flight.
	t.shard.mu.Lock()
	defer t.shard.mu.Unlock()
	if t.f == nil || t.f.waiters.Len() == 0 {
		return closedChannel
	}
	if t.f.unwatched == nil {
		t.f.unwatched = make(chan struct{})
	}
	return t.f.unwatched
}

var closedChannel = func() chan struct{} { //nolint:gochecknoglobals // a constant
	c := make(chan struct{})
	close(c)
	return c
}()

// checkWatched closes the channel of Unwatched when the last waiter has left. The caller holds
// the shard's lock.
func (f *flight) checkWatched() {
	if f.unwatched != nil && f.waiters.Len() == 0 {
		close(f.unwatched)
		f.unwatched = nil
	}
}

// Finished reports whether Finish has been called.
func (t *Turn) Finished() bool { return t.done }

// Finish ends the turn and wakes the waiters. Later calls do nothing. It is not safe for
// concurrent use.
func (t *Turn) Finish(o Outcome) {
	if t.done {
		return
	}
	t.done = true
	o.ReplicaLag = t.gate.ReplicaLag
	if t.f == nil {
		return
	}
	c, f := t.c, t.f
	sh := c.flights.shard(f.key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if t.oldest != 0 {
		f.began = min(f.began, t.oldest)
	}
	o.Oldest = f.began
	f.running--
	f.graph.Ended(t.running)
	if f.closed {
		return
	}
	switch o.Verdict {
	case Shared:
		if !t.linger(sh, o) {
			c.close(sh, f)
		}
		t.share(o)
	case Again:
		c.close(sh, f)
		f.wakeAll(Outcome{Verdict: Again})
	case Unshareable:
		// Later requests begin a flight of their own, with a limit.
		if sh.m[f.key] == f {
			delete(sh.m, f.key)
		}
		f.limit = math.MaxInt
		c.grant(sh, f)
	default:
		if sh.m[f.key] != f { // fenced: later requests have a flight of their own
			c.close(sh, f)
			f.wakeAll(Outcome{Verdict: Again})
			return
		}
		f.limit = max(f.limit, t.gate.MaxLoadsAfterError)
		c.grant(sh, f)
	}
}

// share gives an outcome to the waiters that may have it. The others enter again. The caller holds
// the shard's lock.
func (t *Turn) share(o Outcome) {
	c, f := t.c, t.f
	late := append(o.Tags[:len(o.Tags):len(o.Tags)], t.late...)
	at, caughtUp := t.fencedAt(late), t.replicaCaughtUp(late)
	// An entry that was found in the tier, and is not this load's, may carry any tags, and may be
	// about to be removed. It must be valid at this moment.
	dead := o.Entry != nil && o.Entry != t.made && (o.Entry.is(removed) || o.Entry.State(c.Now()) == Gone) && !o.Entry.Unstored()
	for f.waiters.Len() > 0 {
		w := f.waiters.Front().Value.(*waiter)
		if dead || at != 0 && at < w.joined || caughtUp != 0 && caughtUp <= w.at || f.began < w.oldest {
			f.wakeFirst(Outcome{Verdict: Again})
		} else {
			f.wakeFirst(o)
		}
	}
}

// wakeAll gives an outcome to all waiters.
func (f *flight) wakeAll(o Outcome) {
	for f.waiters.Len() > 0 {
		f.wakeFirst(o)
	}
}

// Fenced reports whether an item since the begin of the load concerns the load, or late tags.
func (t *Turn) Fenced(late []string) bool { return t.fencedAt(late) != 0 }

// SetEntryTags records the tags of an entry that was found instead of a load.
func (t *Turn) SetEntryTags(late []string) { t.late = late }

// AddClaim records a claim of the turn in its flight. It returns false if the flight has been
// left. The claim is of no use then.
func (t *Turn) AddClaim(claim Claim) bool {
	if t.f == nil {
		return true
	}
	sh := t.c.flights.shard(t.f.key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.m[t.f.key] != t.f {
		return false
	}
	t.f.claims = append(slices.DeleteFunc(t.f.claims, Claim.Over), claim)
	return true
}

// Claimed reports whether a turn of the flight has a claim.
func (t *Turn) Claimed() bool {
	if t.f == nil {
		return false
	}
	sh := t.c.flights.shard(t.f.key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return slices.ContainsFunc(t.f.claims, func(claim Claim) bool { return !claim.Over() })
}

// Lead begins a flight for a turn outside any flight, with its claim. It does nothing if there is
// a flight that the turn could join.
func (t *Turn) Lead(claim Claim) {
	if t.f != nil {
		return
	}
	sh := t.c.flights.shard(t.key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if f := sh.m[t.key]; f != nil {
		if _, _, fenced := t.c.catchUp(f); !fenced {
			return // beside a load without a claim
		}
		t.c.leave(sh, f)
	}
	t.f = &flight{key: t.key, tags: t.tags, began: t.began, seen: t.pos, limit: 1, running: 1, claims: []Claim{claim}}
	t.f.graph.Turn()
	if t.running != nil {
		t.f.graph.Runs(t.running)
	}
	sh.m[t.key] = t.f
}

// MayLag reports whether the load began less than lag after an invalidation of key, its tags, or
// late tags, by the time at which this process applied the item.
func (l *Load) MayLag(lag time.Duration, key string, late []string) bool {
	tags := append(l.tags[:len(l.tags):len(l.tags)], late...)
	l.c.journal.mu.RLock()
	defer l.c.journal.mu.RUnlock()
	return l.c.concern(l.c.journal.since(l.began-int64(lag)), key, tags) != 0
}

// fencedAt returns the position of the first item since the begin of the load that concerns the
// load or late tags, 0 if there is none.
func (t *Turn) fencedAt(late []string) uint64 {
	tags := t.tags
	if len(late) > 0 {
		tags = append(tags[:len(tags):len(tags)], late...)
	}
	t.c.journal.mu.RLock()
	defer t.c.journal.mu.RUnlock()
	return t.c.concern(t.pos, t.key, tags)
}

// caughtUp returns the end of the first replica lag within which the load began, counted from the
// time at which this process applied the item; 0: there is none. The marks in the tier may end
// earlier. A load that joins before this time, and makes another value of the result, began
// within the same lag as seen by this process, so that its value is not stored.
func (l *Load) caughtUp(lag time.Duration, late []string) int64 {
	tags := append(l.tags[:len(l.tags):len(l.tags)], late...)
	j := l.c.journal
	j.mu.RLock()
	defer j.mu.RUnlock()
	from := j.since(l.began - int64(lag))
	pos := l.c.concern(from, l.key, tags)
	switch {
	case pos == 0 || pos >= l.pos: // a later item fences the load
		return 0
	case pos < j.tail(): // trimmed: the lag may have ended
		return l.began
	}
	return j.at(pos).at + int64(lag)
}

// ReadsReplica records that the load has read from a replica with a lag: it has read an entry
// whose class has this ReplicaLag.
func (t *Turn) ReadsReplica(lag time.Duration) { t.gate.ReplicaLag = max(t.gate.ReplicaLag, lag) }

// Contains records that the load contains the value of another one, which began at a time. 0
// is no load.
func (t *Turn) Contains(began int64) {
	if began != 0 && (t.oldest == 0 || began < t.oldest) {
		t.oldest = began
	}
}

// replicaCaughtUp is caughtUp with the lag and the tags that are known at the end of the load.
func (t *Turn) replicaCaughtUp(late []string) int64 {
	if t.gate.ReplicaLag <= 0 {
		return 0
	}
	return t.Load.caughtUp(t.gate.ReplicaLag, late)
}
