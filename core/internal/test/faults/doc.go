// Command faults is the test of Larder's promises on real processes, with real faults. It starts a Redis (with
// -cluster three masters and three replicas), a database of rows with versions, and four processes that serve those
// rows through a cache of their own over that Redis: one with net/http, one with Echo, one with Gin, one with Fiber.
// Readers and writers ask them over HTTP while connections are cut, servers frozen, killed, emptied, filled up,
// restarted from old data, failed over, slots moved, a master stopped together with its replica, and while processes
// are killed in the middle of a write. In a cluster a master is replaced every 20 seconds at least. It prints what it
// counted and exits with 1 if a promise was broken.
//
//	go run ./core/internal/test/faults -duration 30m           # -cluster for a cluster
//	go run ./core/internal/test/faults -mode herd              # 10,000 requests for one cold key; then with a dead leader
//	go run ./core/internal/test/faults -mode stop              # Redis is frozen for 10 seconds under load
//	go run ./core/internal/test/faults -mode refused           # hit ratio before, during and after 100 refused writes per second
//
// # What is promised about staleness
//
// All times are read from one clock, the conductor's. Let a write commit version w of a row through process Y, and let
// its 2xx have been read completely at t. A read of the row that begins at r on process X is stale beyond the promise if it
// answers a version below w although
//
//   - X is Y, and r ≥ t. This needs no Redis: what the tier has not confirmed is pending, and until it has landed that
//     process takes nothing of it from the tier;
//   - X is another process, the tier has confirmed the invalidation by c, and r ≥ c + MaxStaleness;
//   - the write called InvalidateEverywhere and it returned nil, and r ≥ t.
//
// A write tells by itself whether it was confirmed (c = t) where its handler calls the cache. The Invalidate middleware
// does not tell; then the process is asked how many invalidations are pending, over and over, and c is when an answer
// of none arrives to a question that was sent after t. Nothing is promised to others before, nor if Y is killed first.
//
// A write that is killed between its commit and its end gets no answer. If its Begin was confirmed, then whatever was
// stored in between expires at its deadline: a read is stale if r ≥ commit + WriteTimeout.
//
// # What is not promised
//
// Some limits of the protocol are left out, each for no longer than it lasts, and counted apart:
//
//   - A server that comes back with old data, by a restart from a snapshot or a promotion of a replica that was behind,
//     has lost what its predecessor confirmed, until it has been seen: reads from when the old one was killed until
//     MaxStaleness after the new one answered, of versions confirmed before it answered. Afterwards its old data are dead.
//     A restart without data and a FLUSHALL are no such limit, since missing means invalid.
//   - A master that was replaced while it was frozen takes itself for the master for a moment when it goes on: nothing
//     is promised of writes that are confirmed in that moment.
//   - A dead process costs those who wait for its load up to one lease period: requests that overlap with it may take so
//     much longer.
//   - A reply of Redis that is lost, or that comes when its request has given up, may have been the one that granted a
//     lease: nobody ends that, and it costs others its first, short period. A request may take so much longer for each
//     time that a process has counted an error of Redis, from that period before the request until its end, but for
//     three of them at most.
//
// # What is promised about the rest
//
// No request fails, but those to a process while it is being killed. None takes longer than its handler, twice the
// RemoteBudget, and what this machine adds by itself: the longest that a route without a cache has taken beyond its
// handler, in the same processes at the same time. That is measured all the time by one client per process, because
// on a busy machine every request is slow now and then, and only what exceeds that is the cache's doing. Handlers say
// how long they ran; routes that call the cache themselves leave that part out.
//
// After each fault hits come back in every process, and when all is over nothing is pending.
package main
