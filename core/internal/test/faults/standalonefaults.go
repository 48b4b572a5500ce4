package main

import (
	"context"
	"errors"
	"time"

	"github.com/larderhq/larder/core/internal/test/redisserver"
)

// standaloneFaults returns the faults of a single server and of the network to it.
func standaloneFaults() []fault {
	return []fault{
		{"stopped and continued", func(ctx context.Context, r *run) error {
			return r.freeze(ctx, r.redis, r.between(200*time.Millisecond, 5*time.Second))
		}},
		{"killed and restarted empty", func(ctx context.Context, r *run) error {
			r.redis.Kill()
			r.sleep(ctx, r.downtime())
			return r.redis.Restart(ctx, redisserver.Empty)
		}},
		{"killed and restarted from an old snapshot", func(ctx context.Context, r *run) error {
			if err := r.redis.Snapshot(ctx); err != nil {
				return err
			}
			r.sleep(ctx, r.between(100*time.Millisecond, 3*time.Second)) // the snapshot gets old
			answers := r.history.losing()
			defer answers()
			r.redis.Kill()
			r.sleep(ctx, r.downtime())
			return r.redis.Restart(ctx, redisserver.Snapshot)
		}},
		{"network to a process held", func(ctx context.Context, r *run) error {
			r.proxy.Hold(true)
			r.sleep(ctx, r.between(100*time.Millisecond, 4*time.Second))
			r.proxy.Hold(false)
			return ctx.Err()
		}},
		{"network to a process slow", func(ctx context.Context, r *run) error {
			r.proxy.Delay(r.between(5*time.Millisecond, 100*time.Millisecond))
			r.sleep(ctx, r.between(500*time.Millisecond, 2*time.Second))
			r.proxy.Delay(0)
			return ctx.Err()
		}},
		{"network to a process cut", func(ctx context.Context, r *run) error {
			err := r.proxy.Refuse(true)
			r.proxy.Cut()
			r.sleep(ctx, r.between(100*time.Millisecond, 3*time.Second))
			return errors.Join(err, r.proxy.Refuse(false))
		}},
	}
}

// freeze stops a server and continues it, also if ctx ends in between.
func (r *run) freeze(ctx context.Context, s *redisserver.Server, d time.Duration) error {
	if err := s.Stop(); err != nil {
		return err
	}
	r.sleep(ctx, d)
	return s.Continue()
}

// downtime returns how long a server stays dead: often no longer than a restart takes.
func (r *run) downtime() time.Duration {
	if r.rng.IntN(2) == 0 {
		return 0
	}
	return r.between(0, 2*time.Second)
}
