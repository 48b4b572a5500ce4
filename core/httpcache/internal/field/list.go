package field

import "strings"

// trimOWS removes optional whitespace, RFC 9110 section 5.6.3.
func trimOWS(s string) string { return strings.Trim(s, " \t") }

// equalFold reports whether s and t are the same but for the case of ASCII
// letters. [strings.EqualFold] also takes "\u017f" for an s.
func equalFold(s, t string) bool {
	if len(s) != len(t) {
		return false
	}
	for i := range len(s) {
		if lower(s[i]) != lower(t[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

// isToken reports whether s is a token, RFC 9110 section 5.6.2.
func isToken(s string) bool { return s != "" && tokenLen(s) == len(s) }

// tokenLen returns how many bytes s begins with that may be part of a token.
func tokenLen(s string) int {
	for i := range len(s) {
		if !tokenBytes[s[i]] {
			return i
		}
	}
	return len(s)
}

var tokenBytes = func() (set [256]bool) { //nolint:gochecknoglobals // a constant
	for _, c := range []byte("!#$%&'*+-.^_`|~" +
		"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") {
		set[c] = true
	}
	return set
}()

// combine makes one value of a field's lines, RFC 9110 section 5.3. A quoted
// string that is open at the end of a line goes on in the next, so lines that
// may hold one cannot be read one by one.
func combine(values []string) string {
	if len(values) == 1 {
		return values[0]
	}
	return strings.Join(values, ",")
}

// cutMember splits s around its first comma outside quoted strings (RFC 9110
// sections 5.6.1 and 5.6.4) and trims the member. A quoted string without an end
// reaches to the end of s.
func cutMember(s string) (member, rest string, more bool) {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			quoted = !quoted
		case c == '\\' && quoted:
			i++
		case c == ',' && !quoted:
			return trimOWS(s[:i]), s[i+1:], true
		}
	}
	return trimOWS(s), "", false
}

// unquote returns the text of a quoted string, RFC 9110 section 5.6.4. ok is
// false when s is anything but exactly one well-formed quoted string.
func unquote(s string) (text string, ok bool) {
	if len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' {
		return "", false
	}
	s = s[1 : len(s)-1]
	escapes := false
	for i := 0; i < len(s); i++ {
		if s[i] == '"' {
			return "", false
		}
		if s[i] == '\\' {
			escapes = true
			i++
		}
		if i == len(s) || s[i] < ' ' && s[i] != '\t' || s[i] == 0x7f {
			return "", false
		}
	}
	if !escapes {
		return s, true
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' {
			i++
		}
		b = append(b, s[i])
	}
	return string(b), true
}
