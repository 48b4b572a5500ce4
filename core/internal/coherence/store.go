package coherence

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/larderhq/larder/core/internal/local"
	"github.com/larderhq/larder/core/internal/tier"
)

// Fill makes an entry of f and stores it: in the shared tier first, if there is one, and
// then in this process. An entry that the tier refuses is stored nowhere. Fill waits for the
// tier for the rest of the turn's budget. A fill that takes longer continues behind the
// response (Deferred).
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
	if t.fetch != nil {
		left = max(left, t.fetch.budget.left)
	}
	en, refusal := t.fillNow(ctx, l, h, &budget{s: s, left: left}, f)
	l.Made(en)
	return en, refusal
}

// fillNow stores f in the tier and, if that succeeds, in this process.
func (t *Turn) fillNow(ctx context.Context, l *local.Load, h *heldLease, b *budget, f local.Fill) (*local.Entry, local.Refusal) {
	id := ""
	refused := h.fill(ctx, t, b, &f)
	switch {
	case refused == local.Stored:
		id = h.lease.Token
	case refused == local.Lost && t.Fenced(f.Tags):
		refused = local.Fenced // the cause of the loss
		t.e.shared.giveBack(h)
	case refused != local.Written && refused != local.Lost:
		t.e.shared.giveBack(h)
	}
	return l.FillAs(f, id, refused)
}

// fill stores f in the tier. It returns Written if this process must not keep a copy.
func (h *heldLease) fill(ctx context.Context, t *Turn, b *budget, f *local.Fill) local.Refusal {
	key := cmp.Or(f.Key, t.Key())
	if f.Codec == nil {
		return local.NoLease
	}
	gens, lagging, refusal := h.capture(ctx, t, b, f.Tags)
	if refusal != local.Stored {
		return refusal
	}
	if f.ReplicaLag > 0 && (lagging || t.MayLag(f.ReplicaLag, key, f.Tags)) {
		return local.Lagging
	}
	payload, ok := f.Codec.Encode(f.Value)
	if !ok {
		return local.NoLease
	}
	fill := tier.Fill{Key: key, Entry: tier.Entry{Payload: payload, LoadTime: time.Duration(h.s.local.Now() - h.began)}}
	if !h.setGenerations(&fill.Entry, key, gens) {
		return local.Fenced
	}
	if !h.setLifetime(&fill, &f.Lifetime) {
		return local.NoLifetime
	}
	return h.send(ctx, b, &fill)
}

// capture returns the generations that came with the lease and those of the tags that the
// load has named late. lagging: a replica may have answered the load.
func (h *heldLease) capture(ctx context.Context, t *Turn, b *budget, tags []string) (gens []tier.Generation, lagging bool, refusal local.Refusal) {
	gens, lagging = slices.Clone(h.lease.Generations), h.lease.Lagging
	for _, g := range gens {
		lagging = lagging || g.Lagging
	}
	var late []string
	for _, tag := range tags {
		if !slices.Contains(t.Tags(), tag) && !slices.Contains(late, tag) {
			late = append(late, tag)
		}
	}
	if len(late) == 0 {
		return gens, lagging, local.Stored
	}
	captured, refusal := h.captureLate(ctx, t, b, late)
	for _, c := range captured {
		lagging = lagging || c.Lagging
		gens = append(gens, c.Generation)
	}
	return gens, lagging, refusal
}

// captureLate captures the generations of late tags. No item since the position before the
// load may concern them, and no part of the log may be missing (R10).
func (h *heldLease) captureLate(ctx context.Context, t *Turn, b *budget, tags []string) ([]tier.Late, local.Refusal) {
	before := make([]place, len(tags))
	for i, tag := range tags {
		before[i] = h.before[tier.Partition(tag, len(h.before))]
		if before[i].position == nil || before[i].era == "" {
			return nil, local.Unknown // the log is not followed at present
		}
	}
	if refusal := h.compareInMemory(t, tags, before); refusal != local.Stored {
		return nil, refusal
	}
	captured := make([]tier.Late, len(tags))
	questions := make([]func(context.Context) error, len(tags))
	for i, tag := range tags {
		questions[i] = func(ctx context.Context) (err error) {
			captured[i], err = h.ses.Late(ctx, tag, *before[i].position)
			return err
		}
	}
	if b.together(ctx, questions) != nil {
		return nil, local.Unknown
	}
	for i, tag := range tags {
		c := &captured[i]
		switch {
		case !c.Joined || c.Token == "" || c.Era != before[i].era:
			return nil, local.Unknown
		case slices.ContainsFunc(c.Items, func(it tier.Logged) bool { return concernsTag(it.Item, tag) }):
			return nil, local.Fenced
		case h.s.lapsedSince(c.Lapsed, h.sent):
			return nil, local.Lapsed
		}
	}
	return captured, local.Stored
}

// compareInMemory compares late tags with the items that this process has applied since the
// load was registered, however many those are, and moves the places to compare from up to the
// last of them: the tier's log tells what follows, in the step of the capture. A position that
// was not reached item by item was adopted, which ages the partition: that is an item in memory.
//
// A write compares from its begin, which the registration of its load follows (R25): then the
// tier's log has to tell all.
func (h *heldLease) compareInMemory(t *Turn, tags []string, places []place) local.Refusal {
	if !h.registered {
		return local.Stored
	}
	reached := h.s.places()
	if len(h.before) != len(reached) {
		return local.Unknown // another layout was adopted
	}
	for i, tag := range tags {
		at := reached[tier.Partition(tag, len(reached))]
		if at.position == nil || at.era != places[i].era {
			return local.Unknown
		}
		places[i] = at
	}
	if t.Fenced(tags) {
		return local.Fenced
	}
	return local.Stored
}

// concernsTag reports whether an item of a tag's partition concerns the tag.
func concernsTag(it tier.Item, tag string) bool {
	return it.Kind == tier.All || it.Kind == tier.Era || it.Kind == tier.Tag && it.Value == tag
}

// setGenerations enters the generations of an entry and the eras of its partitions. It returns
// false if two captures of one partition are of different eras: an era ended in between.
func (h *heldLease) setGenerations(en *tier.Entry, key string, gens []tier.Generation) bool {
	n := h.s.local.Partitions()
	eras := map[int]string{tier.Partition(tier.Name(key), n): h.lease.Era}
	for _, g := range gens {
		p := tier.Partition(g.Tag, n)
		if era, ok := eras[p]; ok && era != g.Era {
			return false
		}
		eras[p] = g.Era
		en.Tags = append(en.Tags, tier.TagGeneration{Tag: g.Tag, Token: g.Token})
	}
	for p, era := range eras {
		en.Eras = append(en.Eras, tier.PartitionEra{Partition: p, Era: era})
	}
	slices.SortFunc(en.Eras, func(a, b tier.PartitionEra) int { return a.Partition - b.Partition })
	return true
}

// setLifetime enters the times of an entry. Under an open intent on its key the entry is
// provisional: it expires at the deadline (R9). It returns false if the entry has expired.
//
// A deadline on a tag needs no time here: the tag's generation expires at it.
func (h *heldLease) setLifetime(fill *tier.Fill, life *local.Lifetime) bool {
	now, en := h.s.local.Now(), &fill.Entry
	since := cmp.Or(life.Since, now)
	fresh := since + int64(life.Fresh)
	stale := fresh + int64(life.Stale)
	keep := min(fresh+int64(max(life.Stale, life.Fallback)), now+int64(maxKeep))
	if h.lease.Open > 0 {
		deadline := h.sent + int64(h.lease.Open)
		fill.NotAfter = h.serverTime(deadline)
		en.Provisional = true
		fresh, stale, keep = min(fresh, deadline), min(stale, deadline), min(keep, deadline)
	}
	if keep <= now {
		return false
	}
	en.Born = h.serverTime(h.began)
	en.FreshUntil, en.StaleUntil, en.KeepUntil = h.serverTime(fresh), h.serverTime(stale), h.serverTime(keep)
	return true
}

// serverTime converts a time on the engine's clock to that of the lease's server. The result
// is early by the duration of the reply with the lease.
func (h *heldLease) serverTime(t int64) int64 {
	return h.lease.Now + (t-h.received)/int64(time.Millisecond)
}

// send stores a fill in the tier.
func (h *heldLease) send(ctx context.Context, b *budget, fill *tier.Fill) local.Refusal {
	stored := false
	err := b.use(ctx, func(ctx context.Context) (err error) {
		stored, err = h.ses.Fill(ctx, h.lease, *fill)
		return err
	})
	p := tier.Partition(tier.Name(fill.Key), h.s.local.Partitions())
	h.s.recordCall(ctx, p, 1<<p, err)
	switch {
	case err != nil:
		return local.Unknown
	case !stored:
		return local.Lost
	case fill.Entry.Provisional:
		return local.Written
	}
	return local.Stored
}
