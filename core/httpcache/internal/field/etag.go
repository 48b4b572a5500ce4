package field

import "strings"

// ETag is an entity tag, RFC 9110 section 8.8.3. Opaque includes its quotes.
type ETag struct {
	Weak   bool
	Opaque string
}

// ParseETag reads a whole ETag field value. The weakness mark is case-sensitive
// and the quotes are required.
func ParseETag(s string) (ETag, bool) {
	tag, rest, ok := cutETag(s)
	return tag, ok && rest == ""
}

// Valid reports whether s is an entity tag, RFC 9110 section 8.8.3.
func Valid(s string) bool {
	_, ok := ParseETag(s)
	return ok
}

// MatchWeak evaluates the lines of an If-None-Match field against the entity tag
// of the stored response, RFC 9110 section 13.1.2, by weak comparison: "W/" is
// ignored on both sides. "*", which must be all there is, matches every stored
// response; a response without a valid tag is matched by nothing else.
//
// Lists are read up to the first member that is malformed. Tags before it count,
// the member itself and everything after it, in later lines too, do not: where a
// quote is missing there is no telling what is a tag and what stands between two.
func MatchWeak(fieldValues []string, etag string) bool {
	return match(fieldValues, etag, func(a, b ETag) bool { return a.Opaque == b.Opaque })
}

// MatchStrong evaluates the lines of an If-Match field, RFC 9110 section 13.1.1,
// by strong comparison: neither tag may be weak. It reads lists as MatchWeak does.
func MatchStrong(fieldValues []string, etag string) bool {
	return match(fieldValues, etag, func(a, b ETag) bool { return a == b && !a.Weak })
}

func match(fieldValues []string, etag string, equal func(a, b ETag) bool) bool {
	if len(fieldValues) == 1 && trimOWS(fieldValues[0]) == "*" {
		return true
	}
	want, ok := ParseETag(etag)
	if !ok {
		return false
	}
	for _, rest := range fieldValues {
		for {
			// RFC 9110 section 5.6.1.2: empty elements are ignored.
			if rest = strings.TrimLeft(rest, " \t,"); rest == "" {
				break
			}
			var tag ETag
			tag, rest, ok = cutETag(rest)
			rest = trimOWS(rest)
			if !ok || rest != "" && rest[0] != ',' {
				return false
			}
			if equal(tag, want) {
				return true
			}
		}
	}
	return false
}

// cutETag reads the entity tag that s begins with. Unlike a quoted string, an
// opaque tag has no escapes.
func cutETag(s string) (tag ETag, rest string, ok bool) {
	s, tag.Weak = strings.CutPrefix(s, "W/")
	if s == "" || s[0] != '"' {
		return ETag{}, "", false
	}
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			tag.Opaque = s[:i+1]
			return tag, s[i+1:], true
		case c <= ' ' || c == 0x7f:
			return ETag{}, "", false
		}
	}
	return ETag{}, "", false
}
