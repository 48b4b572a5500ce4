// Package glob matches keys against patterns exactly as Redis does (KEYS, SCAN
// MATCH, PSUBSCRIBE), so that one pattern means the same in every tier.
//
// '*' stands for any bytes, '?' for one byte, '[abc]', '[a-c]' and '[^a]' for
// one byte of a class, and '\' takes the next byte literally. Matching is by
// byte and never fails on malformed input: an unclosed class ends with the
// pattern, a trailing '\' stands for itself.
package glob

// Match reports whether s matches pattern. Its time is at most proportional to
// len(pattern) * len(s).
func Match(pattern, s string) bool {
	p, i := 0, 0
	star, resume := -1, 0 // where to go on after the last '*' on a mismatch
	for i < len(s) {
		if p < len(pattern) {
			if pattern[p] == '*' {
				star, resume = p+1, i
				p++
				continue
			}
			if next, ok := one(pattern, p, s[i]); ok {
				p, i = next, i+1
				continue
			}
		}
		if star < 0 {
			return false
		}
		resume++
		p, i = star, resume
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// one matches the single-byte element at pattern[p:] against c and returns the
// position behind that element.
func one(pattern string, p int, c byte) (next int, ok bool) {
	switch pattern[p] {
	case '?':
		return p + 1, true
	case '[':
		return class(pattern, p+1, c)
	case '\\':
		if p+1 < len(pattern) {
			p++
		}
	}
	return p + 1, pattern[p] == c
}

func class(pattern string, p int, c byte) (next int, ok bool) {
	negated := p < len(pattern) && pattern[p] == '^'
	if negated {
		p++
	}
	found := false
	for {
		switch {
		case p >= len(pattern):
			return p, found != negated
		case pattern[p] == '\\' && p+1 < len(pattern):
			p++
			found = found || pattern[p] == c
		case pattern[p] == ']':
			return p + 1, found != negated
		case p+2 < len(pattern) && pattern[p+1] == '-':
			lo, hi := pattern[p], pattern[p+2]
			if lo > hi {
				lo, hi = hi, lo
			}
			found = found || lo <= c && c <= hi
			p += 2
		default:
			found = found || pattern[p] == c
		}
		p++
	}
}
