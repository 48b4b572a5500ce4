package tier

import (
	"crypto/sha1" //nolint:gosec // spreads names, protects nothing
	"encoding/binary"
	"strings"
)

// MaxPartitions bounds the partitions: a set of them is one machine word.
const MaxPartitions = 64

// DefaultPartitions is the number of partitions if the layout does not state one.
const DefaultPartitions = 16

// NameEnd separates the name of an entry, to which Key and Pattern items refer,
// from the rest of its key (a variant, a class). Names hold no control bytes.
const NameEnd = '\x1f'

// Name returns the part of key that invalidations by key and pattern match.
func Name(key string) string {
	for i := 0; i < len(key); i++ {
		if key[i] == NameEnd {
			return key[:i]
		}
	}
	return key
}

// TagPrefix begins the names of the tags that users choose. Other tags have other prefixes.
const TagPrefix = "t:"

// Partition returns the partition of a name, of n: the first four hexadecimal digits of the
// name's SHA-1, modulo n, which Redis's Lua can compute as well. An entry, its lease and the
// intents on it are in the partition of the key's name. A tag is in the partition of a key of
// the same name: the key of a Map's value is one of its tags, and one call reads, or
// invalidates, both.
func Partition(name string, n int) int {
	if n <= 1 {
		return 0
	}
	for strings.HasPrefix(name, TagPrefix) { // repeatedly, since a key may begin with the prefix
		name = name[len(TagPrefix):]
	}
	sum := sha1.Sum([]byte(name)) //nolint:gosec // as above
	return int(binary.BigEndian.Uint16(sum[:])) % n
}
