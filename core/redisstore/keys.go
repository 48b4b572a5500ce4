package redisstore

import (
	"fmt"
	"strings"

	"github.com/larderhq/larder/core/internal/tier"
)

// names builds the keys and channels of one namespace.
type names struct {
	namespace, version string
	prefix             [tier.MaxPartitions]string
}

func newNames(namespace, version string) *names {
	n := &names{namespace: namespace, version: version}
	for p := range n.prefix {
		n.prefix[p] = fmt.Sprintf("%s:{%02x}:", namespace, p)
	}
	return n
}

func (n *names) layout() string { return n.namespace + ":layout" }
func (n *names) hints() string  { return n.namespace + ":hints" }

// shardHints returns the channel of hints of one partition in a cluster, in the slot of its keys.
func (n *names) shardHints(p int) string { return n.prefix[p] + "hints" }

func (n *names) invalidate() string { return n.namespace + ":invalidate" }

func (n *names) head(p int) string { return n.prefix[p] + "head" }
func (n *names) log(p int) string  { return n.prefix[p] + "log" }

// entry and lease are the only keys that contain the version (rule R1).
func (n *names) entry(p int, version, key string) string {
	return n.prefix[p] + "e:" + version + string(tier.NameEnd) + key
}

func (n *names) lease(p int, version, key string) string {
	return n.prefix[p] + "l:" + version + string(tier.NameEnd) + key
}

func (n *names) generation(p int, tag string) string { return n.prefix[p] + "g:" + tag }

// keyIntents depends on the name only, since a writer of a resource writes all its variants.
func (n *names) keyIntents(p int, key string) string {
	return n.prefix[p] + "i:k:" + tier.Name(key)
}

func (n *names) tagIntents(p int, tag string) string { return n.prefix[p] + "i:t:" + tag }

// queue returns the keys of a queue in the order in which scripts expect them: see lua/queue.lua.
// The records are those of all queues of the partition.
func (n *names) queue(p int, queue string) []string {
	prefix := n.prefix[p]
	return []string{
		n.records(p), prefix + "qo:" + queue, prefix + "qr:" + queue, prefix + "qw:" + queue,
		n.letters(p, queue), prefix + "qx:" + queue, n.nothing(p),
	}
}

// nothing is a key that never exists.
func (n *names) nothing(p int) string { return n.prefix[p] + "nothing" }

func (n *names) records(p int) string { return n.prefix[p] + "q" }

func (n *names) letters(p int, queue string) string { return n.prefix[p] + "qd:" + queue }

// entries returns a SCAN pattern that matches all entries whose names begin as cover says (see
// glob.Cover). The namespace is literal.
func (n *names) entries(cover string) string {
	var b strings.Builder
	for i := range len(n.namespace) {
		if strings.IndexByte(`*?[]\^-`, n.namespace[i]) >= 0 {
			b.WriteByte('\\')
		}
		b.WriteByte(n.namespace[i])
	}
	b.WriteString(":{??}:e:*")
	if cover != "*" {
		b.WriteByte(tier.NameEnd) // behind the version, or further on
		b.WriteString(cover)
	}
	return b.String()
}

// nameOf returns the name of an entry from its key in Redis.
func (n *names) nameOf(key string) (string, bool) {
	rest, ok := strings.CutPrefix(key, n.namespace+":{")
	if !ok || len(rest) < len("00}:e:") || rest[2:6] != "}:e:" {
		return "", false
	}
	_, key, ok = strings.Cut(rest[6:], string(tier.NameEnd)) // after the version
	return tier.Name(key), ok
}
