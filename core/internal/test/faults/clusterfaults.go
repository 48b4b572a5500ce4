package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/larderhq/larder/core/internal/test/redisserver"
)

// clusterFaults returns the faults of a cluster's nodes and slots.
func clusterFaults() []fault {
	return []fault{
		{"graceful failover", func(ctx context.Context, r *run) error {
			slot, err := r.slot(ctx)
			if err != nil {
				return err
			}
			_, err = r.cluster.Failover(ctx, slot)
			return err
		}},
		{"master killed and replica promoted", killMaster},
		{"slot migrated", migrate},
		{"shard stopped", func(ctx context.Context, r *run) error {
			m, err := r.drawMaster(ctx)
			if err != nil {
				return err
			}
			// The other nodes do not replace it within so short a time.
			return errors.Join(r.freeze(ctx, m, r.between(100*time.Millisecond, 600*time.Millisecond)), r.cluster.WaitHealthy(ctx))
		}},
		{"shard stopped until replaced", replace},
		{"master and replica stopped", lose},
	}
}

// lose freezes a master and its replica, so that no node can take over, for long
// enough that all nodes notice, and continues both.
func lose(ctx context.Context, r *run) error {
	master, err := r.drawMaster(ctx)
	if err != nil {
		return err
	}
	replica, err := r.cluster.ReplicaOf(ctx, master)
	if err != nil {
		return err
	}
	if err := errors.Join(replica.Stop(), master.Stop()); err != nil {
		return errors.Join(err, replica.Continue(), master.Continue())
	}
	r.sleep(ctx, r.between(2*time.Second, 6*time.Second))

	// The other nodes have marked both as failed. The replica may take over without the
	// writes that the master confirms before it learns of that.
	r.history.splits.Add(1)
	answers := r.history.losing()
	err = errors.Join(master.Continue(), replica.Continue(), r.cluster.WaitHealthy(ctx))
	answers()
	r.history.splits.Add(1)
	return err
}

// slot returns a random slot that holds partitions of the cache.
func (r *run) slot(ctx context.Context) (int, error) {
	return r.cluster.SlotOf(ctx, fmt.Sprintf("{%02x}", r.rng.IntN(16)))
}

// masterOf waits for the slot's master, which on a busy machine may be slow to report
// that role.
func (r *run) masterOf(ctx context.Context, slot int) (*redisserver.Server, error) {
	for {
		m, err := r.cluster.MasterOf(ctx, slot)
		if err == nil || !r.sleep(ctx, 50*time.Millisecond) {
			return m, err
		}
	}
}

func (r *run) drawMaster(ctx context.Context) (*redisserver.Server, error) {
	slot, err := r.slot(ctx)
	if err != nil {
		return nil, err
	}
	return r.masterOf(ctx, slot)
}

// killMaster kills a master, waits until a replica has been promoted, and restarts the old master as its replica.
func killMaster(ctx context.Context, r *run) error {
	slot, err := r.slot(ctx)
	if err != nil {
		return err
	}
	answers := r.history.losing()
	old, err := r.cluster.KillMaster(ctx, slot)
	if err == nil {
		_, err = r.cluster.WaitPromotion(ctx, slot, old)
	}
	answers()
	if err != nil {
		return err
	}
	r.sleep(ctx, r.between(0, 2*time.Second))
	if err := old.Restart(ctx, redisserver.AsItWas); err != nil {
		return err
	}
	return r.cluster.WaitHealthy(ctx)
}

// replace freezes a master until a replica has been promoted, and continues it.
func replace(ctx context.Context, r *run) error {
	slot, err := r.slot(ctx)
	if err != nil {
		return err
	}
	old, err := r.masterOf(ctx, slot)
	if err != nil {
		return err
	}
	answers := r.history.losing()
	if err := old.Stop(); err != nil {
		return err
	}
	_, err = r.cluster.WaitPromotion(ctx, slot, old)
	answers()
	r.sleep(ctx, r.between(0, time.Second))

	// From here until the old one learns of the promotion, it acts as the master.
	r.history.splits.Add(1)
	answers = r.history.losing()
	err = errors.Join(err, old.Continue())
	for err == nil {
		reply, e := old.Do(ctx, "ROLE")
		if list, ok := reply.([]any); e == nil && ok && len(list) > 0 && list[0] == "slave" {
			break
		}
		if !r.sleep(ctx, time.Millisecond) {
			err = ctx.Err()
		}
	}
	answers()
	r.history.splits.Add(1)
	return errors.Join(err, r.cluster.WaitHealthy(ctx))
}

// migrate moves a slot to another master, slowly.
func migrate(ctx context.Context, r *run) error {
	slot, err := r.slot(ctx)
	if err != nil {
		return err
	}
	source, err := r.masterOf(ctx, slot)
	if err != nil {
		return err
	}
	list, err := r.masters(ctx)
	if err != nil {
		return err
	}
	target := list[r.rng.IntN(len(list))]
	for target == source {
		target = list[r.rng.IntN(len(list))]
	}
	m, err := r.cluster.BeginMigration(ctx, slot, target)
	if err != nil {
		return err
	}
	for range 10 + r.rng.IntN(40) {
		if _, err := m.MoveKeys(ctx, 1+r.rng.IntN(20)); err != nil {
			return err
		}
		if !r.sleep(ctx, r.between(time.Millisecond, 50*time.Millisecond)) {
			return ctx.Err()
		}
	}
	return m.Finish(ctx)
}
