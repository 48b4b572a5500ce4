// Package coherence keeps the caches of several processes coherent over a shared tier: it
// follows the tier's logs, takes leases, fills, and invalidates. The embedded cache of
// package local answers what concerns this process alone.
//
// core/PROTOCOL.md specifies the protocol: the terms, the data in Redis, and the
// rules R1 to R28, which comments and tests cite by number, each with the failure
// that it prevents. The rest of this comment is for readers of this package.
//
// The log of package local stays what fences this process. Items of the tier's logs are
// appended to it as they become known: by a hint, by the reply to a call of this instance, or
// by the watchdog (follow.go). The lock shared.follow is taken before the lock of the log, and
// so is the lock of a flight.
//
// Type shared knows what has been verified of the tier, and is the local cache's guard
// (local.Guard). It does not know Engine, which has a cache and a shared, nor Turn, which
// has an Engine.
//
//	shared.go     what has been verified of each partition, and since when
//	follow.go     the watchdog, hints, eras
//	fetch.go      what a turn asks the tier before it loads: the entry, or the lease
//	lease.go      the lease that a turn has
//	store.go      what it gives to the tier after that, under which conditions
//	change.go     invalidations, intents and sweeps; pending.go those that failed
//	intent.go     intents of this process; deadlines.go those of others
//	mirror.go     generations that are known without asking
//	write.go      write-through: a writer that ends with the value
//	queue.go      write-behind; later.go what goes on behind a response
//	wakes.go      requests that wait for another instance's load
//
// The interleavings beside those above, where C is the change in the tier, A its
// application here, X the position of the partition, and reads of the tier are G:
//
//	G < C < A < admit               the load was registered before G: admit finds the
//	                                item, and the entry is neither kept nor answered
//	C < G, A later                  G sees C: the entry has gone, or its generation is
//	                                another; a mirrored one that agrees with an old
//	                                entry is what Δ allows, and not to the caller of C,
//	                                whose process is fenced before C returns
//	lease < C(key) < fill           C took the lease: refused
//	lease, generation < C(tag)      the entry is stored under a generation that is no
//	                                more: nobody answers from it
//	load < C(tag) < load names tag  Late finds C behind X, which was taken before the
//	                                load: refused, applied here or not
//	intent, lease, load, commit     the entry, or the generation that it carries, ends at the
//	                                intent's deadline, and so does each copy: a writer that
//	                                dies now leaves nothing behind (intent.go, deadlines.go)
//	heads asked, hint moves X       the head is older than X: it is not adopted
//	heads asked, suspended, heads   verified is the time of asking; the wall clock tells
//	                                of the suspension, and everything is aged
//	NewEra by another, no item      X does not lead to the head: aged, adopted
package coherence
