package coherence

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/larderhq/larder/core/internal/local"
	"github.com/larderhq/larder/core/internal/tier"
)

// A Batch stores the values of many loads without leases (R30). A lease proves at the fill that
// nothing has touched its key since the load began. The values of a batch are proven by the logs:
// the tier stores a value only if no item since a position before the load concerns it, in the
// step that stores.
//
// The interleavings, where L is the load of a batch and P the position before L:
//
//   - An invalidation, or the begin of an intent, comes after P. This instance has heard of it before
//     the fill: Fenced finds it, and the fill compares from the later position that this instance has
//     reached. If it has not, the tier finds the item behind that position.
//   - An intent was begun before P and is open, or its writer has died: the tier has its record,
//     and leaves the key out. Other values of the same load are stored.
//   - An era ends: the fill names the era from before L. A pattern, or all, refuses the partition.
//   - Another instance has the lease of a key, or has stored it after the survey: the key is left
//     out. A lease that was lost while its load runs stores nothing later (R11).
//   - A change of the key is queued before the survey: the key is left out, since the value of L is
//     not even for requests that join. A change that is queued or applied later has an item (R27).
//   - The log was trimmed, evicted or exchanged, or the server was: nothing of the partition is stored.
//   - The fill is executed twice, or late: its second execution compares again, and the generations
//     that it would create are those of values that are still valid.
//   - L reads entries of this cache whose invalidation this instance has not heard of. A value made
//     of them carries their tags, as late tags, which are compared since P (R10).
type Batch struct {
	held      *heldLease // what was captured before the load; its lease is no lease
	turns     []*Turn
	parts     []int // of the turns
	vacancies []tier.Vacancy
	index     map[*Turn]int // of the vacant ones
	budget    budget
}

// Filling is one value of a batch.
type Filling struct {
	Turn *Turn
	Fill local.Fill
	// Entry and Refusal are the result of the fill.
	Entry   *local.Entry
	Refusal local.Refusal
	// Left: the value could not be proven valid. It was not stored, and the turn can ask for a lease.
	Left bool
}

// turnsOfBudget is the number of turns for which a batch gets the budget of one request.
const turnsOfBudget = 50

// Survey asks the tier which turns of a batch may load and store without leases: those whose keys
// have neither an entry, a lease nor a queued change. It returns nil if the tier cannot be asked, or is so distant
// that its questions need other budgets.
func (e *Engine) Survey(ctx context.Context, turns []*Turn) *Batch {
	s := e.shared
	if s == nil || s.distant() {
		return nil
	}
	b := &Batch{index: make(map[*Turn]int, len(turns))}
	b.budget = budget{s: s, left: s.Budget * time.Duration(1+len(turns)/turnsOfBudget)}
	ses, mask, keys := b.choose(s, turns)
	if len(keys) == 0 {
		return nil
	}
	// The turns have registered their loads. The places are those of a moment after that: an item in
	// between is in memory, and Fenced finds it.
	h := &heldLease{s: s, ses: ses, sent: s.local.Now(), before: s.places(), registered: true, ended: true}
	err := b.budget.use(ctx, func(ctx context.Context) (err error) {
		b.vacancies, err = ses.Vacancies(ctx, keys)
		return err
	})
	h.received = s.local.Now()
	h.began = h.received
	s.recordTogether(ctx, mask, err)
	if err != nil || len(b.vacancies) != len(keys) {
		return nil
	}
	for i, t := range b.turns {
		if b.vacancies[i].Vacant {
			b.index[t] = i
		}
	}
	b.held = h
	return b
}

// choose chooses the turns that can be part of a batch, and returns their partitions and keys.
func (b *Batch) choose(s *shared, turns []*Turn) (ses tier.Session, mask uint64, keys []tier.TaggedKey) {
	now, n := s.local.Now(), s.local.Partitions()
	open := s.session.Load()
	if open == nil {
		return nil, 0, nil
	}
	for _, t := range turns {
		key := t.Key()
		if !hasOwnTag(t) || tier.Name(key) != key || t.Behind() {
			continue
		}
		part := tier.Partition(key, n)                                                             // the tag's as well
		if of := uint64(1) << part; s.broken(of) || !s.Legal(of, now) || s.Blocks(key, t.Tags()) { // see askable
			continue
		}
		mask |= 1 << part
		b.turns, b.parts = append(b.turns, t), append(b.parts, part)
		keys = append(keys, tier.TaggedKey{Key: key, Tag: t.Tags()[0]})
	}
	return *open, mask, keys
}

// hasOwnTag reports whether the only tag of a turn is that of its key, which is in the same
// partition.
func hasOwnTag(t *Turn) bool {
	if len(t.Tags()) != 1 {
		return false
	}
	name, ok := strings.CutPrefix(t.Tags()[0], tier.TagPrefix)
	return ok && name == t.Key()
}

// recordTogether records the outcome of a call for several partitions.
func (s *shared) recordTogether(ctx context.Context, mask uint64, err error) {
	for p := range s.local.Partitions() {
		if mask&(1<<p) != 0 {
			s.recordCall(ctx, p, mask, err)
			return
		}
	}
}

// Has reports whether a turn loads without a lease.
func (b *Batch) Has(t *Turn) bool {
	_, ok := b.index[t]
	return ok
}

// Fill stores values of the batch: in the tier first, then in this process.
func (b *Batch) Fill(ctx context.Context, list []*Filling) {
	h := b.held
	fill := tier.BatchFill{Places: b.reached()}
	var sent []*Filling
	late := lateTags{batch: b}
	mask := uint64(0)
	for _, f := range list {
		p, refusal := b.prepare(ctx, f, &late, fill.Places)
		switch {
		case refusal != local.Stored:
			f.Entry, f.Refusal = f.Turn.FillAs(f.Fill, "", refusal)
			f.Turn.Made(f.Entry)
		case p == nil:
			f.Left = true
		default:
			fill.Items, sent = append(fill.Items, *p), append(sent, f)
			mask |= 1 << b.parts[b.index[f.Turn]]
		}
	}
	if len(sent) == 0 {
		return
	}
	var stored []bool
	err := b.budget.use(ctx, func(ctx context.Context) (err error) {
		stored, err = h.ses.FillTogether(ctx, fill)
		return err
	})
	h.s.recordTogether(ctx, mask, err)
	for i, f := range sent {
		switch {
		case i < len(stored) && stored[i]:
			f.Entry, f.Refusal = f.Turn.FillAs(f.Fill, fill.Items[i].Entry.ID, local.Stored)
			f.Turn.Made(f.Entry)
		case err != nil:
			f.Entry, f.Refusal = f.Turn.FillAs(f.Fill, "", local.Unknown)
			f.Turn.Made(f.Entry)
		default:
			f.Left = true
		}
	}
}

// reached returns the places that this instance has reached, from which the tier compares. The
// position of a partition is empty where the log is not followed, or has been in another era since
// the survey. The caller compares with the items in memory afterwards.
func (b *Batch) reached() []tier.Place {
	reached, before := b.held.s.places(), b.held.before
	places := make([]tier.Place, len(reached))
	for p, at := range reached {
		if len(reached) == len(before) && at.position != nil && before[p].position != nil && at.era == before[p].era && at.era != "" {
			places[p] = tier.Place{Position: *at.position, Era: at.era}
		}
	}
	return places
}

// prepare makes the entry of a value. It returns nil without a refusal if the value cannot be
// proven valid.
func (b *Batch) prepare(ctx context.Context, f *Filling, late *lateTags, places []tier.Place) (*tier.BatchItem, local.Refusal) {
	h, t := b.held, f.Turn
	i, ok := b.index[t]
	if !ok || b.parts[i] >= len(places) || places[b.parts[i]].Token == "" || f.Fill.Key != "" || f.Fill.Codec == nil {
		return nil, local.Stored
	}
	v := &b.vacancies[i]
	h.lease = tier.Lease{Key: t.Key(), Era: places[b.parts[i]].Era, Now: v.Now}
	if t.Fenced(f.Fill.Tags) {
		return nil, local.Fenced
	}
	gens, lagging, refusal := late.capture(ctx, t, f.Fill.Tags)
	switch {
	case refusal != local.Stored:
		return nil, refusal
	case f.Fill.ReplicaLag > 0 && (lagging || t.MayLag(f.Fill.ReplicaLag, t.Key(), f.Fill.Tags)):
		return nil, local.Lagging
	case h.s.Blocks(t.Key(), t.Tags()):
		return nil, local.Blocked
	}
	payload, ok := f.Fill.Codec.Encode(f.Fill.Value)
	if !ok {
		return nil, local.NoLease
	}
	item := &tier.BatchItem{
		TaggedKey:  tier.TaggedKey{Key: t.Key(), Tag: t.Tags()[0]},
		Generation: v.Generation,
		Entry:      tier.Entry{ID: v.ID, Payload: payload, LoadTime: time.Duration(h.s.local.Now() - h.began)},
	}
	if len(gens) == 0 {
		item.Entry.Tags = []tier.TagGeneration{{Tag: item.Tag, Token: v.Generation}}
		item.Entry.Eras = []tier.PartitionEra{{Partition: b.parts[i], Era: h.lease.Era}}
	} else if own := (tier.Generation{Tag: item.Tag, Token: v.Generation, Era: h.lease.Era}); !h.setGenerations(&item.Entry, t.Key(), append(gens, own)) {
		return nil, local.Fenced
	}
	stored := tier.Fill{Entry: item.Entry}
	if !h.setLifetime(&stored, &f.Fill.Lifetime) {
		return nil, local.NoLifetime
	}
	item.Entry = stored.Entry
	return item, local.Stored
}

// lateTags captures the generations of tags that the load of a batch has named, once for all values
// that carry the same ones.
type lateTags struct {
	batch    *Batch
	captured bool
	tags     []string
	gens     []tier.Generation
	lagging  bool
	refusal  local.Refusal
}

func (l *lateTags) capture(ctx context.Context, t *Turn, tags []string) ([]tier.Generation, bool, local.Refusal) {
	if len(tags) == 0 {
		return nil, false, local.Stored
	}
	if !l.captured || !slices.Equal(l.tags, tags) {
		*l = lateTags{batch: l.batch, captured: true, tags: tags}
		var captured []tier.Late
		captured, l.refusal = l.batch.held.captureLate(ctx, t, &l.batch.budget, slices.Compact(slices.Sorted(slices.Values(tags))))
		for _, c := range captured {
			l.gens, l.lagging = append(l.gens, c.Generation), l.lagging || c.Lagging
		}
	}
	gens := slices.Clone(l.gens)
	return slices.DeleteFunc(gens, func(g tier.Generation) bool { return slices.Contains(t.Tags(), g.Tag) }), l.lagging, l.refusal
}
