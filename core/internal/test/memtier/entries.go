package memtier

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/larderhq/larder/core/internal/tier"
)

// Get implements tier.Session.
func (c *session) Get(ctx context.Context, name string, tags []string) (tier.Entry, []string, error) {
	name = strings.Clone(name)
	read := c.read(name, tags)
	entries := make([]tier.Entry, 1)
	tokens := make([]string, len(tags))
	err := c.each(read.partitions, func(p int) error {
		got, err := do(ctx, c, p, func(st *step) (got partRead, _ error) {
			if p == read.home {
				got.entry = st.entry(name)
			}
			for _, i := range read.tags[p] {
				got.tokens = append(got.tokens, st.generation(read.names[i]).token)
			}
			return got, nil
		})
		if err != nil {
			return err
		}
		if p == read.home {
			entries[0] = got.entry
		}
		for n, i := range read.tags[p] {
			tokens[i] = got.tokens[n]
		}
		return nil
	})
	if err != nil {
		return tier.Entry{}, nil, err
	}
	return entries[0], tokens, nil
}

// Generations implements tier.Session.
func (c *session) Generations(ctx context.Context, tags []string) ([]string, error) {
	read := c.read("", tags)
	tokens := make([]string, len(tags))
	err := c.each(read.partitions, func(p int) error {
		got, err := do(ctx, c, p, func(st *step) (got []string, _ error) {
			for _, i := range read.tags[p] {
				got = append(got, st.generation(read.names[i]).token)
			}
			return got, nil
		})
		for n, i := range read.tags[p] {
			if err == nil {
				tokens[i] = got[n]
			}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return tokens, nil
}

// Note implements tier.Session.
func (c *session) Note(ctx context.Context, name string, payload []byte, keep time.Duration) error {
	name, payload = strings.Clone(name), slices.Clone(payload)
	_, err := do(ctx, c, c.home(name), func(st *step) (struct{}, error) {
		if err := st.refuseFull(); err != nil {
			return struct{}{}, err
		}
		if !tier.Learnt(st.entry(name).ID) {
			st.note(name, "", payload, keep)
		}
		return struct{}{}, nil
	})
	return err
}

// Learn implements tier.Session.
func (c *session) Learn(ctx context.Context, name string, payload []byte, keep time.Duration) (tier.Entry, error) {
	name, payload = strings.Clone(name), slices.Clone(payload)
	return do(ctx, c, c.home(name), func(st *step) (was tier.Entry, _ error) {
		if err := st.refuseFull(); err != nil {
			return was, err
		}
		was = st.entry(name)
		st.note(name, tier.LearntMark+st.token(), payload, keep)
		return was, nil
	})
}

// note stores an entry without generations and eras.
func (st *step) note(name, id string, payload []byte, keep time.Duration) {
	until := ends(st.now, keep)
	st.setEntry(name, tier.Entry{
		ID: id, Payload: payload, Born: st.now, FreshUntil: until, StaleUntil: until, KeepUntil: until,
	})
}

// partRead is the result of a read in one partition.
type partRead struct {
	entry  tier.Entry
	tokens []string
	lease  tier.Lease
	gens   []tier.Generation
}

// plan is the plan of a read: the tags of each partition.
type readPlan struct {
	names      []string
	home       int // the key's partition
	tags       map[int][]int
	partitions []int // the key's first
}

// read plans a read of a key ("": none) and tags.
func (c *session) read(name string, tags []string) readPlan {
	p := readPlan{home: -1, names: make([]string, len(tags)), tags: map[int][]int{}}
	if name != "" {
		p.home = c.home(name)
		p.partitions = append(p.partitions, p.home)
	}
	for i, tag := range tags {
		p.names[i] = strings.Clone(tag)
		at := tier.Partition(tag, c.partitions())
		if !slices.Contains(p.partitions, at) {
			p.partitions = append(p.partitions, at)
		}
		p.tags[at] = append(p.tags[at], i)
	}
	return p
}

// home returns the partition of a key.
func (c *session) home(name string) int {
	return tier.Partition(tier.Name(name), c.partitions())
}

func (st *step) entryKey(name string) key {
	return key{kind: Entry, version: st.session.layout.Version, name: name}
}

func (st *step) entry(name string) tier.Entry {
	v, ok := st.get(st.entryKey(name), st.now)
	if !ok {
		return tier.Entry{}
	}
	e := cloneEntry(v.data.(tier.Entry))
	e.Now = st.now
	return e
}

// setEntry stores an entry, which belongs to the step. An entry without an id gets a new one.
func (st *step) setEntry(name string, e tier.Entry) {
	if e.Now = 0; e.ID == "" {
		e.ID = st.token()
	}
	st.set(st.entryKey(name), value{cloneEntry(e), e.KeepUntil})
}

func cloneEntry(e tier.Entry) tier.Entry {
	e.Payload = slices.Clone(e.Payload)
	e.Tags = slices.Clone(e.Tags)
	for i, t := range e.Tags {
		e.Tags[i] = tier.TagGeneration{Tag: strings.Clone(t.Tag), Token: strings.Clone(t.Token)}
	}
	e.Eras = slices.Clone(e.Eras)
	for i := range e.Eras {
		e.Eras[i].Era = strings.Clone(e.Eras[i].Era)
	}
	return e
}
