package simulate_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/larderhq/larder/core"
)

// target is a target with the rows that it covers.
type target struct {
	core.Target
	name   string
	covers func(k int) bool
	intent bool // Begin takes it
}

func (h *history) target(k int, rng *rand.Rand) target {
	only := func(other int) bool { return other == k }
	every := func(o int) bool { return o < len(h.plain) }
	switch n := rng.IntN(100); {
	case n < 10 && isPaged(k):
		return target{core.Tag(pageKey(k)), "tag " + pageKey(k), func(o int) bool { return o == k || o == h.plain[k].page.index }, true}
	case n < 25:
		return target{core.Key(rowKey(k)), "key " + rowKey(k), only, true}
	case n < 45:
		return target{core.Tag(rowKey(k)), "tag " + rowKey(k), only, true}
	case n < 68:
		return target{core.Tag(groupTag(k)), "tag " + groupTag(k), func(o int) bool { return h.rows[o].kind <= page && h.rows[o].k%groups == k%groups }, true}
	case n < 80 && hasPath(k):
		return target{core.Path(rowPath(k)), "path " + rowPath(k), only, true}
	case n < 91:
		return target{core.Pattern(rowKey(k)), "pattern " + rowKey(k), only, false}
	case n < 94:
		return target{core.Pattern("row:*"), "pattern row:*", every, false}
	case n < 96:
		return target{core.Pattern("row:[0-9]"), "pattern row:[0-9]", func(o int) bool { return o < 10 }, false}
	case n < 98:
		return target{core.All(), "all", func(o int) bool { return h.rows[o].kind == plain || h.rows[o].kind == page }, false}
	default:
		return target{core.Key(rowKey(k)), "key " + rowKey(k), only, true}
	}
}

// seen holds the versions that an invalidation announces: the ones committed before it.
type seen struct {
	at    time.Duration
	epoch int64
	blind int64
	rows  []int
	vers  []int64
}

func (h *history) look(covers func(k int) bool) seen {
	s := seen{at: h.now(), epoch: h.epoch.Load(), blind: h.blind.Load()}
	for k, r := range h.rows {
		if covers(k) {
			s.rows, s.vers = append(s.rows, k), append(s.vers, r.latest())
		}
	}
	return s
}

// owe records that the seen versions have been announced: the call returned nil.
func (h *history) owe(in *instance, s seen, d debt) {
	d.by = in.id
	if h.grace > 0 {
		time.AfterFunc(h.grace, func() { h.oweNow(s, d) })
		return
	}
	h.oweNow(s, d)
}

func (h *history) oweNow(s seen, d debt) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.oweLocked(s, d)
}

func (h *history) oweLocked(s seen, d debt) {
	for i, k := range s.rows {
		r := h.rows[k]
		r.mu.Lock()
		d := d
		d.version, d.from, d.to = s.vers[i], s.at, h.now()
		if h.epoch.Load() != s.epoch { // a failover came between
			d.by, d.everywhere, d.void = -1, false, d.only
			d.to += h.fault.unseen
		}
		r.owed = append(r.owed, d)
		for _, in := range h.instances {
			if !d.void && (d.everywhere || in.id == d.by) && d.version > in.need[k] {
				in.need[k], in.why[k] = d.version, len(r.owed)-1
			}
		}
		r.mu.Unlock()
	}
}

// shake records that the tier has now lost the writes of the last d: versions announced in
// that time are owed again once the new server has been seen.
func (h *history) shake(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.epoch.Add(1)
	h.blind.Add(1)
	now := h.now()
	for k, r := range h.rows {
		r.mu.Lock()
		var again []debt
		for i := len(r.owed) - 1; i >= 0; i-- {
			o := &r.owed[i]
			if o.only { // the time at which it landed is unknown: it may be lost as well
				o.void = true
			}
			if !o.void && o.to >= now-d {
				o.void = true
				re := *o
				re.void, re.by, re.everywhere, re.to = false, -1, false, now+h.fault.unseen
				again = append(again, re)
			}
		}
		r.owed = append(r.owed, again...)
		for _, in := range h.instances {
			in.need[k], in.why[k] = 0, 0
			for i := range r.owed {
				o := &r.owed[i]
				if !o.void && o.version > in.need[k] && (i < in.upTo[k] && !o.only || o.everywhere || o.by == in.id) {
					in.need[k], in.why[k] = o.version, i
				}
			}
		}
		r.mu.Unlock()
	}
}

func (h *history) writeLoop(in *instance, rng *rand.Rand) {
	for !h.done() && !in.dead.Load() {
		h.quiet(in)
		if !h.sleep(between(rng, 0, 8*h.pace)) || in.dead.Load() {
			return
		}
		k := h.pick(rng)
		r := h.rows[k]
		if isPut(k) {
			select {
			case r.order <- struct{}{}:
			case <-h.ended:
				return
			}
		}
		h.write(in, k, rng)
		if isPut(k) {
			<-r.order
		}
		h.operation()
		h.totals.writes.Add(1)
	}
}

func (h *history) write(in *instance, k int, rng *rand.Rand) {
	r, ctx := h.rows[k], context.Background()
	if rng.IntN(20) == 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, between(rng, 0, 100*time.Millisecond))
		defer cancel()
	}
	t := h.target(k, rng)
	switch n := rng.IntN(100); {
	case n < 35 && t.intent:
		h.withIntent(ctx, in, k, t, rng)
	case n < 55 && isPut(k):
		v := r.commit(h.now(), in.id)
		if absent(v) {
			v = r.commit(h.now(), in.id)
		}
		h.pause(rng)
		s := h.look(func(o int) bool { return o == k })
		var tags []string
		if rng.IntN(2) == 0 {
			tags = []string{groupTag(k), "early"}
		} else {
			tags = []string{groupTag(k)}
		}
		r.note(h.now(), in.id, "puts version", v)
		err := in.m.Put(ctx, k, value{v, h.pad}, tags...)
		h.announced(in, k, s, false, "Put", err)
	case n < 55 && isWritten(k):
		h.writeThrough(ctx, in, k, rng)
	case n < 60:
		r.commit(h.now(), in.id)
		s := h.look(func(o int) bool { return o == k })
		r.note(h.now(), in.id, "begins Map.Invalidate", -1)
		err := in.m.Invalidate(ctx, k)
		h.announced(in, k, s, false, "Map.Invalidate", err)
	default:
		r.commit(h.now(), in.id)
		h.pause(rng)
		if in.dead.Load() {
			return
		}
		targets, everywhere, how := []core.Target{t.Target}, false, "Invalidate of "+t.name
		if rng.IntN(12) == 0 {
			everywhere = true
			how += ", everywhere"
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, 10*time.Second)
			defer cancel()
		}
		if rng.IntN(8) == 0 {
			targets = append(targets, core.Tag("unrelated"), core.Key("unrelated"))
		}
		s := h.look(t.covers)
		h.noteRows(s, in.id, "begins "+how)
		if rng.IntN(2) == 0 && strings.HasPrefix(t.name, "pattern") {
			h.sweep(ctx, in, k, s, everywhere, how, targets)
			return
		}
		invalidate := in.cache.Invalidate
		if everywhere {
			invalidate = in.cache.InvalidateEverywhere
		}
		h.announced(in, k, s, everywhere, how, invalidate(ctx, targets...))
	}
}

// sweep is an Invalidate with time for its scan. It may end without having begun.
func (h *history) sweep(ctx context.Context, in *instance, k int, s seen, everywhere bool, how string, targets []core.Target) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	did, err := in.cache.Sweep(ctx, targets...)
	if err == nil && everywhere {
		err = in.cache.WaitEverywhere(ctx)
	}
	how += ", swept"
	if did.Everything != nil {
		how += " everything: " + did.Everything.Error()
	}
	h.announced(in, k, s, everywhere, how, err)
}

// writeThrough is a writer that knows the value, and may overlap with others.
func (h *history) writeThrough(ctx context.Context, in *instance, k int, rng *rand.Rand) {
	r := h.rows[k]
	tags := []string{groupTag(k)}
	if rng.IntN(2) == 0 {
		tags = append(tags, "early")
	}
	fails, mortal := rng.IntN(10) == 0, h.fault.mortal && rng.IntN(12) == 0
	var s seen
	token, version := newToken()
	r.note(h.now(), in.id, "begins Write", -1)
	err := in.m.Write(ctx, k, value{token, h.pad}, func(context.Context, int, value) error {
		h.pause(rng)
		v := r.commit(h.now(), in.id)
		if absent(v) {
			v = r.commit(h.now(), in.id)
		}
		version.Store(v)
		r.note(h.now(), in.id, "saved by Write is version", v)
		h.pause(rng)
		if mortal {
			h.kill(in)
		}
		s = h.look(func(o int) bool { return o == k })
		if fails {
			return errDatabase
		}
		s.vers[0] = v // a later version that has not been announced is unknown to it; it announces its own
		return nil
	}, tags...)
	if err == errDatabase { //nolint:errorlint // alone: it has been invalidated all the same
		err = nil
	}
	if s.rows != nil {
		h.announced(in, k, s, false, "Write", err)
	}
}

func (h *history) noteRows(s seen, who int, what string) {
	for _, k := range s.rows {
		h.rows[k].note(h.now(), who, what, -1)
	}
}

// announced records the outcome of an announcement.
func (h *history) announced(in *instance, k int, s seen, everywhere bool, how string, err error) {
	switch {
	case in.dead.Load():
		return
	case err != nil:
		h.totals.pending.Add(1)
		h.rows[k].note(h.now(), in.id, "announcement failed: "+how+": "+err.Error(), -1)
		if errors.Is(err, core.ErrPending) { // this instance answers nothing old, whatever the others do
			h.owe(in, s, debt{only: true, how: how + " (pending)"})
		}
	default:
		h.totals.announced.Add(1)
		h.noteRows(s, in.id, "returned: "+how)
		h.owe(in, s, debt{everywhere: everywhere, how: how})
	}
}

func (h *history) pause(rng *rand.Rand) {
	switch rng.IntN(4) {
	case 0:
		h.sleep(between(rng, 0, 20*time.Millisecond))
	case 1:
		if rng.IntN(10) == 0 {
			h.sleep(between(rng, 0, time.Second))
		}
	}
}

// oweAtDeadline records that a version has been committed under an intent: older entries are
// gone at the deadline, whatever happens to the writer.
func (h *history) oweAtDeadline(in *instance, k int, v int64, before seen, begun bool, t target) {
	if !begun || h.now() >= before.at+h.write_ {
		return
	}
	after := max(0, before.at+h.write_-h.now()) + (h.now() - before.at) + h.class.LoadTimeout + 10*time.Millisecond + h.grace
	time.AfterFunc(after, func() {
		if h.blind.Load() == before.blind {
			h.oweNow(seen{at: before.at, epoch: h.epoch.Load(), rows: []int{k}, vers: []int64{v}}, debt{by: -1, how: "the deadline of an intent on " + t.name})
			h.rows[k].note(h.now(), in.id, "the intent's deadline is past; owed is version", v)
		}
	})
}

// withIntent is a writer that begins, commits and ends, unless it dies in between.
func (h *history) withIntent(ctx context.Context, in *instance, k int, t target, rng *rand.Rand) {
	r := h.rows[k]
	before := h.look(t.covers)
	h.noteRows(before, in.id, "begins Begin of "+t.name)
	intent, err := in.cache.Begin(ctx, t.Target)
	if err == nil && intent.Pending() {
		err = core.ErrPending
	}
	if err != nil {
		h.announced(in, k, before, false, "Begin of "+t.name, err)
	} else {
		h.noteRows(before, in.id, "returned: Begin of "+t.name)
	}
	if intent == nil {
		return
	}
	begun := err == nil
	h.pause(rng)
	mortal := h.fault.mortal && rng.IntN(6) == 0
	if mortal && rng.IntN(3) == 0 {
		h.kill(in)
	}
	if rng.IntN(3) == 0 {
		h.noteRows(before, in.id, "abandons "+t.name)
		intent.Abandon()
		return
	}
	if rng.IntN(10) == 0 { // it stops waiting for what it commits later
		s := h.look(t.covers)
		err := intent.Lapse(ctx)
		h.announced(in, k, s, false, "Lapse of "+t.name, err)
		h.pause(rng)
		h.oweAtDeadline(in, k, r.commit(h.now(), in.id), before, begun, t)
		return
	}
	if rng.IntN(12) == 0 { // longer than it may
		h.sleep(between(rng, 0, 2*h.write_))
	}
	h.oweAtDeadline(in, k, r.commit(h.now(), in.id), before, begun, t)
	h.pause(rng)
	if mortal {
		if rng.IntN(2) == 0 { // in the middle of what follows
			d := between(rng, 0, 10*time.Millisecond)
			time.AfterFunc(d, func() { h.kill(in) })
		} else {
			h.kill(in)
			return
		}
	}
	if rng.IntN(12) == 0 {
		h.sleep(between(rng, 0, 2*h.write_))
	}
	var more []core.Target
	covers, how := t.covers, "End of "+t.name
	if rng.IntN(10) == 0 {
		m := h.target(k, rng)
		more, covers = []core.Target{m.Target}, func(k int) bool { return t.covers(k) || m.covers(k) }
		how += ", and " + m.name
	}
	s := h.look(covers)
	h.noteRows(s, in.id, "begins "+how)
	err = intent.End(ctx, more...)
	h.announced(in, k, s, false, how, err)
}
