package memtier

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/larderhq/larder/core/internal/glob"
	"github.com/larderhq/larder/core/internal/tier"
)

// Heads implements tier.Session.
func (c *session) Heads(ctx context.Context) ([]tier.Head, error) {
	all := c.all()
	heads := make([]tier.Head, len(all))
	err := c.each(all, func(p int) error {
		h, err := do(ctx, c, p, func(st *step) (tier.Head, error) {
			return st.readHead(), nil
		})
		heads[p], heads[p].Err = h, err
		return err
	})
	if err != nil && !slices.ContainsFunc(heads, func(h tier.Head) bool { return h.Err == nil }) {
		return nil, err
	}
	return heads, nil
}

func (st *step) readHead() tier.Head {
	r := tier.Head{Server: st.shard.id, Now: st.now}
	h, ok := st.head()
	if !ok {
		r.Missing = true
		return r
	}
	r.Position, r.Era, r.Sweep, r.Begun = h.position, h.era, h.sweep, h.begun
	r.Confirmed, r.Partitions, r.Protocol, r.Until = h.confirmed, h.partitions, tier.Protocol, h.until
	return r
}

// Log implements tier.Session.
func (c *session) Log(ctx context.Context, partition int, after tier.Position) (tier.Log, error) {
	after = tier.Position{ID: strings.Clone(after.ID), Token: strings.Clone(after.Token)}
	return do(ctx, c, partition, func(st *step) (tier.Log, error) { return st.readLog(after), nil })
}

func (st *step) readLog(after tier.Position) tier.Log {
	var l log
	if v, ok := st.get(key{kind: Log}, st.now); ok {
		l = v.data.(log)
	}
	for i, it := range l.items {
		if it.Token == after.Token {
			return tier.Log{Items: slices.Clone(l.items[i+1:]), Joined: true}
		}
	}
	if h, ok := st.head(); ok && h.position.Token == after.Token {
		return tier.Log{Joined: true}
	}
	if len(l.items) == 0 {
		return tier.Log{}
	}
	r := tier.Log{Items: slices.Clone(l.items), Joined: l.items[0].Before == after.Token}
	if !r.Joined {
		// By id, as on Redis. An id proves nothing about another log.
		id, err := strconv.ParseUint(after.ID, 10, 64)
		first, _ := strconv.ParseUint(l.items[0].ID, 10, 64)
		r.Trimmed = err == nil && id < first
	}
	if r.Trimmed {
		st.server.stats.TrimmedBefore++
	}
	return r
}

// Late implements tier.Session.
func (c *session) Late(ctx context.Context, tag string, since tier.Position) (tier.Late, error) {
	tag = strings.Clone(tag)
	since = tier.Position{ID: strings.Clone(since.ID), Token: strings.Clone(since.Token)}
	return do(ctx, c, tier.Partition(tag, c.partitions()), func(st *step) (late tier.Late, err error) {
		if st.shard.migrating {
			return late, errTryAgain
		}
		if late.Generation, err = st.capture(tag); err != nil {
			return tier.Late{}, err
		}
		late.Log = st.readLog(since)
		late.Lapsed = st.intents(tier.Tag, tag).lapsed(st.now)
		return late, nil
	})
}

// sweep removes the entries of every version whose names match.
func (st *step) sweep(globs []string) (removed int) {
	for k := range st.keys {
		matches := func(pattern string) bool { return glob.Match(pattern, tier.Name(k.name)) }
		if k.kind == Entry && slices.ContainsFunc(globs, matches) {
			st.del(k)
			removed++
		}
	}
	return removed
}
