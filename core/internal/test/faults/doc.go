// Command faults is the test of Larder's promises on real processes, with real faults. It starts a Redis (with
// -cluster three masters and three replicas), a database of rows with versions, and four processes that serve those
// rows, each through its own cache over that Redis: one with net/http, one with Echo, one with Gin, one with Fiber.
// Readers and writers send HTTP requests to them while faults happen. Connections are cut; servers are frozen, killed,
// emptied, filled up, restarted from old data and failed over; slots are moved; a master is stopped together with its
// replica; processes are killed in the middle of a write. In a cluster a master is replaced at least every 20 seconds.
// The command prints its counts and exits with 1 if a promise was broken.
//
//	go run ./core/internal/test/faults -duration 30m           # -cluster for a cluster
//	go run ./core/internal/test/faults -mode herd              # 10,000 requests for one cold key; then with a dead leader
//	go run ./core/internal/test/faults -mode stop              # Redis is frozen for 10 seconds under load
//	go run ./core/internal/test/faults -mode refused           # hit ratio before, during and after 100 refused writes per second
//
// # The promises about staleness
//
// All times are read from one clock, the conductor's. Let a write commit version w of a row through process Y, and let
// its 2xx have been read completely at t. A read of the row that begins at r on process X is stale beyond the promise if it
// answers a version below w although
//
//   - X is Y, and r ≥ t. This needs no Redis: an invalidation that the tier has not confirmed is pending, and while it
//     is pending that process takes no entry concerned from the tier;
//   - X is another process, the tier has confirmed the invalidation by c, and r ≥ c + MaxStaleness;
//   - the write called InvalidateEverywhere and it returned nil, and r ≥ t.
//
// The answer to a write states whether it was confirmed (c = t) where its handler calls the cache. The Invalidate
// middleware does not state that; then a client polls the process for its number of pending invalidations, and c is the
// time of the first answer of zero to a request that was sent after t. Before c, and if Y is killed first, other
// processes are promised nothing.
//
// A write that is killed between its commit and its end gets no answer. If its Begin was confirmed, then entries stored
// in between expire at its deadline: a read is stale if r ≥ commit + WriteTimeout.
//
// # The limits of the promises
//
// Reads within some limits of the protocol are counted apart, each limit for no longer than it lasts:
//
//   - A server that comes back with old data, by a restart from a snapshot or a promotion of a replica that lagged, has
//     lost what its predecessor confirmed. The limit is reads of versions confirmed before the new server answered, from
//     the kill of the old one until MaxStaleness after that answer. Afterwards the old data are invalid. A restart
//     without data and a FLUSHALL are no such limit, since missing means invalid.
//   - A master that was replaced while it was frozen acts as the master for a moment when it continues: writes that are
//     confirmed in that moment promise nothing.
//   - A dead process costs a request that waits for its load up to one lease period.
//   - A reply of Redis that is lost, or that arrives after its request has given up, may have granted a lease. No
//     process releases that lease, and it costs others its first, short period. A request may take one such period
//     longer for each error of Redis that a process has counted from one period before the request until its end, at
//     most three of them.
//
// # The other promises
//
// No request fails, except those to a process that is being killed. No request takes longer than the sum of its handler,
// twice the RemoteBudget, and the machine's own delay: the longest that a route without a cache has taken beyond its
// handler, in the same processes at the same time. One client per process measures that route throughout, because on a
// busy machine every request is slow now and then. Handlers report their run time; routes that call the cache
// themselves leave that part out.
//
// After each fault hits return in every process, and at the end nothing is pending.
package main
