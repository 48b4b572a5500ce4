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
