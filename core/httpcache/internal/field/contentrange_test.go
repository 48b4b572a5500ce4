package field

import (
	"fmt"
	"math"
	"math/big"
	"regexp"
	"strings"
	"testing"
)

func TestParseContentRange(t *testing.T) {
	tests := []struct {
		name  string
		value string
		span  Span
		size  int64
		ok    bool
	}{
		{"RFC 9110 section 14.4", "bytes 42-1233/1234", Span{42, 1233}, 1234, true},
		{"size unknown, RFC 9110 section 14.4", "bytes 42-1233/*", Span{42, 1233}, -1, true},
		{"one byte", "bytes 0-0/1", Span{0, 0}, 1, true},
		{"the unit has no case, RFC 9110 section 14.1", "Bytes 0-4/10", Span{0, 4}, 10, true},
		{"leading zeros", "bytes 00-04/010", Span{0, 4}, 10, true},
		{"large", "bytes 0-9223372036854775805/9223372036854775806", Span{0, math.MaxInt64 - 2}, math.MaxInt64 - 1, true},
		{"too large", "bytes 0-1/9223372036854775808", Span{}, 0, false},
		{"too large, size unknown", "bytes 0-9223372036854775807/*", Span{}, 0, false},
		{"unsatisfied", "bytes */10", Span{}, 0, false},
		{"unsatisfied, no size", "bytes */*", Span{}, 0, false},
		{"last before first", "bytes 4-3/10", Span{}, 0, false},
		{"last outside", "bytes 0-10/10", Span{}, 0, false},
		{"no bytes", "bytes 0-0/0", Span{}, 0, false},
		{"another unit", "lines 0-4/10", Span{}, 0, false},
		{"no unit", "0-4/10", Span{}, 0, false},
		{"equals sign", "bytes=0-4/10", Span{}, 0, false},
		{"two spaces", "bytes  0-4/10", Span{}, 0, false},
		{"a space inside", "bytes 0-4 /10", Span{}, 0, false},
		{"a tab", "bytes\t0-4/10", Span{}, 0, false},
		{"no size", "bytes 0-4", Span{}, 0, false},
		{"empty size", "bytes 0-4/", Span{}, 0, false},
		{"no last", "bytes 0-/10", Span{}, 0, false},
		{"no first", "bytes -4/10", Span{}, 0, false},
		{"negative", "bytes 0--4/10", Span{}, 0, false},
		{"sign", "bytes +0-4/10", Span{}, 0, false},
		{"two ranges", "bytes 0-1,3-4/10", Span{}, 0, false},
		{"text behind", "bytes 0-4/10x", Span{}, 0, false},
		{"empty", "", Span{}, 0, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if span, size, ok := ParseContentRange([]string{tt.value}); span != tt.span || size != tt.size || ok != tt.ok {
				t.Errorf("ParseContentRange(%q) = %v, %d, %v", tt.value, span, size, ok)
			}
		})
	}
	for _, values := range [][]string{nil, {"bytes 0-4/10", "bytes 0-4/10"}} {
		if span, size, ok := ParseContentRange(values); ok {
			t.Errorf("ParseContentRange(%q) = %v, %d, want none", values, span, size)
		}
	}
}

var modelContentRange = regexp.MustCompile(`^[ \t]*(?i:bytes) ([0-9]+)-([0-9]+)/(?:([0-9]+)|\*)[ \t]*$`)

func FuzzContentRange(f *testing.F) {
	for _, seed := range []string{
		"bytes 42-1233/1234", "bytes 42-1233/*", "bytes */10", "bytes 4-3/10", "bytes 0-10/10", "Bytes 00-04/010", "lines 0-4/10", "bytes=0-4/10",
		"bytes 0-9223372036854775807/*", "bytes 0-1/9223372036854775808", "bytes 0-4", "bytes 0--4/10", "byteſ 0-4/10", "",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		span, size, ok := ParseContentRange([]string{value})
		m := modelContentRange.FindStringSubmatch(value)
		if strings.ContainsRune(value, 'ſ') { // which (?i) takes for an s
			m = nil
		}
		number := func(s string) *big.Int {
			n, _ := new(big.Int).SetString(s, 10)
			return n
		}
		want, limit := m != nil, big.NewInt(math.MaxInt64)
		if want && m[3] != "" {
			want, limit = number(m[3]).Cmp(limit) < 0, number(m[3])
		}
		want = want && number(m[1]).Cmp(number(m[2])) <= 0 && number(m[2]).Cmp(limit) < 0
		if ok != want {
			t.Fatalf("ParseContentRange(%q) = %v, %d, %v", value, span, size, ok)
		}
		if !ok {
			return
		}
		written := fmt.Sprintf("bytes %d-%d/%d", span.First, span.Last, size)
		if size < 0 {
			written = fmt.Sprintf("bytes %d-%d/*", span.First, span.Last)
		}
		if number(m[1]).Int64() != span.First || number(m[2]).Int64() != span.Last || m[3] != "" && number(m[3]).Int64() != size || m[3] == "" && size != -1 {
			t.Errorf("ParseContentRange(%q) is %s", value, written)
		}
		if again, sizeAgain, ok := ParseContentRange([]string{written}); again != span || sizeAgain != size || !ok {
			t.Errorf("ParseContentRange(%q) is %s, and of that %v, %d, %v", value, written, again, sizeAgain, ok)
		}
	})
}
