package core

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/larderhq/larder/core/internal/coherence"
	"github.com/larderhq/larder/core/internal/loadscope"
	"github.com/larderhq/larder/core/internal/local"
	"github.com/larderhq/larder/core/internal/naming"
	"github.com/larderhq/larder/core/internal/tier"
)

// Put stores v as the value of id, and invalidates each entry that carries the id's key as
// a tag, loads under way included. The value carries tags, as if its loader had added them
// ([AddTags]), at most [MaxTagsPerEntry]. Of two concurrent Puts of one id the one that
// began later wins: the caller orders them as the database does.
//
// An error says that v was not stored. A *[ConfigError], a value that does not encode, and
// [ErrClosed] come before anything has been done; with [ErrPending] the invalidation is
// pending. ctx bounds the wait for the shared tier: without a deadline, a second.
func (m *Map[K, V]) Put(ctx context.Context, id K, v V, tags ...string) error {
	key, err := m.Key(id)
	if err != nil {
		return err
	}
	return m.base.snapshot().put(ctx, put{key, &v}, tags)
}

// Write writes v through: save puts it into the database, and the cache holds it when
// Write returns. Write opens an intent before save (see [Intent]), so that a concurrent
// load cannot leave behind the value that it read before. It stores v only if no other
// writer of the id was at work and the id was not invalidated: when writes of one id
// overlap, their commit order is unknown, so Write caches neither, and the next Get loads.
// Each entry that carries the id's key as a tag is invalidated.
//
// An error of save is returned unchanged, or joined with ErrPending. A save that failed may
// still commit: the id is invalidated, and for the next Options.WriteTimeout values of it
// are kept no longer than that. A *[ConfigError] and a value that does not encode come
// before save is called. While the shared tier cannot be reached, Write saves and returns
// [ErrPending]; with Class.ConfirmWrites it returns ErrPending before it saves.
func (m *Map[K, V]) Write(ctx context.Context, id K, v V, save func(ctx context.Context, id K, v V) error, tags ...string) error {
	key, err := m.Key(id)
	if err != nil {
		return err
	}
	if save == nil {
		return &ConfigError{"save", nil, "a function"}
	}
	return m.base.snapshot().write(ctx, put{key, &v}, tags, func(ctx context.Context) error { return save(ctx, id, v) })
}

// put is a key and a boxed value for it.
type put struct {
	key   string
	value any
}

func (s *snapshot) put(ctx context.Context, p put, tags []string) error {
	fill, err := s.filled(p, tags)
	if err != nil {
		return err
	}
	if s.c.engine.Closed() {
		return ErrClosed
	}
	call, cancel := s.c.bound(ctx)
	defer cancel()
	list := []tier.Item{{Kind: tier.Key, Value: p.key}, tagItem(p.key)}
	own := []string{naming.Tag(p.key)}
	if !s.c.Enabled() || s.c.engine.Newer(call, p.key, own, fill, 0) {
		return s.c.engine.Invalidate(call, list)
	}
	return s.c.engine.Replace(call, list, p.key, own, fill)
}

// putAll puts several values. each has their errors, by index; err says that none was put.
func (s *snapshot) putAll(ctx context.Context, puts []put, tags []string) (each []error, err error) {
	for _, p := range puts {
		if _, err := s.filled(p, tags); err != nil {
			return nil, err
		}
	}
	each = make([]error, len(puts))
	slots := make(chan struct{}, maxParallel)
	var all sync.WaitGroup
	for i, p := range puts {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			each[i] = s.put(ctx, p, tags)
		})
	}
	all.Wait()
	return each, nil
}

func (s *snapshot) write(ctx context.Context, p put, tags []string, save func(context.Context) error) error {
	fill, err := s.filled(p, tags)
	if err != nil {
		return err
	}
	intent, err := s.c.Begin(ctx, Key(p.key), Tag(p.key))
	if err != nil {
		return err
	}
	if intent.Pending() && s.class.ConfirmWrites { // else End tries again
		intent.Abandon()
		return intent.pending
	}
	ended := false
	defer func() {
		if !ended { // save panicked, and may have committed, or commit later
			_ = intent.Lapse(context.WithoutCancel(ctx)) // pending at worst
		}
	}()
	own := []string{naming.Tag(p.key)}
	saved := save(ctx)
	older := saved == nil && s.c.Enabled() && s.c.engine.Newer(ctx, p.key, own, fill, intent.in.Began())
	ended = true
	call, cancel := s.c.request(context.WithoutCancel(ctx))
	defer cancel()
	if saved != nil {
		if err := intent.in.Lapse(call, nil); err != nil {
			return errors.Join(saved, err)
		}
		return saved
	}
	if older || !s.c.Enabled() {
		return intent.in.End(call, nil)
	}
	return intent.in.EndWith(call, p.key, own, fill)
}

// filled checks a value that the caller brings, and returns a fill of it.
func (s *snapshot) filled(p put, tags []string) (fill local.Fill, err error) {
	if fill.Tags, err = tagNames(tags); err != nil {
		return fill, err
	}
	if _, err := s.keep(&fill, p.value, ""); err != nil {
		return fill, err
	}
	if err := s.checkSize(p.key, fill.Size); err != nil {
		return fill, err
	}
	fill.Lifetime, fill.Older = s.lifetime(loadscope.Said{}), s.older(p.value)
	return fill, nil
}

// tagNames checks tags that the caller brings, and returns the names that entries carry.
func tagNames(tags []string) (names []string, err error) {
	if len(tags) > MaxTagsPerEntry {
		return nil, &ConfigError{"tags", len(tags), fmt.Sprintf("at most %d", MaxTagsPerEntry)}
	}
	for _, tag := range tags {
		if err := checkName("Tag", tag); err != nil {
			return nil, err
		}
		names = append(names, naming.Tag(tag))
	}
	return names, nil
}

func (s *snapshot) checkSize(key string, size int) error {
	if size <= s.class.MaxEntryBytes {
		return nil
	}
	return &ConfigError{"size of " + key, size, fmt.Sprintf("up to MaxEntryBytes of its class, %d", s.class.MaxEntryBytes)}
}

// older returns a function that reports whether a value is older than an entry, by their
// versions. It is nil if the value has no version.
func (s *snapshot) older(value any) func(than *local.Entry) bool {
	if s.values.version == nil {
		return nil
	}
	own := s.values.version(value)
	if own <= 0 {
		return nil
	}
	return func(than *local.Entry) bool {
		a, ok := s.read(than)
		return ok && a.err == nil && s.values.version(a.value) > own
	}
}

// outdated reports whether a loaded value is older than the cached one that may still be
// answered. Then the cached value is the answer, and the turn has ended.
func (s *snapshot) outdated(turn *coherence.Turn, r *loaded) bool {
	older, e := s.older(r.value), s.c.engine
	if older == nil {
		return false
	}
	en, state := e.Lookup(turn.Key())
	if state < local.Stale || !older(en) {
		return false
	}
	a, ok := s.read(en)
	if !ok || a.err != nil {
		return false
	}
	e.Count.Refused.Add(1)
	r.value, r.from, r.entry = a.value, FromProcess, en
	turn.Finish(local.Outcome{Verdict: local.Shared, Entry: en})
	return true
}
