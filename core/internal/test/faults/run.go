package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/test/redisserver"
)

// config holds the values of the flags.
type config struct {
	// untimed prints how long requests took without a verdict: tests share their
	// machine with other programs.
	untimed          bool
	mode             string
	duration         time.Duration
	cluster          bool
	seed             uint64
	readers, writers int
	ids              int
	requests         int           // of a herd
	budget           time.Duration // of a request, for Redis; 0: the default of the mode
	freeze           time.Duration // of mode stop
	faults           []string      // names of the faults to run; empty: all
	verbose          bool
	out              io.Writer
}

// remoteBudget is Larder's default.
const remoteBudget = 50 * time.Millisecond

// errBroken is the error of a run in which a promise was broken.
var errBroken = errors.New("a promise was broken")

// run is the conductor's state of one run.
type run struct {
	cfg     config
	rng     *rand.Rand // of the schedule
	dir     string     // of the processes' logs
	redis   *redisserver.Server
	cluster *redisserver.Cluster
	proxy   *redisserver.Proxy // in front of Redis for one process; nil in a cluster
	origin  *origin
	fleet   *fleet
	history *history
	timing  *timing

	unconfirmed unconfirmed
	commits     chan commit // of writers that are to be killed
	failures    atomic.Int64

	mu     sync.Mutex
	failed []string // the first ones, described
	deaths []int64
	tally  []*tally
	stats  []core.Stats // of the processes that ran at the end
}

// canary returns the row that no writer changes.
func (c config) canary() int { return c.ids/4*4 + 6 } // even and not divisible by four: it has a long TTL and no late tags

// newRun starts everything.
func newRun(ctx context.Context, cfg config) (r *run, err error) {
	if cfg.budget == 0 {
		cfg.budget = remoteBudget
		if cfg.mode == modeHerd {
			cfg.budget = herdBudget
		}
	}
	r = &run{cfg: cfg, rng: rand.New(rand.NewPCG(cfg.seed, 0)), commits: make(chan commit, 16)}
	r.timing = &timing{allowance: 2 * cfg.budget}
	defer func() {
		if err != nil {
			r.close(true)
		}
	}()
	if r.dir, err = os.MkdirTemp("", "larder-faults-"); err != nil {
		return r, err
	}
	rows := cfg.canary() + 1
	r.history = newHistory(rows)
	if r.origin, err = newOrigin(rows); err != nil {
		return r, err
	}
	r.origin.watch = func(c commit) {
		select {
		case r.commits <- c:
		default:
		}
	}
	addrs, err := r.startRedis(ctx)
	if err != nil {
		return r, err
	}
	var orders []order
	for place, adapter := range adapters() {
		o := order{Process: place, Adapter: adapter, Redis: addrs, Cluster: cfg.cluster, Origin: r.origin.addr(), Budget: cfg.budget, Delta: maxStaleness}
		if cfg.mode == modeHerd {
			o.Delta = herdStaleness
		}
		if place%2 == 1 {
			o.MaxBytes = 128 << 10 // too little for all rows, so that these processes read from Redis as well
		}
		if r.proxy != nil && place == r.proxied() {
			o.Redis = []string{r.proxy.Addr()}
		}
		orders = append(orders, o)
	}
	if cfg.mode != modeHerd {
		r.origin.serve()
	}
	r.fleet, err = newFleet(ctx, r.dir, rows, orders)
	return r, err
}

// proxied is the place of the process behind the proxy.
func (r *run) proxied() int { return int(r.cfg.seed % uint64(len(adapters()))) }

func (r *run) startRedis(ctx context.Context) (addrs []string, err error) {
	if r.cfg.cluster {
		if r.cluster, err = redisserver.StartCluster(ctx, 3, 1, redisserver.Options{
			// By default Redis stops the whole cluster while a shard is down.
			Args: []string{"--cluster-require-full-coverage", "no"},
		}); err != nil {
			return nil, err
		}
		return r.cluster.Addrs(), nil
	}
	if r.redis, err = redisserver.Start(ctx, redisserver.Options{}); err != nil {
		return nil, err
	}
	if r.proxy, err = redisserver.StartProxy(r.redis.Addr()); err != nil {
		return nil, err
	}
	return []string{r.redis.Addr()}, nil
}

// close ends all processes and servers. The logs stay if the run has failed.
func (r *run) close(clean bool) {
	if r.fleet != nil {
		r.fleet.close()
	}
	if r.origin != nil {
		r.origin.close()
	}
	if r.proxy != nil {
		_ = r.proxy.Close()
	}
	if r.redis != nil {
		_ = r.redis.Close()
	}
	if r.cluster != nil {
		_ = r.cluster.Close()
	}
	if clean && r.dir != "" {
		_ = os.RemoveAll(r.dir)
	}
}

// fail records a request that should not have failed.
func (r *run) fail(what string) {
	if r.failures.Add(1) > 20 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = append(r.failed, what)
}

func (r *run) say(format string, args ...any) {
	if r.cfg.verbose {
		fmt.Fprintf(r.cfg.out, "%8v  %s\n", time.Duration(r.history.now()).Round(time.Millisecond), fmt.Sprintf(format, args...))
	}
}

// underLoad runs fn under the load of the readers and writers.
func (r *run) underLoad(ctx context.Context, fn func(context.Context) error) error {
	loads, stop := context.WithCancel(ctx)
	var writing, all sync.WaitGroup
	for range r.cfg.readers {
		all.Go(func() { r.reader(loads) })
	}
	writes, stopWrites := context.WithCancel(loads)
	for range r.cfg.writers {
		writing.Go(func() { r.writer(writes) })
	}
	for place := range r.fleet.places {
		all.Go(func() { r.controller(loads, place) })
		all.Go(func() { r.confirmer(loads, place) })
	}
	err := fn(ctx)
	stopWrites()
	writing.Wait()
	if err == nil {
		err = r.settle(ctx)
	}
	stop()
	all.Wait()
	return err
}

// settleWithin is the time within which nothing is pending after the last fault.
const settleWithin = 10 * time.Second

// settle waits under reads until nothing is pending and all promises are due. It then reads every row on every process.
func (r *run) settle(ctx context.Context) error {
	cs := r.fleet.clients()
	defer cs.close()
	for place := range r.fleet.places {
		for begun := time.Now(); ; time.Sleep(20 * time.Millisecond) {
			res, err := cs.to(place).do(http.MethodGet, "/pending/", 0, "")
			if err == nil && res.version == 0 {
				break
			}
			if time.Since(begun) > settleWithin || ctx.Err() != nil {
				r.fail(fmt.Sprintf("%d invalidations are pending on %s at the end (%v)", res.version, r.fleet.at(place).name, err))
				break
			}
		}
	}
	time.Sleep(maxStaleness + 50*time.Millisecond)
	ends := time.Now().Add(settleWithin)
	var reading sync.WaitGroup
	for place := range r.fleet.places {
		for first := range 4 {
			reading.Go(func() {
				c := &client{p: r.fleet.at(place)}
				defer c.close()
				for row := first; row < r.cfg.ids && time.Now().Before(ends); row += 4 {
					r.read(c, row, "")
				}
			})
		}
	}
	reading.Wait()
	for place := range r.fleet.places {
		if r.fleet.at(place).died() {
			r.fail(fmt.Sprintf("%s has ended by itself: %s", r.fleet.at(place).name, r.fleet.logTail(place)))
		}
		s, err := stats(cs.to(place))
		if err != nil {
			r.fail(err.Error())
		}
		r.stats = append(r.stats, s)
	}
	return ctx.Err()
}

// stats requests the counters of a process's cache.
func stats(c *client) (s core.Stats, err error) {
	res, err := c.do(http.MethodGet, "/stats/", 0, "")
	if err == nil {
		err = json.Unmarshal(res.body, &s)
	}
	if err != nil {
		return s, fmt.Errorf("GET /stats on %s: %w", c.p.name, err)
	}
	return s, nil
}

// hitsWithin is the time within which hits must return.
const hitsWithin = 10 * time.Second

// hitsBack waits until the canary is a hit on every process.
func (r *run) hitsBack(ctx context.Context) (time.Duration, error) {
	begun := time.Now()
	var missing []string
	cs := r.fleet.clients()
	defer cs.close()
	back := make([]bool, len(r.fleet.places))
	for ; time.Since(begun) < hitsWithin; time.Sleep(2 * time.Millisecond) {
		missing = missing[:0]
		for place := range back {
			if back[place] {
				continue
			}
			res, ok := r.read(cs.to(place), r.cfg.canary(), "")
			if back[place] = ok && res.hit; !back[place] {
				missing = append(missing, r.fleet.at(place).name)
			}
		}
		if len(missing) == 0 {
			return time.Since(begun), nil
		}
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
	}
	return hitsWithin, fmt.Errorf("no hits after %v on %s", hitsWithin, strings.Join(missing, ", "))
}
