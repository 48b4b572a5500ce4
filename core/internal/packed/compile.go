package packed

import (
	"encoding"
	"encoding/json"
	"reflect"
	"time"
)

// A program says how a value of a type lies in memory: an op for each of its parts, with
// nested structs taken apart.
type program struct{ ops []op }

type op struct {
	kind   opKind
	offset uintptr // of the part in the value
	n      int     // elements of an array
	size   uintptr // of an element
	t      reflect.Type
	elem   *program // of arrays, slices, maps (their elements) and pointers
	key    *program // of maps
}

type opKind uint8

const (
	opByte opKind = iota // bool, uint8, int8
	opInt16
	opInt32
	opInt64
	opUint16
	opUint32
	opUint64
	opFixed32 // float32
	opFixed64 // float64
	opString
	opTime
	opAny // what encoding/json decodes into an empty interface
	opArray
	opBytes   // a slice of bytes
	opStrings // a slice of strings
	opSlice
	opPointer
	opMap
)

//nolint:gochecknoglobals // constants
var (
	timeType        = reflect.TypeFor[time.Time]()
	jsonUnmarshaler = reflect.TypeFor[json.Unmarshaler]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// simple are the kinds of which a copy is a value of its own.
//
//nolint:gochecknoglobals // a constant
var simple = map[reflect.Kind]opKind{
	reflect.Bool: opByte, reflect.Int8: opByte, reflect.Uint8: opByte,
	reflect.Int16: opInt16, reflect.Int32: opInt32, reflect.Int64: opInt64, reflect.Int: opInt64,
	reflect.Uint16: opUint16, reflect.Uint32: opUint32, reflect.Uint64: opUint64, reflect.Uint: opUint64, reflect.Uintptr: opUint64,
	reflect.Float32: opFixed32, reflect.Float64: opFixed64, reflect.String: opString,
}

type compiler struct {
	known  map[reflect.Type]*program
	failed bool
}

func (c *compiler) compile(t reflect.Type) *program {
	if p := c.known[t]; p != nil {
		return p
	}
	p := new(program)
	c.known[t] = p // before its parts: a type may hold itself
	c.part(p, t, 0)
	return p
}

// part appends the ops of a part of type t.
func (c *compiler) part(p *program, t reflect.Type, offset uintptr) {
	kind, isSimple := simple[t.Kind()]
	switch {
	case isSimple:
		isSimple = t.Kind() != reflect.Int && t.Kind() != reflect.Uint && t.Kind() != reflect.Uintptr || t.Size() == 8
		c.failed = c.failed || !isSimple
		p.ops = append(p.ops, op{kind: kind, offset: offset, size: t.Size()})
	case t == timeType:
		// A *time.Location, which it holds, is never changed: its fields are package time's own.
		p.ops = append(p.ops, op{kind: opTime, offset: offset})
	case decodesItself(t) && !plain(t) && (t.Kind() != reflect.Slice || !plain(t.Elem())):
		c.failed = true
	case t.Kind() == reflect.Struct:
		c.fields(p, t, offset)
	default:
		c.reference(p, t, offset)
	}
}

// fields appends the ops of a struct.
func (c *compiler) fields(p *program, t reflect.Type, offset uintptr) {
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Name == "_" {
			continue
		}
		embedded := f.Anonymous && f.Type.Kind() == reflect.Struct // its exported fields are decoded
		if !f.IsExported() && !embedded && !plain(f.Type) {
			c.failed = true
			return
		}
		c.part(p, f.Type, offset+f.Offset)
	}
}

// reference appends the op of an array, or of a part that leads to other memory.
func (c *compiler) reference(p *program, t reflect.Type, offset uintptr) {
	o := op{offset: offset, t: t}
	switch t.Kind() {
	case reflect.Array:
		o.kind, o.n, o.size, o.elem = opArray, t.Len(), t.Elem().Size(), c.compile(t.Elem())
	case reflect.Slice:
		o.size, o.elem = t.Elem().Size(), c.compile(t.Elem())
		switch o.kind = opSlice; t.Elem().Kind() {
		case reflect.Uint8:
			o.kind = opBytes
		case reflect.String:
			o.kind = opStrings
		}
	case reflect.Pointer:
		o.kind, o.elem = opPointer, c.compile(t.Elem())
	case reflect.Map:
		o.kind, o.key, o.elem = opMap, c.compile(t.Key()), c.compile(t.Elem())
		c.failed = c.failed || !plain(t.Key())
	case reflect.Interface:
		o.kind = opAny
		c.failed = c.failed || t.NumMethod() > 0
	default: // a channel, function, complex number or unsafe pointer
		c.failed = true
	}
	p.ops = append(p.ops, o)
}

// plain reports whether a value of type t is numbers and strings throughout: a copy by
// assignment shares nothing with it that can be changed. uintptr may be an address.
func plain(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Uintptr:
		return false
	case reflect.Array:
		return plain(t.Elem())
	case reflect.Struct:
		for i := range t.NumField() {
			if !plain(t.Field(i).Type) {
				return t == timeType
			}
		}
		return true
	}
	_, ok := simple[t.Kind()]
	return ok
}

// decodesItself reports whether a type has a method that encoding/json decodes its values by.
func decodesItself(t reflect.Type) bool {
	p := reflect.PointerTo(t)
	return p.Implements(jsonUnmarshaler) || p.Implements(textUnmarshaler)
}
