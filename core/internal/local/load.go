package local

import (
	"math/bits"
	"slices"
	"time"
	"unsafe"

	"github.com/larderhq/larder/core/internal/tier"
)

// Load is one run of a loader or handler, from its registration before the begin to the fill of
// its value. It holds the generations that were valid at its begin.
type Load struct {
	c           *Cache
	key         string
	tags        []string
	pos         uint64 // position of the log before the load began
	began       int64
	generations []*Generation // the eras, then one per tag except the key's own
	made        *Entry        // the entry of its value
	memory      int           // of the generations that it has created, in bytes
}

// NewLoad registers a load of key, before it begins. tags are the tags that are known before
// the load. Fill can add tags.
func (c *Cache) NewLoad(key string, tags []string) *Load {
	c.lapse(c.Now())
	l := &Load{c: c, key: key, tags: tags, pos: c.journal.position(), began: c.Now()}
	mask := c.Mask(key, tags)
	l.generations = make([]*Generation, 0, bits.OnesCount64(mask)+len(tags))
	l.generations = c.eraGenerations(l.generations, mask)
	for _, tag := range tags {
		if !c.ownTag(key, tag) {
			l.generations = c.under(l.generations, tag, &l.memory)
		}
	}
	return l
}

// under appends the generation of a tag. It adds the size of a new generation to memory.
func (c *Cache) under(generations []*Generation, tag string, memory *int) []*Generation {
	g, made := c.generations.get(tag)
	if made {
		*memory += generationBytes + 2*blockOf(len(tag))
	}
	return append(generations, g)
}

// ownTag reports whether an entry under key carries a tag without holding its generation: the
// tag is that of the key itself, so that its invalidation finds the entry. With a shared tier a
// generation also mirrors the tier's, and is held.
func (c *Cache) ownTag(key, tag string) bool {
	return c.guard == nil && len(tag) == len(tier.TagPrefix)+len(key) && tag[len(tier.TagPrefix):] == key && tag[:len(tier.TagPrefix)] == tier.TagPrefix
}

// Began returns when the load began, on the engine's clock.
func (l *Load) Began() int64 { return l.began }

// Key returns the key that the load was registered for.
func (l *Load) Key() string { return l.key }

// Tags returns the tags that the load was registered with.
func (l *Load) Tags() []string { return l.tags }

// Position returns the position of the log before the load began.
func (l *Load) Position() uint64 { return l.pos }

// Made records the entry of the load's value.
func (l *Load) Made(en *Entry) { l.made = en }

// From sets the position of the load to an earlier one of the log.
func (l *Load) From(pos uint64) *Load {
	l.pos = pos
	return l
}

// Renew registers the load again at its begin, so that an earlier invalidation does not
// concern it. It keeps the entry of the load.
func (l *Load) Renew() *Load {
	next := l.c.NewLoad(l.key, l.tags)
	next.made = l.made
	return next
}

// Refusal is the reason for which a value was not stored.
type Refusal string

// The reasons not to store.
const (
	Stored     Refusal = ""
	Fenced     Refusal = "invalidated"     // an invalidation concerns the load
	Lapsed     Refusal = "writer-lapsed"   // the deadline of a writer has passed during the load
	Lagging    Refusal = "replica-lag"     // the load began within the replica lag of an invalidation
	NoLifetime Refusal = "no-lifetime"     // the lifetime is 0
	TooLarge   Refusal = "too-large"       // larger than the in-process tier
	NotOpen    Refusal = "cache-is-closed" // closed during the load
	NoLease    Refusal = "no-lease"        // the shared tier was not asked before the load
	Lost       Refusal = "lease-lost"      // an invalidation in the shared tier, or an expired lease
	Unknown    Refusal = "remote-unknown"  // the shared tier did not confirm the dependencies
	Written    Refusal = "being-written"   // a writer is at work: stored in the shared tier only, until its deadline
	Blocked    Refusal = "pending"         // an invalidation that concerns the entry has not reached the shared tier
	Unwanted   Refusal = "no-store"        // the request forbids it
	Replaced   Refusal = "varies"          // the fields on which the response varies have become known during the load
	Deferred   Refusal = "storing"         // the fill continues behind the response: Fill.Then gets its result
)

// Fill is a value to be stored.
type Fill struct {
	Key        string // the key under which it is stored; "": the load's
	Value      any
	Size       int // of the value, in bytes
	Memory     int // of Value, in bytes; 0: Size
	Lifetime   Lifetime
	Tags       []string      // in addition to the registered ones
	ReplicaLag time.Duration // a value that was loaded within it after an invalidation is refused
	Codec      Codec         // of the value, for the shared tier
	// Refuse is a reason for which the value is not stored. Its entry is for waiting requests.
	Refuse Refusal
	// Older reports whether Value is older than that of an entry. nil: unknown.
	Older func(than *Entry) bool
	// Then is called with the result of a Deferred fill. nil: no call.
	Then func(Refusal)
}

// Fill makes an entry of f and stores it, unless an event since the begin of the load forbids
// it. Fill returns the entry in either case, since the load's caller, and the requests that
// have joined the load, may be answered from it.
func (l *Load) Fill(f Fill) (*Entry, Refusal) {
	en, refusal := l.FillAs(f, "", f.Refuse)
	l.made = en
	return en, refusal
}

// FillAs is Fill for a value that has been offered to a shared tier. id is that of the entry in
// the tier. refused is the reason for which this process must not store it; Stored allows it.
// With Written the entry is in the tier only, and counts as stored. FillAs may run concurrently
// with other methods of the load, and leaves it to the caller to record the entry (Made).
func (l *Load) FillAs(f Fill, id string, refused Refusal) (*Entry, Refusal) {
	en, tags := l.build(f, id)
	if refused == Stored {
		refused = l.insert(l.place(f), tags, en, f.ReplicaLag)
	}
	switch refused {
	case Stored, Written:
		l.c.Count.Stored.Add(1)
		return en, Stored
	case Unwanted:
	default:
		l.c.Count.Refused.Add(1)
	}
	return en, refused
}

// Make makes an entry of f that another instance stores under id.
func (l *Load) Make(f Fill, id string) *Entry {
	l.made, _ = l.build(f, id)
	return l.made
}

// WouldRefuse returns the reason for which Fill would refuse f now, as far as this process
// knows.
func (l *Load) WouldRefuse(f Fill) Refusal {
	en, tags := l.build(f, "")
	l.c.journal.mu.RLock()
	defer l.c.journal.mu.RUnlock()
	return l.refusal(l.place(f), tags, en, f.ReplicaLag)
}

// Adopt stores an entry of size bytes that was read from a shared tier after the registration
// of the load, under the same fence as the value of a load. The load was registered with the
// tags of the entry. Adopt returns Written for an entry that may be answered but not stored
// in this process.
func (l *Load) Adopt(en *Entry, size int, provisional bool) Refusal {
	c := l.c
	mask := c.Mask(l.key, l.tags)
	en.depend(l.generations, mask, en.ID())
	en.weight = weigh(l.key, size, l.memory, en)
	provisional = provisional || c.guard.Doubtful(mask, c.Now())
	c.lapse(c.Now())
	c.journal.mu.RLock()
	defer c.journal.mu.RUnlock()
	now := c.Now()
	switch {
	case c.closed.Load():
		return NotOpen
	case c.guard.Blocks(l.key, l.tags):
		return Blocked
	case c.concern(l.pos, l.key, l.tags) != 0:
		return Fenced
	case !c.guard.Legal(mask, now), !c.intents.mayKeep(l.began, now):
		return Fenced
	case provisional:
		return Written
	case uint64(en.weight) > c.maxBytes:
		return TooLarge
	case en.KeepUntil > now && !c.putUnless(l.key, en):
		return Written
	}
	return Stored
}

// build makes an entry of f, and returns the tags that it carries.
func (l *Load) build(f Fill, id string) (en *Entry, tags []string) {
	c := l.c
	key := l.place(f)
	memory := l.memory
	generations, tags, mask := l.late(key, f.Tags, &memory)
	if f.Memory == 0 {
		f.Memory = f.Size
	}
	now := c.Now()
	since := f.Lifetime.Since
	if since == 0 {
		since = now
	}
	en = &Entry{
		Value:      f.Value,
		Born:       l.began,
		FreshUntil: since + int64(f.Lifetime.Fresh),
		LoadTime:   now - l.began,
	}
	if c.guard == nil {
		mask = 0
	}
	en.depend(generations, mask, id)
	if slices.ContainsFunc(tags, func(tag string) bool { return c.ownTag(key, tag) }) {
		en.set(ownTag)
	}
	en.weight = weigh(key, f.Memory, memory, en)
	en.StaleUntil = en.FreshUntil + int64(f.Lifetime.Stale)
	en.KeepUntil = en.FreshUntil + int64(max(f.Lifetime.Stale, f.Lifetime.Fallback))
	return en, tags
}

// late returns the dependencies of an entry under key with tags that were named during the load.
func (l *Load) late(key string, named []string, memory *int) (generations []*Generation, tags []string, mask uint64) {
	c := l.c
	generations, tags, mask = l.generations, l.tags, c.Mask(key, l.tags)
	if len(named) == 0 && key == l.key {
		return generations, tags, mask
	}
	// The generation is read before the log, so that an invalidation between the two is found
	// in the log. The same holds for eras, and for a tag that was only that of its own key.
	generations, tags = slices.Clone(generations), slices.Clone(tags)
	for _, tag := range l.tags {
		if c.ownTag(l.key, tag) && key != l.key {
			generations = c.under(generations, tag, memory)
		}
	}
	for _, tag := range named {
		if slices.Contains(tags, tag) {
			continue
		}
		if tags = append(tags, tag); !c.ownTag(key, tag) {
			generations = c.under(generations, tag, memory)
		}
	}
	missing := c.Mask(key, tags) &^ mask
	return c.eraGenerations(generations, missing), tags, mask | missing
}

// weigh returns the number of bytes of an entry with its details, a value of size bytes, and
// generations of a number of bytes that were created for it.
func weigh(key string, size, generations int, en *Entry) uint32 {
	if en.more != nil {
		generations += int(unsafe.Sizeof(*en.more)) + blockOf(len(en.more.id)) + 8*cap(en.more.generations)
	}
	return Weigh(key, size, generations/8)
}

// place returns the key under which f is stored.
func (l *Load) place(f Fill) string {
	if f.Key != "" {
		return f.Key
	}
	return l.key
}

func (l *Load) insert(key string, tags []string, en *Entry, lag time.Duration) Refusal {
	c := l.c
	c.lapse(c.Now())
	c.journal.mu.RLock()
	defer c.journal.mu.RUnlock()
	refusal := l.refusal(key, tags, en, lag)
	// An entry in doubt is stored in the tier only.
	if refusal == Stored && (c.guard == nil || !c.guard.Doubtful(en.Partitions(), c.Now())) && !c.putUnless(key, en) {
		return Replaced
	}
	return refusal
}

// refusal returns the reason for which an entry must not be stored. The caller holds the
// journal's lock.
func (l *Load) refusal(key string, tags []string, en *Entry, lag time.Duration) Refusal {
	c := l.c
	if uint64(en.weight) > c.maxBytes {
		return TooLarge
	}
	if c.closed.Load() {
		return NotOpen
	}
	if c.guard != nil && c.guard.Blocks(key, tags) {
		return Blocked
	}
	if c.concern(l.pos, key, tags) != 0 {
		return Fenced
	}
	if lag > 0 && c.concern(c.journal.since(l.began-int64(lag)), key, tags) != 0 {
		return Lagging
	}
	now := c.Now()
	if !c.intents.mayKeep(l.began, now) {
		return Lapsed
	}
	if en.KeepUntil <= now {
		return NoLifetime
	}
	return Stored
}

// Unstored returns an entry that is not stored, for a value that its load shares only with
// waiting requests.
func Unstored(value any) *Entry {
	en := &Entry{Value: value}
	en.set(unstored)
	return en
}
