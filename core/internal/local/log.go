package local

import (
	"slices"
	"sort"
	"strconv"
	"sync"

	"github.com/larderhq/larder/core/internal/glob"
	"github.com/larderhq/larder/core/internal/tier"
)

// Item is one invalidation, and Kind what it names. They are the shared tier's.
type (
	Item = tier.Item
	Kind = tier.Kind
)

// The kinds of item.
const (
	Key     = tier.Key
	Tag     = tier.Tag
	Pattern = tier.Pattern
	All     = tier.All
)

// EraItem is the item that ends the era of one partition.
func EraItem(partition int) Item { return Item{Kind: tier.Era, Value: strconv.Itoa(partition)} }

// eraOf returns the partition of an EraItem.
func eraOf(it Item) int {
	p, err := strconv.Atoi(it.Value)
	if err != nil || p < 0 || p >= tier.MaxPartitions {
		return -1
	}
	return p
}

// logCapacity bounds the log. A load that saw more items than this go by is
// treated as fenced: 16,384 items in a load of 100 ms would be 160,000
// invalidations a second in one process.
const logCapacity = 1 << 14

// NameEnd separates the name of an entry from the rest of its key.
const NameEnd = tier.NameEnd

// Name returns the part of key that invalidations by key and pattern see. A Key
// item fences loads by it, and takes out of the tier the entry of just that key:
// entries whose keys go on behind their names are invalidated by tag.
func Name(key string) string { return tier.Name(key) }

type logged struct {
	Item
	at int64
}

// journal is the log in memory. Its lock is also what inserts into the tier
// take (for reading) between their last check and the insert.
type journal struct {
	mu   sync.RWMutex
	ring []logged
	head uint64 // position of the next item; the first is 1
}

func newJournal() *journal {
	return &journal{ring: make([]logged, 0, 64), head: 1}
}

// append adds items. The caller holds mu for writing.
func (j *journal) append(now int64, items []Item) {
	for _, it := range items {
		if len(j.ring) < logCapacity {
			j.ring = append(j.ring, logged{it, now})
		} else {
			j.ring[(j.head-1)%logCapacity] = logged{it, now}
		}
		j.head++
	}
}

func (j *journal) tail() uint64 { return j.head - uint64(len(j.ring)) }

func (j *journal) at(pos uint64) *logged { return &j.ring[(pos-1)%logCapacity] }

// position returns the position of the next item.
func (j *journal) position() uint64 {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return j.head
}

// since returns the position of the first item that was appended at or after
// the time at; if such items may have been trimmed, one of theirs. The caller
// holds mu.
func (j *journal) since(at int64) uint64 {
	tail := j.tail()
	if tail > 1 && j.at(tail).at >= at {
		return tail - 1
	}
	n := sort.Search(len(j.ring), func(i int) bool { return j.at(tail+uint64(i)).at >= at })
	return tail + uint64(n)
}

// concern returns the position of the first item in [from, head) that concerns
// key or one of tags, or 0. Where from has been trimmed it returns from: what is
// not known counts as named. The caller holds mu.
func (c *Cache) concern(from uint64, key string, tags []string) uint64 {
	j := c.journal
	if from < j.tail() {
		return from
	}
	for pos := from; pos < j.head; pos++ {
		if c.Concerns(j.at(pos).Item, key, tags) {
			return pos
		}
	}
	return 0
}

// Concerns reports whether an item invalidates an entry under key with these tags.
func (c *Cache) Concerns(it Item, key string, tags []string) bool {
	switch it.Kind {
	case Key:
		if of, _, ok := learntOf(it); ok {
			return of == key
		}
		return it.Value == Name(key)
	case Tag:
		return slices.Contains(tags, it.Value)
	case Pattern:
		return glob.Match(it.Value, Name(key))
	case tier.Begun, tier.Closed: // see intent.go
		return false
	case tier.Era:
		p := eraOf(it)
		return p < 0 || c.Mask(key, tags)&(1<<p) != 0
	default:
		return true
	}
}
