package redisstore

import (
	"context"
	"time"
)

const (
	// failoverAddr is the address of the clients that NewFailoverClient returns. Their dialer asks
	// Sentinel.
	failoverAddr = "FailoverClient"
	// followEvery is the interval of the questions to Sentinel for the master. go-redis asks only
	// for the connections of the user's client. The tier's clients would stay on a master that was
	// demoted unnoticed.
	followEvery = time.Second
)

// followMaster closes connections to servers that are no longer the master, until ctx ends.
func (n *nodes) followMaster(ctx context.Context) {
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if conn, err := n.conns.dial(ctx, "tcp", failoverAddr); err == nil {
			n.conns.closeBut(conn.RemoteAddr().String())
			_ = conn.Close()
		}
	}
}
