// Command writebehindload tests write-behind at size. One process queues changes, and
// several others apply them. These are killed one after the other while a Redis with an
// append-only file is killed and restarted. The command counts the changes that were
// acknowledged and lost, applied out of order, or applied twice. Without faults it
// compares the rate and the CPU time of Redis with those of a plain loop of XADD, XREADGROUP
// and XACK in the same run.
//
//	go run ./core/internal/test/writebehindload -changes 1000000
//
// It exits with 1 if anything was lost or out of order.
package main
