package coherence

import (
	"context"
	"slices"

	"github.com/larderhq/larder/core/internal/local"
	"github.com/larderhq/larder/core/internal/tier"
)

// admit makes an entry of this process of an entry of the tier, if it is valid: each of its
// partitions is legal and in the era of the entry, each of its tags has the generation of the
// entry, and no item that was applied since the read began concerns it.
func (f *fetch) admit(ctx context.Context, ses tier.Session, en *tier.Entry) Found {
	s, t := f.s, f.t
	value, size, now, ok := f.decode(en)
	if !ok {
		return Found{}
	}
	admitted := &local.Entry{
		Value: value, Born: now - (en.Now-en.Born)*1e6, LoadTime: int64(en.LoadTime),
		FreshUntil: now + (en.FreshUntil-en.Now)*1e6,
		StaleUntil: now + (en.StaleUntil-en.Now)*1e6,
		KeepUntil:  now + (en.KeepUntil-en.Now)*1e6,
	}
	admitted.Identify(en.ID)
	if len(en.Eras) == 0 { // a stored note, which no item invalidates
		s.local.PutNote(f.key, admitted, size)
		return Found{Entry: admitted, State: admitted.State(now)}
	}
	tags := make([]string, len(en.Tags))
	for i, tg := range en.Tags {
		tags[i] = tg.Tag
	}
	// The registration comes before the comparisons. The turn's own load was registered before
	// the entry was read.
	l := s.local.NewLoad(f.key, tags).From(t.Position())
	if !f.erasAgree(ctx, en) || !f.generationsAgree(ctx, ses, en) {
		return Found{}
	}
	if s.local.Mask(f.key, tags) != maskOf(en.Eras) {
		return Found{} // another layout placed it
	}
	refusal := l.Adopt(admitted, size, en.Provisional)
	if refusal != local.Stored && refusal != local.Written && refusal != local.TooLarge {
		return Found{fenced: refusal == local.Fenced}
	}
	state := admitted.State(s.local.Now())
	if state != local.Gone {
		t.Made(admitted)
		t.SetEntryTags(tags)
		s.count.Hits.Add(1)
	}
	return Found{Entry: admitted, State: state}
}

// decode decodes the payload of an entry. now is the time of the question, so that a slow
// reply makes no entry younger.
func (f *fetch) decode(en *tier.Entry) (value any, size int, now int64, ok bool) {
	now = f.sent
	value, size, ok = f.query.Codec.Decode(en.Payload, now-(en.Now-en.Born)*1e6)
	if !ok {
		f.s.local.Count.Undecodable.Add(1)
	}
	return value, size, now, ok
}

// erasAgree compares the eras of an entry with those that this instance knows. If they differ,
// this instance may be behind: it waits for the next round before it decides (R6).
func (f *fetch) erasAgree(ctx context.Context, en *tier.Entry) bool {
	if f.s.inEras(en.Eras) {
		return true
	}
	if f.s.anyEnded(en.Eras) {
		return false
	}
	rest := f.budget.left / 2 // for the lease
	f.budget.left -= rest
	defer func() { f.budget.left += rest }()
	_ = f.budget.use(ctx, func(ctx context.Context) error { // the comparison below decides
		return f.s.awaitRounds(ctx, func() bool { return f.s.inEras(en.Eras) })
	})
	return f.s.inEras(en.Eras)
}

// generationsAgree compares the generations of an entry with those that this instance knows. It
// asks the tier for a generation that is not known or differs, since a generation that was
// evicted and created again is no invalidation (R6).
func (f *fetch) generationsAgree(ctx context.Context, ses tier.Session, en *tier.Entry) bool {
	var ask []string
	for _, tg := range en.Tags {
		if tg.Token == "" || f.s.local.Mirrored(tg.Tag) != tg.Token {
			ask = append(ask, tg.Tag)
		}
	}
	if len(ask) == 0 {
		return true
	}
	var gens []string
	err := f.budget.use(ctx, func(ctx context.Context) (err error) {
		gens, err = ses.Generations(ctx, ask)
		return err
	})
	f.s.recordCall(ctx, tier.Partition(ask[0], f.s.local.Partitions()), f.s.local.Mask(ask[0], ask[1:]), err)
	if err != nil || len(gens) != len(ask) {
		return false
	}
	for i, tag := range ask {
		f.s.learn(f.t.Position(), tag, gens[i])
		at := slices.IndexFunc(en.Tags, func(tg tier.TagGeneration) bool { return tg.Tag == tag })
		if gens[i] == "" || gens[i] != en.Tags[at].Token {
			return false
		}
	}
	return true
}
