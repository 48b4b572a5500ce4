// Package local is the cache of one process. It decides which entries exist, which of them may
// be answered, which loads run, and what an invalidation does to entries and loads. It knows
// nothing of HTTP, classes or codecs. Of a shared tier it knows the type of an invalidation
// (tier.Item), and the questions that it asks its Guard.
//
// core/PROTOCOL.md specifies the protocol: the terms and the rules R1 to R28, which comments
// and tests cite by number, each with the failure that it prevents.
//
// Three mechanisms keep an old value from being stored or answered.
//
//   - The log (log.go). Every invalidation is an item in one ordered, bounded log. A
//     load takes the log's position before it begins. When its value is to be stored,
//     or shared with a request that came later, the items since that position are
//     read. An item that concerns the load fences it. A load whose position has been
//     trimmed is fenced too.
//   - Generations (generation.go). An entry holds pointers to the generation of each of its
//     tags and to its eras. The invalidation of a tag kills one generation, whatever the
//     number of entries that hold it. A hit reads a flag per tag, without a lock or a
//     lookup. A generation is found through a weak pointer, since a generation that no
//     entry and no load holds has nothing to invalidate.
//   - The lock. Items are appended, and generations killed, under the write lock of the
//     log. An entry is inserted into the in-process tier under the read lock, after the
//     check. An insert therefore either precedes the item, and the invalidation removes the
//     entry, or sees the item, and is refused.
//
// Let I be an invalidation (append, then remove from the tier), L a load (position,
// generations, run, check, insert), and R a reader that begins after I has returned.
//
//	L.position < I.append < L.check     the check sees the item: refused
//	L.position < L.insert < I.append    I removes the entry, or its generation is dead
//	I.append < L.position               the load began after I began: it may be kept
//	R joins L, L.position < I.append    the join reads the log first: L is fenced,
//	                                    R starts a load of its own
//	R joins L, L names the tag late     the check at the end of L finds the item between
//	                                    L.position and R's join: R loads again
//	L makes a generation after I        the new generation is alive, but the check refuses
//	killed the old one,
//	L.position < I.append
package local
