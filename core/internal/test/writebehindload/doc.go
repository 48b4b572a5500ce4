// Command writebehind drives write-behind at size: changes are queued by one process
// and applied by several others, which are killed one after the other while a Redis
// with an append-only file is killed and restarted. It counts what was acknowledged and
// lost, applied out of order, applied twice; and, without faults, compares the rate with
// that of a plain loop of XADD, XREADGROUP and XACK in the same run.
//
//	go run ./core/internal/test/writebehindload -changes 1000000
//
// It exits with 1 if anything was lost or out of order.
package main
