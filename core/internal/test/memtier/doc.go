// Package memtier is a shared tier in memory, for simulations. Several caches of one process
// share a Server, whose network, clients and failures are drawn from a seed. It gives exactly
// the guarantees of package tier, so that a cache that is correct on it relies on no property
// that Redis lacks.
//
// A Server is a keyspace per partition, as in Redis. Entries, leases, generations, intents, heads
// and logs are separate keys, each of which may expire or be evicted. A call is one atomic step
// per partition that it touches. Between the steps of one call (tags in other partitions, Heads,
// Scan) steps of other calls may run.
//
// A Server works inside a testing/synctest bubble. Locks are held only during a step, and all
// waits are for channels, timers and contexts. A Server must be created in the bubble that uses
// it, and closed before the bubble ends, so that pending requests end.
//
// # Deliberately worse than Redis
//
// The ids of a new log count from 1, so that ids repeat. Each partition has its own clock, server
// id and network, as if each were on a server of its own. Heads and generations are read
// partition by partition, in any order.
package memtier
