package core

import (
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// idKind says how an id is written.
type idKind uint8

const (
	textual idKind = iota
	signed
	unsigned
)

// idKindOf returns how ids of type K are written. Numbers are written without an allocation
// of their own.
func idKindOf[K comparable]() idKind {
	t := reflect.TypeFor[K]()
	switch {
	case t.Implements(reflect.TypeFor[encoding.TextMarshaler]()):
		return textual
	case t.Kind() >= reflect.Int && t.Kind() <= reflect.Int64:
		return signed
	case t.Kind() >= reflect.Uint && t.Kind() <= reflect.Uint64:
		return unsigned
	}
	return textual
}

// idEncoder returns the function that writes an id of type K as part of a key.
// Two different ids never become one text.
func idEncoder[K comparable]() (func(K) (string, error), error) {
	t := reflect.TypeFor[K]()
	if t.Implements(reflect.TypeFor[encoding.TextMarshaler]()) {
		return func(id K) (string, error) {
			text, err := any(id).(encoding.TextMarshaler).MarshalText()
			return string(text), err
		}, nil
	}
	switch t.Kind() {
	case reflect.String:
		return func(id K) (string, error) { return reflect.ValueOf(id).String(), nil }, nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return func(id K) (string, error) { return strconv.FormatInt(reflect.ValueOf(id).Int(), 10), nil }, nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return func(id K) (string, error) { return strconv.FormatUint(reflect.ValueOf(id).Uint(), 10), nil }, nil
	case reflect.Bool:
		return func(id K) (string, error) { return strconv.FormatBool(reflect.ValueOf(id).Bool()), nil }, nil
	}
	return nil, &ConfigError{"K", fmt.Sprint(t), "a string, integer or bool type, or one that implements encoding.TextMarshaler"}
}

// idDecoder returns the function that parses the text of an id.
func idDecoder[K comparable]() (func(string) (K, error), error) {
	t := reflect.TypeFor[K]()
	into := func(set func(v reflect.Value, text string) error) func(string) (K, error) {
		return func(text string) (id K, err error) {
			err = set(reflect.ValueOf(&id).Elem(), text)
			return id, err
		}
	}
	if t.Implements(reflect.TypeFor[encoding.TextMarshaler]()) {
		if !reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) {
			return nil, &ConfigError{"K", fmt.Sprint(t), "a type that implements encoding.TextUnmarshaler as well, for a queue"}
		}
		return into(func(v reflect.Value, text string) error {
			return v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(text)) //nolint:forcetypeassert // as above
		}), nil
	}
	switch t.Kind() {
	case reflect.String:
		return into(func(v reflect.Value, text string) error { v.SetString(text); return nil }), nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return into(func(v reflect.Value, text string) error {
			n, err := strconv.ParseInt(text, 10, t.Bits())
			v.SetInt(n)
			return err
		}), nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return into(func(v reflect.Value, text string) error {
			n, err := strconv.ParseUint(text, 10, t.Bits())
			v.SetUint(n)
			return err
		}), nil
	case reflect.Bool:
		return into(func(v reflect.Value, text string) error {
			b, err := strconv.ParseBool(text)
			v.SetBool(b)
			return err
		}), nil
	}
	return nil, &ConfigError{"K", fmt.Sprint(t), "a string, integer or bool type, or one that implements encoding.TextMarshaler and TextUnmarshaler"}
}

// A string may be a view of a buffer that its owner reuses: Fiber's are, from the end
// of the request on. A string that outlives a call is therefore copied where it is kept,
// so that a hit copies nothing.

// ownerOf returns the function that copies the strings in a T. Values of types that
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

// ownedList returns a copy of a list of strings and of the strings.
func ownedList(list []string) []string {
	list = slices.Clone(list)
	for i, s := range list {
		list[i] = strings.Clone(s)
	}
	return list
}
