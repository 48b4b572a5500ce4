package field

import (
	"net/textproto"
	"slices"
	"strings"
)

// ParseVary reads all lines of a Vary field, RFC 9110 section 12.5.5: canonical
// field names, sorted and without duplicates, or star where the response varies
// on more than request fields and so matches no other request. A "*" anywhere in
// the list is a star, and so is a member that is no field name: what it was meant
// to name is unknown.
func ParseVary(values []string) (names []string, star bool) {
	for _, line := range values {
		for name := range strings.SplitSeq(line, ",") {
			switch name = trimOWS(name); {
			case name == "":
			case name == "*" || !isToken(name):
				return nil, true
			default:
				names = append(names, textproto.CanonicalMIMEHeaderKey(name))
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names), false
}
