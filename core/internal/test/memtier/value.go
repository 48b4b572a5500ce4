package memtier

import (
	"maps"

	"github.com/larderhq/larder/core/internal/tier"
)

// Kind is the kind of a stored value.
type Kind uint8

// The kinds.
const (
	Entry Kind = iota + 1
	Lease
	Generation
	Intents // of one key or tag, with its marks; also the mark of a partition's lag
	Head
	Log
	Layout
	Queue // the queues of a partition
)

// String returns the kind's name.
func (k Kind) String() string {
	return [...]string{"nothing", "entry", "lease", "generation", "intents", "head", "log", "layout", "queue"}[k]
}

// lease is the value of a Lease.
type lease struct {
	token  string
	waited bool // a lease request got busy
}

// generation is the value of a Generation.
type generation struct {
	token  string
	capped bool // it ends at an intent's deadline: a capture does not extend its life
}

// intents is the value of an Intents.
type intents struct {
	writers map[string]writer // by the intent's id
	lives   map[string]int64  // until when entries lived that intents have capped, by their ids
	made    lived             // the generation that intents have capped
	lags    int64             // until when a replica may lag
}

// lived is the lifetime of a generation without the intents on its tag.
type lived struct {
	token  string
	until  int64
	capped bool // by an intent that has been evicted
}

type writer struct{ deadline, remembered int64 }

func (in intents) clone() intents {
	in.writers = maps.Clone(in.writers)
	if in.writers == nil {
		in.writers = map[string]writer{}
	}
	in.lives = maps.Clone(in.lives)
	if in.lives == nil {
		in.lives = map[string]int64{}
	}
	return in
}

// earliest returns the earliest deadline of the open intents, 0 if there are none.
func (in intents) earliest(now int64) (at int64) {
	for _, w := range in.writers {
		if w.deadline > now && (at == 0 || w.deadline < at) {
			at = w.deadline
		}
	}
	return at
}

// until returns the time after which the intents have no effect.
func (in intents) until() int64 {
	t := in.lags
	for _, w := range in.writers {
		t = max(t, w.remembered)
	}
	return t
}

// head is the value of a Head.
type head struct {
	position   tier.Position
	era, sweep string
	begun      int64 // how many tokens there were when the era began
	confirmed  string
	partitions int
	until      int64 // the latest deadline of any intent
}

// log is the value of a Log.
type log struct {
	items []tier.Logged
	last  uint64 // id of the last item: the time, and a count
}

// layout is the value of a Layout.
type layout struct {
	partitions int
	members    map[string]member
}

type member struct {
	layout tier.Layout
	until  int64
}
