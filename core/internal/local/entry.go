package local

import (
	"math"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// Entry is what the cache keeps under one key. It is immutable from the moment
// it is made, and so must be what Value refers to.
type Entry struct {
	Value any

	// Times on the engine's clock, in nanoseconds.
	Born       int64 // when its load began
	FreshUntil int64 // until then it is answered as it is,
	StaleUntil int64 // then as a stale one while it is refreshed,
	KeepUntil  int64 // then only in place of an error
	LoadTime   int64 // how long its load took, for early refresh

	ID string // in the shared tier; "": not there

	generations []*Generation
	mask        uint64 // the partitions it depends on
	weight      uint32
	unstored    bool          // was never meant for the tier
	compared    atomic.Uint64 // the position of the log up to which no pattern takes it out
	removed     atomic.Bool   // from the tier, for whatever reason
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

// Partitions returns the mask of the partitions that the entry depends on.
func (en *Entry) Partitions() uint64 { return en.mask }

// Dead reports whether something that the entry was made under has been invalidated.
func (en *Entry) Dead() bool { return en.dead() }

func (en *Entry) dead() bool {
	for _, st := range en.generations {
		if st.dead.Load() {
			return true
		}
	}
	return false
}

// Tags returns the tags that the entry was stored with.
func (en *Entry) Tags() []string {
	tags := make([]string, 0, len(en.generations))
	for _, st := range en.generations {
		if st.tag != "" {
			tags = append(tags, st.tag)
		}
	}
	return tags
}

// Unstored reports whether the entry is one that function Unstored made.
func (en *Entry) Unstored() bool { return en.unstored }

// Early reports whether this reader of a fresh entry should be the one who
// refreshes it before it expires. The chance rises towards the end of the
// lifetime, with the time that the load took as its scale (XFetch with beta = 1:
// Vattani, Chierichetti, Lowenstein, "Optimal Probabilistic Cache Stampede
// Prevention", VLDB 2015).
func (en *Entry) Early(now int64) bool {
	left := en.FreshUntil - now
	if en.LoadTime <= 0 || left > en.LoadTime*40 {
		return false // -ln(u) exceeds 40 once in 10^17 draws
	}
	return float64(left) <= -float64(en.LoadTime)*math.Log(1-rand.Float64())
}

// Lifetime is how long a value is to be kept.
type Lifetime struct {
	Fresh    time.Duration // answered as it is for so long, counted from Since
	Stale    time.Duration // for so long after that while it is refreshed
	Fallback time.Duration // and for so long after Fresh in place of an error
	Since    int64         // on the engine's clock; 0: now
}

// minJittered is the shortest lifetime that jitter leaves: the shared tier counts in
// milliseconds.
const minJittered = time.Millisecond

// Jittered returns ttl, shortened by a random share of up to the fraction jitter.
func Jittered(ttl time.Duration, jitter float64) time.Duration {
	if jitter == 0 || ttl == 0 {
		return ttl
	}
	return max(minJittered, ttl-time.Duration(rand.Float64()*jitter*float64(ttl)))
}

// Overhead is the number of bytes that an entry takes in memory beside its key and value: the entry
// itself, the tier's node and table slot, policy links, its generations.
const Overhead = 256

// Weigh returns the bytes that an entry takes with a key, a value of size bytes, and a number of
// generations.
func Weigh(key string, size, generations int) uint32 {
	return uint32(min(uint64(Overhead+len(key)+size+8*generations), math.MaxUint32))
}
