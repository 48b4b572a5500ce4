package redisstore

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/redis/go-redis/v9"
)

// A call that is cut off loses its connection, and the next call has to make another one.
// That takes TCP, HELLO, and what TLS and OnConnect need, a round trip each. The time of
// a call has no room for them where the server is far away: each attempt would be cut off,
// and no connection would ever be there. So connections are made in the background, with
// more time, where a call was cut off, and a few of them, since calls are made at a time.
// They stay in the pool.

const (
	// restoreWithin bounds the making of a connection in the background.
	restoreWithin = 5 * time.Second
	// maxRestoring is the number of connections made concurrently. In a cluster each is one per master.
	maxRestoring = 4
)

// cutOff says that a call has not been answered in its time.
func cutOff(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// restore makes connections in the background where a call of a client was cut off, and
// none is idle. It makes none while some are being made.
func (n *nodes) restore(c client, err error) {
	if !cutOff(err) || c.PoolStats().IdleConns > 0 {
		return
	}
	n.restoring.Lock()
	defer n.restoring.Unlock()
	if n.made > 0 || n.ctx.Err() != nil {
		return
	}
	for range n.most {
		n.made++
		n.wg.Go(func() { n.restoreOne(c) })
	}
}

func (n *nodes) restoreOne(c client) {
	ctx, cancel := context.WithTimeout(n.ctx, restoreWithin)
	defer cancel()
	switch c := c.(type) { // where it fails, the next call that is cut off tries again
	case *redis.Client:
		_ = n.ping(ctx, c)
	case *redis.ClusterClient:
		_ = c.ForEachMaster(ctx, n.ping)
	}
	n.restoring.Lock()
	defer n.restoring.Unlock()
	n.made--
}

func (n *nodes) ping(ctx context.Context, c *redis.Client) (err error) {
	defer n.recovered(&err)
	return c.Ping(ctx).Err()
}
