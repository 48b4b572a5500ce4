// Package engine is the concurrent heart of the cache: which entries exist,
// which of them may be answered from, who is loading what, and what an
// invalidation does to all of that. It knows nothing of HTTP, classes or codecs.
//
// # How an old value is kept from being stored or served
//
// Three things are compared, and each of them lives in one place.
//
//   - The log. Every invalidation is an item in one ordered, bounded log. A load
//     takes the log's position before it begins. When its value is to be stored,
//     or shared with somebody who came later, the items since that position are
//     read: one that concerns the load fences it. A load whose position has been
//     trimmed is fenced too: what is not known is not stored.
//   - Stamps. An entry holds the generation of each of its tags and its era as
//     pointers to stamps. Invalidating a tag kills one stamp, whatever number of
//     entries hold it; a hit reads a flag per tag, without lock or lookup. A
//     stamp is found through a weak pointer: one that nobody holds is gone, and
//     nobody holding it means that there is nothing it could invalidate.
//   - The lock. Items are appended and stamps killed under the write lock of the
//     log; an entry goes into the tier under the read lock, after the check. So
//     an insert has either landed before the item (and the invalidation takes it
//     out) or sees the item (and is refused).
//
// # The interleavings this rests on
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
// # With a shared tier
//
// The log above stays what fences this process. Items of the tier's logs are
// appended to it as they become known: by a message, by the reply to a call of this
// instance's own, or by the watchdog, which asks for all heads every MaxStaleness/2
// and reads what is missing (follow.go). What an instance has not heard of it cannot
// fence, so a copy in this process, and what is believed of generations and eras, is
// legal only while each partition that it depends on was verified within
// MaxStaleness (shared.go).
//
//	fetch.go   what a turn asks the tier before it loads: the entry, or the lease
//	store.go   what it gives to the tier after that, under which conditions
//	change.go  invalidations, intents and sweeps; pending.go those that failed
//	mirror.go  generations that are known without asking
//	write.go   write-through: a writer that ends with the value
//	wakes.go   who waits for another instance's load
//
// The interleavings beside those above, where C is the change in the tier, A its
// application here, X the position of the partition, and reads of the tier are G:
//
//	G < C < A < admit               the load was registered before G: admit finds the
//	                                item, and the entry is neither kept nor answered
//	C < G, A later                  G sees C: the entry has gone, or its generation is
//	                                another; a mirrored one that agrees with an old
//	                                entry is what Δ allows, and not to whoever called C,
//	                                who is fenced before C's caller returns
//	lease < C(key) < fill           C took the lease: refused
//	lease, generation < C(tag)      the entry is stored under a generation that is no
//	                                more: nobody answers from it
//	load < C(tag) < load names tag  Late finds C behind X, which was taken before the
//	                                load: refused, applied here or not
//	intent, lease, load, commit     the entry, or the generation that it carries, ends at the
//	                                intent's deadline, and so does each copy: a writer that
//	                                dies now leaves nothing behind (intent.go, deadlines.go)
//	heads asked, hint moves X       the head is older than X: it is not adopted (moves)
//	heads asked, suspended, heads   verified is the time of asking; the wall clock tells
//	                                of the suspension, and everything is aged
//	NewEra by another, no item      X does not lead to the head: aged, adopted
package engine
