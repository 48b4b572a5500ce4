package coherence

import (
	"context"
	"slices"
	"time"

	"github.com/larderhq/larder/core/internal/tier"
)

// Fill makes an entry of f and stores it: in the shared tier first, if there is
// one, and then in this process. What the tier refuses is stored nowhere. It waits for
// the tier for what is left of the turn's budget: what takes longer is stored behind
// the response (Deferred).
func (t *Turn) Fill(ctx context.Context, f Fill) (*Entry, Refusal) {
	s, l := t.e.shared, t.Load
	if f.refused = f.Refuse; s == nil || f.refused != Stored {
		return l.Fill(f)
	}
	h := t.held
	if h == nil || !h.end() {
		f.refused = NoLease
		return l.Fill(f)
	}
	if en, refusal, ok := t.fillBehind(ctx, h, f); ok {
		return en, refusal
	}
	left := s.Budget / 2
	if t.asked != nil {
		left = max(left, t.asked.budget.left)
	}
	en, refusal := t.fillNow(ctx, l, h, &budget{s: s, left: left}, f)
	l.made = en
	return en, refusal
}

// fillNow stores f in the tier and, if it is there, in this process.
func (t *Turn) fillNow(ctx context.Context, l *Load, h *held, b *budget, f Fill) (*Entry, Refusal) {
	f.refused = h.fill(ctx, t, b, &f)
	if f.refused == Lost && t.fencedAt(f.Tags) != 0 {
		f.refused = Fenced // the better reason
	}
	if f.refused != Stored && f.refused != Written && f.refused != Lost {
		t.e.giveBack(h)
	}
	en, tags := l.build(f)
	refusal := l.store(f, en, tags)
	if f.refused == Written { // kept in the tier, until the writer's deadline
		t.e.Count.Refused.Add(-1)
		t.e.Count.Stored.Add(1)
		refusal = Stored
	}
	return en, refusal
}

// Foresee returns why Fill would refuse f now, as far as this process knows: the
// shared tier may know better.
func (t *Turn) Foresee(f Fill) Refusal {
	switch {
	case f.Refuse != Stored:
		return f.Refuse
	case !t.MayStore():
		return NoLease
	}
	return t.Load.Foresee(f)
}

// fill stores f in the tier, and returns Written if this process must not keep it.
func (h *held) fill(ctx context.Context, t *Turn, b *budget, f *Fill) Refusal {
	e, s, l := t.e, t.e.shared, &h.lease
	key := f.Key
	if key == "" {
		key = t.key
	}
	if f.Codec == nil {
		return NoLease
	}
	gens := slices.Clone(l.Generations)
	open, lagging := l.Open, l.Lagging
	deadline := int64(0) // on the engine's clock; 0: none
	see := func(sent int64, d time.Duration) {
		if d > 0 && (deadline == 0 || sent+int64(d) < deadline) {
			deadline = sent + int64(d)
		}
	}
	see(h.sent, open)
	for _, g := range gens { // under an intent on a tag its generation expires, and what carries it
		lagging = lagging || g.Lagging
	}
	var late []string
	for _, tag := range f.Tags {
		if !slices.Contains(t.tags, tag) && !slices.Contains(late, tag) {
			late = append(late, tag)
		}
	}
	if len(late) > 0 {
		states, refusal := h.late(ctx, b, late)
		if refusal != Stored {
			return refusal
		}
		for _, st := range states {
			lagging = lagging || st.Lagging
			gens = append(gens, st.Generation)
		}
	}
	if f.ReplicaLag > 0 && (lagging || t.lags(f.ReplicaLag, key, f.Tags)) {
		return Lagging
	}
	payload, ok := f.Codec.Encode(f.Value)
	if !ok {
		return NoLease
	}
	n := e.partitions()
	rf := tier.Fill{Key: key, Entry: tier.Entry{Payload: payload, LoadTime: time.Duration(e.Now() - h.began)}}
	own := tier.Partition(Name(key), n)
	eras := map[int]string{own: l.Era}
	for _, g := range gens {
		p := tier.Partition(g.Tag, n)
		if era, ok := eras[p]; ok && era != g.Era {
			return Fenced // an era ended between the two
		}
		eras[p] = g.Era
		rf.Entry.Tags = append(rf.Entry.Tags, tier.TagGeneration{Tag: g.Tag, Token: g.Token})
	}
	for p, era := range eras {
		rf.Entry.Eras = append(rf.Entry.Eras, tier.PartitionEra{Partition: p, Era: era})
	}
	slices.SortFunc(rf.Entry.Eras, func(a, b tier.PartitionEra) int { return a.Partition - b.Partition })

	since := f.Lifetime.Since
	if since == 0 {
		since = e.Now()
	}
	fresh := since + int64(f.Lifetime.Fresh)
	stale := fresh + int64(f.Lifetime.Stale)
	keep := min(fresh+int64(max(f.Lifetime.Stale, f.Lifetime.Spare)), e.Now()+int64(maxKeep))
	if deadline != 0 {
		rf.NotAfter = h.server(deadline)
		rf.Entry.Provisional = true
		fresh, stale, keep = min(fresh, deadline), min(stale, deadline), min(keep, deadline)
	}
	if keep <= e.Now() {
		return NoLifetime
	}
	rf.Entry.Born = h.server(h.began)
	rf.Entry.FreshUntil, rf.Entry.StaleUntil, rf.Entry.KeepUntil = h.server(fresh), h.server(stale), h.server(keep)
	stored := false
	err := b.use(ctx, func(ctx context.Context) (err error) {
		stored, err = h.ses.Fill(ctx, *l, rf)
		return err
	})
	s.outcome(ctx, own, 1<<own, err)
	switch {
	case err != nil:
		return Unknown
	case !stored:
		return Lost
	case rf.Entry.Provisional:
		return Written
	}
	f.id = l.Token
	return Stored
}

// lags reports whether this process has heard of an invalidation so short before
// the load that a replica may not have.
func (t *Turn) lags(lag time.Duration, key string, late []string) bool {
	tags := append(t.tags[:len(t.tags):len(t.tags)], late...)
	t.e.journal.mu.RLock()
	defer t.e.journal.mu.RUnlock()
	return t.e.concern(t.e.journal.since(t.began-int64(lag)), key, tags) != 0
}

// server converts a time on the engine's clock to the lease's server's, rather too
// early than too late: the server's answer was made some time before it arrived.
func (h *held) server(t int64) int64 { return h.lease.Now + (t-h.received)/int64(time.Millisecond) }

// late captures the tags that the load has named only now. What came between must
// not concern them, and nothing may be missing (R10).
func (h *held) late(ctx context.Context, b *budget, tags []string) ([]tier.Late, Refusal) {
	places := make([]place, len(tags))
	for i, tag := range tags {
		places[i] = h.since[tier.Partition(tag, len(h.since))]
		if places[i].position == nil || places[i].era == "" {
			return nil, Unknown // the log is not followed at present
		}
	}
	states := make([]tier.Late, len(tags))
	asks := make([]func(context.Context) error, len(tags))
	for i, tag := range tags {
		asks[i] = func(ctx context.Context) (err error) {
			states[i], err = h.ses.Late(ctx, tag, *places[i].position)
			return err
		}
	}
	if b.together(ctx, asks) != nil {
		return nil, Unknown
	}
	for i, tag := range tags {
		st := &states[i]
		switch {
		case !st.Joined || st.Token == "" || st.Era != places[i].era:
			return nil, Unknown
		case slices.ContainsFunc(st.Items, func(it tier.Logged) bool { return names(it.Item, tag) }):
			return nil, Fenced
		case st.Lapsed > 0 && int64(st.Lapsed) <= h.e.Now()-h.sent+int64(time.Millisecond):
			return nil, Lapsed
		}
	}
	return states, Stored
}

// names reports whether an item of a tag's partition concerns the tag.
func names(it Item, tag string) bool {
	return it.Kind == tier.All || it.Kind == tier.Era || it.Kind == tier.Tag && it.Value == tag
}
