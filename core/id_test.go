package core

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAnEncodedIDDecodesToItself(t *testing.T) {
	roundTrip(t, "a:b", "", "x y")
	roundTrip(t, -7, 0, 1<<40)
	roundTrip[uint8](t, 0, 255)
	roundTrip(t, true, false)
	decode, err := idDecoder[int8]()
	require.NoError(t, err)
	_, err = decode("300")
	require.Error(t, err)
	_, err = idDecoder[float64]()
	var ce *ConfigError
	require.ErrorAs(t, err, &ce)
}

func roundTrip[K comparable](t *testing.T, ids ...K) {
	t.Helper()
	encode, err := idEncoder[K]()
	require.NoError(t, err)
	decode, err := idDecoder[K]()
	require.NoError(t, err)
	for _, id := range ids {
		text, err := encode(id)
		require.NoError(t, err)
		got, err := decode(text)
		require.NoError(t, err)
		require.Equal(t, id, got)
	}
}
