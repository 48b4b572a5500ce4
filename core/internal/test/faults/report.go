package main

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// report prints the result of a run, and returns errBroken if a promise was broken.
func (r *run) report(took time.Duration) error {
	h, t, out := r.history, r.timing, r.cfg.out
	h.mu.Lock()
	stale := slices.Clone(h.first)
	h.mu.Unlock()
	r.mu.Lock()
	failed, deaths := slices.Clone(r.failed), slices.Clone(r.deaths)
	r.mu.Unlock()
	slow, dead, lost := t.tooSlow(deaths)
	slices.SortFunc(slow, func(a, b slowRequest) int { return int(b.beyond - a.beyond) })

	for _, s := range append(stale, failed...) {
		fmt.Fprintln(out, s)
	}
	for _, s := range slow[:min(20, len(slow))] {
		fmt.Fprintf(out, "SLOW: %s, begun at %v: %v beyond its handler; lately: %s\n", s.what, seconds(s.begun), s.beyond.Round(time.Millisecond), h.lately(s.end))
	}
	kind := "one server"
	if r.cfg.cluster {
		kind = "a cluster of 3 masters and 3 replicas"
	}
	fmt.Fprintf(out, "\n%v on %s, seed %d: %d processes, %d readers, %d writers, %d rows\n\n",
		took.Round(time.Second), kind, r.cfg.seed, len(r.fleet.places), r.cfg.readers, r.cfg.writers, r.cfg.ids)

	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	line := func(name string, cells ...any) {
		fmt.Fprintf(w, "%s\t", name)
		for _, c := range cells {
			fmt.Fprintf(w, "%v\t", c)
		}
		fmt.Fprintln(w)
	}
	reads := h.reads.Load()
	line("reads", reads)
	line("hits, of these", share(h.hits.Load(), reads))
	line("writes", h.writes.Load())
	line("without a promise, of these", h.unpromised.Load())
	line("stale beyond the promise", h.stale.Load())
	line("stale within a documented limit", h.excused.Load())
	line("longest staleness: on the writer's process", ms(h.longestHere.Load()))
	line("on others, since the confirmation (allowed "+ms(h.delta)+")", ms(h.longest.Load()))
	line("since the commit of a killed writer (allowed "+ms(int64(writeTimeout))+")", ms(h.longestKilled.Load()))
	line("while a limit lasted", ms(h.longestLost.Load()))
	line("failed requests", r.failures.Load())
	line("requests too slow because of the cache", len(slow))
	line("requests that waited for a dead process's lease", dead)
	line("requests that waited after a lost reply of Redis", lost)
	fmt.Fprintln(w)
	line("beyond the handler", "requests", "median", "p99", "p99.9", "max")
	for _, s := range []struct {
		name string
		of   *spread
	}{{"route without a cache", &t.control}, {"reads", &t.read}, {"writes", &t.write}} {
		line(s.name, s.of.n.Load(), ms(int64(s.of.quantile(.5))), ms(int64(s.of.quantile(.99))),
			ms(int64(s.of.quantile(.999))), ms(s.of.max.Load()))
	}
	fmt.Fprintln(w)
	line("counters of the last processes", "hits", "Redis hits", "handler runs", "shared", "Redis errors", "not stored")
	for place, s := range r.stats {
		line(r.fleet.at(place).name, s.Hits+s.StaleHits, s.RemoteHits, s.Loads, s.Coalesced, s.RemoteErrors, s.Refused)
	}
	fmt.Fprintln(w)
	broken := []string{}
	if len(r.tally) > 0 {
		line("faults", "count", "slowest return of hits", "reads meanwhile", "hits, of these")
	}
	for _, f := range r.tally {
		line(f.name, f.count, ms(int64(f.slowest)), f.reads, share(f.hits, f.reads))
		if f.notBack > 0 {
			broken = append(broken, fmt.Sprintf("hits did not return %d times after %s", f.notBack, f.name))
		}
	}
	_ = w.Flush()
	fmt.Fprintln(out)

	for _, b := range []struct {
		n    int64
		what string
	}{
		{h.stale.Load(), "answers were stale beyond the promise"},
		{r.failures.Load(), "requests failed"},
		{int64(len(slow)), tooSlow},
	} {
		if b.n > 0 && (!r.cfg.untimed || b.what != tooSlow) {
			broken = append(broken, fmt.Sprint(b.n, " ", b.what))
		}
	}
	if reads == 0 || h.hits.Load() == 0 || h.writes.Load() == 0 {
		broken = append(broken, "nothing was tested")
	}
	if len(broken) > 0 {
		return fmt.Errorf("%w: %s (logs of the processes: %s)", errBroken, strings.Join(broken, "; "), r.dir)
	}
	return nil
}

const tooSlow = "requests were too slow because of the cache"

func share(part, of int64) string {
	return fmt.Sprintf("%.1f %%", 100*float64(part)/float64(max(1, of)))
}

func ms(ns int64) string { return fmt.Sprintf("%.1f ms", float64(ns)/float64(time.Millisecond)) }
