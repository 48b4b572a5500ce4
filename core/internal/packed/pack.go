package packed

import (
	"encoding/binary"
	"math"
	"reflect"
	"time"
	"unsafe"
)

// writer packs one value.
type writer struct {
	text   []byte
	failed bool // the value has a part that unpacking would not give back
}

// The kinds of value in an any, which its first byte names.
const (
	anyNil = iota
	anyFalse
	anyTrue
	anyNumber
	anyString
	anyList
	anyMap
)

// Whether a time is in UTC, local, or in a zone without a name.
const (
	timeUTC = iota
	timeLocal
	timeZone
)

func (w *writer) uvarint(n uint64) { w.text = binary.AppendUvarint(w.text, n) }
func (w *writer) varint(n int64)   { w.text = binary.AppendVarint(w.text, n) }

func (w *writer) string(s string) {
	w.uvarint(uint64(len(s)))
	w.text = append(w.text, s...)
}

// length writes the length of a slice or map, one more than it is: 0 is nil.
func (w *writer) length(n int, isNil bool) {
	if isNil {
		n = -1
	}
	w.uvarint(uint64(n + 1))
}

// write packs the value of a program at an address.
func (w *writer) write(p *program, at unsafe.Pointer) {
	for i := range p.ops {
		o := &p.ops[i]
		part := unsafe.Add(at, o.offset)
		switch o.kind {
		case opByte:
			w.text = append(w.text, *(*byte)(part))
		case opInt16:
			w.varint(int64(*(*int16)(part)))
		case opInt32:
			w.varint(int64(*(*int32)(part)))
		case opInt64:
			w.varint(*(*int64)(part))
		case opUint16:
			w.uvarint(uint64(*(*uint16)(part)))
		case opUint32:
			w.uvarint(uint64(*(*uint32)(part)))
		case opUint64:
			w.uvarint(*(*uint64)(part))
		case opFixed32:
			w.text = binary.LittleEndian.AppendUint32(w.text, *(*uint32)(part))
		case opFixed64:
			w.text = binary.LittleEndian.AppendUint64(w.text, *(*uint64)(part))
		case opString:
			w.string(*(*string)(part))
		case opTime:
			w.time(*(*time.Time)(part))
		case opAny:
			w.any(*(*any)(part))
		default:
			w.reference(o, part)
		}
	}
}

// reference packs an array, or a part that leads to other memory.
func (w *writer) reference(o *op, part unsafe.Pointer) {
	switch o.kind {
	case opArray:
		w.elements(o, part, o.n)
	case opBytes:
		b := *(*[]byte)(part)
		w.length(len(b), b == nil)
		w.text = append(w.text, b...)
	case opStrings, opSlice:
		s := *(*[]byte)(part) // for its address and length; it is a slice of another type
		w.length(len(s), s == nil)
		w.elements(o, unsafe.Pointer(unsafe.SliceData(s)), len(s))
	case opPointer:
		to := *(*unsafe.Pointer)(part)
		w.length(0, to == nil)
		if to != nil {
			w.write(o.elem, to)
		}
	case opMap:
		w.mapped(o, reflect.NewAt(o.t, part).Elem())
	}
}

func (w *writer) elements(o *op, first unsafe.Pointer, n int) {
	for i := range n {
		w.write(o.elem, unsafe.Add(first, uintptr(i)*o.size))
	}
}

func (w *writer) mapped(o *op, m reflect.Value) {
	w.length(m.Len(), m.IsNil())
	key, elem := reflect.New(o.t.Key()), reflect.New(o.t.Elem())
	for all := m.MapRange(); all.Next(); {
		key.Elem().SetIterKey(all)
		elem.Elem().SetIterValue(all)
		w.write(o.key, key.UnsafePointer())
		w.write(o.elem, elem.UnsafePointer())
	}
}

// any packs what encoding/json decodes into an empty interface.
func (w *writer) any(v any) {
	switch v := v.(type) {
	case nil:
		w.text = append(w.text, anyNil)
	case bool:
		kind := byte(anyFalse)
		if v {
			kind = anyTrue
		}
		w.text = append(w.text, kind)
	case float64:
		w.text = binary.LittleEndian.AppendUint64(append(w.text, anyNumber), math.Float64bits(v))
	case string:
		w.text = append(w.text, anyString)
		w.string(v)
	case []any:
		w.text = append(w.text, anyList)
		w.length(len(v), v == nil)
		for _, e := range v {
			w.any(e)
		}
	case map[string]any:
		w.text = append(w.text, anyMap)
		w.length(len(v), v == nil)
		for k, e := range v {
			w.string(k)
			w.any(e)
		}
	default:
		w.failed = true
	}
}

// time packs a time of one of the zones that RFC 3339 can name.
func (w *writer) time(t time.Time) {
	_, offset := t.Zone()
	zone := byte(timeZone)
	switch t.Location() {
	case time.UTC:
		zone = timeUTC
	case time.Local: //nolint:gosmopolitan // a time in it stays in it
		zone = timeLocal
	}
	w.text = append(w.text, zone)
	w.varint(t.Unix())
	w.uvarint(uint64(t.Nanosecond()))
	if zone == timeZone {
		w.varint(int64(offset))
	}
	w.failed = w.failed || !reflect.DeepEqual(t, unpackedTime(zone, t.Unix(), int64(t.Nanosecond()), offset))
}

func unpackedTime(zone byte, seconds, nanoseconds int64, offset int) time.Time {
	t := time.Unix(seconds, nanoseconds)
	switch zone {
	case timeUTC:
		return t.UTC()
	case timeZone:
		return t.In(time.FixedZone("", offset))
	}
	return t
}
