//go:build mutants

package core

import "os"

// The rule that LARDER_MUTANT names is taken out.
var (
	mutantR27Announce = mutant("R27-Announce")
	mutantR27Tag      = mutant("R27-Tag")
	mutantR27Told     = mutant("R27-Told")
	mutantR27Keep     = mutant("R27-Keep")
)

func mutant(name string) bool { return os.Getenv("LARDER_MUTANT") == name }
