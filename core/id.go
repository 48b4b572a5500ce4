package core

import (
	"encoding"
	"fmt"
	"reflect"
	"strconv"
)

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

// idDecoder returns what makes an id of its text again.
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
