package local

import (
	"encoding/binary"

	"github.com/maypok86/otter/v2"
)

// Codec translates values of one kind for a shared tier.
type Codec interface {
	// Encode returns the payload for a value; ok is false if it has none.
	Encode(value any) (payload []byte, ok bool)
	// Decode returns the value of a payload and its size in memory. It may retain the payload.
	// born is the begin of the value's load, on the clock of the cache.
	Decode(payload []byte, born int64) (value any, size int, ok bool)
}

// A Lasting value is a note, for example the list of the fields on which the responses of a
// resource vary. During its lifetime only a note that covers it replaces it. Notes of several
// loads and instances are merged.
type Lasting interface {
	// Covers reports whether the note contains all of another one.
	Covers(other Lasting) bool
	// Join returns a note that contains both. It must be fast, since the caller holds a lock.
	Join(other Lasting) Lasting
	// Size returns the size in memory, in bytes.
	Size() int
	// Codec returns the codec for the shared tier.
	Codec() Codec
}

// Amend replaces the note under key by the result of fn, in one step. fn gets the note and the
// end of its lifetime, or nil, and returns the new note and the end of its lifetime, on the
// clock of the cache. A nil result changes nothing. fn is called once at most. It may call Now
// and no other method of the cache.
func (c *Cache) Amend(key string, fn func(old Lasting, until int64) (value Lasting, keep int64)) {
	generations := c.eraGenerations(nil, c.Mask(key, nil))
	c.journal.mu.RLock()
	defer c.journal.mu.RUnlock()
	if c.closed.Load() {
		return
	}
	now, head := c.Now(), c.journal.head
	c.tier.cache.Compute(key, func(en *Entry, found bool) (*Entry, otter.ComputeOp) {
		var old Lasting
		until := int64(0)
		if found && en.State(now) != Gone {
			if old, _ = en.Value.(Lasting); old != nil {
				until = en.KeepUntil
			}
		}
		value, keep := fn(old, until)
		if value == nil || keep <= now {
			return en, otter.CancelOp
		}
		next := &Entry{
			Value: value, Born: now, FreshUntil: keep, StaleUntil: keep, KeepUntil: keep,
			weight: Weigh(key, value.Size(), 0),
		}
		next.depend(generations, 0, "")
		next.compared.Store(head)
		return next, otter.WriteOp
	})
}

// Join stores a note under key, merged with the note that is there.
func (c *Cache) Join(key string, value Lasting, keep int64) {
	c.Amend(key, func(old Lasting, until int64) (Lasting, int64) {
		if old == nil {
			return value, keep
		}
		return old.Join(value), max(until, keep)
	})
}

// putUnless inserts an entry that has been compared with the whole log into the tier. It returns
// false, and inserts nothing, if a note is under key. The caller holds the journal's lock, for
// reading at least.
func (c *Cache) putUnless(key string, en *Entry) bool {
	en.compared.Store(c.journal.head)
	now, put := c.Now(), true
	c.tier.cache.Compute(key, func(old *Entry, found bool) (*Entry, otter.ComputeOp) {
		if found && old.State(now) != Gone {
			if _, lasts := old.Value.(Lasting); lasts {
				put = false
				return old, otter.CancelOp
			}
		}
		return en, otter.WriteOp
	})
	if put && en.is(ownTag) {
		c.ownTags.Add(1)
	}
	return put
}

// LearntItem returns the item that carries a note of a key to other instances. It is logged in
// the partition of the key. Its value ends in NameEnd, as no key does.
func LearntItem(key string, payload []byte) Item {
	b := append([]byte(key), payload...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
	return Item{Kind: Key, Value: string(append(b, NameEnd))}
}

// learntOf returns the key and the note of a LearntItem.
func learntOf(it Item) (key, payload string, ok bool) {
	n := len(it.Value) - 5
	if it.Kind != Key || n < 0 || it.Value[n+4] != NameEnd {
		return "", "", false
	}
	size := uint64(binary.BigEndian.Uint32([]byte(it.Value[n : n+4])))
	if size > uint64(n) {
		return "", "", false
	}
	return it.Value[:n-int(size)], it.Value[n-int(size) : n], true
}

// applyLearnt applies the note of another instance. It merges the note with the one under key,
// and drops a response in its place.
func (c *Cache) applyLearnt(key, payload string) {
	var more Lasting
	c.Amend(key, func(old Lasting, until int64) (Lasting, int64) {
		if old == nil {
			return nil, 0
		}
		value, _, ok := old.Codec().Decode([]byte(payload), 0)
		other, lasts := value.(Lasting)
		if !ok || !lasts { // written by another version of the app
			return nil, 0
		}
		more = old.Join(other)
		return more, until
	})
	if more == nil {
		c.tier.drop(key)
	}
}
