package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/larderhq/larder/core/internal/test/redisserver"
)

// faults kills processes and Redis, one at a time, and restarts them.
type faults struct {
	*run
	appliers []*applier

	kills     chan death
	restarts  chan struct{} // of Redis
	cancel    context.CancelFunc
	conductor sync.WaitGroup

	killed, restarted int
}

// death is a request to kill the process at a place.
type death struct {
	place int
	done  chan struct{}
}

// begin causes the configured faults until stop.
func (f *faults) begin(ctx context.Context) {
	ctx, f.cancel = context.WithCancel(ctx)
	if f.cfg.killAtBatch > 0 {
		f.db.onBatch(f.cfg.killAtBatch, func(process string) {
			for place := range f.cfg.processes {
				if process != nameOf(place) {
					continue
				}
				d := death{place, make(chan struct{})}
				select {
				case f.kills <- d:
					<-d.done
				case <-ctx.Done():
				}
			}
		})
	}
	f.conductor.Go(func() {
		kill, endKill := every(f.cfg.kill)
		defer endKill()
		restart, endRestart := every(f.cfg.restart)
		defer endRestart()
		for {
			select {
			case <-ctx.Done():
				return
			case <-kill:
				f.kill(f.killed % len(f.appliers))
			case d := <-f.kills:
				f.kill(d.place)
				close(d.done)
			case <-restart:
				f.restart(ctx)
			case <-f.restarts:
				f.restart(ctx)
			}
		}
	})
}

func every(d time.Duration) (<-chan time.Time, func()) {
	if d == 0 {
		return nil, func() {}
	}
	t := time.NewTicker(d)
	return t.C, t.Stop
}

// kill kills a process and starts its successor.
func (f *faults) kill(place int) {
	f.killed++
	f.appliers[place].kill()
	o := f.order
	o.Name = nameOf(place)
	if a, err := f.start(o); err == nil {
		f.appliers[place] = a
	} else {
		fmt.Fprintln(f.out, "start:", err)
	}
}

// restart kills Redis, or one node of a cluster, and starts it with its data on the disk.
func (f *faults) restart(ctx context.Context) {
	s := f.servers[f.restarted%len(f.servers)]
	f.restarted++
	s.Kill()
	if err := s.Restart(ctx, redisserver.AsItWas); err != nil && ctx.Err() == nil {
		fmt.Fprintln(f.out, "restart:", err)
	}
}

// stop ends the faults. The processes keep running.
func (f *faults) stop() {
	if f.cancel != nil {
		f.cancel()
	}
	f.conductor.Wait()
}

// end ends all processes and servers.
func (f *faults) end() {
	f.stop()
	for _, a := range f.appliers {
		a.kill()
	}
}
