// Package coherence keeps the caches of several processes coherent over a shared tier. It
// follows the tier's logs, takes leases, fills and invalidates. The embedded cache of
// package local holds everything that concerns this process alone.
//
// core/PROTOCOL.md specifies the protocol: the terms, the data in Redis, and the
// rules R1 to R28, each with the failure that it prevents. Comments and tests cite
// the rules by number. The rest of this comment is for readers of this package.
//
// The log of package local fences this process. An item of a tier's log is appended to it
// as soon as the item is known: from a hint, from the reply to a call of this instance, or
// from the watchdog. The lock partitions.follow is taken before the lock of the log, and
// so is the lock of a flight.
//
// Type shared is the view of the tier, and the guard of the local cache (local.Guard). It
// does not know Engine, which has a cache and a shared, nor Turn, which has an Engine.
//
// A read proceeds as follows. LookupAt answers a hit in memory. On a miss Enter returns a
// Turn. Turn.Fetch reads the entry of the tier and admits it as a copy. If there is none, it
// asks for the lease: it takes the lease, or uses the entry that another instance has just
// stored, or waits for that instance. The caller loads the value. Turn.Fill captures the late
// tags, stores the entry in the tier under the lease, and keeps a copy. Turn.Finish wakes the
// requests that wait.
//
// An invalidation is planned by partition, executed by the tier, and fences this process after
// the reply. The other instances apply its items from hints, or from the logs that the
// watchdog reads.
//
// The files that follow the tier:
//
//	shared.go      the view of the tier: opened, asked and closed
//	partitions.go  how far each partition has been verified, and since when
//	follower.go    one partition: its position, eras, items and server
//	follow.go      items, heads and eras that are applied to a partition
//	watchdog.go    the loop that verifies the partitions
//	hints.go       the subscription to hints
//	agreement.go   the layout on which the instances agree
//	deadlines.go   deadlines of other instances' intents
//	breaker.go     servers that have failed; distance.go the round trip; failurelog.go
//	               what is logged of both
//
// The files of a read:
//
//	turn.go        the right to load a key
//	fetch.go       the questions of a turn before its load; budget.go their time
//	acquire.go     the question for the lease; waiters.go loads of other instances
//	admit.go       a copy in memory of an entry that was found
//	validate.go    the proof that an entry may be renewed
//	lease.go       the lease of a turn
//	store.go       the fill
//	later.go       fills and loads behind a response
//	mirror.go      generations that are known without a question
//	lasting.go     stored notes
//
// The files of a write:
//
//	change.go      invalidations; sweep.go patterns; external.go other programs
//	pending.go     invalidations that the tier has not confirmed
//	intent.go      intents of this process
//	write.go       write-through
//	queue.go       write-behind; ownchange.go the changes that this process has queued
//
// Each file lists its own interleavings. The others follow. C is a change in the tier, A its
// application in this process, X the position of the partition, and G a read of the tier.
// x < y means that x comes before y.
//
//	G < C < A < admit               The load was registered before G. admit finds the item,
//	                                and the entry is neither kept nor answered.
//	C < G, A later                  G sees C: the entry has gone, or its generation has
//	                                changed. A mirrored generation may still agree with the
//	                                old entry. Δ allows that to every reader except those
//	                                of the process that called C, which is fenced before
//	                                the call returns.
//	lease < C(key) < fill           C removed the lease, and the fill is refused.
//	lease, generation < C(tag)      The entry is stored under a generation that has ended,
//	                                so that no reader gets it.
//	load < C(tag) < load names tag  Late finds C behind X, which was taken before the load.
//	                                The fill is refused, whether or not C was applied.
//	intent, lease, load, commit     The entry, or the generation that it carries, ends at
//	                                the intent's deadline, and so does each copy. A writer
//	                                that dies then leaves no old value.
//	heads requested, hint moves X   The head is older than X, and is not adopted.
//	heads requested, suspension     The partition counts as verified from the time of the
//	                                question. The wall clock reveals the suspension, and
//	                                everything is aged.
//	an era of another instance      X does not lead to the head. The partition is aged, and
//	                                the head is adopted.
package coherence
