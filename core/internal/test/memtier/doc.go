// Package memtier is the shared tier in memory, for simulations: several caches
// of one process share a Server, whose network, clients and failures are drawn
// from a seed. It promises exactly what package tier demands, so that a
// cache that is right on it relies on nothing that Redis does not give.
//
// A Server is a keyspace per partition, as Redis has: entries, leases,
// generations, intents, heads and logs are keys of their own, each of which may
// expire or be evicted, and a call is one atomic step per partition that it
// touches. Between the steps of one call (tags in other partitions, Heads, Scan)
// anything may happen.
//
// Everything works inside a testing/synctest bubble: time is the bubble's, locks
// are held only for a step, and whatever waits, waits for channels, timers and
// contexts. A Server must be made in the bubble that uses it, and closed before
// the bubble ends, so that requests that are still under way end.
//
// # What the simulation makes worse than it need be
//
// The ids of a log count from 1 whenever the log is made anew, so that they
// repeat. Each partition has a clock, a server id and a network of its own, as if
// each were on a server of its own. Heads and generations are read one partition
// at a time, in any order.
package memtier
