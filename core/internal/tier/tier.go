// Package tier is the contract between the cache and a tier that several instances
// share. Package redisstore implements it on Redis, package memtier in memory for
// simulations, and package tiertest tests every implementation. Comments name the rules
// of core/PROTOCOL.md (R1 to R28) that a method carries.
//
// The cache decides; a tier executes. A tier keeps entries, leases, generations of
// tags, intents of writers and, per partition, a log of invalidations with its head.
//
//   - A call that changes something is atomic and touches one partition, except Scan.
//   - A call may be executed twice, or late, by a client library that lost the reply.
//     Each execution therefore makes its own token, from the caller's nonce and a part
//     that only this execution has, and returns it (R3). Tokens are compared for
//     equality and nothing else.
//   - Missing data is invalid data (R6). An error means that the outcome is unknown;
//     whatever a miss can answer is no error.
//   - ctx bounds each call; the caller always gives a deadline, except for Scan and Hints.
//   - Slices and strings in arguments belong to the caller again when a call returns.
//     Results belong to the caller.
//   - Times are milliseconds on the clock of the partition's server, where no other unit
//     is named.
package tier

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Tier is a shared tier that is not open yet.
type Tier interface {
	// Open agrees on the layout and returns a session. A tier is opened once per
	// cache; after an error it is called again. It fails if the tier cannot be reached, and
	// with ErrUnusable if the tier's protocol or configuration cannot work, so that another
	// attempt would fail as well.
	Open(ctx context.Context, want Layout) (Session, error)
}

// ErrUnusable: the tier can be reached, and cannot be used before it is reconfigured.
var ErrUnusable = errors.New("larder: the shared tier cannot be used")

// ErrMigrating: a change was refused because a slot of the partition is being migrated to
// another server. Nothing was changed. NewEra works.
var ErrMigrating = errors.New("larder: a slot of the shared tier is being migrated")

// ErrLate: a change reached the tier after its time limit. Nothing was changed.
var ErrLate = errors.New("larder: the shared tier executed it too late, and did nothing")

// Layout holds the settings that all instances share.
type Layout struct {
	Namespace, Version string
	Partitions         int           // 1 to 64. An existing layout wins
	MaxStaleness       time.Duration // the largest of all instances that have renewed it lately
	ReplicaLag         time.Duration // likewise
}

// Session is an open tier. Its methods are safe for concurrent use.
type Session interface {
	Queue
	Together

	// Agree renews this instance's part of the layout, so that it does not lapse, and
	// returns the layout that holds (R2). The cache calls it every 15 s.
	Agree(ctx context.Context) (Layout, error)

	// Get reads the entry under key and the current generations of tags ("" for a tag
	// without one), in one round trip per server. The zero Entry stands for no entry and
	// for one that does not decode. The cache compares the generations and eras (R6).
	Get(ctx context.Context, key string, tags []string) (Entry, []string, error)
	// Generations is Get without an entry.
	Generations(ctx context.Context, tags []string) ([]string, error)

	// Acquire takes the lease to fill key, for d. It takes none if an entry is there
	// whose id is not seen (Lease.Found), or if another lease is there (Lease.Busy). The
	// end of a lease that was found busy publishes a Hint with Wake (R12). With the lease, in
	// the same round trip, come the generations of tags, which are created where they
	// are missing; a generation created under an open intent expires at its deadline
	// (R8, R24). With Found come those that are there ("" may stand for one that is
	// missing), with Busy none.
	Acquire(ctx context.Context, key, seen string, tags []string, d time.Duration) (Lease, error)
	// Extend makes an existing lease last for d from now. It never creates one, and
	// returns false if the lease is gone (R11).
	Extend(ctx context.Context, l Lease, d time.Duration) (bool, error)
	// Fill stores an entry under the lease's token and ends the lease. It stores nothing
	// if the lease is gone, if the era or the sweep token of the partition is not the
	// lease's, or if f.NotAfter has passed; then it ends the lease if it is there (R11).
	Fill(ctx context.Context, l Lease, f Fill) (stored bool, err error)
	// Release ends a lease without an entry (R12).
	Release(ctx context.Context, l Lease) error
	// Note stores, without a lease, data that no generation and no era concerns: an index,
	// whose worst error is a miss. It replaces any entry except one stored by Learn. Get
	// returns it as an Entry without tags and eras.
	Note(ctx context.Context, key string, payload []byte, keep time.Duration) error
	// Learn is Note for data that must not be replaced by less: only a Learn, or a Fill
	// whose lease has seen the entry, replaces it. Learn returns the entry that it
	// replaced, so that the caller can join the two. Learnt reports true for its id.
	Learn(ctx context.Context, key string, payload []byte, keep time.Duration) (was Entry, err error)

	// Late captures the generation of a tag that a load has named after it began, as
	// Acquire does. It returns, in the same step, the items of the tag's partition since
	// a position before the load (R10).
	Late(ctx context.Context, tag string, since Position) (Late, error)

	// Change executes invalidations of one partition in one step. It removes the entries
	// and leases under the keys in every version (R1) and the generations of the tags (R13),
	// enters, marks or removes intents, renews eras and sweep tokens (R15), appends the
	// items to the log (R20), and publishes hints (R18). It fails with ErrMigrating during a
	// slot migration (R17).
	//
	// Begin invalidates nothing (R24): it removes the leases under the keys, caps the
	// entries under the keys and the generations of the tags at the intent's deadline, and
	// logs a Begun item for each item. Abandon removes the intent. If the intent was there,
	// Abandon lifts its caps, to the earliest deadline of the other open intents, or to the
	// expiry before the first cap, and logs a Closed item. End does the work of a change
	// without an intent, and logs a Closed item as well.
	Change(ctx context.Context, c Change) ([]Logged, error)
	// NewEra gives a partition a new era, in a step that touches its head alone (R20, R21).
	// It does so only if the head's Confirmed is was, or the head is missing, or always is
	// true. The head's Confirmed becomes the id of the server.
	NewEra(ctx context.Context, partition int, was string, always bool) error
	// Scan unlinks every entry whose Name matches one of the globs, on every server, in
	// steps that are short for the server (R15). ctx need not have a deadline. With an error,
	// Scan returns the work done until then.
	Scan(ctx context.Context, s Scan) (Scanned, error)

	// Heads returns the head of every partition, and proves for each that its server
	// accepts writes (R19). Heads[i].Err is the error of one partition.
	Heads(ctx context.Context) ([]Head, error)
	// Log returns the items of a partition after a position, in order (R20). It fails for
	// an item that Item.Check refuses.
	Log(ctx context.Context, partition int, after Position) (Log, error)
	// Hints calls fn for each published hint, one call after the other, until ctx ends or
	// the subscription is cut, and returns the reason. It calls ready when the
	// subscription is complete, and again when a part that was cut is subscribed to again;
	// never concurrently with fn. Hints may be lost, late, doubled and out of order (R18).
	Hints(ctx context.Context, ready func(), fn func(Hint)) error

	// Close releases the session's resources and ends Hints.
	Close() error
}

// Kind is the kind of an item of the log.
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

// Intent is the content of a Begun item: a key or tag is invalid from a deadline on, unless
// a Closed item with the id precedes the deadline (R24).
type Intent struct {
	Item
	ID       string
	Deadline int64 // milliseconds
}

// Begun returns the Begun item of the intent. Its value is kind:deadline:id:value.
func (in Intent) Begun() Item {
	return Item{Begun, fmt.Sprintf("%d:%d:%s:%s", in.Kind, in.Deadline, in.ID, in.Value)}
}

// IntentOf returns the intent of a Begun item. ok is false for other items, and for values
// that do not parse.
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

// Position is a place in the log of a partition. Token identifies the item. ID is the place
// to look for it, and proves nothing: ids repeat after a flush or a promotion. While a server
// keeps its data, ids do not decrease.
type Position struct{ ID, Token string }

// Precedes reports whether the id of a position is below another one's. It is false if one of
// them does not parse.
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
	// Trimmed reports that the log is not joined because all of its items were appended after
	// the position. It is false if the log is not joined for another reason.
	Trimmed bool
}

// Head is the state of a partition.
type Head struct {
	Err        error
	Missing    bool // the partition has no head; NewEra creates it
	Position   Position
	Era, Sweep string
	Begun      int64  // the start of the era on the server's clock, which orders the eras of one server; 0: not known
	Confirmed  string // the id of the server under which the era was last renewed
	Server     string // the id of the server that answered. It changes with a promotion or restart
	Partitions int    // as stored in the head; it must equal Layout.Partitions
	Protocol   int    // likewise
	Now        int64  // the server's clock, milliseconds
	Until      int64  // likewise: the latest deadline of all intents that have begun in the partition; 0: none
}

// Protocol is the version of the protocol that this package speaks.
const Protocol = 1

// Generation is the state of a tag.
type Generation struct {
	Tag     string
	Token   string        // "" (only from Get): the tag has no generation
	Era     string        // of the tag's partition
	Open    time.Duration // the time until the earliest deadline of the intents open on the tag; 0: none is open
	Lagging bool          // it was invalidated so lately that a replica may lag
	Head    string        // the token of the head of the tag's partition, from Acquire
}

// Entry is an entry with the generations and eras under which it was made. Times are on the
// clock of its partition's server, in milliseconds.
type Entry struct {
	ID          string // "" : no entry
	Payload     []byte
	Tags        []TagGeneration
	Eras        []PartitionEra // of its key's partition and of its tags' partitions
	Provisional bool           // a writer was at work, so instances must not keep it in process

	Born, FreshUntil, StaleUntil, KeepUntil int64
	LoadTime                                time.Duration
	Now                                     int64 // the server's clock, roughly, at the time of the read
}

// LearntMark begins the ids of the entries that Learn stores, and no others.
const LearntMark = "+"

// Learnt reports whether an id is of an entry that Learn has stored.
func Learnt(id string) bool { return strings.HasPrefix(id, LearntMark) }

// TagGeneration is a tag with the generation under which an entry was made.
type TagGeneration struct{ Tag, Token string }

// PartitionEra is a partition with the era under which an entry was made.
type PartitionEra struct {
	Partition int
	Era       string
}

// Lease is the right to fill one entry, or the reason for its absence.
type Lease struct {
	Key         string
	Seen        string // the id of the entry that the caller knows
	Token       string // "": no lease
	Era, Sweep  string // of the key's partition
	Head        string // the token of its head
	Now         int64  // the server's clock, milliseconds
	Open        time.Duration
	Lapsed      time.Duration // the time since an intent on the key passed its deadline; 0: none is known
	Lagging     bool
	Generations []Generation // in the order of the tags
	Queued      *Queued      // the queued change of the key, nil if there is none; set also if the lease is busy

	Found Entry         // Found.ID != "": an entry that the caller does not know
	Busy  time.Duration // > 0: the time for which another caller has the lease
}

// Fill is an entry to store under a lease.
type Fill struct {
	Key      string // of the same name as the lease's key
	Entry    Entry  // without ID and Now
	NotAfter int64  // on the server's clock; 0: no limit. KeepUntil is cut to it
}

// Late is the state of a tag, and the items of its partition since a position.
type Late struct {
	Generation
	Log
	// Lapsed is the time since an intent on the tag passed its deadline without its end. 0:
	// none is known.
	Lapsed time.Duration
}

// Change is a change of one partition.
type Change struct {
	Partition int
	Items     []Item
	Lag       time.Duration // the time for which the tags are marked as lagging on replicas
	// Intent is the id of a writer's intent, which the caller chooses and never
	// uses again. "": none.
	Intent string
	Mode   IntentMode
	// Lasts, with Begin, is the time until the intent's deadline. An intent that is begun
	// again has the later deadline.
	Lasts  time.Duration
	Remain time.Duration // with Begin: the time for which the intent is remembered after its deadline
}

// Scan selects the entries to remove.
type Scan struct {
	Globs []string
	// Rest pauses after each step for as long as the step took.
	Rest bool
}

// Scanned is the result of a Scan.
type Scanned struct {
	Servers int   // servers with partitions of the namespace
	Keys    int64 // the approximate number of keys on these servers at the start, of all kinds and owners: all are scanned
	Removed int64 // entries
	Sure    bool  // false if entries may have been missed, because partitions moved meanwhile
}

// IntentMode is the effect of a Change on its intent.
type IntentMode uint8

// The modes.
const (
	NoIntent IntentMode = iota
	Begin               // enter the intent
	End                 // remove the intent and invalidate the items
	Abandon             // remove the intent and invalidate nothing
)

// Hint is one published message. Exactly one of Item and Wake is set.
type Hint struct {
	Partition int
	Item      Logged // the item appended to the log; an Era has no position in the log
	Wake      string // the key whose lease ended
}
