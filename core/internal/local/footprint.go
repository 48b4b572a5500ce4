package local

import (
	"reflect"
	"unsafe"
)

// maxParts bounds the parts of a value that Footprint visits.
const maxParts = 1 << 14

// Footprint returns the size of a value with everything that it refers to, in whole blocks of the
// allocator. A part that is reached twice counts once. Footprint visits
// the first 16,384 parts of a value, and returns at least their size. It follows exported
// fields only, since an unexported field may refer to memory that is in use elsewhere.
func Footprint(value any) int {
	f := footprint{seen: make(map[unsafe.Pointer]bool)}
	v := reflect.ValueOf(value)
	if !v.IsValid() {
		return 0
	}
	if v.Kind() != reflect.Pointer { // boxed
		f.bytes = blockOf(int(v.Type().Size()))
	}
	f.parts(v)
	return f.bytes
}

type footprint struct {
	seen  map[unsafe.Pointer]bool
	bytes int
	n     int // parts
}

// block adds a block, and reports whether the block is new.
func (f *footprint) block(at unsafe.Pointer, size uintptr) bool {
	if at == nil || f.seen[at] {
		return false
	}
	f.seen[at] = true
	f.bytes += blockOf(int(size))
	return true
}

// parts adds the memory that v refers to. v itself has been counted.
func (f *footprint) parts(v reflect.Value) {
	if f.n++; f.n > maxParts {
		return
	}
	switch v.Kind() {
	case reflect.String:
		f.block(unsafe.Pointer(unsafe.StringData(v.String())), uintptr(v.Len()))
	case reflect.Pointer:
		if f.block(v.UnsafePointer(), v.Type().Elem().Size()) {
			f.parts(v.Elem())
		}
	case reflect.Interface:
		if e := v.Elem(); e.IsValid() {
			if e.Kind() != reflect.Pointer && e.Kind() != reflect.Map {
				f.bytes += blockOf(int(e.Type().Size()))
			}
			f.parts(e)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if sf := v.Type().Field(i); sf.IsExported() && sf.Tag.Get("json") != "-" || sf.Anonymous && sf.Type.Kind() == reflect.Struct {
				f.parts(v.Field(i))
			}
		}
	case reflect.Slice:
		if f.block(v.UnsafePointer(), uintptr(v.Cap())*v.Type().Elem().Size()) {
			f.elements(v)
		}
	case reflect.Array:
		f.elements(v)
	case reflect.Map:
		f.entries(v)
	}
}

func (f *footprint) elements(v reflect.Value) {
	if k := v.Type().Elem().Kind(); k > reflect.Invalid && k <= reflect.Complex128 {
		return // they refer to nothing
	}
	for i := range v.Len() {
		f.parts(v.Index(i))
	}
}

// entries adds a map: its header, and its slots, of which at most seven of eight are full.
func (f *footprint) entries(v reflect.Value) {
	slot := v.Type().Key().Size() + v.Type().Elem().Size() + 1
	if !f.block(v.UnsafePointer(), 48+uintptr(max(8, v.Len()*4/3))*slot) {
		return
	}
	for all := v.MapRange(); all.Next() && f.n <= maxParts; {
		f.parts(all.Key())
		f.parts(all.Value())
	}
}
