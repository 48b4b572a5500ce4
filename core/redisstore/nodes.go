package redisstore

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/larderhq/larder/core/internal/tier"
)

const (
	// dialTimeout bounds a connection whose caller has left. ioTimeout bounds a call whose context
	// has no earlier deadline.
	dialTimeout = time.Second
	ioTimeout   = 2 * time.Second
	// redirects bounds the redirections of a cluster for one call: MOVED, and then ASK.
	redirects = 3
)

// nodes are the servers, over the tier's own clients. Exactly one of single and cluster is set.
type nodes struct {
	single  *redis.Client
	cluster *redis.ClusterClient
	all     redis.UniversalClient // whichever it is
	conns   *connections
	follow  bool // single is Sentinel's master

	refusals refusals

	ctx    context.Context // ends when they are closed
	cancel context.CancelFunc
	wg     sync.WaitGroup

	restoring sync.Mutex
	made      int // connections that are being made in the background
	most      int // how many may be
}

// newNodes returns nodes without a client. poolSize is as in the options of go-redis, whose default
// applies to 0.
func newNodes(dial dialFunc, poolSize int) *nodes {
	n := &nodes{conns: newConnections(dial), most: maxRestoring}
	if poolSize > 0 { // calls that wait for a reply need some of the pool
		n.most = max(1, min(maxRestoring, poolSize/4))
	}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	return n
}

// derive creates the tier's clients from the options of the user's client (rule R28).
func derive(client redis.UniversalClient) (*nodes, error) {
	switch c := client.(type) {
	case *redis.Client:
		if c == nil {
			break
		}
		o := optionsOf(c.Options())
		n := newNodes(o.Dialer, o.PoolSize)
		n.follow = o.Addr == failoverAddr
		o.Dialer = n.conns.Dial
		n.single = redis.NewClient(o)
		n.all = n.single
		return n, nil
	case *redis.ClusterClient:
		if c == nil {
			break
		}
		if err := refuse(c.Options()); err != nil {
			return nil, err
		}
		o := clusterOptionsOf(c.Options())
		dial := o.Dialer
		if dial == nil {
			dial = dialer(o.TLSConfig)
		}
		n := newNodes(dial, o.PoolSize)
		o.Dialer = n.conns.Dial
		o.NewClient = nodeClients(o.NewClient, dial, n.conns)
		n.cluster = redis.NewClusterClient(o)
		n.all = n.cluster
		return n, nil
	case nil:
		return nil, fmt.Errorf("%w: no client", tier.ErrUnusable)
	default:
		return nil, fmt.Errorf("%w: a %T; give a *redis.Client or a *redis.ClusterClient", tier.ErrUnusable, client)
	}
	return nil, fmt.Errorf("%w: no client", tier.ErrUnusable)
}

// dialer is the dialer of go-redis, except that the context also bounds the TLS handshake.
func dialer(config *tls.Config) func(context.Context, string, string) (net.Conn, error) {
	plain := &net.Dialer{Timeout: dialTimeout, KeepAlive: 5 * time.Minute}
	if config == nil {
		return plain.DialContext
	}
	return (&tls.Dialer{NetDialer: plain, Config: config}).DialContext
}

// master returns the server of a key.
func (n *nodes) master(ctx context.Context, key string) (c *redis.Client, err error) {
	if n.single != nil {
		return n.single, nil
	}
	defer n.recovered(&err)
	return n.cluster.MasterForKey(ctx, key)
}

// client is a *redis.Client or a *redis.ClusterClient.
type client interface {
	Process(context.Context, redis.Cmder) error
	Pipeline() redis.Pipeliner
	PoolStats() *redis.PoolStats
}

// process sends one command.
func (n *nodes) process(ctx context.Context, c client, cmd redis.Cmder) (err error) {
	defer n.recovered(&err)
	err = c.Process(ctx, cmd)
	n.demoted(err)
	n.restore(c, err)
	n.refusals.notify(cmd, err)
	return err
}

// pipeline sends several commands. Each has its own error.
func (n *nodes) pipeline(ctx context.Context, c client, cmds []redis.Cmder) {
	err := n.exec(ctx, c, cmds)
	if err == nil {
		return
	}
	n.restore(c, err)
	// If go-redis gets no connection, and does not retry, it leaves the commands without an error.
	lost := errors.Is(err, errReply)
	if !lost && !slices.ContainsFunc(cmds, func(cmd redis.Cmder) bool { return cmd.Err() != nil }) {
		lost = true
	}
	for _, cmd := range cmds {
		if lost {
			cmd.SetErr(err)
		}
	}
	for _, cmd := range cmds {
		n.refusals.notify(cmd, cmd.Err())
	}
	for _, cmd := range cmds {
		if n.demoted(cmd.Err()) {
			return
		}
	}
}

func (n *nodes) exec(ctx context.Context, c client, cmds []redis.Cmder) (err error) {
	defer n.recovered(&err)
	pipe := c.Pipeline()
	for _, cmd := range cmds {
		_ = pipe.Process(ctx, cmd)
	}
	_, err = pipe.Exec(ctx)
	return err
}

// demoted abandons a server that has become a replica. The next call asks for the master again,
// behind the same name or at Sentinel.
func (n *nodes) demoted(err error) bool {
	if err == nil || n.single == nil || !redis.IsReadOnlyError(err) {
		return false
	}
	n.conns.closeAll()
	return true
}

// recovered converts a panic of go-redis on a reply, such as an array of 2⁶² elements, into an
// error. The rest of the reply in the connection must not be read as the reply to another command.
func (n *nodes) recovered(err *error) {
	if v := recover(); v != nil {
		n.conns.closeAll()
		*err = fmt.Errorf("%w: %v", errReply, v)
	}
}

func (n *nodes) close() error {
	n.restoring.Lock() // none is begun after that
	n.cancel()
	n.restoring.Unlock()
	err := n.all.Close()
	n.conns.close()
	n.wg.Wait()
	if errors.Is(err, redis.ErrClosed) {
		return nil
	}
	return err
}
