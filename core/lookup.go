package core

import (
	"context"
	"time"

	"github.com/larderhq/larder/core/internal/coherence"
)

// Source is where a value came from.
type Source uint8

// The sources.
const (
	// FromLoader: a loader ran for it: this call's, or one that it waited for.
	FromLoader Source = iota
	// FromProcess: it was in this process.
	FromProcess
	// FromRemote: the shared tier had it.
	FromRemote
	// FromQueue: it is a change that waits in a write-behind queue.
	FromQueue
)

// String implements fmt.Stringer: "loader", "process", "remote" or "queue".
func (s Source) String() string {
	switch s {
	case FromProcess:
		return "process"
	case FromRemote:
		return "remote"
	case FromQueue:
		return "queue"
	}
	return "loader"
}

// Result is a value, and what is known of it.
type Result[V any] struct {
	Value  V
	Source Source
	// Age is how long ago its load, or its last renewal, began. 0 where the cache
	// has not kept it.
	Age time.Duration
	// Fresh is for how long it will be fresh yet. 0: it is stale, or the cache has
	// not kept it.
	Fresh time.Duration
	// Stale: it is past its TTL, and answered while it is refreshed, or in place of
	// an error.
	Stale bool
	// Waited: the load was somebody else's in this process.
	Waited bool
	// Instead is the error of this call's loader that a stale value stands in for.
	// Those who waited for that loader have the value only.
	Instead error
}

// Lookup is Get, and tells where the value came from. With an error, ErrNotFound
// for one, the result has what is known of that and the zero value.
func (m *Map[K, V]) Lookup(ctx context.Context, id K, load Loader[K, V]) (Result[V], error) {
	var o origin
	v, err := m.get(ctx, id, load, &o)
	r := Result[V]{Value: v, Source: o.source, Waited: o.waits, Instead: o.instead}
	if en := o.entry; en != nil {
		now := m.c.engine.Now()
		r.Age = time.Duration(max(0, now-en.Born))
		r.Fresh = time.Duration(max(0, en.FreshUntil-now))
		if r.Stale = r.Fresh == 0; r.Stale && r.Waited && r.Source == FromLoader { // it stood in for an error
			r.Source = FromProcess
		}
	}
	return r, err
}

// origin is what Lookup tells. A nil one takes no notes.
type origin struct {
	source  Source
	entry   *coherence.Entry // nil: the value was kept nowhere
	waits   bool
	instead error
}

func (o *origin) set(s Source, en *coherence.Entry) {
	if o != nil {
		o.source, o.entry = s, en
	}
}

// waited notes what somebody else's turn came to.
func (o *origin) waited(out coherence.Outcome) {
	if o == nil {
		return
	}
	o.waits = true
	if out.Entry == nil || out.Entry.Loose() {
		return
	}
	o.entry = out.Entry
	if out.Found {
		o.source = FromRemote
	}
}

func (o *origin) loaded(s Source, en *coherence.Entry, instead error) {
	if o != nil {
		o.source, o.entry, o.instead = s, en, instead
	}
}
