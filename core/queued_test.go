package core

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func FuzzQueued(f *testing.F) {
	f.Add(queued{deleted: true}.encode())
	f.Add(queued{data: []byte("{}"), tags: []string{"t:a", "t:b"}}.encode())
	f.Add([]byte{1, 1, 255, 255, 255})
	f.Add([]byte{1, 1, 1, 200, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		q, ok := decodeQueued(b)
		if !ok {
			return
		}
		again, ok := decodeQueued(q.encode())
		require.True(t, ok)
		require.Equal(t, q, again)
	})
}

func TestGivenIds_WhenTheyAreEncodedAndDecoded_ThenTheyAreTheSame(t *testing.T) {
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
