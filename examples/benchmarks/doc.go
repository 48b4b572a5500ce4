// Command benchmarks times hits of Larder beside those of other caches, in one process
// and one run:
//
//	go -C examples/benchmarks run .                  # Larder beside bare handlers
//	go -C examples/benchmarks run . -peers           # with the other caches
//	go -C examples/benchmarks run . -peers -write .  # also writes PEERS.md and peers.svg
//	go -C examples/benchmarks run . -peers -only redis,memory  # some groups of tables
//	go -C examples/benchmarks run . -gate            # fails if Larder's hits are far slower than they were
//
// # Contenders
//
// Each framework has its caches and two handlers without a cache: "bare" writes the status,
// the six fields and the body that the cached handlers write, and "same" writes the fields
// and the body of Larder's hit. Each cache is set up as its README says; a setting beyond
// that favours it, and is listed below the table.
//
// # Measurement
//
// Rounds run all contenders in turn, each for some milliseconds, so that a machine that
// slows down slows all of them. The tables show medians over the rounds: of the time of a
// hit, and of its ratio to "same" in the same round. Times on one processor are CPU times of
// the process, garbage collection included. Times on two are wall times, since hits may wait
// for each other there, and those of the best round. Only the ratios can be compared between machines. A hit is
// one call of the framework's handler, with a response writer that discards the body.
//
// # Groups
//
// Further groups measure over sockets (wrk), over a redis-server that the program starts,
// invalidations by tag, stampedes, memory, and growth with instances. A program that is not
// installed is named in the table's place with its package, and the run then ends with an error.
// Each group has a limit of minutes.
//
// # Differences
//
// A cache that does less is faster. Probes compare the answers of each cache with those of
// the handler; the tables list where they differ.
package main
