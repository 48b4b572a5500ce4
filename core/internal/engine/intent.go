package engine

import (
	"container/heap"
	"slices"
	"sync"
	"time"

	"github.com/larderhq/larder/core/internal/remote"
)

// intents are the writers at work: per key and tag, with deadlines. What is
// loaded while one is open is stored provisionally: not beyond its deadline. So
// a writer that dies between its commit and its end leaves nothing behind that
// outlives the deadline. The journal's lock guards them.
type intents struct {
	open  map[Item][]*Intent
	byEnd intentHeap // every intent that is still listed, the earliest deadline first
	// forgotten is the latest deadline of those that lapsed and are not listed any
	// more: what was loaded since before it may miss them.
	forgotten int64
	// allUntil is the deadline of the intents that found the table full. They
	// count for every key.
	allUntil int64
}

// maxIntents bounds the table. Beyond it a writer counts as one at work on
// everything: entries are then provisional until its deadline, and correct.
const maxIntents = 1 << 16

// Intent says that a writer is at work on some keys and tags.
type Intent struct {
	e        *Engine
	items    []Item
	deadline int64
	index    int    // in the heap; -1 when not listed
	id       string // in the shared tier; "": it is in this process only
	once     sync.Once

	// What a write-through compares at its end (see write.go): in this process the
	// position of the log behind its own beginning; in a shared tier where its items
	// are in their logs, the places before, and the time.
	pos    uint64
	logged map[Item]remote.Position
	since  []place
	began  int64
}

// beginHere is Begin in this process only.
func (e *Engine) beginHere(items []Item, d time.Duration) *Intent {
	in := &Intent{e: e, items: items, index: -1}
	e.journal.mu.Lock()
	now := e.Now()
	in.deadline = now + int64(d)
	e.intents.expire(now - e.retention)
	if len(e.intents.byEnd) < maxIntents {
		for _, it := range items {
			e.intents.open[it] = append(e.intents.open[it], in)
		}
		heap.Push(&e.intents.byEnd, in)
	} else {
		e.intents.allUntil = max(e.intents.allUntil, in.deadline)
	}
	if mutantNoBegin {
		items = nil
	}
	e.apply(now, items)
	in.pos, in.began = e.journal.head, now
	e.journal.mu.Unlock()
	e.remove(items)
	return in
}

// endHere is End in this process only.
func (in *Intent) endHere(more []Item) {
	items := append(in.items[:len(in.items):len(in.items)], more...)
	if mutantNoEnd {
		items = nil
	}
	in.e.journal.mu.Lock()
	in.e.intents.remove(in)
	in.e.apply(in.e.Now(), items)
	in.e.journal.mu.Unlock()
	in.e.remove(items)
}

// lapseHere is Lapse in this process only.
func (in *Intent) lapseHere(more []Item) {
	e := in.e
	items := append(in.items[:len(in.items):len(in.items)], more...)
	e.journal.mu.Lock()
	for _, it := range writtenItems(more) {
		if in.index >= 0 && !slices.Contains(in.items, it) {
			e.intents.open[it] = append(e.intents.open[it], in)
			in.items = append(in.items[:len(in.items):len(in.items)], it)
		}
	}
	e.apply(e.Now(), items)
	e.journal.mu.Unlock()
	e.remove(items)
}

// abandonHere is Abandon in this process only.
func (in *Intent) abandonHere() {
	in.e.journal.mu.Lock()
	defer in.e.journal.mu.Unlock()
	in.e.intents.remove(in)
}

func (t *intents) remove(in *Intent) {
	if in.index < 0 {
		return
	}
	heap.Remove(&t.byEnd, in.index)
	for _, it := range in.items {
		list := t.open[it]
		for i, other := range list {
			if other == in {
				list[i] = list[len(list)-1]
				list = list[:len(list)-1]
				break
			}
		}
		if len(list) == 0 {
			delete(t.open, it)
		} else {
			t.open[it] = list
		}
	}
}

// expire forgets intents whose deadline was before the time.
func (t *intents) expire(before int64) {
	for len(t.byEnd) > 0 && t.byEnd[0].deadline < before {
		t.forgotten = max(t.forgotten, t.byEnd[0].deadline)
		t.remove(t.byEnd[0])
	}
}

// provisional returns until when a value that was loaded from the time began on
// may be kept: 0 if no writer is at work, and lapsed if one went past its
// deadline meanwhile without having ended (it may have committed).
func (t *intents) provisional(began, now int64, key string, tags []string) (until int64, lapsed bool) {
	if len(t.open) == 0 && max(t.allUntil, t.forgotten) < began {
		return 0, false
	}
	lapsed = t.forgotten >= began && !mutantNoMemory
	see := func(deadline int64) {
		if deadline > now {
			until = max(until, deadline)
		} else if deadline >= began {
			lapsed = true
		}
	}
	see(t.allUntil)
	for _, in := range t.open[Item{Kind: Key, Value: Name(key)}] {
		see(in.deadline)
	}
	for _, tag := range tags {
		for _, in := range t.open[Item{Kind: Tag, Value: tag}] {
			see(in.deadline)
		}
	}
	return until, lapsed
}

type intentHeap []*Intent

func (h intentHeap) Len() int           { return len(h) }
func (h intentHeap) Less(i, j int) bool { return h[i].deadline < h[j].deadline }
func (h intentHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}
func (h *intentHeap) Push(x any) {
	in := x.(*Intent)
	in.index = len(*h)
	*h = append(*h, in)
}
func (h *intentHeap) Pop() any {
	old := *h
	in := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	in.index = -1
	return in
}
