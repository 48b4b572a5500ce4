package tier

import (
	"context"
	"time"
)

// Queue keeps changes of values until they have been applied to where the values
// really live: write-behind (R27). It is a part of the tier, next to the entries of
// the same keys, so that a change is queued and seen by readers in one step:
//
//   - Enqueue records the change and invalidates the key, atomically.
//   - From then on, until the change has been settled, every lease for the key tells
//     what is queued (Lease.Queued): that is the value, whatever the database says.
//
// A key has at most one record: a later change takes the place of an earlier one that
// has not been applied. A queue of a partition has at most one worker at a time, who
// claims a batch, applies it, and settles it; what was changed again meanwhile stays.
// So the changes of a key are applied in order, each at least once, but for those
// that a later one took the place of. Records are never evicted and do not expire.
//
// A call that is executed twice with no other call's change of the same record in
// between does what it does once: it finds its own nonce in the record. An Enqueue that
// is executed late, after another's change, is the latest change of its key (Within
// bounds that); a late Claim keeps the queue for nobody until its lease ends; a late
// Release gives up what the same worker has claimed again: so a worker that has let go
// of a queue comes back under another name.
//
// While a part of the partition is on its way to another server, everything but Durable
// and DeadLetters fails with ErrMigrating, and nothing is changed.
type Queue interface {
	// Durable fails (errors.Is ErrUnusable) if a server may evict what is queued: it
	// names the setting. Other errors say that it could not be asked.
	Durable(ctx context.Context) error

	// Enqueue records changes of one partition, as many as there is room for, and
	// invalidates their keys as Change does with Key items and NoIntent, in one step. On
	// a server that is out of memory nothing happens, and it fails. It fails with
	// ErrMigrating as Change does.
	Enqueue(ctx context.Context, e Enqueue) ([]Enqueued, error)
	// Claim takes or keeps the queue of a partition for a worker, and returns what is
	// to be applied next: first what has waited for its next attempt until now, but no more
	// than half where there are others, and then those, the longest queued first. The
	// changes that it returns stay in the queue.
	Claim(ctx context.Context, c Claim) (Claimed, error)
	// Settle says what became of what was claimed. A record whose version is another one
	// by now stays as it is, but that it is queued since the version after the applied one, if the one
	// before has been applied. With Release the queue of the partition is given up as well.
	Settle(ctx context.Context, s Settle) (Settlement, error)
	// States returns the state of a queue in every partition; States[i].Err tells
	// where that did not succeed.
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

// Enqueue are changes to be queued. Their keys are of the partition.
type Enqueue struct {
	Partition int
	Queue     string        // its name: one for each map
	Limit     int           // how many keys the partition's part of the queue may hold, 0: none; those that are in it are always taken
	Lag       time.Duration // as in Change
	// Within is how much time there is: executed later than that, as far as the
	// server's clock is known, it does nothing and fails. 0: no limit.
	Within  time.Duration
	Changes []QueueChange // of different keys, at most MaxChanges
}

// QueueChange is a change of one key.
type QueueChange struct {
	Key     string
	Payload []byte // opaque, not empty
	// Lease: only if this lease for the key is still there. "": in any case. Every
	// invalidation and every change of the key ends its lease.
	Lease string
	// Tag is a tag of the same partition that is invalidated with the key, "": none.
	Tag string
}

// Enqueued is what became of one.
type Enqueued struct {
	// Version is that of the change: it grows with each change of the partition, and
	// is made of the server's clock in microseconds, so that it grows even if the
	// counter is lost. 0: refused for want of room; -1: for want of its lease.
	Version int64
	Logged  Logged // the invalidation of its key, as Change returns it
	Tagged  Logged // and of its tag, if it has one
}

// Queued is a record.
type Queued struct {
	Key      string
	Version  int64
	First    int64 // the version of the first change since the key was last clean
	Attempts int   // that have failed, of this version
	Payload  []byte
}

// Claim is a worker's.
type Claim struct {
	Partition int
	Queue     string
	Worker    string        // who; chosen by the caller, for each process another
	Max       int           // records at most; MaxClaim is the most
	Lease     time.Duration // for how long from now
	// Only keep the queue, and claim nothing: while a batch is being applied.
	Keep bool
}

// Claimed is the reply. Versions are microseconds on the server's clock: Now is, too.
type Claimed struct {
	Busy    time.Duration // > 0: another worker has it for so long
	Records []Queued
	More    bool          // there are more than Records that could be applied now
	Next    time.Duration // > 0: after so long the next attempt of another record is due
	Now     int64
}

// Settle is of one worker and partition.
type Settle struct {
	Partition int
	Queue     string
	Worker    string
	Records   []Settled // at most MaxClaim
	Release   bool
}

// Settled is what became of one record. Without Retry and Dead it has been applied,
// and is taken out of the queue.
type Settled struct {
	Key     string
	Version int64
	Retry   time.Duration // > 0: it failed; not before so long from now again
	Dead    string        // not empty: it failed for good, why; it becomes a dead letter
}

// Settlement is the reply.
type Settlement struct {
	// Held: the worker had the queue. Where it had not, somebody else may have applied
	// later changes before it applied its own: what it applied stays queued if it is
	// there, or is nowhere.
	Held bool
	// Newer tells for each of the records whether another change of its key is queued.
	Newer []bool
}

// QueueState is that of a queue in one partition.
type QueueState struct {
	Err      error
	Depth    int   // records, those that wait for an attempt included
	Retrying int   // of those, how many wait for another attempt
	Dead     int   // dead letters
	First    int64 // the smallest Queued.First of all records but the Unseen; 0: none
	Unseen   int   // retried records that a tier has not read, for they are many
	Last     int64 // the version that was given last, of any queue of the partition; 0: none is known
	Now      int64
}

// DeadLetter is a change that could not be applied.
type DeadLetter struct {
	ID     string // in the partition's stream
	Queued        // Attempts: how many failed
	Reason string
}
