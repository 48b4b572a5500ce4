// Package naming makes the names under which entries carry the tags of users, URL paths and
// groups. A name of one kind never equals a name of another.
package naming

import (
	"crypto/sha256"
	"encoding/hex"
	"net/url"
	"strings"

	"github.com/larderhq/larder/core/internal/tier"
)

// MaxBytes is the longest key, tag or pattern, in bytes.
const MaxBytes = 1024

// MaxTags is the largest number of tags of an entry.
const MaxTags = 64

// Tag returns the name under which entries carry a user's tag.
func Tag(tag string) string { return tier.TagPrefix + tag }

// Path returns the tag that entries of a URL path carry. Paths that differ only in their
// escaping share a tag: an invalidation may remove too much, and never too little.
func Path(path string) string {
	if decoded, err := url.PathUnescape(path); err == nil {
		path = decoded
	}
	switch {
	case path == "":
		path = "/"
	case len(path) > MaxBytes:
		path = hashed(path)
	}
	return "p:" + path
}

// Group returns the tag that entries in a group of an origin carry.
func Group(origin, group string) string {
	name := strings.ToLower(origin) + " " + group
	if len(name) > MaxBytes {
		name = hashed(name)
	}
	return "g:" + name
}

// hashed returns a name of fixed length for a long one.
func hashed(name string) string {
	sum := sha256.Sum256([]byte(name))
	return "sha256-" + hex.EncodeToString(sum[:])
}

// HasControl reports whether s holds an ASCII control character.
func HasControl(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r < 0x20 || r == 0x7f }) >= 0
}
