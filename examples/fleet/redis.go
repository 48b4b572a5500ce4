package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// clusterMasters is how many masters a cluster has, each with one replica.
const clusterMasters = 3

const slots = 16384

// redisServers are the servers that the shops share: one, or those of a cluster.
type redisServers struct {
	dir     string
	cluster bool
	nodes   []*node
	judge   *judge
	events  *events

	// Goroutines that wait for a cluster to agree end with it.
	ctx     context.Context
	stop    context.CancelFunc
	waiters sync.WaitGroup
}

// node is one of them. It keeps its port and its directory.
type node struct {
	number int // from 1
	port   int
	dir    string
	client *redis.Client // for its state

	mu     sync.Mutex
	proc   *child // nil while it is down
	frozen bool
	told   nodeInfo
}

// nodeInfo is a server's INFO.
type nodeInfo struct{ role, memory, clients string }

var errNoRedis = errors.New("redis-server is not in the PATH: apt-get install redis-server, dnf install redis, apk add redis or brew install redis")

// startWait is the time within which servers must answer, and a cluster must agree.
const startWait = 30 * time.Second

func startRedis(ctx context.Context, cluster bool, j *judge, e *events) (_ *redisServers, err error) {
	if _, err := exec.LookPath("redis-server"); err != nil {
		return nil, errNoRedis
	}
	r := &redisServers{cluster: cluster, judge: j, events: e}
	r.ctx, r.stop = context.WithCancel(context.WithoutCancel(ctx))
	if r.dir, err = os.MkdirTemp("", "larder-fleet-"); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	n := 1
	if cluster {
		n = 2 * clusterMasters
	}
	taken := map[int]bool{}
	for i := range n {
		port, err := freePort(taken)
		if err != nil {
			return nil, errors.Join(err, r.close())
		}
		r.nodes = append(r.nodes, newNode(i+1, port, filepath.Join(r.dir, fmt.Sprint("redis-", i+1))))
	}
	errs := make([]error, n)
	var all sync.WaitGroup
	for i, node := range r.nodes {
		all.Go(func() { errs[i] = r.run(ctx, node) })
	}
	all.Wait()
	err = errors.Join(errs...)
	if err == nil && cluster {
		err = r.form(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, r.close())
	}
	return r, nil
}

func newNode(number, port int, dir string) *node {
	return &node{number: number, port: port, dir: dir, client: redis.NewClient(&redis.Options{
		Addr: address(port), PoolSize: 2,
		ContextTimeoutEnabled: true, // a frozen server must not block a caller
		MaxRetries:            -1, DialerRetries: 1,
	})}
}

func address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// freePort finds a free port whose cluster bus, ten thousand above, is free as well.
// Both lie below the ports that Linux gives to outgoing connections, so that a server that
// was down finds its port free.
func freePort(taken map[int]bool) (int, error) {
	for range 1000 {
		port := 11_000 + rand.IntN(11_000)
		if !taken[port] && free(port) && free(port+10_000) {
			taken[port] = true
			return port, nil
		}
	}
	return 0, errors.New("no free port found")
}

func free(port int) bool {
	l, err := net.Listen("tcp", address(port))
	return err == nil && l.Close() == nil
}

// addrs are the addresses of the servers.
func (r *redisServers) addrs() []string {
	list := make([]string, len(r.nodes))
	for i, n := range r.nodes {
		list[i] = address(n.port)
	}
	return list
}

// run starts a server and waits until it answers. Its former data are lost, except its name
// in the cluster.
func (r *redisServers) run(ctx context.Context, n *node) error {
	if err := os.MkdirAll(n.dir, 0o700); err != nil {
		return err
	}
	command := []string{
		"redis-server", "--port", strconv.Itoa(n.port), "--bind", "127.0.0.1", "--dir", n.dir, "--logfile", filepath.Join(n.dir, "log"),
		"--save", "", "--appendonly", "no", "--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru",
	}
	if r.cluster {
		command = append(command, "--cluster-enabled", "yes", "--cluster-node-timeout", "1000",
			// A replica takes over however old its data are.
			"--cluster-replica-validity-factor", "0", "--repl-diskless-sync-delay", "0")
	}
	proc, err := startChild(r.dir, command...)
	if err != nil {
		return fmt.Errorf("start redis %d: %w", n.number, err)
	}
	err = until(ctx, func(ctx context.Context) error {
		select {
		case <-proc.ended:
			return nil
		default:
			return n.client.Ping(ctx).Err()
		}
	})
	select {
	case <-proc.ended:
		return fmt.Errorf("redis %d has ended: %s (%s)", n.number, cmp.Or(proc.said, "see its log"), filepath.Join(n.dir, "log"))
	default:
	}
	if err != nil {
		proc.kill()
		return fmt.Errorf("redis %d does not answer: %w", n.number, err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.proc, n.frozen = proc, false
	return nil
}

// until tries until there is no error or ctx ends.
func until(ctx context.Context, try func(context.Context) error) error {
	for {
		one, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		err := try(one)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w (last: %w)", ctx.Err(), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// form makes a cluster of servers that do not know each other.
func (r *redisServers) form(ctx context.Context) error {
	for i, n := range r.nodes {
		// Epochs that differ from the start; otherwise they come apart one by one.
		if err := n.client.Do(ctx, "CLUSTER", "SET-CONFIG-EPOCH", i+1).Err(); err != nil {
			return fmt.Errorf("form cluster: %w", err)
		}
		if i < clusterMasters {
			if err := n.client.ClusterAddSlotsRange(ctx, i*slots/clusterMasters, (i+1)*slots/clusterMasters-1).Err(); err != nil {
				return fmt.Errorf("form cluster: %w", err)
			}
		}
		for _, other := range r.nodes[:i] {
			if err := n.client.ClusterMeet(ctx, "127.0.0.1", strconv.Itoa(other.port)).Err(); err != nil {
				return fmt.Errorf("form cluster: %w", err)
			}
		}
	}
	for i, n := range r.nodes[clusterMasters:] {
		master, err := r.nodes[i].client.Do(ctx, "CLUSTER", "MYID").Text()
		if err != nil {
			return fmt.Errorf("form cluster: %w", err)
		}
		if err := until(ctx, func(ctx context.Context) error { return n.client.ClusterReplicate(ctx, master).Err() }); err != nil {
			return fmt.Errorf("form cluster: redis %d does not know its master: %w", n.number, err)
		}
	}
	if err := until(ctx, r.agreed); err != nil {
		return fmt.Errorf("form cluster: %w", err)
	}
	return nil
}

// agreed returns an error unless the servers that are up serve all slots: all of them must
// report that the cluster works and name the same masters, which are up, and each replica
// must be connected to its master.
func (r *redisServers) agreed(ctx context.Context) error {
	up := map[string]bool{}
	for _, n := range r.nodes {
		if n.up() {
			up[address(n.port)] = true
		}
	}
	view := ""
	for _, n := range r.nodes {
		if !n.up() {
			continue
		}
		info, err := n.client.ClusterInfo(ctx).Result()
		if err != nil {
			return err
		}
		if state := infoField(info, "cluster_state"); state != "ok" {
			return fmt.Errorf("redis %d says that the cluster's state is %q", n.number, state)
		}
		ranges, err := n.client.ClusterSlots(ctx).Result()
		if err != nil {
			return err
		}
		its, covered := "", 0
		for _, s := range ranges {
			if len(s.Nodes) == 0 || !up[s.Nodes[0].Addr] {
				return fmt.Errorf("redis %d names a master that is down", n.number)
			}
			its += fmt.Sprintln(s.Start, s.End, s.Nodes[0].Addr)
			covered += s.End - s.Start + 1
		}
		if covered != slots || view != "" && its != view {
			return fmt.Errorf("redis %d disagrees about who has which slots", n.number)
		}
		view = its
		if info, err = n.client.Info(ctx, "replication").Result(); err != nil {
			return err
		}
		if infoField(info, "role") == "slave" && infoField(info, "master_link_status") != "up" {
			return fmt.Errorf("redis %d does not hear its master", n.number)
		}
	}
	if view == "" {
		return errors.New("no server is up")
	}
	return nil
}

// infoField returns a field of a reply to INFO.
func infoField(info, name string) string {
	for line := range strings.Lines(info) {
		if v, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// up reports whether the server can be expected to answer.
func (n *node) up() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.proc != nil && !n.frozen
}

// state is its state in the table.
func (n *node) state() (state string, info nodeInfo) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.proc == nil:
		return "down", nodeInfo{}
	case n.frozen:
		return "stopped", nodeInfo{}
	default:
		return "up", n.told
	}
}

// kill ends a server with SIGKILL.
func (r *redisServers) kill(n *node) error {
	n.mu.Lock()
	proc := n.proc
	if proc == nil {
		n.mu.Unlock()
		return fmt.Errorf("redis %d is down", n.number)
	}
	answers := r.losing(false)
	n.proc, n.frozen, n.told = nil, false, nodeInfo{}
	n.mu.Unlock()
	proc.kill()
	r.whenAgreed(answers)
	return nil
}

// revive starts a server that is down.
func (r *redisServers) revive(ctx context.Context, n *node) error {
	n.mu.Lock()
	down := n.proc == nil
	n.mu.Unlock()
	if !down {
		return fmt.Errorf("redis %d is up, or stopped", n.number)
	}
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	return r.run(ctx, n)
}

// freeze stops a server where it is.
func (r *redisServers) freeze(n *node) error {
	n.mu.Lock()
	if n.proc == nil || n.frozen {
		n.mu.Unlock()
		return fmt.Errorf("redis %d is down, or stopped", n.number)
	}
	answers := r.losing(false)
	err := n.proc.freeze()
	n.frozen = err == nil
	n.mu.Unlock()
	r.whenAgreed(answers)
	return err
}

// thaw continues a stopped server.
func (r *redisServers) thaw(n *node) error {
	n.mu.Lock()
	if n.proc == nil || !n.frozen {
		n.mu.Unlock()
		return fmt.Errorf("redis %d is not stopped", n.number)
	}
	answers := r.losing(true)
	err := n.proc.thaw()
	n.frozen = err != nil
	n.mu.Unlock()
	r.whenAgreed(answers)
	return err
}

// losing tells the judge that a cluster may lose confirmed writes. A single server loses
// everything or nothing, which is no limit: a missing entry is invalid.
func (r *redisServers) losing(returns bool) (answers func()) {
	if !r.cluster {
		return func() {}
	}
	return r.judge.losing(returns)
}

// whenAgreed calls back when the servers agree again.
func (r *redisServers) whenAgreed(answers func()) {
	if !r.cluster {
		return
	}
	begun := time.Now()
	r.waiters.Go(func() {
		if until(r.ctx, r.agreed) == nil {
			answers()
			r.events.add("the cluster's servers agree, after %v", time.Since(begun).Round(10*time.Millisecond))
		}
	})
}

// cut closes the subscriptions of all shops, and returns how many there were.
func (r *redisServers) cut(ctx context.Context) (n int64, err error) {
	for _, node := range r.nodes {
		if !node.up() {
			continue
		}
		one, cancel := context.WithTimeout(ctx, time.Second)
		cut, e := node.client.ClientKillByFilter(one, "TYPE", "pubsub").Result()
		cancel()
		n, err = n+cut, errors.Join(err, e)
	}
	return n, err
}

// poll reads the servers' states, and notices servers that have ended by themselves.
func (r *redisServers) poll(ctx context.Context) {
	var all sync.WaitGroup
	for _, n := range r.nodes {
		if !n.up() {
			continue
		}
		all.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
			defer cancel()
			text, err := n.client.Info(ctx).Result()
			n.mu.Lock()
			defer n.mu.Unlock()
			if n.proc == nil {
				return
			}
			select {
			case <-n.proc.ended:
				r.events.add("redis %d has ended by itself: %s", n.number, n.proc.said)
				n.proc, n.told = nil, nodeInfo{}
				return
			default:
			}
			if err != nil {
				n.told.role = "no answer"
				return
			}
			n.told = nodeInfo{infoField(text, "role"), infoField(text, "used_memory_human"), infoField(text, "connected_clients")}
			if n.told.role == "slave" {
				n.told.role = "replica"
			}
		})
	}
	all.Wait()
}

// close ends all servers and removes their files.
func (r *redisServers) close() error {
	r.stop()
	r.waiters.Wait()
	var errs []error
	for _, n := range r.nodes {
		n.mu.Lock()
		if n.proc != nil {
			n.proc.kill()
			n.proc = nil
		}
		n.mu.Unlock()
		errs = append(errs, n.client.Close())
	}
	return errors.Join(append(errs, os.RemoveAll(r.dir))...)
}
