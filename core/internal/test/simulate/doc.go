// Package simulate has only tests. They run several instances of the real cache over a
// shared tier in memory (package memtier), in virtual time (testing/synctest), with
// readers, writers and failures drawn from a seed. A checker judges three promises by the
// answers that callers get: no stale answer after an invalidation, one load per key, and
// a failing tier that costs no more than its budget.
//
// A history is one bubble: a server, two to five instances, and rows of a database whose
// versions only grow. Writers commit versions and announce them in every way that the API
// has; readers read through the cache. For every read the checker knows the newest version
// that was committed before the begin of an invalidation that returned in time for the
// read. The read may answer no older version.
//
// Some histories have queues (write-behind). All changes of six rows are queued, and workers
// of any instance apply them to a database that fails, hangs, or loses its worker in the
// middle of a batch. The checker demands that a reader of the tier gets the change queued
// last, that no version is applied after a later one, that Flush returns only when its
// changes are applied, and that at the end the database has the last change of each row. A
// reader whose instance had no recent answer of the tier may get the database's version.
// Changes that may have been lost with the tier's data are not demanded of any reader. In
// histories with such losses, and where applies outlive their contexts, the database
// refuses versions older than its own.
//
// Some values are made of others: pages of rows, of queued rows, and of the database.
//
//	LARDER_OPERATIONS=100000000 go test -run Simulation -timeout 0 ./core/internal/test/simulate
//	LARDER_SEED=17 LARDER_PROFILE=crashes go test -run Simulation ./core/internal/test/simulate
//
// LARDER_OPERATIONS is the number of reads and writes in all, LARDER_HISTORY that of one
// history. LARDER_SEED runs the history of one seed, LARDER_REPEAT times.
// LARDER_PROFILE draws histories of one kind only, and LARDER_QUEUES gives all of them
// queues. With LARDER_TRACE a history that fails prints its instances' calls of the tier.
//
// A seed draws the same schedule again, not the same history: the Go scheduler decides
// which of two runnable goroutines comes first, and the cache itself draws jitter and
// tokens. Most repetitions of a seed that has failed fail again, not all.
//
// Interleavings that histories reach seldom or never have a scenario: a scripted test.
// The rules of the protocol are taken out one by one, and a test must fail without each.
// The rules of the engine and of write-behind are taken out of the source
// (mutants_test.go, package mutate), the rules of the tier by decorators
// (broken_test.go). LARDER_RULES=all takes out all of them, one at a time, and LARDER_RULE
// a comma-separated list.
//
// Not simulated are clocks of servers that jump (they differ by a constant), HTTP, merges
// of partial changes, dead letters, and a process that is suspended.
package simulate
