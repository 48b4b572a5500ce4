package field

import (
	"cmp"
	"slices"
	"strings"
)

// CanonicalQuery appends to dst a form of a raw query (RFC 3986 section 3.4, as
// application/x-www-form-urlencoded) that is the same for queries that differ
// only in the order of differently named pairs. keep, unless nil, chooses the
// pairs that count by their decoded name.
//
// No two queries that a handler can tell apart get the same form:
//
//   - Pairs are copied as they are written, and only ordered by their decoded
//     names. Pairs with the same decoded name stay in order however each is
//     spelled, because a handler that takes the first or the last one would see
//     the difference between a=1&%61=2 and %61=2&a=1.
//   - Empty pairs are pairs. Each pair is followed by '&', which is left out
//     after the last one unless that is empty; so one empty pair is "&", and
//     only no pair at all is "".
//   - ';' separates nothing, but some handlers (http.AllowQuerySemicolons) split
//     there. So a pair that has one is kept if any of the names that such a
//     handler would see is kept, and where there is one nothing is reordered.
//
// Names are decoded as far as they can be: an escape that is malformed stands for
// itself. Without keep, or without escapes in names, nothing is allocated for up
// to 16 pairs but the growth of dst.
func CanonicalQuery(dst []byte, raw string, keep func(name string) bool) []byte {
	if raw == "" {
		return dst
	}
	if keep == nil && strings.IndexByte(raw, '&') < 0 {
		return append(dst, raw...)
	}
	var array [16]string
	pairs := array[:0]
	for pair := range strings.SplitSeq(raw, "&") {
		if keep == nil || keepPair(pair, keep) {
			pairs = append(pairs, pair)
		}
	}
	if !hasSemicolon(raw) || !slices.ContainsFunc(pairs, hasSemicolon) {
		slices.SortStableFunc(pairs, compareNames)
	}
	for i, pair := range pairs {
		dst = append(dst, pair...)
		if i < len(pairs)-1 || pair == "" {
			dst = append(dst, '&')
		}
	}
	return dst
}

func keepPair(pair string, keep func(name string) bool) bool {
	for part := range strings.SplitSeq(pair, ";") {
		if keep(decodeName(rawName(part))) {
			return true
		}
	}
	// A parser that does not split at ';' reads a name up to the first '='.
	name := rawName(pair)
	return hasSemicolon(name) && keep(decodeName(name))
}

func hasSemicolon(s string) bool { return strings.IndexByte(s, ';') >= 0 }

func rawName(pair string) string {
	name, _, _ := strings.Cut(pair, "=")
	return name
}

// compareNames compares the decoded names of two pairs.
func compareNames(a, b string) int {
	for {
		x, n := nameByte(a)
		y, m := nameByte(b)
		if x != y || n == 0 {
			return cmp.Compare(x, y)
		}
		a, b = a[n:], b[m:]
	}
}

// nameByte is decodeByte for a pair; where its name ends, c is -1 and n is 0.
func nameByte(pair string) (c, n int) {
	if pair == "" || pair[0] == '=' {
		return -1, 0
	}
	b, n := decodeByte(pair)
	return int(b), n
}

func decodeName(s string) string {
	if strings.IndexByte(s, '%') < 0 && strings.IndexByte(s, '+') < 0 {
		return s
	}
	b := make([]byte, 0, len(s))
	for s != "" {
		c, n := decodeByte(s)
		b = append(b, c)
		s = s[n:]
	}
	return string(b)
}

// decodeByte decodes what s begins with, and returns how long that was.
func decodeByte(s string) (c byte, n int) {
	switch {
	case s[0] == '+':
		return ' ', 1
	case s[0] == '%' && len(s) >= 3:
		hi, ok1 := unhex(s[1])
		lo, ok2 := unhex(s[2])
		if ok1 && ok2 {
			return hi<<4 | lo, 3
		}
	}
	return s[0], 1
}

func unhex(c byte) (digit byte, ok bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}
