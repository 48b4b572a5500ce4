package simulate_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/loadscope"
	"github.com/larderhq/larder/core/internal/naming"
	"github.com/larderhq/larder/core/internal/test/memtier"
	"github.com/larderhq/larder/core/internal/tier"
)

// config holds the parameters of a history.
type config struct {
	seed    uint64
	profile string
	ops     int64
	broken  string // a rule of the tier's that is taken out
	trace   bool
	queues  bool // it has queues in any case
}

// history is one bubble.
type history struct {
	config
	fault  *profile
	server *memtier.Server
	begun  time.Time
	rows   []*row // all judged rows
	plain  []*row
	later  []*row
	behind behind
	class  core.Class
	pad    int           // bytes of a value
	grace  time.Duration // added to every debt for a lagging replica
	write_ time.Duration // WriteTimeout
	budget time.Duration
	limit  int64 // MaxBytes
	parts  int
	pace   time.Duration
	lulls  bool // an instance has no reader for some time, now and then
	vers   int  // number of versions deployed

	mu        sync.Mutex
	instances []*instance // including dead ones

	actors  sync.WaitGroup
	over    atomic.Bool
	ended   chan struct{}
	epoch   atomic.Int64 // of failovers
	trouble atomic.Int64 // the last time at which the tier did not answer an instance
	losses  atomic.Int64 // counts events that may have lost queued changes
	blind   atomic.Int64 // counts events that may have lost intents
	draws   atomic.Uint64
	left    atomic.Int64 // operations
	failure atomic.Pointer[string]

	concerned concerned

	totals totals
	traces tracer
}

// instance is one process.
type instance struct {
	id      int
	cache   *core.Cache
	m       *core.Map[int, value]
	later   *core.Map[int, value]
	pages   *core.Map[int, value]
	queue   *core.WriteBehind[int, value]
	tier    *memtier.Tier
	line    line
	delta   time.Duration
	due     time.Duration // after which it owes invalidations of others
	dead    atomic.Bool
	trouble atomic.Int64 // the last time at which the tier did not answer it
	lull    atomic.Int64 // until when it has no reader
	quiet   atomic.Bool  // and no writer
	workers sync.WaitGroup
	buried  atomic.Bool
	gone    chan struct{} // closed when it has been buried

	// Guarded by the lock of the row.
	need []int64 // the versions that it owes now
	why  []int   // the index of the debt
	upTo []int   // debts before it are counted in need
}

func (h *history) now() time.Duration { return time.Since(h.begun) }

func (h *history) done() bool { return h.over.Load() }

func (h *history) stop() {
	if !h.over.Swap(true) {
		close(h.ended)
	}
}

// rand returns a new source for one goroutine.
func (h *history) rand() *rand.Rand { return rand.New(rand.NewPCG(h.seed, h.draws.Add(1))) }

// sleep returns false if the history is over.
func (h *history) sleep(d time.Duration) bool {
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
		case <-h.ended:
		}
	}
	return !h.done()
}

func between(rng *rand.Rand, lo, hi time.Duration) time.Duration {
	return lo + time.Duration(rng.Int64N(int64(hi-lo)+1))
}

func oneOf[T any](rng *rand.Rand, list ...T) T { return list[rng.IntN(len(list))] }

// run runs a history in a bubble of t and returns its totals.
func run(t *testing.T, c config) (h *history) {
	synctest.Test(t, func(t *testing.T) {
		h = newHistory(c)
		h.play()
	})
	return h
}

func newHistory(c config) *history {
	h := &history{config: c, begun: time.Now(), ended: make(chan struct{})}
	rng := h.rand()
	h.fault = profiles[c.profile]
	h.server = memtier.New(memtier.Config{
		Rand: h.rand(), LogItems: oneOf(rng, 4, 16, 64), GenerationLife: oneOf(rng, 0, 0, 5*time.Second),
	})
	h.behind = drawBehind(rng, h.fault, c.queues)
	h.addRows(12 + 12*rng.IntN(2))
	h.class = core.Class{
		TTL:                  oneOf(rng, 500*time.Millisecond, 5*time.Second, time.Minute, time.Hour, time.Hour),
		StaleWhileRevalidate: oneOf(rng, 0, 0, time.Second, time.Minute),
		StaleIfError:         oneOf(rng, 0, 0, 2*time.Second, time.Minute),
		NegativeTTL:          oneOf(rng, 0, time.Second, time.Hour),
		LoadTimeout:          oneOf(rng, time.Second, 3*time.Second, 5*time.Second),
		Jitter:               oneOf(rng, 0, 0.3),
	}
	if h.fault.replica && rng.IntN(3) == 0 {
		h.class.ReplicaLag = oneOf(rng, 100*time.Millisecond, time.Second)
		h.grace = h.class.ReplicaLag + h.class.LoadTimeout + 10*time.Millisecond
	}
	h.pad, h.limit = 8, 1<<20
	if rng.IntN(4) == 0 { // the in-process tier evicts
		h.pad, h.limit = 6<<10, 64<<10
	}
	h.write_ = between(rng, 200*time.Millisecond, 3*time.Second)
	h.budget = between(rng, 20*time.Millisecond, 100*time.Millisecond)
	h.parts = oneOf(rng, 1, 2, 3, 4, 4, 5, 16)
	h.pace = oneOf(rng, 5*time.Millisecond, 50*time.Millisecond, 200*time.Millisecond)
	h.vers = 1 + rng.IntN(4)/3
	h.lulls = rng.IntN(3) == 0
	if h.fault.skewed {
		for p := range tier.MaxPartitions {
			h.server.Skew(between(rng, -time.Hour, time.Hour), p)
		}
	}
	h.server.SetFaults(h.fault.network(rng))
	h.left.Store(c.ops)
	return h
}

func (h *history) play() {
	defer h.server.Close()
	rng := h.rand()
	for range 2 + rng.IntN(4) {
		h.start(rng)
	}
	h.actors.Add(1)
	go func() {
		defer h.actors.Done()
		h.disturb(h.rand())
	}()
	<-h.ended
	h.actors.Wait()
	h.drain()
	for _, in := range h.instances {
		in.bury(h)
	}
	h.totals.Virtual += h.now()
	h.totals.tier(h.server.Stats())
}

// open starts a process that only applies queued changes.
func (h *history) open(rng *rand.Rand, workers int) *instance {
	h.mu.Lock()
	id := len(h.instances)
	h.mu.Unlock()
	in := &instance{gone: make(chan struct{}),
		id: id, delta: between(rng, 100*time.Millisecond, time.Second),
		need: make([]int64, len(h.rows)), why: make([]int, len(h.rows)), upTo: make([]int, len(h.rows)),
	}
	in.due = in.delta
	if h.fault.punctual {
		in.due = 1
	}
	in.line.proofs.delta, in.line.proofs.writeTimeout = in.delta, h.write_
	in.line.concerns = func(items ...tier.Item) func() {
		h.concerned.begin(items)
		return func() { h.concerned.end(h.now(), items) }
	}
	in.line.slow, in.line.failed = h.budget/6, func() { h.failed(in) }
	h.failed(in) // it has not been reached yet
	in.tier = h.server.Tier(fmt.Sprint("instance ", id))
	var err error
	in.cache, err = core.New(core.Options{
		Remote:       h.wrap(in),
		MaxStaleness: in.delta, RemoteBudget: h.budget, WriteTimeout: h.write_, MaxBytes: h.limit,
		Version: fmt.Sprint("v", rng.IntN(h.vers)),
		Classes: core.Classes{"row": h.class},
		Logger:  slog.New(slog.DiscardHandler),
	})
	if err != nil {
		panic(err)
	}
	o := core.MapOptions[int, value]{Class: "row", Prefix: "row", Codec: codec{}}
	if h.seed%2 == 0 {
		o.Version = func(v value) int64 { return resolved(v.version) }
	}
	in.m, err = core.NewMap(in.cache, o)
	if err != nil {
		panic(err)
	}
	h.queue(in, h.rand(), workers)
	h.mu.Lock()
	h.instances = append(h.instances, in)
	h.mu.Unlock()
	return in
}

// start starts a process with its readers and writers.
func (h *history) start(rng *rand.Rand) {
	in := h.open(rng, oneOf(rng, -1, 1, 2, 3))
	for range 2 + rng.IntN(3) {
		in.workers.Add(1)
		go func() {
			defer in.workers.Done()
			h.readLoop(in, h.rand())
		}()
	}
	for range 1 + rng.IntN(2) {
		in.workers.Add(1)
		go func() {
			defer in.workers.Done()
			h.writeLoop(in, h.rand())
		}()
	}
	if h.behind.on {
		in.workers.Add(1)
		go func() {
			defer in.workers.Done()
			h.queueLoop(in, h.rand())
		}()
	}
}

// kill kills a process.
func (h *history) kill(in *instance) {
	if !in.dead.Swap(true) {
		in.tier.Kill()
		h.noteAll(in.id, "dies")
		h.totals.count("crash")
		go in.bury(h)
	}
}

// bury releases the resources of a process when its goroutines have ended.
func (in *instance) bury(h *history) {
	in.workers.Wait()
	// Not a sync.Once: a goroutine that waits for its lock stops the bubble's time.
	if !in.buried.Swap(true) {
		h.totals.add(in.cache.Stats())
		_ = in.cache.Close() // loads under way end with it
		close(in.gone)
	}
	<-in.gone
}

func (h *history) alive() (list []*instance) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, in := range h.instances {
		if !in.dead.Load() {
			list = append(list, in)
		}
	}
	return list
}

func (h *history) noteAll(who int, what string) {
	at := h.now()
	for _, r := range h.rows {
		r.note(at, who, what, -1)
	}
}

// pick returns a random row, half of the time one of a few hot rows.
func (h *history) pick(rng *rand.Rand) int {
	if rng.IntN(2) == 0 {
		return rng.IntN(4)
	}
	return rng.IntN(len(h.plain))
}

// pickRead returns a row that may be one of a queue, or a page.
func (h *history) pickRead(rng *rand.Rand) int {
	seldom := 16
	if h.behind.on {
		seldom = 4
	}
	if rng.IntN(seldom) > 0 {
		return h.pick(rng)
	}
	return len(h.plain) + rng.IntN(len(h.rows)-len(h.plain))
}

// operation counts one.
func (h *history) operation() {
	if h.left.Add(-1) <= 0 {
		h.stop()
	}
}

func (h *history) readLoop(in *instance, rng *rand.Rand) {
	load := h.loaders(in)
	for !h.done() && !in.dead.Load() {
		k := h.pickRead(rng)
		for range 1 + rng.IntN(32) {
			h.read(in, k, rng, load)
			h.operation()
			if rng.IntN(10) == 0 {
				h.warm(in, rng, load)
			}
			if h.done() || in.dead.Load() {
				return
			}
			if rng.IntN(3) == 0 {
				k = h.pickRead(rng)
			}
		}
		h.sleep(between(rng, 0, h.pace))
		h.rest(in, rng)
	}
}

// rest keeps a reader from an instance that has no requests for some time, so that its watchdog
// rests. Some of these instances go on writing.
func (h *history) rest(in *instance, rng *rand.Rand) {
	if h.lulls && rng.IntN(100) == 0 && in.lull.Load() < int64(h.now()) {
		in.quiet.Store(rng.IntN(2) == 0)
		in.lull.Store(int64(h.now() + between(rng, 3*time.Second, 30*time.Second)))
		h.totals.count("lull")
	}
	h.sleep(time.Duration(in.lull.Load()) - h.now())
}

// quiet keeps a writer from an instance that rests.
func (h *history) quiet(in *instance) {
	if in.quiet.Load() {
		h.sleep(time.Duration(in.lull.Load()) - h.now())
	}
}

// owed returns the least version that an instance may answer of a row from now on.
func (h *history) owed(in *instance, k int, now time.Duration) (need int64, epoch int64) {
	r := h.rows[k]
	r.mu.Lock()
	defer r.mu.Unlock()
	i := in.upTo[k]
	for ; i < len(r.owed) && r.owed[i].to+in.due <= now; i++ {
		if d := &r.owed[i]; !d.void && !d.only && d.version > in.need[k] {
			in.need[k], in.why[k] = d.version, i
		}
	}
	in.upTo[k] = i
	return in.need[k], h.epoch.Load() + h.losses.Load()
}

func (h *history) read(in *instance, k int, rng *rand.Rand, load *loaders) {
	r := h.rows[k]
	ctx, cancel := context.Background(), context.CancelFunc(func() {})
	if rng.IntN(60) == 0 {
		ctx, cancel = context.WithTimeout(ctx, between(rng, 0, 50*time.Millisecond))
	}
	defer cancel()
	begun := h.now()
	need, epoch := h.owed(in, k, begun)
	newest := r.latest()
	v, err := in.get(ctx, r, load)
	n := &h.totals
	n.reads.Add(1)
	took := h.now() - begun
	if max := n.longestGet.Load(); int64(took) > max {
		n.longestGet.Store(int64(took))
	}
	switch {
	case in.dead.Load():
		return
	case h.epoch.Load()+h.losses.Load() != epoch:
		n.unjudged.Add(1)
		return
	case err == nil && v.version < need,
		errors.Is(err, core.ErrNotFound) && !anyAbsent(need, r.latest()):
		if r.kind >= later && h.excused(in, r, begun, v, err) {
			n.excused.Add(1)
		} else {
			h.stale(in, k, begun, need, v, err)
		}
	case err == nil && v.version > r.latest():
		h.fail(fmt.Sprintf("%v: version %d was never committed", r, v.version))
	case err == nil && v.version < newest:
		r.of.mu.Lock()
		if d := begun - r.of.committed[v.version]; int64(d) > n.stalest.Load() {
			n.stalest.Store(int64(d))
		}
		r.of.mu.Unlock()
	case err != nil && !errors.Is(err, core.ErrNotFound):
		n.failedReads.Add(1)
	case r.kind == later && h.owes(in, r, begun):
		n.kept.Add(1)
	}
	if took > 4*h.class.LoadTimeout+time.Second {
		h.fail(fmt.Sprintf("SLOW: a read of %v on instance %d, begun at %v, took %v although LoadTimeout is %v", r, in.id, begun, took, h.class.LoadTimeout))
	}
}

func (h *history) fail(s string) {
	s = fmt.Sprintf("%s\nseed %d, profile %s, %d partitions, class %+v, WriteTimeout %v, budget %v", s, h.seed, h.profile, h.parts, h.class, h.write_, h.budget)
	h.failure.CompareAndSwap(nil, &s)
	h.stop()
}

func (h *history) stale(in *instance, k int, begun time.Duration, need int64, v value, err error) {
	r := h.rows[k]
	answer := fmt.Sprint("version ", v.version)
	if err != nil {
		answer = err.Error()
	}
	r.mu.Lock()
	d := r.owed[in.why[k]]
	r.mu.Unlock()
	h.fail(fmt.Sprintf(
		"STALE: a read of %v on instance %d (MaxStaleness %v), begun at %v, ended at %v, answered %s; version %d had been announced by %s; now %d is committed\n%s",
		r, in.id, in.delta, begun, h.now(), answer, need, &d, r.latest(), r.of.timeline(h.traces.of(k))))
}

// loader returns the loader of an instance.
func (h *history) loader(in *instance) core.Loader[int, value] {
	return func(ctx context.Context, k int) (value, error) {
		rng := h.rand()
		r := h.rows[k]
		r.note(h.now(), in.id, "load begins", -1)
		s := loadscope.From(ctx)
		if rng.IntN(3) == 0 {
			// The validator is too coarse: a renewed value is only as new as announced.
			if err := h.work(ctx, rng); err != nil {
				return value{}, err
			}
			if old, _, ok := core.StaleValue[value](ctx); ok {
				r.note(h.now(), in.id, "load is offered version", resolved(old.version))
				h.totals.renewals.Add(1)
				if err := h.work(ctx, rng); err != nil {
					return value{}, err
				}
				return value{}, core.ErrNotModified
			}
		}
		s.AddTags([]string{naming.Path(rowPath(k))})
		if isPaged(k) {
			s.AddTags([]string{naming.Tag(pageKey(k))})
		}
		early := rng.IntN(2) == 0
		if early {
			s.AddTags([]string{naming.Tag(groupTag(k))})
		}
		if err := h.work(ctx, rng); err != nil {
			return value{}, err
		}
		v := r.version.Load()
		if h.class.ReplicaLag > 0 {
			v = r.as(h.now() - between(rng, 0, h.class.ReplicaLag-time.Millisecond))
		}
		r.note(h.now(), in.id, "load reads version", v)
		if err := h.work(ctx, rng); err != nil {
			return value{}, err
		}
		if !early {
			s.AddTags([]string{naming.Tag(groupTag(k))})
		}
		switch rng.IntN(120) {
		case 0, 1:
			return value{}, errDatabase
		case 2:
			return value{}, context.Canceled
		case 3:
			panic(errDatabase)
		case 4:
			s.SetNoStore()
		case 5:
			s.SetTTL(20 * time.Millisecond)
		}
		if rng.IntN(2) == 0 {
			s.SetValidator("any") // it is kept for longer, to be validated
		}
		r.note(h.now(), in.id, "load returns version", v)
		if absent(v) {
			return value{}, core.ErrNotFound
		}
		return value{v, h.pad}, nil
	}
}

// work is one part of a load. Few parts are long; some outlast a lease.
func (h *history) work(ctx context.Context, rng *rand.Rand) error {
	var d time.Duration
	switch n := rng.IntN(1000); {
	case n < 500:
		return nil
	case n < 800:
		d = between(rng, 1, 5*time.Millisecond)
	case n < 950:
		d = between(rng, 1, 80*time.Millisecond)
	case n < 994:
		d = between(rng, 1, time.Second)
	default:
		d = between(rng, time.Second, 3*time.Second)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
