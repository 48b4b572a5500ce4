package redisserver

import (
	"context"
	"fmt"
	"time"
)

// failoverWithin is how long Redis tries a failover that was asked for, before it gives up.
const failoverWithin = 5 * time.Second

// Failover lets a replica of the slot's master take over, without loss (CLUSTER FAILOVER), waits until all nodes know,
// and returns the new master. The old one is its replica from then on.
func (c *Cluster) Failover(ctx context.Context, slot int) (*Server, error) {
	replica, err := c.failover(ctx, slot)
	if err != nil {
		return nil, fmt.Errorf("failover of slot %d: %w", slot, err)
	}
	return replica, nil
}

func (c *Cluster) failover(ctx context.Context, slot int) (*Server, error) {
	old, err := c.MasterOf(ctx, slot)
	if err != nil {
		return nil, err
	}
	replica, err := c.ReplicaOf(ctx, old)
	if err != nil {
		return nil, err
	}
	var asked time.Time
	err = wait(ctx, "the replica to take over", func(ctx context.Context) error {
		if time.Since(asked) > failoverWithin {
			if _, err := askSoon(ctx, replica, "CLUSTER", "FAILOVER"); err != nil {
				return err
			}
			asked = time.Now()
		}
		return c.isMaster(ctx, replica, slot)
	})
	if err != nil {
		return nil, err
	}
	return replica, c.WaitHealthy(ctx)
}

// isMaster returns an error unless the node is the slot's master.
func (c *Cluster) isMaster(ctx context.Context, s *Server, slot int) error {
	master, err := c.MasterOf(ctx, slot)
	if err == nil && master != s {
		err = fmt.Errorf("the master of slot %d is %s, not %s", slot, master.Addr(), s.Addr())
	}
	return err
}

// KillMaster kills the slot's master, and returns it. [Cluster.WaitPromotion] waits for what follows. Writes that
// were not replicated yet are lost: see [Server.WaitReplicated].
func (c *Cluster) KillMaster(ctx context.Context, slot int) (*Server, error) {
	master, err := c.MasterOf(ctx, slot)
	if err != nil {
		return nil, fmt.Errorf("kill master: %w", err)
	}
	master.Kill()
	return master, nil
}

// WaitPromotion waits until a node other than the old one is the slot's master, the nodes that run all know, and the
// cluster is healthy; it returns the new master. This takes about three seconds from when the old master was killed
// or frozen.
func (c *Cluster) WaitPromotion(ctx context.Context, slot int, old *Server) (*Server, error) {
	var master *Server
	err := wait(ctx, "a new master", func(ctx context.Context) error {
		var err error
		if master, err = c.MasterOf(ctx, slot); err == nil && master == old {
			err = fmt.Errorf("it is %s still", old.Addr())
		}
		return err
	})
	if err == nil {
		err = c.WaitHealthy(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("promotion for slot %d: %w", slot, err)
	}
	return master, nil
}
