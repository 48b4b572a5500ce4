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
package engine
