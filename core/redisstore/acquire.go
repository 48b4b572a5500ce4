package redisstore

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/larderhq/larder/core/internal/tier"
)

// Acquire implements tier.Session.
func (s *session) Acquire(
	ctx context.Context, key, seen string, tags []string, d time.Duration,
) (tier.Lease, error) {
	l, unreadable, err := s.acquire(ctx, key, seen, tags, d)
	if err == nil && unreadable != "" {
		// An entry that does not decode must not prevent another load.
		l, _, err = s.acquire(ctx, key, unreadable, tags, d)
	}
	if err != nil {
		return tier.Lease{}, failed("acquire", err)
	}
	return l, nil
}

// acquire is Acquire, and also returns the id of an existing entry that does not decode.
func (s *session) acquire(
	ctx context.Context, key, seen string, tags []string, d time.Duration,
) (l tier.Lease, unreadable string, err error) {
	home := s.partitionOfKey(key)
	groups := s.grouped(home, tags)
	calls := make([]call, len(groups))
	for i := range groups {
		if i == 0 {
			calls[i] = s.leaseCall(&groups[i], key, seen, d)
		} else {
			calls[i] = s.captureCall(&groups[i])
		}
	}
	sent := time.Now()
	replies, err := s.run(ctx, calls...)
	states := make([]tier.Generation, len(tags))
	if replies[0] != nil {
		var leaseErr error
		l, unreadable, leaseErr = s.readLease(&groups[0], key, sent, replies[0], states)
		l.Seen = seen
		if err == nil {
			err = leaseErr
		}
	}
	for i := 1; i < len(groups) && err == nil; i++ {
		err = s.readCaptured(&groups[i], sent, replies[i], states)
	}
	if err != nil && l.Token != "" {
		_ = s.Release(ctx, l) // no load follows, so no other caller may wait for one
	}
	if l.Busy == 0 && len(tags) > 0 {
		l.Generations = copyRepeated(tags, states)
	}
	return l, unreadable, err
}

// copyRepeated copies the state of a tag to its repetitions in the list, for which the script was
// not asked.
func copyRepeated(tags []string, states []tier.Generation) []tier.Generation {
	for i := range states {
		if states[i].Tag == "" {
			states[i] = states[slices.Index(tags, tags[i])]
		}
	}
	return states
}

// maxTagsOfCall bounds the tags of one script, since Lua accepts only some thousands of keys.
const maxTagsOfCall = 400

// group is the set of tags that one script captures. It has no duplicates. Their keys lie in the
// slot of its partition, or anywhere on the only server.
type group struct {
	partition  int
	partitions []int // of the tags: partition first
	tags       []string
	at         []int // the index of each in the caller's list
	heads      []int // the index of each one's partition in partitions
}

func (g *group) add(tag string, at, partition int) {
	head := slices.Index(g.partitions, partition)
	if head < 0 {
		head = len(g.partitions)
		g.partitions = append(g.partitions, partition)
	}
	g.tags, g.at, g.heads = append(g.tags, tag), append(g.at, at), append(g.heads, head)
}

// grouped returns the groups of tags, that of the key's partition first. A cluster has one group
// per partition, since a script touches one slot. One server has one group for all partitions, up
// to maxTagsOfCall tags.
func (s *session) grouped(home int, tags []string) []group {
	groups := make([]group, 1, 2)
	groups[0] = group{partition: home, partitions: []int{home}}
	last := make(map[int]int) // the group that a partition's next tag goes to
	var seen map[string]bool
	if len(tags) > 1 {
		seen = make(map[string]bool, len(tags))
	}
	for i, tag := range tags {
		if seen[tag] {
			continue
		}
		if seen != nil {
			seen[tag] = true
		}
		p := s.partitionOf(tag)
		to := home
		if s.nodes.cluster != nil {
			to = p
		}
		at, ok := last[to]
		if !ok && to != home || len(groups[at].tags) >= maxTagsOfCall {
			at = len(groups)
			groups = append(groups, group{partition: to, partitions: []int{to}})
			last[to] = at
		}
		groups[at].add(tag, i, p)
	}
	return groups
}

// leaseCall returns the call that acquires the lease and captures the tags of the first group.
func (s *session) leaseCall(g *group, key, seen string, d time.Duration) call {
	p, version := g.partition, s.names.version
	return s.acquireCall(g, seen, max(1, ms(d)), [4]string{
		s.names.entry(p, version, key), s.names.lease(p, version, key), s.names.keyIntents(p, key), s.names.records(p),
	})
}

// captureCall returns the call that captures the tags of a group. Its other keys never exist.
func (s *session) captureCall(g *group) call {
	nothing := s.names.nothing(g.partition)
	return s.acquireCall(g, "-", "", [4]string{nothing, nothing, nothing, nothing})
}

// acquireCall returns a call of acquire.lua with the keys of entry, lease, intents and records.
func (s *session) acquireCall(g *group, seen string, lasts any, of [4]string) call {
	n := len(g.tags)
	keys := make([]string, 0, 5+2*n+len(g.partitions))
	keys = append(keys, s.names.head(g.partition), of[0], of[1])
	for i, tag := range g.tags {
		keys = append(keys, s.names.generation(g.partitions[g.heads[i]], tag))
	}
	keys = append(keys, of[2])
	for i, tag := range g.tags {
		keys = append(keys, s.names.tagIntents(g.partitions[g.heads[i]], tag))
	}
	keys = append(keys, of[3])
	for _, p := range g.partitions[1:] {
		keys = append(keys, s.names.head(p))
	}
	args := make([]any, 0, 5+n)
	args = append(args, nonce(), seen, lasts, s.names.version, n)
	if len(g.partitions) > 1 {
		for _, head := range g.heads {
			args = append(args, head)
		}
	}
	return call{script: acquireScript, keys: keys, args: args}
}

func (s *session) readLease(
	g *group, key string, sent time.Time, v any, states []tier.Generation,
) (l tier.Lease, unreadable string, err error) {
	r := newReply(v)
	outcome, now := r.string(), r.int()
	switch outcome {
	case "busy":
		l.Busy = span(r.int())
		l.Queued = s.queuedOf(key, r.string())
	case "found":
		value, id := r.string(), r.string()
		s.readStates(g, r, states)
		if l.Found = s.entryOf(key, []byte(value), now); l.Found.ID == "" {
			unreadable = id
		}
	case "lease":
		l.Token = r.string()
		l.Open = span(r.int())
		l.Lagging = r.int() != 0
		l.Lapsed = span(r.int())
		l.Queued = s.queuedOf(key, r.string())
		home := s.readStates(g, r, states)
		l.Era, l.Sweep, l.Head = home.era, home.sweep, home.position
	default:
		if r.err == nil {
			r.err = fmt.Errorf("%w: outcome %q", errReply, outcome)
		}
	}
	if r.err != nil {
		return tier.Lease{}, "", r.err
	}
	s.clocks[g.partition].read(now, sent)
	l.Key, l.Now = key, now
	return l, unreadable, nil
}

// readCaptured reads the reply to a captureCall.
func (s *session) readCaptured(g *group, sent time.Time, v any, states []tier.Generation) error {
	r := newReply(v)
	outcome, now := r.string(), r.int()
	s.readStates(g, r, states)
	if r.err == nil && outcome != "captured" {
		r.err = fmt.Errorf("%w: outcome %q", errReply, outcome)
	}
	if r.err != nil {
		return r.err
	}
	s.clocks[g.partition].read(now, sent)
	return nil
}

// headState is the state of a head, as a script returns it.
type headState struct {
	era, sweep, position string
	lagging              bool
}

// readStates reads the states of heads and tags from a reply of acquire.lua into the caller's list.
// It returns the state of the first head.
func (s *session) readStates(g *group, r *reply, states []tier.Generation) headState {
	heads := make([]headState, len(g.partitions))
	heads[0] = headState{r.string(), r.string(), r.string(), r.int() != 0}
	others, marks := r.array(), r.array()
	for i := 1; i < len(heads); i++ {
		heads[i] = headState{era: others.string(), position: others.string(), lagging: others.int() != 0}
	}
	for i, tag := range g.tags {
		h := &heads[g.heads[i]]
		states[g.at[i]] = tier.Generation{Tag: tag, Token: r.string(), Era: h.era, Head: h.position, Lagging: h.lagging}
	}
	for marks.err == nil && len(marks.rest) > 0 {
		i, open, lagging := marks.int(), marks.int(), marks.int()
		if marks.err == nil && (i < 1 || int(i) > len(g.tags)) {
			marks.err = fmt.Errorf("%w: a mark of tag %d of %d", errReply, i, len(g.tags))
		}
		if marks.err == nil {
			st := &states[g.at[i-1]]
			st.Open, st.Lagging = span(open), st.Lagging || lagging != 0
		}
	}
	for _, part := range []*reply{others, marks} {
		if r.err == nil {
			r.err = part.err
		}
	}
	return heads[0]
}

// queuedOf returns the queued change of a record, nil if text is not a record.
func (s *session) queuedOf(key, text string) *tier.Queued {
	rec, ok := parseRecord(text)
	if !ok {
		return nil
	}
	q := rec.queued(key)
	s.openChange(rec.queue, &q)
	return &q
}
