package redisserver

import (
	"context"
	"errors"
	"fmt"
	"strconv"
)

// Migration is a slot on its way from one master to another. Until it is finished, the source replies ASK for keys it
// does not have (any more), and TRYAGAIN for several keys of which it has some; the target serves clients that
// send ASKING.
type Migration struct {
	// Slot is on its way.
	Slot int

	// Source has the slot until the migration is finished, and Target from then on.
	Source, Target *Server

	c *Cluster
}

// Migrate moves a slot with its keys to another master.
func (c *Cluster) Migrate(ctx context.Context, slot int, to *Server) error {
	m, err := c.BeginMigration(ctx, slot, to)
	if err != nil {
		return err
	}
	return m.Finish(ctx)
}

// BeginMigration opens a slot on both sides; it moves no keys yet.
func (c *Cluster) BeginMigration(ctx context.Context, slot int, to *Server) (*Migration, error) {
	m, err := c.beginMigration(ctx, slot, to)
	if err != nil {
		return nil, fmt.Errorf("begin migration of slot %d: %w", slot, err)
	}
	return m, nil
}

func (c *Cluster) beginMigration(ctx context.Context, slot int, to *Server) (*Migration, error) {
	target, ok := c.ids[to]
	if !ok {
		return nil, errors.New("the target is no node of the cluster")
	}
	source, err := c.MasterOf(ctx, slot)
	if err != nil {
		return nil, err
	}
	if source == to {
		return nil, errors.New("the target has it already")
	}
	// The target first, or clients would be sent to it before it takes them in.
	if err := c.setSlot(ctx, to, slot, "IMPORTING", c.ids[source]); err != nil {
		return nil, err
	}
	if err := c.setSlot(ctx, source, slot, "MIGRATING", target); err != nil {
		return nil, err
	}
	return &Migration{Slot: slot, Source: source, Target: to, c: c}, nil
}

func (c *Cluster) setSlot(ctx context.Context, s *Server, slot int, args ...string) error {
	_, err := s.Do(ctx, append([]string{"CLUSTER", "SETSLOT", strconv.Itoa(slot)}, args...)...)
	return err
}

// MoveKeys moves at most n keys, and returns how many it moved; fewer than n if there are no more.
func (m *Migration) MoveKeys(ctx context.Context, n int) (int, error) {
	moved, err := m.moveKeys(ctx, n)
	if err != nil {
		return 0, fmt.Errorf("move keys of slot %d: %w", m.Slot, err)
	}
	return moved, nil
}

func (m *Migration) moveKeys(ctx context.Context, n int) (int, error) {
	reply, err := m.Source.Do(ctx, "CLUSTER", "GETKEYSINSLOT", strconv.Itoa(m.Slot), strconv.Itoa(n))
	if err != nil {
		return 0, err
	}
	keys, _ := reply.([]any)
	if len(keys) == 0 {
		return 0, nil
	}
	move := []string{"MIGRATE", loopback, strconv.Itoa(m.Target.port), "", "0", "5000", "KEYS"}
	for _, k := range keys {
		key, _ := k.(string)
		move = append(move, key)
	}
	_, err = m.Source.Do(ctx, move...)
	return len(keys), err
}

// Finish moves the keys that are left, gives the slot to the target, and waits until all nodes know.
func (m *Migration) Finish(ctx context.Context) error {
	if err := m.finish(ctx); err != nil {
		return fmt.Errorf("finish migration of slot %d: %w", m.Slot, err)
	}
	return nil
}

func (m *Migration) finish(ctx context.Context) error {
	for {
		if moved, err := m.moveKeys(ctx, 1000); err != nil {
			return err
		} else if moved == 0 {
			break
		}
	}
	// The target first, and the source before the rest: there is always one that serves the slot.
	id := m.c.ids[m.Target]
	for _, s := range []*Server{m.Target, m.Source} {
		if err := m.c.setSlot(ctx, s, m.Slot, "NODE", id); err != nil {
			return err
		}
	}
	views := m.c.views(ctx)
	for _, s := range m.c.nodes {
		if s == m.Target || s == m.Source || !views[s].nodes[m.c.ids[s]].master {
			continue
		}
		if err := m.c.setSlot(ctx, s, m.Slot, "NODE", id); err != nil {
			return err
		}
	}
	return m.c.WaitHealthy(ctx)
}
