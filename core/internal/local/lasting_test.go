package local

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// letters is what is known, as letters in order.
type letters string

func (l letters) Covers(other Lasting) bool {
	return !strings.ContainsFunc(string(other.(letters)), func(r rune) bool { return !strings.ContainsRune(string(l), r) })
}

func (l letters) Join(other Lasting) Lasting {
	for _, r := range other.(letters) {
		if !strings.ContainsRune(string(l), r) {
			l += letters(r)
		}
	}
	return l
}

func (l letters) Size() int    { return len(l) }
func (l letters) Codec() Codec { return letterCodec{} }

type letterCodec struct{}

func (letterCodec) Encode(value any) ([]byte, bool) {
	l, ok := value.(letters)
	return []byte(l), ok
}

func (letterCodec) Decode(payload []byte, _ int64) (any, int, bool) {
	return letters(payload), len(payload), !strings.Contains(string(payload), "?")
}

func TestALastingValueIsNotReplacedByALesserOne(t *testing.T) {
	c, err := New(Settings{MaxBytes: 1 << 20, Refreshes: 1})
	require.NoError(t, err)
	defer func() { require.NoError(t, c.Close(context.Background())) }()
	l := c.NewLoad("k", nil)
	c.Join("k", letters("a"), c.Now()+int64(time.Minute))

	_, refusal := l.Fill(Fill{Value: "less", Size: 4, Lifetime: Lifetime{Fresh: time.Minute}})
	require.Equal(t, Replaced, refusal, "LOST: a response replaces a note")
	require.False(t, c.Put("k", "mark", 4, time.Minute))
	c.Fence([]Item{LearntItem("k", []byte("b"))})
	en, state := c.Lookup("k")
	require.Equal(t, Fresh, state)
	require.Equal(t, letters("ab"), en.Value)

	c.Drop("k")
	l = c.NewLoad("k", nil)
	require.True(t, c.Put("k", "mark", 4, time.Minute))
	c.Fence([]Item{LearntItem("k", []byte("b"))})
	_, state = c.Lookup("k")
	require.Equal(t, Gone, state, "what is less goes")
	_, refusal = l.Fill(Fill{Value: "less", Size: 4, Lifetime: Lifetime{Fresh: time.Minute}})
	require.Equal(t, Fenced, refusal)
}

func FuzzLearntItem(f *testing.F) {
	f.Add("k", "payload", "")
	f.Add("", "", "\x00\x00\x00\x05"+string(rune(NameEnd)))
	f.Fuzz(func(t *testing.T, key, payload, other string) {
		k, p, ok := learntOf(LearntItem(key, []byte(payload)))
		require.True(t, ok)
		require.Equal(t, key, k)
		require.Equal(t, payload, p)
		if k, p, ok := learntOf(Item{Kind: Key, Value: other}); ok {
			require.Equal(t, other, LearntItem(k, []byte(p)).Value)
		}
	})
}
