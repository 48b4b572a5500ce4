package memtier

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"
)

// where identifies a keyspace: one per namespace and partition, and one for the layout.
type where struct {
	namespace string
	partition int
}

// space is a keyspace. Values are never changed in place, so that a copy of the map is a snapshot,
// and the replaced value suffices to undo a write.
type space struct {
	keys   map[key]value
	undo   []undo
	writes int
}

// key is the key of a stored value in a partition.
type key struct {
	kind    Kind
	version string // entries and leases only
	name    string // of intents: preceded by the kind of item
}

type value struct {
	data  any
	until int64 // the server's clock, milliseconds; 0: for ever
}

type undo struct {
	at  time.Time
	key key
	old value
	had bool
}

const (
	// sweepEvery is the number of writes after which expired keys are removed.
	sweepEvery = 512
	// maxUndo bounds the undo journal.
	maxUndo = 1 << 15
)

func (sp *space) get(k key, now int64) (value, bool) {
	v, ok := sp.keys[k]
	if ok && v.until != 0 && v.until <= now {
		return value{}, false
	}
	return v, ok
}

func (sp *space) set(k key, v value) {
	sp.record(k)
	sp.keys[k] = v
}

func (sp *space) del(k key) {
	if _, ok := sp.keys[k]; ok {
		sp.record(k)
		delete(sp.keys, k)
	}
}

func (sp *space) record(k key) {
	old, had := sp.keys[k]
	sp.undo = append(sp.undo, undo{time.Now(), k, old, had})
	sp.writes++
}

// tidy removes expired keys, and the undo records of writes older than History.
func (sp *space) tidy(now int64, history time.Duration) {
	if sp.writes < sweepEvery {
		return
	}
	sp.writes = 0
	for k, v := range sp.keys {
		if v.until != 0 && v.until <= now {
			delete(sp.keys, k)
		}
	}
	first := sp.firstUndo(history)
	first = max(first, len(sp.undo)-maxUndo)
	sp.undo = slices.Delete(sp.undo, 0, first)
}

// firstUndo returns the index of the first write that is no older than d.
func (sp *space) firstUndo(d time.Duration) int {
	since := time.Now().Add(-d)
	i, _ := slices.BinarySearchFunc(sp.undo, since, func(u undo, t time.Time) int { return u.at.Compare(t) })
	return i
}

// loseLast undoes the writes of the last d.
func (sp *space) loseLast(d time.Duration) {
	first := sp.firstUndo(d)
	for i := len(sp.undo) - 1; i >= first; i-- {
		if u := sp.undo[i]; u.had {
			sp.keys[u.key] = u.old
		} else {
			delete(sp.keys, u.key)
		}
	}
	sp.undo = sp.undo[:first]
}

func (sp *space) clear() {
	clear(sp.keys)
	sp.undo = nil
}

func (sp *space) clone() *space { return &space{keys: maps.Clone(sp.keys)} }

func compareKeys(a, b key) int {
	return cmp.Or(cmp.Compare(a.kind, b.kind), strings.Compare(a.version, b.version), strings.Compare(a.name, b.name))
}
