package local

import (
	"fmt"
	"math/bits"
	"strings"
	"sync/atomic"
	"time"

	"github.com/larderhq/larder/core/internal/hotkeys"
	"github.com/larderhq/larder/core/internal/tier"
)

// Settings configure a cache. All fields except Guard are required.
type Settings struct {
	MaxBytes  uint64 // of the in-process tier
	Refreshes int    // the limit of concurrent background refreshes
	Guard     Guard  // nil: no tier is shared
}

// Guard answers the questions that the cache has about a shared tier. The cache calls a guard
// with locks held. A guard takes no lock of the cache, except in Forget.
type Guard interface {
	// CheckClocks compares the wall clock with the monotonic clock (R22).
	CheckClocks(monotonic int64)
	// Legal reports whether entries of these partitions may be answered now (R4).
	Legal(partitions uint64, now int64) bool
	// Doubtful reports whether an intent that is not known here may cover an entry of these
	// partitions (R24).
	Doubtful(partitions uint64, now int64) bool
	// Doubt makes a partition doubtful until a time.
	Doubt(partition int, until int64)
	// Blocks reports whether a pending invalidation concerns an entry (R16).
	Blocks(key string, tags []string) bool
	// OldestShared returns the time since which a load must have begun, and every load whose
	// value it contains, for its value to be given to a request that comes now (R7). 0 means
	// any time.
	OldestShared(now int64) int64
	// Forget drops the queued changes that items concern (R27).
	Forget(items []Item)
}

// Cache is the cache of one process.
type Cache struct {
	tier        *memory
	journal     *journal
	sweeps      sweeps
	generations *generations
	eras        [tier.MaxPartitions]atomic.Pointer[Generation]
	parts       atomic.Int32 // partitions; 1 without a shared tier
	intents     *intents
	flights     *flights
	guard       Guard // nil: no tier is shared
	maxBytes    uint64
	base        time.Time
	ownTags     atomic.Int64 // entries that carry the tag of their own key without a generation

	background
	reaper reaper

	Count Counters
	// Pages counts the hits of each response. nil: hits are not counted.
	Pages atomic.Pointer[hotkeys.Sketch[string]]
}

// Counters count events since the cache was created.
type Counters struct {
	Hits, StaleHits, Misses   atomic.Int64
	Loads, LoadErrors, Panics atomic.Int64
	Coalesced                 atomic.Int64
	Stored, Refused           atomic.Int64
	Bypassed                  atomic.Int64
	Refreshes                 atomic.Int64
	RefreshesSkipped          atomic.Int64
	Invalidations             atomic.Int64
	Evicted                   atomic.Int64
	Undecodable               atomic.Int64
	Unencodable               atomic.Int64
}

// New returns a cache.
func New(s Settings) (*Cache, error) {
	c := &Cache{
		journal:     newJournal(),
		generations: newGenerations(),
		flights:     newFlights(),
		intents:     newIntents(),
		guard:       s.Guard,
		maxBytes:    s.MaxBytes,
		base:        time.Now(),
	}
	for p := range c.eras {
		c.eras[p].Store(new(Generation))
	}
	c.parts.Store(1)
	c.generations.ended = func() { c.reaper.wanted(c) }
	t, err := newMemory(s.MaxBytes, c.Now, c.deleted)
	if err != nil {
		return nil, fmt.Errorf("larder: in-process tier: %w", err)
	}
	c.tier = t
	c.start(s.Refreshes)
	return c, nil
}

// deleted records that an entry has left the tier. The caller holds a lock of the tier.
func (c *Cache) deleted(en *Entry, evicted bool) {
	en.set(removed)
	if en.is(ownTag) {
		c.ownTags.Add(-1)
	}
	if evicted {
		c.Count.Evicted.Add(1)
	}
}

// Now returns the time of the cache: nanoseconds since its creation, by the monotonic clock,
// beginning above zero.
func (c *Cache) Now() int64 {
	now := c.Monotonic()
	if c.guard != nil {
		c.guard.CheckClocks(now)
	}
	return now
}

// Monotonic is Now without the comparison with the wall clock.
func (c *Cache) Monotonic() int64 { return int64(time.Since(c.base)) + 1 }

// Lookup returns the entry under key, if it may be answered now. It counts nothing, since only
// the caller knows whether a lookup is a hit or a miss.
func (c *Cache) Lookup(key string) (*Entry, State) { return c.LookupAt(key, c.Now()) }

// LookupAt is Lookup for a caller that has read the clock. It does not retain key, which may be
// a view of a reused buffer. It does not ask the guard.
func (c *Cache) LookupAt(key string, now int64) (*Entry, State) {
	c.lapse(now)
	en, ok := c.tier.get(key)
	if !ok {
		return nil, Gone
	}
	if state := c.StateOf(key, en, now); state != Gone {
		return en, state
	}
	c.tier.dropEntry(strings.Clone(key), en)
	return nil, Gone
}

// StateOf returns the state of an entry that was found under a key: Gone if it has left the tier,
// or if a pattern matches it.
func (c *Cache) StateOf(key string, en *Entry, now int64) State {
	if en.is(removed) || en.compared.Load() < c.sweeps.head.Load() && c.swept(key, en) {
		return Gone
	}
	return en.State(now)
}

// Put stores an entry that no invalidation concerns, such as an index or a mark. A wrong one
// costs a miss. Put does not replace a lasting value, and returns false in that case.
func (c *Cache) Put(key string, value any, size int, d time.Duration) bool {
	now := c.Now()
	en := &Entry{Value: value, Born: now, FreshUntil: now + int64(d), StaleUntil: now + int64(d), KeepUntil: now + int64(d),
		weight: Weigh(key, size, 0)}
	en.depend(c.eraGenerations(nil, c.Mask(key, nil)), 0, "")
	c.journal.mu.RLock()
	defer c.journal.mu.RUnlock()
	return !c.closed.Load() && c.putUnless(key, en)
}

// PutNote stores a note of another instance, of size bytes.
func (c *Cache) PutNote(key string, en *Entry, size int) {
	en.weight = Weigh(key, size, 0)
	if value, ok := en.Value.(Lasting); ok {
		c.Join(key, value, en.KeepUntil)
		return
	}
	c.journal.mu.RLock()
	defer c.journal.mu.RUnlock()
	if !c.closed.Load() && en.KeepUntil > c.Now() {
		c.putUnless(key, en)
	}
}

// Drop removes an entry from the tier. It is not an invalidation: running loads continue and
// may store their values.
func (c *Cache) Drop(key string) { c.tier.drop(key) }

// DropEntry removes en from the tier, unless another entry has replaced it.
func (c *Cache) DropEntry(key string, en *Entry) { c.tier.dropEntry(key, en) }

// Fence invalidates items in this process. Every answer that begins after Fence has returned
// comes from a load that began after the call of Fence.
func (c *Cache) Fence(items []Item) {
	c.forget(items)
	c.FenceLoads(items)
}

// FenceLoads is Fence, except that it keeps the changes that this process has queued.
func (c *Cache) FenceLoads(items []Item) {
	c.journal.mu.Lock()
	c.apply(c.Now(), items)
	c.journal.mu.Unlock()
	c.remove(items)
}

// FenceAndLoad invalidates items in this process and registers the load of key that
// follows, in one step: of two concurrent calls the later one fences the earlier one.
func (c *Cache) FenceAndLoad(items []Item, key string, tags []string) *Load {
	c.forget(items)
	c.journal.mu.Lock()
	c.apply(c.Now(), items)
	pos := c.journal.head
	c.journal.mu.Unlock()
	c.remove(items)
	l := c.NewLoad(key, tags)
	l.pos = pos
	return l
}

// forget drops the queued changes that items concern.
func (c *Cache) forget(items []Item) {
	if c.guard != nil {
		c.guard.Forget(items)
	}
}

// apply appends items to the log, and kills the generations that they invalidate, in O(1) for
// each item. The caller holds the journal's lock.
func (c *Cache) apply(now int64, items []Item) {
	if c.guard == nil { // otherwise the call that sends them to the shared tier counts them
		c.Count.Invalidations.Add(int64(len(items)))
	}
	head := c.journal.head
	c.journal.append(now, items)
	for i, it := range items {
		switch it.Kind {
		case Pattern:
			c.sweeps.add(head+uint64(i), it.Value, now)
			c.reaper.wanted(c)
		case Tag:
			c.generations.kill(it.Value)
			c.dropOwn(it.Value)
		case All:
			for p := range c.Partitions() {
				c.endEra(p)
			}
		case tier.Era:
			if p := eraOf(it); p >= 0 {
				c.endEra(p)
				c.reaper.wanted(c)
			}
		}
	}
}

// dropOwn removes from the tier the entry whose own key a tag names, if the entry holds no
// generation of the tag (see ownTag). The caller holds the journal's lock, so that no lookup
// after the append of the item finds the entry. An insert that comes later sees the item, and
// is refused.
func (c *Cache) dropOwn(tag string) {
	if key, ok := strings.CutPrefix(tag, tier.TagPrefix); ok && c.guard == nil {
		c.tier.dropIf(key, func(en *Entry) bool { return en.is(ownTag) })
	}
}

func (c *Cache) endEra(p int) { c.eras[p].Swap(new(Generation)).dead.Store(true) }

// Partitions returns the number of partitions, 1 without a shared tier.
func (c *Cache) Partitions() int { return int(c.parts.Load()) }

// SetPartitions changes the number of partitions. The caller invalidates everything afterwards.
func (c *Cache) SetPartitions(n int) { c.parts.Store(int32(n)) }

// Mask returns the partitions that an entry depends on: those of its key and its tags.
func (c *Cache) Mask(key string, tags []string) uint64 {
	n := c.Partitions()
	if n == 1 {
		return 1
	}
	m := uint64(1) << tier.Partition(Name(key), n)
	for _, tag := range tags {
		m |= 1 << tier.Partition(tag, n)
	}
	return m
}

func (c *Cache) eraGenerations(to []*Generation, mask uint64) []*Generation {
	for ; mask != 0; mask &= mask - 1 {
		to = append(to, c.eras[bits.TrailingZeros64(mask)].Load())
	}
	return to
}

// remove removes from the tier the entries that no generation invalidates. It follows apply: an
// insert that it misses has seen the item and is refused.
func (c *Cache) remove(items []Item) {
	for _, it := range items {
		if key, payload, ok := learntOf(it); ok {
			c.applyLearnt(key, payload)
			continue
		}
		switch it.Kind {
		case Key:
			c.tier.drop(it.Value)
		case All:
			c.tier.clear()
		}
	}
}

// Size returns the approximate numbers of entries and of bytes in the in-process tier.
func (c *Cache) Size() (entries int, bytes uint64) {
	return c.tier.cache.EstimatedSize(), c.tier.cache.WeightedSize()
}

// Tags returns the approximate number of tags that entries carry.
func (c *Cache) Tags() int { return c.generations.count() + int(max(0, c.ownTags.Load())) }
