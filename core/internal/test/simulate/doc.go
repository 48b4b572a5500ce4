// Package simulate has tests only: several instances of the real cache over a
// shared tier in memory (package memtier), in a time of their own
// (testing/synctest), with readers, writers and failures drawn from a seed, and a
// checker that judges by what callers saw three promises: never stale after an
// invalidation, one load, and that a tier that fails costs no more than its budget.
//
// A history is one bubble: a server, two to five instances, rows of a database
// with versions that only grow. Writers commit versions and announce them in every
// way that there is; readers read through the cache. Of every read the checker
// knows the newest version that had been committed before the beginning of an
// invalidation that was over in time for it: that is the least that it may answer.
//
// Some histories have queues (write-behind): of six rows all changes are queued, and
// applied, by workers of any instance, to a database that fails, hangs, or loses its
// worker in the middle of a batch. Judged is that who asks the tier gets what was queued
// last, that no version is applied after a later one, that Flush means what it says, and
// that at the end the database has the last change of each row. A reader whose instance
// did not get an answer of the tier lately may have what the database has. What may have
// been lost with the tier's data is owed by nobody, and there the database refuses what
// is older than what it has, as it does where applies outlive their contexts.
//
// Some values are made of others: pages of rows, of queued rows, and of the database.
//
//	LARDER_OPERATIONS=100000000 go test -run Simulation -timeout 0 ./core/internal/test/simulate
//	LARDER_SEED=17 LARDER_PROFILE=crashes go test -run Simulation ./core/internal/test/simulate
//
// LARDER_OPERATIONS is how many reads and writes there are in all, LARDER_HISTORY
// how many of them one history has. LARDER_SEED repeats one history, LARDER_PROFILE
// draws histories of one kind only, and LARDER_QUEUES lets all of them have queues;
// LARDER_REPEAT says how often the one of LARDER_SEED is run. LARDER_TRACE makes a history that fails say what its
// instances asked the tier.
//
// A seed draws the same schedule again, not the same history: which of two
// goroutines that could run at one moment comes first is Go's to say, and the cache
// itself draws jitter and tokens. A failure that a seed found is found again by
// most, not by all of its repetitions.
//
// What a history cannot reach, or seldom, has a scenario: a scripted test. Rules of the
// protocol are taken out one by one, and each must be missed. The engine's rules and
// write-behind's are taken out of the source (mutants_test.go, package mutate), the
// tier's by decorators (broken_test.go). LARDER_RULES=all takes out all of them, and
// LARDER_RULE those that it names, with commas between.
//
// What is not simulated: clocks of servers that jump (they differ, by a constant),
// HTTP, merges of partial changes, dead letters, a process that is suspended.
package simulate
