package field

import "time"

// maxSeconds stands for every larger number, RFC 9111 section 1.2.2.
const maxSeconds = 1 << 31

// Seconds is the argument of a directive or field that counts seconds, between 0
// and 2^31, or the absence of one.
type Seconds struct {
	Value   int64
	Present bool
}

// Duration returns s as a duration; what is absent is 0.
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

// ParseAge reads Age, RFC 9111 section 5.1: the first member of the first line
// counts, and an invalid one is as good as none.
func ParseAge(values []string) Seconds {
	if len(values) == 0 {
		return Seconds{}
	}
	first, _, _ := cutMember(values[0])
	return ParseSeconds(first)
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
