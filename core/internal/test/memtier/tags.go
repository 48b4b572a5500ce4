package memtier

import (
	"time"

	"github.com/larderhq/larder/core/internal/tier"
)

func (st *step) generation(tag string) generation {
	v, ok := st.get(key{kind: Generation, name: tag}, st.now)
	if !ok {
		return generation{}
	}
	return v.data.(generation)
}

// capture returns the generation of a tag, and creates one if there is none. Under open intents a
// generation lives only until the earliest deadline, at which the values of a writer that has
// died expire.
func (st *step) capture(tag string) (tier.Generation, error) {
	in := st.intents(tier.Tag, tag)
	g := tier.Generation{Tag: tag, Open: in.open(st.now), Lagging: st.lagging(in)}
	if h, ok := st.head(); ok {
		g.Era, g.Head = h.era, h.position.Token
	}
	k := key{kind: Generation, name: tag}
	found := st.generation(tag)
	switch {
	case found.token == "":
		if err := st.refuseFull(); err != nil {
			return g, err
		}
		found = st.makeGeneration(tag, in)
	case g.Open == 0 && !found.capped:
		st.set(k, value{found, ends(st.now, st.server.generationLife)})
	}
	g.Token = found.token
	return g, nil
}

// makeGeneration creates the generation of a tag. The intents that cap it record its lifetime
// without them.
func (st *step) makeGeneration(tag string, in intents) generation {
	made := generation{token: st.token()}
	until := ends(st.now, st.server.generationLife)
	if first := in.earliest(st.now); first != 0 {
		in = in.clone()
		in.made = lived{token: made.token, until: until}
		st.setIntents(intentsKey(tier.Tag, tag), in)
		made.capped, until = true, min(until, first)
	}
	st.set(key{kind: Generation, name: tag}, value{made, until})
	return made
}

// The names of intents and marks: the kind of the item and its value.
const (
	ofKey = "k"
	ofTag = "t"
)

// lagKey is the mark of a lag that concerns a whole partition.
func lagKey() key { return key{kind: Intents} }

func intentsKey(kind tier.Kind, name string) key {
	if kind == tier.Tag {
		return key{kind: Intents, name: ofTag + name}
	}
	return key{kind: Intents, name: ofKey + tier.Name(name)}
}

func (st *step) intents(kind tier.Kind, name string) intents {
	return st.intentsAt(intentsKey(kind, name))
}

func (st *step) intentsAt(k key) intents {
	v, ok := st.get(k, st.now)
	if !ok {
		return intents{}
	}
	return v.data.(intents)
}

func (st *step) setIntents(k key, in intents) {
	for id, w := range in.writers {
		if w.remembered <= st.now {
			delete(in.writers, id)
		}
	}
	if in.earliest(st.now) == 0 {
		in.lives, in.made = nil, lived{}
	}
	if until := in.until(); until > st.now {
		st.set(k, value{in, until})
	} else {
		st.del(k)
	}
}

// open returns the time until the earliest deadline of the open intents.
func (in intents) open(now int64) time.Duration { return remaining(in.earliest(now), now) }

// lapsed returns the time since the last passed deadline, 0 if there is none.
func (in intents) lapsed(now int64) time.Duration {
	var last int64
	for _, w := range in.writers {
		if w.deadline <= now && w.remembered > now {
			last = max(last, w.deadline)
		}
	}
	if last == 0 {
		return 0
	}
	return time.Duration(max(1, now-last)) * time.Millisecond
}

// lagging reports whether a replica may lag for the target of the intents.
func (st *step) lagging(in intents) bool {
	return in.lags > st.now || st.intentsAt(lagKey()).lags > st.now
}
