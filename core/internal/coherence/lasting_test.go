package coherence

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/internal/local"
	"github.com/larderhq/larder/core/internal/tier"
)

// letters is a note whose fields are letters.
type letters string

func (l letters) Covers(other local.Lasting) bool {
	return !strings.ContainsFunc(string(other.(letters)), func(r rune) bool { return !strings.ContainsRune(string(l), r) })
}

func (l letters) Join(other local.Lasting) local.Lasting {
	for _, r := range other.(letters) {
		if !strings.ContainsRune(string(l), r) {
			l += letters(r)
		}
	}
	return l
}

func (l letters) Size() int          { return len(l) }
func (l letters) Codec() local.Codec { return letterCodec{} }

type letterCodec struct{}

func (letterCodec) Encode(value any) ([]byte, bool) {
	l, ok := value.(letters)
	return []byte(l), ok
}

func (letterCodec) Decode(payload []byte, _ int64) (any, int, bool) {
	return letters(payload), len(payload), !strings.Contains(string(payload), "?")
}

// onePlace is the place of one note in a tier. Other instances write between before each write.
type onePlace struct {
	tier.Session
	there   string
	between []string
	wrote   []string
}

func (p *onePlace) Learn(_ context.Context, _ string, payload []byte, _ time.Duration) (was tier.Entry, err error) {
	if len(p.between) > 0 {
		p.there, p.between = p.between[0], p.between[1:]
	}
	if p.there != "" {
		was = tier.Entry{ID: tier.LearntMark + "id", Payload: []byte(p.there)}
	}
	p.there = string(payload)
	p.wrote = append(p.wrote, p.there)
	return was, nil
}

func TestConcurrentLearnersLoseNothing(t *testing.T) {
	for name, c := range map[string]struct {
		place onePlace
		wrote []string
		news  bool
	}{
		"no note is there":        {onePlace{}, []string{"a"}, false},
		"an equal note is there":  {onePlace{there: "a"}, []string{"a"}, false},
		"a smaller note is there": {onePlace{there: "-"}, []string{"a", "a-"}, true},
		"a larger note is there":  {onePlace{there: "ab"}, []string{"a", "ab"}, false},
		"another note is there":   {onePlace{there: "b"}, []string{"a", "ab"}, true},
		"others write in between": {onePlace{between: []string{"b", "c", "abcd"}}, []string{"a", "ab", "abc", "abcd"}, true},
		"an unreadable note is":   {onePlace{there: "?"}, []string{"a"}, true},
		"others write every time": {onePlace{between: strings.Split("bcdefghijk", "")}, strings.Fields("a ab abc abcd abcde abcdef abcdefg abcdefgh"), true},
	} {
		t.Run(name, func(t *testing.T) {
			e, err := New(Settings{MaxBytes: 1 << 20, LongestLoad: time.Second, Refreshes: 1})
			require.NoError(t, err)
			defer func() { require.NoError(t, e.Close(context.Background())) }()
			e.Join("k", letters("a"), e.Now()+int64(time.Minute))
			news, payload, ok := e.learn(context.Background(), &c.place, "k", letters("a"), time.Minute)
			require.True(t, ok)
			require.Equal(t, c.news, news, "another instance may know fewer fields")
			require.Equal(t, c.wrote, c.place.wrote, "LOST: a field")
			require.Equal(t, c.place.there, string(payload))
		})
	}
}
