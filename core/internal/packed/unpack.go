package packed

import (
	"encoding/binary"
	"math"
	"reflect"
	"time"
	"unsafe"
)

// reader unpacks one value. It trusts the text, which only a writer makes.
type reader struct {
	text string
	at   int
}

func (r *reader) byte() byte {
	b := r.text[r.at]
	r.at++
	return b
}

func (r *reader) uvarint() uint64 {
	b := r.text[r.at]
	r.at++
	if b < 0x80 {
		return uint64(b)
	}
	n := uint64(b & 0x7f)
	for shift := 7; ; shift += 7 {
		b = r.text[r.at]
		r.at++
		n |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return n
		}
	}
}

func (r *reader) varint() int64 {
	n := r.uvarint()
	return int64(n>>1) ^ -int64(n&1)
}

func (r *reader) string() string {
	n := int(r.uvarint())
	s := r.text[r.at : r.at+n]
	r.at += n
	return s
}

func (r *reader) fixed32() uint32 {
	s := r.text[r.at : r.at+4]
	r.at += 4
	return binary.LittleEndian.Uint32([]byte(s))
}

func (r *reader) fixed64() uint64 {
	s := r.text[r.at : r.at+8]
	r.at += 8
	return binary.LittleEndian.Uint64([]byte(s))
}

// length reads the length of a slice or map, -1 for nil.
func (r *reader) length() int { return int(r.uvarint()) - 1 }

// read unpacks the value of a program to an address.
func (r *reader) read(p *program, at unsafe.Pointer) {
	for i := range p.ops {
		o := &p.ops[i]
		part := unsafe.Add(at, o.offset)
		switch o.kind {
		case opByte:
			*(*byte)(part) = r.byte()
		case opInt16:
			*(*int16)(part) = int16(r.varint())
		case opInt32:
			*(*int32)(part) = int32(r.varint())
		case opInt64:
			*(*int64)(part) = r.varint()
		case opUint16:
			*(*uint16)(part) = uint16(r.uvarint())
		case opUint32:
			*(*uint32)(part) = uint32(r.uvarint())
		case opUint64:
			*(*uint64)(part) = r.uvarint()
		case opFixed32:
			*(*uint32)(part) = r.fixed32()
		case opFixed64:
			*(*uint64)(part) = r.fixed64()
		case opString:
			*(*string)(part) = r.string()
		case opTime:
			*(*time.Time)(part) = r.time()
		case opAny:
			*(*any)(part) = r.any()
		default:
			r.reference(o, part)
		}
	}
}

// slice is how a slice lies in memory.
type slice struct {
	first    unsafe.Pointer
	len, cap int
}

// reference unpacks an array, or a part that leads to other memory.
func (r *reader) reference(o *op, part unsafe.Pointer) {
	if o.kind == opArray {
		r.elements(o, part, o.n)
		return
	}
	n := r.length()
	if n < 0 {
		return
	}
	switch o.kind {
	case opBytes:
		b := make([]byte, n)
		copy(b, r.text[r.at:])
		r.at += n
		*(*[]byte)(part) = b
	case opStrings:
		s := make([]string, n)
		for i := range s {
			s[i] = r.string()
		}
		*(*[]string)(part) = s
	case opSlice:
		first := reflect.MakeSlice(o.t, n, n).UnsafePointer()
		r.elements(o, first, n)
		*(*slice)(part) = slice{first, n, n}
	case opPointer:
		to := reflect.New(o.t.Elem()).UnsafePointer()
		r.read(o.elem, to)
		*(*unsafe.Pointer)(part) = to
	case opMap:
		*(*unsafe.Pointer)(part) = r.mapped(o, n)
	}
}

func (r *reader) elements(o *op, first unsafe.Pointer, n int) {
	for i := range n {
		r.read(o.elem, unsafe.Add(first, uintptr(i)*o.size))
	}
}

func (r *reader) mapped(o *op, n int) unsafe.Pointer {
	m := reflect.MakeMapWithSize(o.t, n)
	key, elem := reflect.New(o.t.Key()), reflect.New(o.t.Elem())
	for range n {
		key.Elem().SetZero()
		elem.Elem().SetZero()
		r.read(o.key, key.UnsafePointer())
		r.read(o.elem, elem.UnsafePointer())
		m.SetMapIndex(key.Elem(), elem.Elem())
	}
	return m.UnsafePointer()
}

func (r *reader) any() any {
	switch r.byte() {
	case anyFalse:
		return false
	case anyTrue:
		return true
	case anyNumber:
		return math.Float64frombits(r.fixed64())
	case anyString:
		return r.string()
	case anyList:
		n := r.length()
		if n < 0 {
			return []any(nil)
		}
		list := make([]any, n)
		for i := range list {
			list[i] = r.any()
		}
		return list
	case anyMap:
		n := r.length()
		if n < 0 {
			return map[string]any(nil)
		}
		m := make(map[string]any, n)
		for range n {
			k := r.string()
			m[k] = r.any()
		}
		return m
	}
	return nil
}

func (r *reader) time() time.Time {
	zone, seconds, nanoseconds, offset := r.byte(), r.varint(), int64(r.uvarint()), 0
	if zone == timeZone {
		offset = int(r.varint())
	}
	return unpackedTime(zone, seconds, nanoseconds, offset)
}
