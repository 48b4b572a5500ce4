package field

import (
	"strings"
	"time"
)

// maxSeconds stands for every larger number, RFC 9111 section 1.2.2.
const maxSeconds = 1 << 31

// Seconds is the argument of a directive or field that counts seconds, between 0
// and 2^31, or the absence of one.
type Seconds struct {
	Value   int64
	Present bool
}

// Duration returns s as a duration; it returns 0 for an absent s.
func (s Seconds) Duration() time.Duration { return time.Duration(s.Value) * time.Second }

// ParseSeconds reads delta-seconds, RFC 9111 section 1.2.2: digits and nothing
// else. Numbers above 2^31 are read as 2^31; anything malformed as absent.
func ParseSeconds(s string) Seconds {
	if s == "" {
		return Seconds{}
	}
	var n int64
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return Seconds{}
		}
		n = min(n*10+int64(s[i]-'0'), maxSeconds)
	}
	return Seconds{n, true}
}

// ParseAge reads Age, RFC 9111 section 5.1. Of a list the first member counts.
// The section ignores what is invalid; but such a response is as likely old as
// new, so that a cache that must not be wrong takes it for stale: ok is false.
// Several lines, or lines that were joined on the way (by a comma and a space, RFC
// 9110 section 5.3), are invalid: which one was meant is unknown.
func ParseAge(values []string) (age Seconds, ok bool) {
	switch len(values) {
	case 0:
		return Seconds{}, true
	case 1:
		if !strings.Contains(values[0], ", ") {
			first, _, _ := cutMember(values[0])
			age = ParseSeconds(first)
		}
	}
	return age, age.Present
}

// least merges a repeated limit: the smaller one holds.
func (s *Seconds) least(t Seconds) {
	if !s.Present || t.Value < s.Value {
		*s = t
	}
}

// most merges a repeated demand: the larger one holds.
func (s *Seconds) most(t Seconds) {
	if !s.Present || t.Value > s.Value {
		*s = t
	}
}
