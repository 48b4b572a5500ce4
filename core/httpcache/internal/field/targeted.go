package field

import (
	"strconv"

	"github.com/dunglas/httpsfv"
)

// ParseTargeted reads all lines of a targeted field such as CDN-Cache-Control,
// RFC 9213 section 2.1: a Dictionary of RFC 9651 (which took the place of RFC
// 8941) whose members are the directives of Cache-Control. ok is false where there
// is no member or the field cannot be parsed; it then counts as absent, and other
// fields decide. Unlike Cache-Control, such a field is wrong as a whole: names in
// capitals, or a comma too much, make it unparsable. The last of several members
// of a name counts, and parameters do not.
//
// A value of another type than the directive's is not to be used, and RFC 9213
// does not say what becomes of the directive. Here it holds without its value, as
// a malformed one does in ParseCacheControl: a number is 0, a qualified directive
// loses its qualification, what permits something does not hold. The same goes
// for negative numbers. To ignore the whole field for it, as RFC 9651 section 2
// would, could store by Cache-Control what the field forbids in another member.
// The Boolean false is no mistake: "no-store=?0" says nothing.
func ParseTargeted(values []string) (cc CacheControl, ok bool) {
	members, err := httpsfv.UnmarshalDictionary(values)
	if err != nil || len(members.Names()) == 0 {
		return CacheControl{}, false
	}
	for _, name := range members.Names() {
		member, _ := members.Get(name)
		item, _ := member.(httpsfv.Item) // without a value if it is an inner list
		arg, form := directiveValue(name, item.Value)
		if form != absent {
			cc.set(name, arg, form)
		}
	}
	return cc, true
}

func directiveValue(name string, value any) (arg string, form form) {
	takesNames := name == "no-cache" || name == "private"
	switch value := value.(type) {
	case bool:
		if value {
			return "", bare
		}
		return "", absent
	case string:
		if takesNames {
			return value, argument
		}
	case int64:
		if !takesNames && value >= 0 {
			return strconv.FormatInt(value, 10), argument
		}
	}
	return "", malformed
}
