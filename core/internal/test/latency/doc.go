// Command latency measures what the cache does over a Redis at several distances, and prints it as tables in Markdown:
//
//	go run ./core/internal/test/latency
//
// A redis-server runs on the loopback, behind a proxy that delays each direction by half a round trip. Two instances of
// the cache, in one process, serve a route with nethttp, whose handler takes 20 ms. Without -budget the first table is
// that of the default Options.RemoteBudget, and the second one that of a budget of several round trips.
//
// What is counted (responses stored, runs of the handler) does not depend on the speed of the machine; times are the
// medians of what was measured.
package main
