package redisstore

import (
	"context"
	"time"
)

const (
	// failoverAddr is the address that NewFailoverClient gives its clients; their
	// dialer asks Sentinel.
	failoverAddr = "FailoverClient"
	// followEvery is the interval at which Sentinel is asked for the master. go-redis does it
	// for the connections of the user's client alone: ours would stay on a master
	// that was demoted without its knowledge.
	followEvery = time.Second
)

// followMaster closes connections to servers that are no longer master, until ctx ends.
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
