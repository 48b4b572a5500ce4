package memtier

import (
	"context"
	"slices"
	"strings"

	"github.com/larderhq/larder/core/internal/tier"
)

// Vacancies implements tier.Session.
func (c *session) Vacancies(ctx context.Context, keys []tier.TaggedKey) ([]tier.Vacancy, error) {
	keys = slices.Clone(keys)
	for i := range keys {
		keys[i] = cloneKey(keys[i])
	}
	vacancies := make([]tier.Vacancy, len(keys))
	parts := c.byPartition(len(keys), func(i int) string { return keys[i].Key })
	return vacancies, c.each(parts.partitions, func(p int) error {
		got, err := do(ctx, c, p, func(st *step) (got []tier.Vacancy, err error) {
			if st.shard.migrating {
				return nil, errTryAgain
			}
			for _, i := range parts.items[p] {
				got = append(got, st.vacancy(keys[i]))
			}
			return got, nil
		})
		for n, i := range parts.items[p] {
			if err == nil {
				vacancies[i] = got[n]
			}
		}
		return err
	})
}

func (st *step) vacancy(k tier.TaggedKey) tier.Vacancy {
	v := tier.Vacancy{Vacant: st.entry(k.Key).ID == "", Now: st.now, ID: st.token(), Generation: st.generation(k.Tag).token}
	_, _, leased := st.lease(k.Key)
	_, queued := st.queues().Peek(k.Key)
	v.Vacant = v.Vacant && !leased && !queued
	if v.Generation == "" {
		v.Generation = st.token()
	}
	return v
}

// FillTogether implements tier.Session.
func (c *session) FillTogether(ctx context.Context, b tier.BatchFill) (stored []bool, err error) {
	items, places := slices.Clone(b.Items), slices.Clone(b.Places)
	for i := range items {
		items[i].TaggedKey, items[i].Entry = cloneKey(items[i].TaggedKey), cloneEntry(items[i].Entry)
		items[i].Generation, items[i].Entry.ID = strings.Clone(items[i].Generation), strings.Clone(items[i].Entry.ID)
	}
	stored = make([]bool, len(items))
	parts := c.byPartition(len(items), func(i int) string { return items[i].Key })
	err = c.each(parts.partitions, func(p int) error {
		if p >= len(places) {
			return nil
		}
		got, err := do(ctx, c, p, func(st *step) (got []bool, err error) {
			if st.shard.migrating {
				return nil, errTryAgain
			}
			if err := st.refuseFull(); err != nil {
				return nil, err
			}
			since, ok := st.comparable(&places[p])
			for _, i := range parts.items[p] {
				stored := ok && st.fillTogether(&items[i], since)
				if stored {
					st.server.stats.StoredTogether++
				} else {
					st.server.stats.LeftTogether++
				}
				got = append(got, stored)
			}
			return got, nil
		})
		for n, i := range parts.items[p] {
			if err == nil {
				stored[i] = got[n]
			}
		}
		return err
	})
	return stored, err
}

// comparable returns the items of the log since a place. It returns false if they cannot tell what
// has been invalidated since.
func (st *step) comparable(at *tier.Place) (since []tier.Logged, ok bool) {
	h, ok := st.head()
	if !ok || at.Era == "" || at.Token == "" || h.era != at.Era || h.partitions != st.session.partitions() || st.lagging(intents{}) {
		return nil, false
	}
	l := st.readLog(at.Position)
	return l.Items, l.Joined
}

// fillTogether stores an item of a batch, unless it is left out.
func (st *step) fillTogether(it *tier.BatchItem, since []tier.Logged) bool {
	for _, logged := range since {
		if touches(logged.Item, it.TaggedKey) {
			return false
		}
	}
	_, _, leased := st.lease(it.Key)
	_, queued := st.queues().Peek(it.Key)
	_, writes := st.get(intentsKey(tier.Key, it.Key), st.now)
	_, announces := st.get(intentsKey(tier.Tag, it.Tag), st.now)
	found := st.generation(it.Tag)
	if leased || queued || writes || announces || st.entry(it.Key).ID != "" || found.token != "" && found.token != it.Generation {
		return false
	}
	if !found.capped {
		st.set(key{kind: Generation, name: it.Tag}, value{generation{token: it.Generation}, ends(st.now, st.server.generationLife)})
	}
	if it.Entry.KeepUntil > st.now {
		st.setEntry(it.Key, it.Entry)
	}
	return true
}

// touches reports whether an item of the log keeps an item of a batch from being stored.
func touches(it tier.Item, k tier.TaggedKey) bool {
	if in, ok := tier.IntentOf(it); ok {
		it = in.Item
	}
	switch it.Kind {
	case tier.Key:
		return it.Value == k.Key
	case tier.Tag:
		return it.Value == k.Tag
	case tier.Closed:
		return false
	}
	return true
}

func cloneKey(k tier.TaggedKey) tier.TaggedKey {
	return tier.TaggedKey{Key: strings.Clone(k.Key), Tag: strings.Clone(k.Tag)}
}

// partitioned is the distribution of keys over partitions.
type partitioned struct {
	partitions []int
	items      map[int][]int
}

func (c *session) byPartition(n int, key func(int) string) partitioned {
	p := partitioned{items: map[int][]int{}}
	for i := range n {
		at := c.home(key(i))
		if p.items[at] == nil {
			p.partitions = append(p.partitions, at)
		}
		p.items[at] = append(p.items[at], i)
	}
	return p
}
