package redisstore

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/redis/go-redis/v9"
)

// A call that is cut off loses its connection, and the next call needs a new one. A new connection
// takes round trips for TCP, HELLO, TLS and OnConnect. With a distant server the time of a call is
// too short for them: each attempt would be cut off, and there would never be a connection. After a
// call that was cut off, connections are therefore made in the background, with more time. They are
// several, since calls are concurrent, and they stay in the pool.

const (
	// restoreWithin bounds the time for a connection in the background.
	restoreWithin = 5 * time.Second
	// maxRestoring bounds the connections that are made concurrently. In a cluster each is one per
	// master.
	maxRestoring = 4
)

// cutOff reports whether a call was not answered in its time.
func cutOff(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// restore makes connections in the background after a call of a client was cut off, unless a
// connection is idle or connections are being made.
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
