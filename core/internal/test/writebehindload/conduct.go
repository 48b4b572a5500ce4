package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/larderhq/larder/core/internal/test/redisserver"
)

// run is one run.
type run struct {
	cfg     config
	out     io.Writer
	db      *database
	servers []*redisserver.Server // the servers that are killed and restarted
	order   order
}

// tally counts the outcome of the changes under faults.
type tally struct {
	killed, restarted       int // processes, Redis
	lost, outOfOrder        int // must be 0
	applied, twice, batches int
	refused                 int64 // puts refused and repeated
}

func conduct(ctx context.Context, cfg config, out io.Writer) (t tally, err error) {
	ctx, cancel := context.WithTimeout(ctx, cfg.limit)
	defer cancel()
	r := &run{cfg: cfg, out: out}
	if r.db, err = openDatabase(); err != nil {
		return t, err
	}
	defer r.db.Close()
	// The usual setting: an acknowledged write survives the process, and after a second the machine.
	o := redisserver.Options{AppendOnly: true, Args: []string{"--appendfsync", "everysec"}}
	r.order = order{Database: r.db.addr, Cluster: cfg.cluster}
	if cfg.cluster {
		c, err := redisserver.StartCluster(ctx, 3, 0, o)
		if err != nil {
			return t, err
		}
		defer c.Close()
		r.servers, r.order.Redis = c.Nodes(), c.Addrs()
	} else {
		s, err := redisserver.Start(ctx, o)
		if err != nil {
			return t, err
		}
		defer s.Close()
		r.servers, r.order.Redis = []*redisserver.Server{s}, []string{s.Addr()}
	}
	if cfg.plain > 0 {
		if err := r.compare(ctx); err != nil {
			return t, err
		}
	}
	return r.underFaults(ctx)
}

// applier is one worker process.
type applier struct {
	cmd   *exec.Cmd
	stdin io.Closer
}

func (r *run) start(o order) (*applier, error) {
	say, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childEnv+"="+string(say))
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	return &applier{cmd, stdin}, cmd.Start()
}

func (a *applier) kill() {
	_ = a.cmd.Process.Kill()
	_ = a.cmd.Wait()
}

// end ends it gracefully.
func (a *applier) end() {
	_ = a.stdin.Close()
	_ = a.cmd.Wait()
}

// nameOf returns the name of the process at a place.
func nameOf(place int) string { return fmt.Sprint("p", place) }

func (r *run) startAll(plain bool) (list []*applier, err error) {
	for i := range r.cfg.processes {
		o := r.order
		o.Name, o.Plain = nameOf(i), plain
		a, err := r.start(o)
		if err != nil {
			for _, a := range list {
				a.kill()
			}
			return nil, err
		}
		list = append(list, a)
	}
	return list, nil
}

// compare measures the rates of both in turn, and the CPU time of the servers, which depends
// less on other processes of the machine.
func (r *run) compare(ctx context.Context) error {
	n := r.cfg.plain
	for range 3 {
		p, plain, err := r.measured(ctx, r.plainRate)
		if err != nil {
			return err
		}
		o, ours, err := r.measured(ctx, r.rate)
		if err != nil {
			return err
		}
		fmt.Fprintf(r.out, "%d changes of as many ids: XADD/XREADGROUP/XACK %.0f/s, write-behind %.0f/s, ratio %.2f\n", n, p, o, o/p)
		fmt.Fprintf(r.out, "  CPU of Redis per change: XADD/XREADGROUP/XACK %.1fµs, write-behind %.1fµs\n", plain, ours)
	}
	return nil
}

// measured returns the rate of a run, and the CPU time of the servers per change in
// microseconds.
func (r *run) measured(ctx context.Context, run func(context.Context, int) (float64, error)) (rate, perChange float64, err error) {
	before, err := r.serversCPU(ctx)
	if err != nil {
		return 0, 0, err
	}
	if rate, err = run(ctx, r.cfg.plain); err != nil {
		return 0, 0, err
	}
	after, err := r.serversCPU(ctx)
	return rate, 1e6 * (after - before) / float64(r.cfg.plain), err
}

// serversCPU returns the CPU time of all servers, in seconds.
func (r *run) serversCPU(ctx context.Context) (seconds float64, err error) {
	for _, addr := range r.order.Redis {
		client := redis.NewClient(&redis.Options{Addr: addr})
		info, err := client.InfoMap(ctx, "cpu").Result()
		_ = client.Close()
		if err != nil {
			return 0, err
		}
		for _, field := range []string{"used_cpu_sys", "used_cpu_user"} {
			v, err := strconv.ParseFloat(info["CPU"][field], 64)
			if err != nil {
				return 0, fmt.Errorf("INFO cpu of %s: %s: %w", addr, field, err)
			}
			seconds += v
		}
	}
	return seconds, nil
}

// plainRate returns changes per second, until all are applied.
func (r *run) plainRate(ctx context.Context, n int) (float64, error) {
	r.db.reset()
	client := connect(r.order.Redis, r.order.Cluster)
	defer client.Close()
	client.Del(ctx, stream)
	if err := client.XGroupCreateMkStream(ctx, stream, group, "0").Err(); err != nil {
		return 0, err
	}
	defer client.Del(context.WithoutCancel(ctx), stream)
	appliers, err := r.startAll(true)
	if err != nil {
		return 0, err
	}
	defer func() {
		for _, a := range appliers {
			a.end()
		}
	}()
	begun := time.Now()
	err = r.write(ctx, n, n, func(ctx context.Context, id, value int64) error {
		data, err := json.Marshal(newDocument(value))
		if err != nil {
			return err
		}
		return client.XAdd(ctx, &redis.XAddArgs{Stream: stream, Values: []any{"id", id, "value", data}}).Err()
	}, nil)
	for err == nil {
		if applied, _, _, _ := r.db.tally(); applied >= n {
			break
		}
		err = pause(ctx)
	}
	return float64(n) / time.Since(begun).Seconds(), err
}

func pause(ctx context.Context) error {
	select {
	case <-time.After(5 * time.Millisecond):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *run) rate(ctx context.Context, n int) (float64, error) {
	r.db.reset()
	appliers, err := r.startAll(false)
	if err != nil {
		return 0, err
	}
	defer func() {
		for _, a := range appliers {
			a.end()
		}
	}()
	q, end, err := open(r.order, -1)
	if err != nil {
		return 0, err
	}
	defer func() { _ = end() }()
	begun := time.Now()
	if err := r.write(ctx, n, n, func(ctx context.Context, id, value int64) error { return q.Put(ctx, id, newDocument(value)) }, nil); err != nil {
		return 0, err
	}
	err = q.Flush(ctx)
	rate := float64(n) / time.Since(begun).Seconds()
	applied, _, _, batches := r.db.tally()
	if err == nil && applied < n {
		err = fmt.Errorf("%d of %d were applied", applied, n)
	}
	fmt.Fprintf(r.out, "  applied %d in %d batches\n", applied, batches)
	return rate, err
}

// write puts changes. Each writer puts those of its own ids, in order. acknowledged gets the
// last acknowledged value of each id.
func (r *run) write(ctx context.Context, changes, ids int, put func(ctx context.Context, id, value int64) error, acknowledged *[]int64) error {
	last := make([]int64, ids)
	var failed atomic.Pointer[error]
	var all sync.WaitGroup
	for w := range r.cfg.writers {
		all.Go(func() {
			for i := w; i < changes && failed.Load() == nil; i += r.cfg.writers {
				// The ids congruent to w, in turn, so that each id has one writer.
				id := int64((i/r.cfg.writers)%(ids/r.cfg.writers)*r.cfg.writers + w)
				last[id]++
				for {
					err := put(ctx, id, last[id])
					if err == nil {
						break
					}
					if ctx.Err() != nil || acknowledged == nil {
						failed.Store(&err)
						return
					}
				}
			}
		})
	}
	all.Wait()
	if acknowledged != nil {
		*acknowledged = last
	}
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// underFaults is the run with faults.
func (r *run) underFaults(ctx context.Context) (t tally, err error) {
	r.db.reset()
	appliers, err := r.startAll(false)
	if err != nil {
		return t, err
	}
	f := &faults{run: r, appliers: appliers, kills: make(chan death), restarts: make(chan struct{})}
	defer f.end()
	q, end, err := open(r.order, -1)
	if err != nil {
		return t, err
	}
	defer func() { _ = end() }()
	f.begin(ctx)
	begun := time.Now()
	var refused, queued atomic.Int64
	var last []int64
	err = r.write(ctx, r.cfg.changes, r.cfg.ids, func(ctx context.Context, id, value int64) error {
		err := q.Put(ctx, id, newDocument(value))
		if err != nil {
			refused.Add(1)
			return errors.Join(err, pause(ctx))
		}
		if queued.Add(1) == int64(r.cfg.restartAtChange) {
			select {
			case f.restarts <- struct{}{}:
			case <-ctx.Done():
			}
		}
		return nil
	}, &last)
	if err != nil {
		return t, err
	}
	written := time.Since(begun)
	if err := q.Flush(ctx); err != nil {
		return t, err
	}
	took := time.Since(begun)
	f.stop()
	t = tally{killed: f.killed, restarted: f.restarted, refused: refused.Load()}
	r.db.mu.Lock()
	for id, value := range last {
		if value != 0 && r.db.rows[int64(id)] != value {
			t.lost++
		}
	}
	r.db.mu.Unlock()
	t.applied, t.twice, t.outOfOrder, t.batches = r.db.tally()
	fmt.Fprintf(r.out, "%d changes of %d ids: queued in %v, applied in %v (%.0f/s)\n",
		r.cfg.changes, r.cfg.ids, written.Round(time.Millisecond), took.Round(time.Millisecond), float64(r.cfg.changes)/took.Seconds())
	fmt.Fprintf(r.out, "processes killed %d, Redis killed and restarted %d, puts refused and repeated %d\n", t.killed, t.restarted, t.refused)
	fmt.Fprintf(r.out, "applied %d in %d batches; lost %d, out of order %d, applied twice %d\n", t.applied, t.batches, t.lost, t.outOfOrder, t.twice)
	if t.lost > 0 || t.outOfOrder > 0 {
		return t, fmt.Errorf("lost %d, out of order %d", t.lost, t.outOfOrder)
	}
	return t, nil
}
