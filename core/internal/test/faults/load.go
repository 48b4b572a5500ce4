package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"
)

// pick returns a random row; two times in three one of a few hot rows.
func (r *run) pick() int {
	if rand.IntN(3) > 0 {
		return rand.IntN(min(24, r.cfg.ids))
	}
	return rand.IntN(r.cfg.ids)
}

// alive returns a connection to the process at a random place, or nil if that is dead or being killed.
func alive(cs *clients) *client {
	c := cs.to(rand.IntN(len(cs.list)))
	if c.p.killed.Load() {
		return nil
	}
	return c
}

// rest is the pause of a client that has found a dead process.
const rest = 5 * time.Millisecond

// reader reads and judges until ctx ends.
func (r *run) reader(ctx context.Context) {
	cs := r.fleet.clients()
	defer cs.close()
	for ctx.Err() == nil {
		c := alive(cs)
		if c == nil {
			time.Sleep(rest)
			continue
		}
		fields := ""
		if rand.IntN(100) == 0 {
			fields = "Cache-Control: no-cache\r\n"
		}
		r.read(c, r.pick(), fields)
	}
}

// read reads a row, and judges it.
func (r *run) read(c *client, row int, fields string) (response, bool) {
	least := r.history.least(c.p, row)
	begun := r.history.now()
	res, err := c.do(http.MethodGet, "/items/", row, fields)
	end := r.history.now()
	if !r.answered(c, "GET /items", row, res, err) {
		return res, false
	}
	r.timing.note(&r.timing.read, func() string {
		return fmt.Sprintf("read of row %d on %s (hit %t)", row, c.p.name, res.hit)
	}, begun, end, res.took)
	r.history.judge(c.p, row, begun, least, res)
	return res, true
}

// answered reports whether a request was answered correctly, and records a failure.
func (r *run) answered(c *client, what string, row int, res response, err error) bool {
	ok := err == nil && res.status == http.StatusOK && res.row == row && res.version >= 0
	if ok || c.p.killed.Load() {
		return ok
	}
	r.fail(fmt.Sprintf("%s/%d on %s at %v: %v, status %d, body %.200q; lately: %s",
		what, row, c.p.name, seconds(r.history.now()), err, res.status, res.body, r.history.lately(r.history.now())))
	time.Sleep(rest)
	return false
}

// controller requests a route without a cache, to measure what the machine adds to a request.
func (r *run) controller(ctx context.Context, place int) {
	cs := r.fleet.clients()
	defer cs.close()
	var of *process
	var errors, since int64
	for ctx.Err() == nil {
		time.Sleep(2 * time.Millisecond)
		c := cs.to(place)
		if c.p.killed.Load() {
			continue
		}
		row, begun := r.pick(), r.history.now()
		res, err := c.do(http.MethodGet, "/control/", row, "")
		end := r.history.now()
		if !r.answered(c, "GET /control", row, res, err) {
			continue
		}
		r.timing.note(&r.timing.control, nil, begun, end, res.took)
		if c.p == of && res.errors > errors {
			r.timing.lost(since, end)
		}
		of, errors, since = c.p, res.errors, begun
	}
}

// way is a way to write, with its frequency.
type way struct {
	method, path string
	weight       int
	odd          bool // for rows with late tags only
}

func ways() []way {
	put, post := http.MethodPut, http.MethodPost
	return []way{
		{put, "/items/", 400, false}, {put, "/intent/", 200, false}, {put, "/said/", 100, false}, {put, "/late/", 100, true},
		{post, "/tag/", 80, false}, {post, "/path/", 50, false}, {post, "/group/", 30, true}, {post, "/pattern/", 20, false},
		{post, "/everywhere/", 15, false}, {post, "/all/", 5, false},
	}
}

func draw(list []way) way {
	sum := 0
	for _, w := range list {
		sum += w.weight
	}
	n := rand.IntN(sum)
	for _, w := range list {
		if n -= w.weight; n < 0 {
			return w
		}
	}
	return list[0]
}

// writer writes until ctx ends.
func (r *run) writer(ctx context.Context) {
	cs := r.fleet.clients()
	defer cs.close()
	list := ways()
	for ctx.Err() == nil {
		time.Sleep(rand.N(40 * time.Millisecond))
		c := alive(cs)
		if c == nil {
			continue
		}
		w, row := draw(list), r.pick()
		if w.odd {
			row |= 1
		}
		r.write(c, w, row)
	}
}

// write writes a row and records its promise.
func (r *run) write(c *client, w way, row int) {
	h := r.history
	splits, begun := h.splits.Load(), h.now()
	res, err := c.do(w.method, w.path, row, "")
	end := h.now()
	how := w.method + " " + w.path
	if !r.answered(c, how, row, res, err) {
		return
	}
	h.writes.Add(1)
	r.timing.note(&r.timing.write, func() string { return fmt.Sprintf("%s%d on %s", how, row, c.p.name) }, begun, end, res.took)
	p := promise{version: res.version, how: how, by: c.p, here: end}
	switch {
	case res.pending != "false":
		h.promised(row, p, splits)
		r.unconfirmed.add(row, p, splits)
	case w.path == "/everywhere/":
		p.confirmed, p.everywhere = end, end
		h.promised(row, p, splits)
	default:
		p.confirmed, p.everywhere = end, end+h.delta
		h.promised(row, p, splits)
	}
}

// unconfirmed holds the writes whose confirmation is not known yet.
type unconfirmed struct {
	mu   sync.Mutex
	list []unconfirmedWrite
}

type unconfirmedWrite struct {
	row    int
	p      promise
	splits int64
}

func (u *unconfirmed) add(row int, p promise, splits int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.list = append(u.list, unconfirmedWrite{row, p, splits})
}

// of reports whether a process has unconfirmed writes.
func (u *unconfirmed) of(p *process) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, w := range u.list {
		if w.p.by == p {
			return true
		}
	}
	return false
}

// take removes and returns the writes of a process that had ended before a time.
func (u *unconfirmed) take(p *process, before int64) (list []unconfirmedWrite) {
	u.mu.Lock()
	defer u.mu.Unlock()
	left := u.list[:0]
	for _, w := range u.list {
		if w.p.by == p && w.p.here <= before {
			list = append(list, w)
		} else {
			left = append(left, w)
		}
	}
	u.list = left
	return list
}

// confirmer polls a process for pending invalidations while it has unconfirmed writes.
func (r *run) confirmer(ctx context.Context, place int) {
	cs := r.fleet.clients()
	defer cs.close()
	h := r.history
	for ; ctx.Err() == nil; time.Sleep(2 * time.Millisecond) {
		c := cs.to(place)
		if !r.unconfirmed.of(c.p) {
			continue
		}
		asked := h.now()
		res, err := c.do(http.MethodGet, "/pending/", 0, "")
		told := h.now()
		if c.p.killed.Load() {
			// A pending invalidation is lost with its process.
			h.unpromised.Add(int64(len(r.unconfirmed.take(c.p, told))))
			continue
		}
		if err != nil || res.version < 0 {
			r.fail(fmt.Sprintf("GET /pending on %s: %v, %q", c.p.name, err, res.body))
			continue
		}
		if res.version > 0 {
			h.pendings.Add(1)
			time.Sleep(10 * time.Millisecond)
			continue
		}
		for _, w := range r.unconfirmed.take(c.p, asked) {
			h.promised(w.row, promise{
				version: w.p.version, how: w.p.how, by: w.p.by, confirmed: told, everywhere: told + h.delta,
			}, w.splits)
		}
	}
}
