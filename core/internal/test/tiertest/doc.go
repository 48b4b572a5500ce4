// Package tiertest is what every shared tier must do, as a test suite. A tier
// runs it from a test of its own:
//
//	func TestTier(t *testing.T) {
//		tiertest.Run(t, tiertest.Harness{Open: open})
//	}
//
// where each call of open is another client of one server. The cases are the
// promises in the comments of the seam (core.Remote and what it returns), by
// topic: entries, leases, tags, intents, logs, heads, patterns, hints, the layout,
// queues, and limits.
//
// Every case works in a namespace of its own and most of them run in parallel, so
// that the suite may run against a server that others use as well. Cases that
// need to do something to the server (evict a key, restart it) need a hook of the
// Harness and are skipped without it. Restart and Flush concern the whole server:
// use them only on one that is the test's own.
//
// No case demands exact times. A case waits a little for an event that must
// not happen, and up to some seconds for one that must.
package tiertest
