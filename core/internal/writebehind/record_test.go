package writebehind

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func FuzzRecord(f *testing.F) {
	f.Add(Record{Deleted: true}.Encode())
	f.Add(Record{Data: []byte("{}"), Tags: []string{"t:a", "t:b"}}.Encode())
	f.Add([]byte{1, 1, 255, 255, 255})
	f.Add([]byte{1, 1, 1, 200, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, ok := DecodeRecord(b)
		if !ok {
			return
		}

		again, ok := DecodeRecord(r.Encode())

		require.True(t, ok)
		require.Equal(t, r, again)
	})
}
