//go:build !mutants

package engine

// One for each rule of the protocol over the shared tier, by its number there.
const (
	mutantR2        = false // an instance whose part of the layout has lapsed goes on
	mutantR4        = false // hits of partitions that have not been verified
	mutantR5        = false // what is read is kept although an item came between
	mutantR6        = false // generations of what is found are not compared
	mutantR6Era     = false // eras of what is found are not compared
	mutantR7Old     = false // who joins a load late is given what it has renewed, legal then
	mutantR7        = false // flights are joined although nothing has been heard for long
	mutantR9        = false // what is stored while a writer is at work outlives its deadline
	mutantR10       = false // tags that are named late are not compared with the log
	mutantR10Known  = false // a load with a lease reads what this process has not heard the end of
	mutantR10Lapsed = false // a writer that lapsed is forgotten
	mutantR25       = false // a write-through stores its value whoever else writes
	mutantR12       = false // the end of a lease wakes nobody
	mutantR14       = false // this process is not fenced after its own invalidation
	mutantR15       = false // a sweep has no second item
	mutantR16       = false // what is pending is answered from
	mutantR18       = false // the position moves over items that were never seen
	mutantR18Era    = false // the era of a head is learned although one has ended since it was asked for
	mutantR19       = false // verified is the time after the answer
	mutantR20       = false // a log that does not join is applied
	mutantR21       = false // another era is adopted without aging
	mutantR21Server = false // a promotion or a restart makes no new era
	mutantR22       = false // a suspended machine goes on
	mutantR23       = false // Everywhere waits for nobody
	mutantR26       = false // what a lagging replica may have answered is stored
	mutantR15All    = false // all is done once in each partition, and heard in each for itself
	mutantR27Queued = false // readers who have the lease load, whatever is queued
	mutantR27Busy   = false // readers who are refused the lease wait for it, whatever is queued
)
