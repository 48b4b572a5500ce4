//go:build mutants

package engine

// The rule of the protocol that LARDER_MUTANT names is taken out.
var (
	mutantR2        = mutant("R2")
	mutantR4        = mutant("R4")
	mutantR5        = mutant("R5")
	mutantR6        = mutant("R6")
	mutantR6Era     = mutant("R6-Era")
	mutantR7        = mutant("R7")
	mutantR9        = mutant("R9")
	mutantR10       = mutant("R10")
	mutantR10Known  = mutant("R10-Known")
	mutantR10Lapsed = mutant("R10-Lapsed")
	mutantR25       = mutant("R25")
	mutantR12       = mutant("R12")
	mutantR14       = mutant("R14")
	mutantR15       = mutant("R15")
	mutantR16       = mutant("R16")
	mutantR18       = mutant("R18")
	mutantR18Era    = mutant("R18-Era")
	mutantR19       = mutant("R19")
	mutantR20       = mutant("R20")
	mutantR21       = mutant("R21")
	mutantR21Server = mutant("R21-Server")
	mutantR22       = mutant("R22")
	mutantR23       = mutant("R23")
	mutantR26       = mutant("R26")
	mutantR15All    = mutant("R15-All")
	mutantR27Queued = mutant("R27-Queued")
	mutantR27Busy   = mutant("R27-Busy")
)
