package glob_test

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/larderhq/larder/core/internal/glob"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestPatternsMatchAsInRedis(t *testing.T) {
	for _, test := range []struct {
		pattern, s string
		match      bool
	}{
		{"", "", true},
		{"", "a", false},
		{"a", "", false},
		{"a", "a", true},
		{"a", "A", false},
		{"a", "ab", false},
		{"ab", "a", false},

		{"*", "a", true},
		{"*", "a/b:c", true},
		{"**", "a", true},
		{"a*", "a", true},
		{"a*", "abc", true},
		{"a*", "ba", false},
		{"*c", "abc", true},
		{"*c", "abcd", false},
		{"a*c", "ac", true},
		{"a*c", "abbbc", true},
		{"a*b*c", "aXbXbXc", true},
		{"a*b*c", "acb", false},
		{"*a*", "xax", true},
		{"*ab*ab", "abab", true},
		{"*ab*ab", "aab", false},
		{"user:*", "user:42", true},
		{"user:*", "users:42", false},
		{"***a", "bbba", true},

		{"?", "a", true},
		{"?", "", false},
		{"??", "a", false},
		{"h?llo", "hello", true},
		{"h?llo", "hllo", false},
		{"?*", "a", true},
		{"*?", "", false},
		{"*?", "abc", true},
		{"?", "é", false}, // bytes, not characters
		{"??", "é", true},

		{"[abc]", "b", true},
		{"[abc]", "d", false},
		{"[abc]", "", false},
		{"h[ae]llo", "hallo", true},
		{"h[ae]llo", "hillo", false},
		{"[^a]", "b", true},
		{"[^a]", "a", false},
		{"[!a]", "!", true}, // only ^ negates
		{"[!a]", "b", false},
		{"[a-c]", "b", true},
		{"[c-a]", "b", true}, // the wrong way round is right too
		{"[a-c]", "d", false},
		{"[^a-c]", "d", true},
		{"[^a-c]", "b", false},
		{"[a-c-e]", "d", false},
		{"[a-c-e]", "-", true},
		{"[-a]", "-", true},
		{"[a-]", "a", true}, // a range up to ], and then nothing closes the class
		{"[a-]", "_", true},
		{"[a-]", "b", false},
		{"[a-]]", "b", false},
		{"[a-]]", "]", true},
		{"[]", "]", false}, // ] closes at once: an empty class
		{"[]a]", "a]", false},
		{"[^]", "a", true},
		{"[^]a", "xa", true},
		{"[\\]]", "]", true},
		{"[\\]]", "\\", false},
		{"[\\^a]", "^", true},
		{"[\\-a]", "-", true},
		{"[a\\-c]", "b", false},
		{"[a\\-c]", "-", true},
		{"[*]", "*", true},
		{"[*]", "a", false},
		{"[?]", "a", false},
		{"[[]", "[", true},
		{"*[0-9]", "user:7", true},
		{"[0-9]*", "7user", true},

		{"[abc", "b", true}, // unclosed: it ends with the pattern
		{"[abc", "bc", false},
		{"[", "[", false},
		{"[^", "a", true},
		{"[a-", "a", true},
		{"[a-", "-", true},
		{"[a-", "b", false},
		{"[\\", "\\", true},
		{"x[a", "xa", true},

		{"\\*", "*", true},
		{"\\*", "a", false},
		{"\\?", "?", true},
		{"\\[a]", "[a]", true},
		{"\\a", "a", true},
		{"\\\\", "\\", true},
		{"\\", "\\", true}, // nothing to escape: it stands for itself
		{"a\\", "a\\", true},
		{"a\\", "a", false},
		{"*\\*", "a*", true},
		{"a]", "a]", true},
		{"^a", "^a", true},
		{"a-b", "a-b", true},
	} {
		require.Equal(t, test.match, glob.Match(test.pattern, test.s), "%q against %q", test.pattern, test.s)
	}
}

// matches is the same in the plainest way: by recursion, from the description of
// KEYS at redis.io: "h?llo", "h*llo", "h[ae]llo", "h[^e]llo", "h[a-b]llo", and a
// backslash to match a special character verbatim.
func matches(pattern, s string) bool {
	if pattern == "" {
		return s == ""
	}
	if pattern[0] == '*' {
		return matches(pattern[1:], s) || s != "" && matches(pattern, s[1:])
	}
	accepts, rest := element(pattern)
	return s != "" && accepts[s[0]] && matches(rest, s[1:])
}

// element returns the bytes that the first element of a pattern accepts, and the
// pattern behind it.
func element(pattern string) (accepts [256]bool, rest string) {
	c, rest := pattern[0], pattern[1:]
	switch {
	case c == '?':
		for i := range accepts {
			accepts[i] = true
		}
	case c == '\\' && rest != "":
		accepts[rest[0]] = true
		rest = rest[1:]
	case c == '[':
		rest, negated := strings.CutPrefix(rest, "^")
		for rest != "" && rest[0] != ']' {
			switch {
			case rest[0] == '\\' && len(rest) >= 2:
				accepts[rest[1]] = true
				rest = rest[2:]
			case len(rest) >= 3 && rest[1] == '-':
				for b := int(min(rest[0], rest[2])); b <= int(max(rest[0], rest[2])); b++ {
					accepts[b] = true
				}
				rest = rest[3:]
			default:
				accepts[rest[0]] = true
				rest = rest[1:]
			}
		}
		if negated {
			for i := range accepts {
				accepts[i] = !accepts[i]
			}
		}
		return accepts, strings.TrimPrefix(rest, "]")
	default:
		accepts[c] = true
	}
	return accepts, rest
}

// alphabets are few letters, so that chance matches often.
const (
	patternAlphabet = "aab-c***???[[]]^\\\\"
	keyAlphabet     = "aabc-]^[*\\"
)

func random(alphabet string, longest int) string {
	b := make([]byte, rand.IntN(longest+1))
	for i := range b {
		b[i] = alphabet[rand.IntN(len(alphabet))]
	}
	return string(b)
}

func TestRandomPatternsMatchAsTheReference(t *testing.T) {
	matched := 0
	for range 100_000 {
		pattern, s := random(patternAlphabet, 10), random(keyAlphabet, 8)
		want := matches(pattern, s)
		if want {
			matched++
		}
		if glob.Match(pattern, s) != want {
			t.Errorf("%q against %q: not %v", pattern, s, want)
		}
	}
	require.Greater(t, matched, 2_000)
}

func TestCoversOfPatternsAreHarmlessToTheServer(t *testing.T) {
	for _, test := range []struct {
		patterns []string
		cover    string
	}{
		{[]string{"user:*"}, "user:*"},
		{[]string{"user:42"}, "user:42*"},
		{[]string{"user:?x[a-c][^9]"}, "user:?x[a-c][^9]*"},
		{[]string{"*"}, "*"},
		{[]string{"***"}, "*"},
		{[]string{""}, "*"},
		{[]string{"*x"}, "*x*"},
		{[]string{"a**x*"}, "a*x*"},
		{[]string{"*a*b*c"}, "*a*"},
		{[]string{`a\*\b\\`}, `a\*b\\*`},
		{[]string{`a\`}, `a\\*`},
		{[]string{"a[bc"}, "a?*"},
		{[]string{"a[b-]]"}, "a?*"},
		{[]string{"a[b-]"}, "a?*"},
		{[]string{"a["}, "a?*"},
		{[]string{"a[]b"}, "a[]b*"},
		{[]string{"a[^]b"}, "a[^]b*"},
		{[]string{`a[\]]b`}, "a?b*"},
		{[]string{"a[\xc3-\xff]b"}, "a?b*"},
		{[]string{"a]^-b"}, "a]^-b*"},
		{nil, "*"},
		{[]string{"user:*", "users"}, "user*"},
		{[]string{`a\*b`, `a\*c`}, `a\**`},
		{[]string{"a[b]", "ab"}, "a*"},
		{[]string{"a", "b"}, "*"},
		{[]string{"a", "a"}, "a*"},
	} {
		require.Equal(t, test.cover, glob.Cover(test.patterns...), "%q", test.patterns)
	}
}

func TestCheckRefusesPatternsThatMatchOtherKeysThanTheySay(t *testing.T) {
	for pattern, good := range map[string]bool{
		"": true, "a*": true, "?": true, "[abc]": true, "[^a]": true, "[^]": true, "[a-c]x": true, `[\]]`: true, `\[`: true, `a\\`: true, "]": true,
		"[": false, "a[b": false, "[]": false, "x[]y": false, "[^": false, "[a-]": false, `[\]`: false, `\`: false, `a\\\`: false, "[a][": false,
	} {
		require.Equal(t, good, glob.Check(pattern) == "", "%q: %s", pattern, glob.Check(pattern))
	}
	require.Empty(t, glob.Check(glob.Escape(`[a]\*?[`)+"*"))
}

func TestAnEscapedNameMatchesOnlyItself(t *testing.T) {
	require.Equal(t, `a\*\?\[b]\\-^`, glob.Escape(`a*?[b]\-^`))
	for range 10_000 {
		a, b := random(keyAlphabet, 8), random(keyAlphabet, 8)
		require.True(t, glob.Match(glob.Escape(a), a), a)
		require.Equal(t, a == b, glob.Match(glob.Escape(a), b), "%q and %q", a, b)
		require.Equal(t, strings.HasPrefix(b, a), glob.Match(glob.Escape(a)+"*", b), "%q and %q", a, b)
	}
}

func FuzzCover(f *testing.F) {
	for _, seed := range [][3]string{
		{"user:*", "user:42", "users:1"}, {"*a*b", "xaxb", ""}, {"[^a-c]?\\*", "dx*", "d"}, {"[a-", "-", "a"}, {"\\", "\\", "x"},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	f.Fuzz(func(t *testing.T, pattern, other, s string) {
		if len(pattern)+len(other)+len(s) > 200 {
			return
		}
		one, both := glob.Cover(pattern), glob.Cover(pattern, other)
		if glob.Match(pattern, s) && !glob.Match(one, s) {
			t.Errorf("%q matches %q, and its cover %q does not", pattern, s, one)
		}
		if (glob.Match(pattern, s) || glob.Match(other, s)) && !glob.Match(both, s) {
			t.Errorf("%q or %q matches %q, and their cover %q does not", pattern, other, s, both)
		}
		if glob.Match(one, s) && !glob.Match(one, s+pattern) {
			t.Errorf("the cover %q matches %q, and not with more behind it", one, s)
		}
	})
}

func FuzzMatch(f *testing.F) {
	for _, seed := range [][2]string{
		{"user:*", "user:42"}, {"*a*b", "xaxb"}, {"[^a-c]?\\*", "dx*"}, {"[a-", "-"}, {"[]a]", "a]"}, {"\\", "\\"}, {"[\xff-a]", "\xc3"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, pattern, s string) {
		if strings.Count(pattern, "*") > 6 || len(s) > 40 {
			return // the reference takes for ever
		}
		if got, want := glob.Match(pattern, s), matches(pattern, s); got != want {
			t.Errorf("%q against %q: %v, and the reference says %v", pattern, s, got, want)
		}
	})
}

// A pattern comes from outside: it must not be able to take the process's time.
func TestTheWorstPatternTakesQuadraticTime(t *testing.T) {
	s := strings.Repeat("a", 1024)
	for _, pattern := range []string{
		strings.Repeat("a*", 511) + "b", strings.Repeat("*a", 511) + "b", strings.Repeat("*?", 511) + "b", strings.Repeat("*", 1023) + "b",
		"*" + strings.Repeat("a", 500) + "b", strings.Repeat("*[^b]", 200) + "b",
		"*[" + strings.Repeat("b-c", 330) + "]",
	} {
		start := time.Now()
		require.False(t, glob.Match(pattern, s))
		require.Less(t, time.Since(start), time.Second, "%.20q…", pattern)
	}
}
