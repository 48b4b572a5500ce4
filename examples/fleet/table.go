package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
)

// isTerminal reports whether f is one that a table can be drawn on.
func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && f.Name() != os.DevNull && os.Getenv("TERM") != "dumb"
}

// events holds the latest events.
type events struct {
	out io.Writer // where they are printed as they come; nil on a screen

	mu    sync.Mutex
	begun time.Time
	last  []string
	worst []string // evidence of broken promises
}

const (
	maxEvents   = 8
	maxEvidence = 20
)

func newEvents() *events { return &events{begun: time.Now()} }

// begin makes now the time from which events are counted.
func (e *events) begin(now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.begun = now
}

func (e *events) add(format string, args ...any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.note(fmt.Sprintf(format, args...))
}

// note adds an event. The caller holds mu.
func (e *events) note(what string) {
	line := fmt.Sprintf("%6.1fs  %s", time.Since(e.begun).Seconds(), what)
	e.last = append(e.last[max(0, len(e.last)-maxEvents+1):], line)
	if e.out != nil {
		fmt.Fprintln(e.out, line)
	}
}

// blame adds an event that shows that a promise was not kept. The first are kept to
// the end.
func (e *events) blame(format string, args ...any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	what := fmt.Sprintf(format, args...)
	if len(e.worst) < maxEvidence {
		e.worst = append(e.worst, fmt.Sprintf("at %.1fs %s", time.Since(e.begun).Seconds(), what))
		e.note(what)
	}
}

func (e *events) evidence() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.worst)
}

func (e *events) lately() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.last)
}

// print prints text between events, without cutting one in two.
func (e *events) print(out io.Writer, b []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	_, _ = out.Write(b)
}

// row is a line of the table: a shop, or all together.
type row struct {
	name, adapter, state           string
	perSecond                      float64
	requests                       int64
	memory, redis, misses, queries int64
	invalidations, redisErrors     int64
	pending                        int64
	failed, stale                  int64
}

// snapshot holds the values of the table.
type snapshot struct {
	elapsed     time.Duration
	shops       []row
	total       row
	nodes       [][]string // name, address, role, state, memory, clients
	took        []time.Duration
	propagation []time.Duration
	count       tally
	events      []string
}

// display shows the state of the world.
type display struct {
	w    *world
	out  io.Writer
	then time.Time
	seen []int64 // requests by shop, then
}

func newDisplay(w *world, out io.Writer) *display {
	return &display{w: w, out: out, then: w.begun, seen: make([]int64, len(w.fleet.places))}
}

const (
	drawEvery  = 500 * time.Millisecond
	printEvery = time.Second
)

// run shows it until ctx ends: as a table that is updated, or as a line per second.
func (d *display) run(ctx context.Context) {
	every := printEvery
	if d.w.cfg.screen {
		every = drawEvery
		d.w.events.print(d.out, []byte("\x1b[2J\x1b[1;1H> "))
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		s := d.look()
		if d.w.cfg.screen {
			d.draw(s)
		} else {
			d.w.events.print(d.out, []byte(s.line()))
		}
	}
}

// draw draws the table below the first line, in which the user types commands: that line
// stays, and the cursor returns to it.
func (d *display) draw(s snapshot) {
	var b bytes.Buffer
	b.WriteString("\x1b7\x1b[?7l\x1b[2;1H") // a long line is cut off, not wrapped
	for line := range strings.Lines(s.table() + "\n" + help + "\n\n" + strings.Join(s.events, "\n")) {
		b.WriteString(strings.TrimSuffix(line, "\n") + "\x1b[K\r\n")
	}
	b.WriteString("\x1b[J\x1b[?7h\x1b8")
	d.w.events.print(d.out, b.Bytes())
}

// prompt makes room for the next command.
func (d *display) prompt() {
	if d.w.cfg.screen {
		d.w.events.print(d.out, []byte("\x1b[1;1H\x1b[K> "))
	}
}

// last prints the table to stay.
func (d *display) last() {
	d.then = d.w.begun // the mean of the whole run
	clear(d.seen)
	s := d.look()
	clearing := ""
	if d.w.cfg.screen {
		clearing = "\x1b[2J\x1b[1;1H"
	}
	d.w.events.print(d.out, []byte(clearing+"\n"+s.table()))
}

// look returns a snapshot.
func (d *display) look() snapshot {
	w, now := d.w, time.Now()
	passed := max(now.Sub(d.then), time.Millisecond).Seconds()
	s := snapshot{
		elapsed: now.Sub(w.begun), total: row{name: "all"}, count: w.judge.tally(), events: w.events.lately(),
		took: w.load.took.quantiles(.5, .99), propagation: w.load.propagation.quantiles(.5, .99, 1),
	}
	for i, p := range w.fleet.places {
		c := p.counted()
		r := row{
			name: fmt.Sprint("shop ", p.number), adapter: p.options.Adapter, state: "up", requests: p.requests.Load(),
			// A page that Redis had is a hit of the shop's cache as well.
			memory: max(0, c.Hits+c.StaleHits-c.RemoteHits), redis: c.RemoteHits, misses: max(0, c.Misses-c.RemoteHits),
			queries: w.db.queries[i].Load(), invalidations: c.Invalidations, redisErrors: c.RemoteErrors, pending: int64(c.Pending),
			failed: p.failed.Load(), stale: p.stale.Load(),
		}
		if p.up() == nil {
			r.state = "down"
		}
		r.perSecond = float64(r.requests-d.seen[i]) / passed
		d.seen[i] = r.requests
		s.shops = append(s.shops, r)
		s.total.add(r)
	}
	d.then = now
	for _, n := range w.redis.nodes {
		state, told := n.state()
		s.nodes = append(s.nodes, []string{fmt.Sprint("redis ", n.number), address(n.port), told.role, state, told.memory, told.clients})
	}
	return s
}

func (r *row) add(o row) {
	r.perSecond += o.perSecond
	r.requests += o.requests
	r.memory += o.memory
	r.redis += o.redis
	r.misses += o.misses
	r.queries += o.queries
	r.invalidations += o.invalidations
	r.redisErrors += o.redisErrors
	r.pending += o.pending
	r.failed += o.failed
	r.stale += o.stale
}

// table returns the table.
func (s snapshot) table() string {
	var b bytes.Buffer
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	line := func(cells ...any) {
		for _, c := range cells {
			fmt.Fprint(t, c, "\t")
		}
		fmt.Fprintln(t)
	}
	line("", "", "state", "requests", "/s", "memory", "Redis", "misses", "queries", "invalidations", "pending", "Redis errors", "failed", "stale")
	for _, r := range append(slices.Clone(s.shops), s.total) {
		line(r.name, r.adapter, r.state, r.requests, fmt.Sprintf("%.0f", r.perSecond), r.memory, r.redis, r.misses, r.queries,
			r.invalidations, r.pending, r.redisErrors, r.failed, r.stale)
	}
	_ = t.Flush()
	fmt.Fprintln(&b)
	line("", "address", "role", "state", "memory", "clients")
	for _, n := range s.nodes {
		for _, cell := range n {
			fmt.Fprint(t, dash(cell), "\t")
		}
		fmt.Fprintln(t)
	}
	_ = t.Flush()
	fmt.Fprintf(&b, "\nrequests     p50 %s, p99 %s\n", ms(s.took[0]), ms(s.took[1]))
	fmt.Fprintf(&b, "propagation  p50 %s, p99 %s, longest %s\n", ms(s.propagation[0]), ms(s.propagation[1]), ms(s.propagation[2]))
	fmt.Fprintf(&b, "answers      %d judged against %d writes, %d stale; within what is promised, up to %s old",
		s.count.reads, s.count.writes, s.count.stale, ms(s.count.longest))
	if s.count.excused > 0 || s.count.unpromised > 0 {
		fmt.Fprintf(&b, "; excused by a failover %d, writes without a promise %d", s.count.excused, s.count.unpromised)
	}
	fmt.Fprintln(&b)
	return b.String()
}

// line returns the totals in a line.
func (s snapshot) line() string {
	up := 0
	for _, r := range s.shops {
		if r.state == "up" {
			up++
		}
	}
	nodes := 0
	for _, n := range s.nodes {
		if n[3] == "up" {
			nodes++
		}
	}
	t := s.total
	return fmt.Sprintf("%6.1fs  shops %d/%d, redis %d/%d, %.0f/s, memory %d, Redis %d, misses %d, queries %d, pending %d, propagation %s / %s, failed %d, stale %d\n",
		s.elapsed.Seconds(), up, len(s.shops), nodes, len(s.nodes), t.perSecond, t.memory, t.redis, t.misses, t.queries, t.pending,
		ms(s.propagation[0]), ms(s.propagation[1]), t.failed, t.stale)
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// ms writes a duration in milliseconds.
func ms(d time.Duration) string {
	v := float64(d) / float64(time.Millisecond)
	if v < 10 {
		return fmt.Sprintf("%.1f ms", v)
	}
	return fmt.Sprintf("%.0f ms", v)
}
