package simulate_test

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/larderhq/larder/core/internal/test/memtier"
	"github.com/larderhq/larder/core/internal/tier"
)

// profile is a kind of history.
type profile struct {
	punctual bool // hints are perfect, and an invalidation holds everywhere at once
	mortal   bool // writers die
	replica  bool // loads may read a replica: no fault removes marks from the tier
	skewed   bool // servers' clocks differ
	queued   bool // there are always queues
	loses    bool // queued changes may be lost
	// unseen is the time within which all instances see a new era after data have returned.
	unseen  time.Duration
	network func(rng *rand.Rand) memtier.Faults
	pause   memtier.Delay // between events
	acts    []act
}

type act func(h *history, rng *rand.Rand)

const ms = time.Millisecond

func delays(d time.Duration) memtier.Delay { return memtier.Delay{Max: d} }

var profiles = map[string]*profile{
	"calm": {punctual: true, replica: true, skewed: true,
		network: func(rng *rand.Rand) memtier.Faults {
			return oneOf(rng, memtier.Faults{}, memtier.Faults{Request: delays(ms), Reply: delays(ms)})
		}},
	"lossy": {replica: true, skewed: true, pause: memtier.Delay{Min: 100 * ms, Max: 2 * time.Second},
		network: func(rng *rand.Rand) memtier.Faults { return lossy(rng, memtier.Faults{}) },
		acts:    []act{cutHints, relossy, isolate}},
	"slow": {replica: true, skewed: true, pause: memtier.Delay{Min: 200 * ms, Max: 2 * time.Second},
		network: func(rng *rand.Rand) memtier.Faults { return slow(rng, memtier.Faults{}) },
		acts:    []act{cutHints, freeze, isolate, isolate}},
	"resent": {replica: true, skewed: true,
		network: func(rng *rand.Rand) memtier.Faults { return resent(rng, memtier.Faults{}) }},
	"evictions": {skewed: true, loses: true, pause: memtier.Delay{Min: 5 * ms, Max: 100 * ms},
		network: func(rng *rand.Rand) memtier.Faults {
			return oneOf(rng, memtier.Faults{}, lossy(rng, memtier.Faults{}))
		},
		acts: []act{evict, evict, evict, evict, evict, evict, flush}},
	"crashes": {mortal: true, replica: true, skewed: true, pause: memtier.Delay{Min: 50 * ms, Max: time.Second},
		network: func(rng *rand.Rand) memtier.Faults {
			return lossy(rng, memtier.Faults{Request: delays(3 * ms), Reply: delays(3 * ms)})
		},
		acts: []act{crash, begin, begin}},
	"queues": {queued: true, mortal: true, replica: true, skewed: true, pause: memtier.Delay{Min: 100 * ms, Max: 2 * time.Second},
		network: func(rng *rand.Rand) memtier.Faults {
			return oneOf(rng, lossy(rng, memtier.Faults{Request: delays(2 * ms), Reply: delays(2 * ms)}), resent(rng, memtier.Faults{}))
		},
		acts: []act{crash, begin, begin, freeze, isolate, migrate, restart, hurry, hurry, hurry, hurry, hurry, hurry}},
	"failovers": {skewed: true, loses: true, pause: memtier.Delay{Min: 100 * ms, Max: 3 * time.Second},
		network: func(rng *rand.Rand) memtier.Faults {
			return oneOf(rng, memtier.Faults{Request: delays(2 * ms), Reply: delays(2 * ms)}, lossy(rng, memtier.Faults{}), resent(rng, memtier.Faults{}))
		},
		acts: []act{loseLast, loseLast, restart, down, restore()}},
	"returns": {skewed: true, loses: true, unseen: 3 * time.Second, pause: memtier.Delay{Min: 100 * ms, Max: 3 * time.Second},
		network: func(rng *rand.Rand) memtier.Faults {
			return oneOf(rng, memtier.Faults{Request: delays(2 * ms), Reply: delays(2 * ms)}, lossy(rng, memtier.Faults{}))
		},
		acts: []act{exchange, exchange, exchange, restart, flush}},
	"migrations": {skewed: true, pause: memtier.Delay{Min: 10 * ms, Max: 500 * ms},
		network: func(rng *rand.Rand) memtier.Faults { return lossy(rng, memtier.Faults{Request: delays(2 * ms)}) },
		acts:    []act{migrate}},
	"full": {skewed: true, pause: memtier.Delay{Min: 50 * ms, Max: time.Second},
		network: func(rng *rand.Rand) memtier.Faults { return lossy(rng, memtier.Faults{Request: delays(2 * ms)}) },
		acts:    []act{full}},
	"everything": {mortal: true, skewed: true, loses: true, pause: memtier.Delay{Min: 20 * ms, Max: time.Second},
		network: func(rng *rand.Rand) memtier.Faults {
			return lossy(rng, resent(rng, slow(rng, memtier.Faults{})))
		},
		acts: []act{cutHints, relossy, freeze, isolate, isolate, evict, evict, flush, crash, begin, begin, loseLast, restart, down, restore(), migrate, full}},
}

func lossy(rng *rand.Rand, f memtier.Faults) memtier.Faults {
	f.HintLost = oneOf(rng, 0.05, 0.5, 1)
	f.HintTwice = oneOf(rng, 0, 0.2)
	f.HintDelay = delays(oneOf(rng, 0, 5*ms, 2*time.Second))
	f.HintReordered = oneOf(rng, 0, 0.5)
	f.HintCut = oneOf(rng, 0, 0.01)
	return f
}

func slow(rng *rand.Rand, f memtier.Faults) memtier.Faults {
	f.Request, f.Reply = delays(oneOf(rng, ms, 10*ms, 30*ms)), delays(oneOf(rng, ms, 10*ms, 30*ms))
	f.Slow, f.SlowBy = 0.03, memtier.Delay{Min: 10 * ms, Max: oneOf(rng, 100*ms, 2*time.Second)}
	return f
}

func resent(rng *rand.Rand, f memtier.Faults) memtier.Faults {
	f.Request, f.Reply = delays(2*ms), delays(2*ms)
	f.RequestLost, f.ReplyLost = oneOf(rng, 0, 0.02), oneOf(rng, 0.01, 0.05)
	f.Resent, f.Silent = oneOf(rng, 0.5, 1), oneOf(rng, 0, 0.3)
	return f
}

// disturb causes faults until the history is over.
func (h *history) disturb(rng *rand.Rand) {
	if len(h.fault.acts) == 0 {
		<-h.ended
		return
	}
	seldom := time.Duration(oneOf(rng, 1, 3, 10))
	for h.sleep(seldom * between(rng, h.fault.pause.Min, h.fault.pause.Max)) {
		oneOf(rng, h.fault.acts...)(h, rng)
		if len(h.alive()) < 2 {
			h.start(rng)
		}
	}
}

func (h *history) happens(what string) {
	h.totals.count(what)
	h.noteAll(-1, "FAULT "+what)
	h.concerned.note(h.now(), tier.Item{Kind: tier.All})
}

func cutHints(h *history, _ *rand.Rand) {
	h.happens("hints cut")
	h.server.CutHints()
}

func relossy(h *history, rng *rand.Rand) {
	h.happens("other network")
	h.server.SetFaults(h.fault.network(rng))
}

// somePartitions returns none, which means all, or some.
func (h *history) somePartitions(rng *rand.Rand) (list []int) {
	if rng.IntN(2) == 0 {
		return nil
	}
	for p := range h.parts {
		if rng.IntN(2) == 0 {
			list = append(list, p)
		}
	}
	return list
}

func freeze(h *history, rng *rand.Rand) {
	some := h.somePartitions(rng)
	h.happens(fmt.Sprint("frozen", some)[:6])
	h.server.Freeze(true, some...)
	h.sleep(between(rng, 0, oneOf(rng, 50*ms, 3*time.Second)))
	h.server.Freeze(false)
}

// isolate cuts one process's line for a while.
func isolate(h *history, rng *rand.Rand) {
	list := h.alive()
	if len(list) == 0 {
		return
	}
	in := oneOf(rng, list...)
	h.totals.count("isolated")
	h.noteAll(in.id, "FAULT its line is cut")
	in.line.cut(true)
	h.sleep(between(rng, 0, oneOf(rng, 50*ms, 3*time.Second)))
	in.line.cut(false)
	h.noteAll(in.id, "its line is restored")
}

// hurry delays the tier's answers to the readers of one process beyond their budget for a
// while. Other calls are not delayed.
func hurry(h *history, rng *rand.Rand) {
	list := h.alive()
	if len(list) == 0 {
		return
	}
	in := oneOf(rng, list...)
	h.totals.count("hurried")
	h.noteAll(in.id, "FAULT its readers are not answered")
	in.line.busy.Store(true)
	h.sleep(between(rng, 0, oneOf(rng, 500*ms, 5*time.Second)))
	in.line.busy.Store(false)
	h.noteAll(in.id, "its readers are answered")
}

func down(h *history, rng *rand.Rand) {
	some := h.somePartitions(rng)
	h.happens("down")
	h.server.Down(true, some...)
	h.sleep(between(rng, 0, oneOf(rng, 50*ms, 2*time.Second)))
	if rng.IntN(2) == 0 {
		loseLast(h, rng)
	}
	h.happens("up")
	h.server.Down(false)
}

func evict(h *history, rng *rand.Rand) {
	h.mu.Lock() // a check for lost intents sees it before
	h.blind.Add(1)
	h.mu.Unlock()
	kinds := oneOf(rng, []memtier.Kind{memtier.Entry}, []memtier.Kind{memtier.Lease}, []memtier.Kind{memtier.Generation},
		[]memtier.Kind{memtier.Head}, []memtier.Kind{memtier.Log}, []memtier.Kind{memtier.Entry, memtier.Lease, memtier.Generation}, evictable)
	if kind, name, ok := h.server.Evict(rng, kinds...); ok {
		h.happens("evicted " + kind.String())
		_ = name
	}
}

// evictable reports whether a key may be evicted: all but the layout. After its loss
// InvalidateEverywhere would not wait long enough.
var evictable = []memtier.Kind{memtier.Entry, memtier.Lease, memtier.Generation, memtier.Intents, memtier.Head, memtier.Log}

func flush(h *history, _ *rand.Rand) {
	h.blind.Add(1)
	h.happens("flushed")
	h.loseQueue()
	h.server.Flush()
	h.loseQueue()
}

func crash(h *history, rng *rand.Rand) {
	if list := h.alive(); len(list) > 1 {
		h.kill(oneOf(rng, list...))
	}
}

func begin(h *history, rng *rand.Rand) {
	if len(h.alive()) < 4 {
		h.happens("start")
		h.start(rng)
	}
}

func loseLast(h *history, rng *rand.Rand) {
	d := between(rng, 0, oneOf(rng, 10*ms, 300*ms, 3*time.Second))
	h.happens("failover")
	some := h.somePartitions(rng)
	h.shake(d)
	h.loseQueue()
	h.server.LoseLast(d, some...)
	h.loseQueue() // changes that were queued in between
}

func restart(h *history, rng *rand.Rand) {
	h.happens("restart")
	h.shake(0)
	h.server.Restart(h.somePartitions(rng)...)
}

// restore restores the data of its last backup.
func restore() act {
	return func(h *history, rng *rand.Rand) {
		snap, at := h.server.Snapshot(), h.now()
		h.happens("snapshot")
		if !h.sleep(between(rng, 0, 3*time.Second)) {
			return
		}
		h.happens("restored")
		h.shake(h.now() - at)
		h.loseQueue()
		h.server.Restore(snap)
		h.loseQueue()
	}
}

// exchange replaces the data by older data, or none, and mostly back again, while the
// servers run. An instance that did not know the later state answers returned data until
// another instance has begun a new era. That takes at most a MaxStaleness; debts are due
// after three times the longest one.
func exchange(h *history, rng *rand.Rand) {
	var to memtier.Snapshot
	begun := h.now()
	if rng.IntN(3) == 0 {
		to = h.server.Snapshot()
		h.happens("snapshot")
		if !h.sleep(between(rng, 0, 3*time.Second)) {
			return
		}
	}
	for range 2 {
		h.happens("exchanged")
		h.shake(h.now() - begun)
		h.loseQueue()
		begun = h.now()
		to = h.server.Swap(to)
		h.loseQueue()
		if rng.IntN(8) == 0 || !h.sleep(between(rng, 0, oneOf(rng, 10*ms, 4*time.Second))) {
			return
		}
	}
}

func migrate(h *history, rng *rand.Rand) {
	h.happens("migration")
	first, n := rng.IntN(h.parts), 1+rng.IntN(h.parts)
	for i := range n {
		h.server.Migrating((first+i)%h.parts, true)
	}
	h.sleep(between(rng, 0, oneOf(rng, 10*ms, 500*ms)))
	for p := range h.parts {
		h.server.Migrating(p, false)
	}
	h.noteAll(-1, "migration ends")
}

func full(h *history, rng *rand.Rand) {
	h.happens("full")
	h.server.Full(true)
	h.sleep(between(rng, 0, oneOf(rng, 50*ms, 2*time.Second)))
	h.server.Full(false)
	h.noteAll(-1, "no longer full")
}
