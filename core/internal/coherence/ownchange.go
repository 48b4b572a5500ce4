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

// The tier reports a key's queued change to every reader. A reader whose budget runs out
// before the tier answers would load the value from before the change. The instance that
// queued the change can do better: it keeps the change until it hears of an item that
// concerns the key, and answers such readers with it (R27). An own change is answered only
// while its partitions are legal, as an entry is.
//
// The tier appends an item for the key and one for its tag in the step that queues a
// change. A worker invalidates the tag once more, after it has applied a change and before
// it settles the change. P is the instance that put v2, and Q is another. The order of items
// is that of the partition's log.
//
//	P puts v2, the tier does not answer a       The reader gets v2.
//	reader of P
//	Q puts v3 after v2, P hears of it           The item of the key drops v2.
//	Q puts v3 after v2, P has not heard         Readers of P get v2 for up to MaxStaleness.
//	                                            Then the partition is not legal.
//	Q puts v3 after v2, heard before P's reply  The item has arrived early, and v2 is not
//	                                            kept.
//	Q puts v1 before v2, P hears of it later    The item precedes v2, and v2 stays.
//	P's own items are heard, early or twice     Their tokens are known, and v2 stays.
//	a worker claims v1, P puts v2, the worker   The tag is invalidated for v1, and v2 is
//	applies v1 and invalidates the tag          still queued. After the first item of the tag
//	                                            alone v2 stays for the TTL of its class.
//	the worker applies v2, invalidates the tag  The database has v2, so that v2 may stay (the
//	                                            first such item) or be dropped (the second).
//	a writer changes the database after that    The item of the key, or the second item of
//	and invalidates the key or its tag          the tag alone, drops v2.
//	this instance invalidates the key, its      v2 is dropped before the call returns. An
//	tag or another tag                          item of another tag drops it when it is heard.
//	v2 becomes a dead letter                    Key and tag are invalidated: v2 is dropped.
//	v2 is lost in a failover, with the queue    The era ends: v2 is dropped.
//	an intent was open when P began to follow   P does not know it. Its writer may change any tag
//	the partition                               of v2: v2 is dropped at the last deadline.
//	P puts v3, the outcome is unknown           Key and tag are pending: v2 is dropped.
//	P puts v3, which is refused                 Nothing has happened: v2 stays.
//	P puts v3, its items are heard, no reply    v2 is dropped, and v3 is kept with the reply.
//	                                            A reader in between may load.
//	two calls of P overlap                      The greater version is the later change.
//	P puts v3 after the reply for v2, at a      v3 is the later change, although its version
//	master that was promoted meanwhile          may be smaller: the clocks of servers differ.
//
// With a ReplicaLag the worker invalidates the tag when the lag is over. The end of the queue
// (Close) drops nothing, since other instances work on the queue.

// ownChanges are the queued changes that this process has put.
type ownChanges struct {
	count atomic.Int64 // of byItem; a reader takes no lock while it is zero

	mu       sync.Mutex
	byItem   map[tier.Item]map[*ownChange]struct{} // by the items that may drop them
	byKey    map[string]*ownChange                 // those that are kept
	order    list.List                             // those that are kept, the oldest first
	events   int64                                 // calls and replies so far
	bytes    uint64
	maxBytes uint64
}

// ownChange is a change that this process has sent. It is kept from the reply on.
type ownChange struct {
	partition int
	tag       string   // of the key
	tags      []string // of the value, including tag
	record    tier.Queued
	ttl       time.Duration
	weight    uint64
	called    int64 // ownChanges.events at the call

	// Until the reply:
	arrived    []partitionItem // items that were heard of
	superseded bool            // the change must not be kept

	// From the reply on:
	replied    int64         // ownChanges.events at the reply
	element    *list.Element // of ownChanges.order; nil: the change is not kept
	position   tier.Position // of the item of the key
	tokens     [2]string     // of the items of the key and its tag
	until      int64
	tagApplied string // the token of the first item of the tag alone
}

// partitionItem is an item of a partition's log.
type partitionItem struct {
	partition int
	tier.Logged
}

const (
	// ownChangeTime is the longest time for which a change is kept.
	ownChangeTime = time.Hour
	// maxArrived bounds the items that are recorded before the reply.
	maxArrived = 16
	// ownChangeShare is the divisor of the in-process tier's bytes that gives the bound of
	// all own changes.
	ownChangeShare = 8
)

func newOwnChanges(maxBytes uint64) *ownChanges {
	return &ownChanges{
		byItem: make(map[tier.Item]map[*ownChange]struct{}), byKey: make(map[string]*ownChange), maxBytes: maxBytes / ownChangeShare,
	}
}

// register registers changes before they are sent. tags are those of each value, apart from
// its key's.
func (cs *ownChanges) register(q *tier.Enqueue, tags [][]string, ttl time.Duration) []*ownChange {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.events++
	sent := make([]*ownChange, len(q.Changes))
	for i, c := range q.Changes {
		o := &ownChange{
			partition: q.Partition, tag: c.Tag, tags: []string{c.Tag}, ttl: ttl, called: cs.events,
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
		cs.index(o)
	}
	return sent
}

// unregister removes the changes that are not kept.
func (cs *ownChanges) unregister(sent []*ownChange) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for _, o := range sent {
		if o.element == nil {
			cs.unindex(o)
		}
	}
}

// keep keeps a change that is queued, unless an item that has arrived since it was sent
// supersedes it.
func (cs *ownChanges) keep(o *ownChange, reply tier.Enqueued, now int64) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.events++
	o.replied = cs.events
	before := cs.byKey[o.record.Key]
	// Versions order only calls that overlap: those of two servers cannot be compared.
	if before != nil && o.called < before.replied && before.record.Version > reply.Version {
		return
	}
	if before != nil {
		cs.remove(before)
	}
	o.record.Version, o.record.First = reply.Version, reply.Version
	o.position, o.tokens = reply.Logged.Position, [2]string{reply.Logged.Token, reply.Tagged.Token}
	o.until = now + int64(ownChangeTime)
	for _, it := range o.arrived {
		o.superseded = o.superseded || o.supersededBy(it, now)
	}
	o.arrived = nil
	if o.superseded || o.weight > cs.maxBytes {
		return
	}
	o.element = cs.order.PushBack(o)
	cs.byKey[o.record.Key] = o
	cs.bytes += o.weight
	for cs.bytes > cs.maxBytes {
		cs.remove(cs.order.Front().Value.(*ownChange)) //nolint:forcetypeassert // the list has no other type
	}
}

// supersededBy reports whether an item that concerns a change supersedes it. The first item of
// the key's tag alone shortens its life to its TTL instead.
func (o *ownChange) supersededBy(it partitionItem, now int64) bool {
	switch {
	case slices.Contains(o.tokens[:], it.Token):
		return false
	case it.partition != o.partition, it.Kind != tier.Key && (it.Kind != tier.Tag || it.Value != o.tag):
		return true
	case it.Precedes(o.position):
		return false
	case it.Kind == tier.Key:
		return true
	case o.tagApplied == "":
		o.tagApplied, o.until = it.Token, min(o.until, now+int64(o.ttl))
	}
	return o.tagApplied != it.Token
}

// apply drops the changes that an item of a partition's log supersedes.
func (cs *ownChanges) apply(c *local.Cache, p int, it tier.Logged) {
	if cs.count.Load() == 0 {
		return
	}
	now := c.Now()
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for _, o := range cs.concerned(c, it.Item) {
		switch item := (partitionItem{p, it}); {
		case o.element == nil && len(o.arrived) < maxArrived:
			o.arrived = append(o.arrived, item)
		case o.element == nil:
			o.superseded = true
		case o.supersededBy(item, now):
			cs.remove(o)
		}
	}
}

// invalidate drops the changes that items concern.
func (cs *ownChanges) invalidate(c *local.Cache, items []tier.Item) {
	if cs.count.Load() == 0 {
		return
	}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for _, it := range items {
		for _, o := range cs.concerned(c, it) {
			if o.superseded = true; o.element != nil {
				cs.remove(o)
			}
		}
	}
}

// concerned returns the changes that an item concerns. The caller holds mu.
func (cs *ownChanges) concerned(c *local.Cache, it tier.Item) (all []*ownChange) {
	switch it.Kind {
	case tier.Key, tier.Tag:
		for o := range cs.byItem[it] {
			all = append(all, o)
		}
	case tier.Begun, tier.Closed:
	default:
		for by, changes := range cs.byItem {
			for o := range changes {
				if by.Kind == tier.Key && c.Concerns(it, o.record.Key, o.tags) { // each change has one item of a key
					all = append(all, o)
				}
			}
		}
	}
	return all
}

// get returns the change of a key that is kept. The caller must not modify it.
func (cs *ownChanges) get(key string, now int64) (o *ownChange, ok bool) {
	if cs.count.Load() == 0 {
		return nil, false
	}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	o = cs.byKey[key]
	if o != nil && now >= o.until {
		cs.remove(o)
		return nil, false
	}
	return o, o != nil
}

// items returns the items that may drop a change.
func (o *ownChange) items() []tier.Item {
	items := []tier.Item{{Kind: tier.Key, Value: tier.Name(o.record.Key)}}
	for _, tag := range o.tags {
		items = append(items, tier.Item{Kind: tier.Tag, Value: tag})
	}
	return items
}

func (cs *ownChanges) index(o *ownChange) {
	cs.count.Add(1)
	for _, it := range o.items() {
		if cs.byItem[it] == nil {
			cs.byItem[it] = make(map[*ownChange]struct{}, 1)
		}
		cs.byItem[it][o] = struct{}{}
	}
}

func (cs *ownChanges) unindex(o *ownChange) {
	cs.count.Add(-1)
	for _, it := range o.items() {
		if delete(cs.byItem[it], o); len(cs.byItem[it]) == 0 {
			delete(cs.byItem, it)
		}
	}
}

// remove removes a change that is kept.
func (cs *ownChanges) remove(o *ownChange) {
	cs.unindex(o)
	cs.order.Remove(o.element)
	cs.bytes -= o.weight
	delete(cs.byKey, o.record.Key)
}

// ownChange returns the change of a key that this process has queued, while its partitions are
// legal and no pending invalidation concerns it.
func (s *shared) ownChange(key string) *tier.Queued {
	o, ok := s.ownChanges.get(key, s.local.Now())
	if !ok || !s.Legal(s.local.Mask(key, o.tags), s.local.Now()) || s.Blocks(key, o.tags) {
		return nil
	}
	// The items that made the partition legal may have dropped the change.
	if again, _ := s.ownChanges.get(key, s.local.Now()); again != o {
		return nil
	}
	rec := o.record
	rec.Payload = slices.Clone(rec.Payload)
	return &rec
}
