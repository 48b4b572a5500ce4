package redisstore

import (
	"context"
	"fmt"
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

// acquire returns also the id of an entry that is there and does not decode.
func (s *session) acquire(
	ctx context.Context, key, seen string, tags []string, d time.Duration,
) (l tier.Lease, unreadable string, err error) {
	p, version := s.partitionOfKey(key), s.names.version
	calls := make([]call, 0, 1+len(tags))
	calls = append(calls, call{
		script: acquireScript,
		keys: []string{
			s.names.head(p), s.names.entry(p, version, key), s.names.lease(p, version, key), s.names.keyIntents(p, key),
			s.names.records(p),
		},
		args: []any{nonce(), seen, max(1, ms(d)), version, versionNoted.Milliseconds(), key},
	})
	for _, tag := range tags {
		calls = append(calls, s.generationCall(tag))
	}
	sent := time.Now()
	replies, err := s.run(ctx, calls...)
	if replies[0] != nil {
		var leaseErr error
		l, unreadable, leaseErr = s.readLease(p, key, sent, replies[0])
		l.Seen = seen
		if err == nil {
			err = leaseErr
		}
	}
	for i, tag := range tags {
		if err != nil {
			break
		}
		var g tier.Generation
		if g, err = s.readGeneration(tag, sent, newReply(replies[1+i])); err == nil {
			l.Generations = append(l.Generations, g)
		}
	}
	if err != nil && l.Token != "" {
		_ = s.Release(ctx, l) // no load follows, so no other caller may wait for one
	}
	return l, unreadable, err
}

func (s *session) readLease(p int, key string, sent time.Time, v any) (l tier.Lease, unreadable string, err error) {
	r := newReply(v)
	outcome := r.string()
	now := r.int()
	switch outcome {
	case "found":
		value, id := r.string(), r.string()
		if l.Found = entryOf([]byte(value), now); l.Found.ID == "" {
			unreadable = id
		}
	case "busy":
		l.Busy = span(r.int())
		l.Queued = queuedOf(key, r.string())
	case "lease":
		l = tier.Lease{Token: r.string(), Era: r.string(), Sweep: r.string()}
		l.Open = span(r.int())
		l.Lagging = r.int() != 0
		l.Lapsed = span(r.int())
		l.Head = r.string()
		l.Queued = queuedOf(key, r.string())
	default:
		if r.err == nil {
			r.err = fmt.Errorf("%w: outcome %q", errReply, outcome)
		}
	}
	if r.err != nil {
		return tier.Lease{}, "", r.err
	}
	s.clocks[p].read(now, sent)
	l.Key, l.Now = key, now
	return l, unreadable, nil
}

// queuedOf returns the queued change of a record, nil if text is no record.
func queuedOf(key, text string) *tier.Queued {
	rec, ok := parseRecord(text)
	if !ok {
		return nil
	}
	q := rec.queued(key)
	return &q
}

func (s *session) generationCall(tag string) call {
	p := s.partitionOf(tag)
	return call{
		script: generationScript,
		keys:   []string{s.names.head(p), s.names.generation(p, tag), s.names.tagIntents(p, tag)},
		args:   []any{nonce(), generationLives.Milliseconds(), generationRefresh.Milliseconds()},
	}
}

func (s *session) readGeneration(tag string, sent time.Time, r *reply) (tier.Generation, error) {
	now := r.int()
	g := tier.Generation{Tag: tag, Token: r.string(), Era: r.string()}
	g.Open = span(r.int())
	g.Lagging = r.int() != 0
	g.Head = r.string()
	if r.err != nil {
		return tier.Generation{}, r.err
	}
	s.clocks[s.partitionOf(tag)].read(now, sent)
	return g, nil
}

// Extend implements tier.Session.
func (s *session) Extend(ctx context.Context, l tier.Lease, d time.Duration) (bool, error) {
	if l.Token == "" {
		return false, nil
	}
	n, err := s.number(ctx, call{
		script: extendScript,
		keys:   []string{s.names.lease(s.partitionOfKey(l.Key), s.names.version, l.Key)},
		args:   []any{l.Token, max(1, ms(d))},
	})
	if err != nil {
		return false, failed("extend", err)
	}
	return n == 1, nil
}

// Fill implements tier.Session. The lease's token is the entry's id: an execution made
// it, and it fills once. An entry beyond the limits of the envelope is not stored.
func (s *session) Fill(ctx context.Context, l tier.Lease, f tier.Fill) (bool, error) {
	if l.Token == "" {
		return false, nil
	}
	p := s.partitionOfKey(l.Key)
	if q := s.partitionOfKey(f.Key); q != p || tier.Name(f.Key) != tier.Name(l.Key) {
		return false, fmt.Errorf("redisstore: fill: key %q is not of the name of the lease's, %q", f.Key, l.Key)
	}
	e := f.Entry
	if f.NotAfter != 0 {
		e.KeepUntil = min(e.KeepUntil, f.NotAfter)
	}
	value := encodeEnvelope(nil, &envelope{
		id:   l.Token,
		born: e.Born, freshUntil: e.FreshUntil, staleUntil: e.StaleUntil, keepUntil: e.KeepUntil,
		loadTime: e.LoadTime, provisional: e.Provisional,
		tags: e.Tags, eras: e.Eras, payload: e.Payload,
	})
	sent := time.Now()
	replies, err := s.run(ctx, call{
		script: fillScript,
		keys: []string{
			s.names.head(p), s.names.lease(p, s.names.version, l.Key), s.names.entry(p, s.names.version, f.Key),
		},
		args: []any{
			l.Token, l.Era, l.Sweep, e.KeepUntil, f.NotAfter, maxKeep.Milliseconds(),
			value, s.channel(p), l.Key, l.Seen,
		},
	})
	if err != nil {
		return false, failed("fill", err)
	}
	r := newReply(replies[0])
	now, stored := r.int(), r.int()
	if r.err != nil {
		return false, failed("fill", r.err)
	}
	s.clocks[p].read(now, sent)
	return stored == 1, nil
}

// Release implements tier.Session.
func (s *session) Release(ctx context.Context, l tier.Lease) error {
	if l.Token == "" {
		return nil
	}
	p := s.partitionOfKey(l.Key)
	if _, err := s.number(ctx, call{
		script: releaseScript,
		keys:   []string{s.names.lease(p, s.names.version, l.Key)},
		args:   []any{l.Token, s.channel(p), l.Key},
	}); err != nil {
		return failed("release", err)
	}
	return nil
}

// Note implements tier.Session. Executed twice it stores the same twice, at worst over
// something newer, which is a miss to its reader.
func (s *session) Note(ctx context.Context, key string, payload []byte, keep time.Duration) error {
	_, err := s.note(ctx, noteScript, key, nonce(), payload, keep)
	return err
}

// Learn implements tier.Session. Executed twice it returns what it has stored itself.
func (s *session) Learn(ctx context.Context, key string, payload []byte, keep time.Duration) (tier.Entry, error) {
	r, err := s.note(ctx, learnScript, key, tier.LearntMark+nonce(), payload, keep)
	if err != nil {
		return tier.Entry{}, err
	}
	now := r.int()
	was := r.string()
	if r.err != nil {
		return tier.Entry{}, failed("note", r.err)
	}
	return entryOf([]byte(was), now), nil
}

func (s *session) note(
	ctx context.Context, script *script, key, id string, payload []byte, keep time.Duration,
) (*reply, error) {
	p := s.partitionOfKey(key)
	now, _ := s.clocks[p].now()
	keep = min(keep, maxKeep)
	value := encodeEnvelope(nil, &envelope{
		id: id, born: now, freshUntil: now + ms(keep), staleUntil: now + ms(keep), keepUntil: now + ms(keep),
		payload: payload,
	})
	if len(value) == 0 {
		return nil, failed("note", fmt.Errorf("%d bytes are too long", len(payload)))
	}
	replies, err := s.run(ctx, call{
		script: script,
		keys:   []string{s.names.entry(p, s.names.version, key)},
		args:   []any{value, max(1, ms(keep)), tier.LearntMark},
	})
	if err != nil {
		return nil, failed("note", err)
	}
	return newReply(replies[0]), nil
}

// number runs a script that returns an integer.
func (s *session) number(ctx context.Context, c call) (int64, error) {
	replies, err := s.run(ctx, c)
	if err != nil {
		return 0, err
	}
	r := newReply(replies)
	n := r.int()
	return n, r.err
}
