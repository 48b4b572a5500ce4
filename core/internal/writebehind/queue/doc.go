// Package queue is what package remote calls a Queue, without a shared tier: Local is
// one for a process alone, and State is what it does, which the tier of the simulation
// does as well. What is in it is gone when the process is.
package queue
