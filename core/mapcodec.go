package core

// mapCodec is how the shared tier keeps the values of a map: a byte that says what
// it is, and the bytes of the map's own codec.
type mapCodec[K comparable, V any] struct{ m *Map[K, V] }

const (
	absentValue  = 0
	encodedValue = 1
)

// Encode implements engine.Codec.
func (c mapCodec[K, V]) Encode(value any) (payload []byte, ok bool) {
	switch v := value.(type) {
	case absent:
		return []byte{absentValue}, true
	case []byte:
		return append([]byte{encodedValue}, v...), true
	case kept[V]:
		data, err := c.m.codec.Marshal(v.v)
		return append([]byte{encodedValue}, data...), err == nil
	}
	return nil, false
}

// Decode implements engine.Codec.
func (c mapCodec[K, V]) Decode(payload []byte, _ int64) (value any, size int, ok bool) {
	switch {
	case len(payload) == 1 && payload[0] == absentValue:
		return absent{}, 0, true
	case len(payload) == 0 || payload[0] != encodedValue:
		return nil, 0, false
	}
	data := payload[1:]
	if c.m.clone == nil {
		return data, len(data), true
	}
	var v V
	if c.m.codec.Unmarshal(data, &v) != nil {
		return nil, 0, false
	}
	return kept[V]{v}, len(data), true
}
