package core

import (
	"reflect"
	"slices"
	"strings"
)

// A string may be a view of a buffer that its owner reuses: Fiber's are, from the end
// of the request on. What outlives a call is therefore a copy, made where it is kept,
// so that a hit copies nothing.

// ownerOf returns the function that copies what a T holds as text. Values of types that
// hold none are returned as they are.
func ownerOf[T any]() func(T) T {
	t := reflect.TypeFor[T]()
	switch {
	case t.Kind() == reflect.Pointer: // it may be reused as well as a buffer
	case !holdsText(t):
		return func(v T) T { return v }
	}
	return func(v T) T {
		copyText(reflect.ValueOf(&v).Elem(), true)
		return v
	}
}

// holdsText reports whether a value of type t may hold a string without a pointer of
// its own between them.
func holdsText(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.String, reflect.Interface, reflect.Slice:
		return true
	case reflect.Array:
		return holdsText(t.Elem())
	case reflect.Struct:
		for i := range t.NumField() {
			if holdsText(t.Field(i).Type) {
				return true
			}
		}
	}
	return false
}

// copyText replaces the strings in v, which is addressable, by copies. Behind a pointer
// it goes only at the top: what pointers inside a value lead to, a *time.Location for
// one, is part of its identity.
func copyText(v reflect.Value, top bool) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(strings.Clone(v.String()))
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Field(i); holdsText(f.Type()) {
				copyText(settable(f), false)
			}
		}
	case reflect.Array:
		for i := range v.Len() {
			copyText(v.Index(i), false)
		}
	case reflect.Slice:
		if v.IsNil() {
			return
		}
		own := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
		reflect.Copy(own, v)
		v.Set(own)
		for i := range v.Len() {
			copyText(v.Index(i), false)
		}
	case reflect.Interface, reflect.Pointer:
		if v.IsNil() || v.Kind() == reflect.Pointer && !top {
			return
		}
		own := reflect.New(v.Elem().Type())
		own.Elem().Set(v.Elem())
		copyText(own.Elem(), top)
		if v.Kind() == reflect.Interface {
			own = own.Elem()
		}
		v.Set(own)
	}
}

// settable returns a field that is addressable as one that can be set, be it exported
// or not.
func settable(field reflect.Value) reflect.Value {
	if field.CanSet() {
		return field
	}
	return reflect.NewAt(field.Type(), field.Addr().UnsafePointer()).Elem()
}

// ownedList returns a copy of a list of strings and of what it holds.
func ownedList(list []string) []string {
	list = slices.Clone(list)
	for i, s := range list {
		list[i] = strings.Clone(s)
	}
	return list
}
