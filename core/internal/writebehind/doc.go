// Package writebehind queues changes of keys and applies them later to a target, the
// place from which the values are loaded. It knows keys and bytes only; package core
// encodes ids and values, and implements Target.
//
// A change goes through three parts:
//
//   - the committer records changes in the queue of the tier (tier.Queue), many with one
//     call. A change waits in the lane of its partition if the queue is full, or if the
//     partition does not answer;
//   - a worker claims a batch of a partition, applies it, invalidates the tags of the
//     applied changes, and settles the batch: each record leaves the queue, waits for a retry,
//     or becomes a dead letter;
//   - dead letters stay until a later change of their key supersedes them, or until they
//     are replayed or discarded.
//
// Package coherence answers readers with the queued change from its recording until it is
// settled.
package writebehind
