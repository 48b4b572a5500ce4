package local

import (
	"encoding/binary"

	"github.com/maypok86/otter/v2"
)

// Codec is how a shared tier keeps the values of one kind.
type Codec interface {
	// Encode returns the payload for a value; ok is false if it has none.
	Encode(value any) (payload []byte, ok bool)
	// Decode returns the value of a payload and its size in memory. The payload is
	// the callee's. born is when the value's load began, on the cache's clock.
	Decode(payload []byte, born int64) (value any, size int, ok bool)
}

// A Lasting value is a note that is replaced only by a value that covers it, for as long as
// it lasts: an index of the fields that the responses of a resource vary on. The knowledge
// of several loads and instances is joined.
type Lasting interface {
	// Covers reports whether the value knows all that another one does.
	Covers(other Lasting) bool
	// Join returns a value that knows what both know, and is this process's own as the
	// value is. It takes no time: a lock is held.
	Join(other Lasting) Lasting
	// Size is that in memory.
	Size() int
	// Codec is how the shared tier keeps it.
	Codec() Codec
}

// Amend puts in place of what is under key what fn makes of it, in one step, and keeps
// that until a time on the engine's clock. fn gets the lasting value that is there and
// how long that is kept, or nil. It is called once at most, and calls nothing of the
// engine's but Now. A nil value changes nothing.
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

// Join puts a lasting value under key, or what it and one that is there know together.
func (c *Cache) Join(key string, value Lasting, keep int64) {
	c.Amend(key, func(old Lasting, until int64) (Lasting, int64) {
		if old == nil {
			return value, keep
		}
		return old.Join(value), max(until, keep)
	})
}

// putUnless puts an entry into the tier that has been compared with the whole log, unless
// a lasting value is under key: then it returns false. The caller holds the journal's
// lock, for reading at least.
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

// LearntItem returns the item that tells other instances what has been learnt of a key. It is
// logged in the key's partition, and is no key's own: those do not end so.
func LearntItem(key string, payload []byte) Item {
	b := append([]byte(key), payload...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
	return Item{Kind: Key, Value: string(append(b, NameEnd))}
}

// learntOf returns what an item tells of which key.
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

// hear applies what another instance has learnt of a key: what is there that is less goes.
func (c *Cache) hear(key, payload string) {
	var more Lasting
	c.Amend(key, func(old Lasting, until int64) (Lasting, int64) {
		if old == nil {
			return nil, 0
		}
		value, _, ok := old.Codec().Decode([]byte(payload), 0)
		other, lasts := value.(Lasting)
		if !ok || !lasts { // of another version of the app
			return nil, 0
		}
		more = old.Join(other)
		return more, until
	})
	if more == nil {
		c.tier.drop(key)
	}
}
