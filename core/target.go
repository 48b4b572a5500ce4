package core

import (
	"net/url"
	"strings"

	"github.com/larderhq/larder/core/internal/glob"
	"github.com/larderhq/larder/core/internal/naming"
	"github.com/larderhq/larder/core/internal/tier"
)

// Target names the entries of an invalidation. Make one with [Key], [Tag], [Path], [Group],
// [Pattern], [Prefix] or [All]. It holds a copy of the name. The name is checked by the
// call that gets the target, with a *[ConfigError].
type Target struct {
	kind  targetKind
	value string
}

type targetKind uint8

const (
	keyTarget targetKind = iota + 1
	tagTarget
	pathTarget
	groupTarget
	patternTarget
	prefixTarget
	allTarget
)

// Key names one entry: "user:42" of a [Map] with the prefix "user". A key has 1 to
// [MaxKeyBytes] bytes and no control characters. The URL of a cached response stands for
// its [Path].
func Key(key string) Target { return Target{keyTarget, strings.Clone(key)} }

// Tag names all entries that carry the tag, in O(1). A tag has 1 to [MaxKeyBytes] bytes
// and no control characters.
func Tag(tag string) Target { return Target{tagTarget, strings.Clone(tag)} }

// Path names every response under a URL path: every host, query, method, variant and
// class. It is written as in a URL, escaped, without query, and begins with "/"; of an
// absolute URL without query and fragment the path is taken. The length is at most 1 MiB.
func Path(path string) Target { return Target{pathTarget, strings.Clone(path)} }

// Group names every response of an origin ("https://shop.example") whose Cache-Groups
// field puts it into the group (RFC 9875 section 2). Neither may be empty.
func Group(origin, group string) Target {
	if group == "" || origin == "" {
		return Target{groupTarget, ""}
	}
	return Target{groupTarget, naming.Group(origin, group)}
}

// Pattern names the entries whose keys match a glob, as Redis matches it (command KEYS):
// "user:*", "https://shop.example/items/[0-9]*". Its cost grows with the number of keys
// in the shared tier, those of other programs included; the cost of a tag does not. See
// [Cache.Sweep] for large tiers. An open or empty class, and an escape at the end, are refused.
func Pattern(glob string) Target { return Target{patternTarget, strings.Clone(glob)} }

// Prefix names the entries whose keys begin with prefix. No character of it is a wildcard. It costs as much as a [Pattern].
func Prefix(prefix string) Target { return Target{prefixTarget, strings.Clone(prefix)} }

// All names everything in the cache's namespace, in O(1).
func All() Target { return Target{kind: allTarget} }

// tagItem and pathItem separate the tags of users from paths.
func tagItem(tag string) tier.Item {
	return tier.Item{Kind: tier.Tag, Value: naming.Tag(tag)}
}
func pathItem(path string) tier.Item {
	return tier.Item{Kind: tier.Tag, Value: naming.Path(path)}
}

// item checks the target and returns the engine's item for it.
func (t Target) item() (tier.Item, error) {
	switch t.kind {
	case keyTarget:
		if strings.HasPrefix(t.value, "http://") || strings.HasPrefix(t.value, "https://") {
			if u, err := url.Parse(t.value); err == nil {
				return pathItem(u.EscapedPath()), nil
			}
		}
		return tier.Item{Kind: tier.Key, Value: t.value}, checkName("Key", t.value)
	case tagTarget:
		return tagItem(t.value), checkName("Tag", t.value)
	case pathTarget:
		path := t.value
		if strings.HasPrefix(path, "http://") || strings.HasPrefix(path, "https://") {
			u, err := url.Parse(path)
			if err != nil || u.RawQuery != "" || u.Fragment != "" {
				return tier.Item{}, badPath(t.value)
			}
			path = u.EscapedPath()
		} else if !strings.HasPrefix(path, "/") || strings.ContainsAny(path, "?#") {
			return tier.Item{}, badPath(t.value)
		}
		if len(path) > maxPathBytes || naming.HasControl(path) {
			return tier.Item{}, badPath(path[:min(len(path), 32)])
		}
		return pathItem(path), nil
	case groupTarget:
		if t.value == "" || naming.HasControl(t.value) {
			return tier.Item{}, &ConfigError{"Group", t.value, "an origin and a group, without control characters"}
		}
		return tier.Item{Kind: tier.Tag, Value: t.value}, nil
	case patternTarget:
		if rule := glob.Check(t.value); rule != "" {
			return tier.Item{}, &ConfigError{"Pattern", t.value, rule}
		}
		return tier.Item{Kind: tier.Pattern, Value: t.value}, checkName("Pattern", t.value)
	case prefixTarget:
		return tier.Item{Kind: tier.Pattern, Value: glob.Escape(t.value) + "*"}, checkName("Prefix", t.value)
	case allTarget:
		return tier.Item{Kind: tier.All}, nil
	default:
		return tier.Item{}, &ConfigError{"Target", t, "one made by Key, Tag, Path, Group, Pattern, Prefix or All"}
	}
}

// maxPathBytes is the longest path that can be named: no server takes longer ones.
const maxPathBytes = 1 << 20

func badPath(v string) error {
	return &ConfigError{"Path", v, `"/…" or an absolute URL without query, fragment or control characters (a path covers every query)`}
}

// items checks all targets before any of them is acted on.
func items(targets []Target) ([]tier.Item, error) {
	list := make([]tier.Item, 0, len(targets))
	for _, t := range targets {
		it, err := t.item()
		if err != nil {
			return nil, err
		}
		list = append(list, it)
	}
	if len(list) == 0 {
		return nil, &ConfigError{"targets", len(list), "at least one of Key, Tag, Path, Group, Pattern, Prefix or All"}
	}
	return list, nil
}
