package redisserver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
)

// Slots is how many slots a cluster has.
const Slots = 16384

// Cluster is a Redis Cluster of this package's servers. A node that fails is noticed after about a second.
type Cluster struct {
	nodes []*Server
	ids   map[*Server]string // a node keeps its name through restarts
}

// errNoPort says that a port was asked for where one is not enough.
var errNoPort = errors.New("option Port is for single servers and replicas")

// StartCluster starts a cluster of masters that share the slots evenly, each with as many replicas, and waits until all
// of it is at work. The first nodes are the masters, in the order of their slots.
//
// Redis lets a new cluster wait two seconds before it serves.
func StartCluster(ctx context.Context, masters, replicasPer int, o Options) (*Cluster, error) {
	if o.Port != 0 {
		return nil, fmt.Errorf("start cluster: %w", errNoPort)
	}
	o.Args = append([]string{
		"--cluster-enabled", "yes",
		"--cluster-config-file", "nodes.conf",
		"--cluster-node-timeout", "1000",
		// A replica takes over however long it has not heard of its master: a test may have frozen either for long.
		"--cluster-replica-validity-factor", "0",
	}, o.Args...)
	nodes, err := startMany(ctx, masters*(1+replicasPer), o)
	if err != nil {
		return nil, fmt.Errorf("start cluster: %w", err)
	}
	c := &Cluster{nodes: nodes, ids: make(map[*Server]string)}
	if err := c.form(ctx, masters); err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("start cluster: %w", err)
	}
	return c, nil
}

// startMany starts servers at the same time: all of them or none.
func startMany(ctx context.Context, n int, o Options) ([]*Server, error) {
	servers, errs := make([]*Server, n), make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { servers[i], errs[i] = Start(ctx, o) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil { // the others failed for the same reason, as a rule
			_ = closeAll(servers)
			return nil, err
		}
	}
	return servers, nil
}

// closeAll closes servers at the same time; those that are nil never started.
func closeAll(servers []*Server) error {
	errs := make([]error, len(servers))
	var wg sync.WaitGroup
	for i, s := range servers {
		if s != nil {
			wg.Go(func() { errs[i] = s.Close() })
		}
	}
	wg.Wait()
	return errors.Join(errs...)
}

// form makes a cluster of nodes that do not know each other.
func (c *Cluster) form(ctx context.Context, masters int) error {
	for i, s := range c.nodes {
		id, err := text(s.Do(ctx, "CLUSTER", "MYID"))
		if err != nil {
			return err
		}
		c.ids[s] = id
		// Different epochs from the start: otherwise they come apart one by one, while the nodes disagree.
		if _, err := s.Do(ctx, "CLUSTER", "SET-CONFIG-EPOCH", strconv.Itoa(i+1)); err != nil {
			return err
		}
		if i < masters {
			add := []string{"CLUSTER", "ADDSLOTS"}
			for slot := i * Slots / masters; slot < (i+1)*Slots/masters; slot++ {
				add = append(add, strconv.Itoa(slot))
			}
			if _, err := s.Do(ctx, add...); err != nil {
				return err
			}
		}
		// Each meets all: gossip would get there too, but later.
		for _, other := range c.nodes[:i] {
			if _, err := s.Do(ctx, "CLUSTER", "MEET", loopback, strconv.Itoa(other.port)); err != nil {
				return err
			}
		}
	}
	for i, replica := range c.nodes[masters:] {
		master := c.ids[c.nodes[i%masters]]
		err := wait(ctx, "the replica to know its master", func(ctx context.Context) error {
			_, err := askSoon(ctx, replica, "CLUSTER", "REPLICATE", master)
			return err
		})
		if err != nil {
			return err
		}
	}
	return c.WaitHealthy(ctx)
}

// Nodes are the nodes, also those that do not run.
func (c *Cluster) Nodes() []*Server { return slices.Clone(c.nodes) }

// Addrs are the addresses of the nodes.
func (c *Cluster) Addrs() []string { return addrs(c.nodes) }

func addrs(servers []*Server) []string {
	a := make([]string, len(servers))
	for i, s := range servers {
		a[i] = s.Addr()
	}
	return a
}

// SlotOf returns the slot of a key.
func (c *Cluster) SlotOf(ctx context.Context, key string) (int, error) {
	err := ErrNotRunning
	for _, s := range c.nodes {
		if !s.up() {
			continue
		}
		var reply any
		if reply, err = s.Do(ctx, "CLUSTER", "KEYSLOT", key); err == nil {
			slot, _ := reply.(int64)
			return int(slot), nil
		}
	}
	return 0, err
}

// MasterOf returns the node that is the slot's master by its own account, and by the latest one if two say so. Nodes
// that are killed, frozen or do not answer have no say.
func (c *Cluster) MasterOf(ctx context.Context, slot int) (*Server, error) {
	var master *Server
	latest := int64(-1)
	for s, view := range c.views(ctx) {
		me := view.nodes[c.ids[s]]
		if me.master && me.has(slot) && me.epoch > latest {
			master, latest = s, me.epoch
		}
	}
	if master == nil {
		return nil, fmt.Errorf("no node is the master of slot %d", slot)
	}
	return master, nil
}

// ReplicaOf returns a running node that is the master's replica by its own account, and that hears from it if it runs.
func (c *Cluster) ReplicaOf(ctx context.Context, master *Server) (*Server, error) {
	id, ok := c.ids[master]
	if !ok {
		return nil, errors.New("the master is no node of the cluster")
	}
	views := c.views(ctx)
	for _, s := range c.nodes {
		view, ok := views[s]
		if !ok || view.nodes[c.ids[s]].replicaOf != id {
			continue
		}
		if !master.up() || wantField(ctx, s, "replication", "master_link_status", "up") == nil {
			return s, nil
		}
	}
	return nil, fmt.Errorf("%s has no replica that runs", master.Addr())
}

// WaitHealthy waits until all nodes that run serve the cluster, agree on the owner of each slot, see nothing wrong with
// each other, and have replicas that hear from their masters. All slots must have a master that runs.
func (c *Cluster) WaitHealthy(ctx context.Context) error {
	return wait(ctx, "a healthy cluster", func(ctx context.Context) error {
		views := c.views(ctx)
		var owners []string
		for _, s := range c.nodes {
			if !s.up() {
				continue
			}
			view, ok := views[s]
			if !ok {
				return fmt.Errorf("%s does not answer", s.Addr())
			}
			if view.state != "ok" {
				return fmt.Errorf("the state of %s is %q", s.Addr(), view.state)
			}
			for _, other := range c.nodes {
				if n, ok := view.nodes[c.ids[other]]; other.up() && (!ok || n.ill) {
					return fmt.Errorf("%s does not see %s well", s.Addr(), other.Addr())
				}
			}
			owns := view.owners()
			if owners == nil {
				owners = owns
			}
			if !slices.Equal(owners, owns) {
				return fmt.Errorf("%s disagrees about who has which slots", s.Addr())
			}
			if view.nodes[c.ids[s]].master {
				continue
			}
			if err := wantField(ctx, s, "replication", "master_link_status", "up"); err != nil {
				return err
			}
		}
		if owners == nil {
			return ErrNotRunning
		}
		for slot, id := range owners {
			if m := c.node(id); m == nil || !m.up() || !views[m].nodes[id].master {
				return fmt.Errorf("slot %d has no master that runs", slot)
			}
		}
		return nil
	})
}

// node is the node of a name, or nil.
func (c *Cluster) node(id string) *Server {
	for s, its := range c.ids {
		if its == id {
			return s
		}
	}
	return nil
}

// Close closes all nodes. To close the cluster again does nothing.
func (c *Cluster) Close() error { return closeAll(c.nodes) }

// text is a reply that is a string.
func text(reply any, err error) (string, error) {
	s, ok := reply.(string)
	if err == nil && !ok {
		err = fmt.Errorf("reply %v is no string", reply)
	}
	return s, err
}
