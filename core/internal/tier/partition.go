package tier

import (
	"crypto/sha1" //nolint:gosec // spreads names, protects nothing
	"encoding/binary"
	"strings"
)

// MaxPartitions bounds the partitions: a set of them is one machine word.
const MaxPartitions = 64

// DefaultPartitions is how many there are where the layout does not say.
const DefaultPartitions = 16

// NameEnd separates the name of an entry, which Key and Pattern items speak of,
// from the rest of its key (a variant, a class). Names hold no control bytes.
const NameEnd = '\x1f'

// Name returns the part of key that invalidations by key and pattern see.
func Name(key string) string {
	for i := 0; i < len(key); i++ {
		if key[i] == NameEnd {
			return key[:i]
		}
	}
	return key
}

// TagPrefix begins the names of tags that users name. Other tags have others.
const TagPrefix = "t:"

// Partition returns where a name lies: an entry, its lease and the intents on it
// by the name of its key, a tag by the tag. It is the first four hexadecimal
// digits of the name's SHA-1, modulo n: any language has that, Redis's Lua too. A tag
// lies where a key of its name does: the key of a Map's value is a tag of it, and
// both are looked at, and invalidated, by one call.
func Partition(name string, n int) int {
	if n <= 1 {
		return 0
	}
	for strings.HasPrefix(name, TagPrefix) { // again and again: a key may begin so
		name = name[len(TagPrefix):]
	}
	sum := sha1.Sum([]byte(name)) //nolint:gosec // as above
	return int(binary.BigEndian.Uint16(sum[:])) % n
}
