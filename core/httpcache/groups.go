package httpcache

import (
	"strings"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/httpcache/internal/field"
	"github.com/larderhq/larder/core/internal/naming"
)

// Groups of responses of one origin (RFC 9875): Cache-Groups puts a response into
// some, Cache-Group-Invalidation in the answer to an unsafe request takes all out
// that are in one.

// origin returns the scheme, host and port that groups are of. The scheme's own port
// need not be said (RFC 6454 section 4).
func origin(line *Line) string {
	port := ":80"
	if line.Scheme == "https" {
		port = ":443"
	}
	return line.Scheme + "://" + strings.TrimSuffix(strings.ToLower(line.Host), port)
}

// groupTags returns the tags of the groups that a response is in.
func groupTags(line *Line, h Header) (tags []string) {
	for _, group := range field.ParseGroups(h.Values("Cache-Groups")) {
		tags = append(tags, naming.Group(origin(line), group))
	}
	return tags
}

// groupTargets returns what the answer to an unsafe request invalidates by group.
func groupTargets(line *Line, h Header) (targets []core.Target) {
	for _, group := range field.ParseGroups(h.Values("Cache-Group-Invalidation")) {
		targets = append(targets, core.Group(origin(line), group))
	}
	return targets
}
