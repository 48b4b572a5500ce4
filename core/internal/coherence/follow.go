package coherence

import (
	"slices"

	"github.com/larderhq/larder/core/internal/local"
	"github.com/larderhq/larder/core/internal/tier"
)

// appendLocal appends the meaning of an item of a partition's log in this process. All means
// everything: an instance that has heard of it in one partition makes nothing of the copies
// that it keeps of another partition, in which it has not heard of it (R15).
func (s *shared) appendLocal(list []tier.Item, p int, it tier.Item) []tier.Item {
	switch it.Kind {
	case tier.Era:
		return append(list, local.EraItem(p))
	case tier.All:
		for p := range s.local.Partitions() {
			list = append(list, local.EraItem(p))
		}
		return list
	}
	return append(list, it)
}

// endEras ends the era of each partition, since All was heard of in one of them: entries of
// the other partitions are not of the eras that those will have (R15).
func (s *shared) endEras() {
	for p := range s.local.Partitions() {
		s.parts[p].endEra()
	}
}

// applyHint applies an item that was published, or that the reply to a call of this instance
// contains. The item fences at once. The position moves only if no item is missing in
// between (R18).
func (s *shared) applyHint(p int, it tier.Logged) {
	s.follow.Lock()
	defer s.follow.Unlock()
	f := &s.parts[p]
	if f.applied.has(it.Token) {
		return
	}
	if it.Check() != nil {
		s.requestRound() // the log has the item as well: the round that reads it there fails
		return
	}
	intent := s.applyIntent(p, it.Item)
	if intent && f.position.Load() == nil {
		return // the head that is adopted, or the log after it, reports the intent
	}
	if it.Kind == tier.Era || it.ID == "" { // no log has the item: the head has the rest
		f.endEra()
		s.local.Fence(s.appendLocal(nil, p, it.Item))
		s.requestRound()
		return
	}
	f.applied.add(it.Token)
	if it.Kind == tier.All {
		s.endEras()
		s.requestRound()
	}
	if !intent {
		s.ownChanges.apply(s.local, p, it)
		s.local.FenceLoads(s.appendLocal(nil, p, it.Item))
	}
	if pos := f.position.Load(); pos != nil && it.Before == pos.Token {
		f.advance(&it)
	} else {
		f.postpone(&it) // until its predecessor arrives, or the watchdog reads the log
	}
}

// applyOwn applies an item that a call of this instance has appended.
func (s *shared) applyOwn(p int, it tier.Logged) {
	s.applyHint(p, it)
	s.follow.Lock()
	defer s.follow.Unlock()
	if f := &s.parts[p]; !it.Precedes(f.server.own) {
		f.server.own = it.Position
	}
}

// retireEra records that a call of this instance has ended an era.
func (s *shared) retireEra(p int, era string) {
	s.follow.Lock()
	defer s.follow.Unlock()
	s.parts[p].retire(era)
}

// age removes everything that this process keeps of a partition. The caller holds follow.
func (s *shared) age(p int) {
	s.waiters.wakeAll() // leases may have vanished without a hint
	s.local.Fence([]tier.Item{local.EraItem(p)})
}

// ageAll removes everything, and every position. The caller holds follow.
func (s *shared) ageAll() {
	for p := range s.parts {
		s.parts[p].endEra()
	}
	s.local.Fence([]tier.Item{{Kind: tier.All}})
	for p := range s.parts {
		f := &s.parts[p]
		f.verified.Store(0)
		f.position.Store(nil)
		f.server.id, f.early = "", nil
	}
	s.legalUntil.Store(0)
}

// adopt makes a head the position from which this instance follows, and ages the partition.
// The head may be older than items that have been heard since: then the log repeats them.
// Its era may not be older than one that is known to have ended. The caller holds follow.
func (s *shared) adopt(p int, h *tier.Head, q *headQuestion) {
	f := &s.parts[p]
	s.doubt(p, h)
	s.age(p)
	f.applied.add(h.Position.Token)
	f.advance(&tier.Logged{Position: h.Position})
	s.servedBy(p, h.Server)
	s.learnEra(p, h, q)
}

// answeredBy records which server has answered for a partition that is followed. If the server
// has changed, the known deadlines were times of another clock. The caller holds follow.
func (s *shared) answeredBy(p int, h *tier.Head) {
	if h.Server != s.parts[p].server.id {
		s.doubt(p, h)
		s.age(p)
	}
	s.servedBy(p, h.Server)
}

// learnEra adopts the era of a head, unless an era has ended since the head was requested. If
// the era differs from the known one, or none was known, eras may have begun and ended without
// an item. The partition is aged then. The caller holds follow.
func (s *shared) learnEra(p int, h *tier.Head, q *headQuestion) {
	f := &s.parts[p]
	if f.eras.ended != q.ended {
		s.requestRound()
		return
	}
	if f.eras.last != h.Era {
		f.retire(f.eras.last)
		f.eras.last, f.eras.begun = h.Era, h.Begun
	}
	if era := f.era(); era != h.Era {
		if era != "" {
			f.endEra()
		}
		s.age(p)
		f.setEra(h.Era)
	}
}

// applyLog applies the items of a log that was read from a position up to a head at least.
// Hints may have moved the position meanwhile. It returns false, and applies nothing, if
// the items do not lead from the position to the head: the begin of an era is in no log. The
// caller holds follow.
func (s *shared) applyLog(p int, f *follower, from *tier.Position, h *tier.Head, since *tier.Log) bool {
	items := since.Items
	// The log was read after the head. A head of the same era that the items do not contain
	// therefore lies before from.
	reached := h.Position.Token == from.Token || f.applied.has(h.Position.Token) || h.Era == f.era() ||
		slices.ContainsFunc(items, func(it tier.Logged) bool { return it.Token == h.Position.Token })
	if !since.Joined || !reached || len(items) > 0 && items[0].Before != from.Token {
		return false
	}
	pos := f.position.Load()
	if pos.Token != from.Token {
		at := slices.IndexFunc(items, func(it tier.Logged) bool { return it.Token == pos.Token })
		if at < 0 {
			return true // the position lies beyond all of them
		}
		items = items[at+1:]
	}
	if len(items) == 0 {
		return true
	}
	s.applyItems(p, f, items)
	f.advance(&items[len(items)-1])
	return true
}

// applyItems applies items of a partition's log in their order, except those that were
// applied before. The caller holds follow.
func (s *shared) applyItems(p int, f *follower, items []tier.Logged) {
	list := make([]tier.Item, 0, len(items))
	for _, it := range items {
		if !f.applied.has(it.Token) {
			if !s.applyIntent(p, it.Item) {
				s.ownChanges.apply(s.local, p, it)
				list = s.appendLocal(list, p, it.Item)
			}
			f.applied.add(it.Token)
		}
		switch it.Kind {
		case tier.All:
			s.endEras()
		case tier.Era:
			f.endEra()
		}
	}
	if len(list) > 0 {
		s.local.FenceLoads(list)
	}
}

// unapplied reports whether items of a partition's log up to a token have not been applied,
// and returns the position of this instance.
func (s *shared) unapplied(p int, token string) (from *tier.Position, some bool) {
	s.follow.Lock()
	defer s.follow.Unlock()
	f := &s.parts[p]
	from = f.position.Load()
	switch {
	case token == "": // there is no head: nothing is stored
		return from, false
	case from == nil:
		return nil, true
	}
	return from, from.Token != token && (!f.applied.has(token) || len(f.early) > 0)
}

// applyLogUpTo applies a part of a log that was read from a position up to a head at least.
// It returns false if the items do not lead there.
func (s *shared) applyLogUpTo(p int, from *tier.Position, h *tier.Head, since *tier.Log) bool {
	s.follow.Lock()
	defer s.follow.Unlock()
	f := &s.parts[p]
	return f.position.Load() != nil && s.applyLog(p, f, from, h, since)
}
