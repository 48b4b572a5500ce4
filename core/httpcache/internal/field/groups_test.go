package field

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestParseGroups(t *testing.T) {
	lines := func(s ...string) []string { return s }
	numbered := func(n int) (groups []string) {
		for i := range n {
			groups = append(groups, fmt.Sprintf("%032d", i))
		}
		return groups
	}
	quoted := func(groups []string) string { return `"` + strings.Join(groups, `", "`) + `"` }
	long := strings.Repeat("x", maxGroupLen)
	tests := []struct {
		name   string
		values []string
		want   []string
	}{
		{"absent", nil, nil},
		{"empty", lines(""), nil},
		{"one, RFC 9875 section 2", lines(`"scripts"`), lines("scripts")},
		{"two, RFC 9875 section 3", lines(`"eurovision-results", "australia"`), lines("eurovision-results", "australia")},
		{"lines, RFC 9651 section 3.1", lines(`"b"`, `"a"`), lines("b", "a")},
		{"once", lines(`"a", "b","a"`), lines("a", "b")},
		{"case, RFC 9875 section 2.1", lines(`"a", "A"`), lines("a", "A")},
		{"the empty group", lines(`""`), lines("")},
		{"spaces and commas inside", lines(`"a, b", " a"`), lines("a, b", " a")},
		{"escapes, RFC 9651 section 3.3.3", lines(`"a\"b\\c"`), lines(`a"b\c`)},
		{"parameters, RFC 9875 section 2", lines(`"a";revalidate;x=1, "b";y="z"`), lines("a", "b")},
		{"a token, RFC 9651 section 2", lines(`"a", b`), nil},
		{"a number", lines(`1, "a"`), nil},
		{"an inner list", lines(`"a", ("b" "c")`), nil},
		{"a display string", lines(`%"a"`), nil},
		{"a date", lines(`"a", @1`), nil},
		{"a date without an end", lines(`"a", @`), nil},
		{"no end, RFC 9651 section 4.2", lines(`"a", "b`), nil},
		{"a comma too much", lines(`"a",`), nil},
		{"no comma", lines(`"a" "b"`), nil},
		{"not ASCII", lines(`"ä"`), nil},
		{"a string over two lines", lines(`"a`, `b"`), lines("a,b")},
		{"what must be supported, RFC 9875 section 2", lines(quoted(numbered(32))), numbered(32)},
		{"as many as there may be", lines(quoted(numbered(maxGroups))), numbered(maxGroups)},
		{"too many", lines(quoted(numbered(maxGroups + 1))), numbered(maxGroups)},
		{"many, but the same", lines(strings.Repeat(`"a",`, 999) + `"b"`), lines("a", "b")},
		{"as long as one may be", lines(quoted(lines(long))), lines(long)},
		{"too long", lines(quoted(lines("a", long+"x", "b"))), lines("a", "b")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := ParseGroups(tt.values); !slices.Equal(got, tt.want) {
				t.Errorf("ParseGroups(%q) = %q, want %q", tt.values, got, tt.want)
			}
		})
	}
}

// The grammar of RFC 9651 section 3 for what has the types of RFC 8941, which are
// all that the fields here may use.
const (
	sfString = `"(?:[ !#-\[\]-~]|\\["\\])*"`
	sfNumber = `-?(?:[0-9]{1,12}\.[0-9]{1,3}|[0-9]{1,15})`
	sfToken  = "[A-Za-z*][!#$%&'*+.^_`|~:/0-9A-Za-z-]*"
	sfBare   = `(?:` + sfString + `|` + sfNumber + `|` + sfToken + `|\?[01])`
	sfKey    = `[a-z*][a-z0-9_.*-]*`
	sfParams = `(?:; *` + sfKey + `(?:=` + sfBare + `)?)*`
	sfItem   = sfBare + sfParams
	sfInner  = `\( *(?:` + sfItem + `(?: +` + sfItem + `)* *)?\)` + sfParams
	sfMember = `(?:` + sfItem + `|` + sfInner + `)`
	sfComma  = `[ \t]*,[ \t]*`
)

var (
	modelGroups = regexp.MustCompile(`^ *(?:` + sfString + sfParams + `(?:` + sfComma + sfString + sfParams + `)*[ \t]*)?$`)
	modelGroup  = regexp.MustCompile(`^[ \t,]*(` + sfString + `)` + sfParams)
	sfEscape    = regexp.MustCompile(`\\(.)`)
)

// beyondModel reports whether a field may have a byte sequence, a date or a display
// string, or a number with as many digits as it may have. Only the first of these
// are types of RFC 8941, and base64 is not in the model. The numbers are RFC 9651
// section 3.3.1 and 3.3.2, but httpsfv refuses them unless the field ends there.
func beyondModel(field string) bool {
	return strings.ContainsAny(field, ":@%") || modelLongNumber.MatchString(field)
}

var modelLongNumber = regexp.MustCompile(`[0-9]{15}|[0-9]{12}\.`)

func FuzzGroups(f *testing.F) {
	for _, seed := range []string{
		"", `"scripts"`, `"a", "b","a"`, "\"b\"\n\"a\"", `"a\"b\\c"`, `"a";revalidate;x=1, "b";y="z"`, `"a", b`, `1, "a"`,
		`"a", ("b" "c")`, `%"a"`, `"a", @`, `"a",`, `"a" "b"`, `"ä"`, "\"a\nb\"", strings.Repeat(`"a",`, 99) + `"b"`, `""`, `"a\b"`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, field string) {
		values := strings.Split(field, "\n")
		got := ParseGroups(values)
		if len(got) > maxGroups {
			t.Errorf("ParseGroups(%q): %d groups", values, len(got))
		}
		if beyondModel(field) {
			return
		}
		rest := strings.Join(values, ",")
		var want []string
		if modelGroups.MatchString(rest) {
			for m := modelGroup.FindStringSubmatch(rest); m != nil; m = modelGroup.FindStringSubmatch(rest) {
				rest = rest[len(m[0]):]
				group := sfEscape.ReplaceAllString(m[1][1:len(m[1])-1], "$1")
				if len(group) <= maxGroupLen && !slices.Contains(want, group) {
					want = append(want, group)
				}
			}
		}
		if want = want[:min(len(want), maxGroups)]; !slices.Equal(got, want) {
			t.Errorf("ParseGroups(%q) = %q, want %q", values, got, want)
		}
	})
}
