package local

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	minute = time.Minute
	hour   = time.Hour
)

// open makes an engine that the test's end closes.
func open(t testing.TB) *Cache {
	return openWith(t, Settings{MaxBytes: 1 << 20, Refreshes: 4})
}

func openWith(t testing.TB, s Settings) *Cache {
	t.Helper()
	c, err := New(s)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close(context.Background())) })
	return c
}

// store loads value under key in no time and demands that it is stored.
func store(t testing.TB, c *Cache, key, value string, early, late []string) *Entry {
	t.Helper()
	en, refusal := c.NewLoad(key, early).Fill(fillOf(value, late))
	require.Equal(t, Stored, refusal)
	return en
}

func fillOf(value string, late []string) Fill {
	return Fill{Value: value, Size: len(value), Lifetime: Lifetime{Fresh: hour, Stale: hour, Fallback: hour}, Tags: late}
}

// mustBeGone fails the test, by a word that the mutants' judge looks for, if the
// old value can still be answered.
func mustBeGone(t testing.TB, c *Cache, key string) {
	t.Helper()
	if en, state := c.Lookup(key); state != Gone {
		t.Errorf("STALE: %q is still answered under %q", en.Value, key)
	}
}

// mustBe fails the test unless value is what key is answered with, fresh.
func mustBe(t testing.TB, c *Cache, key, value string) {
	t.Helper()
	en, state := c.Lookup(key)
	require.Equal(t, Fresh, state)
	require.Equal(t, value, en.Value)
}

// naming is one way in which an invalidation can concern the entry "item:1".
type naming struct {
	name        string
	early, late []string // tags of the entry, known before its load and after it
	items       []Item
}

const key = "item:1"

// namings are all of them.
func namings() []naming {
	tags := []string{"t:a", "t:b"}
	return []naming{
		{"its key", nil, nil, []Item{{Kind: Key, Value: key}}},
		{"a tag known before the load", tags, nil, []Item{{Kind: Tag, Value: "t:b"}}},
		{"a tag named by the load", []string{"t:a"}, []string{"t:b"}, []Item{{Kind: Tag, Value: "t:b"}}},
		{"a pattern", nil, nil, []Item{{Kind: Pattern, Value: "item:[0-9]"}}},
		{"all", nil, nil, []Item{{Kind: All}}},
		{"one of several targets", nil, nil, []Item{{Kind: Tag, Value: "t:z"}, {Kind: Key, Value: "item:2"}, {Kind: Key, Value: key}}},
	}
}
