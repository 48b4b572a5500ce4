package simulate_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/loadscope"
	"github.com/larderhq/larder/core/internal/naming"
	"github.com/larderhq/larder/core/internal/test/memtier"
)

// kind is the kind of a row of a history.
type kind int

const (
	plain     kind = iota
	page           // made of the cache's value of a plain row
	later          // its changes are queued: write-behind
	laterPage      // made of the cache's value of a row whose changes are queued
	tablePage      // made of the database's version of a row, without the queue
)

const laterRows = 6

// pagedRows have a page.
var pagedRows = []int{0, 2, 4, 6}

func isPaged(k int) bool     { return slices.Contains(pagedRows, k) }
func pageKey(k int) string   { return fmt.Sprint("page:", k) }
func laterKey(k int) string  { return fmt.Sprint("later:", k) }
func laterTag(k int) string  { return naming.Tag(laterKey(k)) }
func (r *row) latest() int64 { return r.of.version.Load() }
func (r *row) String() string {
	return fmt.Sprintf("%s %d", [...]string{"row", "page of row", "queued row", "page of queued row", "page of the table's row"}[r.kind], r.k)
}

// addRow adds a row to the judged ones.
func (h *history) addRow(what kind, k int, of *row) *row {
	r := &row{kind: what, k: k, of: of, index: len(h.rows), order: make(chan struct{}, 1)}
	if of == nil {
		r.of = r
	}
	if what == later {
		r.table = new(stored)
	}
	h.rows = append(h.rows, r)
	return r
}

// addRows adds all rows, of which plain are plain.
func (h *history) addRows(n int) {
	for k := range n {
		h.addRow(plain, k, nil)
	}
	h.plain = h.rows
	for _, k := range pagedRows {
		r := h.addRow(page, k, h.plain[k])
		h.plain[k].page = r
	}
	if !h.behind.on {
		return
	}
	for k := range laterRows {
		r := h.addRow(later, k, nil)
		h.later = append(h.later, r)
		r.page = h.addRow(laterPage, k, r)
		r.tablePage = h.addRow(tablePage, k, r)
	}
}

// stored is a row of the database that queued changes are applied to.
type stored struct {
	mu      sync.Mutex
	version int64 // of the value
	change  int64 // core.Change.Version
	was     []stamped
	acked   int64 // the last version that is known to be queued
}

type stamped struct {
	at      time.Duration
	version int64
}

// read returns the version as of a time.
func (s *stored) read(at time.Duration) (version int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range slices.Backward(s.was) {
		if w.at <= at {
			return w.version
		}
	}
	return 0
}

// behind holds the random parameters of a history's queues.
type behind struct {
	on      bool // there are queues
	options core.WriteBehindOptions[int, value]
	// stubborn applies ignore their context, and the database refuses a version that is
	// older than its own. Other applies rely on their context alone.
	stubborn bool
	bare     bool          // changes have no tags beside their keys'
	fails    int           // of 1000 applies
	hangs    int           // of 1000 changes
	hang     time.Duration // at most
	crashes  int           // of 1000 changes, where writers die
}

func drawBehind(rng *rand.Rand, f *profile, always bool) behind {
	return behind{
		on: always || f.queued || rng.IntN(8) == 0,
		options: core.WriteBehindOptions[int, value]{
			Batch: oneOf(rng, 1, 3, 100), Interval: oneOf(rng, time.Millisecond, 30*ms, time.Second),
			MaxQueued: oneOf(rng, 3, 100_000, 100_000), Wait: oneOf(rng, 300*ms, 2*time.Second, 5*time.Second),
			ApplyTimeout: oneOf(rng, time.Second, 8*time.Second), Retry: oneOf(rng, ms, 100*ms), MaxRetry: time.Second,
			MaxAttempts: 1 << 20,
		},
		stubborn: f.loses || rng.IntN(4) == 0,
		fails:    oneOf(rng, 0, 50), hangs: oneOf(rng, 2, 50), hang: oneOf(rng, 50*ms, time.Second, 8*time.Second),
		crashes: oneOf(rng, 0, 5, 50),
		bare:    rng.IntN(2) == 0,
	}
}

// queue gives an instance its queue.
func (h *history) queue(in *instance, rng *rand.Rand, workers int) {
	var err error
	if in.pages, err = core.NewMap(in.cache, core.MapOptions[int, value]{Class: "row", Prefix: "page", Codec: codec{}}); err != nil {
		panic(err)
	}
	if !h.behind.on {
		return
	}
	o := h.behind.options
	o.Workers = workers
	if in.later, err = core.NewMap(in.cache, core.MapOptions[int, value]{Class: "row", Prefix: "later", Codec: codec{}}); err != nil {
		panic(err)
	}
	if in.queue, err = core.NewWriteBehind(in.later, h.applier(in), o); err != nil {
		panic(err)
	}
	if h.fault.mortal { // between a step of the queue's and the next
		die := oneOf(rng, 0, 20, 200)
		end := func() {
			if !h.done() && die > 0 && h.rand().IntN(die) == 0 {
				h.kill(in)
			}
		}
		in.line.settled.Store(&end)
	}
}

// applier is what an instance applies changes with.
func (h *history) applier(in *instance) func(context.Context, []core.Change[int, value]) error {
	return func(ctx context.Context, changes []core.Change[int, value]) error {
		rng := h.rand()
		if !h.done() && rng.IntN(1000) < h.behind.fails {
			if rng.IntN(8) == 0 {
				panic(errDatabase)
			}
			return errDatabase
		}
		failed := make(core.BatchError[int])
		for _, c := range changes {
			if !h.done() {
				if rng.IntN(1000) < h.behind.hangs {
					h.hang(ctx, between(rng, 0, h.behind.hang))
				} else if rng.IntN(3) == 0 {
					h.hang(ctx, between(rng, 0, 5*ms))
				}
				if rng.IntN(1000) < h.behind.fails {
					failed[c.ID] = errDatabase
					continue
				}
			}
			if !h.store(ctx, in, c) {
				return errDatabase
			}
			if h.fault.mortal && !h.done() && rng.IntN(1000) < h.behind.crashes {
				h.kill(in)
			}
		}
		if len(failed) > 0 {
			return failed
		}
		return nil
	}
}

// hang waits, until the context ends if the database heeds contexts.
func (h *history) hang(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	ended := ctx.Done()
	if h.behind.stubborn {
		ended = nil
	}
	select {
	case <-t.C:
	case <-ended:
	case <-h.ended:
	}
}

// store puts a change into the database. It returns false if the caller has given up.
func (h *history) store(ctx context.Context, in *instance, c core.Change[int, value]) bool {
	r := h.later[c.ID]
	s := r.table
	s.mu.Lock()
	defer s.mu.Unlock()
	if in.dead.Load() || !h.behind.stubborn && ctx.Err() != nil {
		return false
	}
	n := &h.totals
	v := c.Value.version
	switch {
	case c.Version == s.change:
		n.twice.Add(1)
		return true
	case c.Version < s.change && h.behind.stubborn:
		n.refusedOld.Add(1)
		return true
	case c.Deleted: // the only one that is not there yet: see next
		for v = s.version + 1; v < r.version.Load() && !absent(v); v++ {
		}
	}
	if (c.Version < s.change || v < s.version) && h.losses.Load() == 0 {
		h.fail(fmt.Sprintf("ORDER: instance %d applies version %d (change %d) of %v at %v, when the database has version %d (change %d)\n%s",
			in.id, v, c.Version, r, h.now(), s.version, s.change, r.timeline(h.traces.of(r.index))))
	}
	s.version, s.change = v, c.Version
	s.was = append(s.was, stamped{h.now(), v})
	if len(s.was) > 64 {
		s.was = slices.Delete(s.was, 0, 32)
	}
	n.applied.Add(1)
	r.note(h.now(), in.id, "applies version", v)
	return true
}

// next makes the next version of a row. It makes no deletion while another one may be
// pending, since a deletion does not hold its version.
func (h *history) next(r *row, who int) int64 {
	v := r.commit(h.now(), who)
	if absent(v) {
		r.table.mu.Lock()
		waits := anyAbsentBetween(r.table.version, v)
		r.table.mu.Unlock()
		if waits {
			v = r.commit(h.now(), who)
		}
	}
	return v
}

func anyAbsentBetween(from, to int64) bool { return to-from > 1 && anyAbsent(from+1, to-1) }

func (h *history) queueLoop(in *instance, rng *rand.Rand) {
	for !h.done() && !in.dead.Load() {
		h.quiet(in)
		if !h.sleep(between(rng, 0, 8*h.pace)) || in.dead.Load() {
			return
		}
		if rng.IntN(30) == 0 {
			h.flush(in, 5*time.Second)
		} else {
			h.change(in, h.later[rng.IntN(len(h.later))], rng)
		}
		h.operation()
		h.totals.writes.Add(1)
	}
}

// change queues a change of a row.
func (h *history) change(in *instance, r *row, rng *rand.Rand) {
	select {
	case r.order <- struct{}{}:
	case <-h.ended:
		return
	}
	ctx, cancel := context.Background(), context.CancelFunc(func() {})
	if rng.IntN(20) == 0 {
		ctx, cancel = context.WithTimeout(ctx, between(rng, 0, 100*ms))
	}
	defer cancel()
	losses := h.losses.Load()
	s := h.look(func(int) bool { return false })
	v := h.next(r, in.id)
	var err error
	how := "Put"
	tags := []string{groupTag(r.k)}
	if h.behind.bare {
		tags = nil
	}
	switch {
	case absent(v):
		how = "Delete"
		r.note(h.now(), in.id, "begins Delete, version", v)
		err = in.queue.Delete(ctx, r.k)
	case rng.IntN(4) == 0:
		r.note(h.now(), in.id, "begins PutMany, version", v)
		err = in.queue.PutMany(ctx, map[int]value{r.k: {v, h.pad}}, tags...)
		var each core.BatchError[int]
		if errors.As(err, &each) {
			err = each[r.k]
		}
	default:
		r.note(h.now(), in.id, "begins Put, version", v)
		err = in.queue.Put(ctx, r.k, value{v, h.pad}, tags...)
	}
	queued := err == nil || errors.Is(err, core.ErrPending)
	if in.dead.Load() || !queued {
		if !in.dead.Load() {
			h.totals.notQueued.Add(1)
			r.note(h.now(), in.id, "not queued: "+err.Error()+": version", v)
		}
		// Until the command's deadline has passed: the change may still land.
		time.AfterFunc(h.behind.options.Wait+10*ms, func() { <-r.order })
		return
	}
	defer func() { <-r.order }()
	r.note(h.now(), in.id, "returned: "+how+" of version", v)
	h.totals.queued.Add(1)
	h.mu.Lock()
	if h.losses.Load() == losses {
		r.table.mu.Lock()
		r.table.acked = v
		r.table.mu.Unlock()
		s.rows, s.vers = []int{r.index}, []int64{v}
		if err == nil {
			s.rows, s.vers = append(s.rows, r.page.index), append(s.vers, v)
		}
	}
	h.mu.Unlock()
	if h.grace == 0 { // a replica that lags has it after it has been applied, only
		h.oweQueued(s, losses, debt{by: in.id, how: how, soft: true})
	}
}

// flush waits until the queued changes have been applied. From then on they are owed by
// values made of the table, and by readers that cannot reach the tier.
func (h *history) flush(in *instance, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	losses := h.losses.Load()
	before := h.look(func(int) bool { return false })
	acked := make([]int64, len(h.later))
	for k, r := range h.later {
		r.table.mu.Lock()
		acked[k] = r.table.acked
		r.table.mu.Unlock()
	}
	err := in.queue.Flush(ctx)
	if err != nil || in.dead.Load() {
		return err
	}
	h.totals.flushed.Add(1)
	s := before
	for k, r := range h.later {
		v := acked[k]
		r.table.mu.Lock()
		has := r.table.version
		r.table.mu.Unlock()
		// A later change may have replaced it: then the later one has been applied.
		s.rows, s.vers = append(s.rows, r.index, r.page.index, r.tablePage.index), append(s.vers, v, v, v)
		if has < v && h.losses.Load() == losses {
			h.fail(fmt.Sprintf("LOST: Flush of instance %d returned at %v, but the database has version %d of %v, not %d\n%s",
				in.id, h.now(), has, r, v, r.timeline(h.traces.of(r.index))))
		}
	}
	if h.grace > 0 {
		time.AfterFunc(h.grace, func() { h.oweQueued(s, losses, debt{by: -1, how: "Flush"}) })
	} else {
		h.oweQueued(s, losses, debt{by: -1, how: "Flush"})
	}
	return nil
}

// failed records that the tier does not answer an instance.
func (h *history) failed(in *instance) {
	if !in.dead.Load() {
		in.trouble.Store(int64(h.now()))
		h.trouble.Store(int64(h.now()))
	}
}

// memory is the time for which a tier that did not answer may be the reason that a value is
// loaded from the database although a change is queued.
func (h *history) memory() time.Duration { return 2*h.class.LoadTimeout + 3*time.Second }

// owes reports whether an instance owes a change that it has put itself, although the tier
// does not answer it.
func (h *history) owes(in *instance, r *row, begun time.Duration) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if in.need[r.index] == 0 || time.Duration(in.trouble.Load()) < begun {
		return false
	}
	return h.holds(in, r, &r.owed[in.why[r.index]], begun)
}

// excused reports whether the answer is too old only because the tier, which knows the
// queued changes, did not answer. The database's version is owed nevertheless.
func (h *history) excused(in *instance, r *row, begun time.Duration, v value, err error) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	since := begun
	for i := range r.owed {
		d := &r.owed[i]
		at := d.to + in.due
		if d.everywhere || d.by == in.id {
			at = d.to
		}
		if d.void || at > begun || err == nil && v.version >= d.version || err != nil && anyAbsent(d.version, r.latest()) {
			continue
		}
		if !d.soft || h.holds(in, r, d, begun) {
			return false
		}
		if r.kind == laterPage { // any instance may have made it, at any time since
			since = min(since, d.from)
		}
	}
	trouble := &in.trouble
	if r.kind == laterPage {
		trouble = &h.trouble
	}
	return time.Duration(trouble.Load()) >= since-h.memory()
}

// oweQueued is oweNow, unless queued changes may have been lost since.
func (h *history) oweQueued(s seen, losses int64, d debt) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.losses.Load() == losses {
		h.oweLocked(s, d)
	}
}

// loseQueue records that queued changes may be lost: no instance owes them any more.
func (h *history) loseQueue() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.losses.Add(1)
	for i, r := range h.rows {
		if r.kind == plain || r.kind == page {
			continue
		}
		r.mu.Lock()
		for n := range r.owed {
			r.owed[n].void = true
		}
		for _, in := range h.instances {
			in.need[i], in.why[i] = 0, 0
		}
		r.mu.Unlock()
		if r.table != nil {
			r.table.mu.Lock()
			r.table.acked = 0
			r.table.mu.Unlock()
		}
	}
}

// drain waits at the end of a history until the queued changes are applied, and judges the
// database's versions and the answers of readers.
func (h *history) drain() {
	if !h.behind.on || h.failure.Load() != nil {
		return
	}
	h.server.SetFaults(memtier.Faults{})
	rng := h.rand()
	last := h.open(rng, 1)
	for _, in := range h.alive() {
		in.workers.Wait()
	}
	if err := h.flush(last, 10*time.Minute); err != nil {
		h.fail("LOST: what is queued is not applied: " + err.Error())
		return
	}
	time.Sleep(h.memory() + h.grace)
	for _, in := range h.alive() {
		for i, r := range h.rows {
			if r.kind != plain {
				h.read(in, i, rng, h.loaders(in))
			}
		}
	}
}

// loaders returns the loaders of an instance, by kind of row.
type loaders [5]core.Loader[int, value]

func (h *history) loaders(in *instance) *loaders {
	l := &loaders{plain: h.loader(in), later: h.laterLoader(in)}
	over := func(get func(ctx context.Context, k int) (value, error), tag func(k int) string) core.Loader[int, value] {
		return func(ctx context.Context, k int) (value, error) {
			rng := h.rand()
			s := loadscope.From(ctx)
			early := rng.IntN(2) == 0
			if early {
				s.AddTags([]string{tag(k)})
			}
			if err := h.work(ctx, rng); err != nil {
				return value{}, err
			}
			v, err := get(ctx, k)
			h.totals.nested.Add(1)
			if err := h.work(ctx, rng); err != nil {
				return value{}, err
			}
			if !early {
				s.AddTags([]string{tag(k)})
			}
			return v, err
		}
	}
	l[page] = over(func(ctx context.Context, k int) (value, error) { return in.m.Get(ctx, k, l[plain]) },
		func(k int) string { return naming.Tag(groupTag(k)) })
	l[laterPage] = over(func(ctx context.Context, k int) (value, error) { return in.later.Get(ctx, k, l[later]) },
		laterTag)
	l[tablePage] = over(func(ctx context.Context, k int) (value, error) { return l[later](ctx, k) },
		laterTag)
	return l
}

// get reads a row in the way of its kind.
func (in *instance) get(ctx context.Context, r *row, l *loaders) (value, error) {
	switch r.kind {
	case plain:
		return in.m.Get(ctx, r.k, l[plain])
	case later:
		return in.later.Get(ctx, r.k, l[later])
	case page:
		return in.pages.Get(ctx, r.k, l[page])
	case laterPage:
		return in.pages.Get(ctx, 1000+r.k, func(ctx context.Context, _ int) (value, error) { return l[laterPage](ctx, r.k) })
	default:
		return in.pages.Get(ctx, 2000+r.k, func(ctx context.Context, _ int) (value, error) { return l[tablePage](ctx, r.k) })
	}
}

// laterLoader loads the database's version, or an earlier one of a replica.
func (h *history) laterLoader(in *instance) core.Loader[int, value] {
	return func(ctx context.Context, k int) (value, error) {
		rng, r := h.rand(), h.later[k]
		s := loadscope.From(ctx)
		s.AddTags([]string{naming.Tag(groupTag(k))})
		if err := h.work(ctx, rng); err != nil {
			return value{}, err
		}
		at := h.now()
		if h.class.ReplicaLag > 0 {
			at -= between(rng, 0, h.class.ReplicaLag-ms)
		}
		v := r.table.read(at)
		r.note(h.now(), in.id, "load reads version", v)
		if old, _, ok := core.StaleValue[value](ctx); ok && old.version == v && rng.IntN(2) == 0 {
			return value{}, core.ErrNotModified
		}
		if err := h.work(ctx, rng); err != nil {
			return value{}, err
		}
		if rng.IntN(100) == 0 {
			return value{}, errDatabase
		}
		r.note(h.now(), in.id, "load returns version", v)
		if absent(v) {
			return value{}, core.ErrNotFound
		}
		return value{v, h.pad}, nil
	}
}

// behindTotals counts the events of queues.
type behindTotals struct {
	excused, kept, queued, notQueued, applied, twice, refusedOld, flushed, nested atomic.Int64
}
