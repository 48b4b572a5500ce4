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

// TakeBack takes back the deadlines of an intent that are of a partition.
func (c *Cache) TakeBack(id string, partition int) {
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
	Doubt int64  // until when it may not have come in the shared tier; 0: it comes at At
	ID    string // of the intent; "": TakeBack does not find it
}

// Announce lists the deadline of an intent of another instance.
func (c *Cache) Announce(of Deadline) {
	d := &deadline{at: of.At, items: of.Items, doubt: of.Doubt, id: of.ID}
	c.lapse(c.Now())
	c.journal.mu.Lock()
	room := c.intents.schedule(d)
	c.journal.mu.Unlock()
	if !room {
		c.Fence([]Item{{Kind: All}})
	}
}

// Lapse invalidates what is due now.
func (c *Cache) Lapse() { c.lapse(c.Now()) }

// lapse invalidates what is due. It costs one comparison where nothing is.
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
		if d.doubt > d.at { // once more, for what has begun to be read since
			c.intents.schedule(&deadline{at: d.doubt, items: d.items, id: d.id})
		}
	}
	c.apply(c.Now(), items)
	c.journal.mu.Unlock()
	c.forget(items)
	c.remove(items)
}

// mayKeep reports whether what a load began with at a time may be stored: everything
// that is due has been applied. The caller holds the journal's lock.
func (t *intents) mayKeep(began, now int64) bool {
	return began >= t.closed && now < t.next.Load()
}

// Intent says that a writer of this process is at work on some keys and tags. One call of
// End, EndWith, Lapse or Abandon ends it; later calls do nothing.
type Intent struct {
	c        *Cache
	items    []Item
	began    int64
	deadline int64
	due      *deadline
	once     sync.Once
	pos      uint64 // of the log, behind the intent's own beginning
}

// Began returns when the intent began, on the cache's clock.
func (in *Intent) Began() int64 { return in.began }

// Begin enters an intent on items, all of them keys or tags, that lasts for at most d: what
// they name is invalidated then, unless the intent has been ended before (R24).
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

// End invalidates the intent's items, and more, and takes the intent out.
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

// Lapse invalidates the intent's items and more, and leaves the intent open until its
// deadline, on those of more too that can have one: the write may still be committed.
// Earlier deadlines are entered besides, see Early.
func (in *Intent) Lapse(more []Item) {
	in.once.Do(func() {
		c := in.c
		items := append(in.items[:len(in.items):len(in.items)], more...)
		left := in.deadline - c.Now()
		c.Fence(items)
		if list := Writable(more); left > 0 && len(list) > 0 {
			c.Begin(list, time.Duration(left))
		}
		for _, d := range Early(in.began, c.Now(), in.deadline) {
			c.Begin(Writable(items), d)
		}
	})
}

// Abandon takes the intent out without invalidating: nothing was written, and what the
// deadline would have taken out stays.
func (in *Intent) Abandon() {
	in.once.Do(func() {
		in.c.journal.mu.Lock()
		defer in.c.journal.mu.Unlock()
		in.c.intents.close(in)
	})
}

// EndWith is End, and stores f under key, which the intent is on, if this writer was the
// only one at work since it began and nobody has invalidated the key or its tags (R25).
func (in *Intent) EndWith(key string, tags []string, f Fill) {
	in.once.Do(func() {
		if l := in.endAlone(key, append(tags[:len(tags):len(tags)], f.Tags...)); l != nil {
			l.Fill(f)
		}
	})
}

// endAlone ends the intent, and returns the load that may store the value, nil if none may.
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

// others reports whether an intent but in is open on any of its items. One that has
// lapsed is in the log. The journal's lock is held.
func (t *intents) others(in *Intent) bool {
	return t.closed >= in.began || slices.ContainsFunc(in.items, func(it Item) bool {
		return slices.ContainsFunc(t.open[it], func(other *Intent) bool { return other != in })
	})
}

// The deadlines that a lapsed intent gets besides its own. Each is earlyFactor times as
// far from the answer as the one before: the first as far as the answer was from the
// beginning, but at least earlyFirst.
const (
	earlyFirst  = 50 * time.Millisecond
	earlyFactor = 4
)

// Early returns the durations from now to the deadlines that a lapsed intent gets besides
// its own. A write that is still at work when it has been answered commits soon as a rule,
// or never, and its intent may last much longer than it. A value that is read between the
// answer and the commit lives for a few times as long as the commit took, and a key is
// loaded only a few times more until the intent is over.
func Early(began, now, deadline int64) (all []time.Duration) {
	left := time.Duration(deadline - now)
	for d := max(time.Duration(now-began), earlyFirst); d < left; d *= earlyFactor {
		all = append(all, d)
	}
	return all
}

// Writable returns the items that an intent can be on.
func Writable(items []Item) (list []Item) {
	for _, it := range items {
		if it.Kind == Key || it.Kind == Tag {
			list = append(list, it)
		}
	}
	return list
}
