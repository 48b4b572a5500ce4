package local

import (
	"container/list"
	"context"
	"errors"
	"hash/maphash"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/larderhq/larder/core/internal/loadscope"
	"github.com/larderhq/larder/core/internal/waitgraph"
)

// A flight is the loads of one key that are under way and those who wait for
// them. It begins with one load at a time. After a load that failed, as many as
// Gate.MaxLoadsAfterError may run, so that waiters are neither served one by one by a slow
// failure nor stampede what has just failed. After one whose value may not be
// shared, nobody waits any more.
type flight struct {
	key       string
	tags      []string
	began     int64  // when its first load began, or an earlier one whose value a load contains
	seen      uint64 // items of the log before it have been compared with key and tags
	caughtUp  int64  // from when on replicas have what the loads may have read too early, and nobody joins; 0: they did not
	limit     int
	running   int
	claims    []Claim // of the flight's turns
	closed    bool
	settled   *settled      // its load has ended, and its fill is on its way: the outcome of who comes; nil: not yet
	waiters   list.List     // of *waiter
	unwatched chan struct{} // closed when nobody waits any more; nil unless asked for
	overdue   *time.Timer
	graph     waitgraph.Flight // loads in it
}

type waiter struct {
	joined uint64       // position of the log at the time of joining
	at     int64        // that time
	oldest int64        // Guard.OldestShared at that time
	wake   chan Outcome // buffered: waking never blocks
}

type flights struct {
	seed   maphash.Seed
	shards [64]flightShard
}

type flightShard struct {
	mu sync.Mutex
	m  map[string]*flight
}

func newFlights() *flights {
	fs := &flights{seed: maphash.MakeSeed()}
	for i := range fs.shards {
		fs.shards[i].m = make(map[string]*flight)
	}
	return fs
}

func (fs *flights) shard(key string) *flightShard {
	return &fs.shards[maphash.String(fs.seed, key)%uint64(len(fs.shards))]
}

// Gate bounds a flight.
type Gate struct {
	MaxLoadsAfterError int           // loads at a time once one has failed
	Wait               time.Duration // how long a load is waited for before others are let go beside it
	Anew               bool          // a load that has ended is none to join
	// ReplicaLag is how long a replica may lag that loads read. A caller that comes when it is over
	// does not join a load that began before.
	ReplicaLag time.Duration
}

// Verdict is how a load ended for those who waited for it.
type Verdict uint8

// The verdicts.
const (
	Shared      Verdict = iota + 1 // Outcome.Entry or Err is everybody's
	Failed                         // a panic, a cancellation, a 5xx: the next ones try, MaxLoadsAfterError at a time
	Unshareable                    // it was its leader's alone: everybody goes on by himself
	Again                          // it says nothing to the others: they start over

	granted // it is this waiter's turn to load
)

// Outcome is what a load came to.
type Outcome struct {
	Verdict Verdict
	Entry   *Entry
	Err     error
	Tags    []string // beside those the flight was entered with
	Found   bool     // Entry is no load's: it was there
	// ReplicaLag is that of the load, as it was known at its end.
	ReplicaLag time.Duration
	// Oldest is when the load began, or the earliest load whose value it contains.
	Oldest int64
}

// Claim is a claim to the key that a turn has outside this process: a lease.
type Claim interface {
	// Release gives the claim back. Later calls do nothing.
	Release()
	// Over reports whether the claim has been used or released.
	Over() bool
}

// Turn is the right and the duty to load. Exactly one call of Finish ends it,
// whatever happens to the load. It is copied once at most, before it is used.
type Turn struct {
	*Load
	shard    *flightShard // of the key
	f        *flight      // nil: beside any flight; written under the shard's lock
	gate     Gate
	done     bool
	running  *waitgraph.Load // nil: not known yet
	late     []string        // the tags of an entry that was found in its place
	oldest   int64           // when the earliest load began whose value this load contains; 0: none
	deferred *DeferredFill   // the fill that goes on although the caller was answered; nil: none
}

// Granted reports whether the turn is one: Enter and TryLead return none to a caller that
// does not load.
func (t *Turn) Granted() bool { return t.Load != nil }

// NewTurn returns the turn of a load outside any flight.
func NewTurn(l *Load, gate Gate) Turn {
	return Turn{Load: l, shard: l.c.flights.shard(l.key), gate: gate}
}

// ErrBusy says that a load was waited for as long as may be. To load beside it
// then would turn a database that hangs into one that is stampeded.
var ErrBusy = errors.New("larder: waited twice LoadTimeout for other loads of the same key")

// ErrCircle says that a load waits for the caller's own, by way of others or of another
// instance: it would not end before that. The caller loads beside it.
var ErrCircle = errors.New("larder: a load that waits for the caller's own")

// maxAbroad bounds for how long a load within a load waits for another instance's:
// nobody sees from here whether that one waits for the outer load.
const maxAbroad = 2 * time.Second

// Abroad returns how long a load within a load waits for another instance's, where one
// by itself waits for so long.
func Abroad(wait time.Duration) time.Duration { return min(wait/4, maxAbroad) }

// Runs says which load a turn's is, before that begins.
func (t *Turn) Runs(l *waitgraph.Load) {
	t.running = l
	if t.f != nil && !t.done {
		t.f.graph.Runs(l)
	}
}

// Running returns the load that Runs has named.
func (t *Turn) Running() *waitgraph.Load { return t.running }

// Enter joins the flight of key, or begins one. It returns either a granted turn (the
// caller loads), or the outcome of another load, or an error: ctx's, when
// it ended first, ErrBusy, or ErrCircle. tags are those known before the load; gate
// applies to the flight that this call begins.
func (c *Cache) Enter(ctx context.Context, key string, tags []string, gate Gate) (Turn, Outcome, error) {
	sh := c.flights.shard(key)
	outer := loadscope.From(ctx).Loading()
	until := time.Now().Add(2 * gate.Wait)
	for {
		if err := ctx.Err(); err != nil {
			return Turn{}, Outcome{}, err
		}
		sh.mu.Lock()
		f := sh.m[key]
		var joined uint64
		var oldest int64
		if f != nil {
			var fenced bool
			if joined, oldest, fenced = c.catchUp(f); fenced {
				c.leave(sh, f)
				f = nil
			}
		}
		if f != nil && f.settled != nil {
			if o, ok := f.settled.outcome(c); ok && !gate.Anew {
				sh.mu.Unlock()
				c.Count.Coalesced.Add(1)
				return Turn{}, o, nil
			}
			c.leave(sh, f)
			f = nil
		}
		if f == nil {
			turn := c.begin(sh, key, tags, gate)
			sh.mu.Unlock()
			return turn, Outcome{}, nil
		}
		if f.running < f.limit {
			f.running++
			f.graph.Turn()
			sh.mu.Unlock()
			return c.turn(f, key, tags, gate), Outcome{}, nil
		}
		leave, ok := waitFor(outer, f)
		if !ok {
			sh.mu.Unlock()
			return Turn{}, Outcome{}, ErrCircle
		}
		w := &waiter{joined: joined, at: c.Now(), oldest: oldest, wake: make(chan Outcome, 1)}
		place := f.waiters.PushBack(w)
		if f.overdue == nil {
			f.overdue = time.AfterFunc(gate.Wait, func() { c.overdue(sh, f, gate) })
		}
		sh.mu.Unlock()
		c.Count.Coalesced.Add(1)

		o, err := w.await(ctx, until, outer, Abroad(gate.Wait))
		leave()
		if err == nil {
			switch o.Verdict {
			case Again:
				continue
			case granted:
				return c.turn(f, key, tags, gate), Outcome{}, nil
			default:
				return Turn{}, o, nil
			}
		}
		// Leaving: what arrived at the same moment is passed on.
		sh.mu.Lock()
		f.waiters.Remove(place)
		f.checkWatched()
		select {
		case o := <-w.wake:
			if o.Verdict == granted {
				f.running--
				f.graph.Ended(nil)
				c.grant(sh, f)
			}
		default:
		}
		sh.mu.Unlock()
		return Turn{}, Outcome{}, err
	}
}

// waitFor notes that a load waits for a flight. Nobody waits for who is no load.
func waitFor(outer *waitgraph.Load, f *flight) (leave func(), ok bool) {
	if outer == nil {
		return func() {}, true
	}
	return outer.For(&f.graph)
}

// await is wait until a time. A load that waits within a load looks, every so often,
// whether another instance holds it up.
func (w *waiter) await(ctx context.Context, until time.Time, outer *waitgraph.Load, abroad time.Duration) (Outcome, error) {
	for {
		left := time.Until(until)
		if outer == nil || left <= abroad {
			return w.wait(ctx, left)
		}
		o, err := w.wait(ctx, abroad)
		if !errors.Is(err, ErrBusy) {
			return o, err
		}
		if outer.HeldUp(abroad) {
			return Outcome{}, ErrCircle
		}
	}
}

// TryLead begins a flight of key unless one is under way.
func (c *Cache) TryLead(key string, tags []string, gate Gate) (Turn, bool) {
	sh := c.flights.shard(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if f := sh.m[key]; f != nil {
		if _, _, fenced := c.catchUp(f); !fenced {
			return Turn{}, false
		}
		c.leave(sh, f)
	}
	return c.begin(sh, key, tags, gate), true
}

// Alone returns a turn outside any flight, for a load that nobody can share.
func (c *Cache) Alone(key string, tags []string) Turn {
	return c.turn(nil, key, tags, Gate{})
}

func (c *Cache) begin(sh *flightShard, key string, tags []string, gate Gate) Turn {
	l := c.NewLoad(key, tags)
	f := &flight{key: key, tags: tags, began: l.began, seen: l.pos, limit: 1, running: 1}
	if gate.ReplicaLag > 0 {
		f.caughtUp = l.caughtUp(gate.ReplicaLag, nil)
	}
	f.graph.Turn()
	sh.m[key] = f
	return Turn{Load: l, shard: sh, f: f, gate: gate}
}

func (c *Cache) turn(f *flight, key string, tags []string, gate Gate) Turn {
	return Turn{Load: c.NewLoad(key, tags), shard: c.flights.shard(key), f: f, gate: gate}
}

// leave makes way for another flight of the key: what this one loads will be
// stored nowhere, and so it needs no claim. The caller holds the shard's lock.
func (c *Cache) leave(sh *flightShard, f *flight) {
	delete(sh.m, f.key)
	if !c.closed.Load() {
		for _, claim := range f.claims {
			claim.Release()
		}
	}
	f.claims = nil
}

// catchUp compares the flight with the items that came since it was last compared. oldest is
// Guard.OldestShared as of now. The caller holds the shard's lock.
func (c *Cache) catchUp(f *flight) (head uint64, oldest int64, fenced bool) {
	c.lapse(c.Now())
	c.journal.mu.RLock()
	defer c.journal.mu.RUnlock()
	head = c.journal.head
	fenced = c.concern(f.seen, f.key, f.tags) != 0
	f.seen = head
	now := c.Now()
	fenced = fenced || f.caughtUp != 0 && now >= f.caughtUp
	if c.guard != nil {
		// An item that has not arrived in time may fence the flight, or a copy that a load has
		// read while the copy was legal (R7).
		oldest = c.guard.OldestShared(now)
	}
	return head, oldest, fenced || f.began < oldest
}

func (w *waiter) wait(ctx context.Context, limit time.Duration) (Outcome, error) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case o := <-w.wake:
		return o, nil
	case <-ctx.Done():
		return Outcome{}, ctx.Err()
	case <-timer.C:
		return Outcome{}, ErrBusy
	}
}

// overdue lets others load beside a load that takes longer than it may.
func (c *Cache) overdue(sh *flightShard, f *flight, gate Gate) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if !f.closed && f.limit < math.MaxInt {
		f.limit = max(f.limit, 1+gate.MaxLoadsAfterError)
		c.grant(sh, f)
	}
}

// grant gives free places to waiters and forgets a flight that nobody is in.
// The caller holds the shard's lock.
func (c *Cache) grant(sh *flightShard, f *flight) {
	for f.running < f.limit && f.waiters.Len() > 0 {
		f.running++
		f.graph.Turn()
		f.wakeFirst(Outcome{Verdict: granted})
	}
	if f.running == 0 {
		c.close(sh, f)
	}
}

func (f *flight) wakeFirst(o Outcome) {
	w := f.waiters.Remove(f.waiters.Front()).(*waiter)
	w.wake <- o
	f.checkWatched()
}

func (c *Cache) close(sh *flightShard, f *flight) {
	f.closed = true
	if f.overdue != nil {
		f.overdue.Stop()
	}
	if sh.m[f.key] == f {
		delete(sh.m, f.key)
	}
}

// Waited reports whether somebody waits for this turn's load.
func (t *Turn) Waited() bool {
	select {
	case <-t.Unwatched():
		return false
	default:
		return true
	}
}

// Unwatched returns a channel that is closed as soon as nobody waits for this
// turn's load.
func (t *Turn) Unwatched() <-chan struct{} {
	// Meanwhile Fetch may replace Load, and Lead may set the flight.
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

// checkWatched tells who asked when the last waiter has gone. The caller holds
// the shard's lock.
func (f *flight) checkWatched() {
	if f.unwatched != nil && f.waiters.Len() == 0 {
		close(f.unwatched)
		f.unwatched = nil
	}
}

// Finished reports whether Finish has been called.
func (t *Turn) Finished() bool { return t.done }

// Finish ends the turn and wakes those who wait for it. Calls after the first
// do nothing. It is not safe for concurrent use.
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
		late := append(o.Tags[:len(o.Tags):len(o.Tags)], t.late...)
		at, caughtUp := t.fencedAt(late), t.replicaCaughtUp(late)
		// An entry that is not this load's own was found in the tier. It may carry
		// any tags, and be about to be taken out: it must be valid as of now.
		dead := o.Entry != nil && o.Entry != t.made && (o.Entry.is(removed) || o.Entry.State(c.Now()) == Gone) && !o.Entry.Unstored()
		for f.waiters.Len() > 0 {
			w := f.waiters.Front().Value.(*waiter)
			if dead || at != 0 && at < w.joined || caughtUp != 0 && caughtUp <= w.at || f.began < w.oldest {
				f.wakeFirst(Outcome{Verdict: Again})
			} else {
				f.wakeFirst(o)
			}
		}
	case Again:
		c.close(sh, f)
		for f.waiters.Len() > 0 {
			f.wakeFirst(Outcome{Verdict: Again})
		}
	case Unshareable:
		// Those who come later begin a flight of their own, with a limit again.
		if sh.m[f.key] == f {
			delete(sh.m, f.key)
		}
		f.limit = math.MaxInt
		c.grant(sh, f)
	default:
		if sh.m[f.key] != f { // fenced: those who came later have a flight of their own
			c.close(sh, f)
			for f.waiters.Len() > 0 {
				f.wakeFirst(Outcome{Verdict: Again})
			}
			return
		}
		f.limit = max(f.limit, t.gate.MaxLoadsAfterError)
		c.grant(sh, f)
	}
}

// Fenced reports whether something that concerns the load, or late tags, has been
// invalidated since the load began.
func (t *Turn) Fenced(late []string) bool { return t.fencedAt(late) != 0 }

// Names notes the tags of an entry that was found in place of the load's.
func (t *Turn) Names(late []string) { t.late = late }

// Claims notes a claim of the turn's where others of its flight see it. It returns false if
// the flight has been left meanwhile: then the claim is of no use.
func (t *Turn) Claims(claim Claim) bool {
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

// Lead makes a turn outside any flight lead one, with its claim. It does nothing where a
// flight is under way that it could join.
func (t *Turn) Lead(claim Claim) {
	if t.f != nil {
		return
	}
	sh := t.c.flights.shard(t.key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if f := sh.m[t.key]; f != nil {
		if _, _, fenced := t.c.catchUp(f); !fenced {
			return // it is beside a load without a claim
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

// MayLag reports whether this process has heard of an invalidation so short before the load
// that a replica may not have: one of key, the load's tags, or late tags.
func (l *Load) MayLag(lag time.Duration, key string, late []string) bool {
	tags := append(l.tags[:len(l.tags):len(l.tags)], late...)
	l.c.journal.mu.RLock()
	defer l.c.journal.mu.RUnlock()
	return l.c.concern(l.c.journal.since(l.began-int64(lag)), key, tags) != 0
}

// fencedAt returns the position of the first item since the load began that
// concerns it, late tags included, or 0.
func (t *Turn) fencedAt(late []string) uint64 {
	tags := t.tags
	if len(late) > 0 {
		tags = append(tags[:len(tags):len(tags)], late...)
	}
	t.c.journal.mu.RLock()
	defer t.c.journal.mu.RUnlock()
	return t.c.concern(t.pos, t.key, tags)
}

// caughtUp returns when the first replica lag ends that the load has begun within, by when
// this process heard of what was invalidated; 0: there is none. The tier's marks may end
// earlier. A caller that joins before this moment, and makes another value of it, has
// begun that value's load within the same lag, as this process sees it: that value is not
// stored.
func (l *Load) caughtUp(lag time.Duration, late []string) int64 {
	tags := append(l.tags[:len(l.tags):len(l.tags)], late...)
	j := l.c.journal
	j.mu.RLock()
	defer j.mu.RUnlock()
	from := j.since(l.began - int64(lag))
	pos := l.c.concern(from, l.key, tags)
	switch {
	case pos == 0 || pos >= l.pos: // what came later fences the load
		return 0
	case pos < j.tail(): // it is not known any more: it may be over
		return l.began
	}
	return j.at(pos).at + int64(lag)
}

// Reads says that the load has read from a replica that lags so far behind: it has read
// another entry whose class says so.
func (t *Turn) Reads(lag time.Duration) { t.gate.ReplicaLag = max(t.gate.ReplicaLag, lag) }

// Contains records that the load contains the value of another one, which began at a time. 0
// is no load.
func (t *Turn) Contains(began int64) {
	if began != 0 && (t.oldest == 0 || began < t.oldest) {
		t.oldest = began
	}
}

// replicaCaughtUp is caughtUp for all that is known of the turn's load at its end.
func (t *Turn) replicaCaughtUp(late []string) int64 {
	if t.gate.ReplicaLag <= 0 {
		return 0
	}
	return t.Load.caughtUp(t.gate.ReplicaLag, late)
}
