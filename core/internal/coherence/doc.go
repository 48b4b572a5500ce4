// Package engine is the concurrent heart of the cache: which entries exist,
// which of them may be answered from, who is loading what, and what an
// invalidation does to all of that. It knows nothing of HTTP, classes or codecs.
//
// core/PROTOCOL.md specifies the protocol: the terms, the data in Redis, and the
// rules R1 to R28, which comments and tests cite by number, each with the failure
// that it prevents. What follows is for readers of this package.
//
// # One process
//
// Three things keep an old value from being stored or answered, each in one place.
//
//   - The log (log.go). Every invalidation is an item in one ordered, bounded log. A
//     load takes the log's position before it begins. When its value is to be stored,
//     or shared with a request that came later, the items since that position are
//     read: one that concerns the load fences it. A load whose position has been
//     trimmed is fenced too.
//   - Stamps (stamp.go). An entry holds the generation of each of its tags and its eras
//     as pointers to stamps. Invalidating a tag kills one stamp, whatever number of
//     entries hold it; a hit reads a flag per tag, without lock or lookup. A stamp is
//     found through a weak pointer: a stamp that nothing holds is gone, and then there
//     is nothing that it could invalidate.
//   - The lock. Items are appended and stamps killed under the write lock of the log;
//     an entry goes into the in-process tier under the read lock, after the check. So an
//     insert has either landed before the item (and the invalidation takes it out) or
//     sees the item (and is refused).
//
// Let I be an invalidation (append, then take out what is in the tier), L a load
// (position, stamps, run, check, insert), R a reader that begins after I returned.
//
//	L.position < I.append < L.check     the check sees the item: refused
//	L.position < L.insert < I.append    I takes the entry out, or its stamp is dead
//	I.append < L.position               the load began after I began: it may be kept
//	R joins L, L.position < I.append    the join reads the log first: L is fenced,
//	                                    R starts a load of its own
//	R joins L, L names the tag late     the check at L's end finds the item between
//	                                    L.position and R's join: R loads again
//	a stamp is made by L after I killed the old one, L.position < I.append
//	                                    the new stamp is alive, but the check refuses
//
// # A shared tier
//
// The log above stays what fences this process. Items of the tier's logs are appended to
// it as they become known: by a hint, by the reply to a call of this instance, or by the
// watchdog (follow.go). shared.follow is taken before the lock of the log, and so is the
// lock of a flight.
//
//	shared.go     what has been verified of each partition, and since when
//	follow.go     the watchdog, hints, eras
//	fetch.go      what a turn asks the tier before it loads: the entry, or the lease
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
