package glob

import "strings"

// Escape returns a pattern that matches s and nothing else.
func Escape(s string) string {
	if !strings.ContainsAny(s, special) {
		return s
	}
	var b strings.Builder
	for i := range len(s) {
		literal(&b, s[i])
	}
	return b.String()
}

// special are the bytes that mean something outside a class.
const special = `*?[\`

func literal(b *strings.Builder, c byte) {
	if strings.IndexByte(special, c) >= 0 {
		b.WriteByte('\\')
	}
	b.WriteByte(c)
}

// Cover returns a pattern that matches every string that begins with a match of one of
// patterns, and perhaps more strings. A server leaves out most other strings by it, and
// Match decides.
//
// It may follow another pattern, and is harmless to any Redis: it has no class that is not
// closed or whose bytes one machine orders otherwise than another, and at most one '*'
// before other elements. The time of
// a match with several grows with a power of the key's length before Redis 6.2.11 and
// 7.0.9, and since 6.2.16 and 7.2.6 a pattern with many matches nothing.
func Cover(patterns ...string) string {
	if len(patterns) == 1 {
		return cover(patterns[0])
	}
	var head string
	for i, p := range patterns {
		if h := begins(p); i == 0 {
			head = h
		} else {
			head = common(head, h)
		}
	}
	return Escape(head) + "*"
}

func cover(pattern string) string {
	var b strings.Builder
	stars := 0
	for p := 0; p < len(pattern); {
		switch pattern[p] {
		case '*':
			for p < len(pattern) && pattern[p] == '*' {
				p++
			}
			if stars++; stars > 1 || p == len(pattern) {
				b.WriteByte('*')
				return b.String()
			}
			b.WriteByte('*')
		case '?':
			b.WriteByte('?')
			p++
		case '[':
			next, _ := class(pattern, p+1, 0)
			if element := pattern[p:next]; plain(element) {
				b.WriteString(element)
			} else {
				b.WriteByte('?')
			}
			p = next
		case '\\':
			if p+1 < len(pattern) {
				p++
			}
			fallthrough
		default:
			literal(&b, pattern[p])
			p++
		}
	}
	b.WriteByte('*')
	return b.String()
}

// plain reports whether a class is closed and of ASCII letters and digits, as far as
// can be seen at a glance.
func plain(element string) bool {
	inner, ok := strings.CutSuffix(strings.TrimPrefix(element[1:], "^"), "]")
	return ok && !strings.HasSuffix(inner, "-") && strings.IndexFunc(inner, func(r rune) bool {
		return r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	}) < 0
}

// begins returns the prefix of all matches of a pattern.
func begins(pattern string) string {
	var b strings.Builder
	for p := 0; p < len(pattern) && strings.IndexByte("*?[", pattern[p]) < 0; p++ {
		if pattern[p] == '\\' && p+1 < len(pattern) {
			p++
		}
		b.WriteByte(pattern[p])
	}
	return b.String()
}

// common returns the common prefix.
func common(a, b string) string {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return a[:i]
		}
	}
	return a[:min(len(a), len(b))]
}
