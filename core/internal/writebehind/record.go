package writebehind

import (
	"encoding/binary"

	"github.com/larderhq/larder/core/internal/naming"
)

// Record is the form of a change in the queue: the encoded value, and the tags under which
// readers store it.
//
//	1 byte   version
//	1 byte   kind: deleted, or a value
//	uvarint  number of tags; for each its length as a uvarint, and its name
//	         the value
type Record struct {
	Deleted bool
	Tags    []string // the names that entries carry
	Data    []byte
}

const (
	recordVersion = 1
	recordDeleted = 0
	recordValue   = 1
)

// Encode returns the payload of a record.
func (r Record) Encode() []byte {
	b := []byte{recordVersion, recordValue}
	if r.Deleted {
		b[1] = recordDeleted
	}
	b = binary.AppendUvarint(b, uint64(len(r.Tags)))
	for _, tag := range r.Tags {
		b = binary.AppendUvarint(b, uint64(len(tag)))
		b = append(b, tag...)
	}
	return append(b, r.Data...)
}

// DecodeRecord returns a record whose Data is a view of b. ok is false if b is malformed
// or of another version of this library.
func DecodeRecord(b []byte) (r Record, ok bool) {
	if len(b) < 3 || b[0] != recordVersion || b[1] > recordValue {
		return r, false
	}
	r.Deleted = b[1] == recordDeleted
	b = b[2:]
	n, used := binary.Uvarint(b)
	if used <= 0 || n > naming.MaxTags {
		return r, false
	}
	b = b[used:]
	for range n {
		size, used := binary.Uvarint(b)
		if used <= 0 || size > uint64(len(b)-used) || size > 2*naming.MaxBytes {
			return r, false
		}
		r.Tags = append(r.Tags, string(b[used:used+int(size)]))
		b = b[used+int(size):]
	}
	if r.Deleted && len(b) > 0 {
		return r, false
	}
	r.Data = b
	return r, true
}
