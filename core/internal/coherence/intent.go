package coherence

import (
	"container/heap"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/larderhq/larder/core/internal/tier"
)

// An intent is an invalidation that comes at its deadline unless its writer ends it
// before (R24). Its beginning invalidates nothing, so that a write that is refused costs
// nothing. Let B be a writer's beginning, C its commit, D its deadline:
//
//	B < read < C, the writer ends     the end invalidates what was read, stored or not
//	read < B or B < read < C, and     the deadline invalidates what was read; a load that
//	the writer dies                   is under way then finds it in the log
//	B < read, the writer abandons     nothing was written: what was read stays
//	two writers, one abandons         the other's deadline comes all the same: each has
//	                                  its own
//	D passes, then the writer ends    the end invalidates as well
//	the writer is answered for,       the answer invalidates what was read before, D what
//	and C comes later                 is read then; earlier deadlines, which the answer
//	                                  enters, take it out soon after C
//
// In a shared tier the deadline is the tier's: a generation expires then, and so does the
// entry under a key. The log tells every instance of beginnings and of what is closed,
// and each schedules the deadline for what it keeps itself (see deadlines.go).

// intents are the writers at work in this process only, and the deadlines of all
// others. The journal's lock guards them.
type intents struct {
	open   map[Item][]*Intent
	due    deadlines
	byID   map[string][]*deadline
	next   atomic.Int64 // the earliest deadline; MaxInt64 if there is none
	closed int64        // nothing is stored before: more deadlines than are listed
	full   *deadline    // at which all is invalidated that began before closed; nil: none
}

// maxDeadlines bounds the list, which in a shared tier has the deadlines of all instances.
// Beyond it nothing is kept in this process until the latest deadline that is not listed:
// everything goes at once, and once more then. More writers are at work than anybody has.
const maxDeadlines = 1 << 16

func newIntents() *intents {
	t := &intents{open: make(map[Item][]*Intent), byID: make(map[string][]*deadline)}
	t.next.Store(math.MaxInt64)
	return t
}

// deadline is an invalidation that is to come.
type deadline struct {
	at    int64
	items []Item
	doubt int64   // until when it may not have come in the tier: see deadlines.go
	id    string  // of the intent; "": nobody takes it back
	index int     // in the heap; -1 when not listed
	of    *Intent // in this process only; nil: another's
}

// deadlines is a heap, the earliest first.
type deadlines []*deadline

func (h deadlines) Len() int           { return len(h) }
func (h deadlines) Less(i, j int) bool { return h[i].at < h[j].at }
func (h deadlines) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push implements heap.Interface.
func (h *deadlines) Push(x any) {
	d := x.(*deadline)
	d.index = len(*h)
	*h = append(*h, d)
}

// Pop implements heap.Interface.
func (h *deadlines) Pop() any {
	old := *h
	d := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	d.index = -1
	return d
}

// schedule lists a deadline. It returns false where there is no room: then the caller
// invalidates everything. The caller holds the journal's lock.
func (t *intents) schedule(d *deadline) bool {
	d.index = -1
	if len(t.due) >= maxDeadlines {
		t.shut(max(d.at, d.doubt))
		return false
	}
	heap.Push(&t.due, d)
	if d.id != "" {
		t.byID[d.id] = append(t.byID[d.id], d)
	}
	t.next.Store(t.due[0].at)
	return true
}

// shut keeps everything from being stored until a time, when all that has begun before is
// invalidated. That deadline is listed beyond the bound. The caller holds the journal's lock.
func (t *intents) shut(until int64) {
	t.closed = max(t.closed, until)
	if t.full != nil && t.full.index >= 0 {
		t.full.at = t.closed
		heap.Fix(&t.due, t.full.index)
	} else {
		t.full = &deadline{at: t.closed, items: []Item{{Kind: All}}}
		heap.Push(&t.due, t.full)
	}
	t.next.Store(t.due[0].at)
}

// remove takes a deadline out. The caller holds the journal's lock.
func (t *intents) remove(d *deadline) {
	if d.index >= 0 {
		heap.Remove(&t.due, d.index)
	}
	if list := slices.DeleteFunc(t.byID[d.id], func(o *deadline) bool { return o == d }); len(list) > 0 {
		t.byID[d.id] = list
	} else {
		delete(t.byID, d.id)
	}
	if len(t.due) > 0 {
		t.next.Store(t.due[0].at)
	} else {
		t.next.Store(math.MaxInt64)
	}
}

// takeBack takes back the deadlines of an intent that are of a partition.
func (e *Engine) takeBack(id string, partition int) {
	if id == "" {
		return
	}
	n := e.partitions()
	e.journal.mu.Lock()
	defer e.journal.mu.Unlock()
	for _, d := range slices.Clone(e.intents.byID[id]) {
		if tier.Partition(d.items[0].Value, n) == partition {
			e.intents.remove(d)
		}
	}
}

// announce lists a deadline that the tier's log has told of.
func (e *Engine) announce(d *deadline) {
	e.lapse(e.Now())
	e.journal.mu.Lock()
	room := e.intents.schedule(d)
	e.journal.mu.Unlock()
	if !room {
		e.fence([]Item{{Kind: All}})
	}
}

// lapse invalidates what is due. It costs one comparison where nothing is.
func (e *Engine) lapse(now int64) {
	if now < e.intents.next.Load() {
		return
	}
	var items []Item
	e.journal.mu.Lock()
	for len(e.intents.due) > 0 && e.intents.due[0].at <= now {
		d := e.intents.due[0]
		items = append(items, d.items...)
		if d.doubt > 0 {
			e.shared.doubtUntil(tier.Partition(d.items[0].Value, e.partitions()), d.doubt)
		}
		if e.intents.remove(d); d.of != nil {
			e.intents.forget(d.of)
		}
		if d.doubt > d.at { // once more, for what has begun to be read since
			e.intents.schedule(&deadline{at: d.doubt, items: d.items, id: d.id})
		}
	}
	e.apply(e.Now(), items)
	e.journal.mu.Unlock()
	e.owns.drop(e, items)
	e.remove(items)
}

// mayKeep reports whether what a load began with at a time may be stored: everything
// that is due has been applied. The caller holds the journal's lock.
func (t *intents) mayKeep(began, now int64) bool {
	return began >= t.closed && now < t.next.Load()
}

// Intent says that a writer is at work on some keys and tags.
type Intent struct {
	e        *Engine
	items    []Item
	deadline int64
	due      *deadline // in this process only
	id       string    // in the shared tier; "": it is in this process only
	once     sync.Once

	// What a write-through compares at its end (see write.go): in this process the
	// position of the log behind its own beginning; in a shared tier where its items
	// are in their logs, the places before, and the time.
	pos    uint64
	logged map[Item]tier.Position
	since  []place
	began  int64
}

// beginHere is Begin in this process only.
func (e *Engine) beginHere(items []Item, d time.Duration) *Intent {
	in := &Intent{e: e, items: items}
	e.Count.Invalidations.Add(int64(len(items)))
	e.lapse(e.Now())
	e.journal.mu.Lock()
	now := e.Now()
	in.deadline = now + int64(d)
	in.due = &deadline{at: in.deadline, items: items, of: in}
	room := e.intents.schedule(in.due)
	for i := range items {
		if room {
			e.intents.open[items[i]] = append(e.intents.open[items[i]], in)
		}
	}
	in.pos, in.began = e.journal.head, now
	e.journal.mu.Unlock()
	if !room {
		e.fence([]Item{{Kind: All}})
	}
	return in
}

// close takes the intent out. The caller holds the journal's lock.
func (t *intents) close(in *Intent) {
	t.remove(in.due)
	t.forget(in)
}

func (t *intents) forget(in *Intent) {
	for _, it := range in.items {
		if list := slices.DeleteFunc(t.open[it], func(o *Intent) bool { return o == in }); len(list) > 0 {
			t.open[it] = list
		} else {
			delete(t.open, it)
		}
	}
}

// endHere is End in this process only.
func (in *Intent) endHere(more []Item) {
	items := append(in.items[:len(in.items):len(in.items)], more...)
	in.e.journal.mu.Lock()
	in.e.intents.close(in)
	in.e.apply(in.e.Now(), items)
	in.e.journal.mu.Unlock()
	in.e.remove(items)
}

// lapseHere is Lapse in this process only.
func (in *Intent) lapseHere(more []Item) {
	e := in.e
	items := append(in.items[:len(in.items):len(in.items)], more...)
	left := in.deadline - e.Now()
	e.fence(items)
	if list := writtenItems(more); left > 0 && len(list) > 0 {
		e.beginHere(list, time.Duration(left))
	}
	for _, d := range in.early() {
		e.beginHere(writtenItems(items), d)
	}
}

// abandonHere is Abandon in this process only.
func (in *Intent) abandonHere() {
	in.e.journal.mu.Lock()
	defer in.e.journal.mu.Unlock()
	in.e.intents.close(in)
}
