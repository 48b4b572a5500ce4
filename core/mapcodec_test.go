package core

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/internal/packed"
)

func codecs(tb testing.TB) (plain, cloning mapCodec) {
	tb.Helper()
	c, err := New(Options{Classes: Classes{"c": {TTL: MaxDuration}}})
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, c.Close()) })
	a, err := NewMap(c, MapOptions[int, string]{Class: "c", Prefix: "a"})
	require.NoError(tb, err)
	b, err := NewMap(c, MapOptions[int, string]{Class: "c", Prefix: "b", Clone: strings.Clone})
	require.NoError(tb, err)
	return mapCodec{t: &a.base.values}, mapCodec{t: &b.base.values}
}

func TestTheFormatOfPayloadsIsStable(t *testing.T) {
	plain, cloning := codecs(t)
	for _, test := range []struct {
		payload        string
		plain, cloning any
	}{
		{"\x00", absent{}, absent{}},
		{"\x01\"a\"", boxed("a"), kept{boxed("a"), 3}},
		{"\x02\x01v\"a\"", validated{boxed("a"), "v"}, validated{kept{boxed("a"), 3}, "v"}},
		{"\x01 \"a\"", []byte(` "a"`), kept{boxed("a"), 4}}, // it would encode to other bytes
		{"\x01\"a", []byte(`"a`), nil},
		{"", nil, nil}, {"\x00x", nil, nil}, {"\x03\"a\"", nil, nil}, {"\x02", nil, nil},
		{"\x02\x00\"a\"", nil, nil}, {"\x02\x05\"a\"", nil, nil}, {"\x02\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", nil, nil},
		{string(binary.AppendUvarint([]byte{2}, MaxValidatorBytes+1)) + strings.Repeat("x", 2*MaxValidatorBytes), nil, nil},
	} {
		value, _, ok := plain.Decode([]byte(test.payload), 0)
		require.Equal(t, test.plain != nil, ok, "%q", test.payload)
		require.Equal(t, test.plain, unpacked(plain, value), "%q", test.payload)
		value, _, ok = cloning.Decode([]byte(test.payload), 0)
		require.Equal(t, test.cloning != nil, ok, "%q", test.payload)
		require.Equal(t, test.cloning, value, "%q", test.payload)
	}
}

func FuzzMapCodec(f *testing.F) {
	plain, cloning := codecs(f)
	for _, s := range []string{"", "\x00", "\x01\"a\"", "\x01", "\x02\x01v\"a\"", "\x02\x00", "\x02\x80\x01", "\x02\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		for _, c := range []mapCodec{plain, cloning} {
			value, size, ok := c.Decode(payload, 0)
			if !ok {
				continue
			}
			require.LessOrEqual(t, size, 2*len(payload)+64)
			again, ok := c.Encode(value)
			require.True(t, ok)
			same, _, ok := c.Decode(again, 0)
			require.True(t, ok)
			if _, isClone := same.(kept); isClone { // its size is that of other bytes
				require.Equal(t, value.(kept).value, same.(kept).value)
			} else if v, isValid := same.(validated); isValid && c.t.clone != nil {
				require.Equal(t, value.(validated).validator, v.validator)
				require.Equal(t, value.(validated).value.(kept).value, v.value.(kept).value)
			} else {
				require.Equal(t, unpacked(c, value), unpacked(c, same))
			}
		}
	})
}

// unpacked returns a decoded value with its packed part boxed.
func unpacked(c mapCodec, value any) any {
	switch v := value.(type) {
	case packed.Value:
		return c.t.unpack(v)
	case validated:
		return validated{unpacked(c, v.value), v.validator}
	}
	return value
}

func boxed(s string) any { return &s }
