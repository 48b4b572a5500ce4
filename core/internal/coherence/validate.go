package coherence

import (
	"context"
	"math/bits"
	"slices"
	"sync"
	"time"

	"github.com/larderhq/larder/core/internal/local"
	"github.com/larderhq/larder/core/internal/tier"
)

// StillValid reports whether an entry that is valid in this process was also valid in the
// shared tier when the turn's lease was granted: since this instance's position before the
// load, the logs of all its partitions have no item that concerns it. Without a lease nothing will be
// stored. This instance's knowledge suffices then, since no later request joins the load
// (R7).
//
// The item of a pattern is heard before the scan has reached every entry. An entry that is
// read from the tier in between is still valid there, and would be filled in again behind the
// scan. An entry that is older than a pattern is therefore not valid.
//
// The end of an era is in no log. The eras of the entry must be those in which it will be
// stored.
func (t *Turn) StillValid(ctx context.Context, en *local.Entry, key string, tags []string) bool {
	s, h := t.e.shared, t.held
	if s == nil || h == nil {
		return true
	}
	// Born may be too late by the duration of the reply with the entry.
	if len(h.before) != t.e.Partitions() || t.e.SweptSince(key, en.Born-s.delta-int64(max(s.Budget, behindWait))) {
		return false
	}
	mask := t.e.Mask(key, tags)
	// The order matters: learning another era ends the entry first.
	if !h.storesInEras(mask) || en.Dead() {
		return false
	}
	return t.logsAreClean(ctx, mask, key, tags)
}

// logsAreClean reports whether the logs of the partitions of a mask have no item, since the
// position before the load, that concerns an entry.
func (t *Turn) logsAreClean(ctx context.Context, mask uint64, key string, tags []string) bool {
	var parts []int
	for ; mask != 0; mask &= mask - 1 {
		parts = append(parts, bits.TrailingZeros64(mask))
	}
	clean := make([]bool, len(parts))
	err := t.fetch.budget.use(ctx, func(ctx context.Context) error {
		together := tier.NewBatch(len(parts))
		ctx = tier.WithBatch(ctx, together)
		var all sync.WaitGroup
		for i, p := range parts {
			all.Go(func() {
				defer together.Leave()
				clean[i] = t.logIsClean(ctx, p, key, tags)
			})
		}
		all.Wait()
		return nil
	})
	return err == nil && !slices.Contains(clean, false)
}

// logIsClean is logsAreClean for one partition.
func (t *Turn) logIsClean(ctx context.Context, p int, key string, tags []string) bool {
	from := t.held.before[p]
	if from.position == nil || from.era == "" {
		return false
	}
	since, err := t.held.ses.Log(ctx, p, *from.position)
	return err == nil && since.Joined && !slices.ContainsFunc(since.Items, func(it tier.Logged) bool {
		return t.e.Concerns(it.Item, key, tags)
	})
}

// storesInEras reports whether each partition of a mask is known to be in the era in which a
// fill under the lease would be stored: that of the lease, those of its generations, and for
// late tags those before the load (see captureLate).
func (h *heldLease) storesInEras(mask uint64) bool {
	n := h.s.local.Partitions()
	eras := make([]string, n)
	for p, at := range h.before {
		eras[p] = at.era
	}
	eras[tier.Partition(tier.Name(h.lease.Key), n)] = h.lease.Era
	for _, g := range h.lease.Generations {
		eras[tier.Partition(g.Tag, n)] = g.Era
	}
	for ; mask != 0; mask &= mask - 1 {
		p := bits.TrailingZeros64(mask)
		if era := h.s.parts[p].era(); era == "" || era != eras[p] {
			return false
		}
	}
	return true
}

// WouldRefuse returns the reason for which Fill would refuse f now, as far as this process knows.
// The shared tier may know another.
func (t *Turn) WouldRefuse(f local.Fill) local.Refusal {
	switch {
	case f.Refuse != local.Stored:
		return f.Refuse
	case !t.MayStore():
		return local.NoLease
	}
	return t.Load.WouldRefuse(f)
}

// inErasBefore reports whether the lease and its generations are of the eras at an earlier
// moment. The end of an era stands for any invalidation, and is in no log.
func (h *heldLease) inErasBefore(before []place) bool {
	n := h.s.local.Partitions()
	if len(before) != n || h.lease.Era == "" || h.lease.Era != before[tier.Partition(tier.Name(h.lease.Key), n)].era {
		return false
	}
	return !slices.ContainsFunc(h.lease.Generations, func(g tier.Generation) bool {
		return g.Era != before[tier.Partition(g.Tag, n)].era
	})
}

// lapsedSince reports whether the deadline of an intent has passed after began, a time on the
// engine's clock. ago is the time since the deadline, 0 if no deadline has passed.
func (s *shared) lapsedSince(ago time.Duration, began int64) bool {
	return ago > 0 && int64(ago) <= s.local.Now()-began+int64(time.Millisecond)
}
