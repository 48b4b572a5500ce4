package memtier

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/larderhq/larder/core/internal/tier"
)

// Acquire implements tier.Session.
func (c *session) Acquire(
	ctx context.Context, name, seen string, tags []string, d time.Duration,
) (tier.Lease, error) {
	name, seen = strings.Clone(name), strings.Clone(seen)
	read := c.read(name, tags)
	if name == "" { // is a key as well
		read.home = c.home(name)
		if !slices.Contains(read.partitions, read.home) {
			read.partitions = append(read.partitions, read.home)
		}
	}
	leases := make([]tier.Lease, 1)
	gens := make([]tier.Generation, len(tags))
	err := c.each(read.partitions, func(p int) error {
		got, err := do(ctx, c, p, func(st *step) (got partRead, err error) {
			if st.shard.migrating {
				return got, errTryAgain
			}
			for _, i := range read.tags[p] {
				g, err := st.capture(read.names[i])
				if err != nil {
					return got, err
				}
				got.gens = append(got.gens, g)
			}
			if p == read.home {
				got.lease, err = st.acquire(name, seen, d)
			}
			return got, err
		})
		if err != nil {
			return err
		}
		if p == read.home {
			leases[0] = got.lease
		}
		for n, i := range read.tags[p] {
			gens[i] = got.gens[n]
		}
		return nil
	})
	if err != nil {
		return tier.Lease{}, err
	}
	if leases[0].Busy == 0 {
		leases[0].Generations = gens
	}
	return leases[0], nil
}

func (st *step) leaseKey(name string) key {
	return key{kind: Lease, version: st.session.layout.Version, name: name}
}

// lease returns the lease of a key, and its end.
func (st *step) lease(name string) (l lease, until int64, ok bool) {
	v, ok := st.get(st.leaseKey(name), st.now)
	if !ok {
		return lease{}, 0, false
	}
	return v.data.(lease), v.until, true
}

func (st *step) acquire(name, seen string, d time.Duration) (tier.Lease, error) {
	in := st.intents(tier.Key, name)
	l := tier.Lease{Key: name, Seen: seen, Now: st.now, Open: in.open(st.now), Lapsed: in.lapsed(st.now), Lagging: st.lagging(in)}
	// Without a head there is no era, and no value is stored.
	if h, ok := st.head(); ok {
		l.Era, l.Sweep, l.Head = h.era, h.sweep, h.position.Token
	}
	if e := st.entry(name); e.ID != "" && e.ID != seen {
		l.Found = e
		return l, nil
	}
	if queued, ok := st.queues().Peek(name); ok {
		l.Queued = &queued
	}
	if held, until, ok := st.lease(name); ok {
		if !held.waited {
			held.waited = true
			st.set(st.leaseKey(name), value{held, until})
		}
		l.Busy = remaining(until, st.now)
		return l, nil
	}
	if err := st.refuseFull(); err != nil {
		return tier.Lease{}, err
	}
	l.Token = st.token()
	st.set(st.leaseKey(name), value{lease{token: l.Token}, ends(st.now, d)})
	return l, nil
}

// Extend implements tier.Session.
func (c *session) Extend(ctx context.Context, l tier.Lease, d time.Duration) (bool, error) {
	name, token := strings.Clone(l.Key), strings.Clone(l.Token)
	return do(ctx, c, c.home(name), func(st *step) (bool, error) {
		held, _, ok := st.lease(name)
		if !ok || held.token != token {
			return false, nil
		}
		st.set(st.leaseKey(name), value{held, ends(st.now, d)})
		return true, nil
	})
}

// Fill implements tier.Session.
func (c *session) Fill(ctx context.Context, l tier.Lease, f tier.Fill) (bool, error) {
	f.Key, f.Entry = strings.Clone(f.Key), cloneEntry(f.Entry)
	l = tier.Lease{
		Key: strings.Clone(l.Key), Seen: strings.Clone(l.Seen), Token: strings.Clone(l.Token), Era: strings.Clone(l.Era), Sweep: strings.Clone(l.Sweep),
	}
	return do(ctx, c, c.home(l.Key), func(st *step) (bool, error) {
		if st.shard.migrating {
			return false, errTryAgain
		}
		if err := st.refuseFull(); err != nil {
			return false, err
		}
		held, _, ok := st.lease(l.Key)
		if !ok || held.token != l.Token {
			st.server.stats.FencedFills++
			return false, nil
		}
		st.endLease(l.Key, st.session.layout.Version)
		h, ok := st.head()
		e := f.Entry
		if f.NotAfter != 0 {
			e.KeepUntil = min(e.KeepUntil, f.NotAfter)
		}
		if !ok || l.Era == "" || h.era != l.Era || h.sweep != l.Sweep ||
			h.partitions != st.session.partitions() || e.KeepUntil <= st.now || st.learnt(f.Key, l.Seen) {
			st.server.stats.FencedFills++
			return false, nil
		}
		e.ID = l.Token
		st.setEntry(f.Key, e)
		return true, nil
	})
}

// learnt reports whether there is an entry that a fill must not replace.
func (st *step) learnt(name, seen string) bool {
	id := st.entry(name).ID
	return tier.Learnt(id) && id != seen
}

// Release implements tier.Session.
func (c *session) Release(ctx context.Context, l tier.Lease) error {
	name, token := strings.Clone(l.Key), strings.Clone(l.Token)
	_, err := do(ctx, c, c.home(name), func(st *step) (struct{}, error) {
		if held, _, ok := st.lease(name); ok && held.token == token {
			st.endLease(name, st.session.layout.Version)
		}
		return struct{}{}, nil
	})
	return err
}

// endLease ends the lease of a key, if there is one, and wakes its waiters.
func (st *step) endLease(name, version string) {
	k := key{kind: Lease, version: version, name: name}
	v, ok := st.get(k, st.now)
	if !ok {
		return
	}
	st.del(k)
	if v.data.(lease).waited {
		st.publish(tier.Hint{Wake: name})
	}
}
