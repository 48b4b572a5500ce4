package tier

import (
	"context"
	"time"
)

// Queue keeps changes of values until they have been applied to the database: write-behind
// (R27). It is a part of the tier, next to the entries of the same keys, so that queueing a
// change and showing it to readers is one step:
//
//   - Enqueue records the change and invalidates the key, atomically.
//   - From then on, until the change has been settled, every lease for the key carries
//     the queued change (Lease.Queued), which overrides the database's value.
//
// A key has at most one record: a later change replaces an earlier one that has not been
// applied. The queue of a partition has at most one worker at a time. The worker claims a
// batch, applies it, and settles it; a record that has changed meanwhile stays. So the
// changes of a key are applied in order, each at least once, except those that a later one
// has replaced. Records are never evicted and do not expire.
//
// A second execution of a call has no further effect unless another call has changed the
// same record in between: it finds its own nonce in the record. Late executions have these
// effects: an Enqueue becomes the latest change of its key (Within bounds the delay); a Claim
// blocks the queue until its lease ends; a Release gives up a queue that the same worker has
// claimed again, so a worker that has released a queue claims it under another name.
//
// During a slot migration of the partition, all methods except Durable and DeadLetters fail
// with ErrMigrating and change nothing.
type Queue interface {
	// Durable fails with ErrUnusable if a server may evict queued changes; the error names
	// the setting. Other errors say that the setting could not be read.
	Durable(ctx context.Context) error

	// Enqueue records changes of one partition, up to the limit of its queue, and
	// invalidates their keys as Change does with Key items and NoIntent, in one step. On a
	// server that is out of memory it changes nothing and fails. It fails with ErrMigrating
	// as Change does.
	Enqueue(ctx context.Context, e Enqueue) ([]Enqueued, error)
	// Claim takes or keeps the queue of a partition for a worker, and returns the records to
	// apply next: first the records whose next attempt is due, at most half of the batch if
	// there are others, and then the others, the longest queued first. The returned records
	// stay in the queue.
	Claim(ctx context.Context, c Claim) (Claimed, error)
	// Settle reports the outcomes of claimed records. A record that has another version by
	// now stays; if the reported version was applied, its First becomes the version after
	// that one. With Release, Settle gives up the queue of the partition as well.
	Settle(ctx context.Context, s Settle) (Settlement, error)
	// States returns the state of a queue in every partition. States[i].Err is the error of
	// one partition.
	States(ctx context.Context, queue string) ([]QueueState, error)

	// DeadLetters returns up to n (and MaxClaim) dead letters of a partition, the oldest
	// first, from the one after an id on ("": from the beginning). A partition keeps about
	// 10,000 of a queue; the oldest are evicted.
	DeadLetters(ctx context.Context, partition int, queue, after string, n int) ([]DeadLetter, error)
	// Replay deletes a dead letter and queues its change again, as Enqueue does without a
	// limit, unless a change of its key is queued, which is newer. ok is false if there is no
	// such dead letter, or a later change has superseded it.
	Replay(ctx context.Context, partition int, queue, id string) (ok bool, err error)
	// Discard deletes a dead letter. ok is false if there is no such dead letter.
	Discard(ctx context.Context, partition int, queue, id string) (ok bool, err error)
}

// Enqueue holds changes to be queued. Their keys belong to the partition.
type Enqueue struct {
	Partition int
	Queue     string        // its name, unique to a map
	Limit     int           // the number of keys that the partition's part of the queue may hold, 0: none; a change of a queued key is always accepted
	Lag       time.Duration // as in Change
	// Within is a time limit. An execution that is later, as far as the server's clock is
	// known, does nothing and fails. 0: no limit.
	Within  time.Duration
	Changes []QueueChange // of different keys, at most MaxChanges
}

// QueueChange is a change of one key.
type QueueChange struct {
	Key     string
	Payload []byte // opaque, not empty
	// Lease is the token of a lease for the key: without that lease the change is refused. "":
	// no condition. Every invalidation and every change of the key ends its lease.
	Lease string
	// Tag is a tag of the same partition that is invalidated with the key, "": none.
	Tag string
}

// Enqueued is the result of one change.
type Enqueued struct {
	// Version is the version of the change. It grows with each change of the partition, and
	// is derived from the server's clock in microseconds, so that it grows even if the
	// counter is lost. 0: refused, since the queue is full; -1: refused, since the lease is
	// gone.
	Version int64
	Logged  Logged // the invalidation of its key, as Change returns it
	Tagged  Logged // and of its tag, if it has one
}

// Queued is a record of the queue.
type Queued struct {
	Key      string
	Version  int64
	First    int64 // the version of the first change since the key was last clean
	Attempts int   // failed attempts of this version
	Payload  []byte
}

// Claim is a worker's request for records.
type Claim struct {
	Partition int
	Queue     string
	Worker    string        // the worker's name, unique to a process
	Max       int           // records at most; MaxClaim is the most
	Lease     time.Duration // for how long from now
	// Keep only keeps the queue, and claims nothing: while a batch is being applied.
	Keep bool
}

// Claimed is the reply. Versions are microseconds on the server's clock: Now is, too.
type Claimed struct {
	Busy    time.Duration // > 0: another worker has the queue, for this long
	Records []Queued
	More    bool          // further records could be applied now
	Next    time.Duration // > 0: the time until the next attempt of another record is due
	Now     int64
}

// Settle holds the outcomes of records of one worker and partition.
type Settle struct {
	Partition int
	Queue     string
	Worker    string
	Records   []Settled // at most MaxClaim
	Release   bool
}

// Settled is the outcome of one record. Without Retry and Dead it has been applied, and is
// removed from the queue.
type Settled struct {
	Key     string
	Version int64
	Retry   time.Duration // > 0: it failed, and its next attempt is due after this time
	Dead    string        // not empty: the reason that it failed for good; it becomes a dead letter
}

// Settlement is the reply.
type Settlement struct {
	// Held reports whether the worker had the queue. If not, another worker may have applied
	// later changes first, so the worker's applied records stay queued if they are there.
	Held bool
	// Newer reports for each record whether another change of its key is queued.
	Newer []bool
}

// QueueState is the state of a queue in one partition.
type QueueState struct {
	Err      error
	Depth    int   // all records, including those that wait for another attempt
	Retrying int   // records that wait for another attempt
	Dead     int   // dead letters
	First    int64 // the smallest Queued.First of all records but the Unseen; 0: none
	Unseen   int   // the number of retried records that the tier has not read, since there are too many
	Last     int64 // the latest version in any queue of the partition; 0: none is known
	Now      int64
}

// DeadLetter is a change that could not be applied.
type DeadLetter struct {
	ID     string // in the partition's stream
	Queued        // Attempts counts the failed ones
	Reason string
}
