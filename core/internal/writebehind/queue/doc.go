// Package queue implements tier.Queue in memory. Local is the queue of a process without a
// shared tier. State is its logic, which the tier of the simulation shares. The queued changes
// end with the process.
package queue
