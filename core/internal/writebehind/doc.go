// Package writebehind queues changes of keys and applies them later to a target, the
// place that the values are loaded from. It knows keys and bytes only; package core
// encodes ids and values, and is the Target.
//
// A change goes through three parts:
//
//   - the committer records changes in the queue of the tier (tier.Queue), many with one
//     call. A change that the queue has no room for, and one of a partition that does not
//     answer, waits in the lane of its partition;
//   - a worker claims a batch of a partition, applies it, invalidates the tags of what it
//     has applied, and settles the batch: each record leaves the queue, waits for a retry,
//     or becomes a dead letter;
//   - dead letters stay until a later change of their key supersedes them, or until they
//     are replayed or discarded.
//
// Package coherence shows the queued change to readers from the moment it is recorded
// until it is settled.
package writebehind
