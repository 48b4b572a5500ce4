package coherence

import "sync/atomic"

// Counters count events of the shared tier since the engine was created.
type Counters struct {
	Hits       atomic.Int64 // reads that the shared tier answered
	Errors     atomic.Int64 // failed calls
	OverBudget atomic.Int64 // loads without a lease because the reader's budget was spent
	Deferred   atomic.Int64 // fills that continued behind a response
}
