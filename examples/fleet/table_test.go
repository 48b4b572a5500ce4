package main

import (
	"strings"
	"testing"
	"time"
)

func TestColumnsOfATableAlign(t *testing.T) {
	s := snapshot{
		elapsed: 12 * time.Second,
		shops: []row{
			{name: "shop 1", adapter: "nethttp", state: "up", requests: 1200, perSecond: 99.6, memory: 1000, redis: 150, misses: 50, queries: 40},
			{name: "shop 2", adapter: "echo", state: "down", stale: 1, failed: 2},
		},
		nodes: [][]string{{"redis 1", "127.0.0.1:1", "master", "up", "1M", "9"}, {"redis 2", "127.0.0.1:2", "", "stopped", "", ""}},
		took:  []time.Duration{time.Millisecond, 12300 * time.Microsecond}, propagation: []time.Duration{0, 0, time.Second},
		count: tally{reads: 1200, writes: 60, stale: 1, excused: 3},
	}
	s.total = row{name: "all"}
	for _, r := range s.shops {
		s.total.add(r)
	}
	table := s.table()
	lines := strings.Split(table, "\n")
	if at := strings.Index(lines[0], "queries"); at < 0 || !strings.HasPrefix(lines[1][at:], "40 ") || !strings.HasPrefix(lines[3][at:], "40 ") {
		t.Errorf("the column of queries:\n%s", table)
	}
	for _, want := range []string{"redis 2  127.0.0.1:2  -       stopped  -", "p99 12 ms", "1200 judged against 60 writes, 1 stale", "excused by a failover 3"} {
		if !strings.Contains(table, want) {
			t.Errorf("no %q in\n%s", want, table)
		}
	}
	if line := s.line(); !strings.Contains(line, "shops 1/2, redis 1/2, 100/s") || strings.Count(line, "\n") != 1 {
		t.Errorf("the line is %q", line)
	}
}

func TestTheTableShowsTheLatestEventsAndTheWorst(t *testing.T) {
	e := newEvents()
	e.blame("STALE")
	for i := range 3 * maxEvents {
		e.add("event %d", i)
	}
	lately := e.lately()
	if len(lately) != maxEvents || !strings.HasSuffix(lately[maxEvents-1], "event 23") {
		t.Errorf("%q", lately)
	}
	for range 2 * maxEvidence {
		e.blame("again")
	}
	if worst := e.evidence(); len(worst) != maxEvidence || !strings.Contains(worst[0], "STALE") {
		t.Errorf("%q", worst)
	}
}
