package coherence

import (
	"container/list"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/larderhq/larder/core/internal/local"
	"github.com/larderhq/larder/core/internal/tier"
)

// The tier tells every reader what is queued for a key. A reader whom it does not answer,
// for its budget is spent, would load what the database had before the change. The process
// that queued the change knows better: it keeps the change until something that concerns
// the key is heard of, and answers it where the tier has not answered (R27). Like an entry,
// it is answered only while its partitions are legal.
//
// The tier appends an item for the key and one for its tag in the step that queues a
// change. A worker invalidates the tag once more, after it has applied a change and before
// it settles it. P is the process that put v2, and "after" is by the order of the
// partition's log:
//
//	P puts v2, a reader of P is not answered    it is answered v2
//	Q puts v3 after v2, P hears of it           the item of the key drops v2
//	Q puts v3 after v2, P has not heard         v2, for MaxStaleness at most: then the
//	                                            partition is not legal
//	Q puts v3 after v2, heard before P's reply  it is noted, and v2 is not kept
//	Q puts v1 before v2, P hears of it later    it is before v2: v2 stays
//	P's own items are heard, early or twice     known by their tokens: v2 stays
//	a worker claims v1, P puts v2, the worker   the tag is invalidated for v1, and v2 is
//	applies v1 and invalidates the tag          queued yet: the first item of the tag alone
//	                                            leaves v2, for the TTL of its class
//	the worker applies v2, invalidates the tag  the database has v2: v2 may stay (where it is
//	                                            the first such item) or go (the second)
//	somebody writes to the database after that  the item of the key, or the second of the tag,
//	and invalidates the key or its tag          drops v2
//	this process invalidates it, or a tag       v2 is dropped before the call returns; so it is
//	                                            when an item of another of its tags is heard
//	v2 becomes a dead letter                    key and tag are invalidated: v2 is dropped
//	v2 is lost in a failover, with the queue    the era ends: v2 is dropped
//	P puts v3, nobody knows what became of it   key and tag are pending: v2 is dropped
//	P puts v3, which is refused                 nothing has happened: v2 stays
//	P puts v3, its items are heard, no reply    v2 is dropped, v3 is kept with the reply: a
//	                                            reader in between may load
//	two calls of P's are under way at a time    the version says which is later
//
// With a ReplicaLag the worker invalidates the tag when the lag is over. Close of the queue
// leaves what is kept: other instances go on with the queue.
type owns struct {
	count atomic.Int64 // so that nobody locks for nothing

	mu     sync.Mutex
	on     map[tier.Item]map[*own]struct{} // by what drops them
	latest map[string]*own                 // those that are kept, by key
	order  list.List                       // the same, the longest kept first
	bytes  uint64
	most   uint64
}

// own is a change of this process's, on its way to the tier or known to be queued.
type own struct {
	partition int
	tag       string   // of the key
	tags      []string // all that it is read under, that one included
	record    tier.Queued
	ttl       time.Duration
	weight    uint64

	// On its way:
	noted   []heard
	spoiled bool

	// Kept:
	at       *list.Element
	position tier.Position // of its first item
	tokens   [2]string     // of both
	until    int64
	applied  string // the token of the first item of the tag alone
}

// heard is an item of a partition's log.
type heard struct {
	partition int
	tier.Logged
}

const (
	// ownLasts is for how long a change is kept that nothing is heard of.
	ownLasts = time.Hour
	// maxNoted is how many items are noted while a change is on its way.
	maxNoted = 16
	// ownShare is the part of the in-process tier's bytes that may be kept besides.
	ownShare = 8
)

func newOwns(maxBytes uint64) *owns {
	return &owns{on: make(map[tier.Item]map[*own]struct{}), latest: make(map[string]*own), most: maxBytes / ownShare}
}

// begin registers changes before they are sent. tags are those of each, beside its key's.
func (w *owns) begin(q *tier.Enqueue, tags [][]string, ttl time.Duration) []*own {
	w.mu.Lock()
	defer w.mu.Unlock()
	sent := make([]*own, len(q.Changes))
	for i, c := range q.Changes {
		o := &own{
			partition: q.Partition, tag: c.Tag, tags: []string{c.Tag}, ttl: ttl,
			record: tier.Queued{Key: c.Key, Payload: c.Payload},
		}
		if i < len(tags) {
			o.tags = append(o.tags, tags[i]...)
		}
		o.weight = uint64(local.Weigh(c.Key, len(c.Payload), 2*len(o.tags))) + local.Overhead
		for _, tag := range o.tags {
			o.weight += uint64(len(tag))
		}
		sent[i] = o
		w.index(o)
	}
	return sent
}

// end lets go of changes that are not known to be queued.
func (w *owns) end(sent []*own) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, o := range sent {
		if o.at == nil {
			w.unindex(o)
		}
	}
}

// keep keeps a change that is queued, unless something that was heard of since it was
// sent comes after it.
func (w *owns) keep(o *own, done tier.Enqueued, now int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	before := w.latest[o.record.Key]
	if before != nil && before.record.Version > done.Version {
		return
	}
	if before != nil {
		w.remove(before)
	}
	o.record.Version, o.record.First = done.Version, done.Version
	o.position, o.tokens = done.Logged.Position, [2]string{done.Logged.Token, done.Tagged.Token}
	o.until = now + int64(ownLasts)
	for _, it := range o.noted {
		o.spoiled = o.spoiled || w.over(o, it, now)
	}
	o.noted = nil
	if o.spoiled || o.weight > w.most {
		return
	}
	o.at = w.order.PushBack(o)
	w.latest[o.record.Key] = o
	w.bytes += o.weight
	for w.bytes > w.most {
		w.remove(w.order.Front().Value.(*own)) //nolint:forcetypeassert // nothing else is in it
	}
}

// over reports whether an item of a log says that a change no longer holds.
func (w *owns) over(o *own, it heard, now int64) bool {
	switch {
	case slices.Contains(o.tokens[:], it.Token):
		return false
	case it.partition != o.partition, it.Kind != tier.Key && (it.Kind != tier.Tag || it.Value != o.tag):
		return true
	case it.Precedes(o.position):
		return false
	case it.Kind == tier.Key:
		return true
	case o.applied == "":
		o.applied, o.until = it.Token, min(o.until, now+int64(o.ttl))
	}
	return o.applied != it.Token
}

// hear is told of an item of a partition's log.
func (w *owns) hear(c *local.Cache, p int, it tier.Logged) {
	if w.count.Load() == 0 {
		return
	}
	now := c.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, o := range w.concerned(c, it.Item) {
		switch h := (heard{p, it}); {
		case o.at == nil && len(o.noted) < maxNoted:
			o.noted = append(o.noted, h)
		case o.at == nil:
			o.spoiled = true
		case w.over(o, h, now):
			w.remove(o)
		}
	}
}

// drop lets go of what items concern.
func (w *owns) drop(c *local.Cache, items []tier.Item) {
	if w.count.Load() == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, it := range items {
		for _, o := range w.concerned(c, it) {
			if o.spoiled = true; o.at != nil {
				w.remove(o)
			}
		}
	}
}

// concerned returns those that an item concerns. The caller holds w.mu.
func (w *owns) concerned(c *local.Cache, it tier.Item) (all []*own) {
	switch it.Kind {
	case tier.Key, tier.Tag:
		for o := range w.on[it] {
			all = append(all, o)
		}
	case tier.Begun, tier.Closed:
	default:
		for by, on := range w.on {
			for o := range on {
				if by.Kind == tier.Key && c.Concerns(it, o.record.Key, o.tags) { // each has one of a key
					all = append(all, o)
				}
			}
		}
	}
	return all
}

// get returns the change of a key that is kept. The payload is the caller's.
func (w *owns) get(key string, now int64) (o *own, ok bool) {
	if w.count.Load() == 0 {
		return nil, false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	o = w.latest[key]
	if o != nil && now >= o.until {
		w.remove(o)
		return nil, false
	}
	return o, o != nil
}

func (o *own) items() []tier.Item {
	list := []tier.Item{{Kind: tier.Key, Value: tier.Name(o.record.Key)}}
	for _, tag := range o.tags {
		list = append(list, tier.Item{Kind: tier.Tag, Value: tag})
	}
	return list
}

func (w *owns) index(o *own) {
	w.count.Add(1)
	for _, it := range o.items() {
		if w.on[it] == nil {
			w.on[it] = make(map[*own]struct{}, 1)
		}
		w.on[it][o] = struct{}{}
	}
}

func (w *owns) unindex(o *own) {
	w.count.Add(-1)
	for _, it := range o.items() {
		if delete(w.on[it], o); len(w.on[it]) == 0 {
			delete(w.on, it)
		}
	}
}

// remove lets go of one that is kept.
func (w *owns) remove(o *own) {
	w.unindex(o)
	w.order.Remove(o.at)
	w.bytes -= o.weight
	delete(w.latest, o.record.Key)
}

// ownChange returns the change of a key that this process has queued, while what it knows
// of the key is legal.
func (s *shared) ownChange(key string) *tier.Queued {
	o, ok := s.owns.get(key, s.local.Now())
	if !ok || !s.Legal(s.local.Mask(key, o.tags), s.local.Now()) || s.Blocks(key, o.tags) {
		return nil
	}
	// The proof that made the partition legal may have dropped the change.
	if again, _ := s.owns.get(key, s.local.Now()); again != o {
		return nil
	}
	rec := o.record
	rec.Payload = slices.Clone(rec.Payload)
	return &rec
}
