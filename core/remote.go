package core

import (
	"context"
	"time"
)

// Remote is a tier that several instances share. This is the seam; the tier on
// Redis is package redisstore, in a later version, and New refuses a Remote until
// then. The methods are the operations of the invalidation protocol: each one
// that changes something is atomic in the tier, whatever it touches lies in one
// partition, and it may be executed again by a client that lost the reply.
//
// What all of them share:
//   - A key lies in the partition that Place names; so do its lease and the
//     intents on it. A tag lies in a partition of its own.
//   - Tokens are made by the tier as it executes, never by the caller alone, and
//     are compared for equality only.
//   - Missing always means invalid. Nothing is an error that a cache can answer
//     with a miss; an error means that the outcome is unknown.
//   - ctx bounds the call; the caller gives a deadline.
//   - Byte slices are the caller's again when a call returns, and so are results.
type Remote interface {
	// Open connects and agrees on the layout. It returns soon, connected or not,
	// unless required is set. A Remote is opened once.
	Open(ctx context.Context, layout RemoteLayout, required bool) (RemoteSession, error)
}

// RemoteLayout is what all instances must agree on.
type RemoteLayout struct {
	Namespace, Version string
	Partitions         int           // wanted; the layout that is there wins
	MaxStaleness       time.Duration // of this instance
	ReplicaLag         time.Duration // the largest of this instance's classes
}

// RemoteSession is an open Remote.
type RemoteSession interface {
	// Partitions returns how many there are, at most 64.
	Partitions() int

	// Get reads one entry, and the generations of tags whose current one the
	// caller does not know. No entry is a zero RemoteEntry.
	Get(ctx context.Context, at Place, tags []string) (RemoteEntry, error)
	// Acquire takes the lease to fill an entry, unless there is another entry
	// than the one seen (it is returned) or another lease (Busy is how long it
	// lasts; the caller is noted as waiting).
	Acquire(ctx context.Context, at Place, seen string, tags []string, lease time.Duration) (RemoteLease, error)
	// Extend prolongs a lease that is still there; it never makes one.
	Extend(ctx context.Context, l RemoteLease, d time.Duration) (bool, error)
	// Fill stores the entry and ends the lease, if lease, era and sweep token are
	// what they were and the deadline of a provisional lease has not passed.
	Fill(ctx context.Context, l RemoteLease, e RemoteEntry, keep time.Duration) (stored bool, err error)
	// Release ends a lease without an entry and wakes who waits for it.
	Release(ctx context.Context, l RemoteLease) error

	// Invalidate executes the items of one partition: entries and leases go,
	// generations go, intents are marked, the log gets the items, everybody hears
	// of it. It returns the position of the last item.
	Invalidate(ctx context.Context, partition int, items []RemoteItem) (RemotePosition, error)
	// Sweep executes a pattern in all partitions: item, scan to the end, item.
	Sweep(ctx context.Context, glob string) error
	// BeginIntent invalidates and enters an intent with its deadline; EndIntent
	// invalidates again and takes it out, AbandonIntent only takes it out.
	BeginIntent(ctx context.Context, partition int, items []RemoteItem, d time.Duration) (id string, err error)
	EndIntent(ctx context.Context, partition int, id string, items []RemoteItem) error
	AbandonIntent(ctx context.Context, partition int, id string) error

	// Heads asks for the head of every partition in one round trip per master. It
	// begins with a write, so that a demoted master refuses it.
	Heads(ctx context.Context) ([]RemoteHead, error)
	// Log reads the items of a partition behind a position. joined is false where
	// the position is not in the log: the caller must forget what it knows.
	Log(ctx context.Context, partition int, after RemotePosition) (items []RemoteItem, head RemotePosition, joined bool, err error)
	// Hints calls fn for each item as it is published, from one goroutine, until
	// ctx ends. Hints may be lost, late, doubled and out of order. It returns when
	// the subscription is cut; the caller calls it again.
	Hints(ctx context.Context, fn func(partition int, item RemoteItem)) error

	Close() error
}

// Place says where an entry lies.
type Place struct {
	Key       string
	Partition int
}

// RemotePosition is a place in the log of a partition.
type RemotePosition string

// RemoteItem is one invalidation in a log.
type RemoteItem struct {
	Target   Target
	Position RemotePosition
	Before   RemotePosition // of the item before it
}

// RemoteHead is the state of one partition.
type RemoteHead struct {
	Partition  int
	Position   RemotePosition
	Era, Sweep string
}

// RemoteEntry is an entry with what it was made under.
type RemoteEntry struct {
	ID          string
	Payload     []byte
	Generations map[string]string // of its tags
	Eras        map[int]string    // of the partitions it depends on
	Provisional bool              // not to be kept in process
}

// RemoteLease is the right to fill one entry.
type RemoteLease struct {
	Place
	Token       string
	Era, Sweep  string
	Generations map[string]string
	Deadline    time.Duration // until when an open intent lets the entry live; 0: no intent
	Found       *RemoteEntry  // another entry was there instead
	Busy        time.Duration // another lease is there instead, for so long
}
