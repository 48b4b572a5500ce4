package memtier

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/larderhq/larder/core/internal/tier"
)

// Change implements tier.Session.
func (c *session) Change(ctx context.Context, ch tier.Change) ([]tier.Logged, error) {
	if err := check(ch); err != nil {
		return nil, err
	}
	ch.Items, ch.Intent = slices.Clone(ch.Items), strings.Clone(ch.Intent)
	for i := range ch.Items {
		ch.Items[i].Value = strings.Clone(ch.Items[i].Value)
	}
	return do(ctx, c, ch.Partition, func(st *step) ([]tier.Logged, error) { return st.change(ch) })
}

func check(ch tier.Change) error {
	if ch.Partition < 0 || ch.Partition >= tier.MaxPartitions {
		return fmt.Errorf("memtier: there is no partition %d", ch.Partition)
	}
	for _, it := range ch.Items {
		if it.Kind < tier.Key || it.Kind > tier.All {
			return fmt.Errorf("memtier: a change cannot have an item of kind %d", it.Kind)
		}
	}
	return nil
}

func (st *step) change(ch tier.Change) ([]tier.Logged, error) {
	if st.shard.migrating {
		return nil, tier.ErrMigrating
	}
	h, ok := st.head()
	if ok && h.partitions != st.session.partitions() {
		return nil, fmt.Errorf("memtier: the head is of a layout of %d partitions", h.partitions)
	}
	deadline := ends(st.now, ch.Lasts)
	switch ch.Mode {
	case tier.Begin:
	case tier.Abandon:
		if !st.lift(ch) {
			return nil, nil // it is not there
		}
	default:
		for _, it := range ch.Items {
			st.remove(it)
		}
	}
	if err := st.refuseFull(); err != nil && ch.Mode != tier.Abandon {
		return nil, err // what was to be removed is gone all the same
	}
	st.writer(ch, deadline)
	if ch.Mode == tier.Begin {
		for _, it := range ch.Items {
			st.cap(it, deadline)
		}
	}
	if ch.Mode != tier.Begin && ch.Mode != tier.Abandon {
		st.lag(ch)
	}
	for _, it := range ch.Items {
		st.forgetGone(it)
	}
	if !ok {
		h = st.newHead(tier.Position{})
	}
	if ch.Mode == tier.Begin {
		h.until = max(h.until, deadline)
	}
	items := said(ch, deadline)
	logged := make([]tier.Logged, 0, len(items))
	for _, it := range items {
		switch it.Kind {
		case tier.Pattern:
			h.sweep = st.token()
		case tier.All:
			st.newEra(&h)
		}
		logged = append(logged, st.append(&h, it))
	}
	st.setHead(h)
	for _, item := range logged {
		st.publish(tier.Hint{Item: item})
	}
	return logged, nil
}

// said returns the items that a change appends to the log.
func said(ch tier.Change, deadline int64) (items []tier.Item) {
	switch ch.Mode {
	case tier.Begin:
		for _, it := range ch.Items {
			items = append(items, tier.Intent{Item: it, ID: ch.Intent, Deadline: deadline}.Begun())
		}
		return items
	case tier.End:
		return append(ch.Items[:len(ch.Items):len(ch.Items)], tier.Item{Kind: tier.Closed, Value: ch.Intent})
	case tier.Abandon:
		return []tier.Item{{Kind: tier.Closed, Value: ch.Intent}}
	}
	return ch.Items
}

// cap limits the lifetime of the target of an item to a deadline. It removes leases of a key,
// since their loads do not know of the intent.
func (st *step) cap(it tier.Item, deadline int64) {
	switch it.Kind {
	case tier.Key:
		k := intentsKey(it.Kind, it.Value)
		in := st.intentsAt(k).clone()
		for version := range st.server.versions[st.session.layout.Namespace] {
			st.endLease(it.Value, version)
			at := key{kind: Entry, version: version, name: it.Value}
			v, ok := st.get(at, st.now)
			if !ok || v.until != 0 && v.until <= deadline {
				continue
			}
			if id := v.data.(tier.Entry).ID; in.lives[id] == 0 && v.until != 0 {
				in.lives[id] = v.until
			}
			st.set(at, value{v.data, deadline})
		}
		st.setIntents(k, in)
	case tier.Tag:
		st.capGeneration(it.Value, deadline)
	}
}

// capGeneration limits the lifetime of a generation. The intents keep its former lifetime, unless
// an earlier intent has recorded it. A cap whose record is lost cannot be lifted.
func (st *step) capGeneration(tag string, deadline int64) {
	at := key{kind: Generation, name: tag}
	v, ok := st.get(at, st.now)
	if !ok {
		return
	}
	g := v.data.(generation)
	k := intentsKey(tier.Tag, tag)
	if in := st.intentsAt(k).clone(); in.made.token != g.token {
		in.made = lived{g.token, v.until, g.capped}
		st.setIntents(k, in)
	}
	st.set(at, value{generation{g.token, true}, min(v.until, deadline)})
}

// forgetGone removes from the intents on an item the expiries of entries and generations that no
// longer exist. They cannot be lifted, and overlapping intents would accumulate them.
func (st *step) forgetGone(it tier.Item) {
	if it.Kind != tier.Key && it.Kind != tier.Tag {
		return
	}
	k := intentsKey(it.Kind, it.Value)
	in := st.intentsAt(k)
	if len(in.lives) == 0 && in.made.token == "" {
		return
	}
	in = in.clone()
	if in.made.token != st.generation(it.Value).token || it.Kind == tier.Key {
		in.made = lived{}
	}
	there := map[string]bool{}
	for version := range st.server.versions[st.session.layout.Namespace] {
		there[st.entryID(it.Value, version)] = true
	}
	maps.DeleteFunc(in.lives, func(id string, _ int64) bool { return !there[id] })
	st.setIntents(k, in)
}

// entryID returns the id of the entry of a key under a version, "" if there is none.
func (st *step) entryID(name, version string) string {
	v, ok := st.get(key{kind: Entry, version: version, name: name}, st.now)
	if !ok {
		return ""
	}
	return v.data.(tier.Entry).ID
}

// lift removes the caps of an intent, as far as no other intent has one. It returns false, and
// does nothing, if the intent is missing, since others may be missing too. An intent that has
// passed its deadline cannot be lifted.
func (st *step) lift(ch tier.Change) (found bool) {
	for _, it := range ch.Items {
		if it.Kind != tier.Key && it.Kind != tier.Tag {
			continue
		}
		k := intentsKey(it.Kind, it.Value)
		in := st.intentsAt(k).clone()
		own, ok := in.writers[ch.Intent]
		found = found || ok
		if ok && own.deadline > st.now {
			delete(in.writers, ch.Intent)
			st.liftTo(it, in)
		}
	}
	return found
}

func (st *step) liftTo(it tier.Item, in intents) {
	limit := in.earliest(st.now)
	if it.Kind == tier.Tag {
		at := key{kind: Generation, name: it.Value}
		v, ok := st.get(at, st.now)
		g, _ := v.data.(generation)
		if !ok || in.made.token != g.token {
			return
		}
		until := in.made.until
		if limit != 0 {
			until = min(until, limit)
		}
		if until > st.now {
			st.set(at, value{generation{g.token, limit != 0 || in.made.capped}, until})
		}
		return
	}
	for version := range st.server.versions[st.session.layout.Namespace] {
		at := key{kind: Entry, version: version, name: it.Value}
		v, ok := st.get(at, st.now)
		if !ok {
			continue
		}
		until := in.lives[v.data.(tier.Entry).ID]
		if limit != 0 {
			until = min(until, limit)
		}
		if until > st.now {
			st.set(at, value{v.data, until})
		}
	}
}

// remove removes the target of an item: the entries and leases of a key under every version, or
// the generation of a tag.
func (st *step) remove(it tier.Item) {
	switch it.Kind {
	case tier.Key:
		for version := range st.server.versions[st.session.layout.Namespace] {
			st.del(key{kind: Entry, version: version, name: it.Value})
			st.endLease(it.Value, version)
		}
	case tier.Tag:
		st.del(key{kind: Generation, name: it.Value})
	}
}

// writer opens or closes the intent of a change.
func (st *step) writer(ch tier.Change, deadline int64) {
	if ch.Intent == "" || ch.Mode == tier.NoIntent {
		return
	}
	for _, it := range ch.Items {
		if it.Kind != tier.Key && it.Kind != tier.Tag {
			continue
		}
		k := intentsKey(it.Kind, it.Value)
		in := st.intentsAt(k).clone()
		if ch.Mode == tier.Begin {
			in.writers[ch.Intent] = writer{deadline, deadline + ch.Remain.Milliseconds()}
		} else {
			delete(in.writers, ch.Intent)
		}
		st.setIntents(k, in)
	}
}

// lag sets the marks of a change. The names that a pattern or All concerns are unknown, so that
// the whole partition gets the mark.
func (st *step) lag(ch tier.Change) {
	if ch.Lag <= 0 {
		return
	}
	for _, it := range ch.Items {
		k := lagKey()
		if it.Kind == tier.Key || it.Kind == tier.Tag {
			k = intentsKey(it.Kind, it.Value)
		}
		in := st.intentsAt(k).clone()
		in.lags = max(in.lags, ends(st.now, ch.Lag))
		st.setIntents(k, in)
	}
}

// append appends an item to the log, and moves the head to it.
func (st *step) append(h *head, it tier.Item) tier.Logged {
	var l log
	if v, ok := st.get(key{kind: Log}, st.now); ok {
		l = v.data.(log)
	}
	if n := len(l.items); n > 0 && l.items[n-1].Token != h.position.Token {
		l = log{} // left behind by a head that was lost
	}
	l.last = max(l.last+1, st.id())
	item := tier.Logged{
		Item:     it,
		Position: tier.Position{ID: strconv.FormatUint(l.last, 10), Token: st.token()},
		Before:   h.position.Token,
	}
	keep := l.items[max(0, len(l.items)+1-st.server.logItems):]
	l.items = append(slices.Clip(keep), item)
	st.set(key{kind: Log}, value{data: l})
	h.position = item.Position
	return item
}

// id returns the first id of the present time. As on Redis, ids do not decrease while a server
// keeps its data, even if the log has been lost.
func (st *step) id() uint64 { return uint64(max(1, st.now)) << idBits }

const idBits = 16

// newHead returns a head with a new era and a new sweep token.
func (st *step) newHead(at tier.Position) head {
	h := head{position: at, sweep: st.token()}
	st.newEra(&h)
	return h
}

// newEra replaces the era of a head.
func (st *step) newEra(h *head) {
	h.era, h.confirmed, h.partitions = st.token(), st.shard.id, st.session.partitions()
	h.begun = int64(st.server.executions)
}

// NewEra implements tier.Session.
func (c *session) NewEra(ctx context.Context, partition int, was string, always bool) error {
	was = strings.Clone(was)
	_, err := do(ctx, c, partition, func(st *step) (struct{}, error) {
		h, ok := st.head()
		switch {
		case !ok:
			h = st.newHead(tier.Position{ID: strconv.FormatUint(st.id()-1, 10), Token: st.token()})
		case always || h.confirmed == was:
			st.newEra(&h)
		default:
			return struct{}{}, nil
		}
		st.setHead(h)
		st.publish(tier.Hint{Item: tier.Logged{
			Item: tier.Item{Kind: tier.Era, Value: strconv.Itoa(partition)},
		}})
		return struct{}{}, nil
	})
	return err
}

// Scan implements tier.Session. Each partition is a server and a step of its own.
func (c *session) Scan(ctx context.Context, scan tier.Scan) (tier.Scanned, error) {
	type found struct {
		keys, removed int
		migrating     bool
		server        string
	}
	globs := slices.Clone(scan.Globs)
	for i := range globs {
		globs[i] = strings.Clone(globs[i])
	}
	all := c.all()
	pass := func(remove bool) ([]found, error) {
		got := make([]found, len(all))
		err := c.each(all, func(p int) error {
			one, err := do(ctx, c, p, func(st *step) (found, error) {
				f := found{migrating: st.shard.migrating, server: st.shard.id, keys: len(st.keys)}
				if remove {
					f.removed = st.sweep(globs)
				}
				return f, nil
			})
			got[p] = one
			return err
		})
		return got, err
	}
	var did tier.Scanned
	before, err := pass(true)
	for _, f := range before {
		did.Keys += int64(f.keys)
		did.Removed += int64(f.removed)
	}
	if err != nil {
		return did, err
	}
	after, err := pass(false)
	if err != nil {
		return did, err
	}
	did.Servers, did.Sure = len(all), true
	for i, f := range before {
		did.Sure = did.Sure && !f.migrating && !after[i].migrating && f.server == after[i].server
	}
	return did, nil
}
