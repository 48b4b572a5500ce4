package redisstore

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/larderhq/larder/core/internal/tier"
)

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

// Fill implements tier.Session. The id of the entry is the token of the lease. One execution has
// created the token, and it fills once. An entry beyond the limits of the envelope is not stored.
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
	value := s.encode(f.Key, &envelope{
		id:   l.Token,
		born: e.Born, freshUntil: e.FreshUntil, staleUntil: e.StaleUntil, keepUntil: e.KeepUntil,
		loadTime: e.LoadTime, provisional: e.Provisional,
		tags: e.Tags, eras: e.Eras, payload: e.Payload,
	})
	args := make([]any, 0, 8)
	args = append(args, l.Token, l.Era, l.Sweep, e.KeepUntil, value, s.channel(p))
	if longest := s.longestLife(p, l, e.KeepUntil, f.NotAfter); l.Seen != "" || longest != "" {
		args = append(args, l.Seen, longest)
	}
	stored, err := s.number(ctx, call{
		script: fillScript,
		keys: []string{
			s.names.head(p), s.names.lease(p, s.names.version, l.Key), s.names.entry(p, s.names.version, f.Key),
		},
		args: args,
	})
	if err != nil {
		return false, failed("fill", err)
	}
	return stored == 1, nil
}

// clearlyAhead is the time before the end of an entry beyond which the server's clock is not asked
// whether the end has passed.
const clearlyAhead = 10_000

// longestLife returns the longest life of an entry that the script has to compare with the server's
// clock, in milliseconds. It is "" if the end of the entry is clearly ahead, and no later than the
// longest life after the lease, since the generations that came with the lease live longer.
func (s *session) longestLife(p int, l tier.Lease, keepUntil, notAfter int64) string {
	now, known := s.clocks[p].now()
	if notAfter == 0 && l.Now != 0 && known && keepUntil > now+clearlyAhead && keepUntil <= l.Now+maxKeep.Milliseconds() {
		return ""
	}
	return strconv.FormatInt(maxKeep.Milliseconds(), 10)
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

// Note implements tier.Session. A second execution stores the same note again, at worst over a
// newer one, which costs a miss.
func (s *session) Note(ctx context.Context, key string, payload []byte, keep time.Duration) error {
	_, err := s.note(ctx, noteScript, key, nonce(), payload, keep)
	return err
}

// Learn implements tier.Session. A second execution returns the note that the first one has stored.
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
	return s.entryOf(key, []byte(was), now), nil
}

func (s *session) note(
	ctx context.Context, script *script, key, id string, payload []byte, keep time.Duration,
) (*reply, error) {
	p := s.partitionOfKey(key)
	now, _ := s.clocks[p].now()
	keep = min(keep, maxKeep)
	value := s.encode(key, &envelope{
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
