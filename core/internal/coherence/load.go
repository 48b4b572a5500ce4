package coherence

import (
	"math/bits"
	"slices"
	"time"
)

// Load is one run of a loader or handler, from before it begins until its value
// is filled in. It knows what was valid when it began.
type Load struct {
	e      *Engine
	key    string
	tags   []string
	pos    uint64 // position of the log before the load began
	began  int64
	stamps []*stamp // the era, then one per tag
	made   *Entry   // what came of it
}

// NewLoad registers a load of key, before it begins. tags are those that are
// known beforehand; Fill can name more.
func (e *Engine) NewLoad(key string, tags []string) *Load {
	e.lapse(e.Now())
	l := &Load{e: e, key: key, tags: tags, pos: e.journal.position(), began: e.Now()}
	mask := e.mask(key, tags)
	l.stamps = make([]*stamp, 0, bits.OnesCount64(mask)+len(tags))
	l.stamps = e.eraStamps(l.stamps, mask)
	for _, tag := range tags {
		l.stamps = append(l.stamps, e.stamps.get(tag))
	}
	return l
}

// Began returns when the load began, on the engine's clock.
func (l *Load) Began() int64 { return l.began }

// Key returns the key the load was registered for.
func (l *Load) Key() string { return l.key }

// Refusal says why a value was not stored.
type Refusal string

// The reasons not to store.
const (
	Stored     Refusal = ""
	Fenced     Refusal = "invalidated"     // an invalidation came between
	Lapsed     Refusal = "writer-lapsed"   // a writer went past its deadline meanwhile
	Lagging    Refusal = "replica-lag"     // invalidated so short before the load that a replica may lag
	NoLifetime Refusal = "no-lifetime"     // nothing to keep it for
	TooLarge   Refusal = "too-large"       // larger than the in-process tier
	NotOpen    Refusal = "cache-is-closed" // closed meanwhile
	NoLease    Refusal = "no-lease"        // the shared tier could not be asked before the load
	Lost       Refusal = "lease-lost"      // invalidated, or the lease was lost, in the shared tier
	Unknown    Refusal = "remote-unknown"  // the shared tier could not be asked about what the load depends on
	Written    Refusal = "being-written"   // a writer is at work: kept in the shared tier, until its deadline
	Blocked    Refusal = "pending"         // an invalidation of it has not reached the shared tier
	Unwanted   Refusal = "no-store"        // the request forbids it
	Replaced   Refusal = "varies"          // what it varies on has become known meanwhile
	Deferred   Refusal = "storing"         // it is being stored behind the response: Fill.Then is told what came of it
)

// Fill is a value to be stored.
type Fill struct {
	Key        string // where to store it, if not under the load's key
	Value      any
	Size       int // of the value, in bytes
	Lifetime   Lifetime
	Tags       []string      // beside those the load was registered with
	ReplicaLag time.Duration // store only what was loaded so long after the last invalidation
	Codec      Codec         // how the shared tier keeps the value; not used without one
	// Refuse makes an entry for those who wait, and stores it nowhere, for this reason.
	Refuse Refusal
	// Older reports whether Value is older than an entry's. nil: that is not known.
	Older func(than *Entry) bool
	// Then is called where the fill was Deferred, with what came of it. nil: nobody
	// wants to know.
	Then func(Refusal)

	id      string  // of the entry in the shared tier
	refused Refusal // make an entry, and store it nowhere, for this reason
}

// Fill makes an entry of f and stores it, unless something that happened since
// the load began forbids it. The entry is returned in either case: the load's
// caller, and those who joined it lawfully, may still be answered from it.
func (l *Load) Fill(f Fill) (*Entry, Refusal) {
	en, tags := l.build(f)
	l.made = en
	return en, l.store(f, en, tags)
}

// Foresee returns why Fill would refuse f now, as far as this process knows.
func (l *Load) Foresee(f Fill) Refusal {
	en, tags := l.build(f)
	l.e.journal.mu.RLock()
	defer l.e.journal.mu.RUnlock()
	return l.refusal(l.place(f), tags, en, f.ReplicaLag)
}

// build makes an entry of f, and returns the tags that it carries.
func (l *Load) build(f Fill) (en *Entry, tags []string) {
	e := l.e
	key := l.place(f)
	stamps, tags := l.stamps, l.tags
	mask := e.mask(key, tags)
	if len(f.Tags) > 0 {
		// First the generation, then the log: a tag that is invalidated between
		// the two is found in the log. The same goes for eras.
		stamps, tags = slices.Clone(stamps), slices.Clone(tags)
		for _, tag := range f.Tags {
			if !slices.Contains(tags, tag) {
				tags = append(tags, tag)
				stamps = append(stamps, e.stamps.get(tag))
			}
		}
		late := e.mask(key, tags) &^ mask
		stamps, mask = e.eraStamps(stamps, late), mask|late
	}
	now := e.Now()
	since := f.Lifetime.Since
	if since == 0 {
		since = now
	}
	en = &Entry{
		Value:      f.Value,
		Born:       l.began,
		FreshUntil: since + int64(f.Lifetime.Fresh),
		LoadTime:   now - l.began,
		stamps:     stamps,
		mask:       mask,
		id:         f.id,
		weight:     weigh(key, f.Size, len(stamps)),
	}
	en.StaleUntil = en.FreshUntil + int64(f.Lifetime.Stale)
	en.KeepUntil = en.FreshUntil + int64(max(f.Lifetime.Stale, f.Lifetime.Spare))
	return en, tags
}

// place is where f is to be stored.
func (l *Load) place(f Fill) string {
	if f.Key != "" {
		return f.Key
	}
	return l.key
}

// store stores what build made, unless something forbids it.
func (l *Load) store(f Fill, en *Entry, tags []string) Refusal {
	refusal := f.refused
	if refusal == "" {
		refusal = l.insert(l.place(f), tags, en, f.ReplicaLag)
	}
	switch refusal {
	case Stored:
		l.e.Count.Stored.Add(1)
	case Unwanted:
	default:
		l.e.Count.Refused.Add(1)
	}
	return refusal
}

func (l *Load) insert(key string, tags []string, en *Entry, lag time.Duration) Refusal {
	e := l.e
	e.lapse(e.Now())
	e.journal.mu.RLock()
	defer e.journal.mu.RUnlock()
	refusal := l.refusal(key, tags, en, lag)
	// What is doubtful is stored in the tier only.
	if refusal == Stored && (e.shared == nil || !e.shared.doubtful(en.mask, e.Now())) && !e.putUnless(key, en) {
		return Replaced
	}
	return refusal
}

// refusal returns why an entry must not be stored, and bounds its times by the
// deadlines of writers. The caller holds the journal's lock.
func (l *Load) refusal(key string, tags []string, en *Entry, lag time.Duration) Refusal {
	e := l.e
	if uint64(en.weight) > e.maxBytes {
		return TooLarge
	}
	if e.closed.Load() {
		return NotOpen
	}
	if e.shared != nil && e.shared.pending.blocks(e, key, tags) {
		return Blocked
	}
	if e.concern(l.pos, key, tags) != 0 {
		return Fenced
	}
	if lag > 0 && e.concern(e.journal.since(l.began-int64(lag)), key, tags) != 0 {
		return Lagging
	}
	now := e.Now()
	if !e.intents.mayKeep(l.began, now) {
		return Lapsed
	}
	if en.KeepUntil <= now {
		return NoLifetime
	}
	return Stored
}

// Loose returns an entry that is stored nowhere: for a value that its load shares
// with those who wait, and with nobody else.
func Loose(value any) *Entry { return &Entry{Value: value, loose: true} }
