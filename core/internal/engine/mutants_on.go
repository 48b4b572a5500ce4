//go:build mutants

package engine

import "os"

// The rule that LARDER_MUTANT names is taken out.
var (
	mutantNoFillCheck   = mutant("fill-check")
	mutantNoJoinCheck   = mutant("join-check")
	mutantNoWaiterCheck = mutant("waiter-check")
	mutantNoStampKill   = mutant("stamp-kill")
	mutantNoEra         = mutant("era")
	mutantNoRemove      = mutant("remove")
	mutantNoSweep       = mutant("sweep")
	mutantNoTrim        = mutant("trim")
	mutantNoEnd         = mutant("end")
	mutantNoLapse       = mutant("lapse")
	mutantNoLag         = mutant("lag")
	mutantNoFoundCheck  = mutant("found-check")
	mutantNoRenew       = mutant("renew")
)

func mutant(name string) bool { return os.Getenv("LARDER_MUTANT") == name }
