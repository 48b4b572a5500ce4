// Package packed keeps values that encoding/json has decoded in a compact form of one block
// of memory without pointers. Unpacking is much faster than decoding, allocates no more than
// the value needs, and hands out nothing of the kept form that a caller could change: strings
// are parts of the block, slices, maps and what pointers lead to are new.
package packed

import (
	"encoding/binary"
	"reflect"
	"unsafe"
)

// Type packs and unpacks the values of one Go type. It is safe for concurrent use.
type Type struct{ program *program }

// Of returns the Type of t. It returns false for a type of which a value cannot be packed
// exactly: one that holds a channel, a function, an interface with methods, an unexported
// slice, map or pointer, or a type that decodes itself (json.Unmarshaler,
// encoding.TextUnmarshaler) and holds anything but numbers and strings.
func Of(t reflect.Type) (*Type, bool) {
	c := compiler{known: make(map[reflect.Type]*program)}
	p := c.compile(t)
	return &Type{p}, !c.failed
}

// Value is a packed value. It takes Size bytes, and one word in an interface.
type Value struct{ first *byte } // of the length of the text (uvarint) and the text

// Size returns the bytes of the block that the value is kept in.
func (v Value) Size() int {
	text := v.text()
	return len(text) + len(binary.AppendUvarint(nil, uint64(len(text))))
}

// text returns the block behind its length.
func (v Value) text() string {
	n, width := uint64(0), 0
	for shift := 0; ; shift += 7 {
		b := *(*byte)(unsafe.Add(unsafe.Pointer(v.first), width))
		width++
		n |= uint64(b&0x7f) << shift
		if b < 0x80 {
			break
		}
	}
	return unsafe.String((*byte)(unsafe.Add(unsafe.Pointer(v.first), width)), int(n))
}

// Pack packs the value that box, a pointer to a value of the type, points to. The value must
// be as encoding/json decodes it: a tree, in which nothing is reached in two ways. Pack
// returns false for a value that it cannot keep exactly.
func (t *Type) Pack(box any) (Value, bool) {
	w := writer{}
	w.write(t.program, reflect.ValueOf(box).UnsafePointer())
	if w.failed {
		return Value{}, false
	}
	head := binary.AppendUvarint(nil, uint64(len(w.text)))
	block := make([]byte, 0, len(head)+max(len(w.text), 1)) // text stays within the block
	block = append(append(block, head...), w.text...)
	return Value{unsafe.SliceData(block)}, true
}

// Unpack puts a packed value into the zero value of the type that into points to.
func Unpack[V any](t *Type, v Value, into *V) {
	r := reader{text: v.text()}
	r.read(t.program, unsafe.Pointer(into))
}

// UnpackBox is Unpack for a caller without types: box is a pointer to a zero value.
func (t *Type) UnpackBox(v Value, box any) {
	r := reader{text: v.text()}
	r.read(t.program, reflect.ValueOf(box).UnsafePointer())
}
