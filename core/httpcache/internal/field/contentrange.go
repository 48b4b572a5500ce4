package field

import (
	"math"
	"strings"
)

// ParseContentRange reads the Content-Range field of a 206, RFC 9110 section
// 14.4: "bytes 0-4/10". size is -1 where it is "*". ok is false for anything else:
// several lines, another unit, an unsatisfied range ("bytes */10"), a last byte
// before the first one or outside of size, or a number that no int64 holds.
func ParseContentRange(values []string) (span Span, size int64, ok bool) {
	if len(values) != 1 {
		return Span{}, 0, false
	}
	unit, rest, _ := strings.Cut(trimOWS(values[0]), " ")
	ends, length, _ := strings.Cut(rest, "/")
	first, last, _ := strings.Cut(ends, "-")
	size = -1
	ok = equalFold(unit, "bytes")
	span.First, ok = exactCount(first, ok)
	span.Last, ok = exactCount(last, ok)
	if length != "*" {
		size, ok = exactCount(length, ok)
	}
	if !ok || span.First > span.Last || size >= 0 && span.Last >= size {
		return Span{}, 0, false
	}
	return span, size, true
}

// exactCount is parseCount for a number that has to be exact: what parseCount
// gives for all that are too large is refused. before is whether what was read
// before it was right; the failure is handed on.
func exactCount(s string, before bool) (n int64, ok bool) {
	n, ok = parseCount(s)
	return n, ok && before && n < math.MaxInt64
}
