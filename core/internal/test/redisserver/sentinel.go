package redisserver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"
)

// MasterName is what the sentinels call the master that they watch.
const MasterName = "mymaster"

// quorum is how many of the three sentinels must agree.
const quorum = 2

// Sentinel is a master and its replica, watched by three sentinels, two of which must agree. They take a server for
// down that does not answer for a second.
type Sentinel struct {
	nodes     []*Server
	sentinels []*Server
}

// StartSentinel starts a master, a replica, and their sentinels, and waits until they know each other. The options are
// those of the master and the replica.
func StartSentinel(ctx context.Context, o Options) (*Sentinel, error) {
	if o.Port != 0 {
		return nil, fmt.Errorf("start sentinel: %w", errNoPort)
	}
	s := new(Sentinel)
	if err := s.start(ctx, o); err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("start sentinel: %w", err)
	}
	return s, nil
}

func (s *Sentinel) start(ctx context.Context, o Options) error {
	// With a file, which the sentinels rewrite: a server restarts as what they made of it.
	master, err := start(ctx, o, "# the master\n")
	if err != nil {
		return err
	}
	s.nodes = append(s.nodes, master)
	replica, err := StartReplica(ctx, master, o)
	if err != nil {
		return err
	}
	s.nodes = append(s.nodes, replica)

	watch := fmt.Sprintf(`sentinel monitor %[1]s %[2]s %[3]d %[4]d
sentinel down-after-milliseconds %[1]s 1000
sentinel failover-timeout %[1]s 2000
`, MasterName, loopback, master.port, quorum)
	s.sentinels = make([]*Server, 3)
	errs := make([]error, len(s.sentinels))
	var wg sync.WaitGroup
	for i := range s.sentinels {
		wg.Go(func() { s.sentinels[i], errs[i] = start(ctx, Options{}, watch, "--sentinel") })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for _, n := range s.sentinels {
		// These periods are seconds by default. Redis knows this command since 7.0, and is slower before.
		_, _ = n.Do(ctx, "SENTINEL", "DEBUG", "PUBLISH-PERIOD", "200", "INFO-PERIOD", "300", "TILT-PERIOD", "1000")
	}
	return s.WaitHealthy(ctx)
}

// Nodes are the master and the replica, in no order that means anything, also if they do not run.
func (s *Sentinel) Nodes() []*Server { return slices.Clone(s.nodes) }

// Sentinels are the sentinels, also those that do not run.
func (s *Sentinel) Sentinels() []*Server { return slices.Clone(s.sentinels) }

// SentinelAddrs are the addresses of the sentinels.
func (s *Sentinel) SentinelAddrs() []string { return addrs(s.sentinels) }

// Master returns the server that at least two sentinels take for the master.
func (s *Sentinel) Master(ctx context.Context) (*Server, error) {
	votes := make(map[string]int)
	for _, n := range s.sentinels {
		if !n.up() {
			continue
		}
		if reply, err := askSoon(ctx, n, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", MasterName); err == nil {
			votes[fmt.Sprint(reply)]++
		}
	}
	for _, n := range s.nodes {
		if votes[fmt.Sprint([]any{loopback, strconv.Itoa(n.port)})] >= quorum {
			return n, nil
		}
	}
	return nil, errors.New("the sentinels do not agree on a master")
}

// Replica returns the server that the sentinels do not take for the master.
func (s *Sentinel) Replica(ctx context.Context) (*Server, error) {
	master, err := s.Master(ctx)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(s.nodes, func(n *Server) bool { return n != master })
	return s.nodes[i], nil
}

// Failover lets the sentinels make the replica the master (SENTINEL FAILOVER), waits until all know, and returns the
// new master. The old one is its replica from then on. Writes that were not yet replicated are lost.
func (s *Sentinel) Failover(ctx context.Context) (*Server, error) {
	old, err := s.Master(ctx)
	if err != nil {
		return nil, fmt.Errorf("failover: %w", err)
	}
	var asked time.Time
	err = wait(ctx, "the sentinels to begin", func(ctx context.Context) error {
		master, err := s.Master(ctx)
		if err != nil || master != old {
			return err
		}
		if time.Since(asked) < 2*failoverWithin {
			return errors.New("they have not yet")
		}
		i := slices.IndexFunc(s.sentinels, (*Server).up)
		if i < 0 {
			return ErrNotRunning
		}
		_, err = askSoon(ctx, s.sentinels[i], "SENTINEL", "FAILOVER", MasterName)
		if err == nil {
			asked = time.Now()
			err = errors.New("they were asked just now")
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("failover: %w", err)
	}
	return s.WaitPromotion(ctx, old)
}

// WaitPromotion waits until a server other than the old one is the master, and all that run know; it returns the new
// master. This takes about three seconds from when the old master was killed or frozen.
func (s *Sentinel) WaitPromotion(ctx context.Context, old *Server) (*Server, error) {
	var master *Server
	err := wait(ctx, "a new master", func(ctx context.Context) error {
		var err error
		if master, err = s.Master(ctx); err == nil && master == old {
			err = fmt.Errorf("it is %s still", old.Addr())
		}
		return err
	})
	if err == nil {
		err = s.WaitHealthy(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("promotion: %w", err)
	}
	return master, nil
}

// WaitHealthy waits until the sentinels agree on a master that runs, the other server, if it runs, is its replica and
// hears from it, and all sentinels that run know all of this, so that a failover can begin.
func (s *Sentinel) WaitHealthy(ctx context.Context) error {
	return wait(ctx, "healthy sentinels", func(ctx context.Context) error {
		master, err := s.Master(ctx)
		if err != nil {
			return err
		}
		if err := wantField(ctx, master, "replication", "role", "master"); err != nil {
			return err
		}
		for _, n := range s.nodes {
			if n == master || !n.up() {
				continue
			}
			if err := wantField(ctx, n, "replication", "master_port", strconv.Itoa(master.port)); err != nil {
				return err
			}
			if err := wantField(ctx, n, "replication", "master_link_status", "up"); err != nil {
				return err
			}
		}
		for _, n := range s.sentinels {
			if !n.up() {
				continue
			}
			if err := s.sees(ctx, n, master); err != nil {
				return fmt.Errorf("sentinel %s: %w", n.Addr(), err)
			}
		}
		return nil
	})
}

// sees returns an error unless a sentinel knows of this master, that it is well, and of all others that run.
func (s *Sentinel) sees(ctx context.Context, sentinel, master *Server) error {
	reply, err := askSoon(ctx, sentinel, "SENTINEL", "MASTER", MasterName)
	if err != nil {
		return err
	}
	m := pairs(reply)
	if m["port"] != strconv.Itoa(master.port) || m["flags"] != "master" {
		return fmt.Errorf("the master is %s, %s", m["port"], m["flags"])
	}
	if want := strconv.Itoa(len(s.sentinels) - 1); m["num-other-sentinels"] != want {
		return fmt.Errorf("it knows %s sentinels of %s", m["num-other-sentinels"], want)
	}
	reply, err = askSoon(ctx, sentinel, "SENTINEL", "REPLICAS", MasterName)
	if err != nil {
		return err
	}
	replicas := make(map[string]map[string]string)
	list, _ := reply.([]any)
	for _, r := range list {
		replica := pairs(r)
		replicas[replica["port"]] = replica
	}
	for _, n := range s.nodes {
		r := replicas[strconv.Itoa(n.port)]
		if n != master && n.up() && (r["flags"] != "slave" || r["master-link-status"] != "ok") {
			return fmt.Errorf("the replica %s is %q, its link %q", n.Addr(), r["flags"], r["master-link-status"])
		}
	}
	return nil
}

// pairs is a reply of names and values in turn.
func pairs(reply any) map[string]string {
	list, _ := reply.([]any)
	m := make(map[string]string)
	for p := range slices.Chunk(list, 2) {
		if len(p) == 2 {
			m[fmt.Sprint(p[0])] = fmt.Sprint(p[1])
		}
	}
	return m
}

// Close closes all servers and sentinels. To close them again does nothing.
func (s *Sentinel) Close() error { return closeAll(slices.Concat(s.sentinels, s.nodes)) }
