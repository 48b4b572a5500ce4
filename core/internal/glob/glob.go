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

// Check returns the rule that a pattern violates, "" if there is none. A pattern that violates a
// rule matches other keys than its author expects, or none.
func Check(pattern string) (rule string) {
	for p := 0; p < len(pattern); p++ {
		switch pattern[p] {
		case '\\':
			if p++; p == len(pattern) {
				return `a byte after each \`
			}
		case '[':
			end := classEnd(pattern, p+1)
			switch {
			case end > len(pattern):
				return "each [ closed by a ], or escaped as \\["
			case end == p+2:
				return "at least one byte between [ and ]"
			}
			p = end - 1
		}
	}
	return ""
}

// classEnd returns the position after the class whose content begins at pattern[p:], and more than
// len(pattern) if the class is not closed. It parses as class does.
func classEnd(pattern string, p int) int {
	if p < len(pattern) && pattern[p] == '^' {
		p++
	}
	for ; p < len(pattern); p++ {
		switch {
		case pattern[p] == '\\' && p+1 < len(pattern):
			p++
		case pattern[p] == ']':
			return p + 1
		case p+2 < len(pattern) && pattern[p+1] == '-':
			p += 2
		}
	}
	return len(pattern) + 1
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
