package field

import (
	"slices"
	"strconv"
	"strings"
)

// languageRange is a member of Accept-Language, RFC 9110 section 12.5.4.
type languageRange struct {
	name   string // lower case
	weight int    // in thousandths
}

// AppendLanguages appends Accept-Language as a ranking: ranges by weight, and by
// name among equals. So fields that differ in order, case or whitespace only are
// the same (RFC 9111 section 4.1). It is for handlers that do not take the order for
// a preference, as some implementations do (RFC 9110 section 12.5.4). A malformed field is
// appended unchanged.
func AppendLanguages(dst []byte, values []string) []byte {
	ranges, ok := parseLanguages(values)
	if !ok {
		return AppendFieldValue(dst, values)
	}
	for i, r := range ranges {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(append(dst, r.name...), ';')
		dst = strconv.AppendInt(dst, int64(r.weight), 10)
	}
	return dst
}

// PrefersLanguage reports whether Accept-Language ranks the only language of a
// Content-Language field above all others that it names.
func PrefersLanguage(acceptLanguage, contentLanguage []string) bool {
	ranges, ok := parseLanguages(acceptLanguage)
	if !ok || len(contentLanguage) != 1 || strings.Contains(contentLanguage[0], ",") || len(ranges) == 0 {
		return false
	}
	top := ranges[0]
	return top.weight > 0 && equalFold(top.name, trimOWS(contentLanguage[0])) && (len(ranges) == 1 || ranges[1].weight < top.weight)
}

func parseLanguages(values []string) (ranges []languageRange, ok bool) {
	for _, line := range values {
		for member := range strings.SplitSeq(line, ",") {
			name, params, weighted := strings.Cut(member, ";")
			r := languageRange{strings.ToLower(trimOWS(name)), 1000}
			if r.name == "" && !weighted {
				continue
			}
			if !isToken(r.name) || len(ranges) == maxLanguages {
				return nil, false
			}
			if weighted {
				r.weight = parseWeight(params)
			}
			ranges = append(ranges, r)
		}
	}
	slices.SortFunc(ranges, func(a, b languageRange) int {
		if a.weight != b.weight {
			return b.weight - a.weight
		}
		return strings.Compare(a.name, b.name)
	})
	return ranges, true
}

// maxLanguages bounds what is sorted.
const maxLanguages = 32
