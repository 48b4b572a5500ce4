package httpcache

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
)

var quotedOrComma = regexp.MustCompile(`(?s)"(?:[^"\\]|\\.)*(?:"|\\?$)|[ \t]*,[ \t]*`)

// meaning is a request field after RFC 9110 section 5.3 has been applied to its
// lines, and without the whitespace that may stand around members: what RFC 9111
// section 4.1 compares.
func meaning(lines []string, there bool) string {
	if !there {
		return "absent"
	}
	value := quotedOrComma.ReplaceAllStringFunc(strings.Join(lines, ","), func(s string) string {
		if s[0] == '"' {
			return s
		}
		return ","
	})
	return "is " + strings.Trim(value, " \t")
}

// Two requests have one variant if, and only if, the fields that the response
// varied on mean the same, each by itself. Without RankLanguages that goes for
// Accept-Language as for any other.
func FuzzVariantKey(f *testing.F) {
	f.Add("a", "b", "de", "a", "b", "de", byte(0xff))
	f.Add("a,b", "", "de, en", "a\nb", "", "de ,en", byte(0xff))
	f.Add("1\x1f=\x012", "3", "", "1", "2\x1f=\x013", "", byte(0xff))
	f.Add("", "x", "", "", "x", "", byte(0b110_111))
	f.Add("\"a , b\"", ", ", "en;q=0.5", "\"a\n b\"", ",,", "en; q=0.5", byte(0xff))
	f.Add(strings.Repeat("x", core.MaxKeyBytes+1), "", "", strings.Repeat("x", core.MaxKeyBytes), "x", "", byte(0xff))
	names := []string{acceptLanguage, "X-A", "X-B"}
	f.Fuzz(func(t *testing.T, a1, b1, l1, a2, b2, l2 string, there byte) {
		var keys, meanings [2]string
		for i, values := range [2][3]string{{l1, a1, b1}, {l2, a2, b2}} {
			r := &request{header: http.Header{}}
			for j, name := range names {
				lines, is := strings.Split(values[j], "\n"), there&(1<<(3*i+j)) != 0
				if is {
					r.header[name] = lines
				}
				meanings[i] += fmt.Sprintf("%s %q ", name, meaning(lines, is))
			}
			keys[i] = new(routeSnapshot).variantKey("http://a/p", names, r)
			require.Equal(t, keys[i], new(routeSnapshot).variantKey("http://a/p", names, r))
		}
		require.Equal(t, meanings[0] == meanings[1], keys[0] == keys[1], "%s\n%s\n%q\n%q", meanings[0], meanings[1], keys[0], keys[1])
	})
}

// language is a member of an Accept-Language, with its weight in thousandths.
type language struct {
	name   string
	weight int
}

// languages draws a ranking and its spelling.
func (d *dice) languages() (ranking []language, lines []string) {
	line := ""
	for i := range d.n(5) {
		l := language{pick(d, "de", "en", "de-at", "*", "fr"), 1000}
		spelled := pick(d, l.name, strings.ToUpper(l.name)) + pick(d, "", " ")
		if d.one(2) {
			l.weight = pick(d, 0, 1000, 500, 123)
			spelled += ";" + pick(d, "", " ") + pick(d, "q", "Q") + "=" + pick(d,
				strconv.FormatFloat(float64(l.weight)/1000, 'f', -1, 64), strconv.FormatFloat(float64(l.weight)/1000, 'f', 3, 64))
		}
		ranking = append(ranking, l)
		if i > 0 && d.one(4) {
			lines, line = append(lines, line), spelled
			continue
		}
		line += pick(d, "", ",", " ,\t", ", ")
		if i > 0 {
			line += ","
		}
		line += spelled
	}
	slices.SortFunc(ranking, func(a, b language) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	return ranking, append(lines, line)
}

// With RankLanguages two requests have one variant if, and only if, they give the
// same languages the same weights.
func FuzzRankedVariantKey(f *testing.F) {
	f.Add([]byte{2, 0, 0, 0, 0, 1, 1, 1, 0, 0}, []byte{2, 1, 1, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{4, 0, 1, 1, 1, 2, 0, 3, 1, 1}, []byte{0})
	f.Add([]byte{}, []byte{1, 3, 0, 0, 1, 0, 0, 0, 0})
	rt := &routeSnapshot{class: core.Class{HTTP: core.HTTPPolicy{RankLanguages: true}}}
	names := []string{acceptLanguage}
	f.Fuzz(func(t *testing.T, one, two []byte) {
		ranking1, lines1 := (&dice{rolls: one}).languages()
		ranking2, lines2 := (&dice{rolls: two}).languages()
		key1 := rt.variantKey("http://a/p", names, &request{header: http.Header{acceptLanguage: lines1}})
		key2 := rt.variantKey("http://a/p", names, &request{header: http.Header{acceptLanguage: lines2}})
		require.Equal(t, slices.Equal(ranking1, ranking2), key1 == key2, "%q\n%q", lines1, lines2)
		absent := rt.variantKey("http://a/p", names, &request{header: http.Header{}})
		require.NotEqual(t, absent, key1, "absent is not empty: %q", lines1)
	})
}
