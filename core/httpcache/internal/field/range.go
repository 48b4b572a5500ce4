package field

import (
	"math"
	"strings"
	"time"
)

// maxRanges is how many ranges a Range field may have, satisfiable or not.
const maxRanges = 32

// Span is a range of bytes, both ends included: 0 <= First <= Last < size.
type Span struct{ First, Last int64 }

// ParseRange reads a Range field for a representation of size bytes, RFC 9110
// sections 14.1.1, 14.1.2 and 14.2. ok is false where the field is to be ignored
// and everything sent; ok without spans means that no range can be satisfied,
// which is status 416.
//
// A field is ignored that is absent, has several lines, another unit than bytes
// or is malformed, and one that section 14.2 takes for an attack: more than 32
// ranges, more than two that overlap, or together more bytes than there are. So
// is any field where there are no bytes at all, as [net/http.ServeContent] does.
// Spans are in the order of the field, because a client may have one (section
// 15.3.7.2).
func ParseRange(values []string, size int64) (spans []Span, ok bool) {
	if len(values) != 1 || size <= 0 {
		return nil, false
	}
	unit, set, found := strings.Cut(trimOWS(values[0]), "=")
	if !found || !equalFold(unit, "bytes") {
		return nil, false
	}
	specs, total := 0, int64(0)
	for spec := range strings.SplitSeq(set, ",") {
		if spec = trimOWS(spec); spec == "" {
			continue // RFC 9110 section 5.6.1.2
		}
		if specs++; specs > maxRanges {
			return nil, false
		}
		span, valid := parseSpec(spec, size)
		if !valid {
			return nil, false
		}
		if span.First >= size {
			continue
		}
		length := span.Last - span.First + 1
		if length > size-total { // the sum might not fit
			return nil, false
		}
		total += length
		spans = append(spans, span)
	}
	if specs == 0 || overlapping(spans) > 2 {
		return nil, false
	}
	return spans, true
}

// parseSpec reads one int-range or suffix-range. One that cannot be satisfied
// begins at size or behind it.
func parseSpec(spec string, size int64) (span Span, ok bool) {
	first, last, ok := strings.Cut(spec, "-")
	if !ok {
		return Span{}, false
	}
	if first == "" {
		n, ok := parseCount(last)
		return Span{size - min(n, size), size - 1}, ok
	}
	span.First, ok = parseCount(first)
	if !ok || last == "" {
		span.Last = size - 1
		return span, ok
	}
	span.Last, ok = parseCount(last)
	if !ok || span.Last < span.First {
		return Span{}, false
	}
	span.Last = min(span.Last, size-1)
	return span, true
}

// parseCount reads digits and nothing else. Numbers that no int64 holds are read
// as the largest, as RFC 9110 section 14.1.2 asks not to stumble over them.
func parseCount(s string) (n int64, ok bool) {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		if digit := int64(s[i] - '0'); n <= (math.MaxInt64-digit)/10 {
			n = n*10 + digit
		} else {
			n = math.MaxInt64
		}
	}
	return n, s != ""
}

// overlapping counts the spans that have a byte in common with another one.
func overlapping(spans []Span) (n int) {
	for i, a := range spans {
		for j, b := range spans {
			if i != j && a.First <= b.Last && b.First <= a.Last {
				n++
				break
			}
		}
	}
	return n
}

// IfRangeHolds evaluates an If-Range field against the stored response's entity
// tag, Last-Modified and Date, RFC 9110 section 13.1.5: where it does not hold,
// Range is ignored. Without the field it holds; with several lines or a malformed
// one it does not.
//
// Entity tags are compared strongly. A date holds if it is Last-Modified exactly
// and a strong validator, which it is if the response was made at least a second
// later. Either is zero where it is not known, and then no date holds.
func IfRangeHolds(values []string, etag string, lastModified, date time.Time) bool {
	if len(values) != 1 {
		return len(values) == 0
	}
	value := trimOWS(values[0])
	if tag, ok := ParseETag(value); ok {
		return value == etag && !tag.Weak
	}
	if !StrongDate(lastModified, date) {
		return false
	}
	t, ok := ParseDate(value)
	return ok && t.Equal(lastModified)
}
