//go:build !mutants

package engine

// Each switch takes one rule out, so that the tests can show that they would
// notice. They are constants, and false, except under the build tag "mutants".
const (
	mutantNoFillCheck   = false // a fill does not read the log
	mutantNoJoinCheck   = false // a flight is joined without reading the log
	mutantNoWaiterCheck = false // those who joined after an item share what was loaded before it
	mutantNoStampKill   = false // a tag's generation survives its invalidation
	mutantNoEra         = false // the era survives an invalidation of all
	mutantNoRemove      = false // an entry survives the invalidation of its key
	mutantNoSweep       = false // entries survive the invalidation of a pattern
	mutantNoTrim        = false // a load that is older than the log is stored and shared
	mutantNoEnd         = false // a writer's end invalidates nothing
	mutantNoLapse       = false // a writer's deadline invalidates nothing
	mutantNoLag         = false // what a lagging replica may have answered is stored
	mutantNoFoundCheck  = false // an entry that a leader found is shared whatever has become of it
	mutantNoRenew       = false // what is put is not fenced by what follows its own invalidation at once
)
