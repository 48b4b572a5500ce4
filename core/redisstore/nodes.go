package redisstore

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/larderhq/larder/core/internal/remote"
)

const (
	// dialTimeout bounds a connection that nobody waits for any more, ioTimeout a
	// call whose context has no nearer deadline.
	dialTimeout = time.Second
	ioTimeout   = 2 * time.Second
	// redirects is how often a cluster may say that a slot is elsewhere: MOVED, and
	// then ASK.
	redirects = 3
)

// nodes are the servers, over clients of our own. Exactly one of single and cluster
// is set.
type nodes struct {
	single  *redis.Client
	cluster *redis.ClusterClient
	all     redis.UniversalClient // whichever it is
	conns   *connections
	follow  bool // single is Sentinel's master

	refusals refusals
}

// derive makes clients of our own from the options of the user's (rule R28).
func derive(client redis.UniversalClient) (*nodes, error) {
	switch c := client.(type) {
	case *redis.Client:
		if c == nil {
			break
		}
		o := optionsOf(c.Options())
		n := &nodes{conns: newConnections(o.Dialer), follow: o.Addr == failoverAddr}
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
		n := &nodes{conns: newConnections(dial)}
		o.Dialer = n.conns.Dial
		o.NewClient = nodeClients(o.NewClient, dial, n.conns)
		n.cluster = redis.NewClusterClient(o)
		n.all = n.cluster
		return n, nil
	case nil:
		return nil, fmt.Errorf("%w: no client", remote.ErrUnusable)
	default:
		return nil, fmt.Errorf("%w: a %T; give a *redis.Client or a *redis.ClusterClient", remote.ErrUnusable, client)
	}
	return nil, fmt.Errorf("%w: no client", remote.ErrUnusable)
}

// dialer is go-redis's own, but that the context bounds the TLS handshake too.
func dialer(config *tls.Config) func(context.Context, string, string) (net.Conn, error) {
	plain := &net.Dialer{Timeout: dialTimeout, KeepAlive: 5 * time.Minute}
	if config == nil {
		return plain.DialContext
	}
	return (&tls.Dialer{NetDialer: plain, Config: config}).DialContext
}

// master returns the server that a key is on.
func (n *nodes) master(ctx context.Context, key string) (c *redis.Client, err error) {
	if n.single != nil {
		return n.single, nil
	}
	defer n.recovered(&err)
	return n.cluster.MasterForKey(ctx, key)
}

// process sends one command.
func (n *nodes) process(ctx context.Context, c interface {
	Process(context.Context, redis.Cmder) error
}, cmd redis.Cmder,
) (err error) {
	defer n.recovered(&err)
	err = c.Process(ctx, cmd)
	n.demoted(err)
	n.refusals.tell(cmd, err)
	return err
}

// pipeline sends several. Each has its own error.
func (n *nodes) pipeline(ctx context.Context, c interface{ Pipeline() redis.Pipeliner }, cmds []redis.Cmder) {
	err := n.exec(ctx, c, cmds)
	if err == nil {
		return
	}
	// Where go-redis gets no connection, and does not try again, the commands are
	// left as if they had succeeded.
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
		n.refusals.tell(cmd, cmd.Err())
	}
	for _, cmd := range cmds {
		if n.demoted(cmd.Err()) {
			return
		}
	}
}

func (n *nodes) exec(ctx context.Context, c interface{ Pipeline() redis.Pipeliner }, cmds []redis.Cmder) (err error) {
	defer n.recovered(&err)
	pipe := c.Pipeline()
	for _, cmd := range cmds {
		_ = pipe.Process(ctx, cmd)
	}
	_, err = pipe.Exec(ctx)
	return err
}

// demoted leaves a server that has become a replica: the next call looks for the
// master anew, behind the same name or at Sentinel.
func (n *nodes) demoted(err error) bool {
	if err == nil || n.single == nil || !redis.IsReadOnlyError(err) {
		return false
	}
	n.conns.closeAll()
	return true
}

// recovered makes an error of a reply that go-redis panics on, such as an array of
// 2⁶² elements. What is left of it in the connection must not be read as the reply
// to something else.
func (n *nodes) recovered(err *error) {
	if v := recover(); v != nil {
		n.conns.closeAll()
		*err = fmt.Errorf("%w: %v", errReply, v)
	}
}

func (n *nodes) close() error {
	err := n.all.Close()
	n.conns.close()
	if errors.Is(err, redis.ErrClosed) {
		return nil
	}
	return err
}
