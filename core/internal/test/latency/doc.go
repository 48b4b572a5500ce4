// Command latency measures the cache over a Redis at several round trips, and prints tables in Markdown:
//
//	go run ./core/internal/test/latency
//
// A redis-server runs on the loopback, behind a proxy that delays each direction by half a round trip. Two instances of
// the cache, in one process, serve a route with nethttp whose handler takes 20 ms. Without -budget the first table is
// for the default Options.RemoteBudget, and the second for a budget of several round trips.
//
// The counts (responses stored, runs of the handler) do not depend on the speed of the machine; times are medians.
package main
