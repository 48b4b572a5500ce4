package coherence

import (
	"context"
	"slices"
	"time"

	"github.com/larderhq/larder/core/internal/local"
	"github.com/larderhq/larder/core/internal/tier"
)

// Fill makes an entry of f and stores it: in the shared tier first, if there is
// one, and then in this process. What the tier refuses is stored nowhere. It waits for
// the tier for what is left of the turn's budget: what takes longer is stored behind
// the response (Deferred).
func (t *Turn) Fill(ctx context.Context, f local.Fill) (*local.Entry, local.Refusal) {
	s, l := t.e.shared, t.Load
	if s == nil || f.Refuse != local.Stored {
		return l.Fill(f)
	}
	h := t.held
	if h == nil || !h.end() {
		en, refusal := l.FillAs(f, "", local.NoLease)
		l.Made(en)
		return en, refusal
	}
	if en, refusal, ok := t.fillBehind(ctx, h, f); ok {
		return en, refusal
	}
	left := s.Budget / 2
	if t.asked != nil {
		left = max(left, t.asked.budget.left)
	}
	en, refusal := t.fillNow(ctx, l, h, &budget{s: s, left: left}, f)
	l.Made(en)
	return en, refusal
}

// fillNow stores f in the tier and, if it is there, in this process.
func (t *Turn) fillNow(ctx context.Context, l *local.Load, h *held, b *budget, f local.Fill) (*local.Entry, local.Refusal) {
	id := ""
	refused := h.fill(ctx, t, b, &f)
	switch {
	case refused == local.Stored:
		id = h.lease.Token
	case refused == local.Lost && t.Fenced(f.Tags):
		refused = local.Fenced // the better reason
		t.e.shared.giveBack(h)
	case refused != local.Written && refused != local.Lost:
		t.e.shared.giveBack(h)
	}
	return l.FillAs(f, id, refused)
}

// Foresee returns why Fill would refuse f now, as far as this process knows: the
// shared tier may know better.
func (t *Turn) Foresee(f local.Fill) local.Refusal {
	switch {
	case f.Refuse != local.Stored:
		return f.Refuse
	case !t.MayStore():
		return local.NoLease
	}
	return t.Load.Foresee(f)
}

// fill stores f in the tier, and returns Written if this process must not keep it.
func (h *held) fill(ctx context.Context, t *Turn, b *budget, f *local.Fill) local.Refusal {
	s, l := h.s, &h.lease
	key := f.Key
	if key == "" {
		key = t.Key()
	}
	if f.Codec == nil {
		return local.NoLease
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
		if !slices.Contains(t.Tags(), tag) && !slices.Contains(late, tag) {
			late = append(late, tag)
		}
	}
	if len(late) > 0 {
		states, refusal := h.late(ctx, b, late)
		if refusal != local.Stored {
			return refusal
		}
		for _, st := range states {
			lagging = lagging || st.Lagging
			gens = append(gens, st.Generation)
		}
	}
	if f.ReplicaLag > 0 && (lagging || t.MayLag(f.ReplicaLag, key, f.Tags)) {
		return local.Lagging
	}
	payload, ok := f.Codec.Encode(f.Value)
	if !ok {
		return local.NoLease
	}
	n := s.local.Partitions()
	rf := tier.Fill{Key: key, Entry: tier.Entry{Payload: payload, LoadTime: time.Duration(s.local.Now() - h.began)}}
	own := tier.Partition(tier.Name(key), n)
	eras := map[int]string{own: l.Era}
	for _, g := range gens {
		p := tier.Partition(g.Tag, n)
		if era, ok := eras[p]; ok && era != g.Era {
			return local.Fenced // an era ended between the two
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
		since = s.local.Now()
	}
	fresh := since + int64(f.Lifetime.Fresh)
	stale := fresh + int64(f.Lifetime.Stale)
	keep := min(fresh+int64(max(f.Lifetime.Stale, f.Lifetime.Fallback)), s.local.Now()+int64(maxKeep))
	if deadline != 0 {
		rf.NotAfter = h.server(deadline)
		rf.Entry.Provisional = true
		fresh, stale, keep = min(fresh, deadline), min(stale, deadline), min(keep, deadline)
	}
	if keep <= s.local.Now() {
		return local.NoLifetime
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
		return local.Unknown
	case !stored:
		return local.Lost
	case rf.Entry.Provisional:
		return local.Written
	}
	return local.Stored
}

// server converts a time on the engine's clock to the lease's server's, rather too
// early than too late: the server's answer was made some time before it arrived.
func (h *held) server(t int64) int64 { return h.lease.Now + (t-h.received)/int64(time.Millisecond) }

// late captures the tags that the load has named only now. What came between must
// not concern them, and nothing may be missing (R10).
func (h *held) late(ctx context.Context, b *budget, tags []string) ([]tier.Late, local.Refusal) {
	places := make([]place, len(tags))
	for i, tag := range tags {
		places[i] = h.since[tier.Partition(tag, len(h.since))]
		if places[i].position == nil || places[i].era == "" {
			return nil, local.Unknown // the log is not followed at present
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
		return nil, local.Unknown
	}
	for i, tag := range tags {
		st := &states[i]
		switch {
		case !st.Joined || st.Token == "" || st.Era != places[i].era:
			return nil, local.Unknown
		case slices.ContainsFunc(st.Items, func(it tier.Logged) bool { return names(it.Item, tag) }):
			return nil, local.Fenced
		case st.Lapsed > 0 && int64(st.Lapsed) <= h.s.local.Now()-h.sent+int64(time.Millisecond):
			return nil, local.Lapsed
		}
	}
	return states, local.Stored
}

// names reports whether an item of a tag's partition concerns the tag.
func names(it tier.Item, tag string) bool {
	return it.Kind == tier.All || it.Kind == tier.Era || it.Kind == tier.Tag && it.Value == tag
}
