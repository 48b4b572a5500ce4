package local

import (
	"math"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"
)

// Entry is the value of one key, with its times and dependencies. A stored entry does not
// change, and the memory that Value refers to must not change either.
//
// An entry takes 96 bytes, a size class of the allocator. Most entries need no details: they
// depend on one era and at most one tag, and are in no shared tier.
type Entry struct {
	Value any

	// Times on the cache's clock, in nanoseconds.
	Born       int64 // the begin of its load
	FreshUntil int64 // the end of the time in which it is fresh
	StaleUntil int64 // the end of the time in which it is answered while it is refreshed
	KeepUntil  int64 // the end of the time in which it is answered in place of an error
	LoadTime   int64 // the duration of its load, for early refresh

	era      *Generation   // the first era that it depends on; nil: none
	tag      *Generation   // the first tag that it depends on; nil: none
	more     *details      // nil: none
	compared atomic.Uint64 // the position of the log up to which no pattern matches it
	weight   uint32
	flags    atomic.Uint32
}

// details are the dependencies of an entry beyond one era and one tag.
type details struct {
	id          string // in the shared tier; "": not there
	partitions  uint64 // that it depends on; 0 without a shared tier
	generations []*Generation
}

// Flags of an entry.
const (
	unstored = 1 << iota // the entry is shared with waiting requests only (Unstored)
	removed              // the entry has left the tier
	ownTag               // the entry carries the tag of its own key, without a generation
)

func (en *Entry) is(flag uint32) bool { return en.flags.Load()&flag != 0 }

func (en *Entry) set(flag uint32) { en.flags.Or(flag) }

// depend records the dependencies of the entry, before it is stored.
func (en *Entry) depend(generations []*Generation, partitions uint64, id string) {
	var rest []*Generation
	en.era, en.tag = nil, nil
	for _, g := range generations {
		switch {
		case g.tag == "" && en.era == nil:
			en.era = g
		case g.tag != "" && en.tag == nil:
			en.tag = g
		default:
			if rest == nil {
				rest = make([]*Generation, 0, len(generations)-1)
			}
			rest = append(rest, g)
		}
	}
	en.more = nil
	if rest != nil || partitions != 0 || id != "" {
		en.more = &details{id, partitions, rest}
	}
}

// generations returns the generations and eras that the entry depends on.
func (en *Entry) generations(yield func(*Generation) bool) {
	if en.era != nil && !yield(en.era) || en.tag != nil && !yield(en.tag) || en.more == nil {
		return
	}
	for _, g := range en.more.generations {
		if !yield(g) {
			return
		}
	}
}

// ID returns the identity of the entry in the shared tier, "" if it is not there.
func (en *Entry) ID() string {
	if en.more == nil {
		return ""
	}
	return en.more.id
}

// Identify notes the identity of a new entry in the shared tier.
func (en *Entry) Identify(id string) *Entry {
	en.more = &details{id: id}
	return en
}

// State says what an entry may be used for.
type State uint8

// The states of an entry.
const (
	Gone     State = iota // invalid, or past all its windows: must not be answered from
	Fallback              // past its stale window: only in place of an error
	Stale                 // past its lifetime, within its stale window
	Fresh
)

// State returns the entry's state at the time now.
func (en *Entry) State(now int64) State {
	switch {
	case en.dead():
		return Gone
	case now < en.FreshUntil:
		return Fresh
	case now < en.StaleUntil:
		return Stale
	case now < en.KeepUntil:
		return Fallback
	default:
		return Gone
	}
}

// Partitions returns the mask of the partitions that the entry depends on, 0 without a shared
// tier.
func (en *Entry) Partitions() uint64 {
	if en.more == nil {
		return 0
	}
	return en.more.partitions
}

// Dead reports whether something that the entry was made under has been invalidated.
func (en *Entry) Dead() bool { return en.dead() }

func (en *Entry) dead() bool {
	if en.era != nil && en.era.dead.Load() || en.tag != nil && en.tag.dead.Load() {
		return true
	}
	if en.more == nil {
		return false
	}
	for _, g := range en.more.generations {
		if g.dead.Load() {
			return true
		}
	}
	return false
}

// Tags returns the tags that the entry was stored with, without that of its own key where it
// has no generation of that.
func (en *Entry) Tags() []string {
	var tags []string
	for g := range en.generations {
		if g.tag != "" {
			tags = append(tags, g.tag)
		}
	}
	return tags
}

// Unstored reports whether function Unstored has returned the entry.
func (en *Entry) Unstored() bool { return en.is(unstored) }

// Early reports whether this reader of a fresh entry should refresh it before it expires. The
// probability rises towards the end of the lifetime, on the scale of the duration of the load
// (XFetch with beta = 1: Vattani, Chierichetti, Lowenstein, "Optimal Probabilistic Cache
// Stampede Prevention", VLDB 2015).
func (en *Entry) Early(now int64) bool {
	left := en.FreshUntil - now
	if en.LoadTime <= 0 || left > en.LoadTime*40 {
		return false // -ln(u) exceeds 40 once in 10^17 draws
	}
	return float64(left) <= -float64(en.LoadTime)*math.Log(1-rand.Float64())
}

// Lifetime is the time for which a value is kept.
type Lifetime struct {
	Fresh    time.Duration // the time from Since in which the value is fresh
	Stale    time.Duration // the time after Fresh in which it is answered while it is refreshed
	Fallback time.Duration // the time after Fresh in which it is answered in place of an error
	Since    int64         // on the clock of the cache; 0: now
}

// minJittered is the shortest lifetime that jitter leaves: the shared tier counts in
// milliseconds.
const minJittered = time.Millisecond

// Jittered returns ttl, shortened by a random fraction of at most jitter.
func Jittered(ttl time.Duration, jitter float64) time.Duration {
	if jitter == 0 || ttl == 0 {
		return ttl
	}
	return max(minJittered, ttl-time.Duration(rand.Float64()*jitter*float64(ttl)))
}

// Overhead is the number of bytes of memory of an entry beside its key and value:
// the entry (96), Otter's node (80), and its share of Otter's table and frequency sketch, from
// 25 to 50 as they fill up between two doublings.
const Overhead = 96 + 80 + 36

// generationBytes is the number of bytes of a generation beside its tag: itself (32), its weak
// pointer (16) and its slot in a map (40). Tag, pointer and slot stay until the garbage
// collection after the eviction of its last entry, and count twice for that reason.
const generationBytes = 32 + 2*(16+40)

// Weigh returns the number of bytes of an entry with a key, a value of size bytes, and a number
// of generations beyond the first era and the first tag.
func Weigh(key string, size, generations int) uint32 {
	return uint32(min(uint64(Overhead+blockOf(len(key))+blockOf(size)+8*generations), math.MaxUint32))
}

// blockOf returns the size of the block that the allocator uses for n bytes.
func blockOf(n int) int {
	if n > maxBlock {
		return n
	}
	return int(blocks[(n+7)/8])
}

// maxBlock is the largest size that the allocator rounds up considerably.
const maxBlock = 8192

// blocks are the sizes of blocks, by the number of requested words.
//
//nolint:gochecknoglobals // a constant
var blocks = func() (sizes [maxBlock/8 + 1]uint16) {
	for words := range sizes {
		sizes[words] = uint16(cap(slices.Grow([]byte(nil), 8*words)))
	}
	return sizes
}()
