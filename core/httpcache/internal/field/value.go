package field

import "strings"

// AppendFieldValue appends to dst the combined value of a request field's lines,
// for comparing what a response varied on: RFC 9110 section 5.3 and RFC 9111
// section 4.1. Lines are joined with commas, and whitespace around commas and at
// both ends is removed outside quoted strings. Everything else, empty members,
// case and order included, is kept, so that values which differ in more than
// that whitespace, or in how they are spread over lines, stay different.
//
// A field that is absent and one that is empty both append nothing; a caller to
// whom they are different has to write that down itself.
func AppendFieldValue(dst []byte, values []string) []byte {
	if len(values) == 1 && strings.IndexByte(values[0], ',') < 0 {
		return append(dst, trimOWS(values[0])...)
	}
	for rest, more := combine(values), true; more; {
		var member string
		member, rest, more = cutMember(rest)
		dst = append(dst, member...)
		if more {
			dst = append(dst, ',')
		}
	}
	return dst
}
