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
	q := quality(acceptEncoding, coding)
	return q > 0 || q == unlisted && equalFold(coding, "identity")
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

// ChooseEncoding returns the offered content coding that a client which sent these
// Accept-Encoding lines weighs most, the first one of several. encoding is as it
// was offered, or "" for identity, which need not be offered: it comes last among
// equals, and where the field does not mention it, by name or by "*", after every
// coding that is accepted. ok is false where identity is refused as well.
//
// Fields are read as AcceptsEncoding reads them, so that without one, or without
// a coding in it, the choice is identity.
func ChooseEncoding(acceptEncoding, offered []string) (encoding string, ok bool) {
	best := 0
	for _, coding := range offered {
		if q := quality(acceptEncoding, coding); q > best {
			best, encoding = q, coding
		}
	}
	identity := quality(acceptEncoding, "identity")
	if identity > best || equalFold(encoding, "identity") {
		return "", true
	}
	return encoding, best > 0 || identity == unlisted
}

// unlisted is the quality of a coding that the field does not mention.
const unlisted = -1

// quality returns the weight of a coding in thousandths, 0 where it is refused.
func quality(acceptEncoding []string, coding string) int {
	coding = codingName(coding)
	exact, star := unlisted, unlisted
	for _, line := range acceptEncoding {
		for member := range strings.SplitSeq(line, ",") {
			name, params, weighted := strings.Cut(member, ";")
			q := 1000
			if weighted {
				q = parseWeight(params)
			}
			switch name = trimOWS(name); {
			case name == "*":
				star = lowest(star, q)
			case equalFold(codingName(name), coding):
				exact = lowest(exact, q)
			}
		}
	}
	if exact != unlisted {
		return exact
	}
	return star
}

func lowest(q, p int) int {
	if q == unlisted {
		return p
	}
	return min(q, p)
}

// parseWeight reads params, what follows the semicolon, as a weight in
// thousandths, RFC 9110 section 12.4.2. One that is malformed is 0.
func parseWeight(params string) int {
	q := trimOWS(params)
	if len(q) < 3 || lower(q[0]) != 'q' || q[1] != '=' {
		return 0
	}
	whole, decimals, _ := strings.Cut(q[2:], ".")
	if whole != "0" && whole != "1" || len(decimals) > 3 {
		return 0
	}
	n := int(whole[0] - '0')
	for i := range 3 {
		n *= 10
		if i < len(decimals) {
			if decimals[i] < '0' || decimals[i] > '9' {
				return 0
			}
			n += int(decimals[i] - '0')
		}
	}
	if n > 1000 {
		return 0
	}
	return n
}

func codingName(coding string) string {
	switch {
	case equalFold(coding, "x-gzip"):
		return "gzip"
	case equalFold(coding, "x-compress"):
		return "compress"
	}
	return coding
}

// KnownEncodings reports whether every coding in the lines of a Content-Encoding
// field is one of the IANA registry, so that clients can be expected to name it.
func KnownEncodings(contentEncoding []string) bool {
	for _, line := range contentEncoding {
		for coding := range strings.SplitSeq(line, ",") {
			switch name := strings.ToLower(trimOWS(coding)); name {
			case "", "aes128gcm", "br", "compress", "dcb", "dcz", "deflate", "exi", "gzip", "identity", "pack200-gzip", "x-compress", "x-gzip", "zstd":
			default:
				return false
			}
		}
	}
	return len(contentEncoding) > 0
}
