package core

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"time"

	"github.com/larderhq/larder/core/internal/loadscope"
	"github.com/larderhq/larder/core/internal/tier"
)

// queued is a change as the queue keeps it: the value in the map's codec, and the tags
// that readers store it under.
//
//	1 byte   version
//	1 byte   what it is: deleted, or a value
//	uvarint  number of tags; for each its length as a uvarint, and its name
//	         the value
type queued struct {
	deleted bool
	tags    []string // as entries carry them
	data    []byte
}

const (
	queuedVersion = 1
	queuedDeleted = 0
	queuedValue   = 1
)

func (q queued) encode() []byte {
	b := []byte{queuedVersion, queuedValue}
	if q.deleted {
		b[1] = queuedDeleted
	}
	b = binary.AppendUvarint(b, uint64(len(q.tags)))
	for _, tag := range q.tags {
		b = binary.AppendUvarint(b, uint64(len(tag)))
		b = append(b, tag...)
	}
	return append(b, q.data...)
}

// decodeQueued returns views of b. ok is false if it is not a change, or one of another
// version of this library.
func decodeQueued(b []byte) (q queued, ok bool) {
	if len(b) < 3 || b[0] != queuedVersion || b[1] > queuedValue {
		return q, false
	}
	q.deleted = b[1] == queuedDeleted
	b = b[2:]
	n, used := binary.Uvarint(b)
	if used <= 0 || n > MaxTagsPerEntry {
		return q, false
	}
	b = b[used:]
	for range n {
		size, used := binary.Uvarint(b)
		if used <= 0 || size > uint64(len(b)-used) || size > 2*MaxKeyBytes {
			return q, false
		}
		q.tags = append(q.tags, string(b[used:used+int(size)]))
		b = b[used+int(size):]
	}
	if q.deleted && len(b) > 0 {
		return q, false
	}
	q.data = b
	return q, true
}

// errQueued says that a record is none of this version of the library, or of the type
// of the map.
var errQueued = errors.New("larder: a queued change does not decode")

// queuedValue returns the value that a record says an id has: ErrNotFound if it was
// deleted.
func (m *Map[K, V]) queuedValue(rec *tier.Queued) (v V, err error) {
	v, _, err = m.queuedAll(rec)
	return v, err
}

func (m *Map[K, V]) queuedAll(rec *tier.Queued) (v V, tags []string, err error) {
	q, ok := decodeQueued(rec.Payload)
	switch {
	case !ok:
		return v, nil, errQueued
	case q.deleted:
		return v, nil, ErrNotFound
	}
	if err := m.codec.Unmarshal(q.data, &v); err != nil {
		var zero V
		return zero, nil, fmt.Errorf("%w: %w", errQueued, err)
	}
	return v, q.tags, nil
}

// fromQueue returns what is queued as what a loader returned. ok is false if it does not
// decode: then only the database can tell.
func (m *Map[K, V]) fromQueue(rec *tier.Queued) (r loaded[V], said loadscope.Said, ok bool) {
	r.v, said.Tags, r.err = m.queuedAll(rec)
	if errors.Is(r.err, errQueued) {
		m.c.engine.Count.Undecodable.Add(1)
		return loaded[V]{}, loadscope.Said{}, false
	}
	return r, said, true
}

// decoded returns the change that a record is. A panic of the id's or the map's codec says
// that it is none.
func (w *WriteBehind[K, V]) decoded(rec *tier.Queued) (c Change[K, V], err error) {
	defer func() {
		if v := recover(); v != nil {
			w.e.Count.Panics.Add(1)
			err = fmt.Errorf("%w: %w", errQueued, &PanicError{Value: v, Stack: debug.Stack()})
		}
	}()
	c.Version, c.Attempt = rec.Version, rec.Attempts+1
	c.Queued = time.UnixMicro(rec.First)
	text, ok := strings.CutPrefix(rec.Key, w.m.prefix+":")
	if !ok {
		return c, fmt.Errorf("%w: key %q", errQueued, rec.Key)
	}
	if c.ID, err = w.id(text); err != nil {
		return c, fmt.Errorf("%w: id %q: %w", errQueued, text, err)
	}
	c.Value, err = w.m.queuedValue(rec)
	if errors.Is(err, ErrNotFound) {
		c.Deleted, err = true, nil
	}
	return c, err
}
