package local

import (
	"container/list"
	"context"
	"errors"
	"hash/maphash"
	"math"
	"sync"
	"time"

	"github.com/larderhq/larder/core/internal/loadscope"
	"github.com/larderhq/larder/core/internal/waitgraph"
)

// A flight is the set of running loads of one key, with the requests that wait for them. At first
// only one load runs. After a load that failed, up to Gate.MaxLoadsAfterError loads run
// concurrently, so that waiters neither fail one after the other nor stampede a database that
// has just failed. After a load whose value must not be shared, each request loads for itself.
type flight struct {
	key       string
	tags      []string
	began     int64  // the earliest begin of its loads, and of the loads whose values they contain
	seen      uint64 // items of the log before this position have been compared with key and tags
	caughtUp  int64  // the time from which no request may join, since a replica had lagged before it; 0: none
	limit     int
	running   int
	claims    []Claim // of the flight's turns
	closed    bool
	settled   *settled      // the outcome for later requests while the fill of its load runs; nil: the load runs
	waiters   list.List     // of *waiter
	unwatched chan struct{} // closed when no waiter is left; nil until Unwatched is called
	overdue   *time.Timer
	graph     waitgraph.Flight // its loads
}

type waiter struct {
	joined uint64       // the position of the log when the request joined
	at     int64        // the time when it joined
	oldest int64        // Guard.OldestShared when it joined
	wake   chan Outcome // buffered, so that a send never blocks
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
	MaxLoadsAfterError int           // the limit of concurrent loads after one has failed
	Wait               time.Duration // the time after which other loads may run beside a load
	SkipSettled        bool          // a flight whose load has ended is not joined
	// ReplicaLag is the longest lag of the replicas that loads read. A request that comes after the
	// end of a lag does not join a load that began before it.
	ReplicaLag time.Duration
}

// ErrBusy is returned after the longest allowed wait for a load. Another load beside it would
// stampede a database that hangs.
var ErrBusy = errors.New("larder: waited twice LoadTimeout for other loads of the same key")

// ErrCycle is returned to a caller whose own load the other load waits for, directly or through
// other loads or instances. The caller loads beside it.
var ErrCycle = errors.New("larder: a load that waits for the caller's own")

// maxInstanceWait bounds the wait of a nested load for the load of another instance, since this
// process does not know whether that load waits for the outer one.
const maxInstanceWait = 2 * time.Second

// InstanceWait returns the time for which a nested load waits for the load of another instance.
// wait is that of a load that is not nested.
func InstanceWait(wait time.Duration) time.Duration { return min(wait/4, maxInstanceWait) }

// Enter joins the flight of key, or begins one. It returns a granted turn, with which the caller
// loads, or the outcome of another load, or an error: that of ctx, ErrBusy or ErrCycle. tags are
// the tags that are known before the load. gate applies to a flight that this call begins.
func (c *Cache) Enter(ctx context.Context, key string, tags []string, gate Gate) (Turn, Outcome, error) {
	outer := loadscope.From(ctx).Loading()
	until := time.Now().Add(2 * gate.Wait)
	for {
		if err := ctx.Err(); err != nil {
			return Turn{}, Outcome{}, err
		}
		e := c.enter(key, tags, gate, outer)
		if e.joined == nil {
			return e.turn, e.outcome, e.err
		}
		o, err := e.joined.await(ctx, until, outer, InstanceWait(gate.Wait))
		e.ended()
		switch {
		case err != nil:
			c.abandon(e.flight, e.place)
			return Turn{}, Outcome{}, err
		case o.Verdict == granted:
			return c.turn(e.flight, key, tags, gate), Outcome{}, nil
		case o.Verdict != Again:
			return Turn{}, o, nil
		}
	}
}

// entered is the result of one attempt to enter a flight: a turn, an outcome, an error, or a place
// among the waiters of a flight.
type entered struct {
	turn    Turn
	outcome Outcome
	err     error

	joined *waiter // nil: the attempt does not wait
	flight *flight
	place  *list.Element
	ended  func() // called at the end of the wait
}

// enter makes one attempt to enter the flight of key. outer is the load of which the caller is a
// part, nil if there is none.
func (c *Cache) enter(key string, tags []string, gate Gate, outer *waitgraph.Load) entered {
	sh := c.flights.shard(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	f := sh.m[key]
	if f == nil {
		return entered{turn: c.begin(sh, key, tags, gate)}
	}
	head, oldest, fenced := c.catchUp(f)
	if !fenced && f.settled != nil && !gate.SkipSettled {
		if o, ok := f.settled.outcome(c); ok {
			c.Count.Coalesced.Add(1)
			return entered{outcome: o}
		}
	}
	if fenced || f.settled != nil {
		c.leave(sh, f)
		return entered{turn: c.begin(sh, key, tags, gate)}
	}
	if f.running < f.limit {
		f.running++
		f.graph.Turn()
		return entered{turn: c.turn(f, key, tags, gate)}
	}
	ended, ok := waitFor(outer, f)
	if !ok {
		return entered{err: ErrCycle}
	}
	w := &waiter{joined: head, at: c.Now(), oldest: oldest, wake: make(chan Outcome, 1)}
	place := f.waiters.PushBack(w)
	if f.overdue == nil {
		f.overdue = time.AfterFunc(gate.Wait, func() { c.overdue(sh, f, gate) })
	}
	c.Count.Coalesced.Add(1)
	return entered{joined: w, flight: f, place: place, ended: ended}
}

// abandon removes a waiter that has given up. A turn that was granted to it at the same moment
// passes to the next waiter.
func (c *Cache) abandon(f *flight, place *list.Element) {
	sh := c.flights.shard(f.key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	w := place.Value.(*waiter) //nolint:forcetypeassert // the list has no other type
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
}

// waitFor records that a load waits for a flight, until leave is called. A caller that is no load
// is not recorded. ok is false if the wait would close a cycle.
func waitFor(outer *waitgraph.Load, f *flight) (leave func(), ok bool) {
	if outer == nil {
		return func() {}, true
	}
	return outer.For(&f.graph)
}

// await waits until a time. A nested load checks at intervals of at most instance whether a load
// of another instance holds it up.
func (w *waiter) await(ctx context.Context, until time.Time, outer *waitgraph.Load, instance time.Duration) (Outcome, error) {
	for {
		left := time.Until(until)
		if outer == nil || left <= instance {
			return w.wait(ctx, left)
		}
		o, err := w.wait(ctx, instance)
		if !errors.Is(err, ErrBusy) {
			return o, err
		}
		if outer.HeldUp(instance) {
			return Outcome{}, ErrCycle
		}
	}
}

// TryLead begins a flight of key, unless there is one.
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

// Alone returns a turn outside any flight, for a load that cannot be shared.
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

// leave makes room for another flight of the key. The values of this one will not be stored, so
// that it needs no claim. The caller holds the shard's lock.
func (c *Cache) leave(sh *flightShard, f *flight) {
	delete(sh.m, f.key)
	if !c.closed.Load() {
		for _, claim := range f.claims {
			claim.Release()
		}
	}
	f.claims = nil
}

// catchUp compares the flight with the items since the last comparison. oldest is
// Guard.OldestShared of this moment. The caller holds the shard's lock.
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

// overdue permits other loads beside a load that has exceeded its time.
func (c *Cache) overdue(sh *flightShard, f *flight, gate Gate) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if !f.closed && f.limit < math.MaxInt {
		f.limit = max(f.limit, 1+gate.MaxLoadsAfterError)
		c.grant(sh, f)
	}
}

// grant gives turns to waiters up to the limit, and closes a flight without loads. The caller
// holds the shard's lock.
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
