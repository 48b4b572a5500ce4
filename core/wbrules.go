//go:build !mutants

package core

// What write-behind promises, by the rule of the protocol (R27) and what is taken out of
// it: as in package engine, rules.go.
const (
	mutantR27Announce = false // what carries the key of a change as a tag is not told of it
	mutantR27Tag      = false // tags are invalidated after a change has been settled
	mutantR27Told     = false // a change is settled although its tag could not be invalidated
	mutantR27Keep     = false // an apply goes on when its worker has lost the queue
)
