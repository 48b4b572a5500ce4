// Package remote is the seam between the cache and a tier that several instances
// share: package redisstore is the tier on Redis, the simulation has one in
// memory, and package tiertest says what every one must do. Rules are cited by number
// (R1 to R28): core/PROTOCOL.md states them.
//
// The cache decides; a tier executes. It keeps entries, leases, generations of
// tags, intents of writers, and per partition a log of invalidations with its
// head. Every call that changes something is atomic in the tier, touches one
// partition only (but for Scan), and may be executed twice, or late, by a client
// library that lost the reply: so every token is made by the execution, of a part
// that the caller's call brings and one that only this execution has, and comes
// back in the reply. Tokens are compared for equality and nothing else.
//
// Missing always means invalid. An error means that the outcome is unknown;
// whatever can be answered by a miss is no error. ctx bounds each call, and the
// caller always gives a deadline. Slices and strings in arguments are the
// caller's again when a call returns; results are the caller's.
package tier

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Tier is something that instances can share, not yet opened.
type Tier interface {
	// Open agrees on the layout and returns a session. A tier is opened once per
	// cache. It fails when the tier cannot be reached, or when its protocol or
	// configuration cannot work (errors.Is ErrUnusable: to try again is in vain).
	Open(ctx context.Context, want Layout) (Session, error)
}

// ErrUnusable says that a tier can be reached and cannot be used as it is.
var ErrUnusable = errors.New("larder: the shared tier cannot be used")

// ErrMigrating says that a change was refused because a part of the partition is
// on its way to another server. Nothing was changed. A new era (NewEra) works.
var ErrMigrating = errors.New("larder: a slot of the shared tier is being migrated")

// ErrLate says that a change came to the tier after the time that it was given. Nothing was
// changed.
var ErrLate = errors.New("larder: the shared tier executed it too late, and did nothing")

// Layout is what all instances agree on.
type Layout struct {
	Namespace, Version string
	Partitions         int           // 1 to 64. The layout that is there wins
	MaxStaleness       time.Duration // the largest of any instance that has renewed it lately
	ReplicaLag         time.Duration // likewise
}

// Session is an open tier. Its methods are safe for concurrent use.
type Session interface {
	Queue

	// Agree renews this instance's part of the layout, so that it does not lapse,
	// and returns what holds now. It is called a few times a minute.
	Agree(ctx context.Context) (Layout, error)

	// Get reads the entry under key and the current generations of tags ("" where
	// there is none), in one round trip per server. No entry is a zero Entry.
	// What does not decode is no entry.
	Get(ctx context.Context, key string, tags []string) (Entry, []string, error)
	// Generations is Get without an entry.
	Generations(ctx context.Context, tags []string) ([]string, error)

	// Acquire takes the lease to fill key for d, unless an entry other than the one
	// with the id seen is there (Lease.Found), or another lease (Lease.Busy: how
	// long it lasts; whoever ends it publishes a Hint that wakes). With the lease,
	// in the same round trip, come the generations of tags: made where there are
	// none, under an open intent only until its deadline.
	Acquire(ctx context.Context, key, seen string, tags []string, d time.Duration) (Lease, error)
	// Extend makes a lease that is still there last for d from now. It never
	// creates one.
	Extend(ctx context.Context, l Lease, d time.Duration) (bool, error)
	// Fill stores an entry and ends the lease, if the lease is still there, the era
	// and the sweep token of its partition are the lease's, and f.NotAfter has not
	// passed. If not, nothing is stored, and the lease is ended if it is there. The
	// entry's id is the lease's token.
	Fill(ctx context.Context, l Lease, f Fill) (stored bool, err error)
	// Release ends a lease without an entry.
	Release(ctx context.Context, l Lease) error
	// Note stores what no generation and no era concerns, without a lease: an index,
	// whose worst is a miss. It replaces what is there, unless that was stored by Learn.
	// Get returns it as an Entry without tags and eras, with an id of its own.
	Note(ctx context.Context, key string, payload []byte, keep time.Duration) error
	// Learn is Note for what a load that knows less must not take the place of: no Note
	// does, and no Fill does but one whose lease has seen it. It replaces what is there,
	// and returns that, so that whoever replaces what another one has learnt can join the
	// two. The id is one of Learnt.
	Learn(ctx context.Context, key string, payload []byte, keep time.Duration) (was Entry, err error)

	// Late captures the generation of a tag that a load has named only after it
	// began, as Acquire does, and returns, of the same moment, the items of the
	// tag's partition since a position before the load.
	Late(ctx context.Context, tag string, since Position) (Late, error)

	// Change executes invalidations of one partition, in one step: entries and
	// leases under the keys go, generations of the tags go, intents are entered,
	// marked or taken out, eras and sweep tokens are renewed, the log gets the
	// items, and hints are published.
	//
	// Begin invalidates nothing: leases under the keys go, what is under the keys and
	// the generations of the tags live no longer than the intent's deadline, and the log
	// gets a Begun item for each item. Abandon takes the intent out; if it was there,
	// what was there when it began lives on again, to the earliest deadline of the other
	// open intents or as long as ever, and the log gets a Closed item. End does what a change without
	// an intent does, and logs a Closed item as well.
	Change(ctx context.Context, c Change) ([]Logged, error)
	// NewEra gives a partition a new era by a step that touches its head alone. It
	// happens only if the head's Confirmed is was, or the head is missing; with
	// always it happens in any case. The head's Confirmed becomes the server's.
	NewEra(ctx context.Context, partition int, was string, always bool) error
	// Scan unlinks every entry whose name (see Name) matches one of the globs, on
	// every server, to the end, in steps that are short for the server. It may last:
	// ctx need not have a deadline, as long as it ends with the caller. With an error
	// comes what has been done until then.
	Scan(ctx context.Context, s Scan) (Scanned, error)

	// Heads returns the head of every partition. It proves for each that its server
	// accepts writes. Heads[i].Err tells where that did not succeed.
	Heads(ctx context.Context) ([]Head, error)
	// Log returns the items of a partition after a position, in order.
	Log(ctx context.Context, partition int, after Position) (Log, error)
	// Hints calls fn for what is published, one call at a time, until ctx ends or the
	// subscription is cut, and returns why. ready is called when it listens, and
	// again when a part that was cut is listened to anew, never at the same time as
	// fn. Hints may be lost, late, doubled and out of order.
	Hints(ctx context.Context, ready func(), fn func(Hint)) error

	// Close frees what the session has. It ends Hints.
	Close() error
}

// Kind says what an item of the log names.
type Kind uint8

// The kinds of item.
const (
	Key     Kind = iota + 1 // the entry of one key, under every version
	Tag                     // everything that carries a tag
	Pattern                 // every entry whose name matches a glob
	All                     // everything: a new era in the partition
	Era                     // everything that depends on one partition, whose number is Value
	Begun                   // a writer is at work on a key or tag: see Intent
	Closed                  // the writer's intents in this partition are closed; Value is their id
)

// Intent is what a Begun item tells: a key or tag is invalid from a deadline on, on the
// clock of the partition's server, unless a Closed item of the id comes before.
type Intent struct {
	Item
	ID       string
	Deadline int64 // milliseconds
}

// Begun returns the item of the log that tells of the intent: the kind of its item, the
// deadline, the id and the value, with a colon between each.
func (in Intent) Begun() Item {
	return Item{Begun, fmt.Sprintf("%d:%d:%s:%s", in.Kind, in.Deadline, in.ID, in.Value)}
}

// IntentOf returns what a Begun item tells. ok is false for other items, and for what
// makes no sense.
func IntentOf(it Item) (in Intent, ok bool) {
	if it.Kind != Begun {
		return in, false
	}
	kind, rest, _ := strings.Cut(it.Value, ":")
	deadline, rest, _ := strings.Cut(rest, ":")
	id, value, ok := strings.Cut(rest, ":")
	k, kerr := strconv.ParseUint(kind, 10, 8)
	at, derr := strconv.ParseInt(deadline, 10, 64)
	in = Intent{Item{Kind(k), value}, id, at}
	return in, ok && kerr == nil && derr == nil && at >= 0 && at <= maxDeadline && (in.Kind == Key || in.Kind == Tag)
}

// Check returns an error for an item that Protocol does not define: one of an unknown
// kind, or a Begun item that is no intent. An instance cannot know what such an item
// invalidates, so it must not follow the log beyond it (R2, R24).
func (it Item) Check() error {
	if it.Kind < Key || it.Kind > Closed {
		return fmt.Errorf("log item of the unknown kind %d: protocol %d has kinds %d to %d", it.Kind, Protocol, Key, Closed)
	}
	if _, ok := IntentOf(it); it.Kind == Begun && !ok {
		return fmt.Errorf("log item of kind %d with the value %q, which is no intent of protocol %d", it.Kind, it.Value, Protocol)
	}
	return nil
}

// maxDeadline is far beyond any clock, and a number of nanoseconds.
const maxDeadline = 1 << 42

// Item is one invalidation.
type Item struct {
	Kind  Kind
	Value string
}

// Position is a place in the log of a partition. Token says which; ID is where to
// look for it, and does not prove that it is there: ids repeat after a flush or a
// promotion. While a server keeps its data, ids do not decrease.
type Position struct{ ID, Token string }

// Precedes reports whether the id of a position is below another one's. It is false
// where one of them is no id.
func (p Position) Precedes(q Position) bool {
	major, minor, ok := p.order()
	if !ok {
		return false
	}
	otherMajor, otherMinor, ok := q.order()
	return ok && (major < otherMajor || major == otherMajor && minor < otherMinor)
}

// order returns the numbers of an id: one, or two with a hyphen between them.
func (p Position) order() (major, minor uint64, ok bool) {
	first, second, two := strings.Cut(p.ID, "-")
	major, err := strconv.ParseUint(first, 10, 64)
	if err == nil && two {
		minor, err = strconv.ParseUint(second, 10, 64)
	}
	return major, minor, err == nil
}

// Logged is an item in a log.
type Logged struct {
	Item
	Position
	Before string // token of the item before it, "" for the first
}

// Log is a part of a log.
type Log struct {
	Items  []Logged
	Joined bool // the position was found, or is the token before the first of Items
	// Trimmed: not joined, and every item that is there was appended after the
	// position. False where it does not join otherwise.
	Trimmed bool
}

// Head is the state of a partition.
type Head struct {
	Err        error
	Missing    bool // there was none; NewEra makes one
	Position   Position
	Era, Sweep string
	Begun      int64  // when the era began, on the server's clock: of two eras of one server the earlier has the lower number; 0: not known
	Confirmed  string // the id of the server under which the era was last renewed
	Server     string // the id of the server that answered. It changes with a promotion or restart
	Partitions int    // as the head says; Layout.Partitions must equal it
	Protocol   int    // likewise
	Now        int64  // the server's clock, milliseconds
	Until      int64  // likewise: the latest deadline of any intent in the partition that has begun; 0: none
}

// Protocol is the version of the protocol that this package speaks.
const Protocol = 1

// Generation is the state of a tag.
type Generation struct {
	Tag     string
	Token   string        // "" (only from Get): there is none
	Era     string        // of the tag's partition
	Open    time.Duration // of the intents open on the tag: how long the shortest still lasts; 0: none
	Lagging bool          // it was invalidated so lately that a replica may lag
	Head    string        // the token of the head of the tag's partition, from Acquire
}

// Entry is an entry with what it was made under. Times are on the clock of its
// partition's server, in milliseconds.
type Entry struct {
	ID          string // "" : no entry
	Payload     []byte
	Tags        []TagGeneration
	Eras        []PartitionEra // of every partition it depends on: its key's and its tags'
	Provisional bool           // a writer was at work: not to be kept in process

	Born, FreshUntil, StaleUntil, KeepUntil int64
	LoadTime                                time.Duration
	Now                                     int64 // the server's clock, about, when it was read
}

// LearntMark begins the ids of the entries that Learn stores, and no others.
const LearntMark = "+"

// Learnt reports whether an id is of an entry that Learn has stored.
func Learnt(id string) bool { return strings.HasPrefix(id, LearntMark) }

// TagGeneration is a tag with the generation that an entry was made under.
type TagGeneration struct{ Tag, Token string }

// PartitionEra is the era of a partition that an entry was made under.
type PartitionEra struct {
	Partition int
	Era       string
}

// Lease is the right to fill one entry, or the reason why there is none.
type Lease struct {
	Key         string
	Seen        string // the entry that it was acquired beside
	Token       string // "": no lease
	Era, Sweep  string // of the key's partition
	Head        string // the token of its head
	Now         int64  // the server's clock, milliseconds
	Open        time.Duration
	Lapsed      time.Duration // an intent on the key went past its deadline so long ago; 0: none is known
	Lagging     bool
	Generations []Generation // in the order of the tags
	Queued      *Queued      // what is queued for the key, and not applied yet; nil: nothing. It comes also where the lease is busy

	Found Entry         // Found.ID != "": there is another entry than the one seen
	Busy  time.Duration // > 0: somebody else has the lease for so long
}

// Fill is what to store under a lease.
type Fill struct {
	Key      string // of the same name as the lease's key
	Entry    Entry  // without ID and Now
	NotAfter int64  // on the server's clock; 0: no limit. KeepUntil is cut to it
}

// Late is what has become of a tag since a position.
type Late struct {
	Generation
	Log
	// Lapsed: an intent on the tag went past its deadline without its end, so long
	// ago. 0: none is known.
	Lapsed time.Duration
}

// Change is a step of one partition.
type Change struct {
	Partition int
	Items     []Item
	Lag       time.Duration // leave marks of a replica's lag for so long
	// Intent is the id of a writer's intent, which the caller chooses and never
	// uses again. "": none.
	Intent string
	Mode   IntentMode
	// Begin: until the deadline. An intent that is begun again has the later one.
	Lasts  time.Duration
	Remain time.Duration // Begin: how much longer it is remembered
}

// Scan is what to look for.
type Scan struct {
	Globs []string
	// Rest: after each step the server has as much time for others as the step took.
	Rest bool
}

// Scanned is what a Scan has done.
type Scanned struct {
	Servers int   // that have partitions of ours
	Keys    int64 // about how many those had when it began, of whatever kind and owner: all are looked at
	Removed int64 // entries
	Sure    bool  // false: some may have been missed, since the partitions moved meanwhile
}

// IntentMode says what becomes of an intent.
type IntentMode uint8

// The modes.
const (
	NoIntent IntentMode = iota
	Begin               // enter it
	End                 // take it out; the items are invalidated as well
	Abandon             // take it out; nothing is invalidated
)

// Hint is what is published. Exactly one of the two is set.
type Hint struct {
	Partition int
	Item      Logged // what was appended to the log; an Era has no Position that is in the log
	Wake      string // the key whose lease ended
}
