package simulate_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/test/memtier"
)

// totals counts the events of one history or of all.
type totals struct {
	reads, failedReads, unjudged, warmed, writes, announced, pending, renewals atomic.Int64
	behindTotals
	stalest, longestGet atomic.Int64

	mu        sync.Mutex
	faults    map[string]int
	Histories int
	Virtual   time.Duration
	Stats     core.Stats
	Tier      memtier.Stats
}

func (n *totals) count(fault string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.faults == nil {
		n.faults = map[string]int{}
	}
	n.faults[fault]++
}

func (n *totals) add(s core.Stats) {
	n.mu.Lock()
	defer n.mu.Unlock()
	t := &n.Stats
	t.Hits += s.Hits
	t.StaleHits += s.StaleHits
	t.Misses += s.Misses
	t.Coalesced += s.Coalesced
	t.Loads += s.Loads
	t.LoadErrors += s.LoadErrors
	t.Panics += s.Panics
	t.Refreshes += s.Refreshes
	t.Stored += s.Stored
	t.Refused += s.Refused
	t.Invalidations += s.Invalidations
	t.Evicted += s.Evicted
	t.RemoteHits += s.RemoteHits
	t.RemoteErrors += s.RemoteErrors
}

func (n *totals) tier(s memtier.Stats) {
	n.mu.Lock()
	defer n.mu.Unlock()
	t := &n.Tier
	t.Executed += s.Executed
	t.LostRequests += s.LostRequests
	t.LostReplies += s.LostReplies
	t.Resent += s.Resent
	t.Abandoned += s.Abandoned
	t.ExecutedLate += s.ExecutedLate
	t.LostHints += s.LostHints
	t.DoubledHints += s.DoubledHints
	t.CutHints += s.CutHints
	t.EvictedKeys += s.EvictedKeys
	t.RefusedFull += s.RefusedFull
	t.FencedFills += s.FencedFills
	t.StoredTogether += s.StoredTogether
	t.LeftTogether += s.LeftTogether
	t.TrimmedBefore += s.TrimmedBefore
}

// merge adds the totals of a finished history.
func (n *totals) merge(o *totals) {
	n.add(o.Stats)
	n.tier(o.Tier)
	for to, from := range map[*atomic.Int64]*atomic.Int64{
		&n.reads: &o.reads, &n.failedReads: &o.failedReads, &n.unjudged: &o.unjudged,
		&n.warmed: &o.warmed, &n.writes: &o.writes, &n.announced: &o.announced, &n.pending: &o.pending, &n.renewals: &o.renewals,
		&n.excused: &o.excused, &n.kept: &o.kept, &n.queued: &o.queued, &n.notQueued: &o.notQueued, &n.applied: &o.applied, &n.twice: &o.twice,
		&n.refusedOld: &o.refusedOld, &n.flushed: &o.flushed, &n.nested: &o.nested,
	} {
		to.Add(from.Load())
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stalest.Store(max(n.stalest.Load(), o.stalest.Load()))
	n.longestGet.Store(max(n.longestGet.Load(), o.longestGet.Load()))
	n.Histories++
	n.Virtual += o.Virtual
	if n.faults == nil {
		n.faults = map[string]int{}
	}
	for f, c := range o.faults {
		n.faults[f] += c
	}
}

func (n *totals) operations() int64 { return n.reads.Load() + n.writes.Load() }

func (n *totals) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var b strings.Builder
	s := n.Stats
	fmt.Fprintf(&b, "%d histories, %d operations, %v of their time\n", n.Histories, n.operations(), n.Virtual.Round(time.Second))
	fmt.Fprintf(&b, "  reads %d: hits %d, stale hits %d, remote hits %d, loads %d (%d refreshes, %d failed, %d panics), shared %d, failed %d, unjudged %d, warmed %d\n",
		n.reads.Load(), s.Hits, s.StaleHits, s.RemoteHits, s.Loads, s.Refreshes, s.LoadErrors, s.Panics, s.Coalesced, n.failedReads.Load(), n.unjudged.Load(), n.warmed.Load())
	fmt.Fprintf(&b, "  writes %d: announcements %d, pending %d, targets %d; stored %d, renewals said %d, refused %d, evicted here %d\n",
		n.writes.Load(), n.announced.Load(), n.pending.Load(), s.Invalidations, s.Stored, n.renewals.Load(), s.Refused, s.Evicted)
	fmt.Fprintf(&b, "  of queued rows, too old while the tier did not answer %d, own ones kept %d; changes queued %d, not known to be %d; applied %d, twice %d, refused by the database %d, flushes %d; nested reads %d\n",
		n.excused.Load(), n.kept.Load(), n.queued.Load(), n.notQueued.Load(), n.applied.Load(), n.twice.Load(), n.refusedOld.Load(), n.flushed.Load(), n.nested.Load())
	fmt.Fprintf(&b, "  longest staleness seen %v, longest read %v\n", time.Duration(n.stalest.Load()), time.Duration(n.longestGet.Load()))
	fmt.Fprintf(&b, "  tier %+v\n  faults:", n.Tier)
	for _, f := range slices.Sorted(maps.Keys(n.faults)) {
		fmt.Fprintf(&b, " %s %d,", f, n.faults[f])
	}
	return strings.TrimSuffix(b.String(), ",")
}
