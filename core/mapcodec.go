package core

import "encoding/binary"

// mapCodec is how the shared tier keeps the values of a map: a byte that says what
// it is, the validator with its length before it where there is one, and the bytes
// of the map's own codec.
type mapCodec[K comparable, V any] struct{ m *Map[K, V] }

const (
	absentValue    = 0
	encodedValue   = 1
	validatedValue = 2
)

// Encode implements engine.Codec.
func (c mapCodec[K, V]) Encode(value any) (payload []byte, ok bool) {
	head := []byte{encodedValue}
	if v, ok := value.(validated); ok {
		head = binary.AppendUvarint([]byte{validatedValue}, uint64(len(v.validator)))
		head = append(head, v.validator...)
		value = v.value
	}
	switch v := value.(type) {
	case absent:
		return []byte{absentValue}, true
	case []byte:
		return append(head, v...), true
	case kept[V]:
		data, err := c.m.marshal(v.v)
		return append(head, data...), err == nil
	}
	return nil, false
}

// Decode implements engine.Codec.
func (c mapCodec[K, V]) Decode(payload []byte, _ int64) (value any, size int, ok bool) {
	validator, data, ok := splitPayload(payload)
	switch {
	case !ok:
		return nil, 0, false
	case data == nil:
		return absent{}, 0, true
	case c.m.clone == nil:
		return withValidator(data, validator), len(data) + len(validator), true
	}
	var v V
	if c.m.codec.Unmarshal(data, &v) != nil {
		return nil, 0, false
	}
	return withValidator(kept[V]{v, len(data)}, validator), len(data) + len(validator), true
}

// splitPayload returns the parts of a payload. data is nil for an absent value.
func splitPayload(payload []byte) (validator string, data []byte, ok bool) {
	if len(payload) == 0 {
		return "", nil, false
	}
	switch kind, rest := payload[0], payload[1:]; kind {
	case absentValue:
		return "", nil, len(rest) == 0
	case encodedValue:
		return "", rest, true
	case validatedValue:
		n, length := binary.Uvarint(rest)
		if length <= 0 || n == 0 || n > MaxValidatorBytes || n > uint64(len(rest)-length) {
			return "", nil, false
		}
		end := length + int(n)
		return string(rest[length:end]), rest[end:], true
	}
	return "", nil, false
}

// validated is a stored value with its validator.
type validated struct {
	value     any // []byte or kept
	validator string
}

func withValidator(value any, validator string) any {
	if validator == "" {
		return value
	}
	return validated{value, validator}
}
