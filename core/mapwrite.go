package core

import (
	"context"
	"errors"
	"fmt"

	"github.com/larderhq/larder/core/internal/coherence"
	"github.com/larderhq/larder/core/internal/loadscope"
	"github.com/larderhq/larder/core/internal/naming"
)

// Put says that the value of id is now v: whatever carries the id's key as a tag
// is invalidated, loads under way included, and v is stored, with tags such as its
// loader would name. An error means that v was not stored; what is wrong with v
// itself is found before anything is done. Of two Puts of one id at a time the
// later one to begin wins: it is for the caller to order them as the database does.
func (m *Map[K, V]) Put(ctx context.Context, id K, v V, tags ...string) error {
	m = m.now()
	key, err := m.Key(id)
	if err != nil {
		return err
	}
	fill, err := m.filled(key, v, tags)
	if err != nil {
		return err
	}
	if m.c.engine.Closed() {
		return ErrClosed
	}
	call, cancel := m.c.bound(ctx)
	defer cancel()
	list := []coherence.Item{{Kind: coherence.Key, Value: key}, tagItem(key)}
	if !m.c.Enabled() || m.c.engine.Newer(call, key, []string{naming.Tag(key)}, fill, 0) {
		return m.c.engine.Invalidate(call, list)
	}
	return m.c.engine.Replace(call, list, key, []string{naming.Tag(key)}, fill)
}

// Write writes v through: save puts it where it really lives, and the cache has it
// when Write returns. It announces the write before (see Intent), so that no load
// that runs meanwhile leaves behind what it read too early, and stores v only if
// this writer was alone with the id and nobody has invalidated it: of writers that
// overlap nobody knows in which order the database took them, and the id is loaded
// by whoever asks next. Whatever carries the id's key as a tag is invalidated.
//
// save's error is returned as it is. A save that failed may have committed all the
// same, or may still commit: the id is invalidated, and what is loaded of it in the
// next Options.WriteTimeout is kept no longer than that. What is wrong with v itself is
// found before anything is done. While the shared tier cannot be reached, Write
// goes on and returns ErrPending, or, in a class that requires it
// (Class.ConfirmWrites), returns ErrPending before it saves.
func (m *Map[K, V]) Write(ctx context.Context, id K, v V, save func(ctx context.Context, id K, v V) error, tags ...string) error {
	m = m.now()
	key, err := m.Key(id)
	if err != nil {
		return err
	}
	if save == nil {
		return &ConfigError{"save", nil, "a function"}
	}
	fill, err := m.filled(key, v, tags)
	if err != nil {
		return err
	}
	intent, err := m.c.Begin(ctx, Key(key), Tag(key))
	if err != nil {
		return err
	}
	if intent.Pending() && m.class.ConfirmWrites { // else End tries again
		intent.Abandon()
		return intent.pending
	}
	ended := false
	defer func() {
		if !ended { // save panicked, and may have committed, or commit later
			_ = intent.Lapse(context.WithoutCancel(ctx)) // pending at worst
		}
	}()
	saved := save(ctx, id, v)
	older := saved == nil && m.c.Enabled() && m.c.engine.Newer(ctx, key, []string{naming.Tag(key)}, fill, intent.in.Began())
	ended = true
	call, cancel := m.c.request(context.WithoutCancel(ctx))
	defer cancel()
	if saved != nil {
		if err := intent.in.Lapse(call, nil); err != nil {
			return errors.Join(saved, err)
		}
		return saved
	}
	if older || !m.c.Enabled() {
		return intent.in.End(call, nil)
	}
	return intent.in.EndWith(call, key, []string{naming.Tag(key)}, fill)
}

// filled checks a value that the caller brings, and makes a fill of it.
func (m *Map[K, V]) filled(key string, v V, tags []string) (fill coherence.Fill, err error) {
	if fill.Tags, err = tagNames(tags); err != nil {
		return fill, err
	}
	if _, err := m.keep(&fill, v, ""); err != nil {
		return fill, err
	}
	if err := m.checkSize(key, fill.Size); err != nil {
		return fill, err
	}
	fill.Lifetime, fill.Codec, fill.Older = m.lifetime(loadscope.Said{}), mapCodec[K, V]{m}, m.older(v)
	return fill, nil
}

// tagNames checks tags that the caller brings, and returns what entries carry.
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

func (m *Map[K, V]) checkSize(key string, size int) error {
	if size <= m.class.MaxEntryBytes {
		return nil
	}
	return &ConfigError{"size of " + key, size, fmt.Sprintf("up to MaxEntryBytes of its class, %d", m.class.MaxEntryBytes)}
}

// older returns whether v is older than what an entry has, by their versions. nil:
// v's is not known.
func (m *Map[K, V]) older(v V) func(than *coherence.Entry) bool {
	if m.version == nil {
		return nil
	}
	own := m.version(v)
	if own <= 0 {
		return nil
	}
	return func(than *coherence.Entry) bool {
		v, err, ok := m.read(than)
		return err == nil && ok && m.version(v) > own
	}
}

// outdated reports whether what a loader returned is older than what is cached and
// may still be answered. Then that is the answer.
func (m *Map[K, V]) outdated(turn *coherence.Turn, r *loaded[V]) bool {
	older, e := m.older(r.v), m.c.engine
	if older == nil {
		return false
	}
	en, state := e.Lookup(turn.Key())
	if state < coherence.Stale || !older(en) {
		return false
	}
	v, err, ok := m.read(en)
	if err != nil || !ok {
		return false
	}
	e.Count.Refused.Add(1)
	r.v, r.from, r.entry = v, FromProcess, en
	turn.Finish(coherence.Outcome{Verdict: coherence.Shared, Entry: en})
	return true
}
