package field

import (
	"slices"

	"github.com/dunglas/httpsfv"
)

// RFC 9875 section 2 asks for at least 32 groups of at least 32 characters.
const (
	maxGroups   = 64
	maxGroupLen = 128
)

// ParseGroups reads all lines of a Cache-Groups or Cache-Group-Invalidation field,
// RFC 9875 sections 2 and 3: a List of Strings, which are opaque and compared with
// their case. Each is returned once, in the order of the field; parameters do not
// count. A field that cannot be parsed, or has a member that is no String, has no
// groups: RFC 9875 leaves that to RFC 9651 section 2, which ignores the field.
//
// Strings of more than 128 characters are left out and, after 64 groups, all
// others.
func ParseGroups(values []string) []string {
	members, err := httpsfv.UnmarshalList(values)
	if err != nil {
		return nil
	}
	var groups []string
	for _, member := range members {
		item, _ := member.(httpsfv.Item) // without a value if it is an inner list
		group, ok := item.Value.(string)
		if !ok {
			return nil
		}
		if len(group) <= maxGroupLen && len(groups) < maxGroups && !slices.Contains(groups, group) {
			groups = append(groups, group)
		}
	}
	return groups
}
