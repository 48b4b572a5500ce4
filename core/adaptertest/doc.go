// Package adaptertest is what every adapter must do, as a test suite. An adapter
// runs it from a test of its own, with nothing but the glue between its framework
// and the suite's small interfaces:
//
//	func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
//
//	func TestAdapter(t *testing.T) {
//		adaptertest.Run(t, adaptertest.Framework{Name: "nethttp", New: newServer})
//	}
//
// nethttp/adapter_test.go is the model.
//
// # How the cases work
//
// Each case is one behaviour, builds an app with a cache of its own, and speaks
// HTTP/1.1 to it over raw connections, so that it sees each byte and decides each
// one. Those made by over run over loopback sockets; those made by within run in
// a testing/synctest bubble over pipes: there time is the case's own, and settles
// knows when nothing more can happen, so that what must not happen can be shown
// not to. Nothing sleeps where it means to wait for an event.
//
// A framework whose own goroutines outlast a closed server by their timers must
// tell goleak so: fasthttp's pool of workers sleeps for ten seconds.
//
// A comment that begins with "Elsewhere" names a fault that was found in another response
// cache or multi-level cache. Promises are named as in the README, "What it promises".
//
// # What a framework cannot do
//
// Flags of Framework say so, each with its reason, and the cases that need it are
// skipped by that flag's name. A flag is a limit of the framework without the
// cache, never one of the adapter.
//
// # How to see that a case can fail
//
// A case that cannot fail is worth nothing. The table in mutations_table_test.go
// takes the rules out of a copy of the source one by one, and demands that the
// cases named beside each rule fail then, and at the end that no case has passed
// throughout, but for those that it lists with the reason:
//
//	go test -tags mutation -timeout 60m -v ./core/adaptertest
//	go test -tags mutation -run 'TestMutations/a_response_with_Set-Cookie' ./core/adaptertest
//
// A mutation whose text is no longer in the source fails: the table is to be kept
// with the code that it speaks of.
package adaptertest
