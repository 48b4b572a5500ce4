package warmup

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/internal/hotkeys"
)

func TestANoteHoldsTheHottestItems(t *testing.T) {
	var list noted[string]
	for range 100 {
		list = append(list, hotkeys.Item[string]{Name: strings.Repeat("n", 1000), About: "a"})
	}
	payload, ok := noteCodec[string]{}.Encode(list)
	require.True(t, ok)
	require.LessOrEqual(t, len(payload), maxNote)
	value, _, ok := noteCodec[string]{}.Decode(payload, 0)
	require.True(t, ok)
	read := value.(noted[string])
	require.Greater(t, len(read), 60)
	require.Equal(t, list[:len(read)], read)
	_, _, ok = noteCodec[string]{}.Decode(append(payload, payload...), 0)
	require.False(t, ok, "larger than any note that is written")
}

func FuzzNote(f *testing.F) {
	f.Add([]byte(`{"Name":"item:1","About":1}{"Name":"item:2","About":2}`))
	f.Add([]byte(`{"Name":`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		value, size, ok := noteCodec[int]{}.Decode(payload, 0)
		if !ok {
			return
		}
		require.LessOrEqual(t, size, maxNote)
		again, ok := noteCodec[int]{}.Encode(value)
		require.True(t, ok)
		read, _, ok := noteCodec[int]{}.Decode(again, 0)
		require.True(t, ok)
		list := value.(noted[int])
		require.Equal(t, list[:len(read.(noted[int]))], read.(noted[int]))
	})
}
