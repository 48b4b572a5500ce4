package field

import "strings"

// AcceptsEncoding reports whether a client that sent these Accept-Encoding lines
// takes a response in one content coding, RFC 9110 section 12.5.3. Names are
// case-insensitive and x-gzip and x-compress are gzip and compress (section
// 8.4.1). A coding that is listed more than once has its lowest weight, and a
// malformed weight is 0.
//
// It departs from the RFC in one point: without the field, any coding would be
// acceptable, but here only identity is, as if the field were empty. A client
// that did not ask for gzip does not get it only because another one did.
func AcceptsEncoding(acceptEncoding []string, coding string) bool {
	coding = codingName(coding)
	var exact, any weight
	for _, line := range acceptEncoding {
		for member := range strings.SplitSeq(line, ",") {
			name, params, weighted := strings.Cut(member, ";")
			w := accepted
			if weighted && !positive(params) {
				w = refused
			}
			switch name = trimOWS(name); {
			case name == "*":
				any = max(any, w)
			case strings.EqualFold(codingName(name), coding):
				exact = max(exact, w)
			}
		}
	}
	switch {
	case exact != unlisted:
		return exact == accepted
	case any != unlisted:
		return any == accepted
	}
	return strings.EqualFold(coding, "identity")
}

// AcceptsEncodings reports whether AcceptsEncoding holds for every coding in the
// lines of a Content-Encoding field, RFC 9110 section 8.4. Without any, the
// response's coding is identity.
func AcceptsEncodings(acceptEncoding, contentEncoding []string) bool {
	coded := false
	for _, line := range contentEncoding {
		for coding := range strings.SplitSeq(line, ",") {
			if coding = trimOWS(coding); coding == "" {
				continue
			}
			if coding == "*" || !isToken(coding) || !AcceptsEncoding(acceptEncoding, coding) {
				return false
			}
			coded = true
		}
	}
	return coded || AcceptsEncoding(acceptEncoding, "identity")
}

// weight is what is known of a coding, ordered so that the larger of two holds.
type weight int

const (
	unlisted weight = iota
	accepted
	refused
)

// positive reports whether params, what follows the semicolon, is a well-formed
// weight above 0, RFC 9110 section 12.4.2.
func positive(params string) bool {
	q := trimOWS(params)
	if len(q) < 3 || q[0]|0x20 != 'q' || q[1] != '=' {
		return false
	}
	whole, decimals, dot := strings.Cut(q[2:], ".")
	digits := strings.Trim(decimals, "0")
	switch {
	case len(decimals) > 3:
		return false
	case whole == "1":
		return digits == ""
	}
	return whole == "0" && dot && digits != "" && ParseSeconds(digits).Present
}

func codingName(coding string) string {
	switch {
	case strings.EqualFold(coding, "x-gzip"):
		return "gzip"
	case strings.EqualFold(coding, "x-compress"):
		return "compress"
	}
	return coding
}
