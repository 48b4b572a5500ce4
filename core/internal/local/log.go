package local

import (
	"hash/maphash"
	"maps"
	"slices"
	"sort"
	"strconv"
	"sync"
	"time"

	"github.com/larderhq/larder/core/internal/glob"
	"github.com/larderhq/larder/core/internal/tier"
)

// Item is one invalidation, and Kind is the kind of its target. The shared tier defines them.
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

// EraItem returns the item that ends the era of one partition.
func EraItem(partition int) Item { return Item{Kind: tier.Era, Value: strconv.Itoa(partition)} }

// eraOf returns the partition of an EraItem.
func eraOf(it Item) int {
	p, err := strconv.Atoi(it.Value)
	if err != nil || p < 0 || p >= tier.MaxPartitions {
		return -1
	}
	return p
}

// The log keeps the items of the last logSpan, which is longer than a load, up to maxLog items.
// It keeps the last logCapacity items whatever their age. A load that is older than the log
// counts as fenced.
const (
	logCapacity = 1 << 14
	maxLog      = 1 << 19 // of about 100 bytes
	logSpan     = 45 * time.Second
	// logBlock is the number of items that are trimmed together.
	logBlock = 1 << 10
)

// NameEnd separates the name of an entry from the rest of its key.
const NameEnd = tier.NameEnd

// Name returns the part of key to which invalidations by key and pattern apply. A Key item
// fences loads by name, and removes from the tier only the entry of exactly that key. Entries
// whose keys continue after their names are invalidated by tag.
func Name(key string) string { return tier.Name(key) }

type logged struct {
	Item
	at int64
}

// journal is the log in memory. An insert into the tier holds its lock, for reading, from the
// last check to the insert.
type journal struct {
	mu     sync.RWMutex
	blocks [][]logged // oldest first; each but the last has logBlock items
	first  uint64     // position of the first item of the first block
	head   uint64     // position of the next item; the first is 1
	most   int        // the maximum number of items, rounded up to blocks

	// last has the position of the last item of each key and tag, by hash. A load compares its
	// few names with it instead of reading all items. wide has the positions of the other items
	// that invalidate: patterns, eras and All.
	last map[uint64]uint64
	wide []uint64
	peak int // the largest length of last since its creation
	seed maphash.Seed
}

func newJournal() *journal {
	return &journal{first: 1, head: 1, most: maxLog, last: make(map[uint64]uint64), seed: maphash.MakeSeed()}
}

// append adds items. The caller holds mu for writing.
func (j *journal) append(now int64, items []Item) {
	for _, it := range items {
		j.trim(now)
		if n := len(j.blocks); n == 0 || len(j.blocks[n-1]) == logBlock {
			j.blocks = append(j.blocks, nil)
		}
		block := &j.blocks[len(j.blocks)-1]
		*block = append(*block, logged{it, now})
		if h, named := j.hash(it); named {
			j.last[h] = j.head
			j.peak = max(j.peak, len(j.last))
		} else if it.Kind != tier.Begun && it.Kind != tier.Closed {
			j.wide = append(j.wide, j.head)
		}
		j.head++
	}
}

// hash returns the key of an item in last. named: the item names one key or tag.
func (j *journal) hash(it Item) (h uint64, named bool) {
	if it.Kind != Key && it.Kind != Tag {
		return 0, false
	}
	if of, _, ok := learntOf(it); ok {
		it.Value = of
	}
	return maphash.Comparable(j.seed, it), true
}

// trim drops the oldest block if the block is too old, or the log too long.
func (j *journal) trim(now int64) {
	if len(j.blocks) < 2 {
		return
	}
	oldest, left := j.blocks[0], int(j.head-j.first)-logBlock
	if left < min(logCapacity, j.most) || left < j.most && oldest[logBlock-1].at >= now-int64(logSpan) {
		return
	}
	for i := range oldest {
		if h, named := j.hash(oldest[i].Item); named && j.last[h] == j.first+uint64(i) {
			delete(j.last, h)
		}
	}
	j.first += logBlock
	j.blocks[0] = nil
	j.blocks = j.blocks[1:]
	for len(j.wide) > 0 && j.wide[0] < j.first {
		j.wide = j.wide[1:]
	}
	if j.peak > logCapacity && len(j.last) < j.peak/4 { // a map does not shrink
		j.last, j.peak = maps.Clone(j.last), len(j.last)
	}
}

func (j *journal) tail() uint64 { return j.first }

func (j *journal) at(pos uint64) *logged {
	i := pos - j.first
	return &j.blocks[i/logBlock][i%logBlock]
}

// position returns the position of the next item.
func (j *journal) position() uint64 {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return j.head
}

// since returns the position of the first item that was appended at or after the time at. If
// such items may have been trimmed, it returns a trimmed position. The caller holds mu.
func (j *journal) since(at int64) uint64 {
	tail := j.tail()
	if tail > 1 && j.at(tail).at >= at {
		return tail - 1
	}
	n := sort.Search(int(j.head-tail), func(i int) bool { return j.at(tail+uint64(i)).at >= at }) //nolint:gosec // at most maxLog and a block
	return tail + uint64(n)
}

// concern returns the position of the first item in [from, head) that concerns key or one of
// tags, 0 if there is none. If from has been trimmed it returns from, since a trimmed item
// counts as one that concerns them. The caller holds mu.
func (c *Cache) concern(from uint64, key string, tags []string) uint64 {
	j := c.journal
	if from < j.tail() {
		return from
	}
	end, found := j.head, uint64(0)
	for i := sort.Search(len(j.wide), func(i int) bool { return j.wide[i] >= from }); i < len(j.wide); i++ {
		if c.Concerns(j.at(j.wide[i]).Item, key, tags) {
			end, found = j.wide[i], j.wide[i]
			break
		}
	}
	if !j.named(from, key, tags) {
		return found
	}
	for pos := max(from, j.first); pos < end; pos++ {
		if c.Concerns(j.at(pos).Item, key, tags) {
			return pos
		}
	}
	return found
}

// named reports whether an item from a position on may name key, its name, or one of tags. Two
// names with the same hash give a false positive. The caller holds mu.
func (j *journal) named(from uint64, key string, tags []string) bool {
	since := func(it Item) bool { return j.last[maphash.Comparable(j.seed, it)] >= from }
	if since(Item{Kind: Key, Value: Name(key)}) || since(Item{Kind: Key, Value: key}) {
		return true
	}
	return slices.ContainsFunc(tags, func(tag string) bool { return since(Item{Kind: Tag, Value: tag}) })
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
	case tier.Begun, tier.Closed: // they invalidate nothing
		return false
	case tier.Era:
		p := eraOf(it)
		return p < 0 || c.Mask(key, tags)&(1<<p) != 0
	default:
		return true
	}
}
