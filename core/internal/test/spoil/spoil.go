// Package spoil changes everything that can be reached from a value: a copy that shares
// memory with it shows the change.
package spoil

import (
	"reflect"
	"unsafe"
)

// Value changes whatever v, a pointer, leads to: elements, entries of maps, numbers and
// strings. It follows unexported fields, and stops at a value that it has reached before.
// Values behind pointers of packages time and net/netip stay as they are: the whole process
// shares locations and the zones of addresses.
func Value(v any) {
	s := spoiler{seen: make(map[unsafe.Pointer]bool)}
	s.value(reflect.ValueOf(v).Elem())
}

type spoiler struct{ seen map[unsafe.Pointer]bool }

func (s spoiler) value(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		of := v.Type().Elem().PkgPath()
		if !v.IsNil() && !s.seen[v.UnsafePointer()] && of != "time" && of != "net/netip" {
			s.seen[v.UnsafePointer()] = true
			s.value(v.Elem())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			f := v.Field(i)
			s.value(reflect.NewAt(f.Type(), f.Addr().UnsafePointer()).Elem())
		}
	case reflect.Array:
		s.elements(v)
	case reflect.Slice:
		s.elements(v.Slice(0, v.Cap()))
	case reflect.Map:
		for _, k := range v.MapKeys() {
			elem := reflect.New(v.Type().Elem()).Elem()
			elem.Set(v.MapIndex(k))
			s.value(elem)
			v.SetMapIndex(k, elem)
		}
		if k := reflect.New(v.Type().Key()).Elem(); !v.IsNil() {
			s.value(k)
			v.SetMapIndex(k, reflect.Zero(v.Type().Elem()))
		}
	case reflect.Interface:
		if !v.IsNil() {
			elem := reflect.New(v.Elem().Type()).Elem()
			elem.Set(v.Elem())
			s.value(elem)
			v.Set(elem)
		}
	default:
		s.simple(v)
	}
}

func (s spoiler) elements(v reflect.Value) {
	for i := range v.Len() {
		s.value(v.Index(i))
	}
}

func (s spoiler) simple(v reflect.Value) {
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.String:
		v.SetString(v.String() + "spoiled")
	case reflect.Float32, reflect.Float64:
		v.SetFloat(v.Float() + 1)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(v.Int() ^ 1)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		v.SetUint(v.Uint() ^ 1)
	}
}
