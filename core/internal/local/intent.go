package local

import (
	"container/heap"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/larderhq/larder/core/internal/tier"
)

// An intent is an invalidation that comes at its deadline, unless its writer ends it earlier
// (R24). Its begin invalidates nothing, so that a refused write costs nothing. Let B be the
// begin of a writer, C its commit, and D its deadline:
//
//	B < read < C, the writer ends     The end invalidates the value that was read, stored or
//	                                  not.
//	read < B or B < read < C, and     The deadline invalidates the value that was read. A load
//	the writer dies                   that runs at the deadline finds the item in the log.
//	B < read, the writer abandons     Nothing was written. The value stays.
//	two writers, one abandons         Each writer has its own deadline. The other one's comes
//	                                  all the same.
//	D passes, then the writer ends    The end invalidates as well.
//	the response is sent, and C       The response invalidates the values of before, and D those
//	comes later                       of after. Earlier deadlines, which are scheduled at the
//	                                  response, remove the latter soon after C.
//
// With a shared tier the deadline is the tier's: a generation expires then, and so does the
// entry under a key. Every instance reads of begins and ends in the log, and schedules the
// deadline for its own copies (see coherence/deadlines.go).

// intents are the writers of this process that are at work, and the deadlines of all instances.
// The journal's lock guards them.
type intents struct {
	open   map[Item][]*Intent
	due    deadlines
	byID   map[string][]*deadline
	next   atomic.Int64 // the earliest deadline; MaxInt64 if there is none
	closed int64        // no value of a load that began before this time is stored
	full   *deadline    // at closed, for everything; nil: none
}

// maxDeadlines bounds the list, which with a shared tier has the deadlines of all instances.
// Beyond it this process stores nothing until the latest deadline that is not listed.
// Everything is invalidated at once, and again at that time.
const maxDeadlines = 1 << 16

func newIntents() *intents {
	t := &intents{open: make(map[Item][]*Intent), byID: make(map[string][]*deadline)}
	t.next.Store(math.MaxInt64)
	return t
}

// deadline is a scheduled invalidation.
type deadline struct {
	at    int64
	items []Item
	doubt int64   // the latest time at which the tier's deadline comes: see coherence/deadlines.go
	id    string  // of the intent; "": the deadline cannot be cancelled
	index int     // in the heap; -1: not listed
	of    *Intent // nil: the intent is another instance's
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

// schedule adds a deadline. It returns false if the list is full. The caller then invalidates
// everything. The caller holds the journal's lock.
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

// shut forbids storing until a time, at which everything is invalidated. That deadline is listed
// beyond the bound. The caller holds the journal's lock.
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

// remove removes a deadline. The caller holds the journal's lock.
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

// CancelDeadlines cancels the deadlines of an intent in one partition.
func (c *Cache) CancelDeadlines(id string, partition int) {
	if id == "" {
		return
	}
	n := c.Partitions()
	c.journal.mu.Lock()
	defer c.journal.mu.Unlock()
	for _, d := range slices.Clone(c.intents.byID[id]) {
		if tier.Partition(d.items[0].Value, n) == partition {
			c.intents.remove(d)
		}
	}
}

// Deadline is an invalidation at a time, on the cache's clock.
type Deadline struct {
	At    int64
	Items []Item
	Doubt int64  // the latest time at which it comes in the shared tier; 0: At
	ID    string // of the intent; "": CancelDeadlines does not find it
}

// Schedule schedules the deadline of an intent of another instance.
func (c *Cache) Schedule(of Deadline) {
	d := &deadline{at: of.At, items: of.Items, doubt: of.Doubt, id: of.ID}
	c.lapse(c.Now())
	c.journal.mu.Lock()
	room := c.intents.schedule(d)
	c.journal.mu.Unlock()
	if !room {
		c.Fence([]Item{{Kind: All}})
	}
}

// Lapse applies the deadlines that have passed.
func (c *Cache) Lapse() { c.lapse(c.Now()) }

// lapse applies the deadlines that have passed. It costs one comparison if there is none.
func (c *Cache) lapse(now int64) {
	if now < c.intents.next.Load() {
		return
	}
	var items []Item
	c.journal.mu.Lock()
	for len(c.intents.due) > 0 && c.intents.due[0].at <= now {
		d := c.intents.due[0]
		items = append(items, d.items...)
		if d.doubt > 0 {
			c.guard.Doubt(tier.Partition(d.items[0].Value, c.Partitions()), d.doubt)
		}
		if c.intents.remove(d); d.of != nil {
			c.intents.forget(d.of)
		}
		if d.doubt > d.at { // again, for reads that have begun since
			c.intents.schedule(&deadline{at: d.doubt, items: d.items, id: d.id})
		}
	}
	c.apply(c.Now(), items)
	c.journal.mu.Unlock()
	c.forget(items)
	c.remove(items)
}

// mayKeep reports whether the value of a load that began at a time may be stored: all deadlines
// that have passed have been applied. The caller holds the journal's lock.
func (t *intents) mayKeep(began, now int64) bool {
	return began >= t.closed && now < t.next.Load()
}

// Intent is the announcement of a write of this process to some keys and tags. The first call of
// End, EndWith, Lapse or Abandon ends it; later calls do nothing.
type Intent struct {
	c        *Cache
	items    []Item
	began    int64
	deadline int64
	due      *deadline
	once     sync.Once
	pos      uint64 // of the log, after the intent's own begin
}

// Began returns when the intent began, on the cache's clock.
func (in *Intent) Began() int64 { return in.began }

// Begin opens an intent on items, all of them keys or tags. After d the items are invalidated,
// unless the intent has been ended (R24).
func (c *Cache) Begin(items []Item, d time.Duration) *Intent {
	in := &Intent{c: c, items: items}
	c.Count.Invalidations.Add(int64(len(items)))
	c.lapse(c.Now())
	c.journal.mu.Lock()
	now := c.Now()
	in.deadline = now + int64(d)
	in.due = &deadline{at: in.deadline, items: items, of: in}
	room := c.intents.schedule(in.due)
	for i := range items {
		if room {
			c.intents.open[items[i]] = append(c.intents.open[items[i]], in)
		}
	}
	in.pos, in.began = c.journal.head, now
	c.journal.mu.Unlock()
	if !room {
		c.Fence([]Item{{Kind: All}})
	}
	return in
}

// close removes the intent and its deadline. The caller holds the journal's lock.
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

// End invalidates the items of the intent, and more, and closes the intent.
func (in *Intent) End(more []Item) {
	in.once.Do(func() {
		items := append(in.items[:len(in.items):len(in.items)], more...)
		in.c.journal.mu.Lock()
		in.c.intents.close(in)
		in.c.apply(in.c.Now(), items)
		in.c.journal.mu.Unlock()
		in.c.remove(items)
	})
}

// Lapse invalidates the items of the intent, and more. It leaves the intent open until its
// deadline, since the write may still be committed, and extends it to the keys and tags of
// more. It also schedules earlier deadlines (EarlierDeadlines).
func (in *Intent) Lapse(more []Item) {
	in.once.Do(func() {
		c := in.c
		items := append(in.items[:len(in.items):len(in.items)], more...)
		left := in.deadline - c.Now()
		c.Fence(items)
		if list := KeysAndTags(more); left > 0 && len(list) > 0 {
			c.Begin(list, time.Duration(left))
		}
		for _, d := range EarlierDeadlines(in.began, c.Now(), in.deadline) {
			c.Begin(KeysAndTags(items), d)
		}
	})
}

// Abandon closes the intent and invalidates nothing: nothing was written.
func (in *Intent) Abandon() {
	in.once.Do(func() {
		in.c.journal.mu.Lock()
		defer in.c.journal.mu.Unlock()
		in.c.intents.close(in)
	})
}

// EndWith is End, and stores f under key, one of the items of the intent, if no other writer
// has been at work since the begin, and the key and its tags have not been invalidated (R25).
func (in *Intent) EndWith(key string, tags []string, f Fill) {
	in.once.Do(func() {
		if l := in.endAlone(key, append(tags[:len(tags):len(tags)], f.Tags...)); l != nil {
			l.Fill(f)
		}
	})
}

// endAlone ends the intent, and returns the load that may store the value. nil: the value must
// not be stored.
func (in *Intent) endAlone(key string, tags []string) *Load {
	c := in.c
	c.journal.mu.Lock()
	now := c.Now()
	alone := in.due.index >= 0 && now < in.deadline && c.concern(in.pos, key, tags) == 0 && !c.intents.others(in)
	c.intents.close(in)
	c.apply(now, in.items)
	pos := c.journal.head
	c.journal.mu.Unlock()
	c.remove(in.items)
	if !alone || c.closed.Load() {
		return nil
	}
	l := c.NewLoad(key, tags[:len(tags):len(tags)])
	l.pos, l.began = pos, in.began
	return l
}

// others reports whether another intent is open on any item of in. An intent that has lapsed is
// in the log. The caller holds the journal's lock.
func (t *intents) others(in *Intent) bool {
	return t.closed >= in.began || slices.ContainsFunc(in.items, func(it Item) bool {
		return slices.ContainsFunc(t.open[it], func(other *Intent) bool { return other != in })
	})
}

// A lapsed intent gets deadlines before its own. The first one comes after the time between
// begin and response, but at least earlyFirst after the response. Each later one is
// earlyFactor times as far from the response as its predecessor.
const (
	earlyFirst  = 50 * time.Millisecond
	earlyFactor = 4
)

// EarlierDeadlines returns the durations from now to the deadlines that a lapsed intent gets
// before its own. A write that still runs after its response usually commits soon, or never,
// and its own deadline may be much later. With earlier deadlines, a value that is read between
// response and commit lives for a few times the duration of the commit, and a key is loaded
// only a few more times before the intent ends.
func EarlierDeadlines(began, now, deadline int64) (all []time.Duration) {
	left := time.Duration(deadline - now)
	for d := max(time.Duration(now-began), earlyFirst); d < left; d *= earlyFactor {
		all = append(all, d)
	}
	return all
}

// KeysAndTags returns the items that are keys or tags, on which an intent can be opened.
func KeysAndTags(items []Item) (list []Item) {
	for _, it := range items {
		if it.Kind == Key || it.Kind == Tag {
			list = append(list, it)
		}
	}
	return list
}
