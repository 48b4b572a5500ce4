package coherence

import (
	"math"
	"math/bits"
	"sync"
	"sync/atomic"

	"github.com/larderhq/larder/core/internal/local"
	"github.com/larderhq/larder/core/internal/tier"
)

// partitions is what this instance knows of the tier's partitions.
//
// A copy in memory is served only while each partition on which it depends is legal: the
// instance asked for the partition's head less than MaxStaleness ago, less the tolerance of
// the clocks, and has applied every item up to that head. Clocks of different machines are never compared.
type partitions struct {
	local *local.Cache
	delta int64 // MaxStaleness, in nanoseconds

	// follow guards the followers, and orders the items that are applied. It is taken before
	// the lock of the log.
	follow sync.Mutex
	parts  [tier.MaxPartitions]follower

	legalUntil atomic.Int64 // the time until which every partition is legal
	suspension suspension
}

// Legal reports whether every partition of the mask was verified within MaxStaleness, less
// the tolerance of the clocks (R4, R22).
func (ps *partitions) Legal(mask uint64, now int64) bool {
	if now < ps.legalUntil.Load() {
		return true
	}
	for ; mask != 0; mask &= mask - 1 {
		if !ps.parts[bits.TrailingZeros64(mask)].legal(now, ps.proofLasts()) {
			return false
		}
	}
	return true
}

// OldestShared returns the time since which a load must have begun for its value to be given
// to a request that comes now (R7). If every partition is legal, any load may be shared. If
// not, an invalidation may not have arrived: the load must have begun less than MaxStaleness
// ago. It may also have read copies of a partition until that ceased to be legal, so it must
// have begun after each partition that has ceased to be legal. No load from before a
// suspension is shared.
func (ps *partitions) OldestShared(now int64) int64 {
	if ps.suspension.found.Load() {
		return math.MaxInt64
	}
	if ps.Legal(ps.everything(), now) {
		return 0
	}
	oldest := now - ps.proofLasts() + 1
	for p := range ps.local.Partitions() {
		v := ps.parts[p].verified.Load()
		if lapse := v + ps.proofLasts(); v != 0 && lapse <= now { // 0: no copy of it is kept
			oldest = max(oldest, lapse)
		}
	}
	return oldest
}

// computeLegal computes the time until which every partition is legal. The caller holds
// follow.
func (ps *partitions) computeLegal() {
	until := int64(math.MaxInt64)
	for p := range ps.local.Partitions() {
		v := ps.parts[p].verified.Load()
		if v == 0 {
			until = 0
			break
		}
		until = min(until, v+ps.proofLasts())
	}
	ps.legalUntil.Store(until)
	if ps.suspension.found.Load() {
		ps.legalUntil.Store(0)
	}
}

// everything is the mask of all partitions.
func (ps *partitions) everything() uint64 {
	if n := ps.local.Partitions(); n < 64 {
		return 1<<n - 1
	}
	return math.MaxUint64
}

// unverified reports whether some partition is not verified.
func (ps *partitions) unverified() bool {
	for p := range ps.local.Partitions() {
		if ps.parts[p].verified.Load() == 0 {
			return true
		}
	}
	return false
}

// verifiedSince reports whether each partition of the mask has answered a question that was
// sent at a time or later.
func (ps *partitions) verifiedSince(mask uint64, sent int64) bool {
	for ; mask != 0; mask &= mask - 1 {
		if v := ps.parts[bits.TrailingZeros64(mask)].verified.Load(); v == 0 || v < sent {
			return false
		}
	}
	return true
}

// concerned returns the partitions in which an item is executed.
func (ps *partitions) concerned(it tier.Item) uint64 {
	if it.Kind == tier.Key || it.Kind == tier.Tag {
		return 1 << tier.Partition(tier.Name(it.Value), ps.local.Partitions())
	}
	return ps.everything()
}

// place is the position of a partition and its era at one moment.
type place struct {
	position *tier.Position
	era      string
}

// places returns the place of each partition.
func (ps *partitions) places() []place {
	ps.follow.Lock()
	defer ps.follow.Unlock()
	list := make([]place, ps.local.Partitions())
	for p := range list {
		list[p] = place{ps.parts[p].position.Load(), ps.parts[p].era()}
	}
	return list
}

// inEras reports whether each partition is known to be in the given era.
func (ps *partitions) inEras(eras []tier.PartitionEra) bool {
	for _, pe := range eras {
		if pe.Partition < 0 || pe.Partition >= ps.local.Partitions() || ps.parts[pe.Partition].era() != pe.Era || pe.Era == "" {
			return false
		}
	}
	return true
}

// anyEnded reports whether one of the eras is known to have ended.
func (ps *partitions) anyEnded(eras []tier.PartitionEra) bool {
	ps.follow.Lock()
	defer ps.follow.Unlock()
	for _, pe := range eras {
		if pe.Partition < 0 || pe.Partition >= ps.local.Partitions() || pe.Era == "" {
			continue
		}
		if f := &ps.parts[pe.Partition]; f.retired(pe.Era) || f.eras.last == pe.Era && f.era() == "" {
			return true
		}
	}
	return false
}

// inAnotherEra reports whether the known era of a partition differs from the given one.
func (ps *partitions) inAnotherEra(p int, era string) bool {
	known := ps.parts[p].era()
	return known != "" && known != era
}

// maskOf returns the mask of the partitions of eras.
func maskOf(eras []tier.PartitionEra) (m uint64) {
	for _, pe := range eras {
		if pe.Partition >= 0 && pe.Partition < tier.MaxPartitions {
			m |= 1 << pe.Partition
		}
	}
	return m
}
